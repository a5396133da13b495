//! Takes a crate's unit tests as they are; gives them to `wasm-bindgen-test-runner`.
//!
//! The runner only sees functions with its own attribute. An attribute named `test` in the
//! `macro_use` prelude goes before the built-in one, so one line at a crate's root is enough:
//!
//! ```ignore
//! #[cfg(all(test, target_arch = "wasm32"))]
//! #[macro_use]
//! extern crate almoner_wasm_test;
//! ```
//!
//! The crate needs `wasm-bindgen-test` among its dev-dependencies too: the attribute refers to it.

pub use wasm_bindgen_test::wasm_bindgen_test as test;
