//! TLS of the token listener: takes the PEM files, gives an acceptor and, of a session, who called.

use std::{path::PathBuf, sync::Arc};

use thiserror::Error;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig, ServerConnection,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{NoServerSessionStorage, WebPkiClientVerifier},
    },
};

use crate::{config, envoys::SpiffeId, secret_file, secret_file::SecretFileError};

/// Why TLS can't be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The private key's file is not readable, or too many can read it.
    #[error("tls.key: {0}")]
    Key(#[from] SecretFileError),
    /// A PEM file is not what it should be.
    #[error("tls.{field}: {}: expected {expected}, found {found}", path.display())]
    Pem {
        /// The field that names the file.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong with it.
        found: String,
    },
    /// Certificate and key, or the authorities, don't fit.
    #[error("tls: {0}")]
    Rustls(String),
}

/// An acceptor that verifies whatever certificate a caller shows, and lets a caller without any
/// come as far as a proper error.
pub(super) fn acceptor(files: &config::Tls) -> Result<TlsAcceptor, TlsError> {
    let pem = |field, path: &PathBuf, expected, found: String| TlsError::Pem {
        field,
        path: path.clone(),
        expected,
        found,
    };
    let chain = certificates("certificate", &files.certificate)?;
    let authorities = certificates("trust_bundle", &files.trust_bundle)?;
    let key_text = secret_file::read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(key_text.as_bytes())
        .map_err(|e| pem("key", &files.key, "a private key in PEM", e.to_string()))?;

    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|e| {
            pem(
                "trust_bundle",
                &files.trust_bundle,
                "certificate authorities",
                e.to_string(),
            )
        })?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|e| TlsError::Rustls(e.to_string()))?;
    let mut config = server_config(provider)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| TlsError::Rustls(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would carry a certificate that nobody verifies again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn server_config(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TlsError> {
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Rustls(e.to_string()))
}

fn certificates(
    field: &'static str,
    path: &PathBuf,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |found: String| TlsError::Pem {
        field,
        path: path.clone(),
        expected: "certificates in PEM",
        found,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| wrong(e.to_string()))?;
    if found.is_empty() {
        Err(wrong("none".to_owned()))
    } else {
        Ok(found)
    }
}

/// The SPIFFE ID of the certificate that the caller showed and TLS verified: its one URI SAN
/// (X.509-SVID, section 2). A certificate with several or none names nobody.
pub(super) fn identity(session: &ServerConnection) -> Option<SpiffeId> {
    let certificate = session.peer_certificates()?.first()?;
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_uri_names();
    let only = names.next()?;
    if names.next().is_some() {
        return None;
    }
    SpiffeId::parse(only)
}
