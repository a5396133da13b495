//! Almoner's broker: takes what a listed Envoy asserts, gives a provider credential that expires.
//!
//! The same crate is the command line, because what an operator checks must be what runs: the
//! policy document is read by `almoner-core`, here as in the plugin. The modules stand in the order
//! in which an exchange goes through them; each uses only what stands above it.

mod clock;
mod secret_file;

pub mod document;

pub mod config;

mod metrics;

mod audit;
mod credential;
mod envoys;
mod jwt;
mod policy;
mod rate;
mod token;

pub mod serve;

pub mod check;

pub mod cli;
