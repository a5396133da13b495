//! What a budget promises, one test each, on shared data in memory.

use std::time::Duration;

use almoner_core::reservation::{
    Amounts, BudgetIndex, Clamp, Fault, Ledger, OwnerId, Owners, Reason, Refusal, Reservation, Unit,
};
use almoner_core::units::Timestamp;

use crate::memory::*;

fn reserve(
    ledger: &Ledger,
    store: &Memory,
    amount: u64,
    now: Timestamp,
) -> Result<Reservation, Refusal> {
    ledger.reserve(store, &everybody(), &tokens(amount), now, HOLD)
}

fn spend(ledger: &Ledger, store: &Memory, amount: u64, now: Timestamp) {
    let reservation = reserve(ledger, store, amount, now).expect("reserved");
    let settlement = ledger.settle(store, reservation, &tokens(amount), now);
    assert_eq!(settlement.budgets[0].fault, None);
}

/// What is free for everybody: the largest ask that is admitted.
fn free(ledger: &Ledger, store: &Memory, now: Timestamp) -> u64 {
    let reservation = reserve(ledger, store, 0, now).expect("not overdrawn");
    let (_, standing) = reservation.standings().next().unwrap();
    let _ = ledger.release(store, reservation, now);
    standing.remaining
}

fn retry_after(refusal: Refusal) -> Option<Duration> {
    match refusal.reason {
        Reason::Spent { retry_after, .. } => retry_after,
        other => panic!("refused for another reason: {other}"),
    }
}

#[test]
fn admits_up_to_the_limit_and_refuses_when_the_budget_is_spent() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    let held = reserve(&ledger, &store, 60, START).unwrap();
    spend(&ledger, &store, 40, START);
    let refusal = reserve(&ledger, &store, 1, START).unwrap_err();
    assert_eq!(refusal.budget, BudgetIndex(0));
    let Reason::Spent { standing, .. } = refusal.reason else {
        panic!("{refusal}")
    };
    assert_eq!((standing.limit, standing.remaining), (100, 0));
    let _ = ledger.release(&store, held, START);
}

#[test]
fn refunds_what_was_not_used_and_counts_an_overdraft_against_the_next() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    let first = reserve(&ledger, &store, 50, START).unwrap();
    let settled = ledger.settle(&store, first, &tokens(20), START).budgets[0];
    assert_eq!((settled.refund(), settled.overdraft()), (30, 0));
    assert_eq!(free(&ledger, &store, START), 80);

    let second = reserve(&ledger, &store, 50, START).unwrap();
    let settled = ledger.settle(&store, second, &tokens(110), START).budgets[0];
    assert_eq!((settled.refund(), settled.overdraft()), (0, 60));
    let refusal = reserve(&ledger, &store, 0, START).unwrap_err();
    assert!(
        retry_after(refusal).is_some(),
        "130 of 100 spent, yet it ages out"
    );
}

#[test]
fn what_never_went_upstream_is_given_back_whole() {
    let owners = || Owners::Listed(vec![OwnerId::all()]);
    let ledger = Ledger::new(
        "test",
        vec![
            budget("requests", Unit::Requests, 1, "1m", owners()),
            budget("tokens", Unit::Tokens, 10, "1m", owners()),
        ],
    );
    let store = Memory::of(&ledger);
    let asks = [ask(0, OwnerId::all()), ask(1, OwnerId::all())];
    for _ in 0..5 {
        let all = ledger
            .reserve(&store, &asks, &tokens(10), START, HOLD)
            .unwrap();
        let released = ledger.release(&store, all, START);
        assert!(
            released
                .budgets
                .iter()
                .all(|settled| settled.fault.is_none())
        );
    }
}

#[test]
fn several_budgets_are_taken_all_or_none() {
    let owners = || Owners::Listed(vec![OwnerId::all()]);
    let ledger = Ledger::new(
        "test",
        vec![
            budget("requests", Unit::Requests, 10, "1m", owners()),
            budget("input", Unit::InputTokens, 100, "1h", owners()),
            budget("usd", Unit::MicroUsd, 5, "month", owners()),
        ],
    );
    let store = Memory::of(&ledger);
    let asks: Vec<_> = (0..3).map(|at| ask(at, OwnerId::all())).collect();
    let refusal = ledger
        .reserve(&store, &asks, &tokens(6), START, HOLD)
        .unwrap_err();
    assert_eq!(refusal.budget, BudgetIndex(2));
    assert_eq!(retry_after(refusal), None, "6 of 5 never fits");

    let fits = ledger
        .reserve(&store, &asks, &tokens(5), START, HOLD)
        .unwrap();
    let remaining: Vec<_> = fits
        .standings()
        .map(|(_, standing)| standing.remaining)
        .collect();
    assert_eq!(remaining, [9, 100, 0]);
    let _ = ledger.release(&store, fits, START);
}

#[test]
fn a_request_counts_when_it_is_admitted_and_not_while_it_streams() {
    let owners = Owners::Listed(vec![OwnerId::all()]);
    let ledger = Ledger::new("test", vec![budget("r", Unit::Requests, 2, "1s", owners)]);
    let store = Memory::of(&ledger);
    let running: Vec<_> = (0..2)
        .map(|_| reserve(&ledger, &store, 1, START).unwrap())
        .collect();
    let refusal = reserve(&ledger, &store, 1, START).unwrap_err();
    let later = START.after(retry_after(refusal).unwrap());
    spend(&ledger, &store, 1, later);
    let before = store.operations.get();
    for reservation in running {
        let _ = ledger.settle(&store, reservation, &tokens(1), later);
    }
    assert_eq!(
        store.operations.get(),
        before,
        "settling it needs no shared data"
    );
}

#[test]
fn a_rolling_window_frees_a_slot_at_a_time_and_never_early() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    spend(&ledger, &store, 30, START);
    spend(&ledger, &store, 70, START.after(seconds(30)));
    let edge = |now: Timestamp| {
        let refusal = reserve(&ledger, &store, 30, now).unwrap_err();
        now.after(retry_after(refusal).unwrap())
    };
    let frees = edge(START.after(seconds(30)));
    assert!(frees >= START.after(seconds(60)) && frees <= START.after(seconds(61)));
    assert_eq!(
        edge(Timestamp(frees.0 - 1)),
        frees,
        "still spent one millisecond before"
    );
    assert_eq!(free(&ledger, &store, frees), 30);
    assert_eq!(free(&ledger, &store, frees.after(seconds(30))), 100);
}

#[test]
fn retry_after_is_when_this_ask_fits_and_none_when_it_never_does() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    for second in 0..10 {
        spend(&ledger, &store, 10, START.after(seconds(second)));
    }
    let now = START.after(seconds(10));
    for amount in [1, 10, 11, 55, 100] {
        let refusal = reserve(&ledger, &store, amount, now).unwrap_err();
        let fits = now.after(retry_after(refusal).unwrap());
        assert!(reserve(&ledger, &store, amount, Timestamp(fits.0 - 1)).is_err());
        // In shared data of its own, so that the next amount finds the same.
        let copy = Memory::default();
        store
            .keys()
            .iter()
            .for_each(|key| copy.overwrite(key, &store.value(key)));
        let _ = reserve(&ledger, &copy, amount, fits).expect("fits when it said so");
    }
    assert_eq!(
        retry_after(reserve(&ledger, &store, 101, now).unwrap_err()),
        None
    );
}

#[test]
fn a_hold_that_nobody_settles_counts_as_spent_when_it_ends_and_then_is_free() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    drop(reserve(&ledger, &store, 100, START).unwrap());
    let refusal = reserve(&ledger, &store, 1, START).unwrap_err();
    let wait = retry_after(refusal).unwrap();
    assert!(wait >= HOLD + seconds(60), "held, then spent for a window");
    assert!(
        wait <= HOLD + HOLD / 7 + seconds(61),
        "ends soon after it was to"
    );
    for fraction in [1, 2, 3] {
        assert!(reserve(&ledger, &store, 1, START.after(wait * fraction / 4)).is_err());
    }
    assert_eq!(free(&ledger, &store, START.after(wait)), 100);
}

#[test]
fn settling_after_the_hold_ended_charges_exactly_what_was_used() {
    for used in [0, 40, 100, 130] {
        let ledger = shared(1000, "1h");
        let store = Memory::of(&ledger);
        let late = reserve(&ledger, &store, 100, START).unwrap();
        let now = START.after(HOLD * 2);
        assert_eq!(free(&ledger, &store, now), 900);
        let settled = ledger.settle(&store, late, &tokens(used), now).budgets[0];
        assert_eq!(settled.fault, None);
        assert_eq!(free(&ledger, &store, now), 1000 - used);
    }
}

#[test]
fn a_hold_that_ended_has_ended_when_a_longer_one_is_taken() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    let moment = Duration::from_millis(1);
    let short = ledger
        .reserve(&store, &everybody(), &tokens(10), START, moment)
        .unwrap();
    let now = START.after(moment);
    let long = reserve(&ledger, &store, 20, now).unwrap();
    let _ = ledger.settle(&store, short, &tokens(0), now);
    assert_eq!(free(&ledger, &store, now), 80);
    let _ = ledger.settle(&store, long, &tokens(20), now);
}

#[test]
fn a_top_up_lasts_as_long_as_the_reservation_did_when_it_held_nothing() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    let mut long = reserve(&ledger, &store, 0, START).unwrap();
    let moment = Duration::from_millis(1);
    let short = ledger
        .reserve(&store, &everybody(), &tokens(0), START, moment)
        .unwrap();
    ledger
        .top_up(&store, &mut long, &tokens(10), START)
        .unwrap();
    let now = START.after(HOLD / 2);
    assert_eq!(free(&ledger, &store, now), 90);
    let _ = ledger.settle(&store, long, &tokens(0), now);
    assert_eq!(free(&ledger, &store, now), 100);
    let _ = ledger.settle(&store, short, &tokens(0), now);
}

#[test]
fn a_top_up_extends_the_hold_or_changes_nothing() {
    let owners = || Owners::Listed(vec![OwnerId::all()]);
    let ledger = Ledger::new(
        "test",
        vec![
            budget("minute", Unit::Tokens, 100, "1m", owners()),
            budget("hour", Unit::OutputTokens, 50, "1h", owners()),
        ],
    );
    let store = Memory::of(&ledger);
    let asks = [ask(0, OwnerId::all()), ask(1, OwnerId::all())];
    let mut running = ledger
        .reserve(&store, &asks, &tokens(10), START, HOLD)
        .unwrap();
    let more = |output| Amounts {
        requests: 0,
        ..tokens(output)
    };
    ledger
        .top_up(&store, &mut running, &more(40), START)
        .unwrap();
    let refusal = ledger
        .top_up(&store, &mut running, &more(1), START)
        .unwrap_err();
    assert_eq!(refusal.budget, BudgetIndex(1));
    let remaining: Vec<_> = running
        .standings()
        .map(|(_, standing)| standing.remaining)
        .collect();
    assert_eq!(remaining, [50, 0]);
    let settlement = ledger.settle(&store, running, &tokens(20), START);
    assert_eq!(
        settlement
            .budgets
            .iter()
            .map(|s| s.reserved)
            .collect::<Vec<_>>(),
        [50, 50]
    );
    let all = ledger
        .reserve(&store, &asks, &tokens(30), START, HOLD)
        .unwrap();
    let _ = ledger.release(&store, all, START);
}

#[test]
fn a_top_up_after_the_hold_ended_is_refused() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    let mut running = reserve(&ledger, &store, 10, START).unwrap();
    let refusal = ledger
        .top_up(&store, &mut running, &tokens(1), START.after(HOLD * 2))
        .unwrap_err();
    assert_eq!(refusal.reason, Reason::Lapsed);
}

#[test]
fn a_clamp_lowers_the_limit_for_new_and_running_exchanges() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    let mut running = reserve(&ledger, &store, 20, START).unwrap();
    running.clamp(OwnerId::all(), Clamp::per_mille(250));
    ledger
        .top_up(&store, &mut running, &tokens(5), START)
        .unwrap();
    assert!(
        ledger
            .top_up(&store, &mut running, &tokens(1), START)
            .is_err()
    );
    let clamped = [almoner_core::reservation::Ask {
        clamp: Clamp::per_mille(250),
        ..everybody()[0]
    }];
    assert!(
        ledger
            .reserve(&store, &clamped, &tokens(1), START, HOLD)
            .is_err()
    );
    running.clamp(OwnerId::all(), Clamp::NONE);
    ledger
        .top_up(&store, &mut running, &tokens(75), START)
        .unwrap();
    let _ = ledger.release(&store, running, START);
}

#[test]
fn a_clock_that_goes_back_frees_nothing() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    spend(&ledger, &store, 100, START);
    for back in [1, 61, 3600, 86400 * 40] {
        let now = Timestamp(START.0 - back * 1000);
        let refusal = reserve(&ledger, &store, 1, now).unwrap_err();
        assert!(now.after(retry_after(refusal).unwrap()) >= START.after(seconds(60)));
    }
    assert_eq!(free(&ledger, &store, START.after(seconds(61))), 100);
}

#[test]
fn a_month_is_free_again_on_its_first_day_and_holds_cross_its_edge() {
    let ledger = shared(100, "month");
    let store = Memory::of(&ledger);
    let december = Timestamp(1_796_083_200_000); // 2026-12-01
    let now = Timestamp(december.0 - 1);
    spend(&ledger, &store, 60, now);
    let running = reserve(&ledger, &store, 40, now).unwrap();
    let refusal = reserve(&ledger, &store, 60, now).unwrap_err();
    assert_eq!(now.after(retry_after(refusal).unwrap()), december);
    assert_eq!(
        free(&ledger, &store, december),
        60,
        "what is held counts in both months"
    );
    let _ = ledger.settle(&store, running, &tokens(40), december);
    assert_eq!(free(&ledger, &store, december), 60);
}

#[test]
fn a_value_that_cannot_be_read_counts_as_spent_for_one_window() {
    let ledger = shared(100, "1m");
    for bytes in [
        &b""[..],
        b"\x00",
        b"garbage",
        &[1, 2],
        &[2, 0],
        &[1; 668],
        &[0xff; 668],
    ] {
        let store = Memory::of(&ledger);
        let key = &store.keys()[0];
        store.overwrite(key, bytes);
        let refusal = reserve(&ledger, &store, 1, START).unwrap_err();
        assert_eq!(refusal.reason, Reason::Fault(Fault::Malformed), "{bytes:?}");
        let refusal = reserve(&ledger, &store, 1, START).unwrap_err();
        let frees = START.after(retry_after(refusal).unwrap());
        assert!(frees >= START.after(seconds(60)));
        assert!(reserve(&ledger, &store, 1, Timestamp(frees.0 - 1)).is_err());
        assert_eq!(free(&ledger, &store, frees), 100);
    }
}

#[test]
fn a_value_of_another_version_counts_as_spent() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    let key = &store.keys()[0];
    let mut value = store.value(key);
    value[0] += 1;
    store.overwrite(key, &value);
    let refusal = reserve(&ledger, &store, 1, START).unwrap_err();
    assert_eq!(refusal.reason, Reason::Fault(Fault::Malformed));
}

#[test]
fn a_changed_limit_keeps_what_was_spent() {
    let store = Memory::of(&shared(100, "1m"));
    spend(&shared(100, "1m"), &store, 80, START);
    assert!(reserve(&shared(50, "1m"), &store, 1, START).is_err());
    assert_eq!(free(&shared(200, "1m"), &store, START), 120);
}

#[test]
fn a_changed_window_counts_what_was_spent_as_spent_now() {
    let (minute, month) = (shared(100, "1m"), shared(100, "month"));
    let store = Memory::of(&minute);
    let running = reserve(&minute, &store, 10, START).unwrap();
    spend(&minute, &store, 80, START);
    assert_eq!(free(&month, &store, START.after(seconds(59))), 10);
    let now = START.after(seconds(3600));
    let settled = minute.settle(&store, running, &tokens(5), now);
    assert_eq!(settled.budgets[0].fault, None);
    assert_eq!(free(&month, &store, now), 15);
    assert_eq!(
        free(&shared(100, "5h"), &store, now.after(seconds(86400 * 2))),
        15
    );
}

#[test]
fn faults_of_the_store_refuse_and_never_free() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    store.conflicts.set(1000);
    let refusal = reserve(&ledger, &store, 1, START).unwrap_err();
    assert_eq!(refusal.reason, Reason::Fault(Fault::Contended));
    store.conflicts.set(5);
    let running = reserve(&ledger, &store, 100, START).expect("a few lost races are no refusal");

    store.dies_after.set(Some(0));
    let settled = ledger.settle(&store, running, &tokens(1), START).budgets[0];
    assert_eq!(
        (settled.fault, settled.refund()),
        (Some(Fault::StoreFailed), 0)
    );
    let refusal = reserve(&ledger, &store, 1, START).unwrap_err();
    assert_eq!(refusal.reason, Reason::Fault(Fault::StoreFailed));
    store.dies_after.set(None);
    assert!(retry_after(reserve(&ledger, &store, 1, START).unwrap_err()) > Some(HOLD));

    store.remove(&store.keys()[0]);
    let refusal = reserve(&ledger, &store, 1, START).unwrap_err();
    assert_eq!(refusal.reason, Reason::Fault(Fault::Missing));
}

#[test]
fn an_owner_or_budget_that_was_never_listed_is_refused() {
    let ledger = shared(100, "1m");
    let store = Memory::of(&ledger);
    for asks in [[ask(0, OwnerId::policy("other"))], [ask(1, OwnerId::all())]] {
        let refusal = ledger
            .reserve(&store, &asks, &tokens(1), START, HOLD)
            .unwrap_err();
        assert_eq!(refusal.reason, Reason::Fault(Fault::Missing));
    }
}

#[test]
fn absurd_amounts_and_times_saturate() {
    let ledger = shared(u64::MAX, "1d");
    let store = Memory::of(&ledger);
    let running = reserve(&ledger, &store, u64::MAX, START).unwrap();
    let _ = ledger.settle(&store, running, &tokens(u64::MAX), START);
    assert!(reserve(&ledger, &store, 1, START).is_err());
    spend(&ledger, &store, 1, Timestamp(u64::MAX));
    let forever = Duration::MAX;
    let store = Memory::of(&ledger);
    let running = ledger
        .reserve(&store, &everybody(), &tokens(7), START, forever)
        .unwrap();
    let settled = ledger.settle(&store, running, &tokens(7), START).budgets[0];
    assert_eq!((settled.refund(), settled.fault), (0, None));
    assert_eq!(free(&ledger, &store, START), u64::MAX - 7);
}

#[test]
fn namespaces_and_budgets_never_share_a_key() {
    let owners = || Owners::Listed(vec![OwnerId::all()]);
    let ledger = |namespace: &str, name: &str| {
        Ledger::new(
            namespace,
            vec![budget(name, Unit::Tokens, 1, "1m", owners())],
        )
    };
    let key = |ledger: Ledger| ledger.layout().next().unwrap().0;
    let keys: std::collections::BTreeSet<_> = [
        ("a", "b"),
        ("a/1:b", "b"),
        ("a", "b/"),
        ("", "a"),
        ("a/", "b"),
    ]
    .map(|(namespace, name)| key(ledger(namespace, name)))
    .into();
    assert_eq!(keys.len(), 5);
}
