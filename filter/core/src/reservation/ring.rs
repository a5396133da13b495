//! Amounts by a number that only grows (a slot of time), of which the newest few are kept.

use std::num::NonZeroU64;

/// The amounts of the last `len` numbers; each stands at its number modulo `len`. Whoever moves on
/// to a new number takes out what the number before it in that place has left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Ring<const CAPACITY: usize> {
    amounts: [u64; CAPACITY],
    /// At most `CAPACITY`.
    len: NonZeroU64,
}

impl<const CAPACITY: usize> Ring<CAPACITY> {
    pub(super) const fn new(len: NonZeroU64) -> Self {
        Self {
            amounts: [0; CAPACITY],
            len,
        }
    }

    pub(super) fn at(&self, number: u64) -> u64 {
        self.amounts.get(self.place(number)).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, number: u64, amount: u64) {
        let place = self.place(number);
        if let Some(sum) = self.amounts.get_mut(place) {
            *sum = sum.saturating_add(amount);
        }
    }

    /// Takes out `amount`, or what is there where that is less; gives how much that was.
    pub(super) fn remove(&mut self, number: u64, amount: u64) -> u64 {
        let removed = amount.min(self.at(number));
        let place = self.place(number);
        if let Some(sum) = self.amounts.get_mut(place) {
            *sum = sum.saturating_sub(removed);
        }
        removed
    }

    /// Takes out all that is there.
    pub(super) fn take(&mut self, number: u64) -> u64 {
        self.remove(number, u64::MAX)
    }

    pub(super) fn sum(&self) -> u64 {
        self.amounts()
            .fold(0, |sum, amount| sum.saturating_add(*amount))
    }

    /// The amounts in the order of their places, which is the encoding's.
    pub(super) fn amounts(&self) -> impl Iterator<Item = &u64> {
        self.amounts.iter().take(self.len())
    }

    pub(super) fn amounts_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        let len = self.len();
        self.amounts.iter_mut().take(len)
    }

    pub(super) const fn len(&self) -> usize {
        // At most CAPACITY: the conversion is lossless.
        self.len.get() as usize
    }

    fn place(&self, number: u64) -> usize {
        // Below CAPACITY: the conversion is lossless.
        (number % self.len) as usize
    }
}
