//! Workers that find, claim and spend at once, in schedules that a model checker picks: each load
//! and each swap is a point at which another worker may go on, and at which a worker may die.

use std::{
    cell::Cell,
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex as Notes},
};

use almoner_core::reservation::{
    Ledger, Reason, Refusal, Store, StoreError, Stored, Swap, Version,
};
use shuttle::{
    rand::{Rng, thread_rng},
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use crate::memory::*;

/// What one worker does, one after the other: subject, amount, and what becomes of it.
type Script = &'static [(&'static str, u64, End)];

#[derive(Clone, Copy)]
enum End {
    /// All of it is used.
    Settle,
    /// The worker dies and it is never settled.
    Drop,
    /// None of it is used; its slot is idle again.
    Release,
}
use End::{Drop, Release, Settle};

type Values = Mutex<BTreeMap<String, (Vec<u8>, NonZeroU32)>>;

/// One worker's way to the shared data.
struct Worker {
    values: Arc<Values>,
    /// Operations until it dies.
    life: Cell<u32>,
    /// Where it waits before each operation, if its steps are not for the model checker to choose.
    gate: Option<Gate>,
}

struct Gate {
    waits: Sender<()>,
    may_go: Receiver<()>,
}

impl Worker {
    fn immortal(values: &Arc<Values>) -> Self {
        Self {
            values: values.clone(),
            life: Cell::new(999),
            gate: None,
        }
    }

    fn step(&self) -> Result<(), StoreError> {
        if let Some(gate) = &self.gate {
            // Either fails once nobody directs it any more: then it goes on.
            let _ = gate.waits.send(());
            let _ = gate.may_go.recv();
        }
        let left = self.life.get().checked_sub(1).ok_or(StoreError)?;
        self.life.set(left);
        Ok(())
    }
}

impl Store for Worker {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        self.step()?;
        let values = self.values.lock().unwrap();
        let stored = values.get(key);
        Ok(stored.map(|(value, version)| Stored {
            value: value.clone(),
            version: Version(*version),
        }))
    }

    fn swap(&self, key: &str, value: &[u8], version: Version) -> Result<Swap, StoreError> {
        self.step()?;
        let mut values = self.values.lock().unwrap();
        let (stored, current) = values.get_mut(key).expect("laid out");
        if *current != version.0 {
            return Ok(Swap::Conflict);
        }
        *stored = value.to_vec();
        *current = current.checked_add(1).unwrap();
        Ok(Swap::Done)
    }
}

/// A table of `slots` for a limit of 10, and what its workers know that they spent.
struct Table {
    ledger: Ledger,
    values: Arc<Values>,
    spent: Notes<BTreeMap<&'static str, u64>>,
}

impl Table {
    fn of(slots: u32) -> Arc<Self> {
        let ledger = per_subject(10, "1m", slots);
        let laid_out = ledger
            .layout()
            .map(|(key, value)| (key, (value, NonZeroU32::MIN)));
        let values = Arc::new(Mutex::new(laid_out.collect()));
        Arc::new(Self {
            ledger,
            values,
            spent: Notes::default(),
        })
    }

    fn start(self: &Arc<Self>, worker: Worker, script: Script) -> JoinHandle<()> {
        let table = self.clone();
        thread::spawn(move || table.act(&worker, script))
    }

    fn note(&self, name: &'static str, spend: impl FnOnce(u64) -> u64) {
        let mut spent = self.spent.lock().unwrap();
        let spent = spent.entry(name).or_default();
        *spent = spend(*spent);
    }

    fn act(&self, worker: &Worker, script: Script) {
        for &(name, amount, end) in script {
            let asks = subject(name);
            let reserved = self
                .ledger
                .reserve(worker, &asks, &tokens(amount), START, HOLD);
            let Ok(reservation) = reserved else { continue };
            self.note(name, |spent| spent + amount);
            match end {
                Drop => {}
                Release => {
                    let released = self.ledger.release(worker, reservation, START);
                    if released.budgets[0].fault.is_none() {
                        self.note(name, |spent| spent - amount);
                    }
                }
                Settle => {
                    // Where this fails, what was held still counts, and all of it was used.
                    let _ = self
                        .ledger
                        .settle(worker, reservation, &tokens(amount), START);
                }
            }
        }
    }

    /// Asks what is left of each subject's budget.
    fn check(&self) {
        let spent = self.spent.lock().unwrap();
        for (name, spent) in spent.iter().filter(|(_, spent)| **spent > 0) {
            assert!(*spent <= 10, "`{name}` spent {spent} of 10");
            let witness = Worker::immortal(&self.values);
            let (asks, rest) = (subject(name), tokens(11 - spent));
            let refused = self.ledger.reserve(&witness, &asks, &rest, START, HOLD);
            assert!(
                matches!(
                    refused,
                    Err(Refusal {
                        reason: Reason::Spent { .. },
                        ..
                    })
                ),
                "some of the {spent} that `{name}` spent was forgotten"
            );
        }
    }
}

/// Runs the scripts at once, one worker each, some of which die at some point, and `other` beside.
fn run(slots: u32, scripts: &[Script], other: fn(&Values)) {
    let table = Table::of(slots);
    let values = table.values.clone();
    let other = thread::spawn(move || other(&values));
    let workers: Vec<_> = scripts
        .iter()
        .map(|&script| {
            let worker = Worker::immortal(&table.values);
            if thread_rng().gen_bool(0.4) {
                worker.life.set(thread_rng().gen_range(0..12));
            }
            table.start(worker, script)
        })
        .collect();
    workers
        .into_iter()
        .chain([other])
        .for_each(|thread| thread.join().unwrap());
    table.check();
}

const fn nobody(_: &Values) {}

/// Another plugin of the same `vm_id` writes over the index.
fn vandal(values: &Values) {
    let mut values = values.lock().unwrap();
    let (value, version) = values.values_mut().next().expect("the index");
    *value = b"garbage".to_vec();
    *version = version.checked_add(1).unwrap();
}

/// A worker that is told how far to go.
struct Directed {
    waits: Receiver<()>,
    may_go: Sender<()>,
    thread: JoinHandle<()>,
}

impl Directed {
    fn start(table: &Arc<Table>, script: Script) -> Self {
        let (waiting, waits) = channel();
        let (may_go, going) = channel();
        let gate = Some(Gate {
            waits: waiting,
            may_go: going,
        });
        let thread = table.start(
            Worker {
                gate,
                ..Worker::immortal(&table.values)
            },
            script,
        );
        waits.recv().unwrap();
        Self {
            waits,
            may_go,
            thread,
        }
    }

    /// Lets it do this many operations.
    fn go(&self, operations: usize) {
        for _ in 0..operations {
            self.may_go.send(()).unwrap();
            self.waits.recv().unwrap();
        }
    }

    fn finish(self) {
        let Self {
            waits,
            may_go,
            thread,
        } = self;
        std::mem::drop((waits, may_go));
        thread.join().unwrap();
    }
}

#[test]
fn one_subject_on_several_workers_spends_once() {
    const SCRIPTS: [Script; 3] = [&[("a", 6, Settle)], &[("a", 6, Drop)], &[("a", 6, Settle)]];
    shuttle::check_random(|| run(2, &SCRIPTS, nobody), 1_000);
    shuttle::check_pct(|| run(2, &SCRIPTS, nobody), 1_000, 4);
}

#[test]
fn subjects_that_evict_each_other_never_forget_what_was_spent() {
    const SCRIPTS: [Script; 4] = [
        &[("a", 6, Release), ("b", 6, Settle)],
        &[("b", 6, Release), ("a", 6, Settle)],
        &[("a", 6, Settle), ("c", 6, Drop)],
        &[("c", 6, Release), ("a", 6, Drop)],
    ];
    for slots in [1, 2] {
        shuttle::check_random(move || run(slots, &SCRIPTS, nobody), 1_000);
        shuttle::check_pct(move || run(slots, &SCRIPTS, nobody), 1_000, 5);
    }
}

#[test]
fn an_index_that_is_overwritten_while_slots_are_claimed_forgets_nothing() {
    const SCRIPTS: [Script; 3] = [
        &[("a", 6, Settle), ("b", 6, Settle)],
        &[("b", 6, Release), ("a", 6, Settle)],
        &[("a", 6, Drop)],
    ];
    shuttle::check_random(|| run(2, &SCRIPTS, vandal), 1_000);
    shuttle::check_pct(|| run(2, &SCRIPTS, vandal), 1_000, 5);
}

/// Steps of the first claim of a subject's slot, in order.
mod claim {
    pub(super) const INDEX_LOADED: usize = 1;
    pub(super) const SLOT_CLAIMED: usize = 3;
    pub(super) const CLAIM_LOADED: usize = 4;
    pub(super) const INDEX_SWAPPED: usize = 5;
    pub(super) const OPENED: usize = 6;
}

/// Two schedules that chance hardly ever finds: three workers meet at one slot, one of which knows
/// nothing of a whole life that the slot had since.
#[test]
fn a_slot_found_claimed_is_entered_in_the_index_before_it_is_spent_from() {
    shuttle::check_random(
        || {
            let table = Table::of(1);
            let stale = Directed::start(&table, &[("a", 6, Settle)]);
            stale.go(claim::INDEX_LOADED);
            let finder = Directed::start(&table, &[("a", 6, Release), ("a", 6, Settle)]);
            finder.go(claim::OPENED + 2);
            let evictor = Directed::start(&table, &[("e", 1, Settle)]);
            evictor.go(claim::CLAIM_LOADED);
            stale.go(claim::SLOT_CLAIMED - claim::INDEX_LOADED);
            finder.finish();
            evictor.finish();
            stale.finish();
            table.check();
        },
        1,
    );
}

#[test]
fn a_claimed_slot_is_opened_by_the_version_from_before_it_was_entered_in_the_index() {
    shuttle::check_random(
        || {
            let table = Table::of(1);
            let stale = Directed::start(&table, &[("a", 6, Settle)]);
            stale.go(claim::INDEX_LOADED);
            let claimant = Directed::start(&table, &[("a", 6, Settle)]);
            claimant.go(claim::INDEX_SWAPPED);
            let evictor = Directed::start(&table, &[("e", 1, Settle)]);
            evictor.go(claim::CLAIM_LOADED);
            stale.go(claim::SLOT_CLAIMED - claim::INDEX_LOADED);
            claimant.finish();
            evictor.finish();
            stale.finish();
            table.check();
        },
        1,
    );
}
