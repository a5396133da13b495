//! HTTP of the token endpoint: takes a request, bounds it, gives the endpoint's answer.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response, header},
    routing::post,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::{
    clock,
    config::Limits,
    token::{Answer, MEDIA_TYPE, Peer, Refusal, TokenEndpoint},
};

struct Bounded {
    endpoint: Arc<TokenEndpoint>,
    body_bytes: usize,
    timeout: Duration,
}

/// The one route there is.
pub(super) fn router(endpoint: Arc<TokenEndpoint>, limits: &Limits) -> Router {
    let state = Bounded {
        endpoint,
        body_bytes: limits.body_bytes,
        timeout: limits.timeout,
    };
    Router::new()
        .route("/token", post(token))
        .with_state(Arc::new(state))
}

async fn token(
    State(state): State<Arc<Bounded>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    let timer = state.endpoint.metrics.exchange_seconds.start_timer();
    let answer = exchange(&state, &peer, request).await;
    timer.observe_duration();
    answer.into_response()
}

/// Who asks is settled before a byte of the body is read.
async fn exchange(state: &Bounded, peer: &Peer, request: Request) -> Answer {
    let endpoint = &state.endpoint;
    let now = clock::now();
    let caller = match endpoint.admit(peer, now) {
        Ok(caller) => caller,
        Err(refusal) => return endpoint.refuse(peer, refusal, now).await,
    };
    if !is_form(request.headers()) {
        return endpoint.refuse(peer, Refusal::MediaType, now).await;
    }
    let body = Limited::new(request.into_body(), state.body_bytes).collect();
    match timeout(state.timeout, body).await {
        Ok(Ok(body)) => {
            endpoint
                .exchange(peer, &caller, &body.to_bytes(), clock::now())
                .await
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            endpoint.refuse(peer, Refusal::BodyTooLarge, now).await
        }
        Ok(Err(_)) | Err(_) => endpoint.refuse(peer, Refusal::BodyTimeout, now).await,
    }
}

/// Exactly one `content-type`, and it is a form's.
fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else {
        return false;
    };
    let media = only
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    media.trim().eq_ignore_ascii_case(MEDIA_TYPE)
}
