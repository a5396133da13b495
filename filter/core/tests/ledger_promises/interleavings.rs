//! Any order of steps of any number of exchanges, with lost races, deaths and a clock that jumps,
//! against a model that knows, of each amount, until when it must count and from when it may not.

use std::{collections::BTreeMap, time::Duration};

use almoner_core::{
    reservation::{
        Amounts, Ask, BudgetIndex, Fault, Ledger, OwnerId, Owners, Reason, Refusal, Reservation,
        Unit,
    },
    units::Timestamp,
};
use proptest::prelude::*;

use crate::memory::*;

/// One step of one exchange, or of the clock.
#[derive(Clone, Debug)]
enum Step {
    Reserve {
        subject: u8,
        amount: u64,
        hold: u64,
        faults: Faults,
    },
    TopUp {
        exchange: usize,
        amount: u64,
        faults: Faults,
    },
    /// Uses this many hundredths of what it reserved.
    Settle {
        exchange: usize,
        percent: u64,
        faults: Faults,
    },
    Release {
        exchange: usize,
    },
    /// Its worker dies: nobody will ever settle it.
    Crash {
        exchange: usize,
    },
    Wait {
        millis: u64,
    },
    ClockBack {
        millis: u64,
    },
}

/// What goes wrong in shared data during one step.
#[derive(Clone, Debug)]
struct Faults {
    lost_races: u32,
    dies_after: Option<u32>,
}

fn faults() -> impl Strategy<Value = Faults> {
    let dies_after = prop_oneof![9 => Just(None), 1 => (0..12u32).prop_map(Some)];
    (0..3u32, dies_after).prop_map(|(lost_races, dies_after)| Faults {
        lost_races,
        dies_after,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let exchange = 0..8usize;
    let percent = prop_oneof![4 => 0..=100u64, 1 => 100..=200u64];
    prop_oneof![
        6 => (0..3u8, 0..60u64, 0..90_000u64, faults()).prop_map(
            |(subject, amount, hold, faults)| Step::Reserve { subject, amount, hold, faults }
        ),
        2 => (exchange.clone(), 0..40u64, faults()).prop_map(
            |(exchange, amount, faults)| Step::TopUp { exchange, amount, faults }
        ),
        4 => (exchange.clone(), percent, faults()).prop_map(
            |(exchange, percent, faults)| Step::Settle { exchange, percent, faults }
        ),
        1 => exchange.clone().prop_map(|exchange| Step::Release { exchange }),
        1 => exchange.prop_map(|exchange| Step::Crash { exchange }),
        3 => (0..20_000u64).prop_map(|millis| Step::Wait { millis }),
        1 => (20_000..200_000u64).prop_map(|millis| Step::Wait { millis }),
        1 => (0..70_000u64).prop_map(|millis| Step::ClockBack { millis }),
    ]
}

const SLOTS: usize = 2;
const LONGEST_HOLD: u64 = 90_000;

/// Limit and window in milliseconds of each budget.
const BUDGETS: [(u64, u64); 3] = [(4, 10_000), (100, 60_000), (150, 3_600_000)];

fn ledger() -> Ledger {
    let everybody = Owners::Listed(vec![OwnerId::all()]);
    let each = || Owners::Table(SLOTS as u32);
    Ledger::new(
        "test",
        vec![
            budget("requests", Unit::Requests, BUDGETS[0].0, "10s", each()),
            budget("tokens", Unit::Tokens, BUDGETS[1].0, "1m", each()),
            budget("money", Unit::MicroUsd, BUDGETS[2].0, "1h", everybody),
        ],
    )
}

fn owner(budget: usize, subject: u8) -> OwnerId {
    if budget == 2 {
        OwnerId::all()
    } else {
        OwnerId::subject(&format!("subject-{subject}"))
    }
}

fn asks(subject: u8) -> Vec<Ask> {
    (0..BUDGETS.len())
        .map(|budget| ask(budget, owner(budget, subject)))
        .collect()
}

fn amounts_of(amounts: &Amounts) -> [u64; 3] {
    [amounts.requests, amounts.output.0, amounts.cost.0]
}

/// An amount that counts against a limit.
#[derive(Clone, Copy, Debug)]
struct Counted {
    amount: u64,
    /// Not before the clock has shown this time.
    must_until: u64,
    /// Certainly not once the clock shows this time.
    may_until: u64,
}

/// What one exchange counts, by budget.
#[derive(Debug)]
struct Exchange {
    subject: u8,
    counted: [Counted; 3],
    /// When its hold may end by itself.
    hold_ends: u64,
    reservation: Option<Reservation>,
}

struct Run {
    ledger: Ledger,
    store: Memory,
    exchanges: Vec<Exchange>,
    /// What the clock shows, and the latest that it ever showed.
    now: u64,
    peak: u64,
}

impl Run {
    fn new() -> Self {
        let ledger = ledger();
        let store = Memory::of(&ledger);
        Self {
            ledger,
            store,
            exchanges: Vec::new(),
            now: START.0,
            peak: START.0,
        }
    }

    fn set_clock(&mut self, now: u64) {
        self.now = now;
        self.peak = self.peak.max(now);
    }

    fn fail(&self, faults: &Faults) {
        self.store.conflicts.set(faults.lost_races);
        self.store.dies_after.set(faults.dies_after);
    }

    fn recover(&self) {
        self.store.conflicts.set(0);
        self.store.dies_after.set(None);
    }

    /// What counts now for one owner, at least and at most.
    fn counted(&self, budget: usize, subject: u8) -> (u64, u64) {
        let of_owner =
            |exchange: &&Exchange| owner(budget, exchange.subject) == owner(budget, subject);
        let counted = self
            .exchanges
            .iter()
            .filter(of_owner)
            .map(|e| e.counted[budget]);
        counted.fold((0, 0), |(must, may), counted| {
            (
                must + if counted.must_until > self.peak {
                    counted.amount
                } else {
                    0
                },
                may + if counted.may_until > self.now {
                    counted.amount
                } else {
                    0
                },
            )
        })
    }

    /// An amount that is spent now.
    fn spent(&self, budget: usize, amount: u64) -> Counted {
        let window = BUDGETS[budget].1;
        Counted {
            amount,
            must_until: self.now + window,
            may_until: self.peak + window + window / 60 + 61,
        }
    }

    /// An amount that is held from now on, and spent when the hold ends unless it is settled.
    fn held(&self, budget: usize, amount: u64, hold: u64) -> Counted {
        if budget == 0 {
            return self.spent(budget, amount);
        }
        let spent = self.spent(budget, amount);
        Counted {
            amount,
            must_until: spent.must_until + hold,
            may_until: spent.may_until + hold + LONGEST_HOLD / 7,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Wait { millis } => self.set_clock(self.now + millis),
            Step::ClockBack { millis } => self.set_clock(self.now - millis),
            Step::Crash { exchange } => {
                self.running(exchange);
            }
            Step::Reserve {
                subject,
                amount,
                hold,
                ref faults,
            } => {
                self.reserve(subject, amount, hold, faults);
            }
            Step::TopUp {
                exchange,
                amount,
                ref faults,
            } => self.top_up(exchange, amount, faults),
            Step::Settle {
                exchange,
                percent,
                ref faults,
            } => {
                self.settle(exchange, percent, faults);
            }
            Step::Release { exchange } => {
                if let Some((at, reservation)) = self.running(exchange) {
                    let now = Timestamp(self.now);
                    let released = self.ledger.release(&self.store, reservation, now);
                    assert!(
                        released
                            .budgets
                            .iter()
                            .all(|settled| settled.fault.is_none())
                    );
                    for budget in 0..BUDGETS.len() {
                        self.count_late_refund(at, budget, u64::MAX);
                        self.exchanges[at].counted[budget].amount = 0;
                    }
                }
            }
        }
    }

    /// Takes the reservation of the nth exchange that still runs.
    fn running(&mut self, nth: usize) -> Option<(usize, Reservation)> {
        let running = self.exchanges.iter_mut().enumerate().rev();
        let mut running = running.filter(|(_, exchange)| exchange.reservation.is_some());
        let (at, exchange) = running.nth(nth)?;
        exchange
            .reservation
            .take()
            .map(|reservation| (at, reservation))
    }

    fn reserve(&mut self, subject: u8, amount: u64, hold: u64, faults: &Faults) {
        let amounts = tokens(amount);
        let counted: [_; 3] =
            std::array::from_fn(|at| self.held(at, amounts_of(&amounts)[at], hold));
        let before: [_; 3] = std::array::from_fn(|at| self.counted(at, subject));

        self.fail(faults);
        let span = Duration::from_millis(hold);
        let now = Timestamp(self.now);
        let reserved = self
            .ledger
            .reserve(&self.store, &asks(subject), &amounts, now, span);
        self.recover();

        let mut exchange = Exchange {
            subject,
            counted,
            hold_ends: self.now + hold,
            reservation: None,
        };
        match reserved {
            Ok(reservation) => {
                for (at, (must, _)) in before.into_iter().enumerate() {
                    assert!(
                        must + counted[at].amount <= BUDGETS[at].0,
                        "above limit {at}"
                    );
                }
                exchange.reservation = Some(reservation);
                self.exchanges.push(exchange);
                self.check_standings();
            }
            Err(refusal) => {
                if refusal.reason != Reason::Fault(Fault::StoreFailed) {
                    self.check_refusal(refusal, subject, &before, &counted);
                }
                if faults.dies_after.is_some() {
                    // It may have died before it gave back what it had.
                    exchange
                        .counted
                        .iter_mut()
                        .for_each(|counted| counted.must_until = 0);
                    self.exchanges.push(exchange);
                }
            }
        }
    }

    fn check_refusal(
        &self,
        refusal: Refusal,
        subject: u8,
        before: &[(u64, u64); 3],
        asked: &[Counted; 3],
    ) {
        let BudgetIndex(at) = refusal.budget;
        let (limit, asked) = (BUDGETS[at].0, asked[at].amount);
        match refusal.reason {
            Reason::Spent {
                retry_after,
                standing,
            } => {
                assert!(
                    before[at].1 + asked > limit,
                    "refused by {at} though it fits"
                );
                assert_eq!(
                    retry_after.is_none(),
                    asked > limit,
                    "waiting helps, or does not"
                );
                assert!(retry_after != Some(Duration::ZERO));
                assert!(standing.remaining < asked || before[at].1 > limit);
            }
            Reason::Fault(Fault::TableFull) => {
                let others = (0..3).filter(|other| *other != subject);
                let live = others
                    .filter(|other| self.counted(at, *other).1 > 0)
                    .count();
                assert!(at < 2 && live >= SLOTS, "table {at} is not full");
            }
            other => panic!("{other}"),
        }
    }

    /// What the last reservation says of its budgets is what the model knows.
    fn check_standings(&self) {
        let exchange = self.exchanges.last().unwrap();
        for (BudgetIndex(at), standing) in exchange.reservation.as_ref().unwrap().standings() {
            let (must, may) = self.counted(at, exchange.subject);
            let limit = BUDGETS[at].0;
            assert!(
                standing.remaining <= limit.saturating_sub(must),
                "{at} forgot something"
            );
            assert!(
                standing.remaining >= limit.saturating_sub(may),
                "{at} freed too little"
            );
        }
    }

    fn top_up(&mut self, nth: usize, amount: u64, faults: &Faults) {
        let Some((at, mut reservation)) = self.running(nth) else {
            return;
        };
        let more = Amounts {
            requests: 0,
            ..tokens(amount)
        };
        let subject = self.exchanges[at].subject;
        let before: [_; 3] = std::array::from_fn(|budget| self.counted(budget, subject));
        self.fail(faults);
        let topped = self
            .ledger
            .top_up(&self.store, &mut reservation, &more, Timestamp(self.now));
        self.recover();
        if let Err(refusal) = topped {
            let BudgetIndex(budget) = refusal.budget;
            match refusal.reason {
                Reason::Fault(Fault::StoreFailed) => {}
                Reason::Lapsed => {
                    // Nobody's slot is kept for a hold of nothing.
                    let exchange = &self.exchanges[at];
                    let held = exchange.counted[budget].amount;
                    assert!(self.peak >= exchange.hold_ends || held == 0, "early");
                }
                Reason::Spent { .. } => assert!(before[budget].1 + amount > BUDGETS[budget].0),
                Reason::Fault(fault) => panic!("{fault}"),
            }
            if faults.dies_after.is_some() {
                // It may have died before it gave back what it had added.
                let mut counted = self.exchanges[at].counted;
                for counted in &mut counted {
                    (counted.amount, counted.must_until) = (amount, 0);
                }
                self.exchanges.push(Exchange {
                    subject,
                    counted,
                    hold_ends: 0,
                    reservation: None,
                });
                return;
            }
        } else {
            for budget in 1..3 {
                let fits = before[budget].0 + amount <= BUDGETS[budget].0;
                assert!(amount == 0 || fits, "above limit {budget}");
                self.exchanges[at].counted[budget].amount += amount;
            }
        }
        self.exchanges[at].reservation = Some(reservation);
    }

    fn settle(&mut self, nth: usize, percent: u64, faults: &Faults) {
        let Some((at, reservation)) = self.running(nth) else {
            return;
        };
        let used = tokens(self.exchanges[at].counted[1].amount * percent / 100);
        self.fail(faults);
        let settlement = self
            .ledger
            .settle(&self.store, reservation, &used, Timestamp(self.now));
        self.recover();
        let hold_ends = self.exchanges[at].hold_ends;
        let ended = self.peak >= hold_ends;
        for (budget, settled) in settlement.budgets.iter().enumerate() {
            let counted = self.exchanges[at].counted[budget];
            assert_eq!(
                (settled.reserved, settled.used),
                (counted.amount, amounts_of(&used)[budget])
            );
            match settled.fault {
                None if budget == 0 => {}
                None => {
                    let unused = settled.refund();
                    self.count_late_refund(at, budget, unused);
                    let mut spent = self.spent(budget, settled.used);
                    if ended {
                        // It counted as spent from the end of its hold; only an overdraft is new.
                        let over = self.spent(budget, settled.overdraft());
                        spent.amount = settled.used - over.amount;
                        spent.must_until = spent.must_until.min(counted.must_until);
                        spent.may_until = spent.may_until.max(counted.may_until);
                        self.count(at, budget, over);
                    }
                    self.exchanges[at].counted[budget] = spent;
                }
                // It died: what was reserved goes on to count.
                Some(Fault::StoreFailed) => {}
                // What it reserved left the window and its slot; what it used beyond has no slot.
                Some(Fault::TableFull) => assert!(settled.overdraft() > 0 && budget < 2),
                Some(fault) => panic!("{fault}"),
            }
        }
    }

    /// A hold may end up to a step of its ring later than it asked for, and what it held is then
    /// among what others spent since. What is given back later is taken from the oldest of it, so
    /// as much goes on to count until the latest has left the window.
    fn count_late_refund(&mut self, at: usize, budget: usize, unused: u64) {
        let exchange = &self.exchanges[at];
        if budget > 0 && self.peak >= exchange.hold_ends {
            let Counted {
                amount, may_until, ..
            } = exchange.counted[budget];
            let amount = amount.min(unused);
            self.count(
                at,
                budget,
                Counted {
                    amount,
                    must_until: 0,
                    may_until,
                },
            );
        }
    }

    /// Counts an amount beside an exchange's own.
    fn count(&mut self, at: usize, budget: usize, amount: Counted) {
        let nothing = Counted {
            amount: 0,
            must_until: 0,
            may_until: 0,
        };
        let mut counted = [nothing; 3];
        counted[budget] = amount;
        let (subject, hold_ends) = (self.exchanges[at].subject, 0);
        self.exchanges.push(Exchange {
            subject,
            counted,
            hold_ends,
            reservation: None,
        });
    }

    /// After the last hold and the longest window, nothing is left of anything.
    fn finish(mut self) {
        self.set_clock(self.peak + 2 * LONGEST_HOLD + BUDGETS[2].1 * 2);
        self.exchanges.clear();
        for subject in 0..3 {
            let all = tokens(BUDGETS[1].0);
            let now = Timestamp(self.now);
            let reserved = self
                .ledger
                .reserve(&self.store, &asks(subject), &all, now, HOLD);
            let reservation = reserved.unwrap_or_else(|refusal| panic!("not freed: {refusal}"));
            let remaining: BTreeMap<_, _> = reservation
                .standings()
                .map(|(BudgetIndex(at), standing)| (at, standing.remaining))
                .collect();
            assert_eq!(remaining, BTreeMap::from([(0, 3), (1, 0), (2, 50)]));
            let _ = self.ledger.release(&self.store, reservation, now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_happens_limits_are_kept_nothing_is_lost_and_all_is_freed(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut run = Run::new();
        steps.iter().for_each(|step| run.step(step));
        run.finish();
    }
}
