//! What must hold for every body: parsers that resolve ambiguity in other ways read what was read
//! here, edits change what they say and nothing else, and no bytes at all make a panic.

use almoner_core::{
    api::Endpoint::{self, Chat, Completions, Messages, Responses},
    body,
    denial::Denial,
    edits::{self, Edit},
    head::{Head, Target},
    units::Tokens,
};
use proptest::prelude::*;
use serde_json::Value;

const ENDPOINTS: [Endpoint; 4] = [Chat, Completions, Messages, Responses];

/// A key that is read, spelled in some way, or one that is not.
fn key() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "model",
        "stream",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "store",
        "stream_options",
        "messages",
        "n",
        "tools",
        "input",
        "x",
        "y",
        "",
    ]);
    (known, 0..8u8, any::<prop::sample::Index>()).prop_map(|(key, how, at)| {
        if key.is_empty() {
            return key.to_owned();
        }
        let at = at.index(key.len());
        let (head, tail) = key.split_at(at);
        let (letter, tail) = tail.split_at(1);
        match how {
            0 => letter
                .bytes()
                .map(|b| format!("{head}\\u{b:04x}{tail}"))
                .collect(),
            1 => format!("{head}{}{tail}", letter.to_ascii_uppercase()),
            2 => key.replace('s', "\u{17f}"),
            3 => key.replace('k', "\\u212A"),
            _ => key.to_owned(),
        }
    })
}

/// JSON text of some value that such a key may have.
fn value() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "1",
        "7",
        "-0",
        "1.0",
        "1e2",
        "4294967296",
        "1e400",
        "\"a\"",
        "\"b\\n\\u00e9\"",
        "\"\\ud800\"",
        "\"é\"",
        "[]",
        "{}",
        "[\"a\",{\"type\":\"text\"}]",
        "[{\"type\":\"function\"}]",
        "{\"include_usage\":false}",
        "{\"include_usage\":null,\"x\":1}",
        "{ \"x\" : [ 1 , 2 ] }",
        "{\"include_usage\":true,\"include_usage\":false}",
    ]);
    scalar.prop_map(str::to_owned)
}

fn body_text() -> impl Strategy<Value = String> {
    let space = || prop::sample::select(vec!["", "", "", " ", "\n\t"]);
    let field = (key(), space(), value(), space());
    (prop::collection::vec(field, 0..7), space()).prop_map(|(fields, outer)| {
        let fields: Vec<String> = fields
            .into_iter()
            .map(|(k, a, v, b)| format!("{a}\"{k}\"{b}:{a}{v}{b}"))
            .collect();
        format!("{outer}{{{outer}{}}}{outer}", fields.join(","))
    })
}

/// How parsers of other families resolve what JSON leaves open.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// The first of two keys counts.
    First,
    /// The last of two keys counts (Python, JavaScript).
    Last,
    /// The last counts, whatever its letter case (Go).
    LastOfAnyCase,
}

/// What `reader` sees in the field of that name.
fn sees(reader: Reader, fields: &[(String, Value)], name: &str) -> Option<Value> {
    let any_case = |key: &str| {
        key.chars()
            .flat_map(char::to_lowercase)
            .collect::<String>()
            .replace('\u{17f}', "s")
            == name
    };
    let value = |(_, value): &(String, Value)| value.clone();
    match reader {
        Reader::First => fields.iter().find(|(key, _)| key == name).map(value),
        Reader::Last => fields.iter().rfind(|(key, _)| key == name).map(value),
        Reader::LastOfAnyCase => fields.iter().rfind(|(key, _)| any_case(key)).map(value),
    }
    .filter(|value| !value.is_null())
}

/// The top-level fields in their order, duplicates included.
fn fields(text: &str) -> Vec<(String, Value)> {
    struct Fields(Vec<(String, Value)>);
    impl<'de> serde::Deserialize<'de> for Fields {
        fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
            struct Read;
            impl<'de> serde::de::Visitor<'de> for Read {
                type Value = Fields;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Fields, A::Error> {
                    let mut fields = Vec::new();
                    while let Some(key) = map.next_key()? {
                        // What is no value to this parser (a lone surrogate) is none to compare.
                        let raw: &serde_json::value::RawValue = map.next_value()?;
                        fields.push((key, serde_json::from_str(raw.get()).unwrap_or(Value::Null)));
                    }
                    Ok(Fields(fields))
                }
            }
            json.deserialize_map(Read)
        }
    }
    serde_json::from_str::<Fields>(text).map_or_else(|_| Vec::new(), |Fields(fields)| fields)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_reader_sees_what_was_read(text in body_text(), endpoint in prop::sample::select(&ENDPOINTS[..])) {
        let Ok(facts) = body::read(endpoint, text.as_bytes()) else { return Ok(()) };
        let fields = fields(&text);
        for reader in [Reader::First, Reader::Last, Reader::LastOfAnyCase] {
            let model = sees(reader, &fields, "model");
            prop_assert_eq!(facts.models.first().map(|m| Value::from(m.as_ref())), model);
            let stream = sees(reader, &fields, "stream").unwrap_or(false.into());
            prop_assert_eq!(Value::from(facts.stream), stream);
            let bounds: &[&str] = match endpoint {
                Chat => &["max_tokens", "max_completion_tokens"],
                Responses => &["max_output_tokens"],
                _ => &["max_tokens"],
            };
            let bound = bounds.iter().filter_map(|name| sees(reader, &fields, name)?.as_u64()).max();
            prop_assert_eq!(facts.max_output_tokens, bound.map(Tokens));
        }
    }

    #[test]
    fn edits_change_what_they_say_and_nothing_else(text in body_text(), endpoint in prop::sample::select(&ENDPOINTS[..])) {
        let Ok(facts) = body::read(endpoint, text.as_bytes()) else { return Ok(()) };
        let edits = [Edit::IncludeUsage, Edit::MaxOutputTokens(Tokens(9)), Edit::NoStore];
        let Some(edited) = edits::apply(&facts, &edits) else { return Ok(()) };
        let again = body::read(endpoint, &edited).unwrap();
        let edited = str::from_utf8(&edited).unwrap();

        // The edits hold, so making them again changes nothing.
        prop_assert_eq!(edits::apply(&again, &edits), None, "{}", edited);
        let streams = facts.stream && matches!(endpoint, Chat | Completions);
        prop_assert_eq!(again.usage_asked, facts.usage_asked || streams);
        // What was there stays; what the caller asked for is not raised.
        prop_assert_eq!(&again.models, &facts.models);
        prop_assert_eq!(again.stream, facts.stream);
        if facts.max_output_tokens.is_some() {
            prop_assert_eq!(again.max_output_tokens, facts.max_output_tokens);
        } else {
            prop_assert_eq!(again.max_output_tokens, Some(Tokens(9)));
        }
        // Every other field is there, in its order, with its value.
        let ours = ["stream_options", "store", "max_tokens", "max_completion_tokens", "max_output_tokens"];
        let others = |text: &str| -> Vec<(String, Value)> {
            fields(text).into_iter().filter(|(key, _)| !ours.contains(&key.as_str())).collect()
        };
        prop_assert_eq!(others(edited), others(&text));
    }

    #[test]
    fn no_body_makes_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), endpoint in prop::sample::select(&ENDPOINTS[..])) {
        prop_assert!(body::read(endpoint, &bytes).is_err() || serde_json::from_slice::<Value>(&bytes).is_ok());
    }

    #[test]
    fn a_cut_body_is_never_read(text in body_text(), at in any::<prop::sample::Index>()) {
        let whole = text.trim_end();
        let cut = at.index(whole.len());
        prop_assert!(body::read(Chat, &whole.as_bytes()[..cut]).is_err());
    }

    #[test]
    fn no_head_makes_a_panic(pairs in prop::collection::vec((".{0,12}", prop::collection::vec(any::<u8>(), 0..20)), 0..6)) {
        let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
        let _ = Head::read(pairs);
    }

    #[test]
    fn a_target_that_is_taken_is_plain(bytes in "[/a-zA-Z0-9.%;?#\\\\_~:@&=\\x00-\\x20\\x7f-\\xff-]{0,24}") {
        match Target::parse(bytes.as_bytes()) {
            Ok(target) => {
                prop_assert!(target.path().starts_with('/'));
                prop_assert!(!target.path().contains(['%', ';', '\\', '#', '?', ' ']));
                let segments = target.path()[1..].split('/').collect::<Vec<_>>();
                let root = target.path() == "/";
                prop_assert!(root || segments.iter().all(|s| !matches!(*s, "" | "." | "..")));
                prop_assert!(bytes.starts_with(target.path()));
            }
            Err(denial) => prop_assert_eq!(denial, Denial::PathNotNormal),
        }
    }
}
