//! The record as Envoy's access log takes it: a serialized `google.protobuf.Struct`.

use std::collections::BTreeMap;

use almoner_core::record::{Record, Value};
use prost::Message as _;
use prost_types::{ListValue, Struct, value::Kind};
use proxy_wasm::types::Status;

use crate::host;

/// The property's name: the access log reads `%FILTER_STATE(wasm.rec:TYPED)%`.
const NAME: &str = "rec";
const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";
/// `Protobuf` in Envoy's `WasmType`.
const PROTOBUF: i32 = 3;

/// The argument of Envoy's foreign function `declare_property`
/// (`envoy.source.extensions.common.wasm.DeclarePropertyArguments`).
#[derive(Clone, PartialEq, prost::Message)]
struct DeclareProperty {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(string, tag = "4")]
    schema: String,
}

/// Tells Envoy of which type the record will be.
pub(crate) fn declare() -> Result<(), Status> {
    let declaration = DeclareProperty {
        name: NAME.to_owned(),
        kind: PROTOBUF,
        schema: STRUCT_URL.to_owned(),
    };
    host::foreign("declare_property", &declaration.encode_to_vec())
}

/// Leaves the record for the access log of this exchange.
pub(crate) fn leave(record: &Record) -> Result<(), Status> {
    let fields: BTreeMap<String, prost_types::Value> = record
        .fields()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json(value)))
        .collect();
    host::set_state(NAME, &Struct { fields }.encode_to_vec())
}

fn json(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::List(texts) => Kind::ListValue(ListValue {
            values: texts.into_iter().map(Value::Text).map(json).collect(),
        }),
        Value::Number(number) => Kind::NumberValue(number),
        Value::Text(text) => Kind::StringValue(text),
    };
    prost_types::Value { kind: Some(kind) }
}
