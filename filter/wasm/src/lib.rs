//! Almoner's plugin for Envoy: reads the host, calls the core, applies the answer.
//!
//! Nothing here decides: what a native test can't reach must not be able to be wrong in a way that
//! matters. `host` is the only module that makes host calls.

#![expect(missing_docs, reason = "a plugin has no interface that Rust sees")]

mod host;

mod metrics;

mod record;

mod worker;

mod root;

mod stream;

use proxy_wasm::types::LogLevel;

use crate::root::Root;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(Root::new(id)));
}}
