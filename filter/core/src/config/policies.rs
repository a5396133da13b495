//! The `policies` of a document: checks them against the names that the rest of it defines.

use std::{collections::BTreeSet, time::Duration};

use ipnet::IpNet;

use super::{
    Allow, Budget, Conditions, ConfigError, Identity, Network, Policy, Provider, Source, document,
    resolve::{duration, name},
};
use crate::{api::Class, glob::Glob, reservation::Unit, spiffe::is_trust_domain, units::Tokens};

/// What policies may refer to.
pub(super) struct Names<'a> {
    pub(super) identity: &'a Identity,
    pub(super) network: &'a Network,
    pub(super) providers: &'a [Provider],
    pub(super) budgets: &'a [Budget],
}

/// Gives the policies in their order, and a warning for each that can never decide.
pub(super) fn resolve(
    written: Vec<document::Policy>,
    names: &Names<'_>,
) -> Result<(Vec<Policy>, Vec<String>), ConfigError> {
    let mut policies: Vec<Policy> = Vec::new();
    let mut warnings = Vec::new();
    if written.is_empty() {
        return Err(ConfigError::at("policies", "at least one", "none"));
    }
    for (at, policy) in written.into_iter().enumerate() {
        let path = format!("policies[{at}]");
        let policy = one(&path, policy, names)?;
        if policies.iter().any(|other| other.name == policy.name) {
            return Err(ConfigError::value(
                format!("{path}.name"),
                "a name of its own",
                &policy.name,
            ));
        }
        if let Some(earlier) = shadowed_by(&policy, &policies) {
            warnings.push(format!(
                "{path}: `{}` never decides, because `{earlier}` above it matches all its subjects",
                policy.name
            ));
        }
        policies.push(policy);
    }
    Ok((policies, warnings))
}

fn one(path: &str, written: document::Policy, names: &Names<'_>) -> Result<Policy, ConfigError> {
    let allow = written
        .allow
        .into_iter()
        .enumerate()
        .map(|(at, allow)| one_allow(&format!("{path}.allow[{at}]"), allow, names))
        .collect::<Result<Vec<_>, _>>()?;
    let budgets = budget_positions(path, &written.budgets, names)?;
    if let Some(0) = written.max_output_tokens {
        return Err(ConfigError::value(
            format!("{path}.max_output_tokens"),
            "at least 1",
            "0",
        ));
    }
    let counts_output = budgets
        .iter()
        .filter_map(|at| names.budgets.get(*at))
        .find(|budget| matches!(budget.unit, Unit::OutputTokens | Unit::Tokens));
    if let (None, Some(budget)) = (written.max_output_tokens, counts_output) {
        return Err(ConfigError::at(
            format!("{path}.max_output_tokens"),
            &format!(
                "a number, because budget `{}` reserves the output before it comes",
                budget.name
            ),
            "none",
        ));
    }
    Ok(Policy {
        name: name(&format!("{path}.name"), &written.name)?,
        owner: written.owner,
        team: written.team,
        on_call: written.on_call,
        environment: written.environment,
        subjects: subjects(&format!("{path}.subjects"), &written.subjects)?,
        allow,
        conditions: conditions(&format!("{path}.conditions"), written.conditions, names)?,
        max_output_tokens: written.max_output_tokens.map(Tokens),
        max_stream_duration: duration(
            &format!("{path}.max_stream_duration"),
            written.max_stream_duration.as_deref(),
            Duration::from_mins(15),
            (Duration::from_secs(1), Duration::from_hours(6)),
        )?,
        budgets,
        mode: written.mode,
    })
}

fn budget_positions(
    path: &str,
    written: &[String],
    names: &Names<'_>,
) -> Result<Vec<usize>, ConfigError> {
    let mut seen = BTreeSet::new();
    for key in written {
        let path = format!("{path}.budgets");
        let Some(position) = names.budgets.iter().position(|budget| budget.name == *key) else {
            return Err(ConfigError::value(path, "the name of a budget", key));
        };
        if !seen.insert(position) {
            return Err(ConfigError::value(path, "each budget once", key));
        }
    }
    Ok(seen.into_iter().collect())
}

fn one_allow(
    path: &str,
    written: document::Allow,
    names: &Names<'_>,
) -> Result<Allow, ConfigError> {
    let mut apis = BTreeSet::new();
    for key in &written.providers {
        let Some(provider) = names
            .providers
            .iter()
            .find(|provider| provider.name == *key)
        else {
            return Err(ConfigError::value(
                format!("{path}.providers"),
                "the name of a provider",
                key,
            ));
        };
        apis.insert(provider.api);
    }
    if written.providers.is_empty() {
        return Err(ConfigError::at(
            format!("{path}.providers"),
            "at least one",
            "none",
        ));
    }
    if written.endpoints.is_empty() {
        return Err(ConfigError::at(
            format!("{path}.endpoints"),
            "at least one",
            "none",
        ));
    }
    for endpoint in &written.endpoints {
        let path = format!("{path}.endpoints");
        if !apis.iter().any(|api| endpoint.is_of(*api)) {
            return Err(ConfigError::value(
                path,
                "an endpoint that one of the line's providers has",
                endpoint.name(),
            ));
        }
    }
    if written.models.is_empty()
        && written
            .endpoints
            .iter()
            .any(|e| e.class() == Class::Metered)
    {
        return Err(ConfigError::at(
            format!("{path}.models"),
            "at least one model, or `**` for all, because the endpoints take one",
            "none",
        ));
    }
    Ok(Allow {
        providers: written.providers,
        endpoints: written.endpoints,
        models: globs(&written.models),
        tools: globs(&written.tools),
        betas: globs(&written.betas),
        service_tiers: globs(&written.service_tiers),
    })
}

fn globs(written: &[String]) -> Vec<Glob> {
    written.iter().map(|text| Glob::new(text)).collect()
}

/// A subject pattern must say of which kind it is, and leave no doubt who vouches for it: no star
/// in the trust domain or the issuer.
fn subjects(path: &str, written: &[String]) -> Result<Vec<Glob>, ConfigError> {
    const EXPECTED: &str = "`spiffe://<trust domain>/...` or `jwt:<issuer>|<sub>`, without a star before the path or the `|`";
    if written.is_empty() {
        return Err(ConfigError::at(path, "at least one subject", "none"));
    }
    for text in written {
        let fits = if let Some(rest) = text.strip_prefix("spiffe://") {
            rest.split_once('/')
                .is_some_and(|(domain, _)| is_trust_domain(domain))
        } else if let Some(rest) = text.strip_prefix("jwt:") {
            rest.split_once('|').is_some_and(|(issuer, sub)| {
                !issuer.is_empty() && !issuer.contains('*') && !sub.is_empty() && !sub.contains('|')
            })
        } else {
            false
        };
        if !fits || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::value(path, EXPECTED, text));
        }
    }
    Ok(globs(written))
}

fn conditions(
    path: &str,
    written: document::Conditions,
    names: &Names<'_>,
) -> Result<Conditions, ConfigError> {
    if let Some(countries) = &written.countries {
        let path = format!("{path}.countries");
        if names.network.country_header.is_none() {
            return Err(ConfigError::at(
                path,
                "`network.country_header`, which says where Envoy's geoip filter writes the country",
                "none",
            ));
        }
        let wrong = countries
            .iter()
            .find(|code| code.len() != 2 || !code.bytes().all(|b| b.is_ascii_uppercase()));
        if let Some(code) = wrong {
            return Err(ConfigError::value(
                path,
                "ISO 3166-1 codes such as `DE`",
                code,
            ));
        }
    }
    let cidrs = written
        .cidrs
        .map(|list| {
            list.iter()
                .map(|text| {
                    text.parse::<IpNet>().map_err(|_| {
                        ConfigError::value(
                            format!("{path}.cidrs"),
                            "a network such as `10.0.0.0/8`",
                            text,
                        )
                    })
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .transpose()?;
    if let Some([from, to]) = written.utc_hours
        && (from > 23 || to > 24 || from == to)
    {
        return Err(ConfigError::value(
            format!("{path}.utc_hours"),
            "two different hours from 0 to 24, such as `[6, 22]`",
            &format!("[{from}, {to}]"),
        ));
    }
    let has_tokens = names
        .identity
        .sources
        .iter()
        .any(|s| matches!(s, Source::Jwt { .. }));
    if !written.claims.is_empty() && !has_tokens {
        return Err(ConfigError::at(
            format!("{path}.claims"),
            "a `jwt` source in `identity`",
            "none",
        ));
    }
    Ok(Conditions {
        countries: written.countries,
        cidrs,
        utc_hours: written.utc_hours.map(|[from, to]| (from, to)),
        claims: written
            .claims
            .into_iter()
            .map(|(name, text)| (name, Glob::new(&text)))
            .collect(),
    })
}

fn shadowed_by<'a>(policy: &Policy, earlier: &'a [Policy]) -> Option<&'a str> {
    earlier
        .iter()
        .find(|other| {
            policy
                .subjects
                .iter()
                .all(|narrow| other.subjects.iter().any(|wide| wide.covers(narrow)))
        })
        .map(|other| other.name.as_str())
}
