//! The request's form (RFC 8693, section 2.1): takes its bytes, gives what is asked for.

use std::{borrow::Cow, collections::BTreeMap};

use almoner_core::lease::SPIFFE_ID_TOKEN_TYPE;
use zeroize::Zeroizing;

use super::refusal::Refusal;
use crate::envoys::SpiffeId;

/// What the body must be.
pub(crate) const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const MAX_PARAMETERS: usize = 32;
/// Longer than any provider's name or digest: what is longer is not worth an audit line.
const MAX_NAME: usize = 128;

/// What an Envoy asks for.
pub(super) struct Form {
    /// Whom the credential is for.
    pub(super) subject: SubjectToken,
    /// The provider's name.
    pub(super) audience: String,
    /// Of the document by which the Envoy decided.
    pub(super) policy_digest: Option<String>,
}

/// What stands for the subject.
pub(super) enum SubjectToken {
    /// The workload's own token.
    Jwt(Zeroizing<String>),
    /// A SPIFFE ID that the asking Envoy vouches for.
    SpiffeId(SpiffeId),
}

impl Form {
    /// Reads a form. No parameter may stand twice, an empty one counts as absent, unknown ones are
    /// ignored (RFC 6749, section 3.2).
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut parameters = parameters(body)?;
        let mut take = |name: &str| parameters.remove(name).map(Cow::into_owned);

        match take("grant_type") {
            None => return Err(Refusal::Missing("grant_type is missing")),
            Some(kind) if kind != GRANT_TYPE => return Err(Refusal::GrantType),
            Some(_) => {}
        }
        if take("actor_token").is_some() || take("actor_token_type").is_some() {
            return Err(Refusal::Unsupported("actor tokens are not supported"));
        }
        if take("resource").is_some() {
            return Err(Refusal::Resource);
        }
        if take("requested_token_type").is_some() {
            return Err(Refusal::Unsupported(
                "requested_token_type is not supported",
            ));
        }
        let subject = subject(take("subject_token"), take("subject_token_type"))?;
        let audience = take("audience").ok_or(Refusal::Missing("audience is missing"))?;
        if !is_name(&audience) {
            return Err(Refusal::UnknownAudience);
        }
        Ok(Self {
            subject,
            audience,
            policy_digest: take("policy_digest").filter(|d| is_name(d)),
        })
    }
}

fn parameters(body: &[u8]) -> Result<BTreeMap<Cow<'_, str>, Cow<'_, str>>, Refusal> {
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(body) {
        if parameters.insert(name, value).is_some() {
            return Err(Refusal::Duplicate);
        }
        if parameters.len() > MAX_PARAMETERS {
            return Err(Refusal::Unsupported("too many parameters"));
        }
    }
    parameters.retain(|_, value| !value.is_empty());
    Ok(parameters)
}

fn subject(token: Option<String>, kind: Option<String>) -> Result<SubjectToken, Refusal> {
    let token = token
        .map(Zeroizing::new)
        .ok_or(Refusal::Missing("subject_token is missing"))?;
    match kind.as_deref() {
        None => Err(Refusal::Missing("subject_token_type is missing")),
        Some(JWT) => Ok(SubjectToken::Jwt(token)),
        Some(SPIFFE_ID_TOKEN_TYPE) => SpiffeId::parse(&token)
            .map(SubjectToken::SpiffeId)
            .ok_or(Refusal::SpiffeId),
        Some(_) => Err(Refusal::Unsupported("subject_token_type is not supported")),
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
        &subject_token=a.b.c&subject_token_type=urn:ietf:params:oauth:token-type:jwt&audience=openai";

    #[test]
    fn reads_what_is_asked_for() {
        let form = Form::parse(format!("{GOOD}&policy_digest=ab&unknown=1&scope=").as_bytes());
        let form = form.expect("a form");
        assert!(matches!(form.subject, SubjectToken::Jwt(token) if *token == "a.b.c"));
        assert_eq!(
            (form.audience.as_str(), form.policy_digest.as_deref()),
            ("openai", Some("ab"))
        );

        let spiffe = GOOD
            .replace("a.b.c", "spiffe%3A%2F%2Fp%2Fa")
            .replace("urn:ietf:params:oauth:token-type:jwt", SPIFFE_ID_TOKEN_TYPE);
        let form = Form::parse(spiffe.as_bytes()).expect("a form");
        assert!(
            matches!(form.subject, SubjectToken::SpiffeId(id) if id.as_str() == "spiffe://p/a")
        );
    }

    #[test]
    fn refuses_what_it_can_not_mean() {
        let without = |part: &str| GOOD.replace(part, "");
        for (form, expected) in [
            (String::new(), Refusal::Missing("grant_type is missing")),
            (
                without("audience=openai"),
                Refusal::Missing("audience is missing"),
            ),
            (without("openai"), Refusal::Missing("audience is missing")),
            (
                without("a.b.c"),
                Refusal::Missing("subject_token is missing"),
            ),
            (
                without("&subject_token_type=urn:ietf:params:oauth:token-type:jwt"),
                Refusal::Missing("subject_token_type is missing"),
            ),
            (
                GOOD.replace(":token-exchange", ":jwt-bearer"),
                Refusal::GrantType,
            ),
            (
                GOOD.replace("grant_type=urn", "grant_type=client_credentials&x=urn"),
                Refusal::GrantType,
            ),
            (format!("{GOOD}&audience=anthropic"), Refusal::Duplicate),
            (format!("{GOOD}&audience="), Refusal::Duplicate),
            (format!("{GOOD}&%61udience=openai"), Refusal::Duplicate),
            (format!("{GOOD}&x=1&x=1"), Refusal::Duplicate),
            (format!("{GOOD}&resource=https://a"), Refusal::Resource),
            (
                GOOD.replace("openai", "o%0d%0apenai"),
                Refusal::UnknownAudience,
            ),
            (
                GOOD.replace("openai", &"o".repeat(129)),
                Refusal::UnknownAudience,
            ),
            (
                format!("{GOOD}&actor_token=a"),
                Refusal::Unsupported("actor tokens are not supported"),
            ),
            (
                GOOD.replace("token-type:jwt", "token-type:saml2"),
                Refusal::Unsupported("subject_token_type is not supported"),
            ),
            (
                GOOD.replace("urn:ietf:params:oauth:token-type:jwt", SPIFFE_ID_TOKEN_TYPE),
                Refusal::SpiffeId,
            ),
            (
                (0..40).map(|n| format!("p{n}=1&")).collect(),
                Refusal::Unsupported("too many parameters"),
            ),
        ] {
            assert_eq!(Form::parse(form.as_bytes()).err(), Some(expected), "{form}");
        }
    }
}
