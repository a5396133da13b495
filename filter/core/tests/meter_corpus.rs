//! Runs the meter over a folder of recorded answers, where there is one, and compares each with the
//! provider's own numbers: `CORPUS=DIR cargo test --test meter_corpus -- --nocapture`.
//!
//! The recordings are not part of this repository. Without them the test says so and passes.

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use almoner_core::{
    api::{Api, Endpoint},
    meter::{Completeness, End, Forward, Meter, MeterSetup, Metered, More, UsageEvent},
    units::Tokens,
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
    chunk_lens: Option<Vec<usize>>,
    expected: Numbers,
    expected_cache_write: Option<u64>,
    expected_alt: Option<Numbers>,
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

/// The grammar of a sample, where the meter speaks it already.
fn grammar(sample: &Sample) -> Option<(Api, Endpoint)> {
    let api = match sample.provider.as_str() {
        "anthropic" | "vertex-anthropic" => Api::Anthropic,
        "bedrock" | "cohere" | "gemini" | "vertex" | "voyage" | "watsonx" => return None,
        _ => Api::OpenAi,
    };
    let endpoint = match (api, sample.endpoint.as_str()) {
        (Api::Anthropic, "count_tokens") => Endpoint::CountTokens,
        (Api::Anthropic, _) => Endpoint::Messages,
        (Api::OpenAi, "embeddings") => Endpoint::Embeddings,
        (Api::OpenAi, "responses" | "responses-compact") => Endpoint::Responses,
        (Api::OpenAi, "responses-input-tokens") => Endpoint::CountTokens,
        (Api::OpenAi, _) => Endpoint::Chat,
    };
    Some((api, endpoint))
}

fn run(setup: &MeterSetup<'_>, body: &[u8], mut cuts: Vec<usize>) -> Metered {
    let mut meter = Meter::new(setup);
    cuts.sort_unstable();
    let mut from = 0;
    for at in cuts.into_iter().chain([body.len()]) {
        assert_eq!(
            meter.push(&body[from..at], More::Expected),
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
    if len <= 2 * EDGE {
        return (0..=len).collect();
    }
    let mut points: Vec<usize> = (0..EDGE).chain(len - EDGE..len).collect();
    let mut state = len as u64;
    for _ in 0..200 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        points.push(usize::try_from(state >> 33).unwrap() % len);
    }
    points
}

fn numbers(metered: &Metered) -> (Numbers, Option<u64>) {
    let plain = |tokens: Option<Tokens>| tokens.map(|Tokens(tokens)| tokens);
    let usage = metered.reported;
    let sum = usage
        .input
        .zip(usage.output)
        .map(|(input, output)| input.plus(output));
    let numbers = Numbers {
        input: plain(usage.input),
        output: plain(usage.output),
        total: plain(usage.total.or(sum)),
        cached_input: plain(usage.cached_input),
        reasoning: plain(usage.reasoning),
    };
    (numbers, plain(usage.cache_write))
}

/// Whether `found` is what the sample expects, or the second reading that it allows.
fn is_exact(sample: &Sample, found: &(Numbers, Option<u64>)) -> bool {
    let alternative = sample.expected_alt.is_some_and(|alternative| {
        alternative.input == found.0.input && alternative.output == found.0.output
    });
    (*found == (sample.expected, sample.expected_cache_write)) || alternative
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
        let Some((api, endpoint)) = grammar(sample) else {
            continue;
        };
        let body = fs::read(folder.join(&sample.body_file)).unwrap();
        let setup = MeterSetup {
            api,
            endpoint,
            status: sample.status,
            content_type: sample.content_type.as_bytes(),
            content_encoding: b"",
            usage_event: UsageEvent::Keep,
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
        let found = numbers(&whole);
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
