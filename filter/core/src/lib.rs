//! Almoner's core: every decision, and nothing else.
//!
//! This crate contains no clock, no I/O, no randomness, no log and no host call. It takes values
//! (a request's head, the time, what shared data holds) and gives values (what to send up, what to
//! answer, what to remember). The modules stand in the order in which an exchange goes through
//! them, and each uses only what stands above it.

// Makes every `#[test]` visible to the Wasm test runner.
#[cfg(all(test, target_arch = "wasm32"))]
#[macro_use]
extern crate almoner_wasm_test;

pub mod units;

pub mod usage;

pub mod api;

pub mod attributes;

pub mod denial;

pub mod glob;

pub mod spiffe;

pub mod secret;

pub mod config;

pub mod head;

pub mod subject;

pub mod body;

pub mod grant;

pub mod reservation;

pub mod settlement;

pub mod lease;

pub mod edits;

pub mod meter;

pub mod refusal;

pub mod reply;

pub mod record;

pub mod exchange;

#[cfg(test)]
mod testing;
