//! Almoner's core: every decision, and nothing else.
//!
//! This crate contains no clock, no I/O, no randomness, no log and no host call. It takes values
//! (a request's head, the time, what shared data holds) and gives values (what to send up, what to
//! answer, what to remember). The modules stand in the order in which an exchange goes through
//! them, and each uses only what stands above it.

pub mod units;

pub mod usage;

pub mod api;

pub mod denial;

pub mod head;

pub mod body;

pub mod edits;
