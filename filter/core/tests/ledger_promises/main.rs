//! What the budget ledger promises, shown on shared data in memory.
#![cfg(not(target_family = "wasm"))]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails, as it should"
)]

#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod races;
#[cfg(test)]
mod table;
