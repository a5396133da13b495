//! The listed Envoys: takes a TLS identity, gives what that Envoy may assert.

use almoner_core::{
    glob::Glob,
    spiffe::{self, is_trust_domain},
    subject::SubjectId,
};
use thiserror::Error;

use crate::config;

/// A SPIFFE ID of the right form, of a certificate or asserted by an Envoy.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct SpiffeId(String);

impl SpiffeId {
    /// Reads a SPIFFE ID that names a workload, as the plugin reads it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        spiffe::parts(text).map(|_| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why the list was refused.
#[derive(Debug, Error)]
#[error("envoys[{index}].{field}: expected {expected}, found `{found}`")]
pub struct EnvoyListError {
    index: usize,
    field: &'static str,
    expected: &'static str,
    found: String,
}

/// The listed Envoys.
pub(crate) struct Envoys(Vec<Listed>);

/// What is listed for one Envoy, or for several under one pattern.
pub(crate) struct Listed {
    id: Glob,
    speaks_for: SpeaksFor,
}

enum SpeaksFor {
    Itself,
    Subjects(Vec<Glob>),
}

impl Envoys {
    pub(crate) fn new(written: &[config::Envoy]) -> Result<Self, EnvoyListError> {
        let listed = written.iter().enumerate().map(|(index, envoy)| {
            let wrong = |field, expected, found: &str| EnvoyListError {
                index,
                field,
                expected,
                found: found.to_owned(),
            };
            if !is_spiffe_pattern(&envoy.id) {
                return Err(wrong("id", "a SPIFFE ID, stars in its path only", &envoy.id));
            }
            let speaks_for = match &envoy.speaks_for {
                config::SpeaksFor::Itself => SpeaksFor::Itself,
                config::SpeaksFor::Subjects(patterns) => {
                    if let Some(bad) = patterns.iter().find(|text| !is_subject_pattern(text)) {
                        return Err(wrong(
                            "speaks_for",
                            "`spiffe://DOMAIN/..` or `jwt:ISSUER|..`, stars in neither domain nor issuer",
                            bad,
                        ));
                    }
                    SpeaksFor::Subjects(patterns.iter().map(|text| Glob::new(text)).collect())
                }
            };
            Ok(Listed { id: Glob::new(&envoy.id), speaks_for })
        });
        listed.collect::<Result<_, _>>().map(Self)
    }

    /// What is listed first for this identity; `None` where it is not listed.
    pub(crate) fn listed(&self, id: &SpiffeId) -> Option<&Listed> {
        self.0.iter().find(|listed| listed.id.matches(id.as_str()))
    }
}

impl Listed {
    /// Whether the Envoy with this identity may assert this subject.
    pub(crate) fn may_speak_for(&self, own: &SpiffeId, subject: &SubjectId) -> bool {
        match &self.speaks_for {
            SpeaksFor::Itself => own.as_str() == subject.as_str(),
            SpeaksFor::Subjects(globs) => globs.iter().any(|glob| glob.matches(subject.as_str())),
        }
    }
}

fn is_spiffe_pattern(text: &str) -> bool {
    let parts = text
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(domain, path)| is_trust_domain(domain) && !path.is_empty())
}

fn is_subject_pattern(text: &str) -> bool {
    let token = text
        .strip_prefix("jwt:")
        .and_then(|rest| rest.split_once('|'));
    is_spiffe_pattern(text)
        || token.is_some_and(|(issuer, sub)| {
            !issuer.is_empty() && !issuer.contains('*') && !sub.is_empty()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, speaks_for: config::SpeaksFor) -> Result<Envoys, String> {
        Envoys::new(&[config::Envoy {
            id: id.to_owned(),
            speaks_for,
        }])
        .map_err(|e| e.to_string())
    }

    #[test]
    fn reads_only_well_formed_spiffe_ids() {
        for (text, expected) in [
            ("spiffe://prod.example/ns/a/sa/b", true),
            ("spiffe://prod.example", false),
            ("spiffe://prod.example/", false),
            ("spiffe://prod.example/a//b", false),
            ("spiffe://prod.example/a/../b", false),
            ("spiffe://prod.example/a%2Fb", false),
            ("spiffe://prod.example/a/*", false),
            ("spiffe://Prod.example/a", false),
            ("spiffe://prod.example:8443/a", false),
            ("https://prod.example/a", false),
            ("jwt:https://i|a", false),
            ("", false),
        ] {
            assert_eq!(SpiffeId::parse(text).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn a_sidecar_speaks_for_itself_only() {
        let envoys = listed("spiffe://p/ns/*/sa/*", config::SpeaksFor::Itself).expect("accepted");
        let own = SpiffeId::parse("spiffe://p/ns/a/sa/b").expect("a SPIFFE ID");
        let sidecar = envoys.listed(&own).expect("listed");
        for (subject, expected) in [
            ("spiffe://p/ns/a/sa/b", true),
            ("spiffe://p/ns/a/sa/c", false),
            ("spiffe://p/ns/*/sa/*", false),
            ("jwt:https://i|spiffe://p/ns/a/sa/b", false),
        ] {
            assert_eq!(
                sidecar.may_speak_for(&own, &SubjectId::vouched(subject)),
                expected
            );
        }
        let stranger = SpiffeId::parse("spiffe://p/ns/a/sa/b/c").expect("a SPIFFE ID");
        assert!(envoys.listed(&stranger).is_none());
    }

    #[test]
    fn a_gateway_speaks_for_the_subjects_that_are_listed() {
        let patterns = ["spiffe://p/ns/*/sa/*", "jwt:https://issuer.example|**"];
        let speaks_for = config::SpeaksFor::Subjects(patterns.map(str::to_owned).to_vec());
        let envoys = listed("spiffe://p/gateway", speaks_for).expect("accepted");
        let own = SpiffeId::parse("spiffe://p/gateway").expect("a SPIFFE ID");
        let gateway = envoys.listed(&own).expect("listed");
        for (subject, expected) in [
            ("spiffe://p/ns/a/sa/b", true),
            ("spiffe://q/ns/a/sa/b", false),
            ("jwt:https://issuer.example|system:serviceaccount:a:b", true),
            ("jwt:https://issuer.example.evil|a", false),
            ("jwt:https://evil|https://issuer.example|a", false),
            ("spiffe://p/gateway", false),
        ] {
            let allowed = gateway.may_speak_for(&own, &SubjectId::vouched(subject));
            assert_eq!(allowed, expected, "{subject}");
        }
    }

    #[test]
    fn refuses_stars_in_trust_domains_and_issuers() {
        for id in ["spiffe://*/a", "spiffe://p*/a", "p/a", "spiffe://p"] {
            assert!(listed(id, config::SpeaksFor::Itself).is_err(), "{id}");
        }
        for pattern in [
            "**",
            "spiffe://*/a",
            "jwt:https://*|a",
            "jwt:**",
            "jwt:https://i|",
            "jwt:|a",
        ] {
            let speaks_for = config::SpeaksFor::Subjects(vec![pattern.to_owned()]);
            let refused = listed("spiffe://p/a", speaks_for).err().expect("refused");
            assert!(
                refused.starts_with("envoys[0].speaks_for: expected"),
                "{refused}"
            );
        }
    }
}
