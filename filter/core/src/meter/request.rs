//! Takes a request's body; says about how many tokens a model reads for it, and how many at most.
//!
//! For when the provider does not say, and for reservations. Templates that a provider puts around a
//! request, and what server-side tools fetch, can't be seen in it.

use memchr::{memchr, memchr2};

use super::estimate::Estimator;
use crate::units::Tokens;

/// The members that hold pictures, sound or documents in base64, in any of the request grammars.
/// Inside another string their quotes would be escaped: text can't look like them.
const MEDIA: &[&[u8]] = &[
    b"bytes",
    b"data",
    b"file_data",
    b"image",
    b"image_url",
    b"url",
];

/// Shorter strings are text, whatever they are called.
const MIN_MEDIA: usize = 512;

/// A picture of 100 kB is about 3000 tokens; a page of a document is not far from that.
const MEDIA_BYTES_PER_TOKEN: u64 = 32;

/// What providers put around a request, at most: tool prompts above all.
const TEMPLATE: Tokens = Tokens(1536);

/// About how many tokens a model reads for a request of this body.
#[must_use]
pub fn estimate_request(body: &[u8]) -> Tokens {
    let mut values = Estimator::default();
    let mut keys = Estimator::default();
    let mut media = 0u64;
    walk(body, |piece| match piece {
        Piece::Key(text) => keys.push_json(text),
        Piece::Media(len) => media = media.saturating_add(len),
        Piece::Other(_) => {}
        Piece::Value(text) => values.push_json(text),
    });
    let Tokens(keys) = keys.tokens();
    // Half of the names are the model's to read: those of tools and their parameters.
    values
        .tokens()
        .plus(Tokens(keys / 2))
        .plus(Tokens(media / MEDIA_BYTES_PER_TOKEN))
}

/// How many tokens a request of this body reads at most. For reservations: meant to hold for 99 of
/// 100 requests without server-side tools, not to be close. What stands behind a URL or a file id
/// is not in it.
#[must_use]
pub fn upper_bound(body: &[u8]) -> Tokens {
    let mut all = Estimator::default();
    let mut media = 0u64;
    walk(body, |piece| match piece {
        Piece::Key(text) | Piece::Other(text) | Piece::Value(text) => all.push(text),
        Piece::Media(len) => media = media.saturating_add(len),
    });
    let text = (body.len() as u64).saturating_sub(media);
    // Text that is no language, such as random letters, costs far more than words of its length.
    let text = all.tokens().times(2).max(Tokens(text / 2));
    text.plus(Tokens(media / MEDIA_BYTES_PER_TOKEN))
        .plus(TEMPLATE)
}

/// A stretch of a JSON document.
enum Piece<'a> {
    Key(&'a [u8]),
    /// A string of media; so many bytes.
    Media(u64),
    /// All that is not inside a string.
    Other(&'a [u8]),
    Value(&'a [u8]),
}

/// Cuts `body` into pieces. The body was read by a strict parser before; what is no JSON is cut
/// into pieces all the same.
fn walk<'a>(body: &'a [u8], mut take: impl FnMut(Piece<'a>)) {
    let mut rest = body;
    let mut key: &[u8] = b"";
    while let Some((other, after)) = memchr(b'"', rest).and_then(|at| rest.split_at_checked(at)) {
        take(Piece::Other(other));
        let after = after.get(1..).unwrap_or_default();
        let (string, after) = after
            .split_at_checked(string_len(after))
            .unwrap_or((after, b""));
        rest = after.get(1..).unwrap_or_default();
        if rest.trim_ascii_start().first() == Some(&b':') {
            key = string;
            take(Piece::Key(string));
        } else if string.len() >= MIN_MEDIA && MEDIA.contains(&key) && !has_space(string) {
            take(Piece::Media(string.len() as u64));
        } else {
            take(Piece::Value(string));
        }
    }
    take(Piece::Other(rest));
}

/// How far the closing quote is.
fn string_len(bytes: &[u8]) -> usize {
    let mut len = 0usize;
    while let Some(at) = bytes.get(len..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        len = len.saturating_add(at);
        if bytes.get(len) == Some(&b'"') {
            return len;
        }
        len = len.saturating_add(2);
    }
    bytes.len()
}

fn has_space(string: &[u8]) -> bool {
    string
        .get(..MIN_MEDIA)
        .unwrap_or(string)
        .iter()
        .any(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(text: &str) -> Vec<u8> {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#).into_bytes()
    }

    #[test]
    fn an_estimate_grows_with_the_text_and_lies_below_the_bound() {
        let mut before = Tokens::ZERO;
        for words in [1, 10, 100, 1000, 10_000] {
            let body = chat(&" word".repeat(words));
            let estimate = estimate_request(&body);
            assert!(estimate > before);
            assert!(
                estimate.times(10) >= Tokens(words as u64).times(9)
                    && estimate <= upper_bound(&body)
            );
            before = estimate;
        }
    }

    #[test]
    fn a_picture_costs_less_than_the_same_bytes_of_text() {
        let picture = "iVBORw0KGgoAAAANSUhEUg".repeat(5000);
        let body = format!(
            r#"{{"messages":[{{"content":[{{"type":"image","source":{{"data" : "{picture}"}}}}]}}]}}"#
        );
        assert!(upper_bound(body.as_bytes()) < Tokens(6000));
        assert!(upper_bound(&chat(&picture)) > Tokens(50_000));
        let quoted = chat(&format!(r#"\"data\":\"{picture}"#));
        assert!(upper_bound(&quoted) > Tokens(50_000));
    }

    #[test]
    fn what_is_no_json_is_estimated_too() {
        for body in ["", "\"", "\"\\", "{\"a\":\"b\\", "plain text", "\\\"\\\""] {
            assert!(
                estimate_request(body.as_bytes()) <= upper_bound(body.as_bytes()),
                "{body}"
            );
        }
    }
}
