//! Reads a folder of recorded requests, where there is one: none of them is taken for malformed,
//! and each names the model that its recording names. Those with a secret in the body are refused.
//! `CORPUS=DIR cargo test --test request_corpus -- --nocapture`.
//!
//! The recordings are not part of this repository. Without them the test says so and passes.

use std::{env, fs, path::PathBuf};

use almoner_core::{
    api::Endpoint,
    body,
    denial::Denial,
    edits::{self, Edit},
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
    request_file: Option<String>,
    request_model: Option<String>,
}

fn corpus() -> Option<PathBuf> {
    let folder = env::var_os("CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        PathBuf::from,
    );
    folder.join("index.json").exists().then_some(folder)
}

/// The endpoint of a sample, where its API's grammar is one of ours.
fn endpoint(sample: &Sample) -> Option<Endpoint> {
    Some(match sample.endpoint.as_str() {
        "chat" => Endpoint::Chat,
        "complete" => Endpoint::Complete,
        "completions" => Endpoint::Completions,
        "count_tokens" | "responses-input-tokens" => Endpoint::CountTokens,
        "embeddings" => Endpoint::Embeddings,
        "images-generations" => Endpoint::ImagesGenerations,
        "messages" => Endpoint::Messages,
        "responses" => Endpoint::Responses,
        "responses-compact" => Endpoint::ResponsesCompact,
        _ => return None,
    })
}

#[test]
fn reads_what_was_really_sent() {
    let Some(folder) = corpus() else {
        eprintln!("no corpus here: nothing read");
        return;
    };
    let index = fs::read(folder.join("index.json")).unwrap();
    let Index { samples } = serde_json::from_slice(&index).unwrap();
    let mut read = 0;
    for sample in samples {
        let (Some(endpoint), Some(file)) = (endpoint(&sample), &sample.request_file) else {
            continue;
        };
        let id = format!("{} ({})", sample.id, sample.provider);
        let bytes = fs::read(folder.join(file)).unwrap();
        let facts = match body::read(endpoint, &bytes) {
            Ok(facts) => facts,
            // The provider did not take it either.
            Err(_) if sample.status == 400 => continue,
            Err(denial @ Denial::SecretInBody { .. }) => {
                println!("{id}: {denial:?}");
                continue;
            }
            Err(denial) => panic!("{id}: {denial:?}"),
        };
        if sample.provider != "azure" {
            assert_eq!(
                facts.models.first().map(AsRef::as_ref),
                sample.request_model.as_deref(),
                "{id}"
            );
        }
        if facts.state.is_some() || !facts.tools.is_empty() || !facts.betas.is_empty() {
            println!(
                "{id}: {:?} {:?} {:?}",
                facts.state, facts.tools, facts.betas
            );
        }
        let all = [
            Edit::IncludeUsage,
            Edit::MaxOutputTokens(Tokens(9)),
            Edit::NoStore,
        ];
        if let Some(edited) = edits::apply(&facts, &all) {
            let again = body::read(endpoint, &edited).unwrap();
            assert_eq!(edits::apply(&again, &all), None, "{id}");
            assert_eq!(again.models, facts.models, "{id}");
        }
        read += 1;
    }
    println!("{read} requests read");
    assert!(read > 0);
}
