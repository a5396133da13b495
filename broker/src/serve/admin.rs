//! The admin listener: gives metrics and the answers of probes, in plaintext, to whoever reaches it.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tracing::error;

use crate::metrics::Metrics;

/// Serves until told to stop.
pub(super) async fn run(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    mut stopped: watch::Receiver<bool>,
) {
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state((metrics, stopped.clone()));
    let stop = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await
    {
        error!(%error, "the admin listener ended");
    }
}

/// Not ready once told to stop: so that nothing new is sent while connections finish.
async fn ready(
    State((_, stopped)): State<(Arc<Metrics>, watch::Receiver<bool>)>,
) -> (StatusCode, &'static str) {
    if *stopped.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn render(
    State((metrics, _)): State<(Arc<Metrics>, watch::Receiver<bool>)>,
) -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    match metrics.render() {
        Ok(text) => (StatusCode::OK, content_type, text),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            content_type,
            String::new(),
        ),
    }
}
