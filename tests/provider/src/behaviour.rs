//! Takes a cue (from the admin port, or from a marker in a request); gives how to misbehave.
//!
//! A cue is a set of named values. In a request it is a marker anywhere in the body, such as the
//! text of a message or the model's name, so that concurrent tests don't disturb each other:
//!
//! ```text
//! [[sim end=reset at=3 pace-ms=20]]
//! ```
//!
//! On the admin port it is a JSON list of rules, of which the first that matches and is not used up
//! counts; a marker goes before any rule:
//!
//! ```json
//! [{"model": "gpt-4o-mini", "times": 2, "behaviour": {"fail": "rate-limited", "retry-after": 3}}]
//! ```

use serde::Deserialize;
use serde_json::{Map, Value};

/// How an answer is given; the default is as the provider would.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Behaviour {
    /// An error answer in the provider's own shape.
    pub(crate) fail: Option<Fail>,
    /// Seconds, as a `retry-after` header.
    pub(crate) retry_after: Option<u32>,
    /// A status of its own; with `body`, instead of what the provider would say.
    pub(crate) status: Option<u16>,
    pub(crate) body: Option<String>,
    pub(crate) content_type: Option<String>,
    /// Response headers beside (or instead of) the usual ones.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) trailers: Vec<(String, String)>,
    /// The whole body gzipped, whatever `accept-encoding` said.
    pub(crate) gzip: bool,
    /// Bytes that are not what the content type says.
    pub(crate) garbage: Option<Garbage>,
    /// `false`: the answer has no usage in it.
    pub(crate) usage: Option<bool>,
    /// Tokens, instead of what the request's text comes to and the usual length of an answer.
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    /// Wait before the response headers, and between two events.
    pub(crate) delay_ms: u64,
    pub(crate) pace_ms: u64,
    /// Send the body in pieces of this many bytes, whatever its events are.
    pub(crate) chunk: Option<usize>,
    /// How the answer ends, and after how many events (absent: before the headers).
    pub(crate) end: End,
    pub(crate) at: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    #[default]
    Complete,
    /// The provider's error event inside a 200, then the end.
    Error,
    /// Silence, connection open.
    Hang,
    /// HTTP/1.1: the connection is closed; HTTP/2: RST_STREAM.
    Reset,
    /// A clean end too early; of a body with a content-length, a closed connection.
    Truncate,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fail {
    BadCredential,
    BadRequest,
    NotFound,
    Overloaded,
    Permission,
    RateLimited,
    Server,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Garbage {
    Bytes,
    Json,
}

/// One line of the script.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Only requests that name this model (anywhere in the body, or in the path).
    model: Option<String>,
    /// For so many requests; absent: for all.
    times: Option<u32>,
    behaviour: Behaviour,
}

impl Behaviour {
    /// The cue for one request. `Err` says what a marker has wrong.
    pub(crate) fn choose(rules: &mut [Rule], path: &str, body: &[u8]) -> Result<Self, String> {
        if let Some(marker) = marker(body) {
            return Self::from_marker(&marker);
        }
        for rule in rules {
            let named = rule.model.as_ref().is_none_or(|model| {
                path.contains(model.as_str())
                    || memchr::memmem::find(body, model.as_bytes()).is_some()
            });
            if !named || rule.times == Some(0) {
                continue;
            }
            rule.times = rule.times.map(|times| times.saturating_sub(1));
            return Ok(rule.behaviour.clone());
        }
        Ok(Self::default())
    }

    fn from_marker(marker: &str) -> Result<Self, String> {
        let mut fields = Map::new();
        for word in marker.split_whitespace() {
            let (name, text) = word.split_once('=').unwrap_or((word, "true"));
            let value =
                serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
            fields.insert(name.to_owned(), value);
        }
        serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
    }
}

/// What stands between `[[sim ` and `]]`, in the first such marker.
fn marker(body: &[u8]) -> Option<String> {
    let start = memchr::memmem::find(body, b"[[sim ")?.saturating_add(b"[[sim ".len());
    let rest = body.get(start..)?;
    let inside = rest.get(..memchr::memmem::find(rest, b"]]")?)?;
    Some(String::from_utf8_lossy(inside).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_in_the_body_is_a_cue() {
        let body = br#"{"model":"m","messages":[{"content":"hi [[sim end=reset at=3 gzip]]"}]}"#;
        let cue = Behaviour::choose(&mut [], "/", body).unwrap();
        assert_eq!((cue.end, cue.at, cue.gzip), (End::Reset, Some(3), true));
    }

    #[test]
    fn an_unknown_word_is_an_error() {
        assert!(Behaviour::choose(&mut [], "/", b"[[sim explode=1]]").is_err());
    }

    #[test]
    fn a_rule_counts_for_its_model_and_so_many_times() {
        let rule = r#"[{"model":"m1","times":1,"behaviour":{"status":500}}]"#;
        let mut rules: Vec<Rule> = serde_json::from_str(rule).unwrap();
        let mut status = |body: &[u8]| Behaviour::choose(&mut rules, "/", body).unwrap().status;
        assert_eq!(status(b"m2"), None);
        assert_eq!(status(b"m1"), Some(500));
        assert_eq!(status(b"m1"), None);
    }
}
