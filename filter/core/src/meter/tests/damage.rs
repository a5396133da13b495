//! Damaged bytes: no trap, no loss, and the same count in any pieces.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow here is a test that fails"
)]

use super::{JSON, SSE, run, setup};
use crate::meter::*;

/// A small generator with a seed, so that a failure comes back.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

const SEEDS: &[(&str, &str)] = &[
    (
        SSE,
        "data: {\"id\":\"a\",\"choices\":[{\"delta\":{\"content\":\"x\\u00e9\\\"\"}}],\"usage\":null}\n\ndata: {\"id\":\"a\",\"choices\":[{\"delta\":{\"content\":\"y\"},\"finish_reason\":\"stop\"}]}\r\n\r\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":9}}\r\rdata: [DONE]\n\n",
    ),
    (
        SSE,
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\ndata: {\"type\":\"x\",\n: c\ndata:\"delta\":{\"text\":\"z\"}}\n\ndata: {\"usage\":{\"output_tokens\":2,\"iterations\":[{\"type\":\"y\",\"output_tokens\":4}]}}\n\n",
    ),
    (
        JSON,
        "[{\"usageMetadata\":{\"promptTokenCount\":1.5e1,\"candidatesTokenCount\":-3}}\n,\n{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"args\":{\"a\":[1,\"]\"]}}}]}}]}]",
    ),
    (
        "application/x-ndjson",
        "{\"message\":{\"content\":\"a\"}}\n{\"done\":true,\"eval_count\":7}\n",
    ),
];

const DIALECTS: [Dialect; 7] = [
    Dialect::Anthropic,
    Dialect::BedrockConverse,
    Dialect::BedrockInvoke,
    Dialect::Cohere,
    Dialect::Gemini,
    Dialect::Ollama,
    Dialect::OpenAi,
];

/// Bytes that mean something to one of the readers.
const SHARP: &[u8] = b"{}[]\",:\\\r\n du0-\xff\xef\xbb\xbf";

fn damage(body: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(6) {
        let at = random.below(body.len() + 1);
        match random.below(4) {
            0 => body.truncate(at.max(1)),
            1 => body.insert(at, SHARP[random.below(SHARP.len())]),
            2 => {
                let end = at + random.below(body.len() + 1 - at);
                let copy = body[at..end].to_vec();
                body.splice(at..at, copy);
            }
            _ if at < body.len() => body[at] = SHARP[random.below(SHARP.len())],
            _ => {}
        }
    }
}

#[test]
fn damaged_bodies_count_the_same_in_any_pieces_and_lose_nothing() {
    let mut random = Random(7);
    for round in 0..4000 {
        let (content_type, seed) = SEEDS[random.below(SEEDS.len())];
        let mut body = seed.as_bytes().to_vec();
        damage(&mut body, &mut random);
        let dialect = DIALECTS[random.below(DIALECTS.len())];
        let usage_event = [UsageEvent::Keep, UsageEvent::Remove][random.below(2)];
        let setup = MeterSetup {
            usage_event,
            ..setup(dialect, content_type)
        };
        let whole = run(&setup, &[&body], End::Complete);
        if usage_event == UsageEvent::Keep {
            assert_eq!(whole.1, body, "round {round}");
        }
        for _ in 0..8 {
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = body.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + random.below(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let text = String::from_utf8_lossy(&body);
            assert_eq!(
                run(&setup, &pieces, End::Complete),
                whole,
                "round {round}: {text:?}"
            );
        }
    }
}

#[test]
fn random_frames_do_not_trap() {
    let mut random = Random(11);
    for _ in 0..2000 {
        let body: Vec<u8> = (0..random.below(200))
            .map(|_| random.below(256) as u8)
            .collect();
        let setup = setup(Dialect::BedrockInvoke, "application/vnd.amazon.eventstream");
        let (metered, forwarded) = run(&setup, &[&body], End::ProviderReset);
        assert_eq!(forwarded, body);
        assert_eq!(metered.reported, Usage::default());
    }
}

/// 8 MiB of each of these, in the chunks that Envoy gives: a stream keeps less than 64 KiB.
#[test]
fn bodies_without_end_are_kept_in_less_than_64_kib() {
    const CHUNK: usize = 16 * 1024;
    let filler = |byte: u8| vec![byte; CHUNK];
    let comments = b": hello\n".repeat(CHUNK / 8);
    let labels = br#"{"finish_reason":"abcdefghijklmnop","id":"b"},"#.repeat(CHUNK / 46);
    let long_name = format!("{{\"choices\":[],\"model\":\"{}", "m".repeat(CHUNK)).into_bytes();
    let mut frame = 0x0100_0000_u32.to_be_bytes().to_vec();
    frame.extend(0x00ff_0000_u32.to_be_bytes());
    frame.extend(eventstream::checksum(&frame).to_be_bytes());
    for (content_type, head, piece) in [
        (
            SSE,
            b"data: {\"choices\":[{\"delta\":{\"content\":\"".to_vec(),
            filler(b'a'),
        ),
        (SSE, b"data: {\"choices\":[],\"x".to_vec(), filler(b'a')),
        (SSE, b"data: {\"choices\":[".to_vec(), labels),
        (SSE, b"data: ".to_vec(), filler(b'[')),
        (SSE, b"da".to_vec(), comments),
        (SSE, b"data: ".to_vec(), long_name.clone()),
        (JSON, Vec::new(), filler(b'{')),
        (JSON, Vec::new(), long_name),
        (
            JSON,
            b"{\"usage\":{\"prompt_tokens\":".to_vec(),
            filler(b'1'),
        ),
        ("application/vnd.amazon.eventstream", frame, filler(b'h')),
    ] {
        let setup = MeterSetup {
            usage_event: UsageEvent::Remove,
            ..setup(Dialect::OpenAi, content_type)
        };
        let mut meter = Meter::new(&setup);
        let mut forwarded = 0;
        for chunk in [&head].into_iter().chain(std::iter::repeat_n(&piece, 512)) {
            forwarded += match meter.push(chunk, More::Expected) {
                Forward::Unchanged => chunk.len(),
                Forward::Replace(bytes) => bytes.len(),
            };
            assert!(meter.kept() < 64 * 1024, "{} bytes", meter.kept());
        }
        if let Forward::Replace(bytes) = meter.push(b"", More::Over) {
            forwarded += bytes.len();
        }
        assert_eq!(forwarded, head.len() + 512 * piece.len());
    }
}
