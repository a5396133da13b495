//! Takes what a test asks on the admin port; gives the journal, and sets the script.
//!
//! - `PUT /behaviour`: the script, a JSON list of rules ([`crate::behaviour`]); replaces the last.
//! - `GET /requests`: everything received; `DELETE /requests` forgets it.
//! - `GET /served`: totals since the start.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::journal::Entry;
use crate::serve::Simulator;

pub(crate) async fn serve(listener: TcpListener, simulator: Arc<Simulator>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let simulator = Arc::clone(&simulator);
        let service = service_fn(move |request| respond(request, Arc::clone(&simulator)));
        tokio::spawn(async move {
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    simulator: Arc<Simulator>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let (status, body) = match (&head.method, head.uri.path()) {
        (&Method::GET, "/requests") => {
            json(&simulator.journal().entries().collect::<Vec<&Entry>>())
        }
        (&Method::DELETE, "/requests") => {
            simulator.journal().clear();
            (StatusCode::NO_CONTENT, String::new())
        }
        (&Method::GET, "/served") => json(&simulator.journal().served),
        (&Method::PUT, "/behaviour") => {
            let body = body
                .collect()
                .await
                .map(|body| body.to_bytes())
                .unwrap_or_default();
            match serde_json::from_slice(&body) {
                Ok(rules) => {
                    *simulator.rules() = rules;
                    (StatusCode::NO_CONTENT, String::new())
                }
                Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            }
        }
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}

fn json(value: &impl serde::Serialize) -> (StatusCode, String) {
    match serde_json::to_string(value) {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
