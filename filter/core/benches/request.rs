//! How fast a request's head and body are read; each bench checks what it read.

use std::hint::black_box;

use almoner_core::{
    api::{Api, Endpoint},
    body,
    edits::{self, Edit},
    head::{
        Head,
        endpoint::{self, Body},
        headers::{self, Fate, PassHeaders},
    },
    units::Tokens,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

type Pair = (&'static [u8], &'static [u8]);

/// What the OpenAI SDK sends, with what Envoy adds.
const PAIRS: [Pair; 23] = [
    (b":authority", b"gateway.internal:8080"),
    (b":method", b"POST"),
    (b":path", b"/openai/v1/chat/completions"),
    (b":scheme", b"https"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"authorization", b"Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln"),
    (b"content-length", b"1024"),
    (b"content-type", b"application/json"),
    (b"user-agent", b"OpenAI/Python 3.52.0"),
    (b"x-envoy-expected-rq-timeout-ms", b"900000"),
    (b"x-forwarded-for", b"10.0.0.7"),
    (b"x-forwarded-proto", b"https"),
    (b"x-request-id", b"0e0e7b5f-5b0f-4a1c-9a3e-0f3f6c1d2e3f"),
    (b"x-stainless-arch", b"x64"),
    (b"x-stainless-async", b"false"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-os", b"Linux"),
    (b"x-stainless-package-version", b"3.52.0"),
    (b"x-stainless-read-timeout", b"600"),
    (b"x-stainless-retry-count", b"0"),
    (b"x-stainless-runtime", b"CPython"),
    (b"x-stainless-runtime-version", b"3.11.7"),
];

/// A chat of about a kilobyte: system text, four turns, one function.
fn small_chat() -> String {
    let turn = |role, text| format!(r#"{{"role":"{role}","content":"{text}"}}"#);
    let text = "Which of these orders is late, and what did we\\npromise the customer?";
    let messages = [
        turn("system", text),
        turn("user", text),
        turn("assistant", text),
        turn("user", text),
    ];
    format!(
        r#"{{"messages":[{}],"model":"gpt-4o-mini","stream":true,"temperature":0.2,"tools":[{{"type":"function","function":{{"name":"find_order","description":"Finds an order by its number.","parameters":{{"type":"object","properties":{{"number":{{"type":"string","description":"The order's number"}}}},"required":["number"],"additionalProperties":false}},"strict":true}}}}],"tool_choice":"auto","parallel_tool_calls":false,"user":"u-1"}}"#,
        messages.join(",")
    )
}

/// A chat whose messages are `parts` parts of `text` each.
fn long_chat(parts: usize, text: &str) -> String {
    let part = format!(r#"{{"type":"text","text":"{text}"}}"#);
    let parts = vec![part; parts].join(",");
    format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":[{parts}]}}]}}"#)
}

fn head(c: &mut Criterion) {
    c.bench_function("request/head", |b| {
        b.iter(|| {
            let endpoint = Head::read(black_box(PAIRS)).and_then(|head| {
                let rest = head.target.remainder("/openai").unwrap_or_default();
                head.expect(Body::Json)?;
                Ok(endpoint::resolve(Api::OpenAi, head.method, rest)?.endpoint)
            });
            assert_eq!(endpoint, Ok(Endpoint::Chat));
        });
    });
    c.bench_function("request/allow list", |b| {
        let pass = PassHeaders::default();
        b.iter(|| {
            let fate = |(name, _): &Pair| headers::request_header(Api::OpenAi, &pass, name);
            let kept = black_box(&PAIRS)
                .iter()
                .filter(|pair| fate(pair) != Fate::Drop)
                .count();
            assert_eq!(kept, 9);
        });
    });
}

fn bodies(c: &mut Criterion) {
    const MIB: usize = 1 << 20;
    let mut group = c.benchmark_group("request/body");
    let parts = |parts, text: &str| long_chat(parts, text);
    for (name, text) in [
        ("1 KiB", small_chat()),
        ("1 MiB of text", parts(1, &"words and ".repeat(MIB / 10))),
        (
            "8 MiB of text",
            parts(1, &"words and ".repeat(8 * MIB / 10)),
        ),
        ("1 MiB of escapes", parts(1, &"\\n\\u00e9".repeat(MIB / 8))),
        ("1 MiB of parts", parts(MIB / 32, "t")),
        (
            "8 MiB of white space",
            format!("{}{}", " ".repeat(8 * MIB), small_chat()),
        ),
    ] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let facts = body::read(Endpoint::Chat, black_box(text.as_bytes()));
                assert!(facts.is_ok_and(|facts| facts.models == ["gpt-4o-mini"]));
            });
        });
    }
    group.finish();

    let text = small_chat();
    let Ok(facts) = body::read(Endpoint::Chat, text.as_bytes()) else {
        unreachable!("it was read above");
    };
    c.bench_function("request/edits", |b| {
        let edits = [
            Edit::IncludeUsage,
            Edit::MaxOutputTokens(Tokens(4096)),
            Edit::NoStore,
        ];
        b.iter(|| {
            let edited = edits::apply(black_box(&facts), &edits);
            assert!(edited.is_some_and(|body| body.len() > text.len()));
        });
    });
}

criterion_group!(benches, head, bodies);
criterion_main!(benches);
