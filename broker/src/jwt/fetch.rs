//! Where an issuer's keys come from: a file, or an HTTPS address with bounds on time and size.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{StatusCode, Uri, body::Bytes};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::jwk::JwkSet;
use thiserror::Error;
use tokio::time::timeout;
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::config;

const MAX_BYTES: usize = 256 * 1024;
const MAX_KEYS: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(3);

/// Why an issuer's source of keys can't be used.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The address is not one.
    #[error("issuers: jwks_uri: expected an https address, found `{0}`")]
    Address(String),
    /// The authorities that should have signed the issuer's certificate can't be read.
    #[error("issuers: {0}")]
    Authorities(String),
}

/// Why keys could not be fetched.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("no answer: {0}")]
    NoAnswer(String),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("more than {MAX_BYTES} bytes, {MAX_KEYS} keys, or not a JSON Web Key Set")]
    Unusable,
}

type HttpsCaller = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Where keys come from.
pub(super) enum Source {
    File(PathBuf),
    Https {
        address: Uri,
        caller: Box<HttpsCaller>,
    },
}

impl Source {
    pub(super) fn new(issuer: &config::Issuer) -> Result<Self, SourceError> {
        if let Some(file) = &issuer.jwks_file {
            return Ok(Self::File(file.clone()));
        }
        let written = issuer.jwks_uri.as_deref().unwrap_or_default();
        let address: Uri = written
            .parse()
            .map_err(|_| SourceError::Address(written.to_owned()))?;
        if address.scheme_str() != Some("https") || address.host().is_none() {
            return Err(SourceError::Address(written.to_owned()));
        }
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(issuer.ca_file.as_ref())?)
            .https_only()
            .enable_http1()
            .build();
        let caller = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self::Https {
            address,
            caller: Box::new(caller),
        })
    }

    /// Fetches the keys as they are now. Redirects are not followed.
    pub(super) async fn fetch(&self) -> Result<JwkSet, FetchError> {
        let text = match self {
            Self::File(path) => fs::read(path)?,
            Self::Https { address, caller } => timeout(TIMEOUT, get(caller, address.clone()))
                .await
                .map_err(|_| FetchError::Timeout)??,
        };
        if text.len() > MAX_BYTES {
            return Err(FetchError::Unusable);
        }
        let set: JwkSet = serde_json::from_slice(&text).map_err(|_| FetchError::Unusable)?;
        if set.keys.len() > MAX_KEYS {
            Err(FetchError::Unusable)
        } else {
            Ok(set)
        }
    }
}

async fn get(caller: &HttpsCaller, address: Uri) -> Result<Vec<u8>, FetchError> {
    let answer = caller
        .get(address)
        .await
        .map_err(|e| FetchError::NoAnswer(e.to_string()))?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), MAX_BYTES);
    let body = body.collect().await.map_err(|_| FetchError::Unusable)?;
    Ok(body.to_bytes().to_vec())
}

fn tls(authorities: Option<&PathBuf>) -> Result<ClientConfig, SourceError> {
    let mut roots = RootCertStore::empty();
    let found: Vec<CertificateDer<'static>> = match authorities {
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|e| SourceError::Authorities(format!("{}: {e}", path.display())))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        let message = "expected at least one certificate authority, found none: name a `ca_file`";
        return Err(SourceError::Authorities(message.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| SourceError::Authorities(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
