//! The broker's own configuration: takes its file, gives a [`Config`] in which each field is set.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::document::{self, DocumentError};

/// The commented example that ships; it stands here so that a test can hold it to the code.
pub const EXAMPLE: &str = include_str!("../broker.yaml");

/// What an operator decides about a broker. Relative paths start at the file's directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where Envoys exchange tokens.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where metrics and probes are read, in plaintext: keep it off the network.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// The policy document, the same that the plugin has.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// This broker's certificate, and whom it trusts.
    pub tls: Tls,
    /// Who may ask, and for whom. In order: the first whose `id` matches decides.
    pub envoys: Vec<Envoy>,
    /// Whose tokens are accepted.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// The file with the providers' keys.
    pub credentials: PathBuf,
    /// Where audit events go.
    #[serde(default)]
    pub audit: Audit,
    /// No lease is longer; at most one hour.
    #[serde(default = "default_max_lease", deserialize_with = "duration")]
    pub max_lease: Duration,
    /// Bounds on what one broker holds.
    #[serde(default)]
    pub limits: Limits,
}

/// Files in PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The broker's certificate, then its intermediates.
    pub certificate: PathBuf,
    /// Its private key; nobody but the owner may be able to read the file.
    pub key: PathBuf,
    /// The authorities that sign Envoys' certificates. Each of them can name any listed Envoy.
    pub trust_bundle: PathBuf,
}

/// One listed Envoy, or several under one pattern.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envoy {
    /// A SPIFFE ID; `*` stands within a segment of the path, `**` across.
    pub id: String,
    /// Whose subjects it may assert.
    pub speaks_for: SpeaksFor,
}

/// Whom an Envoy may speak for.
#[derive(Clone, Debug)]
pub enum SpeaksFor {
    /// A sidecar: its own TLS identity, no other.
    Itself,
    /// A gateway: the subjects that match one of these.
    Subjects(Vec<String>),
}

impl<'de> Deserialize<'de> for SpeaksFor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "`self` or a list of subject patterns")]
        enum Written {
            Word(String),
            List(Vec<String>),
        }
        match Written::deserialize(deserializer)? {
            Written::Word(word) if word == "self" => Ok(Self::Itself),
            Written::Word(word) => Err(D::Error::custom(format!(
                "expected `self` or a list of subject patterns, found `{word}`"
            ))),
            Written::List(patterns) => Ok(Self::Subjects(patterns)),
        }
    }
}

/// An issuer of workload tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Exactly as the token's `iss` says it.
    pub issuer: String,
    /// One of them must be among the token's `aud`.
    pub audiences: Vec<String>,
    /// Where its keys are fetched, by HTTPS.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// Or a file with its keys.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// The authorities of `jwks_uri`, in PEM; the system's where absent.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What its tokens may be signed with; never a symmetric algorithm.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// How far its clock may be ahead (`nbf`). An expiry has no grace.
    #[serde(default = "default_clock_skew", deserialize_with = "duration")]
    pub clock_skew: Duration,
}

/// Where audit events go.
#[derive(Clone, Debug, Default)]
pub enum Audit {
    /// Standard output; the broker's own log goes to standard error.
    #[default]
    Stdout,
    /// A file, to whose end they are written.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for Audit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(if word == "stdout" {
            Self::Stdout
        } else {
            Self::File(word.into())
        })
    }
}

/// Bounds on what one broker holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time; further ones wait to be accepted.
    pub connections: usize,
    /// Exchanges at a time; further ones are told to come back.
    pub exchanges: usize,
    /// Exchanges a second of one Envoy identity, with a burst of twice as many.
    pub exchanges_per_second: u32,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// From the accepted connection to its TLS session, and from a request's first byte to its answer.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// A connection is ended after this, so that an expired certificate does not live on in it.
    #[serde(deserialize_with = "duration")]
    pub connection_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            exchanges: 256,
            exchanges_per_second: 1000,
            body_bytes: 64 * 1024,
            timeout: Duration::from_secs(10),
            connection_age: Duration::from_secs(600),
        }
    }
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Why it can't be read, or the path of what is wrong in it, what was expected and found.
    pub fn read(path: &Path) -> Result<Self, DocumentError> {
        Self::from_document(path, document::read(path)?)
    }

    fn from_document(path: &Path, document: serde_json::Value) -> Result<Self, DocumentError> {
        let mut config: Self = document::typed(path, document)?;
        config
            .check()
            .map_err(|(at, reason)| DocumentError::Shape {
                path: path.to_owned(),
                at,
                reason,
            })?;
        let base = path.parent().unwrap_or_else(|| Path::new("."));
        for file in config.files() {
            *file = base.join(&*file);
        }
        Ok(config)
    }

    /// What types alone can't say, as the path and the problem.
    fn check(&self) -> Result<(), (String, String)> {
        if self.envoys.is_empty() {
            return wrong("envoys", "at least one Envoy", "none");
        }
        if self.max_lease.is_zero() || self.max_lease > Duration::from_hours(1) {
            let found = format!("{:?}", self.max_lease);
            return wrong("max_lease", "more than zero, at most 1h", &found);
        }
        for (index, issuer) in self.issuers.iter().enumerate() {
            let at = format!("issuers[{index}]");
            let mut earlier = self.issuers.iter().take(index);
            if earlier.any(|other| other.issuer == issuer.issuer) {
                let expected = "a name that no other issuer has";
                return wrong(&format!("{at}.issuer"), expected, &issuer.issuer);
            }
            issuer.check(&at)?;
        }
        let Limits {
            connections,
            exchanges,
            exchanges_per_second,
            body_bytes,
            ..
        } = self.limits;
        if connections == 0 || exchanges == 0 || exchanges_per_second == 0 || body_bytes == 0 {
            return wrong("limits", "limits above zero", "a zero");
        }
        Ok(())
    }

    fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let issuers = self
            .issuers
            .iter_mut()
            .flat_map(|issuer| issuer.jwks_file.iter_mut().chain(issuer.ca_file.iter_mut()));
        let audit = match &mut self.audit {
            Audit::Stdout => None,
            Audit::File(path) => Some(path),
        };
        let tls = &mut self.tls;
        [
            &mut tls.certificate,
            &mut tls.key,
            &mut tls.trust_bundle,
            &mut self.credentials,
        ]
        .into_iter()
        .chain(self.policy.iter_mut())
        .chain(issuers)
        .chain(audit)
    }
}

impl Issuer {
    fn check(&self, at: &str) -> Result<(), (String, String)> {
        if self.issuer.is_empty() {
            return wrong(
                &format!("{at}.issuer"),
                "the `iss` of its tokens",
                "an empty text",
            );
        }
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            return wrong(&format!("{at}.audiences"), "at least one audience", "none");
        }
        if self.jwks_uri.is_some() == self.jwks_file.is_some() {
            return wrong(at, "one of `jwks_uri` and `jwks_file`", "both or neither");
        }
        if self
            .jwks_uri
            .as_ref()
            .is_some_and(|uri| !uri.starts_with("https://"))
        {
            return wrong(
                &format!("{at}.jwks_uri"),
                "an https address",
                "another scheme",
            );
        }
        let at = format!("{at}.algorithms");
        if self.algorithms.is_empty() {
            return wrong(&at, "at least one algorithm", "none");
        }
        match self
            .algorithms
            .iter()
            .find(|algorithm| is_symmetric(**algorithm))
        {
            Some(weak) => wrong(&at, "asymmetric algorithms", &format!("{weak:?}")),
            None => Ok(()),
        }
    }
}

fn wrong(at: &str, expected: &str, found: &str) -> Result<(), (String, String)> {
    Err((at.to_owned(), format!("expected {expected}, found {found}")))
}

const fn is_symmetric(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}

const fn default_listen() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8443)
}

const fn default_admin_listen() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8444)
}

const fn default_max_lease() -> Duration {
    Duration::from_secs(900)
}

const fn default_clock_skew() -> Duration {
    Duration::from_secs(30)
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![
        Algorithm::RS256,
        Algorithm::ES256,
        Algorithm::PS256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ]
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|span| Duration::try_from(span).ok())
        .ok_or_else(|| {
            D::Error::custom(format!("expected a duration such as `15m`, found `{text}`"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let path = Path::new("/etc/almoner/broker.yaml");
        document::parse(path, text)
            .and_then(|document| Config::from_document(path, document))
            .map_err(|error| error.to_string())
    }

    const SMALL: &str = "
tls: { certificate: a.pem, key: b.pem, trust_bundle: /c.pem }
credentials: keys.yaml
envoys: [{ id: 'spiffe://prod.example/envoy', speaks_for: self }]
";

    #[test]
    fn needs_little_and_starts_paths_at_the_file() {
        let config = read(SMALL).expect("accepted");
        assert_eq!(config.tls.certificate, Path::new("/etc/almoner/a.pem"));
        assert_eq!(config.tls.trust_bundle, Path::new("/c.pem"));
        assert_eq!(config.max_lease, Duration::from_secs(900));
        assert!(config.listen.ip().is_loopback() && config.admin_listen.ip().is_loopback());
        assert!(matches!(config.audit, Audit::Stdout));
    }

    #[test]
    fn the_shipped_example_says_what_the_code_defaults_to() {
        let example = read(EXAMPLE).expect("accepted");
        let small = read(SMALL).expect("accepted");
        let shown = |config: &Config| {
            let Config {
                listen,
                admin_listen,
                audit,
                max_lease,
                limits,
                ..
            } = config;
            format!("{listen} {admin_listen} {audit:?} {max_lease:?} {limits:?}")
        };
        assert_eq!(shown(&example), shown(&small));
        assert_eq!(example.issuers[0].algorithms, default_algorithms());
        assert_eq!(example.issuers[0].clock_skew, default_clock_skew());
    }

    #[test]
    fn refuses_what_it_does_not_know_or_can_not_mean() {
        let issuer = "issuers: [{issuer: i, audiences: [a], jwks_file: f, ";
        for (line, expected) in [
            (
                "listens: 1.2.3.4:5",
                "unknown field `listens`, expected one of `listen`",
            ),
            (
                "max_lease: 2h",
                "max_lease: expected more than zero, at most 1h, found 7200s",
            ),
            (
                "max_lease: 15",
                "max_lease: invalid type: integer `15`, expected a string",
            ),
            (
                "max_lease: soon",
                "max_lease: expected a duration such as `15m`, found `soon`",
            ),
            (
                "issuers: [{issuer: i, audiences: []}]",
                "issuers[0].audiences: expected at least one audience, found none",
            ),
            (
                "issuers: [{issuer: i, audiences: [a], jwks_uri: 'http://i/keys'}]",
                "issuers[0].jwks_uri: expected an https address, found another scheme",
            ),
            (
                &format!("{issuer} jwks_uri: 'https://i/keys'}}]"),
                "issuers[0]: expected one of `jwks_uri` and `jwks_file`, found both or neither",
            ),
            (
                &format!("{issuer} algorithms: [RS256, HS256]}}]"),
                "issuers[0].algorithms: expected asymmetric algorithms, found HS256",
            ),
            (
                &format!("{issuer} algorithms: [none]}}]"),
                "issuers[0].algorithms[0]: unknown variant `none`",
            ),
        ] {
            let refused = read(&format!("{SMALL}\n{line}")).expect_err("refused");
            assert!(refused.contains(expected), "{refused}\n{expected}");
        }
        let refused = read(&SMALL.replace("self", "everyone")).expect_err("refused");
        assert!(
            refused.contains("envoys[0].speaks_for: expected `self` or a list"),
            "{refused}"
        );
    }
}
