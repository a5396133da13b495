//! From the document as it is written to what it means: checks every name and value on the way.

use std::{
    collections::BTreeSet,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    Broker, Budget, Config, ConfigError, Identity, Limits, Network, Piece, PolicyDigest, Provider,
    Source,
    document::{self, Document, Named, Per},
    policies,
};
use crate::{
    head::headers::PassHeaders,
    reservation::{Expected, Unit},
    spiffe::is_trust_domain,
};

const DEFAULT_BODY_LIMIT: u64 = 8 * 1024 * 1024;
const DEFAULT_LEASES: u32 = 10_000;
const DEFAULT_OWNERS: u32 = 10_000;
const MAX_OWNERS: u32 = 1_000_000;

/// Checks a document that was read, and gives what it means.
pub(super) fn resolve(written: Document, digest: PolicyDigest) -> Result<Config, ConfigError> {
    let identity = identity(written.identity)?;
    let network = Network {
        country_header: country_header(written.network)?,
    };
    let providers = providers(written.providers)?;
    let budgets = budgets(written.budgets)?;
    let (policies, warnings) = policies::resolve(
        written.policies,
        &policies::Names {
            identity: &identity,
            network: &network,
            providers: &providers,
            budgets: &budgets,
        },
    )?;
    Ok(Config {
        namespace: namespace(written.namespace)?,
        digest_name: digest.short(),
        digest,
        identity,
        providers: providers.into_iter().map(Arc::new).collect(),
        budgets,
        policies: policies.into_iter().map(Arc::new).collect(),
        broker: broker(written.broker)?,
        network,
        limits: limits(&written.limits)?,
        warnings,
    })
}

/// A name that may stand in keys, metrics and headers.
pub(super) fn name(path: &str, text: &str) -> Result<String, ConfigError> {
    let fits = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if fits {
        return Ok(text.to_owned());
    }
    Err(ConfigError::value(
        path,
        "1 to 63 of the characters `a-z A-Z 0-9 - _`",
        text,
    ))
}

/// `1m`, `500ms`, ... between two bounds.
pub(super) fn duration(
    path: &str,
    text: Option<&str>,
    default: Duration,
    bounds: (Duration, Duration),
) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    let expected = || {
        format!(
            "a duration such as `1m`, from {:?} to {:?}",
            bounds.0, bounds.1
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let parsed = text.split_at_checked(digits).and_then(|(number, unit)| {
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number
            .parse::<u64>()
            .ok()?
            .checked_mul(millis)
            .map(Duration::from_millis)
    });
    match parsed {
        Some(span) if span >= bounds.0 && span <= bounds.1 => Ok(span),
        _ => Err(ConfigError::value(path, &expected(), text)),
    }
}

fn namespace(written: Option<String>) -> Result<String, ConfigError> {
    name("namespace", written.as_deref().unwrap_or("almoner"))
}

fn identity(written: document::Identity) -> Result<Identity, ConfigError> {
    if written.sources.is_empty() {
        return Err(ConfigError::at(
            "identity.sources",
            "at least one source",
            "none",
        ));
    }
    let mut kinds = BTreeSet::new();
    let mut sources = Vec::new();
    for (at, source) in written.sources.into_iter().enumerate() {
        let path = format!("identity.sources[{at}]");
        let (kind, source) = match source {
            document::Source::Jwt(jwt) => ("jwt", jwt_source(&path, jwt)?),
            document::Source::Mtls(mtls) => ("mtls", mtls_source(&path, mtls)?),
            document::Source::Proxy(proxy) => ("proxy", proxy_source(&path, &proxy.subject)?),
        };
        if !kinds.insert(kind) {
            return Err(ConfigError::value(
                path,
                "at most one source of a kind",
                kind,
            ));
        }
        sources.push(source);
    }
    Ok(Identity {
        require: written.require,
        sources,
    })
}

fn jwt_source(path: &str, written: document::Jwt) -> Result<Source, ConfigError> {
    let mut seen = BTreeSet::new();
    if written.slots.is_empty() || !written.slots.iter().all(|slot| seen.insert(*slot)) {
        return Err(ConfigError::at(
            format!("{path}.jwt.slots"),
            "at least one slot, each once",
            "a slot twice or none",
        ));
    }
    for (field, text) in [
        ("subject", &written.subject),
        ("audience", &written.audience),
    ] {
        if text.is_empty() {
            return Err(ConfigError::value(
                format!("{path}.jwt.{field}"),
                "a text",
                text,
            ));
        }
    }
    Ok(Source::Jwt {
        slots: written.slots,
        subject: written.subject,
        audience: written.audience,
    })
}

fn mtls_source(path: &str, written: document::Mtls) -> Result<Source, ConfigError> {
    if written.trust_domains.is_empty() {
        return Err(ConfigError::at(
            format!("{path}.mtls.trust_domains"),
            "at least one",
            "none",
        ));
    }
    for domain in &written.trust_domains {
        if !is_trust_domain(domain) {
            return Err(ConfigError::value(
                format!("{path}.mtls.trust_domains"),
                "a trust domain such as `prod.example`",
                domain,
            ));
        }
    }
    Ok(Source::Mtls {
        trust_domains: written.trust_domains,
    })
}

fn proxy_source(path: &str, written: &str) -> Result<Source, ConfigError> {
    const EXPECTED: &str = "a SPIFFE ID such as `spiffe://prod.example/ns/{node.NAMESPACE}`";
    let wrong = || ConfigError::value(format!("{path}.proxy.subject"), EXPECTED, written);
    let rest = written.strip_prefix("spiffe://").ok_or_else(wrong)?;
    let domain = rest.split('/').next().unwrap_or("");
    if !is_trust_domain(domain) || rest.len() == domain.len() {
        return Err(wrong());
    }
    let mut subject = Vec::new();
    let mut rest = written;
    while let Some((literal, tail)) = rest.split_once('{') {
        let (field, tail) = tail.split_once('}').ok_or_else(wrong)?;
        let field = field
            .strip_prefix("node.")
            .filter(|f| !f.is_empty())
            .ok_or_else(wrong)?;
        subject.push(Piece::Literal(literal.to_owned()));
        subject.push(Piece::NodeMetadata(field.to_owned()));
        rest = tail;
    }
    subject.push(Piece::Literal(rest.to_owned()));
    Ok(Source::Proxy {
        subject,
        bound: OnceLock::new(),
    })
}

fn country_header(written: document::Network) -> Result<Option<String>, ConfigError> {
    match written.country_header {
        Some(header) if !is_header_name(&header) => Err(ConfigError::value(
            "network.country_header",
            "a lower-case header name such as `x-geo-country`",
            &header,
        )),
        header => Ok(header),
    }
}

fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

fn providers(written: Named<document::Provider>) -> Result<Vec<Provider>, ConfigError> {
    let mut providers: Vec<Provider> = Vec::new();
    for (key, provider) in written.0 {
        let path = format!("providers.{key}");
        let provider = one_provider(&path, &key, provider)?;
        if let Some(other) = providers.iter().find(|other| overlap(other, &provider)) {
            return Err(ConfigError::value(
                format!("{path}.match"),
                "requests that no other provider claims",
                &format!("some of providers.{}", other.name),
            ));
        }
        providers.push(provider);
    }
    if providers.is_empty() {
        return Err(ConfigError::at("providers", "at least one", "none"));
    }
    Ok(providers)
}

fn one_provider(
    path: &str,
    key: &str,
    written: document::Provider,
) -> Result<Provider, ConfigError> {
    if written.clusters.is_empty() || written.clusters.iter().any(String::is_empty) {
        return Err(ConfigError::at(
            format!("{path}.clusters"),
            "at least one cluster name",
            "none",
        ));
    }
    let path_prefix = prefix(
        &format!("{path}.match.path_prefix"),
        written.matches.path_prefix,
    )?;
    let authority = written.matches.authority;
    if path_prefix.is_empty() && authority.is_none() {
        return Err(ConfigError::at(
            format!("{path}.match"),
            "a `path_prefix` or an `authority`",
            "neither",
        ));
    }
    if let Some(host) = &authority
        && !(host.contains('.') && is_trust_domain(host))
    {
        return Err(ConfigError::value(
            format!("{path}.match.authority"),
            "a lower-case host name without a port",
            host,
        ));
    }
    let mut pass_headers = PassHeaders::default();
    for header in &written.pass_headers {
        pass_headers.insert(header).map_err(|error| ConfigError {
            path: format!("{path}.pass_headers"),
            problem: format!("{error}, found `{header}`"),
        })?;
    }
    Ok(Provider {
        name: name(path, key)?,
        api: written.api,
        authority,
        path_prefix,
        base_path: prefix(&format!("{path}.base_path"), written.base_path)?,
        clusters: written.clusters,
        state: written.state,
        pass_headers,
    })
}

/// A path prefix without its last slash: `/` and absent become empty.
fn prefix(path: &str, written: Option<String>) -> Result<String, ConfigError> {
    let Some(text) = written.filter(|text| text != "/") else {
        return Ok(String::new());
    };
    let fits = text.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|segment| {
            !segment.is_empty()
                && !matches!(segment, "." | "..")
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        })
    });
    if fits {
        return Ok(text);
    }
    Err(ConfigError::value(
        path,
        "a path such as `/openai`, without a slash at its end",
        &text,
    ))
}

/// Whether two providers match by the same kind of thing and could both claim one request. Where
/// one is matched by authority and the other by path alone, the request decides: one that fits
/// both is refused.
fn overlap(a: &Provider, b: &Provider) -> bool {
    let paths = within(&a.path_prefix, &b.path_prefix) || within(&b.path_prefix, &a.path_prefix);
    match (&a.authority, &b.authority) {
        (Some(x), Some(y)) => x == y && paths,
        (None, None) => paths,
        (Some(_), None) => !a.path_prefix.is_empty() && paths,
        (None, Some(_)) => !b.path_prefix.is_empty() && paths,
    }
}

/// Whether `path` is `prefix` or below it.
fn within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn budgets(written: Named<document::Budget>) -> Result<Vec<Budget>, ConfigError> {
    written
        .0
        .into_iter()
        .map(|(key, budget)| {
            let path = format!("budgets.{key}");
            if budget.limit == 0 {
                return Err(ConfigError::value(
                    format!("{path}.limit"),
                    "at least 1",
                    "0",
                ));
            }
            let unit = parsed(&format!("{path}.unit"), &budget.unit)?;
            if unit == Unit::MicroUsd {
                // Without prices it would count nothing, and let everything through.
                return Err(ConfigError::value(
                    format!("{path}.unit"),
                    "a unit that can be counted without prices, which there are none of yet",
                    &budget.unit,
                ));
            }
            let owners = match (budget.per, budget.subjects) {
                (Per::Subject, subjects) => subjects.unwrap_or(DEFAULT_OWNERS),
                (_, None) => 1,
                (_, Some(n)) => {
                    return Err(ConfigError::value(
                        format!("{path}.subjects"),
                        "nothing, because the budget is not `per: subject`",
                        &n.to_string(),
                    ));
                }
            };
            if owners == 0 || owners > MAX_OWNERS {
                return Err(ConfigError::value(
                    format!("{path}.subjects"),
                    "1 to 1000000",
                    &owners.to_string(),
                ));
            }
            Ok(Budget {
                name: name(&path, &key)?,
                unit,
                limit: budget.limit,
                window: parsed(&format!("{path}.window"), &budget.window)?,
                per: budget.per,
                owners,
            })
        })
        .collect()
}

fn parsed<T: FromStr<Err = Expected>>(path: &str, text: &str) -> Result<T, ConfigError> {
    text.parse()
        .map_err(|error: Expected| ConfigError::value(path, error.expected, &error.found))
}

fn broker(written: document::Broker) -> Result<Broker, ConfigError> {
    if written.cluster.is_empty() {
        return Err(ConfigError::at(
            "broker.cluster",
            "a cluster name",
            "an empty text",
        ));
    }
    let path = written.path.unwrap_or_else(|| "/token".to_owned());
    if !path.starts_with('/') {
        return Err(ConfigError::value(
            "broker.path",
            "a path such as `/token`",
            &path,
        ));
    }
    Ok(Broker {
        authority: written.authority.unwrap_or_else(|| written.cluster.clone()),
        cluster: written.cluster,
        path,
        timeout: duration(
            "broker.timeout",
            written.timeout.as_deref(),
            Duration::from_secs(2),
            (Duration::from_millis(50), Duration::from_secs(30)),
        )?,
        scope: written.scope,
    })
}

fn limits(written: &document::Limits) -> Result<Limits, ConfigError> {
    let max_body_bytes = written.max_body_bytes.unwrap_or(DEFAULT_BODY_LIMIT);
    if !(1024..=64 * 1024 * 1024).contains(&max_body_bytes) {
        return Err(ConfigError::value(
            "limits.max_body_bytes",
            "1024 to 67108864",
            &max_body_bytes.to_string(),
        ));
    }
    let leases = written.leases.unwrap_or(DEFAULT_LEASES);
    if !(1..=1_000_000).contains(&leases) {
        return Err(ConfigError::value(
            "limits.leases",
            "1 to 1000000",
            &leases.to_string(),
        ));
    }
    Ok(Limits {
        max_body_bytes,
        body_timeout: duration(
            "limits.body_timeout",
            written.body_timeout.as_deref(),
            Duration::from_secs(30),
            (Duration::from_secs(1), Duration::from_secs(600)),
        )?,
        leases: usize::try_from(leases).unwrap_or(usize::MAX),
    })
}
