//! Method and path of a request, in every spelling: a line is what the caller sends and what it
//! means, or how it is refused.

use almoner_core::{
    api::{
        Api::{self, Anthropic, OpenAi},
        Endpoint::{self, *},
        State,
    },
    denial::Denial,
    head::{
        Target,
        endpoint::{Body, resolve},
    },
};

fn meaning(api: Api, method: &str, path: &str) -> Result<Endpoint, Denial> {
    let target = Target::parse(path.as_bytes())?;
    resolve(api, method, target.path()).map(|route| route.endpoint)
}

#[test]
fn knows_every_endpoint_by_its_one_spelling() {
    for (api, method, path, endpoint) in [
        (OpenAi, "POST", "/v1/chat/completions", Chat),
        (OpenAi, "POST", "/v1/completions", Completions),
        (OpenAi, "POST", "/v1/embeddings", Embeddings),
        (OpenAi, "POST", "/v1/responses", Responses),
        (OpenAi, "POST", "/v1/responses/compact", ResponsesCompact),
        (OpenAi, "POST", "/v1/responses/input_tokens", CountTokens),
        (OpenAi, "POST", "/v1/moderations", Moderations),
        (OpenAi, "POST", "/v1/audio/speech", AudioSpeech),
        (
            OpenAi,
            "POST",
            "/v1/audio/transcriptions",
            AudioTranscriptions,
        ),
        (OpenAi, "POST", "/v1/images/generations", ImagesGenerations),
        (OpenAi, "GET", "/v1/models", Models),
        (OpenAi, "GET", "/v1/models/gpt-4o-mini", Models),
        (
            OpenAi,
            "GET",
            "/v1/models/ft:gpt-4o-mini-2024-07-18:org::AbC",
            Models,
        ),
        (OpenAi, "GET", "/v1/responses/resp_123", Responses),
        (OpenAi, "DELETE", "/v1/responses/resp_123", Responses),
        (OpenAi, "GET", "/v1/files/file-1/content", Files),
        (OpenAi, "POST", "/v1/threads/thread_1/runs", Assistants),
        (Anthropic, "POST", "/v1/messages", Messages),
        (Anthropic, "POST", "/v1/messages?beta=true", Messages),
        (Anthropic, "POST", "/v1/messages/count_tokens", CountTokens),
        (Anthropic, "GET", "/v1/models", Models),
        (Anthropic, "GET", "/v1/models/claude-sonnet-4-5", Models),
        (Anthropic, "POST", "/v1/messages/batches", Batches),
        (
            Anthropic,
            "GET",
            "/v1/messages/batches/msgbatch_1/results",
            Batches,
        ),
        (Anthropic, "POST", "/v1/complete", Complete),
    ] {
        assert_eq!(meaning(api, method, path), Ok(endpoint), "{method} {path}");
    }
}

#[test]
fn refuses_every_other_spelling() {
    for path in [
        "",
        "*",
        "v1/chat/completions",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat//completions",
        "/v1/chat/completions/",
        "/v1/chat/completions//",
        "/v1/./chat/completions",
        "/v1/chat/../chat/completions",
        "/v1/models/../chat/completions",
        "/v1/chat/completions/.",
        "/v1/chat/completions/..",
        "/v1/.../chat/completions",
        "/v1/%2e/chat/completions",
        "/v1/models/%2e%2e/chat/completions",
        "/v1/models/%2E%2E/chat/completions",
        "/v1/models/.%2e/chat/completions",
        "/v1/chat%2fcompletions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%252Fcompletions",
        "/v1/%63hat/completions",
        "/v1/chat/completion%73",
        "/v1/chat/completions%00",
        "/v1/chat/completions%20",
        "/v1/chat/completions%",
        "/v1/chat/completions%zz",
        "/v1/chat/completions;x",
        "/v1/chat/completions;x=y",
        "/v1/chat;x/completions",
        "/v1\\chat\\completions",
        "/v1/chat\\completions",
        "/v1/chat%5Ccompletions",
        "/v1/chat/completions\0",
        "/v1/chat/completions\t",
        "/v1/chat/completions ",
        " /v1/chat/completions",
        "/v1/chat/completions\r\nx: y",
        "/v1/chat/completions\x7f",
        "/v1/chat/complétions",
        "/v1/chat/ｃompletions",
        "/v1/chat/completions#x",
        "/v1/chat/completions?x#y",
        "/v1/chat/completions?x y",
        "/v1/chat/completions?é",
        "/V1/chat/completions",
        "/v1/Chat/Completions",
        "/v1/chat/COMPLETIONS",
        "/v1/chat/completions+",
        "/v1/chat/completions,",
        "/v1/chat/completions&",
        "/v1/chat/completions|",
        "http://api.openai.com/v1/chat/completions",
        "https://user:pass@api.openai.com/v1/chat/completions",
        "HTTP://api.openai.com/v1/chat/completions",
        "api.openai.com:443",
    ] {
        assert_eq!(
            meaning(OpenAi, "POST", path),
            Err(Denial::PathNotNormal),
            "{path:?}"
        );
    }
    assert_eq!(
        Target::parse(b"/v1/chat/completions\xff"),
        Err(Denial::PathNotNormal)
    );
    assert_eq!(
        Target::parse(b"/v1/chat/compl\xc0\xaftions"),
        Err(Denial::PathNotNormal)
    );
}

#[test]
fn refuses_what_no_grammar_has() {
    for (api, method, path) in [
        (OpenAi, "POST", "/"),
        (OpenAi, "POST", "/v1"),
        (OpenAi, "POST", "/chat/completions"),
        (OpenAi, "POST", "/v2/chat/completions"),
        (OpenAi, "POST", "/v1/v1/chat/completions"),
        (OpenAi, "POST", "/v1/chat/completions/x/y"),
        (OpenAi, "POST", "/v1/chat/completions/count_tokens"),
        (OpenAi, "POST", "/v1/engines/davinci/completions"),
        (OpenAi, "PUT", "/v1/chat/completions"),
        (OpenAi, "HEAD", "/v1/models"),
        (OpenAi, "OPTIONS", "/v1/chat/completions"),
        (OpenAi, "POST", "/v1/models"),
        (OpenAi, "POST", "/v1/messages"),
        (OpenAi, "POST", "/v1/videos"),
        (OpenAi, "POST", "/v1/agents"),
        (Anthropic, "POST", "/v1/chat/completions"),
        (Anthropic, "GET", "/v1/messages"),
        (Anthropic, "POST", "/messages"),
        (Anthropic, "POST", "/v1/agents"),
    ] {
        assert_eq!(
            meaning(api, method, path),
            Err(Denial::UnknownEndpoint),
            "{method} {path}"
        );
    }
}

#[test]
fn leads_nobody_to_what_mints_credentials_or_administers_the_account() {
    for (api, method, path) in [
        (OpenAi, "POST", "/v1/realtime/client_secrets"),
        (OpenAi, "POST", "/v1/realtime/sessions"),
        (OpenAi, "POST", "/v1/realtime/transcription_sessions"),
        (OpenAi, "POST", "/v1/realtime/calls"),
        (OpenAi, "POST", "/v1/Realtime/Client_Secrets"),
        (OpenAi, "GET", "/v1/realtime"),
        (OpenAi, "POST", "/v1/live/sessions"),
        (OpenAi, "POST", "/v1/chatkit/sessions"),
        (OpenAi, "GET", "/v1/organization/admin_api_keys"),
        (
            OpenAi,
            "POST",
            "/v1/organization/projects/p/service_accounts",
        ),
        (OpenAi, "GET", "/v1/organization/costs"),
        (OpenAi, "GET", "/v1/projects/p/roles"),
        (OpenAi, "GET", "/v1/vaults/v/credentials"),
        (OpenAi, "POST", "/v1/webhook_endpoints/w/rotate_secret"),
        (Anthropic, "GET", "/v1/organizations/api_keys"),
        (Anthropic, "POST", "/v1/oauth/token"),
        (Anthropic, "POST", "/v1/vaults"),
    ] {
        assert_eq!(
            meaning(api, method, path),
            Err(Denial::ForbiddenEndpoint),
            "{method} {path}"
        );
    }
}

#[test]
fn names_what_the_provider_keeps_and_the_body_that_belongs_to_a_route() {
    for (api, method, path, state, body) in [
        (OpenAi, "POST", "/v1/responses", None, Body::Json),
        (OpenAi, "GET", "/v1/models/gpt-4o", None, Body::None),
        (
            OpenAi,
            "GET",
            "/v1/responses/resp_1",
            Some(State::PreviousResponse),
            Body::None,
        ),
        (
            OpenAi,
            "POST",
            "/v1/responses/resp_1/cancel",
            Some(State::PreviousResponse),
            Body::None,
        ),
        (
            OpenAi,
            "GET",
            "/v1/chat/completions",
            Some(State::StoredChat),
            Body::None,
        ),
        (
            OpenAi,
            "DELETE",
            "/v1/models/ft:x",
            Some(State::FineTunedModel),
            Body::None,
        ),
        (OpenAi, "POST", "/v1/files", Some(State::File), Body::Opaque),
        (
            OpenAi,
            "POST",
            "/v1/vector_stores/v/search",
            Some(State::VectorStore),
            Body::Json,
        ),
        (
            OpenAi,
            "GET",
            "/v1/conversations/c/items",
            Some(State::Conversation),
            Body::None,
        ),
        (
            OpenAi,
            "POST",
            "/v1/audio/transcriptions",
            None,
            Body::Opaque,
        ),
        (
            Anthropic,
            "POST",
            "/v1/messages/batches",
            Some(State::Batch),
            Body::Json,
        ),
        (
            Anthropic,
            "DELETE",
            "/v1/files/file_1",
            Some(State::File),
            Body::None,
        ),
    ] {
        let route = resolve(api, method, path).unwrap();
        assert_eq!((route.state, route.body), (state, body), "{method} {path}");
    }
}

#[test]
fn names_the_model_that_a_path_names() {
    let model = |path| resolve(OpenAi, "GET", path).unwrap().model;
    assert_eq!(model("/v1/models/gpt-4o"), Some("gpt-4o"));
    assert_eq!(model("/v1/models"), None);
    assert_eq!(model("/v1/responses/resp_1"), None);
}

#[test]
fn takes_a_prefix_off_at_a_segment_boundary_only() {
    for (path, prefix, remainder) in [
        ("/openai/v1/models", "/openai", Some("/v1/models")),
        ("/openai/v1/models", "/openai/", Some("/v1/models")),
        ("/v1/models", "", Some("/v1/models")),
        ("/v1/models", "/", Some("/v1/models")),
        ("/openai", "/openai", Some("")),
        ("/openaiv1/models", "/openai", None),
        ("/OpenAI/v1/models", "/openai", None),
        ("/x/openai/v1/models", "/openai", None),
    ] {
        let target = Target::parse(path.as_bytes()).unwrap();
        assert_eq!(target.remainder(prefix), remainder, "{path} {prefix}");
    }
}

#[test]
fn never_takes_a_path_that_some_hop_reads_as_another() {
    // What a hop may do to a path: decode it, merge slashes, resolve dots, cut at `;`.
    let readings = |path: &str| {
        let cut: String = path
            .split('/')
            .map(|s| s.split(';').next().unwrap())
            .collect::<Vec<_>>()
            .join("/");
        let decoded = cut
            .replace("%2e", ".")
            .replace("%2E", ".")
            .replace("%2f", "/")
            .replace("%2F", "/");
        let mut segments: Vec<&str> = Vec::new();
        for segment in decoded.split(['/', '\\']) {
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                segment => segments.push(segment),
            }
        }
        format!("/{}", segments.join("/"))
    };
    let pieces = [
        "/", "/v1", "/models", ".", "..", "%2e", "%2F", ";a", "\\", "x",
    ];
    // Every path of up to five pieces.
    let mut accepted = 0;
    let mut paths = vec![String::new()];
    for _ in 0..5 {
        paths = paths
            .iter()
            .flat_map(|p| pieces.iter().map(move |piece| format!("{p}{piece}")))
            .collect();
        for path in &paths {
            if let Ok(endpoint) = meaning(Anthropic, "GET", path) {
                accepted += 1;
                assert_eq!(&readings(path), path, "{endpoint:?}");
            }
        }
    }
    assert!(accepted > 0);
}
