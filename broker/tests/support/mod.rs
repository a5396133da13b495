//! What the broker's tests stand on: a broker on loopback with its own authority, issuer and files.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod issuer;
pub(crate) mod pki;
pub(crate) mod process;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use almoner_broker::{config::Config, serve};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use self::{
    issuer::Issuer,
    pki::{Authority, Identity},
};

pub(crate) const GATEWAY: &str = "spiffe://prod.example/gateway";
pub(crate) const SIDECAR: &str = "spiffe://prod.example/ns/shop/sa/cart";
pub(crate) const BOT: &str = "spiffe://prod.example/ns/support/sa/bot";
pub(crate) const OPENAI_KEY: &str = "sk-planted-openai";
pub(crate) const ANTHROPIC_KEY: &str = "sk-ant-planted";

pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
pub(crate) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub(crate) const SPIFFE_ID: &str = "urn:almoner:params:oauth:token-type:spiffe-id";

/// A running broker and everything around it.
pub(crate) struct Stand {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
    pub(crate) issuer: Issuer,
    pub(crate) running: serve::Running,
}

/// An answer of the token endpoint.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) json: Value,
}

impl Stand {
    /// A broker with the usual configuration.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A broker whose configuration is changed first.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Value)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::new();
        let issuer = Issuer::start(&authority).await;
        let config = write_files(dir.path(), &authority, &issuer, change);
        let config = Config::read(&config).expect("a configuration");
        let running = serve::start(config).await.expect("a broker");
        Self {
            dir,
            authority,
            issuer,
            running,
        }
    }

    /// The certificate of a workload or Envoy of this stand.
    pub(crate) fn identity(&self, spiffe_id: &str) -> Identity {
        self.authority.identity(&[spiffe_id])
    }

    /// Posts a form as the gateway.
    pub(crate) async fn exchange(&self, form: &[(&str, &str)]) -> Answer {
        self.exchange_as(Some(&self.identity(GATEWAY)), form)
            .await
            .expect("an answer")
    }

    /// Posts a form over a connection of this identity.
    pub(crate) async fn exchange_as(
        &self,
        identity: Option<&Identity>,
        form: &[(&str, &str)],
    ) -> std::io::Result<Answer> {
        post(self.connect(identity).await?, FORM, encode(form)).await
    }

    /// Posts a body over a connection of this identity.
    pub(crate) async fn post(
        &self,
        identity: Option<&Identity>,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> std::io::Result<Answer> {
        post(self.connect(identity).await?, content_type, body).await
    }

    /// A TLS session of this identity.
    pub(crate) async fn connect(
        &self,
        identity: Option<&Identity>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.running.bound().token).await?;
        let name = "localhost".try_into().expect("a name");
        self.authority
            .connector(identity)
            .connect(name, stream)
            .await
    }

    /// Reads a page of the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        read_plain(self.running.bound().admin, path).await
    }

    /// The audit events so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("audit.jsonl")).expect("an audit file");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// The form in which an Envoy asks for a provider with a workload's token.
    pub(crate) fn with_token<'a>(token: &'a str, provider: &'a str) -> Vec<(&'a str, &'a str)> {
        form(token, JWT, provider)
    }

    /// The form in which an Envoy asks for a provider for a subject that it vouches for.
    pub(crate) fn with_spiffe_id<'a>(id: &'a str, provider: &'a str) -> Vec<(&'a str, &'a str)> {
        form(id, SPIFFE_ID, provider)
    }
}

fn form<'a>(token: &'a str, kind: &'a str, provider: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", token),
        ("subject_token_type", kind),
        ("audience", provider),
    ]
}

/// A form as it is sent.
pub(crate) fn encode(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish()
}

/// Posts a body over a TLS session, by HTTP/1.1.
pub(crate) async fn post(
    session: TlsStream<TcpStream>,
    content_type: &str,
    body: impl Into<Bytes>,
) -> std::io::Result<Answer> {
    let request = Request::post("/token")
        .header(header::HOST, "broker")
        .header(header::CONTENT_TYPE, content_type)
        .body(Full::new(body.into()))
        .expect("a request");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(session))
        .await
        .map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .map_err(std::io::Error::other)?;
    let (parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        json: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}

/// Reads a page over plaintext HTTP.
pub(crate) async fn read_plain(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, "broker")
        .body(Full::<Bytes>::default())
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status().as_u16();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Writes everything that a broker reads; gives the path of its configuration.
pub(crate) fn write_files(
    dir: &Path,
    authority: &Authority,
    issuer: &Issuer,
    change: impl FnOnce(&mut Value),
) -> PathBuf {
    let server = authority.server();
    write(dir, "broker.pem", &server.certificate_pem);
    write(dir, "broker-key.pem", &server.key_pem);
    write(dir, "trust.pem", &authority.pem());
    write(dir, "openai.key", OPENAI_KEY);
    let credentials = json!({
        "openai": { "key": "file:openai.key", "kind": "bearer", "expires": "2100-01-01",
                    "owner": "ml-platform", "environment": "prod" },
        "anthropic": { "key": ANTHROPIC_KEY, "kind": "header", "expires": "2100-01-01" },
        "expired": { "key": "sk-planted-old", "kind": "bearer", "expires": "2020-01-01" },
    });
    write(dir, "credentials.yaml", &credentials.to_string());
    write(dir, "policy.yaml", POLICY);
    let mut config = json!({
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "policy": "policy.yaml",
        "tls": { "certificate": "broker.pem", "key": "broker-key.pem", "trust_bundle": "trust.pem" },
        "envoys": [
            { "id": GATEWAY, "speaks_for": ["spiffe://prod.example/ns/*/sa/*", "jwt:https://issuer.example|**"] },
            { "id": "spiffe://prod.example/ns/shop/sa/*", "speaks_for": "self" },
        ],
        "issuers": [{
            "issuer": "https://issuer.example", "audiences": ["llm"], "jwks_uri": issuer.uri(),
            "ca_file": "trust.pem",
        }],
        "credentials": "credentials.yaml",
        "audit": "audit.jsonl",
    });
    change(&mut config);
    write(dir, "broker.yaml", &config.to_string())
}

/// Writes a file that only its owner can read.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode set");
    path
}

const POLICY: &str = r#"
identity:
  sources:
    - mtls: { trust_domains: [prod.example] }
    - jwt: { slots: [authorization], audience: llm }
providers:
  openai: { api: openai, match: { path_prefix: /openai }, clusters: [openai] }
  anthropic: { api: anthropic, match: { path_prefix: /anthropic }, clusters: [anthropic] }
  expired: { api: openai, match: { path_prefix: /expired }, clusters: [expired] }
  keyless: { api: openai, match: { path_prefix: /keyless }, clusters: [keyless] }
broker: { cluster: broker }
policies:
  - name: bots
    environment: prod
    subjects: ["spiffe://prod.example/ns/support/sa/*", "jwt:https://issuer.example|support-*"]
    allow: [{ providers: [openai, keyless], endpoints: [chat], models: ["gpt-*"] }]
  - name: staging
    environment: staging
    subjects: ["jwt:https://issuer.example|staging-*"]
    allow: [{ providers: [openai], endpoints: [chat], models: ["gpt-*"] }]
  - name: shop
    subjects: ["spiffe://prod.example/ns/shop/sa/*", "jwt:https://issuer.example|shop-*"]
    allow:
      - { providers: [anthropic], endpoints: [messages], models: ["claude-*"] }
      - { providers: [expired], endpoints: [chat], models: ["gpt-*"] }
"#;
