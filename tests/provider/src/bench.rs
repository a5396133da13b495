//! Takes a request that names the model [`MODEL`]; gives bytes that were made beforehand, so that
//! under load the simulator is not what is measured.

use std::sync::LazyLock;

use memchr::memmem::find;
use serde_json::json;

use crate::answer::Answer;
use crate::behaviour::Behaviour;
use crate::openai;

pub(crate) const MODEL: &str = "sim-bench";

/// Events of a stream: 197 of content, the opening, the finish, and `[DONE]`.
const CONTENT_EVENTS: u64 = 197;
/// Makes the JSON answer about 1 KiB.
const UNARY_TOKENS: u64 = 90;

static UNARY: LazyLock<Answer> = LazyLock::new(|| prepare(json!({}), UNARY_TOKENS));
static STREAM: LazyLock<Answer> =
    LazyLock::new(|| prepare(json!({"stream": true}), CONTENT_EVENTS));
static STREAM_WITH_USAGE: LazyLock<Answer> = LazyLock::new(|| {
    let options = json!({"include_usage": true});
    prepare(
        json!({"stream": true, "stream_options": options}),
        CONTENT_EVENTS,
    )
});

/// The prepared answer, if this request is for one.
pub(crate) fn answer(body: &[u8]) -> Option<Answer> {
    find(body, MODEL.as_bytes())?;
    let prepared = if find(body, b"\"stream\":true").is_none() {
        &UNARY
    } else if find(body, b"\"include_usage\":true").is_none() {
        &STREAM
    } else {
        &STREAM_WITH_USAGE
    };
    Some(Answer::clone(prepared))
}

fn prepare(mut request: serde_json::Value, output: u64) -> Answer {
    request["model"] = MODEL.into();
    request["messages"] = json!([{"role": "user", "content": "Give alms."}]);
    let cue = Behaviour {
        output: Some(output),
        ..Behaviour::default()
    };
    let path = "/v1/chat/completions";
    openai::answer(
        &hyper::Method::POST,
        path,
        request.to_string().as_bytes(),
        &cue,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_200_events_and_one_more_with_usage() {
        let plain = br#"{"model":"sim-bench","stream":true}"#;
        let asked =
            br#"{"model":"sim-bench","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(answer(plain).unwrap().pieces.len(), 200);
        assert_eq!(answer(asked).unwrap().pieces.len(), 201);
    }

    #[test]
    fn the_json_answer_is_about_a_kibibyte() {
        let answer = answer(br#"{"model":"sim-bench"}"#).unwrap();
        let size = answer
            .pieces
            .iter()
            .map(|piece| piece.bytes.len())
            .sum::<usize>();
        assert!((900..1200).contains(&size), "{size}");
    }
}
