//! How fast answers are metered; each bench checks what it counted.

use std::{fmt::Write as _, hint::black_box};

use almoner_core::{
    meter::{
        Calibration, Charge, Dialect, End, Form, HeaderCounts, Meter, MeterSetup, Metered, More,
        UsageEvent,
    },
    units::Tokens,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const EVENTS: u64 = 500;

/// What Envoy hands over at once, at most, with its default buffers.
const CHUNK: usize = 16 * 1024;

const WORDS: [&str; 8] = [
    " the", " quick", " brown", " fox", ".", " It", " jumps", " 42",
];

fn words() -> impl Iterator<Item = &'static str> {
    WORDS
        .into_iter()
        .cycle()
        .take(usize::try_from(EVENTS).unwrap_or_default())
}

fn openai_stream() -> String {
    let head = r#"data: {"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","created":1741570283,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_44add55e8e","choices":["#;
    let mut body = String::new();
    for word in words() {
        let _ = write!(
            body,
            "{head}{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
        );
    }
    let _ = write!(
        body,
        "{head}],\"usage\":{{\"prompt_tokens\":20,\"completion_tokens\":{EVENTS},\"total_tokens\":520}}}}\n\ndata: [DONE]\n\n"
    );
    body
}

fn anthropic_stream() -> String {
    let mut body = String::from(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude\",\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\n",
    );
    for word in words() {
        let _ = write!(
            body,
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{word}\"}}}}\n\n"
        );
    }
    let _ = write!(
        body,
        "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{{\"output_tokens\":{EVENTS}}}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    );
    body
}

fn openai_answer() -> String {
    let text: String = WORDS.into_iter().cycle().take(5000).collect();
    format!(
        r#"{{"id":"chatcmpl-1","model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":20,"completion_tokens":{EVENTS},"total_tokens":520}}}}"#
    )
}

/// An answer to an embeddings request: numbers, of which none counts.
fn embeddings() -> String {
    let vector = "-0.026416376,".repeat(1536 * 8);
    format!(
        r#"{{"data":[{{"embedding":[{vector}0]}}],"usage":{{"prompt_tokens":20,"total_tokens":20}}}}"#
    )
}

fn meter(setup: &MeterSetup<'_>, body: &str) -> Metered {
    let mut meter = Meter::new(setup);
    for chunk in body.as_bytes().chunks(CHUNK) {
        let _ = black_box(meter.push(black_box(chunk), More::Expected));
        black_box(meter.output_so_far());
    }
    let _ = black_box(meter.push(b"", More::Over));
    meter.finish(End::Complete)
}

fn benches(criterion: &mut Criterion) {
    let setup = |dialect, charge, content_type: &'static str, usage_event| MeterSetup {
        form: Form::new(dialect, charge),
        status: 200,
        content_type: content_type.as_bytes(),
        content_encoding: b"",
        usage_event,
        headers: HeaderCounts::default(),
        calibration: Calibration::default(),
        input_estimate: Tokens::ZERO,
    };
    let sse = "text/event-stream";
    let json = "application/json";
    let (keep, remove) = (UsageEvent::Keep, UsageEvent::Remove);
    let output = Some(Tokens(EVENTS));
    let cases = [
        (
            "openai_sse",
            setup(Dialect::OpenAi, Charge::Both, sse, keep),
            openai_stream(),
            output,
        ),
        (
            "openai_sse_remove",
            setup(Dialect::OpenAi, Charge::Both, sse, remove),
            openai_stream(),
            output,
        ),
        (
            "anthropic_sse",
            setup(Dialect::Anthropic, Charge::Both, sse, keep),
            anthropic_stream(),
            output,
        ),
        (
            "openai_json",
            setup(Dialect::OpenAi, Charge::Both, json, keep),
            openai_answer(),
            output,
        ),
        (
            "embeddings_json",
            setup(Dialect::OpenAi, Charge::Input, json, keep),
            embeddings(),
            None,
        ),
    ];
    let mut group = criterion.benchmark_group("meter");
    for (name, setup, body, output) in cases {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let metered = meter(&setup, &body);
                assert_eq!(
                    (metered.usage.input, metered.usage.output),
                    (Some(Tokens(20)), output)
                );
            });
        });
    }
    group.finish();
}

criterion_group!(meters, benches);
criterion_main!(meters);
