//! The policy document as it is written: takes JSON, gives its plain structure.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use crate::api::{Api, Endpoint};

/// The whole document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) identity: Identity,
    pub(super) providers: Named<Provider>,
    pub(super) broker: Broker,
    #[serde(default)]
    pub(super) budgets: Named<Budget>,
    pub(super) policies: Vec<Policy>,
    #[serde(default)]
    pub(super) network: Network,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    #[serde(default)]
    pub(super) require: Require,
    pub(super) sources: Vec<Source>,
}

/// How several identity sources combine.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Require {
    /// Each source must hold; the first one names the subject.
    All,
    /// The first source that is present decides; present but bad is refused, never the next tried.
    #[default]
    Any,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Source {
    Jwt(Jwt),
    Mtls(Mtls),
    Proxy(Proxy),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    pub(super) slots: Vec<Slot>,
    #[serde(default = "default_subject_claim")]
    pub(super) subject: String,
    pub(super) audience: String,
}

fn default_subject_claim() -> String {
    "sub".to_owned()
}

/// A request header in which a workload may present its token; one `jwt_authn` provider each.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    /// `api-key`, where Azure's SDKs put a key.
    ApiKey,
    /// `authorization: Bearer`, where OpenAI's SDKs put a key.
    Authorization,
    /// `x-api-key`, where Anthropic's SDKs put a key.
    XApiKey,
    /// `x-goog-api-key`, where Google's SDKs put a key.
    XGoogApiKey,
}

impl Slot {
    /// The header's name; also the key under which `jwt_authn` leaves the token's payload.
    #[must_use]
    pub const fn header(self) -> &'static str {
        match self {
            Self::ApiKey => "api-key",
            Self::Authorization => "authorization",
            Self::XApiKey => "x-api-key",
            Self::XGoogApiKey => "x-goog-api-key",
        }
    }

    /// The key under which `jwt_authn` leaves why the slot's token was not verified.
    #[must_use]
    pub const fn failure_key(self) -> &'static str {
        match self {
            Self::ApiKey => "api-key_failed",
            Self::Authorization => "authorization_failed",
            Self::XApiKey => "x-api-key_failed",
            Self::XGoogApiKey => "x-goog-api-key_failed",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mtls {
    pub(super) trust_domains: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proxy {
    pub(super) subject: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) api: Api,
    #[serde(rename = "match")]
    pub(super) matches: Match,
    pub(super) clusters: Vec<String>,
    #[serde(default)]
    pub(super) base_path: Option<String>,
    #[serde(default)]
    pub(super) state: StateAccess,
    #[serde(default)]
    pub(super) pass_headers: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    #[serde(default)]
    pub(super) authority: Option<String>,
    #[serde(default)]
    pub(super) path_prefix: Option<String>,
}

/// What may be done with things that the provider keeps for an account (responses, files, ...).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum StateAccess {
    /// Nothing: on a shared account they are another tenant's.
    #[default]
    None,
    /// Anything: the credential is shared by no other subject.
    Own,
    /// Anything, although subjects share the account: accepted in writing.
    Shared,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Broker {
    pub(super) cluster: String,
    #[serde(default)]
    pub(super) authority: Option<String>,
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) timeout: Option<String>,
    #[serde(default)]
    pub(super) scope: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    pub(super) unit: String,
    pub(super) limit: u64,
    pub(super) window: String,
    #[serde(default)]
    pub(super) per: Per,
    #[serde(default)]
    pub(super) subjects: Option<u32>,
}

/// Whose spending a budget adds up.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Everybody's together.
    All,
    /// Each policy's on its own.
    Policy,
    /// Each provider's on its own.
    Provider,
    /// Each subject's on its own.
    #[default]
    Subject,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) name: String,
    #[serde(default)]
    pub(super) owner: Option<String>,
    #[serde(default)]
    pub(super) team: Option<String>,
    #[serde(default)]
    pub(super) on_call: Option<String>,
    #[serde(default)]
    pub(super) environment: Option<String>,
    pub(super) subjects: Vec<String>,
    pub(super) allow: Vec<Allow>,
    #[serde(default)]
    pub(super) conditions: Conditions,
    #[serde(default)]
    pub(super) max_output_tokens: Option<u64>,
    #[serde(default)]
    pub(super) max_stream_duration: Option<String>,
    #[serde(default)]
    pub(super) budgets: Vec<String>,
    #[serde(default)]
    pub(super) mode: Mode,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allow {
    pub(super) providers: Vec<String>,
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub(super) models: Vec<String>,
    #[serde(default)]
    pub(super) tools: Vec<String>,
    #[serde(default)]
    pub(super) betas: Vec<String>,
    #[serde(default)]
    pub(super) service_tiers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Conditions {
    #[serde(default)]
    pub(super) countries: Option<Vec<String>>,
    #[serde(default)]
    pub(super) cidrs: Option<Vec<String>>,
    #[serde(default)]
    pub(super) utc_hours: Option<[u8; 2]>,
    #[serde(default)]
    pub(super) claims: BTreeMap<String, String>,
}

/// Whether a policy refuses, or only says what it would have refused.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuses.
    #[default]
    Enforce,
    /// Decides and records; lets policy, conditions and budgets pass, and nothing else.
    Observe,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    #[serde(default)]
    pub(super) country_header: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    #[serde(default)]
    pub(super) max_body_bytes: Option<u64>,
    #[serde(default)]
    pub(super) body_timeout: Option<String>,
    #[serde(default)]
    pub(super) leases: Option<u32>,
}

/// A JSON object whose keys are names: in the order of the document, a name only once.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

struct NamedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object whose keys are names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<(String, T)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, T>()? {
            if entries.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!(
                    "expected each name once, found `{name}` twice"
                )));
            }
            entries.push((name, value));
        }
        Ok(Named(entries))
    }
}
