//! The record in Envoy's filter state, where the access log finds it.

use almoner_core::record::Record;
use proxy_wasm::types::Status;

use crate::host;

/// The property's name: a text format has `"record":{%FILTER_STATE(wasm.rec:PLAIN)%}`.
///
/// It is text and not the protobuf `Struct` that Envoy could also log as an object: turning that
/// into JSON costs Envoy more than all the rest of the exchange.
const NAME: &str = "rec";

/// Leaves the record for the access log of this exchange.
pub(crate) fn leave(record: &Record) -> Result<(), Status> {
    host::set_state(NAME, record.members().as_bytes())
}
