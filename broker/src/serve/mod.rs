//! The running broker: takes its configuration, gives two bound listeners and a way to end them.
//!
//! Everything that can be wrong is found before the first connection is accepted.

mod admin;
mod http;
mod listener;
mod tls;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use serde::Serialize;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tracing::{info, warn};

pub use self::tls::TlsError;
use crate::{
    audit::Audit,
    clock,
    config::Config,
    credential::{CredentialError, Credentials},
    envoys::{EnvoyListError, Envoys},
    jwt::{SourceError, Verifier},
    metrics::Metrics,
    policy::{Policies, PolicyError},
    rate::RateLimit,
    token::TokenEndpoint,
};

/// Why the broker does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The audit trail can't be opened.
    #[error("audit: {0}")]
    Audit(io::Error),
    /// A listener can't be bound.
    #[error("{field}: {address}: {source}")]
    Bind {
        /// The field that names the address.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The credentials file is refused.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The list of Envoys is refused.
    #[error(transparent)]
    Envoys(#[from] EnvoyListError),
    /// An issuer's keys have no usable source.
    #[error(transparent)]
    Issuers(#[from] SourceError),
    /// Metrics can't be set up.
    #[error("metrics: {0}")]
    Metrics(String),
    /// No policy document.
    #[error("policy: expected a file, in the configuration or as --policy, found none")]
    NoPolicy,
    /// The policy document is refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The ready file can't be written.
    #[error("--ready-file {}: {source}", path.display())]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Where a broker listens.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bound {
    /// The token endpoint.
    pub token: SocketAddr,
    /// Metrics and probes.
    pub admin: SocketAddr,
}

impl Bound {
    /// Writes the addresses to a file as JSON; it appears whole or not at all.
    ///
    /// # Errors
    /// [`StartError::ReadyFile`].
    pub fn write(&self, path: &Path) -> Result<(), StartError> {
        let failed = |source| StartError::ReadyFile {
            path: path.to_owned(),
            source,
        };
        let text = serde_json::to_string(self).map_err(|error| failed(error.into()))?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, path))
            .map_err(failed)
    }
}

/// A broker that runs.
pub struct Running {
    bound: Bound,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn bound(&self) -> Bound {
        self.bound
    }

    /// Accepts no more, lets what runs finish, and returns.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for listener in self.listeners {
            if let Err(error) = listener.await {
                warn!(%error, "a listener did not end as it should");
            }
        }
    }
}

/// Starts a broker.
///
/// # Errors
/// What is wrong with the configuration, or with the files that it names.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let metrics = Arc::new(Metrics::new().map_err(|error| StartError::Metrics(error.to_string()))?);
    let acceptor = tls::acceptor(&config.tls)?;
    let endpoint = Arc::new(endpoint(&config, &metrics)?);

    let token = bind("listen", config.listen).await?;
    let admin = bind("admin_listen", config.admin_listen).await?;
    let address = |listener: &TcpListener, field, address| {
        listener.local_addr().map_err(|source| StartError::Bind {
            field,
            address,
            source,
        })
    };
    let bound = Bound {
        token: address(&token, "listen", config.listen)?,
        admin: address(&admin, "admin_listen", config.admin_listen)?,
    };
    let (stop, stopped) = watch::channel(false);
    let service = listener::Service {
        acceptor,
        app: http::router(Arc::clone(&endpoint), &config.limits),
        endpoint: Arc::clone(&endpoint),
        limits: config.limits,
        metrics: Arc::clone(&metrics),
    };
    let listeners = vec![
        tokio::spawn(listener::run(token, service, stopped.clone())),
        tokio::spawn(admin::run(admin, metrics, stopped)),
    ];
    info!(token = %bound.token, admin = %bound.admin, policy = endpoint.policies.digest(), "listening");
    Ok(Running {
        bound,
        stop,
        listeners,
    })
}

fn endpoint(config: &Config, metrics: &Arc<Metrics>) -> Result<TokenEndpoint, StartError> {
    let policies = Policies::read(config.policy.as_deref().ok_or(StartError::NoPolicy)?)?;
    for warning in &policies.config().warnings {
        warn!(warning, "policy");
    }
    let credentials = Credentials::read(&config.credentials)?;
    announce(&policies, &credentials, metrics);
    let subject_claim = policies.subject_claim().to_owned();
    Ok(TokenEndpoint {
        envoys: Envoys::new(&config.envoys)?,
        verifier: Verifier::new(&config.issuers, subject_claim, metrics)?,
        policies,
        credentials,
        audit: Audit::open(&config.audit).map_err(StartError::Audit)?,
        metrics: Arc::clone(metrics),
        rate: RateLimit::new(config.limits.exchanges_per_second),
        running: Semaphore::new(config.limits.exchanges),
        max_lease: config.max_lease,
        boot: format!("{:x}-{:x}", clock::now().0, std::process::id()),
        sequence: AtomicU64::new(0),
    })
}

/// Tells what will be missing before somebody misses it.
fn announce(policies: &Policies, credentials: &Credentials, metrics: &Metrics) {
    let now = clock::now();
    for (provider, credential) in credentials.iter() {
        let expires = credential.expires.as_secs() as f64;
        metrics
            .credential_expiry
            .with_label_values(&[provider])
            .set(expires);
        let id = credential.id.as_str();
        if credential.expires <= now {
            warn!(provider, credential_id = id, "the credential has expired");
        } else if credential.owner.is_none() {
            warn!(provider, credential_id = id, "the credential has no owner");
        }
    }
    for provider in &policies.config().providers {
        if credentials.of(&provider.name).is_none() {
            warn!(
                provider = provider.name,
                "the provider has no credential: nothing is issued for it"
            );
        }
    }
}

async fn bind(field: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Bind {
            field,
            address,
            source,
        })
}
