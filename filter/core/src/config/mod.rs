//! The policy document: takes its JSON, gives an immutable [`Config`], or says where it is wrong.
//!
//! Reading is all or nothing: an unknown field, an unknown name, an impossible value or two
//! providers that could claim one request refuse the whole document, with the path, what was
//! expected and what was found. The broker and the command line read the same document here.

mod document;
mod error;
mod policies;
mod resolve;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

pub use self::{
    document::{Mode, Per, Require, Slot, StateAccess},
    error::ConfigError,
};
use crate::{
    api::{Api, Endpoint},
    glob::Glob,
    head::headers::PassHeaders,
    reservation::{self, OwnerId, Owners, Unit, Window},
    units::Tokens,
};

/// Everything that the operator decided, checked and ready to be asked.
#[derive(Debug)]
pub struct Config {
    /// Part of each key in shared data, so that two configurations can stand beside each other.
    pub namespace: String,
    /// Of the document's meaning: white space and the order of keys don't change it.
    pub digest: PolicyDigest,
    /// [`PolicyDigest::short`], as every record shows it.
    pub digest_name: String,
    /// How callers prove who they are.
    pub identity: Identity,
    /// Whom requests may go to.
    pub providers: Vec<Arc<Provider>>,
    /// In the document's order; a [`Policy`] refers to them by position.
    pub budgets: Vec<Budget>,
    /// In the document's order: the first whose subjects match decides alone.
    pub policies: Vec<Arc<Policy>>,
    /// Where credentials come from.
    pub broker: Broker,
    /// What is known about where callers are.
    pub network: Network,
    /// Bounds on what one Envoy holds.
    pub limits: Limits,
    /// What is allowed but hardly meant, a line each.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads a document.
    ///
    /// # Errors
    /// The first thing found wrong; nothing of the document is in force then.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let written = error::read(json)?;
        resolve::resolve(written, PolicyDigest::of(json)?)
    }

    /// The budgets as a ledger keeps them, in the same order.
    #[must_use]
    pub fn ledger_budgets(&self) -> Vec<reservation::Budget> {
        let policies = || {
            self.policies
                .iter()
                .map(|policy| OwnerId::policy(&policy.name))
        };
        let providers = || {
            self.providers
                .iter()
                .map(|provider| OwnerId::provider(&provider.name))
        };
        let budgets = self.budgets.iter().map(|budget| reservation::Budget {
            name: budget.name.clone(),
            unit: budget.unit,
            limit: budget.limit,
            window: budget.window,
            owners: match budget.per {
                Per::All => Owners::Listed(vec![OwnerId::all()]),
                Per::Policy => Owners::Listed(policies().collect()),
                Per::Provider => Owners::Listed(providers().collect()),
                Per::Subject => Owners::Table(budget.owners),
            },
        });
        budgets.collect()
    }
}

/// SHA-256 of the document in canonical form (keys sorted, no white space).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PolicyDigest(pub [u8; 32]);

impl PolicyDigest {
    fn of(json: &[u8]) -> Result<Self, ConfigError> {
        let value: serde_json::Value =
            serde_json::from_slice(json).map_err(|e| ConfigError::json(&e))?;
        Ok(Self(Sha256::digest(value.to_string().as_bytes()).into()))
    }

    /// The first 16 hexadecimal digits, as records show them.
    #[must_use]
    pub fn short(&self) -> String {
        self.0
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// How callers prove who they are.
#[derive(Debug)]
pub struct Identity {
    /// How several sources combine.
    pub require: Require,
    /// Tried in this order; at most one of a kind.
    pub sources: Vec<Source>,
}

/// One way of proving an identity.
#[derive(Debug)]
pub enum Source {
    /// A token that `jwt_authn` verified.
    Jwt {
        /// Where it may stand; the first verified one decides.
        slots: Vec<Slot>,
        /// The claim that names the subject.
        subject: String,
        /// Must be among the token's `aud`.
        audience: String,
    },
    /// The SPIFFE ID of a client certificate that the listener verified.
    Mtls {
        /// The trust domains that may speak.
        trust_domains: Vec<String>,
    },
    /// This Envoy's own identity, for every caller: a sidecar's loopback listener.
    Proxy {
        /// The SPIFFE ID, in pieces.
        subject: Vec<Piece>,
        /// The same with what this Envoy's node says, once a request has asked: a node never changes.
        bound: OnceLock<String>,
    },
}

/// A piece of a `proxy` subject.
#[derive(Debug, Eq, PartialEq)]
pub enum Piece {
    /// Text as it stands.
    Literal(String),
    /// A field of the Envoy node's metadata.
    NodeMetadata(String),
}

/// Whom requests may go to.
#[derive(Debug)]
pub struct Provider {
    /// As the document, the metrics and the broker's `audience` say it.
    pub name: String,
    /// The grammar that it speaks.
    pub api: Api,
    /// Lower-case host that requests for it name, where it is matched by that.
    pub authority: Option<String>,
    /// Without a slash at its end; empty where the provider is matched by authority alone.
    pub path_prefix: String,
    /// What the route puts in the prefix's place, without a slash at its end.
    pub base_path: String,
    /// The only clusters that its credential may go to.
    pub clusters: Vec<String>,
    /// What may be done with things that it keeps.
    pub state: StateAccess,
    /// Request headers that go up beyond the API's own.
    pub pass_headers: PassHeaders,
}

/// A limit in a unit per window.
#[derive(Debug)]
pub struct Budget {
    /// As the document, metrics and records say it.
    pub name: String,
    /// What is counted.
    pub unit: Unit,
    /// How much may be spent within a window.
    pub limit: u64,
    /// The period.
    pub window: Window,
    /// Whose spending is added up.
    pub per: Per,
    /// Places for owners in shared data, made when the configuration loads.
    pub owners: u32,
}

/// What some subjects may do.
#[derive(Debug)]
pub struct Policy {
    /// As the document, metrics and records say it.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The owner's team.
    pub team: Option<String>,
    /// Who is woken.
    pub on_call: Option<String>,
    /// Such as `prod`.
    pub environment: Option<String>,
    /// Whom it is about.
    pub subjects: Vec<Glob>,
    /// What they may do: any one suffices.
    pub allow: Vec<Allow>,
    /// Under what conditions.
    pub conditions: Conditions,
    /// Set where the request names none; larger ones are refused.
    pub max_output_tokens: Option<Tokens>,
    /// After this a stream is ended, and its reservation is over.
    pub max_stream_duration: Duration,
    /// Positions in [`Config::budgets`].
    pub budgets: Vec<usize>,
    /// Whether it refuses.
    pub mode: Mode,
}

/// One line of what a policy allows.
#[derive(Debug)]
pub struct Allow {
    /// Names of providers.
    pub providers: Vec<String>,
    /// What may be called.
    pub endpoints: Vec<Endpoint>,
    /// With which models.
    pub models: Vec<Glob>,
    /// Server-side tools that may be named in a request.
    pub tools: Vec<Glob>,
    /// Beta flags that may be set.
    pub betas: Vec<Glob>,
    /// Service tiers that may be asked for.
    pub service_tiers: Vec<Glob>,
}

/// What else must be so. One that is unknown has failed.
#[derive(Debug, Default)]
pub struct Conditions {
    /// ISO 3166-1 alpha-2.
    pub countries: Option<Vec<String>>,
    /// The caller's address is in one of them.
    pub cidrs: Option<Vec<IpNet>>,
    /// From the first hour on, before the second; over midnight where the second is smaller.
    pub utc_hours: Option<(u8, u8)>,
    /// Each claim of the token must match.
    pub claims: Vec<(String, Glob)>,
}

/// Where credentials come from: an RFC 8693 token endpoint behind a cluster of this Envoy.
#[derive(Debug)]
pub struct Broker {
    /// The cluster, which must present this Envoy's certificate.
    pub cluster: String,
    /// Sent as `:authority`.
    pub authority: String,
    /// Sent as `:path`.
    pub path: String,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The OAuth scope that is asked for.
    pub scope: Option<String>,
}

/// What is known about where callers are.
#[derive(Debug)]
pub struct Network {
    /// The header that Envoy's geoip filter writes, and that nothing else may.
    pub country_header: Option<String>,
}

/// Bounds on what one Envoy holds.
#[derive(Debug)]
pub struct Limits {
    /// Larger request bodies are refused.
    pub max_body_bytes: u64,
    /// A request whose body is not complete by then is refused.
    pub body_timeout: Duration,
    /// Leases per worker.
    pub leases: usize,
}

#[cfg(test)]
mod tests;
