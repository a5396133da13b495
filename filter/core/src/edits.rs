//! Edits of a JSON body: its facts and the edits in, the bytes that go up out.
//!
//! The edits are spliced into the bytes that came, so that every other byte goes up as the caller
//! wrote it.

use std::{mem, ops::Range};

use crate::{
    api::Endpoint,
    body::{BodyFacts, Object, StreamOptions, limit_fields},
    units::Tokens,
};

/// A change to a body. Each is made only where the endpoint has the field and the request does not
/// say it already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Edit {
    /// Have the provider report usage in the stream.
    IncludeUsage,
    /// Bound the output, where the request sets no bound itself.
    MaxOutputTokens(Tokens),
    /// Have the provider keep nothing.
    NoStore,
}

/// Makes the edits; `None` where none was needed and the body goes up as it came.
#[must_use]
pub fn apply(facts: &BodyFacts<'_>, edits: &[Edit]) -> Option<Vec<u8>> {
    let mut splices = Vec::new();
    let mut made = Vec::new();
    for edit in edits {
        // A second edit of a kind would write its field twice.
        let kind = mem::discriminant(edit);
        if made.contains(&kind) {
            continue;
        }
        made.push(kind);
        match edit.change(facts) {
            Some(Change::Insert(object, field)) => insert(&mut splices, object, &field),
            Some(Change::Replace(place, value)) => splices.push(Splice { place, text: value }),
            None => {}
        }
    }
    splices.sort_by_key(|splice| splice.place.start);
    (!splices.is_empty()).then(|| spliced(facts.text, &splices))
}

/// How an edit changes a body.
enum Change {
    /// By a field that the object does not have.
    Insert(Object, String),
    /// By another value, there.
    Replace(Range<usize>, String),
}

/// New text for a place in the body.
struct Splice {
    place: Range<usize>,
    text: String,
}

impl Edit {
    fn change(self, facts: &BodyFacts<'_>) -> Option<Change> {
        match self {
            Self::IncludeUsage => include_usage(facts),
            Self::MaxOutputTokens(limit) => max_output_tokens(facts, limit),
            Self::NoStore => no_store(facts),
        }
    }
}

/// Whether [`Edit::IncludeUsage`] changes this request: it would get no usage event by itself.
#[must_use]
pub fn lacks_usage_event(facts: &BodyFacts<'_>) -> bool {
    let has_field = matches!(facts.endpoint, Endpoint::Chat | Endpoint::Completions);
    has_field && facts.stream && !facts.usage_asked
}

fn include_usage(facts: &BodyFacts<'_>) -> Option<Change> {
    if !lacks_usage_event(facts) {
        return None;
    }
    let options = || r#"{"include_usage":true}"#.to_owned();
    Some(match facts.places.stream_options.clone() {
        StreamOptions::Absent => Change::Insert(
            facts.places.top,
            format!(r#""stream_options":{}"#, options()),
        ),
        StreamOptions::Null(place) => Change::Replace(place, options()),
        StreamOptions::Without(object) => {
            Change::Insert(object, r#""include_usage":true"#.to_owned())
        }
        StreamOptions::With(place) => Change::Replace(place, "true".to_owned()),
    })
}

fn max_output_tokens(facts: &BodyFacts<'_>, limit: Tokens) -> Option<Change> {
    let field = limit_fields(facts.endpoint).first()?;
    if facts.places.is_limited {
        return None;
    }
    Some(match facts.places.null_limit.clone() {
        Some(place) => Change::Replace(place, limit.to_string()),
        None => Change::Insert(facts.places.top, format!(r#""{field}":{limit}"#)),
    })
}

fn no_store(facts: &BodyFacts<'_>) -> Option<Change> {
    if !matches!(facts.endpoint, Endpoint::Chat | Endpoint::Responses) {
        return None;
    }
    match facts.places.store.clone() {
        None => Some(Change::Insert(
            facts.places.top,
            r#""store":false"#.to_owned(),
        )),
        Some(place) if facts.text.get(place.clone()) == Some("false") => None,
        Some(place) => Some(Change::Replace(place, "false".to_owned())),
    }
}

/// Puts a field at the beginning of an object, beside what other edits put there.
fn insert(splices: &mut Vec<Splice>, object: Object, field: &str) {
    let at = object.start;
    match splices.iter_mut().find(|splice| splice.place.start == at) {
        Some(splice) => splice.text.insert_str(0, &format!("{field},")),
        None => {
            let comma = if object.is_empty { "" } else { "," };
            splices.push(Splice {
                place: at..at,
                text: format!("{field}{comma}"),
            });
        }
    }
}

fn spliced(text: &str, splices: &[Splice]) -> Vec<u8> {
    let added: usize = splices.iter().map(|splice| splice.text.len()).sum();
    let mut body = Vec::with_capacity(text.len().saturating_add(added));
    let mut kept: usize = 0;
    for Splice { place, text: new } in splices {
        body.extend_from_slice(text.get(kept..place.start).unwrap_or_default().as_bytes());
        body.extend_from_slice(new.as_bytes());
        kept = place.end;
    }
    body.extend_from_slice(text.get(kept..).unwrap_or_default().as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    #[test]
    fn only_a_chat_stream_that_did_not_ask_lacks_a_usage_event() {
        for (endpoint, body, expected) in [
            (Endpoint::Chat, r#"{"model":"m","stream":true}"#, true),
            (Endpoint::Chat, r#"{"model":"m"}"#, false),
            (
                Endpoint::Chat,
                r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
                false,
            ),
            (Endpoint::Messages, r#"{"model":"m","stream":true}"#, false),
        ] {
            let facts = body::read(endpoint, body.as_bytes()).unwrap();
            assert_eq!(lacks_usage_event(&facts), expected, "{endpoint:?} {body}");
        }
    }
}
