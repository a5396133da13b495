//! Edits of a body: a line is what came, the edits, and what goes up.

use almoner_core::{
    api::Endpoint::{self, *},
    body,
    edits::{
        Edit::{self, *},
        apply,
    },
    units::Tokens,
};

fn edited(endpoint: Endpoint, text: &str, edits: &[Edit]) -> String {
    match body::read(endpoint, text.as_bytes()) {
        Ok(facts) => match apply(&facts, edits) {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => text.to_owned(),
        },
        Err(denial) => format!("{denial:?}"),
    }
}

const LIMIT: Edit = MaxOutputTokens(Tokens(9));

#[test]
#[rustfmt::skip]
fn has_usage_reported_in_a_stream() {
    for (endpoint, came, goes) in [
        (Chat, r#"{"stream":true}"#, r#"{"stream_options":{"include_usage":true},"stream":true}"#),
        (Chat, "{ \"stream\": true }", "{\"stream_options\":{\"include_usage\":true}, \"stream\": true }"),
        (Chat, r#"{"stream":true,"stream_options":null}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (Chat, r#"{"stream":true,"stream_options":{}}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (Chat, r#"{"stream":true,"stream_options":{ }}"#, r#"{"stream":true,"stream_options":{"include_usage":true }}"#),
        (Chat, r#"{"stream":true,"stream_options":{"a":1}}"#, r#"{"stream":true,"stream_options":{"include_usage":true,"a":1}}"#),
        (Chat, r#"{"stream":true,"stream_options":{"include_usage":false}}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (Chat, r#"{"stream":true,"stream_options":{"include_usage": null ,"a":1}}"#, r#"{"stream":true,"stream_options":{"include_usage": true ,"a":1}}"#),
        (Chat, r#"{"stream_options":{"include_us\u0061ge":false},"stream":true}"#, r#"{"stream_options":{"include_us\u0061ge":true},"stream":true}"#),
        (Completions, r#"{"stream":true}"#, r#"{"stream_options":{"include_usage":true},"stream":true}"#),
        // Nothing to do.
        (Chat, r#"{"stream":true,"stream_options":{"include_usage":true}}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (Chat, r#"{"stream":false}"#, r#"{"stream":false}"#),
        (Chat, "{}", "{}"),
        (Responses, r#"{"stream":true}"#, r#"{"stream":true}"#),
        (Messages, r#"{"stream":true}"#, r#"{"stream":true}"#),
    ] {
        assert_eq!(edited(endpoint, came, &[IncludeUsage]), goes);
    }
}

#[test]
#[rustfmt::skip]
fn bounds_the_output_where_the_request_does_not() {
    for (endpoint, came, goes) in [
        (Chat, "{}", r#"{"max_completion_tokens":9}"#),
        (Chat, "  {\n}\n", "  {\"max_completion_tokens\":9\n}\n"),
        (Chat, r#"{"model":"m"}"#, r#"{"max_completion_tokens":9,"model":"m"}"#),
        (Chat, r#"{"max_tokens":5}"#, r#"{"max_tokens":5}"#),
        (Chat, r#"{"max_completion_tokens":5}"#, r#"{"max_completion_tokens":5}"#),
        (Chat, r#"{"max_completion_tokens":null}"#, r#"{"max_completion_tokens":9}"#),
        (Chat, r#"{"max_tokens":null}"#, r#"{"max_completion_tokens":9,"max_tokens":null}"#),
        (Chat, r#"{"max_completion_tokens":null,"max_tokens":5}"#, r#"{"max_completion_tokens":null,"max_tokens":5}"#),
        (Chat, r#"{"max_output_tokens":5}"#, r#"{"max_completion_tokens":9,"max_output_tokens":5}"#),
        (Completions, r#"{"a":1}"#, r#"{"max_tokens":9,"a":1}"#),
        (Responses, r#"{"a":1}"#, r#"{"max_output_tokens":9,"a":1}"#),
        (Responses, r#"{"max_tokens":5}"#, r#"{"max_output_tokens":9,"max_tokens":5}"#),
        (Messages, r#"{"a":1}"#, r#"{"max_tokens":9,"a":1}"#),
        // A fallback's bound is not the request's.
        (Messages, r#"{"fallbacks":[{"model":"m","max_tokens":5}]}"#, r#"{"max_tokens":9,"fallbacks":[{"model":"m","max_tokens":5}]}"#),
        (Embeddings, r#"{"a":1}"#, r#"{"a":1}"#),
        (CountTokens, r#"{"a":1}"#, r#"{"a":1}"#),
    ] {
        assert_eq!(edited(endpoint, came, &[LIMIT]), goes);
    }
}

#[test]
#[rustfmt::skip]
fn has_nothing_kept() {
    for (endpoint, came, goes) in [
        (Responses, "{}", r#"{"store":false}"#),
        (Responses, r#"{"a":1}"#, r#"{"store":false,"a":1}"#),
        (Responses, r#"{"store":null}"#, r#"{"store":false}"#),
        (Responses, r#"{"store":false}"#, r#"{"store":false}"#),
        (Responses, r#"{"store":true,"a":1}"#, r#"{"store":false,"a":1}"#),
        (Responses, r#"{"st\u006fre" : true}"#, r#"{"st\u006fre" : false}"#),
        (Chat, r#"{"a":1}"#, r#"{"store":false,"a":1}"#),
        (Messages, r#"{"a":1}"#, r#"{"a":1}"#),
        (Embeddings, r#"{"a":1}"#, r#"{"a":1}"#),
    ] {
        assert_eq!(edited(endpoint, came, &[NoStore]), goes);
    }
}

#[test]
fn makes_several_edits_at_once() {
    let all = [IncludeUsage, LIMIT, NoStore];
    assert_eq!(
        edited(
            Chat,
            r#"{"stream":true,"messages":["é\n"],"max_completion_tokens":null}"#,
            &all
        ),
        r#"{"store":false,"stream_options":{"include_usage":true},"stream":true,"messages":["é\n"],"max_completion_tokens":9}"#,
    );
    let came = r#" {"store":true,"stream":true,"stream_options":{"include_usage":false}} "#;
    assert_eq!(
        edited(Chat, came, &all),
        r#" {"max_completion_tokens":9,"store":false,"stream":true,"stream_options":{"include_usage":true}} "#,
    );
    assert_eq!(
        edited(Chat, "{ }", &[LIMIT, NoStore]),
        "{\"store\":false,\"max_completion_tokens\":9 }"
    );
    // An edit that is asked for twice is made once, the first way.
    let twice = [LIMIT, MaxOutputTokens(Tokens(1)), LIMIT];
    assert_eq!(edited(Messages, "{}", &twice), r#"{"max_tokens":9}"#);
}

#[test]
fn says_nothing_where_nothing_is_to_do() {
    let text = r#"{"store":false,"max_completion_tokens":1}"#;
    let facts = body::read(Chat, text.as_bytes()).unwrap();
    assert_eq!(apply(&facts, &[IncludeUsage, LIMIT, NoStore]), None);
    assert_eq!(apply(&facts, &[]), None);
}
