//! The token listener: takes TCP connections, gives each its TLS session, its peer and its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, warn};

use super::tls;
use crate::{
    config::Limits,
    metrics::Metrics,
    token::{Peer, TokenEndpoint},
};

/// How long connections may take to finish once the broker stops.
const DRAIN: Duration = Duration::from_secs(10);
/// After a failed `accept`, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection needs.
pub(super) struct Service {
    pub(super) acceptor: TlsAcceptor,
    pub(super) app: Router,
    pub(super) endpoint: Arc<TokenEndpoint>,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
}

/// Accepts connections until told to stop, then lets the open ones finish.
pub(super) async fn run(
    listener: TcpListener,
    service: Service,
    mut stopped: watch::Receiver<bool>,
) {
    let service = Arc::new(service);
    let places = Arc::new(Semaphore::new(service.limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        if let Some((stream, address, place)) = accepted {
            connections.spawn(connection(
                Arc::clone(&service),
                stream,
                address,
                stopped.clone(),
                place,
            ));
        }
    }
    drop(listener);
    let drained = timeout(DRAIN, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        warn!(
            open = connections.len(),
            "connections did not finish in time"
        );
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, place)),
        Err(error) => {
            warn!(%error, "could not accept a connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    service: Arc<Service>,
    stream: TcpStream,
    address: SocketAddr,
    mut stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let Some(session) = handshake(&service, stream, address).await else {
        service.metrics.handshake_failures.inc();
        return;
    };
    let peer = Peer {
        address,
        identity: tls::identity(session.get_ref().1),
    };
    // A stranger is told that it is one, and may not sit on a place.
    let limits = &service.limits;
    let known = service.endpoint.knows(&peer);
    let age = if known {
        limits.connection_age
    } else {
        limits.timeout
    };

    service.metrics.connections.inc();
    let app = TowerToHyperService::new(service.app.clone().layer(Extension(peer)));
    let builder = protocol(limits.timeout);
    let serving = builder.serve_connection(TokioIo::new(session), app);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = sleep(age) => None,
        _ = stopped.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            timeout(DRAIN, serving).await.unwrap_or(Ok(()))
        }
    };
    service.metrics.connections.dec();
    if let Err(error) = ended {
        debug!(%address, %error, "connection ended");
    }
}

async fn handshake(
    service: &Service,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    match timeout(service.limits.timeout, service.acceptor.accept(stream)).await {
        Ok(Ok(session)) => Some(session),
        Ok(Err(error)) => {
            debug!(%address, %error, "TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// HTTP/1.1 and HTTP/2, as the TLS session settled.
fn protocol(patience: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(patience)
        .keep_alive_timeout(patience);
    builder
}
