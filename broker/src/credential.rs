//! The providers' keys: takes the credentials file, gives the credential of a provider.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use almoner_core::{
    secret::{Credential, CredentialId},
    units::Timestamp,
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    document::{self, DocumentError},
    secret_file::{self, SecretFileError},
};

/// A provider's credential, with what is known about it. It can't be printed.
pub(crate) struct StoredCredential {
    /// What may be logged: the provider's name and 32 bits of the key's SHA-256, so that a rotated
    /// key has another name.
    pub(crate) id: CredentialId,
    /// The key.
    pub(crate) secret: Credential,
    /// How it is sent.
    pub(crate) kind: Kind,
    /// From then on it is refused.
    pub(crate) expires: Timestamp,
    /// Who answers for it.
    pub(crate) owner: Option<String>,
    /// Must equal the policy's, where that names one.
    pub(crate) environment: Option<String>,
}

/// How a credential is sent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// As `authorization: Bearer`.
    Bearer,
    /// In the provider's own header.
    Header,
}

/// Why the credentials file was refused. None of these quotes a value: it may be a key.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// The file is not YAML.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A file can't be read, or others can read it too.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// An entry is not what it should be.
    #[error("{}: {provider}: expected {expected}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        provider: String,
        /// What it should be.
        expected: String,
    },
    /// The file is not a map.
    #[error("{}: expected a map from provider names to entries", path.display())]
    NotAMap {
        /// The file.
        path: PathBuf,
    },
}

/// The credentials of all providers.
pub(crate) struct Credentials(BTreeMap<String, StoredCredential>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    key: Zeroizing<String>,
    kind: Kind,
    expires: String,
    owner: Option<String>,
    environment: Option<String>,
}

impl Credentials {
    /// Reads the file at `path`, and the files and variables that it refers to.
    pub(crate) fn read(path: &Path) -> Result<Self, CredentialError> {
        let text = secret_file::read(path)?;
        let Value::Object(entries) = document::parse(path, &text)? else {
            return Err(CredentialError::NotAMap {
                path: path.to_owned(),
            });
        };
        entries
            .into_iter()
            .map(|(provider, entry)| {
                let credential = one(path, &provider, entry)?;
                Ok((provider, credential))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The credential of a provider.
    pub(crate) fn of(&self, provider: &str) -> Option<&StoredCredential> {
        self.0.get(provider)
    }

    /// Each provider that has a credential, with it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &StoredCredential)> {
        self.0
            .iter()
            .map(|(provider, credential)| (provider.as_str(), credential))
    }
}

fn one(path: &Path, provider: &str, entry: Value) -> Result<StoredCredential, CredentialError> {
    let wrong = |expected: &str| CredentialError::Entry {
        path: path.to_owned(),
        provider: provider.to_owned(),
        expected: expected.to_owned(),
    };
    let written: Written = serde_json::from_value(entry).map_err(|_| {
        wrong(
            "`key`, `kind` (`bearer` or `header`), `expires`, and if wanted `owner`, `environment`",
        )
    })?;
    let secret = Credential::new(resolve(path, written.key, wrong)?)
        .ok_or_else(|| wrong("a key of visible ASCII characters"))?;
    let id = credential_id(provider, &secret)
        .ok_or_else(|| wrong("a provider's name of at most 100 visible ASCII characters"))?;
    let expires = expiry(&written.expires)
        .ok_or_else(|| wrong("`expires` as a date or an RFC 3339 time, such as `2027-06-30`"))?;
    Ok(StoredCredential {
        id,
        secret,
        kind: written.kind,
        expires,
        owner: written.owner,
        environment: written.environment,
    })
}

fn credential_id(provider: &str, key: &Credential) -> Option<CredentialId> {
    let digest = Sha256::new()
        .chain_update("almoner credential id")
        .chain_update(key.expose())
        .finalize();
    let tag: String = digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    CredentialId::new(&format!("{provider}-{tag}"))
}

/// The key that `env:NAME` or `file:PATH` refers to, or the text itself.
fn resolve(
    path: &Path,
    written: Zeroizing<String>,
    wrong: impl Fn(&str) -> CredentialError,
) -> Result<Zeroizing<String>, CredentialError> {
    if let Some(name) = written.strip_prefix("env:") {
        let value =
            env::var(name).map_err(|_| wrong("the variable that `key: env:` names to be set"))?;
        return Ok(Zeroizing::new(value));
    }
    if let Some(file) = written.strip_prefix("file:") {
        let base = path.parent().unwrap_or_else(|| Path::new("."));
        let text = secret_file::read(&base.join(file))?;
        return Ok(Zeroizing::new(text.trim_end().to_owned()));
    }
    Ok(written)
}

fn expiry(text: &str) -> Option<Timestamp> {
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let date = text.parse::<jiff::civil::Date>().ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|midnight| midnight.timestamp())
    })?;
    u64::try_from(time.as_millisecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn read(text: &str) -> Result<Credentials, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let private = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode set");
            path
        };
        private("a.key", "sk-from-file\n");
        Credentials::read(&private("c.yaml", text)).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_a_key_and_a_reference_to_one() {
        let credentials = read(
            "a: {key: 'file:a.key', kind: header, expires: 2027-01-02, environment: prod}
b: {key: sk-b, kind: bearer, expires: '2027-01-02T03:04:05Z'}",
        )
        .expect("accepted");
        let a = credentials.of("a").expect("there");
        assert_eq!(a.secret.expose(), "sk-from-file");
        assert_eq!(a.expires, Timestamp::from_secs(1_798_848_000));
        assert_eq!(
            (a.kind, a.environment.as_deref()),
            (Kind::Header, Some("prod"))
        );
        assert!(a.id.as_str().starts_with("a-") && !a.id.as_str().contains("sk-"));
        let b = credentials.of("b").expect("there");
        assert_eq!(b.expires, Timestamp::from_secs(1_798_859_045));
        assert!(credentials.of("c").is_none());
    }

    #[test]
    fn the_shipped_example_has_the_right_shape() {
        let text = include_str!("../credentials.example.yaml");
        let value = document::parse(Path::new("example"), text).expect("YAML");
        let entries: BTreeMap<String, Written> = serde_json::from_value(value).expect("entries");
        assert!(!entries.is_empty());
        for (provider, entry) in entries {
            assert!(expiry(&entry.expires).is_some(), "{provider}");
        }
    }

    #[test]
    fn refuses_without_quoting_a_value() {
        for text in [
            "openai: sk-planted",
            "openai: {key: sk-planted}",
            "openai: {key: sk-planted, kind: sk-planted, expires: 2027-01-01}",
            "openai: {key: sk-planted, kind: bearer, expires: sk-planted}",
            "openai: {key: 'sk-planted \u{7}', kind: bearer, expires: 2027-01-01}",
            "openai: {key: 'sk-planted two', kind: bearer, expires: 2027-01-01}",
            "openai: {key: sk-planted, kind: bearer, expires: 2027-01-01, note: sk-planted}",
            "openai: {key: 'env:PLANTED_AND_NOT_SET', kind: bearer, expires: 2027-01-01}",
            "openai: {key: '', kind: bearer, expires: 2027-01-01}",
            "[sk-planted]",
            "openai: {key: sk-planted",
        ] {
            let refused = read(text).err().expect("refused");
            assert!(!refused.to_lowercase().contains("planted"), "{refused}");
            assert!(refused.contains("c.yaml"), "{refused}");
        }
    }
}
