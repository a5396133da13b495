//! Single values of a body: the JSON text of one in, what it says out, or a refusal by field.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::denial::Denial;

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// How many prompts an array holds: strings or arrays of tokens; tokens alone are one.
pub(super) struct Prompts(pub(super) u64);

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Count;

        impl<'de> Visitor<'de> for Count {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompts, A::Error> {
                let mut count: u64 = 0;
                while let Some(prompt) = seq.next_element::<&RawValue>()? {
                    if prompt.get().starts_with(['"', '[']) {
                        count = count.saturating_add(1);
                    }
                }
                Ok(Prompts(count))
            }
        }

        json.deserialize_seq(Count)
    }
}

/// The value of `field`, as a type reads it.
pub(super) fn parse<'a, T: Deserialize<'a>>(
    raw: &'a str,
    field: &'static str,
) -> Result<T, Denial> {
    serde_json::from_str(raw).map_err(|_| Denial::FieldInvalid { field })
}

/// `true`, `false`, or nothing where it is `null`.
pub(super) fn flag(raw: &str, field: &'static str) -> Result<Option<bool>, Denial> {
    parse(raw, field)
}

/// A whole number that every parser holds exactly, written without fraction and exponent.
pub(super) fn count(raw: &str, field: &'static str) -> Result<Option<u64>, Denial> {
    Ok(parse::<Option<u32>>(raw, field)?.map(u64::from))
}

/// A string, or nothing where it is `null`.
pub(super) fn string<'a>(
    raw: &'a str,
    field: &'static str,
) -> Result<Option<Cow<'a, str>>, Denial> {
    Ok(parse::<Option<Text<'a>>>(raw, field)?.map(|Text(text)| text))
}

/// An array of strings; empty where it is `null`.
pub(super) fn strings<'a>(raw: &'a str, field: &'static str) -> Result<Vec<Cow<'a, str>>, Denial> {
    let texts = parse::<Option<Vec<Text<'a>>>>(raw, field)?.unwrap_or_default();
    Ok(texts.into_iter().map(|Text(text)| text).collect())
}
