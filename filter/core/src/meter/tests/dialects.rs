//! One small answer of each dialect beside chat and messages, in each form: whole, byte by byte, at
//! every split.

use super::{JSON, SSE, metered, run_split, setup};
use crate::meter::*;

const AWS: &str = "application/vnd.amazon.eventstream";

fn tokens(tokens: u64) -> Option<Tokens> {
    Some(Tokens(tokens))
}

/// The sum of what was reported, as (input, output, total).
fn counted(dialect: Dialect, content_type: &str, body: &str) -> (Usage, Metered) {
    let metered = metered(&setup(dialect, content_type), body, End::Complete);
    assert_eq!(metered.completeness, Completeness::Complete, "{metered:?}");
    (metered.usage, metered)
}

#[test]
fn responses_report_inside_the_last_event() {
    let body = r#"event: response.created
data: {"type":"response.created","response":{"id":"resp_1","status":"in_progress","model":"gpt-5","error":null,"usage":null}}

event: response.output_item.added
data: {"type":"response.output_item.added","item":{"type":"function_call","name":"weather","arguments":""}}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","delta":"{\"city\":\"Paris\"}"}

event: response.output_audio.delta
data: {"type":"response.output_audio.delta","delta":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_1","status":"completed","output":[{"content":[{"text":"text that came before"}]}],"usage":{"input_tokens":30,"input_tokens_details":{"cached_tokens":10},"output_tokens":12,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":42}}}

"#;
    let (usage, metered) = counted(Dialect::OpenAi, SSE, body);
    assert_eq!(
        (usage.input, usage.output, usage.total),
        (tokens(30), tokens(12), tokens(42))
    );
    assert_eq!(
        (usage.cached_input, usage.reasoning),
        (tokens(10), tokens(4))
    );
    assert_eq!(metered.finish_reasons, ["completed"]);
    assert!(
        metered.output_estimate < Tokens(25),
        "{}",
        metered.output_estimate
    );
}

#[test]
fn a_response_that_failed_is_marked() {
    let body = r#"event: response.failed
data: {"type":"response.failed","response":{"status":"failed","error":{"code":"insufficient_quota"},"usage":null}}

"#;
    let metered = metered(&setup(Dialect::OpenAi, SSE), body, End::Complete);
    assert_eq!(metered.completeness, Completeness::Failed);
    assert_eq!(metered.usage.input, tokens(77));
}

#[test]
fn text_repeated_beside_each_piece_is_estimated_once() {
    let event = r#"data: {"choices":[{"message":{"content":"one two three four"},"delta":{"content":" four"}}]}"#;
    let body = format!("{event}\r\n\r\n").repeat(4);
    let metered = metered(&setup(Dialect::OpenAi, SSE), &body, End::Complete);
    assert!(
        metered.output_estimate <= Tokens(5),
        "{}",
        metered.output_estimate
    );
}

#[test]
fn embeddings_cost_their_input() {
    let setup = MeterSetup {
        form: Form::new(Dialect::OpenAi, Charge::Input),
        ..setup(Dialect::OpenAi, JSON)
    };
    for usage in [
        r#"{"prompt_tokens":7,"total_tokens":7}"#,
        r#"{"total_tokens":7}"#,
    ] {
        let body = format!(r#"{{"data":[{{"embedding":[0.5,-1e-3]}}],"usage":{usage}}}"#);
        let metered = metered(&setup, &body, End::Complete);
        assert_eq!(
            (metered.usage.input, metered.usage.output),
            (tokens(7), None)
        );
        assert_eq!(metered.completeness, Completeness::Complete);
    }
}

const GEMINI_FIRST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Hello"}],"role":"model"}}],"usageMetadata":{"promptTokenCount":15,"candidatesTokenCount":2,"totalTokenCount":17},"modelVersion":"gemini-x"}"#;
const GEMINI_LAST: &str = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"usageMetadata":{"promptTokenCount":9999}}}}]},"finishReason":"STOP"}],"usageMetadata":{"trafficType":1,"promptTokenCount":14,"toolUsePromptTokenCount":6,"cachedContentTokenCount":3,"candidatesTokenCount":9,"thoughtsTokenCount":20,"totalTokenCount":49}}"#;

#[test]
fn gemini_reports_as_it_goes_and_the_last_report_stands() {
    for (content_type, body) in [
        (
            SSE,
            format!("data: {GEMINI_FIRST}\r\n\r\ndata: {GEMINI_LAST}\r\n\r\n"),
        ),
        (JSON, format!("[{GEMINI_FIRST}\n,\r\n{GEMINI_LAST}\n]\n")),
        (JSON, GEMINI_LAST.to_owned()),
    ] {
        let (usage, metered) = counted(Dialect::Gemini, content_type, &body);
        assert_eq!(
            (usage.input, usage.output, usage.total),
            (tokens(20), tokens(29), tokens(49))
        );
        assert_eq!(
            (usage.cached_input, usage.reasoning),
            (tokens(3), tokens(20))
        );
        assert_eq!(metered.finish_reasons, ["STOP"]);
    }
}

#[test]
fn a_gemini_stream_that_breaks_off_is_charged_by_its_last_report() {
    let body = format!("data: {GEMINI_FIRST}\r\n\r\n");
    let metered = metered(&setup(Dialect::Gemini, SSE), &body, End::ProviderReset);
    assert_eq!(metered.completeness, Completeness::Partial);
    assert_eq!(
        (metered.usage.input, metered.usage.output),
        (tokens(15), tokens(2))
    );
}

#[test]
fn a_usage_object_without_counts_takes_nothing_back() {
    let body = format!(
        "data: {GEMINI_LAST}\n\ndata: {{\"usageMetadata\":{{\"trafficType\":\"ON_DEMAND\"}}}}\n\n"
    );
    let (usage, _) = counted(Dialect::Gemini, SSE, &body);
    assert_eq!(usage.total, tokens(49));
}

#[test]
fn interactions_report_under_other_names() {
    let body = r#"event: interaction.completed
data: {"interaction":{"id":"v1_x","status":"completed","usage":{"total_tokens":29,"total_input_tokens":9,"total_cached_tokens":0,"total_output_tokens":13,"total_tool_use_tokens":0,"total_thought_tokens":7},"model":"gemini-x"},"event_type":"interaction.completed"}

event: done
data: [DONE]

"#;
    let (usage, _) = counted(Dialect::Gemini, SSE, body);
    assert_eq!(
        (usage.input, usage.output, usage.total),
        (tokens(9), tokens(20), tokens(29))
    );
}

#[test]
fn vertex_predictions_add_up() {
    let setup = MeterSetup {
        form: Form::new(Dialect::Gemini, Charge::Input),
        ..setup(Dialect::Gemini, JSON)
    };
    let one = r#"{"embeddings":{"statistics":{"token_count":4,"truncated":false},"values":[1.5]}}"#;
    let body = format!(r#"{{"predictions":[{one},{one}]}}"#);
    let metered = metered(&setup, &body, End::Complete);
    assert_eq!(metered.usage.input, tokens(8));
}

#[test]
fn cohere_reports_tokens_and_billed_units() {
    let usage = r#"{"billed_units":{"input_tokens":7,"output_tokens":80},"tokens":{"input_tokens":69,"output_tokens":81},"cached_tokens":60}"#;
    for (content_type, body) in [
        (
            JSON,
            format!(
                r#"{{"id":"a","message":{{"content":[{{"text":"Arr"}}]}},"finish_reason":"COMPLETE","usage":{usage}}}"#
            ),
        ),
        (
            JSON,
            format!(r#"{{"text":"Arr","finish_reason":"COMPLETE","meta":{usage}}}"#),
        ),
        (
            SSE,
            format!(
                "event: message-end\ndata: {{\"type\":\"message-end\",\"delta\":{{\"finish_reason\":\"COMPLETE\",\"usage\":{usage}}}}}\n\ndata: [DONE]\n\n"
            ),
        ),
        (
            "application/stream+json",
            format!(
                "{{\"is_finished\":false,\"event_type\":\"text-generation\",\"text\":\"Ar\"}}\n{{\"is_finished\":true,\"response\":{{\"text\":\"Arr\",\"meta\":{usage}}},\"finish_reason\":\"COMPLETE\"}}\n"
            ),
        ),
    ] {
        let (usage, _) = counted(Dialect::Cohere, content_type, &body);
        assert_eq!((usage.input, usage.output), (tokens(69), tokens(81)));
        assert_eq!((usage.cached_input, usage.total), (tokens(60), None));
    }
    let billed = r#"{"generations":[{"text":"Arr"}],"meta":{"billed_units":{"input_tokens":7,"output_tokens":3}}}"#;
    let (usage, _) = counted(Dialect::Cohere, JSON, billed);
    assert_eq!((usage.input, usage.output), (tokens(7), tokens(3)));
}

#[test]
fn ollama_reports_in_its_last_line() {
    let body = "{\"model\":\"llama\",\"message\":{\"content\":\"Hi\"},\"done\":false}\n{\"model\":\"llama\",\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":26,\"eval_count\":2}\n";
    let (usage, _) = counted(Dialect::Ollama, "application/x-ndjson", body);
    assert_eq!((usage.input, usage.output), (tokens(26), tokens(2)));
}

/// A frame of an event stream, checksums included.
fn frame(kind: &str, event: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":event-type", event), (":message-type", kind)] {
        headers.push(name.len() as u8);
        headers.extend(name.as_bytes());
        headers.push(7);
        headers.extend((value.len() as u16).to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let total: usize = [16, headers.len(), payload.len()].iter().sum();
    let mut frame = (total as u32).to_be_bytes().to_vec();
    frame.extend((headers.len() as u32).to_be_bytes());
    frame.extend(eventstream::checksum(&frame).to_be_bytes());
    frame.extend(headers);
    frame.extend(payload.as_bytes());
    frame.extend(eventstream::checksum(&frame).to_be_bytes());
    frame
}

fn converse_stream() -> Vec<u8> {
    [
        frame("event", "messageStart", r#"{"p":"ab","role":"assistant"}"#),
        frame("event", "contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"Hello"},"p":"abc"}"#),
        frame("event", "messageStop", r#"{"stopReason":"end_turn"}"#),
        frame("event", "metadata", r#"{"usage":{"inputTokens":18,"outputTokens":5,"totalTokens":123,"cacheReadInputTokens":100,"cacheWriteInputTokens":0,"cacheReadInputTokenCount":100}}"#),
    ]
    .concat()
}

#[test]
fn converse_reports_in_its_last_frame() {
    let (metered, forwarded) = run_split(
        &setup(Dialect::BedrockConverse, AWS),
        &converse_stream(),
        End::Complete,
    );
    assert_eq!(forwarded, converse_stream());
    let usage = metered.usage;
    assert_eq!(
        (usage.input, usage.output, usage.total),
        (tokens(118), tokens(5), tokens(123))
    );
    assert_eq!(
        (usage.cached_input, usage.cache_write),
        (tokens(100), tokens(0))
    );
    assert_eq!(metered.completeness, Completeness::Complete);
    assert_eq!(metered.finish_reasons, ["end_turn"]);
}

#[test]
fn a_damaged_frame_counts_for_nothing_and_is_forwarded() {
    let whole = converse_stream();
    let prelude_and_name = 30;
    let last = frame("event", "metadata", "{}").len();
    for at in [
        0,
        9,
        prelude_and_name,
        whole.len() - 10,
        whole.len() - 1,
        whole.len() - last,
    ] {
        let mut body = whole.clone();
        body[at] ^= 0x20;
        let setup = setup(Dialect::BedrockConverse, AWS);
        let (metered, forwarded) = run_split(&setup, &body, End::Complete);
        assert_eq!(forwarded, body);
        assert_eq!(metered.error, Some(MeterError::Malformed), "at {at}");
        assert_eq!(metered.reported, Usage::default(), "at {at}");
        assert_eq!(metered.usage.input, tokens(77));
    }
}

#[test]
fn an_exception_frame_is_marked() {
    let body = frame(
        "exception",
        "throttlingException",
        r#"{"message":"slow down"}"#,
    );
    let (metered, _) = run_split(&setup(Dialect::BedrockConverse, AWS), &body, End::Complete);
    assert_eq!(metered.completeness, Completeness::Failed);
}

#[test]
fn invoke_streams_carry_the_model_s_own_events_in_base64() {
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};
    let chunk = |event: &str| {
        frame(
            "event",
            "chunk",
            &format!(r#"{{"bytes":"{}","p":"abcd"}}"#, STANDARD.encode(event)),
        )
    };
    let start = chunk(
        r#"{"type":"message_start","message":{"model":"claude","usage":{"input_tokens":12,"cache_read_input_tokens":8,"output_tokens":1}}}"#,
    );
    let delta = chunk(
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":130}}"#,
    );
    let metrics =
        r#""amazon-bedrock-invocationMetrics":{"inputTokenCount":13,"outputTokenCount":98}"#;
    let stop = chunk(&format!(r#"{{"type":"message_stop",{metrics}}}"#));
    let setup = setup(Dialect::BedrockInvoke, AWS);
    let (metered, _) = run_split(&setup, &[start, delta, stop].concat(), End::Complete);
    assert_eq!(
        (metered.usage.input, metered.usage.output),
        (tokens(20), tokens(130))
    );
    assert_eq!(metered.completeness, Completeness::Complete);

    let text = chunk(r#"{"outputText":"Hello","completionReason":"FINISH"}"#);
    let end = chunk(&format!("{{{metrics}}}"));
    let (metered, _) = run_split(&setup, &[text, end].concat(), End::Complete);
    assert_eq!(
        (metered.usage.input, metered.usage.output),
        (tokens(13), tokens(98))
    );
}

#[test]
fn headers_count_where_an_invoke_body_says_nothing() {
    let headers: [(&[u8], &[u8]); 4] = [
        (b"content-type", b"application/json"),
        (b"x-amzn-bedrock-input-token-count", b"9"),
        (b"x-amzn-bedrock-output-token-count", b"112"),
        (b"x-amzn-bedrock-cache-read-input-token-count", b"5"),
    ];
    let setup = MeterSetup {
        headers: HeaderCounts::read(headers),
        ..setup(Dialect::BedrockInvoke, JSON)
    };
    let usage = |body| metered(&setup, body, End::Complete).usage;
    let said = usage(r#"{"generations":[{"text":"Hi","finish_reason":"COMPLETE"}]}"#);
    assert_eq!(
        (said.input, said.output, said.cached_input),
        (tokens(14), tokens(112), tokens(5))
    );
    let half = usage(r#"{"stopReason":"end_turn","usage":{"inputTokens":30}}"#);
    assert_eq!(
        (half.input, half.output, half.cached_input),
        (tokens(30), tokens(112), None)
    );
    let llama = usage(r#"{"generation":"Hi","prompt_token_count":8,"generation_token_count":3}"#);
    assert_eq!((llama.input, llama.output), (tokens(8), tokens(3)));
}
