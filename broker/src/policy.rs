//! The policy document: takes its file, gives what the core makes of it and what the core says.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use almoner_core::{
    config::{Config, ConfigError, Policy, Source},
    grant,
    subject::SubjectId,
};
use serde::de::IgnoredAny;
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
        Self::parse(path, &document::read_text(path)?)
    }

    /// Reads a document that came from `path`. JSON goes to the core as it is, so that what the
    /// core refuses in it (a key that stands twice) is refused here too.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, PolicyError> {
        let json = match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(document::parse(path, text)?.to_string()),
        };
        let config = Config::parse(json.as_bytes()).map_err(|source| PolicyError::Refused {
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

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{
        "identity": { "sources": [{ "jwt": { "slots": ["authorization"], "audience": "llm",
                                             "subject": "azp" } }] },
        "providers": { "openai": { "api": "openai", "match": { "path_prefix": "/o" },
                                   "clusters": ["o"] } },
        "broker": { "cluster": "broker" },
        "policies": [{ "name": "a", "owner": "\ud83d\ude00", "subjects": ["jwt:https://i|*"],
            "allow": [{ "providers": ["openai"], "endpoints": ["chat"], "models": ["*"] }] }]
    }"#;

    fn parse(text: &str) -> Result<Policies, String> {
        Policies::parse(Path::new("p"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn json_and_yaml_of_one_meaning_have_one_digest() {
        let json = parse(DOCUMENT).expect("accepted");
        // The same without JSON's escape of a character, which YAML lacks.
        let yaml = parse(
            &DOCUMENT
                .replace("\\ud83d\\ude00", "😀")
                .replace("\"azp\"", "azp"),
        );
        assert_eq!(yaml.expect("accepted").digest(), json.digest());
        assert_eq!(json.subject_claim(), "azp");
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_in_json_as_in_yaml() {
        let twice = DOCUMENT.replace("\"name\": \"a\"", "\"name\": \"a\", \"name\": \"a\"");
        let refused = parse(&twice).err().expect("refused");
        assert!(refused.contains("name"), "{refused}");
        let refused = parse(&twice.replace("\"azp\"", "azp"))
            .err()
            .expect("refused");
        assert!(refused.contains("duplicate"), "{refused}");
    }
}
