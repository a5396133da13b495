//! The policy document: takes its file, gives what the core makes of it and what the core says.

use std::path::{Path, PathBuf};

use almoner_core::{
    config::{Config, ConfigError, Policy, Source},
    grant,
    subject::SubjectId,
};
use thiserror::Error;

use crate::document::{self, DocumentError};

/// Why a policy document is not in force.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// It can't be read as YAML or JSON.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The core refuses it.
    #[error("{}: {source}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: ConfigError,
    },
}

/// The policies in force.
pub(crate) struct Policies {
    config: Config,
    digest: String,
}

impl Policies {
    /// Reads the document at `path`, as the plugin reads it.
    pub(crate) fn read(path: &Path) -> Result<Self, PolicyError> {
        Self::from_value(path, &document::read(path)?)
    }

    /// Takes a document that came from `path`.
    pub(crate) fn from_value(path: &Path, value: &serde_json::Value) -> Result<Self, PolicyError> {
        let config =
            Config::parse(value.to_string().as_bytes()).map_err(|source| PolicyError::Refused {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            digest: config.digest.short(),
            config,
        })
    }

    /// The policy under which this subject may have this provider's credential. Models, tools and
    /// conditions are judged in Envoy, where they are known.
    pub(crate) fn grant(
        &self,
        subject: &SubjectId,
        provider: &str,
    ) -> Result<&Policy, &'static str> {
        grant::may_use(&self.config, subject, provider)
            .map(AsRef::as_ref)
            .map_err(|denial| denial.reason())
    }

    /// The document as the core reads it.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What an Envoy sends as `policy_digest`.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// The claim that names a token's subject.
    pub(crate) fn subject_claim(&self) -> &str {
        let mut sources = self.config.identity.sources.iter();
        let claim = sources.find_map(|source| match source {
            Source::Jwt { subject, .. } => Some(subject.as_str()),
            Source::Mtls { .. } | Source::Proxy { .. } => None,
        });
        claim.unwrap_or("sub")
    }
}
