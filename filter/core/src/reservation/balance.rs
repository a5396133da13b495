//! One owner's balance: takes the bytes of a shared value and the time; gives what is used, held
//! and free, and the bytes after a change.
//!
//! What was spent stands in a ring of slots of the window. What running exchanges hold stands in a
//! second ring, by the time at which the hold ends: so any number of holds fits, and one whose
//! worker died ends by itself. A hold that ends unsettled is counted as spent at that moment, whole:
//! nobody knows what its exchange used, and an exchange that crashed a worker must not be free.
//!
//! Time never runs backwards here: where the clock does, the balance stays at the latest time that
//! it has seen, and nothing is freed until the clock is there again.

use std::{num::NonZeroU64, ops::RangeInclusive, time::Duration};

use crate::units::{Timestamp, millis};

use super::{
    owner::OwnerId,
    ring::Ring,
    window::{MAX_SLOTS, Window},
};

/// The first byte of every value; raised with any change of the encoding.
pub(super) const VERSION: u8 = 1;

/// A slot of a table that nobody has claimed yet: short, so that a large table is cheap.
pub(super) const VACANT: [u8; 2] = [VERSION, 0];

/// Ends of holds that are told apart.
const ENDS: NonZeroU64 = NonZeroU64::new(16).unwrap();

/// Ends of holds are at most 2^32 ms (50 days) apart.
const MAX_SCALE: u8 = 32;

/// A hold of 15 steps of the coarsest ring is in it, however it is rounded up. That is two years.
const LONGEST_HOLD: u64 = 15 << MAX_SCALE;

/// Version, state, kind of window, scale; number of window, generation, latest time, last end; owner.
const HEADER: usize = 4 + 4 * size_of::<u64>() + OwnerId::LEN;

/// Whether a balance may be spent from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Taken out of a table, but perhaps not in its index: nothing may be spent from it yet.
    Claimed,
    /// The owner's only balance.
    Open,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Balance {
    pub(super) owner: OwnerId,
    pub(super) state: State,
    /// Which of the balances that this value has kept: a reservation in an earlier one, perhaps of
    /// the same owner, is none in this one.
    pub(super) generation: u64,
    window: Window,
    /// The latest time that this balance was moved to.
    latest: Timestamp,
    /// What was spent, by slot of the window. Slots that no longer count are zero.
    used: Ring<MAX_SLOTS>,
    /// Holds end at multiples of 2^scale milliseconds. At most `MAX_SCALE`.
    scale: u8,
    /// Every hold until this time has ended, and no other has. Where the scale grew since, this is
    /// not what the scale says: a hold that ended at the finer scale has ended.
    ended: Timestamp,
    /// What is held, by the number of the multiple at which it ends. Ends until `latest` are zero.
    held: Ring<{ ENDS.get() as usize }>,
}

impl Balance {
    pub(super) const fn new(
        owner: OwnerId,
        state: State,
        window: Window,
        latest: Timestamp,
    ) -> Self {
        Self {
            owner,
            state,
            generation: 0,
            window,
            latest,
            used: Ring::new(window.slots()),
            scale: 0,
            ended: latest,
            held: Ring::new(ENDS),
        }
    }

    /// What stands in for a value that could not be read: spent for one window from now.
    pub(super) fn spent(owner: OwnerId, state: State, window: Window, now: Timestamp) -> Self {
        let mut balance = Self::new(owner, state, window, now);
        // The generation that was there is not known: one that counting from zero does not reach.
        balance.generation = now.0;
        balance.spend(u64::MAX);
        balance
    }

    /// Reads a value, or `None` where it is not one of ours. A vacant one is claimed by nobody.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        if value == VACANT {
            return Some(Self::new(
                OwnerId::NOBODY,
                State::Claimed,
                Window::HOUR,
                Timestamp(0),
            ));
        }
        let (header, amounts) = value.split_first_chunk::<HEADER>()?;
        let [version, state, kind, scale, numbers @ ..] = header;
        let (number, numbers) = numbers.split_first_chunk()?;
        let (generation, numbers) = numbers.split_first_chunk()?;
        let (latest, numbers) = numbers.split_first_chunk()?;
        let (ended, owner) = numbers.split_first_chunk()?;
        let state = match state {
            1 => State::Claimed,
            2 => State::Open,
            _ => return None,
        };
        let mut balance = Self::new(
            OwnerId::from_bytes(owner)?,
            state,
            Window::decode(*kind, u64::from_le_bytes(*number))?,
            Timestamp(u64::from_le_bytes(*latest)),
        );
        balance.generation = u64::from_le_bytes(*generation);
        balance.scale = *scale;
        balance.ended = Timestamp(u64::from_le_bytes(*ended));
        let (amounts, rest) = amounts.as_chunks();
        if *version != VERSION
            || *scale > MAX_SCALE
            || !rest.is_empty()
            || amounts.len() != balance.amounts()
        {
            return None;
        }
        let rings = balance.used.amounts_mut().chain(balance.held.amounts_mut());
        for (to, amount) in rings.zip(amounts) {
            *to = u64::from_le_bytes(*amount);
        }
        Some(balance)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let size = self
            .amounts()
            .saturating_mul(size_of::<u64>())
            .saturating_add(HEADER);
        let mut value = Vec::with_capacity(size);
        let state = match self.state {
            State::Claimed => 1,
            State::Open => 2,
        };
        let (kind, number) = self.window.encode();
        value.extend_from_slice(&[VERSION, state, kind, self.scale]);
        value.extend_from_slice(&number.to_le_bytes());
        value.extend_from_slice(&self.generation.to_le_bytes());
        value.extend_from_slice(&self.latest.0.to_le_bytes());
        value.extend_from_slice(&self.ended.0.to_le_bytes());
        value.extend_from_slice(self.owner.as_bytes());
        for amount in self.used.amounts().chain(self.held.amounts()) {
            value.extend_from_slice(&amount.to_le_bytes());
        }
        value
    }

    /// A new balance in the place of this idle one.
    pub(super) const fn succeed(&self, owner: OwnerId, window: Window, now: Timestamp) -> Self {
        let mut successor = Self::new(owner, State::Claimed, window, now);
        successor.generation = self.generation.saturating_add(1);
        successor
    }

    /// Whether nobody would lose anything if another owner took this value's place.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Claimed || self.total() == 0
    }

    /// What counts against a limit: spent and held.
    pub(super) fn total(&self) -> u64 {
        self.used.sum().saturating_add(self.held.sum())
    }

    /// Moves to `now`: forgets what left the window, and counts holds that ended as spent.
    pub(super) fn advance(&mut self, now: Timestamp) {
        if now <= self.latest {
            return;
        }
        for slot in
            passed(self.window.slot_at(self.latest), self.window.slot_at(now)).take(self.used.len())
        {
            self.used.take(slot);
        }
        for end in passed(self.latest.0 >> self.scale, now.0 >> self.scale).take(self.held.len()) {
            let ended = self.held.take(end);
            let slot = self.window.slot_at(self.time_of(end));
            if self.window.frees(slot) > now {
                self.used.add(slot, ended);
            }
        }
        self.latest = now;
        self.ended = self.ended.max(self.time_of(now.0 >> self.scale));
    }

    /// Takes on a window that the configuration changed: what counted in the old one counts in the
    /// new one as spent now, so that nothing is freed early.
    pub(super) fn reshape(&mut self, window: Window) {
        if self.window == window {
            return;
        }
        let used = self.used.sum();
        self.window = window;
        self.used = Ring::new(window.slots());
        self.spend(used);
    }

    /// Counts `amount` as spent now; gives the time under which [`refund`](Self::refund) finds it.
    pub(super) fn spend(&mut self, amount: u64) -> Timestamp {
        self.used.add(self.window.slot_at(self.latest), amount);
        self.latest
    }

    /// Takes back what was spent at `time`, or was held until then, so far as it still counts.
    pub(super) fn refund(&mut self, amount: u64, time: Timestamp) {
        let oldest = self.window.slot_at(time);
        if self.window.frees(oldest) <= self.latest {
            return;
        }
        // A hold may have ended later than it asked for, where the ring was coarse: the amount is in
        // one of these slots. What others spent before it may be taken instead: then as much of
        // this goes on to count, and longer.
        let mut left = amount;
        for slot in oldest..=self.window.slot_at(self.latest) {
            left = left.saturating_sub(self.used.remove(slot, left));
        }
    }

    /// Holds `amount` for at least `span`; gives when the hold ends.
    pub(super) fn hold(&mut self, amount: u64, span: Duration) -> Timestamp {
        let span = millis(span).clamp(1, LONGEST_HOLD);
        let end = self.reach(Timestamp(self.latest.0.saturating_add(span)));
        self.held.add(end, amount);
        self.time_of(end)
    }

    /// Whether a hold until `ends` is still held, and not counted as spent.
    pub(super) fn holds_until(&self, ends: Timestamp) -> bool {
        ends > self.ended
    }

    /// Holds `amount` more, until the same time as a hold that has not ended.
    pub(super) fn hold_more(&mut self, amount: u64, ends: Timestamp) {
        let end = self.reach(ends);
        self.held.add(end, amount);
    }

    /// Gives `amount` of a hold back that has not ended.
    pub(super) fn unhold(&mut self, amount: u64, ends: Timestamp) {
        self.held.remove(self.end_at(ends), amount);
    }

    /// When `amount` fits under `limit` at the latest, if nothing else is spent until then; `None`
    /// where it never does. Running exchanges may free their holds earlier.
    pub(super) fn fits_at(&self, amount: u64, limit: u64) -> Option<Timestamp> {
        if amount > limit {
            return None;
        }
        let mut counted: Vec<(Timestamp, u64)> = self.spent_until().collect();
        counted.extend(self.held_until());
        counted.sort_unstable();
        let mut over = self.total().saturating_add(amount).saturating_sub(limit);
        let last = counted.into_iter().find(|(_, amount)| {
            over = over.saturating_sub(*amount);
            over == 0
        });
        Some(last.map_or(self.latest, |(frees, _)| frees))
    }

    /// When all that was spent until now no longer counts; now, where nothing counts.
    pub(super) fn resets_at(&self) -> Timestamp {
        let newest = self.spent_until().next();
        newest.map_or(self.latest, |(frees, _)| frees)
    }

    /// What was spent and counts, with the time until which it does, newest first.
    fn spent_until(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        let newest = self.window.slot_at(self.latest);
        (0..self.used.len() as u64)
            .filter_map(move |ago| newest.checked_sub(ago))
            .map(|slot| (self.window.frees(slot), self.used.at(slot)))
            .filter(|(_, amount)| *amount > 0)
    }

    /// What is held, with the time until which it counts if its exchange is never settled.
    fn held_until(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        self.ends()
            .map(|end| (self.window.slot_at(self.time_of(end)), self.held.at(end)))
            .map(|(slot, amount)| (self.window.frees(slot), amount))
            .filter(|(_, amount)| *amount > 0)
    }

    /// The end at or after `time`, in a ring that is as fine as it can be and reach it.
    fn reach(&mut self, time: Timestamp) -> u64 {
        let is_empty = self.held.sum() == 0;
        if is_empty {
            self.scale = 0;
        }
        while self.scale < MAX_SCALE && self.end_at(time) > *self.ends().end() {
            if !is_empty {
                self.coarsen();
            }
            self.scale = self.scale.saturating_add(1);
        }
        self.end_at(time)
    }

    /// Moves each hold to where it stands in a ring of the next scale: the same end, or the next.
    fn coarsen(&mut self) {
        let mut held = Ring::new(ENDS);
        for end in self.ends() {
            held.add(end.div_ceil(2), self.held.at(end));
        }
        self.held = held;
    }

    /// The numbers of the ends that are to come.
    const fn ends(&self) -> RangeInclusive<u64> {
        let last = self.latest.0 >> self.scale;
        last.saturating_add(1)..=last.saturating_add(ENDS.get())
    }

    /// The number of the end at or after `time`.
    fn end_at(&self, time: Timestamp) -> u64 {
        time.0.div_ceil(1 << self.scale)
    }

    fn time_of(&self, end: u64) -> Timestamp {
        Timestamp(end.saturating_mul(1 << self.scale))
    }

    const fn amounts(&self) -> usize {
        self.used.len().saturating_add(self.held.len())
    }
}

/// The numbers after `from`, to `to`.
fn passed(from: u64, to: u64) -> impl Iterator<Item = u64> {
    (from..to).map(|number| number.saturating_add(1))
}
