//! Takes a request's JSON; gives the tokens in it, and words to answer with: one word, one token.

use serde_json::Value;

/// Several widths of UTF-8, so that a split character shows.
const WORDS: [&str; 8] = [
    "Alms ",
    "für ",
    "the ",
    "poor, ",
    "施しは ",
    "daily ",
    "🪙 ",
    "bread. ",
];

/// Words of an answer whose length nobody set.
pub(crate) const USUAL_LENGTH: u64 = 16;

/// More than any test asks for; what an answer can take in memory is bounded by it.
const LONGEST: u64 = 100_000;

/// About four bytes of text a token, as of an English text.
pub(crate) fn tokens_in(value: &Value) -> u64 {
    text_bytes(value).div_ceil(4)
}

/// `count` words, each of one token.
pub(crate) fn speak(count: u64) -> impl Iterator<Item = &'static str> {
    let count = usize::try_from(count.min(LONGEST)).unwrap_or(usize::MAX);
    WORDS.into_iter().cycle().take(count)
}

/// How long the answer is: as told, but never more than the request allows.
pub(crate) fn length(told: Option<u64>, allowed: Option<u64>) -> u64 {
    told.unwrap_or(USUAL_LENGTH)
        .min(allowed.unwrap_or(LONGEST))
        .min(LONGEST)
}

fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => u64::try_from(text.len()).unwrap_or(u64::MAX),
        Value::Array(items) => items.iter().map(text_bytes).fold(0, u64::saturating_add),
        Value::Object(fields) => fields.values().map(text_bytes).fold(0, u64::saturating_add),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_text_wherever_it_is() {
        let value = serde_json::json!({"a": "1234", "b": ["5678", {"c": "9"}], "d": 1});
        assert_eq!(tokens_in(&value), 3);
    }

    #[test]
    fn an_answer_is_never_longer_than_allowed() {
        assert_eq!(length(None, None), USUAL_LENGTH);
        assert_eq!(length(Some(50), Some(4)), 4);
        assert_eq!(speak(length(Some(u64::MAX), None)).count(), 100_000);
    }
}
