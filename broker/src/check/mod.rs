//! The configuration check: takes a policy document and an Envoy bootstrap, gives findings.
//!
//! What Almoner promises rests on settings that it can't see from inside Envoy: that client
//! certificates are verified, that a token is forwarded, that a route neither mirrors nor retries,
//! that a rewrite is the one which the policy was written for. Each check is one small function,
//! listed in [`CHECKS`].

mod bootstrap;
mod clusters;
mod finding;
mod identity;
mod jwt;
mod listeners;
mod node;
mod place;
mod plugin;
mod routes;

use std::path::Path;

use almoner_core::config::Config;
use serde_json::Value;
use thiserror::Error;

pub use self::finding::{Finding, Report, Severity};
use self::{bootstrap::Bootstrap, finding::Findings, node::Node};
use crate::{
    document::{self, DocumentError},
    policy::{Policies, PolicyError},
};

/// What a check sees.
struct World<'a> {
    policy: &'a Config,
    envoy: &'a Bootstrap<'a>,
}

type Check = fn(&World<'_>, &mut Findings<'_>);

/// Every check of an Envoy configuration, by the name that its findings carry.
const CHECKS: &[(&str, Check)] = &[
    ("plugin", plugin::present),
    ("same-policy", plugin::same_policy),
    ("hold-mode", plugin::hold_mode),
    ("reload", plugin::reload),
    ("capabilities", plugin::capabilities),
    ("disabled", plugin::never_disabled),
    ("order", plugin::order),
    ("mtls", identity::mtls),
    ("loopback", identity::loopback),
    ("jwt-slots", jwt::slots),
    ("jwt-requirement", jwt::requirement),
    ("country", place::country),
    ("address", place::address),
    ("buffer-limit", listeners::buffer_limit),
    ("idle-timeout", listeners::idle_timeout),
    ("normal-path", listeners::normal_path),
    ("record", listeners::record),
    ("admin", listeners::admin),
    ("unseen", listeners::unseen),
    ("cluster", clusters::known),
    ("chosen-by-caller", clusters::chosen_by_caller),
    ("provider-tls", clusters::provider_tls),
    ("broker-tls", clusters::broker_tls),
    ("route", routes::target),
    ("rewrite", routes::rewrite),
    ("retry", routes::retries),
    ("copies", routes::copies),
];

/// Why nothing could be checked.
#[derive(Debug, Error)]
pub enum CheckError {
    /// A file can't be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Neither a policy document nor an Envoy configuration that holds one.
    #[error("expected a policy document: name POLICY, or an --envoy FILE whose plugin has one")]
    NoPolicy,
}

/// Checks a policy document, and the Envoy configuration around it. Without a document the one in
/// the Envoy configuration is taken.
///
/// # Errors
/// [`CheckError`]: where there is nothing to check. What is wrong with a document is a finding.
pub fn run(policy: Option<&Path>, envoy: Option<&Path>) -> Result<Report, CheckError> {
    let envoy_value = envoy.map(document::read).transpose()?;
    let bootstrap = envoy_value
        .as_ref()
        .map(|value| Bootstrap::new(Node::root(value)));
    let document = match (policy, &bootstrap) {
        (Some(path), _) => document::read(path)?,
        (None, Some(bootstrap)) => bootstrap.embedded_policy().ok_or(CheckError::NoPolicy)?,
        (None, None) => return Err(CheckError::NoPolicy),
    };
    let name = policy.or(envoy).unwrap_or_else(|| Path::new("policy"));
    Ok(check(name, &document, bootstrap.as_ref()))
}

fn check(name: &Path, document: &Value, bootstrap: Option<&Bootstrap<'_>>) -> Report {
    let mut report = Report::default();
    let policies = match Policies::from_value(name, document) {
        Ok(policies) => policies,
        Err(PolicyError::Refused { source, .. }) => {
            report.refused_policy(&source);
            return report;
        }
        Err(PolicyError::Document(error)) => {
            report.refused_policy(&error);
            return report;
        }
    };
    let policy = policies.config();
    report.warn_about_policy(&policy.warnings);
    if let Some(envoy) = bootstrap {
        let world = World { policy, envoy };
        for (name, check) in CHECKS {
            check(&world, &mut report.of(name));
        }
    }
    report
}

#[cfg(test)]
mod tests;
