//! Takes connections; gives each request its answer and notes both in the journal.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::answer::{Answer, Api, Performance, Piece, Reset};
use crate::behaviour::{Behaviour, End, Fail, Rule};
use crate::journal::{Ended, Entry, Journal, Usage};
use crate::{anthropic, bench, openai};

const LARGEST_BODY: usize = 64 << 20;

/// What all connections share.
pub(crate) struct Simulator {
    accept_keys: Vec<(Api, String)>,
    rules: Mutex<Vec<Rule>>,
    journal: Mutex<Journal>,
}

/// One exchange's place in the journal. Dropped before its end, the other side has hung up.
pub(crate) struct Ticket {
    simulator: Arc<Simulator>,
    number: u64,
    ended: bool,
}

#[derive(Clone)]
struct Connection {
    number: u64,
    sni: Option<String>,
}

impl Simulator {
    pub(crate) fn new(accept_keys: Vec<(Api, String)>) -> Self {
        Self {
            accept_keys,
            rules: Mutex::default(),
            journal: Mutex::default(),
        }
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepts(&self, api: Api, key: &str) -> bool {
        self.accept_keys
            .iter()
            .any(|(its, accepted)| *its == api && accepted == key)
    }
}

/// Speaks HTTP/1.1, and HTTP/2 to who begins with its preface.
pub(crate) async fn plain(listener: TcpListener, simulator: Arc<Simulator>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let simulator = Arc::clone(&simulator);
        tokio::spawn(async move { connection(stream, None, simulator).await });
    }
}

/// Speaks what ALPN agrees on.
pub(crate) async fn tls(listener: TcpListener, acceptor: TlsAcceptor, simulator: Arc<Simulator>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, simulator) = (acceptor.clone(), Arc::clone(&simulator));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let sni = stream.get_ref().1.server_name().map(str::to_owned);
            connection(stream, sni, simulator).await;
        });
    }
}

pub(crate) fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    sni: Option<String>,
    simulator: Arc<Simulator>,
) {
    let connection = Connection {
        number: simulator.journal().connection(),
        sni,
    };
    let service =
        service_fn(move |request| respond(request, connection.clone(), Arc::clone(&simulator)));
    // How a connection ends is in the journal, exchange by exchange.
    let mut server = auto::Builder::new(TokioExecutor::new());
    // As many as Envoy may send before it has heard of a limit: what is refused then is Envoy's to
    // try again, and not always tried.
    server.http2().max_concurrent_streams(None);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// `Err` resets the stream (HTTP/1.1: closes the connection) before any header.
async fn respond(
    request: Request<Incoming>,
    connection: Connection,
    simulator: Arc<Simulator>,
) -> Result<Response<Performance>, Reset> {
    let (head, body) = request.into_parts();
    let number = simulator.journal().open(entry(&head, connection));
    let mut ticket = Ticket {
        simulator: Arc::clone(&simulator),
        number,
        ended: false,
    };

    let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else {
        return Err(Reset);
    };
    let trailers = body.trailers().map(pairs).unwrap_or_default();
    let body = body.to_bytes();
    ticket.amend(|entry| {
        entry.body = Some(BASE64_STANDARD.encode(&body));
        entry.trailers = trailers;
    });

    let path = head.uri.path();
    let api = if path.starts_with("/v1/messages") {
        Api::Anthropic
    } else {
        Api::OpenAi
    };
    let key = presented(api, &head.headers);
    let mut cue = Behaviour::default();
    let mut answer = match bench::answer(&body) {
        _ if !simulator.accepts(api, key) => fail(api, Fail::BadCredential, key),
        Some(prepared) => prepared,
        None => match Behaviour::choose(&mut simulator.rules(), path, &body) {
            Err(error) => misread(&error),
            Ok(chosen) => {
                cue = chosen;
                match cue.fail {
                    Some(kind) => fail(api, kind, key),
                    None if api == Api::Anthropic => {
                        anthropic::answer(&head.method, path, &body, &cue)
                    }
                    None => openai::answer(&head.method, path, &body, &cue),
                }
            }
        },
    };
    if cue.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(cue.delay_ms)).await;
    }
    if cue.at.is_none() {
        match cue.end {
            End::Hang => std::future::pending().await,
            End::Reset => {
                ticket.cut();
                return Err(Reset);
            }
            End::Complete | End::Error | End::Truncate => {}
        }
    }
    answer.bend(&cue);
    ticket.began(&answer);
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = std::mem::take(&mut answer.headers);
    Ok(response.map(|()| answer.perform(&cue, ticket)))
}

fn entry(head: &hyper::http::request::Parts, connection: Connection) -> Entry {
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    Entry {
        number: 0,
        connection: connection.number,
        sni: connection.sni,
        protocol: format!("{:?}", head.version),
        method: head.method.to_string(),
        path: path.to_owned(),
        authority: head.uri.authority().map(ToString::to_string),
        headers: pairs(&head.headers),
        body: None,
        trailers: Vec::new(),
        status: None,
        stream: false,
        spent: Usage::default(),
        reported: None,
        ended: None,
    }
}

/// Values that are not UTF-8 come out with replacement characters.
fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text =
        |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// The key in the place where this API's SDK puts it.
fn presented(api: Api, headers: &HeaderMap) -> &str {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || value("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let key = match api {
        Api::Anthropic => value("x-api-key").or_else(bearer),
        Api::OpenAi => bearer(),
    };
    key.unwrap_or_default()
}

fn fail(api: Api, kind: Fail, key: &str) -> Answer {
    match api {
        Api::Anthropic => anthropic::fail(kind),
        Api::OpenAi => openai::fail(kind, key),
    }
}

/// A cue that can't be read fails the test that gave it, loudly.
fn misread(error: &str) -> Answer {
    let value = serde_json::json!({"simulator": error});
    Answer::json(StatusCode::NOT_IMPLEMENTED, &value, 0, 0)
}

impl Ticket {
    pub(crate) fn sent(&self, piece: &Piece) {
        if piece.output == 0 && piece.usage.is_none() {
            return;
        }
        self.amend(|entry| {
            entry.spent.output = entry.spent.output.saturating_add(piece.output);
            entry.reported = piece.usage.or(entry.reported);
        });
    }

    pub(crate) fn complete(&mut self) {
        self.end(Ended::Complete);
    }

    pub(crate) fn cut(&mut self) {
        self.end(Ended::Cut);
    }

    fn began(&self, answer: &Answer) {
        self.simulator
            .journal()
            .amend(self.number, |entry, served| {
                entry.status = Some(answer.status.as_u16());
                entry.stream = answer.stream;
                entry.spent.input = answer.input;
                served.streams = served.streams.saturating_add(u64::from(answer.stream));
            });
    }

    fn amend(&self, change: impl FnOnce(&mut Entry)) {
        self.simulator
            .journal()
            .amend(self.number, |entry, _| change(entry));
    }

    fn end(&mut self, ended: Ended) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.simulator
            .journal()
            .amend(self.number, |entry, served| {
                entry.ended = Some(ended);
                served.spent.add(entry.spent);
                served.reported.add(entry.reported.unwrap_or_default());
                let count = match ended {
                    Ended::Complete => &mut served.complete,
                    Ended::Cut => &mut served.cut,
                    Ended::HungUp => &mut served.hung_up,
                };
                *count = count.saturating_add(1);
            });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(Ended::HungUp);
    }
}
