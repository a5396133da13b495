//! A budget per subject: a table of slots, each for one subject at a time.

use almoner_core::{
    reservation::{Fault, Ledger, Owners, Reason, Refusal, Reservation, Unit},
    units::Timestamp,
};

use crate::memory::*;

/// Subjects of a table of one bucket.
const SLOTS: usize = 4;

fn reserve(
    ledger: &Ledger,
    store: &Memory,
    name: &str,
    amount: u64,
    now: Timestamp,
) -> Result<Reservation, Refusal> {
    ledger.reserve(store, &subject(name), &tokens(amount), now, HOLD)
}

fn spend(ledger: &Ledger, store: &Memory, name: &str, amount: u64, now: Timestamp) {
    let reservation = reserve(ledger, store, name, amount, now).expect("reserved");
    let settlement = ledger.settle(store, reservation, &tokens(amount), now);
    assert_eq!(settlement.budgets[0].fault, None);
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("spiffe://prod.example/sa/{n}"))
        .collect()
}

/// The key of the bucket's index, and those of its slots.
fn keys(store: &Memory) -> (String, Vec<String>) {
    let (slots, index): (Vec<_>, Vec<_>) =
        store.keys().into_iter().partition(|key| key.contains('.'));
    (index[0].clone(), slots)
}

/// The keys that changed while `act` ran.
fn changed(store: &Memory, act: impl FnOnce()) -> Vec<String> {
    let before: Vec<_> = store.keys().iter().map(|key| store.value(key)).collect();
    act();
    let after = store.keys().into_iter().zip(before);
    after
        .filter(|(key, value)| store.value(key) != *value)
        .map(|(key, _)| key)
        .collect()
}

#[test]
fn each_subject_has_its_own_balance() {
    let ledger = per_subject(10, "1m", 8);
    let store = Memory::of(&ledger);
    for name in names(8) {
        spend(&ledger, &store, &name, 10, START);
    }
    for name in names(8) {
        assert!(reserve(&ledger, &store, &name, 1, START).is_err());
    }
}

#[test]
fn a_new_subject_is_refused_when_all_slots_are_taken_and_let_in_when_one_is_idle() {
    let ledger = per_subject(10, "1m", 4);
    let store = Memory::of(&ledger);
    let first = names(SLOTS);
    for name in &first {
        spend(&ledger, &store, name, 1, START);
    }
    let refusal = reserve(&ledger, &store, "late", 1, START).unwrap_err();
    assert_eq!(refusal.reason, Reason::Fault(Fault::TableFull));
    assert_eq!(
        store.keys().len(),
        SLOTS + 1,
        "no key is ever created on the way"
    );

    let almost = START.after(seconds(59));
    for name in &first[1..] {
        spend(&ledger, &store, name, 1, almost);
    }
    let later = START.after(seconds(62));
    spend(&ledger, &store, "late", 10, later);
    for name in &first[1..] {
        spend(&ledger, &store, name, 8, later);
        assert!(
            reserve(&ledger, &store, name, 2, later).is_err(),
            "its spending was forgotten"
        );
    }
    let refusal = reserve(&ledger, &store, &first[0], 1, later).unwrap_err();
    assert_eq!(refusal.reason, Reason::Fault(Fault::TableFull));
}

#[test]
fn a_running_exchange_keeps_its_slot() {
    let ledger = per_subject(10, "1s", 4);
    let store = Memory::of(&ledger);
    let running: Vec<_> = names(SLOTS)
        .iter()
        .map(|name| reserve(&ledger, &store, name, 5, START).unwrap())
        .collect();
    let later = START.after(seconds(600));
    assert!(reserve(&ledger, &store, "late", 1, later).is_err());
    for reservation in running {
        let settled = ledger
            .settle(&store, reservation, &tokens(3), later)
            .budgets[0];
        assert_eq!((settled.refund(), settled.fault), (2, None));
    }
    assert!(
        reserve(&ledger, &store, "late", 1, later).is_err(),
        "spent within the window"
    );
    spend(&ledger, &store, "late", 1, later.after(seconds(2)));
}

#[test]
fn what_was_used_beyond_a_hold_of_nothing_is_counted_after_its_slot_was_lost() {
    let ledger = per_subject(10, "1m", 4);
    let store = Memory::of(&ledger);
    let running = reserve(&ledger, &store, "first", 0, START).unwrap();
    for name in names(SLOTS) {
        let _ = reserve(&ledger, &store, &name, 0, START).expect("a slot that counts nothing");
    }
    let settled = ledger.settle(&store, running, &tokens(10), START).budgets[0];
    assert_eq!((settled.overdraft(), settled.fault), (10, None));
    assert!(reserve(&ledger, &store, "first", 1, START).is_err());
}

#[test]
fn a_subject_that_lost_its_slot_and_came_back_gets_no_refund_for_the_time_before() {
    let owners = Owners::Table(1);
    let ledger = Ledger::new("test", vec![budget("r", Unit::Requests, 1, "10s", owners)]);
    let store = Memory::of(&ledger);
    let before = reserve(&ledger, &store, "first", 0, START).unwrap();
    let refusal = reserve(&ledger, &store, "first", 0, START).unwrap_err();
    let Reason::Spent {
        retry_after: Some(wait),
        ..
    } = refusal.reason
    else {
        panic!("{refusal}")
    };
    let idle = START.after(wait);
    let other = reserve(&ledger, &store, "other", 0, idle).unwrap();
    let _ = ledger.release(&store, other, idle);

    let clock_back = Timestamp(idle.0 - 1);
    let _ = reserve(&ledger, &store, "first", 0, clock_back).unwrap();
    let _ = ledger.release(&store, before, clock_back);
    assert!(reserve(&ledger, &store, "first", 0, clock_back).is_err());
}

#[test]
fn a_large_table_holds_the_subjects_that_it_was_made_for() {
    let ledger = per_subject(10, "1m", 2000);
    let store = Memory::of(&ledger);
    for name in names(2000) {
        spend(&ledger, &store, &name, 10, START);
    }
    for name in names(2000) {
        assert!(reserve(&ledger, &store, &name, 1, START).is_err());
    }
}

#[test]
fn a_known_subject_costs_two_loads_and_a_swap() {
    let ledger = per_subject(10, "1m", 2000);
    let store = Memory::of(&ledger);
    spend(&ledger, &store, "known", 1, START);
    let before = store.operations.get();
    let reservation = reserve(&ledger, &store, "known", 1, START).unwrap();
    assert_eq!(store.operations.get() - before, 3);
    let _ = ledger.settle(&store, reservation, &tokens(1), START);
    assert_eq!(store.operations.get() - before, 5);
}

#[test]
fn a_slot_that_cannot_be_read_is_spent_for_its_subject_and_for_no_other() {
    let ledger = per_subject(10, "1m", 4);
    let store = Memory::of(&ledger);
    spend(&ledger, &store, "neighbour", 4, START);
    let slots = changed(&store, || spend(&ledger, &store, "victim", 4, START));
    let slot = slots.iter().find(|key| key.contains('.')).unwrap();
    store.overwrite(slot, b"garbage");

    let refusal = reserve(&ledger, &store, "victim", 1, START).unwrap_err();
    assert_eq!(refusal.reason, Reason::Fault(Fault::Malformed));
    let refusal = reserve(&ledger, &store, "victim", 1, START.after(seconds(59))).unwrap_err();
    assert!(matches!(
        refusal.reason,
        Reason::Spent {
            retry_after: Some(_),
            ..
        }
    ));
    spend(&ledger, &store, "neighbour", 6, START);
    spend(&ledger, &store, "victim", 10, START.after(seconds(62)));
}

#[test]
fn slots_that_cannot_be_read_are_claimed_only_after_a_window() {
    let ledger = per_subject(10, "1m", 4);
    let store = Memory::of(&ledger);
    for slot in keys(&store).1 {
        store.overwrite(&slot, b"garbage");
    }
    let refusal = reserve(&ledger, &store, "new", 1, START).unwrap_err();
    assert_eq!(refusal.reason, Reason::Fault(Fault::TableFull));
    spend(&ledger, &store, "new", 10, START.after(seconds(62)));
}

#[test]
fn an_index_that_cannot_be_read_is_made_again_and_nobody_spends_twice() {
    for bytes in [&b""[..], b"garbage", &[0; 1025], &[1; 1024]] {
        let ledger = per_subject(10, "1m", 4);
        let store = Memory::of(&ledger);
        for name in names(SLOTS) {
            spend(&ledger, &store, &name, 10, START);
        }
        store.overwrite(&keys(&store).0, bytes);
        for name in names(SLOTS) {
            let refusal = reserve(&ledger, &store, &name, 1, START).unwrap_err();
            assert!(matches!(refusal.reason, Reason::Spent { .. }), "{refusal}");
        }
    }
}

#[test]
fn a_worker_that_dies_at_any_step_of_a_claim_blocks_nobody() {
    let ledger = per_subject(10, "1m", 4);
    for steps in 0.. {
        let store = Memory::of(&ledger);
        store.dies_after.set(Some(steps));
        let first = reserve(&ledger, &store, "first", 4, START);
        store.dies_after.set(None);
        spend(&ledger, &store, "first", 6, START);
        for name in names(SLOTS - 1) {
            spend(&ledger, &store, &name, 1, START);
        }
        if first.is_ok() {
            assert!(steps > 3, "it took no steps to die at");
            assert!(reserve(&ledger, &store, "first", 1, START).is_err());
            break;
        }
        spend(&ledger, &store, "first", 10, START.after(HOLD * 2));
    }
}
