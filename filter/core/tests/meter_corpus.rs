//! Runs the meter over a folder of recorded answers, where there is one, and compares each with the
//! provider's own numbers: `CORPUS=DIR SPLITS=all cargo test --release --test meter_corpus --
//! --nocapture`.
//!
//! The recordings are not part of this repository. Without them the test says so and passes.

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use almoner_core::{
    meter::{
        Calibration, Charge, Completeness, Dialect, End, Form, Forward, HeaderCounts, Meter,
        MeterSetup, Metered, More, UsageEvent, estimate_request, upper_bound,
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
    request_file: Option<String>,
    request_trimmed: bool,
    request_model: Option<String>,
    stream: bool,
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

type Failure = Box<dyn std::error::Error>;

/// The recordings and where their bodies are; none, where there are none.
fn samples() -> Result<(PathBuf, Vec<Sample>), Failure> {
    let Some(folder) = corpus() else {
        eprintln!("no recordings found: skipped");
        return Ok((PathBuf::new(), Vec::new()));
    };
    let index: Index = serde_json::from_slice(&fs::read(folder.join("index.json"))?)?;
    Ok((folder, index.samples))
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

fn setup(sample: &Sample, form: Form) -> MeterSetup<'_> {
    MeterSetup {
        form,
        status: sample.status,
        content_type: sample.content_type.as_bytes(),
        content_encoding: b"",
        usage_event: UsageEvent::Keep,
        headers: sample.header_counts(),
        calibration: Calibration::default(),
        input_estimate: Tokens(1),
    }
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

/// Sixteen split points at random; with `SPLITS=all`, all of a short body, and of a long one those
/// near its ends and 200 at random.
fn split_points(len: usize) -> Vec<usize> {
    const EDGE: usize = 4096;
    let mut state = len;
    let at_random = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963);
        state.wrapping_shr(33).checked_rem(len).unwrap_or_default()
    });
    if env::var_os("SPLITS").is_none() {
        return at_random.take(16).collect();
    }
    let near_the_ends = (0..=len).filter(|at| *at < EDGE || at.saturating_add(EDGE) >= len);
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
fn counts_what_the_providers_counted() -> Result<(), Failure> {
    let (folder, samples) = samples()?;
    let mut table: BTreeMap<(&str, &str), (u32, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for sample in &samples {
        let Some(form) = form(sample) else {
            continue;
        };
        let body = fs::read(folder.join(&sample.body_file))?;
        let setup = setup(sample, form);
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
        for at in split_points(body.len()) {
            assert_eq!(
                run(&setup, &body, vec![at]),
                whole,
                "{}: split at {at}",
                sample.id
            );
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
    Ok(())
}

/// Errors of estimates, as shares of what was reported.
#[derive(Default)]
struct Errors(Vec<f64>);

impl Errors {
    fn push(&mut self, estimate: Tokens, reported: u64) {
        self.0
            .push((estimate.0 as f64 / reported as f64 - 1.0).abs());
    }

    fn report(mut self, name: &str) -> (f64, f64) {
        self.0.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = share * self.0.len() as f64;
            self.0.get(rank as usize).copied().unwrap_or_default()
        };
        let (count, median, p95) = (self.0.len(), rank(0.5), rank(0.95));
        eprintln!(
            "{name:56} n={count:4}  median {:5.1} %  p95 {:5.1} %",
            median * 100.0,
            p95 * 100.0
        );
        (median, p95)
    }
}

/// Streams above 50 output tokens, as if they reported nothing; each model's calibration learns from
/// the other samples of that model.
#[test]
fn estimates_come_close_to_what_the_providers_counted() -> Result<(), Failure> {
    let (folder, samples) = samples()?;
    let mut seen: BTreeMap<String, Vec<(bool, bool, u64, Tokens)>> = BTreeMap::new();
    for sample in &samples {
        let (Some(form), Some(output)) = (form(sample), sample.expected.output) else {
            continue;
        };
        let body = fs::read(folder.join(&sample.body_file))?;
        let metered = run(&setup(sample, form), &body, Vec::new());
        // Reasoning that the stream does not show can't be estimated from it.
        let reasons = sample.expected.reasoning.unwrap_or_default() > 0;
        let counted = (sample.stream, reasons, output, metered.output_estimate);
        let model = sample
            .request_model
            .clone()
            .or(metered.model)
            .unwrap_or_default();
        seen.entry(model).or_default().push(counted);
    }
    let (mut plain, mut corrected) = (Errors::default(), Errors::default());
    let (mut visible, mut visible_corrected) = (Errors::default(), Errors::default());
    for answers in seen.values() {
        for (at, &(stream, reasons, output, estimate)) in answers.iter().enumerate() {
            if !stream || output <= 50 {
                continue;
            }
            let mut calibration = Calibration::default();
            for (_, other) in answers.iter().enumerate().filter(|(other, _)| *other != at) {
                calibration = calibration.learn(Tokens(other.2), other.3);
            }
            plain.push(estimate, output);
            corrected.push(calibration.correct(estimate), output);
            if !reasons {
                visible.push(estimate, output);
                visible_corrected.push(calibration.correct(estimate), output);
            }
        }
    }
    plain.report("output of streams");
    corrected.report("output of streams, calibrated");
    let (median, _) = visible.report("output of streams that do not reason");
    visible_corrected.report("output of streams that do not reason, calibrated");
    assert!(samples.is_empty() || median < 0.10, "median error {median}");
    Ok(())
}

/// What a server-side tool fetches is read by the model too, and nothing in the request bounds it.
const SERVER_SIDE: &[&str] = &[
    "codeExecution",
    "code_execution",
    "code_interpreter",
    "compound",
    "google_search",
    "googleSearch",
    "image_generation",
    "urlContext",
    "url_context",
    "web_fetch",
    "web_search",
    "\"id\":\"web\"",
    "advisor",
];

#[test]
fn the_bound_of_a_request_holds_for_99_of_100() -> Result<(), Failure> {
    let (folder, samples) = samples()?;
    let (mut total, mut above, mut slack) = (0usize, Vec::new(), Vec::new());
    let mut estimates = Errors::default();
    for sample in &samples {
        let (Some(file), Some(input)) = (&sample.request_file, sample.expected.input) else {
            continue;
        };
        let body = fs::read(folder.join(file))?;
        let text = String::from_utf8_lossy(&body);
        let compact: String = text.split_whitespace().collect();
        let server_side = SERVER_SIDE.iter().any(|tool| compact.contains(tool));
        if sample.request_trimmed || server_side || input == 0 {
            continue;
        }
        total += 1;
        let bound = upper_bound(&body);
        slack.push(bound.0 / input);
        if bound < Tokens(input) {
            above.push((&sample.id, input, bound));
        }
        if input > 200 {
            estimates.push(estimate_request(&body), input);
        }
    }
    slack.sort_unstable();
    let median = slack.get(total / 2).copied().unwrap_or_default();
    eprintln!(
        "{} of {total} requests above their bound; the median bound is {median} times what was read",
        above.len()
    );
    eprintln!("{above:?}");
    estimates.report("input above 200 tokens");
    assert!(above.len() * 100 <= total, "{above:?}");
    Ok(())
}
