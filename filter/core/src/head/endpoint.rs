//! The closed path grammar: an API, a method and a path in, the endpoint that they mean out.

use super::target::is_plain_segment;
use crate::{
    api::{
        Api,
        Endpoint::{self, *},
        State,
    },
    denial::Denial,
};

/// What a method and path mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route<'a> {
    /// The endpoint, as a policy names it.
    pub endpoint: Endpoint,
    /// What of the provider's stored things the path itself reaches. A route with a state makes
    /// no new answer, so it is not metered: its tokens were charged when the answer was made.
    pub state: Option<State>,
    /// The model that the path names.
    pub model: Option<&'a str>,
    /// The body that belongs to it.
    pub body: Body,
}

/// The body that belongs to an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// One JSON object, read by [`crate::body::read`].
    Json,
    /// None.
    None,
    /// Bytes that are not read here (multipart): no fact is known of them, so a grant for them
    /// must allow every model.
    Opaque,
}

/// Finds what `method` and `path` mean. `path` is what stays after the provider's prefix, without
/// query: `/v1/chat/completions`.
///
/// # Errors
/// [`Denial::PathNotNormal`] for an endpoint in other letter case, [`Denial::ForbiddenEndpoint`]
/// for one that nobody may use, [`Denial::UnknownEndpoint`] for all that the grammar has not.
pub fn resolve<'a>(api: Api, method: &str, path: &'a str) -> Result<Route<'a>, Denial> {
    let (rows, forbidden) = match api {
        Api::Anthropic => (ANTHROPIC, ANTHROPIC_FORBIDDEN),
        Api::OpenAi => (OPENAI, OPENAI_FORBIDDEN),
    };
    let rows = || rows.iter().filter(|row| row.method == method);
    if let Some((row, id)) = rows().find_map(|row| Some((row, matches(row.path, path, eq)?))) {
        let model = id.filter(|_| row.endpoint == Models);
        return Ok(Route {
            endpoint: row.endpoint,
            state: row.state,
            model,
            body: row.body,
        });
    }
    let below = |prefix: &&str| {
        path.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && path
                .get(prefix.len()..)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if forbidden.iter().any(below) {
        return Err(Denial::ForbiddenEndpoint);
    }
    if rows().any(|row| matches(row.path, path, str::eq_ignore_ascii_case).is_some()) {
        return Err(Denial::PathNotNormal);
    }
    Err(Denial::UnknownEndpoint)
}

/// A line of a grammar.
struct Row {
    method: &'static str,
    /// Literal segments, and `{}` for an identifier.
    path: &'static str,
    endpoint: Endpoint,
    state: Option<State>,
    body: Body,
}

/// A call that makes something of a JSON body.
const fn call(path: &'static str, endpoint: Endpoint) -> Row {
    Row {
        method: "POST",
        path,
        endpoint,
        state: None,
        body: Body::Json,
    }
}

/// A call that makes something of a multipart body.
const fn upload(path: &'static str, endpoint: Endpoint) -> Row {
    Row {
        method: "POST",
        path,
        endpoint,
        state: None,
        body: Body::Opaque,
    }
}

/// A multipart body that the provider keeps.
const fn store(path: &'static str, endpoint: Endpoint, state: State) -> Row {
    Row {
        method: "POST",
        path,
        endpoint,
        state: Some(state),
        body: Body::Opaque,
    }
}

/// A read of what belongs to nobody.
const fn read(path: &'static str, endpoint: Endpoint) -> Row {
    Row {
        method: "GET",
        path,
        endpoint,
        state: None,
        body: Body::None,
    }
}

/// A use of something that the provider keeps.
const fn kept(method: &'static str, path: &'static str, endpoint: Endpoint, state: State) -> Row {
    Row {
        method,
        path,
        endpoint,
        state: Some(state),
        body: Body::None,
    }
}

/// A use of something that the provider keeps, with a JSON body.
const fn keep(path: &'static str, endpoint: Endpoint, state: State) -> Row {
    Row {
        method: "POST",
        path,
        endpoint,
        state: Some(state),
        body: Body::Json,
    }
}

#[rustfmt::skip]
const ANTHROPIC: &[Row] = &[
    call("/v1/messages", Messages),
    call("/v1/messages/count_tokens", CountTokens),
    read("/v1/models", Models),
    read("/v1/models/{}", Models),
    call("/v1/complete", Complete),
    keep("/v1/messages/batches", Batches, State::Batch),
    kept("GET", "/v1/messages/batches", Batches, State::Batch),
    kept("GET", "/v1/messages/batches/{}", Batches, State::Batch),
    kept("DELETE", "/v1/messages/batches/{}", Batches, State::Batch),
    kept("POST", "/v1/messages/batches/{}/cancel", Batches, State::Batch),
    kept("GET", "/v1/messages/batches/{}/results", Batches, State::Batch),
    store("/v1/files", Files, State::File),
    kept("GET", "/v1/files", Files, State::File),
    kept("GET", "/v1/files/{}", Files, State::File),
    kept("DELETE", "/v1/files/{}", Files, State::File),
    kept("GET", "/v1/files/{}/content", Files, State::File),
];

/// Where no policy leads: keys of the account, its members, its workspaces.
const ANTHROPIC_FORBIDDEN: &[&str] = &[
    "/v1/environments",
    "/v1/oauth",
    "/v1/organizations",
    "/v1/sessions",
    "/v1/vaults",
];

#[rustfmt::skip]
const OPENAI: &[Row] = &[
    call("/v1/chat/completions", Chat),
    call("/v1/responses", Responses),
    call("/v1/embeddings", Embeddings),
    call("/v1/completions", Completions),
    read("/v1/models", Models),
    read("/v1/models/{}", Models),
    call("/v1/responses/input_tokens", CountTokens),
    call("/v1/responses/compact", ResponsesCompact),
    kept("GET", "/v1/responses/{}", Responses, State::PreviousResponse),
    kept("DELETE", "/v1/responses/{}", Responses, State::PreviousResponse),
    kept("POST", "/v1/responses/{}/cancel", Responses, State::PreviousResponse),
    kept("GET", "/v1/responses/{}/input_items", Responses, State::PreviousResponse),
    kept("GET", "/v1/chat/completions", Chat, State::StoredChat),
    kept("GET", "/v1/chat/completions/{}", Chat, State::StoredChat),
    kept("DELETE", "/v1/chat/completions/{}", Chat, State::StoredChat),
    kept("GET", "/v1/chat/completions/{}/messages", Chat, State::StoredChat),
    call("/v1/moderations", Moderations),
    call("/v1/audio/speech", AudioSpeech),
    upload("/v1/audio/transcriptions", AudioTranscriptions),
    upload("/v1/audio/translations", AudioTranslations),
    call("/v1/images/generations", ImagesGenerations),
    upload("/v1/images/edits", ImagesEdits),
    upload("/v1/images/variations", ImagesVariations),
    keep("/v1/batches", Batches, State::Batch),
    kept("GET", "/v1/batches", Batches, State::Batch),
    kept("GET", "/v1/batches/{}", Batches, State::Batch),
    kept("POST", "/v1/batches/{}/cancel", Batches, State::Batch),
    store("/v1/files", Files, State::File),
    kept("GET", "/v1/files", Files, State::File),
    kept("GET", "/v1/files/{}", Files, State::File),
    kept("DELETE", "/v1/files/{}", Files, State::File),
    kept("GET", "/v1/files/{}/content", Files, State::File),
    keep("/v1/fine_tuning/jobs", FineTuning, State::FineTunedModel),
    kept("GET", "/v1/fine_tuning/jobs", FineTuning, State::FineTunedModel),
    kept("GET", "/v1/fine_tuning/jobs/{}", FineTuning, State::FineTunedModel),
    kept("POST", "/v1/fine_tuning/jobs/{}/cancel", FineTuning, State::FineTunedModel),
    kept("GET", "/v1/fine_tuning/jobs/{}/events", FineTuning, State::FineTunedModel),
    kept("GET", "/v1/fine_tuning/jobs/{}/checkpoints", FineTuning, State::FineTunedModel),
    kept("DELETE", "/v1/models/{}", FineTuning, State::FineTunedModel),
    keep("/v1/conversations", Conversations, State::Conversation),
    kept("GET", "/v1/conversations/{}", Conversations, State::Conversation),
    keep("/v1/conversations/{}", Conversations, State::Conversation),
    kept("DELETE", "/v1/conversations/{}", Conversations, State::Conversation),
    kept("GET", "/v1/conversations/{}/items", Conversations, State::Conversation),
    keep("/v1/conversations/{}/items", Conversations, State::Conversation),
    kept("GET", "/v1/conversations/{}/items/{}", Conversations, State::Conversation),
    kept("DELETE", "/v1/conversations/{}/items/{}", Conversations, State::Conversation),
    keep("/v1/containers", Containers, State::Container),
    kept("GET", "/v1/containers", Containers, State::Container),
    kept("GET", "/v1/containers/{}", Containers, State::Container),
    kept("DELETE", "/v1/containers/{}", Containers, State::Container),
    kept("GET", "/v1/containers/{}/files", Containers, State::Container),
    kept("GET", "/v1/containers/{}/files/{}", Containers, State::Container),
    kept("GET", "/v1/containers/{}/files/{}/content", Containers, State::Container),
    kept("DELETE", "/v1/containers/{}/files/{}", Containers, State::Container),
    keep("/v1/vector_stores", VectorStores, State::VectorStore),
    kept("GET", "/v1/vector_stores", VectorStores, State::VectorStore),
    kept("GET", "/v1/vector_stores/{}", VectorStores, State::VectorStore),
    keep("/v1/vector_stores/{}", VectorStores, State::VectorStore),
    kept("DELETE", "/v1/vector_stores/{}", VectorStores, State::VectorStore),
    keep("/v1/vector_stores/{}/search", VectorStores, State::VectorStore),
    keep("/v1/vector_stores/{}/files", VectorStores, State::VectorStore),
    kept("GET", "/v1/vector_stores/{}/files", VectorStores, State::VectorStore),
    kept("GET", "/v1/vector_stores/{}/files/{}", VectorStores, State::VectorStore),
    kept("DELETE", "/v1/vector_stores/{}/files/{}", VectorStores, State::VectorStore),
    keep("/v1/assistants", Assistants, State::Assistant),
    kept("GET", "/v1/assistants", Assistants, State::Assistant),
    kept("GET", "/v1/assistants/{}", Assistants, State::Assistant),
    keep("/v1/assistants/{}", Assistants, State::Assistant),
    kept("DELETE", "/v1/assistants/{}", Assistants, State::Assistant),
    keep("/v1/threads", Assistants, State::Assistant),
    keep("/v1/threads/runs", Assistants, State::Assistant),
    kept("GET", "/v1/threads/{}", Assistants, State::Assistant),
    keep("/v1/threads/{}", Assistants, State::Assistant),
    kept("DELETE", "/v1/threads/{}", Assistants, State::Assistant),
    kept("GET", "/v1/threads/{}/messages", Assistants, State::Assistant),
    keep("/v1/threads/{}/messages", Assistants, State::Assistant),
    kept("GET", "/v1/threads/{}/runs", Assistants, State::Assistant),
    keep("/v1/threads/{}/runs", Assistants, State::Assistant),
    kept("GET", "/v1/threads/{}/runs/{}", Assistants, State::Assistant),
    kept("POST", "/v1/threads/{}/runs/{}/cancel", Assistants, State::Assistant),
    keep("/v1/threads/{}/runs/{}/submit_tool_outputs", Assistants, State::Assistant),
];

/// Where no policy leads: what mints a credential or a session that then goes around Envoy
/// (client secrets, WebRTC and SIP calls, ChatKit), and what administers the account.
const OPENAI_FORBIDDEN: &[&str] = &[
    "/v1/chatkit",
    "/v1/dashboard",
    "/v1/live",
    "/v1/organization",
    "/v1/organizations",
    "/v1/projects",
    "/v1/realtime",
    "/v1/vaults",
    "/v1/webhook_endpoints",
];

fn eq(a: &str, b: &str) -> bool {
    a == b
}

/// Whether `path` is of the form `pattern`; the inner value is its last identifier.
fn matches<'a>(
    pattern: &str,
    path: &'a str,
    eq: fn(&str, &str) -> bool,
) -> Option<Option<&'a str>> {
    let mut id = None;
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        match expected {
            "{}" if is_plain_segment(segment) => id = Some(segment),
            _ if eq(expected, segment) => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(id)
}
