//! The meter as a whole, on streams of our own: every fixture whole, byte by byte, at every split.

mod damage;
mod dialects;

use super::*;
use crate::api::{Api, Endpoint};

fn setup(dialect: Dialect, content_type: &str) -> MeterSetup<'_> {
    MeterSetup {
        form: Form::new(dialect, Charge::Both),
        status: 200,
        content_type: content_type.as_bytes(),
        content_encoding: b"",
        headers: HeaderCounts::default(),
        usage_event: UsageEvent::Keep,
        calibration: Calibration::default(),
        input_estimate: Tokens(77),
    }
}

/// What the meter says of these chunks, and what it forwards.
fn run(setup: &MeterSetup<'_>, chunks: &[&[u8]], end: End) -> (Metered, Vec<u8>) {
    let mut meter = Meter::new(setup);
    let mut forwarded = Vec::new();
    let mut forward = |chunk: &[u8], forward: Forward| match forward {
        Forward::Unchanged => forwarded.extend_from_slice(chunk),
        Forward::Replace(bytes) => forwarded.extend_from_slice(&bytes),
    };
    for chunk in chunks {
        forward(chunk, meter.push(chunk, More::Expected));
    }
    forward(b"", meter.push(b"", More::Over));
    (meter.finish(end), forwarded)
}

/// As `run` of the whole body, having checked that pieces make no difference.
fn run_split(setup: &MeterSetup<'_>, body: &[u8], end: End) -> (Metered, Vec<u8>) {
    let whole = run(setup, &[body], end);
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(run(setup, &bytes, end), whole, "byte by byte");
    for at in 0..=body.len() {
        let (head, tail) = body.split_at(at);
        assert_eq!(run(setup, &[head, tail], end), whole, "split at {at}");
    }
    whole
}

fn metered(setup: &MeterSetup<'_>, body: &str, end: End) -> Metered {
    let (metered, forwarded) = run_split(setup, body.as_bytes(), end);
    assert_eq!(forwarded, body.as_bytes(), "forwarded untouched");
    metered
}

const SSE: &str = "text/event-stream; charset=utf-8";
const JSON: &str = "application/json";

fn chat_event(rest: &str) -> String {
    format!(
        r#"data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-4o-mini",{rest}}}"#
    )
}

fn chat_stream(line_end: &str, usage: &str) -> String {
    let mut lines = vec![
        chat_event(
            r#""choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null"#,
        ),
        chat_event(
            r#""choices":[{"index":0,"delta":{"content":"Hällo \"you\" \\"},"finish_reason":null}],"usage":null"#,
        ),
        chat_event(
            r#""choices":[{"index":0,"delta":{"content":" {\"usage\":{\"prompt_tokens\":1}}"},"finish_reason":null}],"usage":null"#,
        ),
        chat_event(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null"#),
    ];
    if !usage.is_empty() {
        lines.push(chat_event(&format!(r#""choices":[],"usage":{usage}"#)));
    }
    lines.push("data: [DONE]".to_owned());
    lines
        .iter()
        .map(|line| format!("{line}{line_end}{line_end}"))
        .collect()
}

const CHAT_USAGE: &str = r#"{"prompt_tokens":14,"completion_tokens":8,"total_tokens":22,"prompt_tokens_details":{"cached_tokens":3,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":5,"audio_tokens":0}}"#;

fn chat_usage() -> Usage {
    Usage {
        input: Some(Tokens(14)),
        output: Some(Tokens(8)),
        total: Some(Tokens(22)),
        cached_input: Some(Tokens(3)),
        reasoning: Some(Tokens(5)),
        ..Usage::default()
    }
}

#[test]
fn counts_a_chat_stream_with_any_line_end() {
    for line_end in ["\n", "\r\n", "\r"] {
        let body = chat_stream(line_end, CHAT_USAGE);
        let metered = metered(&setup(Dialect::OpenAi, SSE), &body, End::Complete);
        assert_eq!(metered.usage, chat_usage());
        assert_eq!(metered.reported, chat_usage());
        assert_eq!(metered.completeness, Completeness::Complete);
        assert_eq!(metered.finish_reasons, ["stop"]);
        assert_eq!(metered.model.as_deref(), Some("gpt-4o-mini"));
        assert_eq!(metered.response_id.as_deref(), Some("chatcmpl-1"));
    }
}

#[test]
fn takes_the_usage_event_out_and_nothing_else() {
    for line_end in ["\n", "\r\n", "\r"] {
        let setup = MeterSetup {
            usage_event: UsageEvent::Remove,
            ..setup(Dialect::OpenAi, SSE)
        };
        let (metered, forwarded) = run_split(
            &setup,
            chat_stream(line_end, CHAT_USAGE).as_bytes(),
            End::Complete,
        );
        assert_eq!(
            String::from_utf8(forwarded).unwrap(),
            chat_stream(line_end, "")
        );
        assert_eq!(metered.usage, chat_usage());
    }
}

#[test]
fn takes_out_a_usage_event_that_the_end_of_the_body_cuts_short() {
    let setup = MeterSetup {
        usage_event: UsageEvent::Remove,
        ..setup(Dialect::OpenAi, SSE)
    };
    let body = chat_event(&format!(r#""choices":[],"usage":{CHAT_USAGE}"#));
    let (metered, forwarded) = run_split(&setup, body.as_bytes(), End::Complete);
    assert_eq!(forwarded, b"");
    assert_eq!(metered.usage, chat_usage());
}

#[test]
fn keeps_events_that_have_no_choice_or_no_usage_only() {
    let setup = MeterSetup {
        usage_event: UsageEvent::Remove,
        ..setup(Dialect::OpenAi, SSE)
    };
    let body = [
        ": a comment\n\n".to_owned(),
        format!(
            "{}\n\n",
            chat_event(r#""choices":[],"prompt_filter_results":[]"#)
        ),
        format!("{}\n\n", chat_event(r#""choices":[],"usage":null"#)),
        format!(
            "{}\n\n",
            chat_event(&format!(
                r#""usage":{CHAT_USAGE},"choices":[{{"index":0}}]"#
            ))
        ),
        "data: [DONE]\n\nevent: unfinished\ndata: {\"a\"".to_owned(),
    ]
    .concat();
    let (_, forwarded) = run_split(&setup, body.as_bytes(), End::Complete);
    assert_eq!(String::from_utf8(forwarded).unwrap(), body);
}

#[test]
fn releases_what_it_held_when_the_event_grows_too_long() {
    let setup = MeterSetup {
        usage_event: UsageEvent::Remove,
        ..setup(Dialect::OpenAi, SSE)
    };
    let body = format!(
        "data: {{\"choices\":[],\"pad\":\"{}\",\"usage\":{{}}}}\n\n",
        "x".repeat(40_000)
    );
    for size in [1, 1000, 16_384] {
        let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        let (_, forwarded) = run(&setup, &chunks, End::Complete);
        assert!(forwarded == body.as_bytes(), "in chunks of {size}");
    }
}

#[test]
fn joins_data_lines_and_ignores_what_is_not_data() {
    let body = format!(
        "\u{feff}: hello\nid: 7\nretry: 10\nevent: x\ndataset: {{\ndata:{{\"choices\":[],\ndata: \"usage\":\ndata: {CHAT_USAGE}}}\n\ndata\n\ndata: [DONE]\n\n"
    );
    let metered = metered(&setup(Dialect::OpenAi, SSE), &body, End::Complete);
    assert_eq!(metered.usage, chat_usage());
}

#[test]
fn counts_a_chat_answer() {
    let body = format!(
        r#"{{"id":"chatcmpl-2","choices":[{{"message":{{"role":"assistant","content":"{{\"usage\":{{\"prompt_tokens\":9999}}}}","usage":{{"prompt_tokens":1}}}},"finish_reason":"length","logprobs":[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}}], "usage" : {CHAT_USAGE}, "model":"gpt-4o-mini" }}"#
    );
    let metered = metered(&setup(Dialect::OpenAi, JSON), &body, End::Complete);
    assert_eq!(metered.usage, chat_usage());
    assert_eq!(metered.completeness, Completeness::Complete);
    assert_eq!(metered.finish_reasons, ["length"]);
}

const MESSAGE_STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","model":"claude-x","content":[],"usage":{"input_tokens":4,"cache_creation_input_tokens":100,"cache_read_input_tokens":20,"cache_creation":{"ephemeral_5m_input_tokens":60,"ephemeral_1h_input_tokens":40},"output_tokens":1}}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello, wörld"}   }

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" and more of it"}   }

"#;

const MESSAGE_END: &str = r#"event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":17,"cache_read_input_tokens":null}}

event: message_stop
data: {"type":"message_stop"}

"#;

#[test]
fn counts_a_message_stream() {
    let body = format!("{MESSAGE_STREAM}{MESSAGE_END}");
    let metered = metered(&setup(Dialect::Anthropic, SSE), &body, End::Complete);
    let expected = Usage {
        input: Some(Tokens(124)),
        output: Some(Tokens(17)),
        cached_input: Some(Tokens(20)),
        cache_write: Some(Tokens(100)),
        cache_write_hour: Some(Tokens(40)),
        ..Usage::default()
    };
    assert_eq!(metered.usage, expected);
    assert_eq!(metered.completeness, Completeness::Complete);
    assert_eq!(metered.finish_reasons, ["end_turn"]);
    assert_eq!(metered.model.as_deref(), Some("claude-x"));
    assert_eq!(metered.response_id.as_deref(), Some("msg_1"));
}

#[test]
fn charges_a_broken_off_message_stream_by_estimate_on_top_of_the_report() {
    for end in [
        End::Complete,
        End::CutByUs,
        End::CallerGone,
        End::ProviderReset,
    ] {
        let metered = metered(&setup(Dialect::Anthropic, SSE), MESSAGE_STREAM, end);
        assert_eq!(metered.completeness, Completeness::Partial);
        assert_eq!(metered.usage.input, Some(Tokens(124)));
        assert_eq!(metered.reported.output, Some(Tokens(1)));
        assert_eq!(metered.usage.output, Some(metered.output_estimate));
        assert!(
            metered.output_estimate > Tokens(4),
            "{}",
            metered.output_estimate
        );
    }
}

#[test]
fn counts_passes_that_the_sum_beside_them_leaves_out() {
    let body = r#"{"type":"message","usage":{"input_tokens":10,"output_tokens":5,"iterations":[
        {"type":"compaction","input_tokens":1000,"output_tokens":50,"cache_read_input_tokens":7},
        {"type":"message","input_tokens":10,"output_tokens":5}]}}"#;
    let metered = metered(&setup(Dialect::Anthropic, JSON), body, End::Complete);
    assert_eq!(metered.usage.input, Some(Tokens(1017)));
    assert_eq!(metered.usage.output, Some(Tokens(55)));
}

#[test]
fn charges_by_estimate_where_nothing_is_reported() {
    let body = chat_stream("\n", "");
    let metered = metered(&setup(Dialect::OpenAi, SSE), &body, End::Complete);
    assert_eq!(metered.completeness, Completeness::Estimated);
    assert_eq!(metered.usage.input, Some(Tokens(77)));
    assert_eq!(metered.usage.output, Some(metered.output_estimate));
    assert!(
        metered.output_estimate > Tokens(8),
        "{}",
        metered.output_estimate
    );
    assert_eq!(metered.reported, Usage::default());
}

#[test]
fn an_error_inside_a_200_is_marked_and_still_charged() {
    let body = format!(
        "{}\n\nevent: error\ndata: {{\"error\":{{\"message\":\"overloaded\"}}}}\n\n",
        chat_event(r#""choices":[{"index":0,"delta":{"content":"Some words came"}}]"#)
    );
    let metered = metered(&setup(Dialect::OpenAi, SSE), &body, End::Complete);
    assert_eq!(metered.completeness, Completeness::Failed);
    assert_eq!(metered.usage.input, Some(Tokens(77)));
    assert!(metered.usage.output > Some(Tokens(1)));
}

#[test]
fn an_error_answer_costs_nothing() {
    let setup = MeterSetup {
        status: 429,
        ..setup(Dialect::OpenAi, JSON)
    };
    let body = format!(r#"{{"error":{{"message":"no"}},"usage":{CHAT_USAGE}}}"#);
    let metered = metered(&setup, &body, End::Complete);
    assert_eq!(metered.completeness, Completeness::Failed);
    assert_eq!(metered.usage, Usage::default());
}

#[test]
fn counting_tokens_costs_nothing() {
    let setup = MeterSetup {
        form: Form::of(Api::Anthropic, Endpoint::CountTokens),
        ..setup(Dialect::Anthropic, JSON)
    };
    let metered = metered(&setup, r#"{"input_tokens":671}"#, End::Complete);
    assert_eq!(
        (metered.usage, metered.completeness),
        (Usage::default(), Completeness::Complete)
    );
}

#[test]
fn numbers_that_are_no_counts_are_missing() {
    for (number, expected) in [
        ("28.0", Some(28)),
        ("27.2", Some(28)),
        ("3e2", Some(300)),
        ("0", Some(0)),
        ("-0", Some(0)),
        ("-9", None),
        ("null", None),
        ("true", None),
        ("\"12\"", None),
        ("{}", None),
        ("1e300", None),
        ("99999999999999999999999999", None),
        ("NaN", None),
        ("inf", None),
    ] {
        let body = format!(r#"{{"usage":{{"prompt_tokens":{number},"completion_tokens":1}}}}"#);
        let metered = metered(&setup(Dialect::OpenAi, JSON), &body, End::Complete);
        assert_eq!(metered.reported.input, expected.map(Tokens), "{number}");
        assert_eq!(
            metered.usage.input,
            Some(expected.map_or(Tokens(77), Tokens)),
            "{number}"
        );
    }
}

#[test]
fn reasoning_left_out_of_the_output_is_found_in_the_total() {
    let body = r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":35,"completion_tokens_details":{"reasoning_tokens":20}}}"#;
    let metered = metered(&setup(Dialect::OpenAi, JSON), body, End::Complete);
    assert_eq!(metered.usage.output, Some(Tokens(25)));
}

#[test]
fn the_last_report_stands() {
    let event = |output| {
        chat_event(&format!(
            r#""choices":[{{"index":0,"delta":{{"content":"a"}}}}],"usage":{{"prompt_tokens":9,"completion_tokens":{output},"total_tokens":{}}}"#,
            output + 9
        ))
    };
    let body = format!(
        "{}\r\n\r\n{}\r\n\r\n{}\r\n\r\n",
        event(1),
        event(7),
        event(5)
    );
    let metered = metered(&setup(Dialect::OpenAi, SSE), &body, End::Complete);
    assert_eq!(metered.usage.output, Some(Tokens(5)));
    assert_eq!(metered.usage.input, Some(Tokens(9)));
}

#[test]
fn says_how_much_has_come_at_any_moment() {
    let mut meter = Meter::new(&setup(Dialect::OpenAi, SSE));
    let mut before = Tokens::ZERO;
    assert_eq!(meter.output_so_far(), before);
    for _ in 0..10 {
        let event = chat_event(r#""choices":[{"index":0,"delta":{"content":" some words"}}]"#);
        assert_eq!(
            meter.push(event.as_bytes(), More::Expected),
            Forward::Unchanged
        );
        assert_eq!(meter.push(b"\n\n", More::Expected), Forward::Unchanged);
        assert!(meter.output_so_far() > before);
        before = meter.output_so_far();
    }
    let usage = chat_event(r#""choices":[],"usage":{"prompt_tokens":1,"completion_tokens":5000}"#);
    assert_eq!(
        meter.push(usage.as_bytes(), More::Expected),
        Forward::Unchanged
    );
    assert_eq!(meter.output_so_far(), Tokens(5000));
}

#[test]
fn what_cannot_be_read_is_forwarded_and_charged_by_size() {
    let body = "\u{1f}\u{8b} not what it says it is, for 400 bytes".repeat(10);
    let json = setup(Dialect::OpenAi, JSON);
    let html = MeterSetup {
        content_type: b"text/html",
        ..json
    };
    let plain = MeterSetup {
        content_type: b"text/plain",
        ..json
    };
    let gzip = MeterSetup {
        content_encoding: b"gzip",
        ..json
    };
    for (setup, error) in [
        (json, MeterError::Malformed),
        (html, MeterError::UnknownContentType),
        (plain, MeterError::UnknownContentType),
        (gzip, MeterError::Compressed),
    ] {
        let metered = metered(&setup, &body, End::Complete);
        assert_eq!(metered.error, Some(error));
        assert_eq!(metered.completeness, Completeness::Estimated);
        assert!(metered.usage.output >= Some(Tokens(100)), "{metered:?}");
    }
}

#[test]
fn a_body_without_a_telling_media_type_is_known_by_its_first_byte() {
    let stream = chat_stream("\n", CHAT_USAGE);
    let json = format!(r#" {{"usage":{CHAT_USAGE},"choices":[]}}"#);
    for content_type in ["", "text/plain; charset=utf-8", "application/octet-stream"] {
        let setup = setup(Dialect::OpenAi, content_type);
        assert_eq!(metered(&setup, &stream, End::Complete).usage, chat_usage());
        assert_eq!(metered(&setup, &json, End::Complete).usage, chat_usage());
        let remove = MeterSetup {
            usage_event: UsageEvent::Remove,
            ..setup
        };
        let (_, forwarded) = run_split(&remove, stream.as_bytes(), End::Complete);
        assert_eq!(String::from_utf8(forwarded).unwrap(), chat_stream("\n", ""));
    }
}

#[test]
fn a_document_without_end_or_bottom_is_read_in_constant_memory() {
    let piece = [b'['; 4096];
    let mut meter = Meter::new(&setup(Dialect::OpenAi, JSON));
    for _ in 0..1000 {
        assert_eq!(meter.push(&piece, More::Expected), Forward::Unchanged);
    }
    assert_eq!(
        meter.finish(End::ProviderReset).completeness,
        Completeness::Estimated
    );
    let deep = format!(
        r#"{{"choices":[{{"message":{{"content":{}"x"{}}}}}],"usage":{CHAT_USAGE}}}"#,
        "[".repeat(500),
        "]".repeat(500)
    );
    assert_eq!(
        metered(&setup(Dialect::OpenAi, JSON), &deep, End::Complete).usage,
        chat_usage()
    );
}
