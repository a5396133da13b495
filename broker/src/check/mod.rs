//! The configuration check: takes a policy document and an Envoy bootstrap, gives findings.
//!
//! What Almoner promises rests on settings that it can't see from inside Envoy: that client
//! certificates are verified, that a token is forwarded, that a route neither mirrors nor retries,
//! that a rewrite is the one which the policy was written for. Each check is one small function,
//! listed in `CHECKS`.

mod bootstrap;
mod clusters;
mod finding;
mod identity;
mod jwt;
mod listeners;
mod node;
mod patches;
mod place;
mod plugin;
mod routes;

use std::path::{Path, PathBuf};

use almoner_core::config::Config;
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

/// What a check needs to see.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    /// The plugin and what stands around it: what patches of a mesh put into Envoy.
    Patches,
    /// The rest too, which a mesh makes by itself: TLS of listeners, routes, clusters.
    Whole,
}

/// Every check of an Envoy configuration, by the name that its findings carry.
const CHECKS: &[(&str, Needs, Check)] = &[
    ("plugin", Needs::Patches, plugin::present),
    ("same-policy", Needs::Patches, plugin::same_policy),
    ("hold-mode", Needs::Patches, plugin::hold_mode),
    ("reload", Needs::Patches, plugin::reload),
    ("capabilities", Needs::Patches, plugin::capabilities),
    ("disabled", Needs::Patches, plugin::never_disabled),
    ("order", Needs::Patches, plugin::order),
    ("mtls", Needs::Whole, identity::mtls),
    ("loopback", Needs::Whole, identity::loopback),
    ("jwt-slots", Needs::Patches, jwt::slots),
    ("jwt-requirement", Needs::Patches, jwt::requirement),
    ("country", Needs::Patches, place::country),
    ("address", Needs::Patches, place::address),
    ("buffer-limit", Needs::Patches, listeners::buffer_limit),
    ("idle-timeout", Needs::Patches, listeners::idle_timeout),
    ("normal-path", Needs::Patches, listeners::normal_path),
    ("record", Needs::Patches, listeners::record),
    ("admin", Needs::Whole, listeners::admin),
    ("unseen", Needs::Patches, listeners::unseen),
    ("cluster", Needs::Whole, clusters::known),
    (
        "chosen-by-caller",
        Needs::Patches,
        clusters::chosen_by_caller,
    ),
    ("provider-tls", Needs::Patches, clusters::provider_tls),
    ("broker-tls", Needs::Patches, clusters::broker_tls),
    ("route", Needs::Whole, routes::target),
    ("steady-route", Needs::Patches, routes::steady),
    ("rewrite", Needs::Whole, routes::rewrite),
    ("retry", Needs::Whole, routes::retries),
    ("copies", Needs::Whole, routes::copies),
];

/// Why nothing could be checked.
#[derive(Debug, Error)]
pub enum CheckError {
    /// A file can't be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Several documents, and none is a resource that patches Envoy.
    #[error("{}: expected an Envoy bootstrap, or Kubernetes resources with an EnvoyFilter or \
             EnvoyPatchPolicy", .0.display())]
    NotEnvoy(PathBuf),
    /// Neither a policy document nor an Envoy configuration that holds one.
    #[error("expected a policy document: name POLICY, or an --envoy FILE whose plugin has one")]
    NoPolicy,
}

/// Checks a policy document, and the Envoy configuration around it: a bootstrap, or the Kubernetes
/// resources that patch one. Without a document the one in the Envoy configuration is taken.
///
/// # Errors
/// [`CheckError`]: where there is nothing to check. What is wrong with a document is a finding.
pub fn run(policy: Option<&Path>, envoy: Option<&Path>) -> Result<Report, CheckError> {
    let documents = envoy
        .map(document::read_all)
        .transpose()?
        .unwrap_or_default();
    let patched = patches::apply(&documents);
    let bootstrap = match (envoy, &patched, documents.as_slice()) {
        (_, Some(patched), _) => Some(Bootstrap::patched(patched)),
        (Some(_), None, [only]) => Some(Bootstrap::new(Node::root(only))),
        (Some(path), None, _) => return Err(CheckError::NotEnvoy(path.to_owned())),
        (None, None, _) => None,
    };
    let text = match (policy, &bootstrap) {
        (Some(path), _) => document::read_text(path)?,
        (None, Some(bootstrap)) => bootstrap
            .embedded_policy()
            .ok_or(CheckError::NoPolicy)?
            .to_owned(),
        (None, None) => return Err(CheckError::NoPolicy),
    };
    let name = policy.or(envoy).unwrap_or_else(|| Path::new("policy"));
    Ok(check(name, &text, bootstrap.as_ref()))
}

fn check(name: &Path, policy: &str, bootstrap: Option<&Bootstrap<'_>>) -> Report {
    let mut report = Report::default();
    let policies = match Policies::parse(name, policy) {
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
        for (name, needs, check) in CHECKS {
            if envoy.unapplied.is_none() || *needs == Needs::Patches {
                check(&world, &mut report.of(name));
            }
        }
    }
    report
}

#[cfg(test)]
mod tests;
