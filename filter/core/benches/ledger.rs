//! What three budgets cost each exchange: reserved and settled, over shared data in memory.
#![allow(clippy::panic, reason = "a bench whose result is wrong stops")]

use std::{cell::RefCell, collections::BTreeMap, hint::black_box, num::NonZeroU32, time::Duration};

use almoner_core::{
    reservation::{
        Amounts, Ask, Budget, BudgetIndex, Clamp, Ledger, OwnerId, Owners, Store, StoreError,
        Stored, Swap, Unit, Version,
    },
    units::{MicroUsd, Timestamp, Tokens},
};
use criterion::{Criterion, criterion_group, criterion_main};

struct Memory(RefCell<BTreeMap<String, (Vec<u8>, NonZeroU32)>>);

impl Store for Memory {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let values = self.0.borrow();
        Ok(values.get(key).map(|(value, version)| Stored {
            value: value.clone(),
            version: Version(*version),
        }))
    }

    fn swap(&self, key: &str, value: &[u8], version: Version) -> Result<Swap, StoreError> {
        let mut values = self.0.borrow_mut();
        let (stored, current) = values.get_mut(key).ok_or(StoreError)?;
        if *current != version.0 {
            return Ok(Swap::Conflict);
        }
        stored.clear();
        stored.extend_from_slice(value);
        *current = current.saturating_add(1);
        Ok(Swap::Done)
    }
}

fn budget(name: &str, unit: Unit, window: &str, owners: Owners) -> Budget {
    let window = window.parse().unwrap_or_else(|error| panic!("{error}"));
    Budget {
        name: name.to_owned(),
        unit,
        limit: u64::MAX / 2,
        window,
        owners,
    }
}

fn three_budgets(criterion: &mut Criterion) {
    let ledger = Ledger::new(
        "bench",
        vec![
            budget("requests", Unit::Requests, "1m", Owners::Table(1000)),
            budget("tokens", Unit::Tokens, "1m", Owners::Table(1000)),
            budget(
                "money",
                Unit::MicroUsd,
                "month",
                Owners::Listed(vec![OwnerId::all()]),
            ),
        ],
    );
    let laid_out = ledger
        .layout()
        .map(|(key, value)| (key, (value, NonZeroU32::MIN)));
    let store = Memory(RefCell::new(laid_out.collect()));
    let subject = "spiffe://prod.example/ns/support/sa/bot";
    let most = Amounts {
        requests: 1,
        input: Tokens(1200),
        output: Tokens(4096),
        cost: MicroUsd(2600),
    };
    let used = Amounts {
        input: Tokens(1000),
        output: Tokens(300),
        cost: MicroUsd(330),
        ..most
    };
    let mut now = Timestamp::from_secs(1_795_512_345);

    criterion.bench_function("reserve and settle three budgets", |bench| {
        bench.iter(|| {
            now = now.after(Duration::from_millis(7));
            let owner = OwnerId::subject(black_box(subject));
            let owners = [owner, owner, OwnerId::all()];
            let asks: [Ask; 3] = std::array::from_fn(|at| Ask {
                budget: BudgetIndex(at),
                owner: owners.get(at).copied().unwrap_or(owner),
                clamp: Clamp::NONE,
            });
            let reserved = ledger.reserve(&store, &asks, &most, now, Duration::from_secs(900));
            let reservation = reserved.unwrap_or_else(|refusal| panic!("{refusal}"));
            let settlement = ledger.settle(&store, reservation, &used, now);
            let refunds = settlement.budgets.iter().map(|settled| settled.refund());
            assert!(refunds.eq([0, 3996, 2270]));
            settlement
        });
    });
}

criterion_group!(benches, three_budgets);
criterion_main!(benches);
