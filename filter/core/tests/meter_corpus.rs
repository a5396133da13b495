//! Runs the meter over a folder of recorded answers, where there is one, and compares each with the
//! provider's own numbers: `CORPUS=DIR cargo test --test meter_corpus -- --nocapture`.
//!
//! The recordings are not part of this repository. Without them the test says so and passes.

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use almoner_core::{
    meter::{
        Calibration, Charge, Completeness, Dialect, End, Form, Forward, HeaderCounts, Meter,
        MeterSetup, Metered, More, UsageEvent,
    },
    units::Tokens,
    usage::Usage,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Index {
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    id: String,
    provider: String,
    endpoint: String,
    status: u16,
    format: String,
    content_type: String,
    body_file: String,
    headers: BTreeMap<String, String>,
    chunk_lens: Option<Vec<usize>>,
    expected: Numbers,
    expected_cache_write: Option<u64>,
    expected_alt: Option<Numbers>,
}

impl Sample {
    fn header_counts(&self) -> HeaderCounts {
        let headers = self.headers.iter();
        HeaderCounts::read(headers.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
struct Numbers {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached_input: Option<u64>,
    reasoning: Option<u64>,
}

fn corpus() -> Option<PathBuf> {
    let folder = env::var_os("CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        PathBuf::from,
    );
    folder.join("index.json").exists().then_some(folder)
}

/// The form of a sample's answer.
fn form(sample: &Sample) -> Option<Form> {
    let endpoint = sample.endpoint.as_str();
    let dialect = match (sample.provider.as_str(), endpoint) {
        ("anthropic" | "vertex-anthropic", _) => Dialect::Anthropic,
        ("bedrock", "converse" | "converse-stream") => Dialect::BedrockConverse,
        ("bedrock", _) => Dialect::BedrockInvoke,
        ("cohere", _) => Dialect::Cohere,
        ("gemini" | "vertex", _) => Dialect::Gemini,
        ("watsonx", _) => return None,
        _ => Dialect::OpenAi,
    };
    let charge = match endpoint {
        "batchEmbedContents" | "embedContent" | "embeddings" | "predict" | "rerank"
        | "v1-rerank" | "v2-embed" | "v2-rerank" => Charge::Input,
        "count_tokens" | "count-tokens" | "countTokens" | "responses-input-tokens" => Charge::Free,
        _ => Charge::Both,
    };
    Some(Form::new(dialect, charge))
}

fn run(setup: &MeterSetup<'_>, body: &[u8], mut cuts: Vec<usize>) -> Metered {
    let mut meter = Meter::new(setup);
    cuts.sort_unstable();
    let mut from = 0;
    for at in cuts.into_iter().chain([body.len()]) {
        assert_eq!(
            meter.push(body.get(from..at).unwrap_or_default(), More::Expected),
            Forward::Unchanged
        );
        from = at;
    }
    assert_eq!(meter.push(b"", More::Over), Forward::Unchanged);
    meter.finish(End::Complete)
}

/// Every split point of a short body; of a long one those near its ends, and 200 at random.
fn split_points(len: usize) -> Vec<usize> {
    const EDGE: usize = 4096;
    let near_the_ends = (0..=len).filter(|at| *at < EDGE || at.saturating_add(EDGE) >= len);
    let mut state = len;
    let at_random = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963);
        state.wrapping_shr(33).checked_rem(len).unwrap_or_default()
    });
    near_the_ends.chain(at_random.take(200)).collect()
}

/// Whether what was reported is what the sample expects, or the second reading that it allows.
fn is_exact(sample: &Sample, usage: &Usage) -> bool {
    let is = |found: Option<Tokens>, expected: Option<u64>| found == expected.map(Tokens);
    let expected = &sample.expected;
    let sum = |usage: &Usage| {
        [usage.input, usage.output]
            .into_iter()
            .flatten()
            .reduce(Tokens::plus)
    };
    // Where a provider reports no total, some samples expect the sum.
    let total = match usage.total {
        Some(_) => is(usage.total, expected.total),
        None => expected.total.is_none() || is(sum(usage), expected.total),
    };
    // Where a sample expects nothing but the total, it does not know the parts.
    let parts = (is(usage.input, expected.input) && is(usage.output, expected.output))
        || (expected.input.or(expected.output).is_none()
            && expected.total.is_some()
            && (sum(usage).is_none() || is(sum(usage), expected.total)));
    let rest = is(usage.cached_input, expected.cached_input)
        && is(usage.cache_write, sample.expected_cache_write)
        && is(usage.reasoning, expected.reasoning);
    let alternative = sample.expected_alt.is_some_and(|alternative| {
        is(usage.input, alternative.input) && is(usage.output, alternative.output)
    });
    (parts && total && rest) || alternative
}

#[test]
fn counts_what_the_providers_counted() {
    let Some(folder) = corpus() else {
        eprintln!("no recordings found: skipped");
        return;
    };
    let index = fs::read(folder.join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    let mut table: BTreeMap<(&str, &str), (u32, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for sample in &index.samples {
        let Some(form) = form(sample) else {
            continue;
        };
        let body = fs::read(folder.join(&sample.body_file)).unwrap();
        let setup = MeterSetup {
            form,
            headers: sample.header_counts(),
            status: sample.status,
            content_type: sample.content_type.as_bytes(),
            content_encoding: b"",
            usage_event: UsageEvent::Keep,
            calibration: Calibration::default(),
            input_estimate: Tokens(1),
        };
        let whole = run(&setup, &body, Vec::new());
        assert_eq!(
            run(&setup, &body, (0..body.len()).collect()),
            whole,
            "{}: bytes",
            sample.id
        );
        if let Some(lens) = &sample.chunk_lens {
            let ends = lens.iter().scan(0, |end, len| {
                *end += len;
                Some(*end)
            });
            let ends = ends.map(|end| end.min(body.len())).collect();
            assert_eq!(
                run(&setup, &body, ends),
                whole,
                "{}: recorded chunks",
                sample.id
            );
        }
        if env::var_os("QUICK").is_none() {
            for at in split_points(body.len()) {
                assert_eq!(
                    run(&setup, &body, vec![at]),
                    whole,
                    "{}: split at {at}",
                    sample.id
                );
            }
        }
        let found = whole.reported;
        let row = table.entry((&sample.provider, &sample.format)).or_default();
        row.1 += 1;
        if is_exact(sample, &found) {
            row.0 += 1;
        } else {
            wrong.push(format!(
                "{}: expected {:?} {:?}, found {found:?}",
                sample.id, sample.expected, sample.expected_cache_write
            ));
        }
        if sample.status < 300
            && sample.expected.total.is_some()
            && whole.completeness != Completeness::Complete
        {
            eprintln!("note {}: {:?}", sample.id, whole.completeness);
        }
    }
    for ((provider, format), (exact, total)) in &table {
        eprintln!("{provider:24} {format:16} {exact:4} / {total}");
    }
    let (exact, total) = table
        .values()
        .fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    eprintln!("{exact}/{total} exact");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
