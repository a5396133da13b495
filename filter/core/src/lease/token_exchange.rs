//! The wire of a lease: gives the RFC 8693 request to the broker, reads its answer.

use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Attach, BrokerFailure, Lease};
use crate::{
    config::PolicyDigest,
    secret::{BearerToken, Credential, CredentialId},
    subject::SubjectId,
    units::Timestamp,
};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The `subject_token_type` of a SPIFFE ID that the asking Envoy vouches for. It is ours alone:
/// RFC 8693, section 3 has none for a name without a token.
pub const SPIFFE_ID_TOKEN_TYPE: &str = "urn:almoner:params:oauth:token-type:spiffe-id";

const MAX_ANSWER: usize = 64 * 1024;
const MAX_LIFE: Duration = Duration::from_hours(1);

/// What a lease is asked for with.
pub struct Request<'a> {
    /// Who it is for.
    pub subject: &'a SubjectId,
    /// Its token, where a token proved who it is.
    pub token: Option<&'a BearerToken>,
    /// The provider's name.
    pub provider: &'a str,
    /// The OAuth scope.
    pub scope: Option<&'a str>,
    /// Of the policies that the grant stands on.
    pub policies: &'a PolicyDigest,
}

/// The form of the request (RFC 8693, section 2.1). It contains the caller's token.
#[must_use]
pub fn request(request: &Request<'_>) -> Zeroizing<String> {
    let (token, kind) = match request.token {
        Some(token) => (token.expose(), JWT),
        None => (request.subject.as_str(), SPIFFE_ID_TOKEN_TYPE),
    };
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", GRANT_TYPE)
        .append_pair("subject_token", token)
        .append_pair("subject_token_type", kind)
        .append_pair("audience", request.provider)
        .append_pair("policy_digest", &request.policies.short());
    if let Some(scope) = request.scope {
        form.append_pair("scope", scope);
    }
    Zeroizing::new(form.finish())
}

#[derive(Deserialize)]
struct Answer {
    access_token: Zeroizing<String>,
    token_type: String,
    expires_in: u64,
    subject: String,
    credential_id: String,
}

/// Reads the broker's answer (RFC 8693, section 2.2).
///
/// `status` is `None` where no answer came. 5xx and 429 say that the broker can't, other statuses
/// that it won't.
///
/// # Errors
/// Why there is no lease. An answer for another subject than asked for is never a lease.
pub fn read_answer(
    status: Option<u16>,
    body: &[u8],
    subject: &SubjectId,
    now: Timestamp,
) -> Result<Lease, BrokerFailure> {
    match status {
        Some(200) => {}
        Some(400..=428 | 430..=499) => return Err(BrokerFailure::Refused),
        Some(429 | 500..) | None => return Err(BrokerFailure::Unavailable),
        Some(_) => return Err(BrokerFailure::BadAnswer),
    }
    if body.len() > MAX_ANSWER {
        return Err(BrokerFailure::BadAnswer);
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| BrokerFailure::BadAnswer)?;
    if answer.subject != subject.as_str() {
        return Err(BrokerFailure::WrongSubject);
    }
    let life = Duration::from_secs(answer.expires_in);
    if life.is_zero() || life > MAX_LIFE {
        return Err(BrokerFailure::BadAnswer);
    }
    let attach = if answer.token_type.eq_ignore_ascii_case("Bearer") {
        Attach::Bearer
    } else if answer.token_type.eq_ignore_ascii_case("N_A") {
        Attach::OwnHeader
    } else {
        return Err(BrokerFailure::BadAnswer);
    };
    Ok(Lease {
        attach,
        credential: Credential::new(answer.access_token).ok_or(BrokerFailure::BadAnswer)?,
        credential_id: CredentialId::new(&answer.credential_id).ok_or(BrokerFailure::BadAnswer)?,
        issued: now,
        expires: now.after(life),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn answer(changes: &[(&str, serde_json::Value)]) -> Vec<u8> {
        let mut answer = serde_json::json!({
            "access_token": "sk-live", "token_type": "Bearer", "expires_in": 300,
            "subject": "spiffe://p/a", "credential_id": "openai/1",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        });
        for (field, value) in changes {
            answer[field] = value.clone();
        }
        answer.to_string().into_bytes()
    }

    fn read(status: Option<u16>, body: &[u8]) -> Result<Lease, BrokerFailure> {
        read_answer(status, body, &SubjectId::vouched("spiffe://p/a"), NOW)
    }

    #[test]
    fn asks_with_the_token_or_with_the_name_that_this_envoy_vouches_for() {
        let subject = SubjectId::vouched("spiffe://p/a");
        let token = BearerToken::of_header(b"Bearer a.b+c.d").unwrap();
        let digest = PolicyDigest([0xab; 32]);
        let mut ask = Request {
            subject: &subject,
            token: Some(&token),
            provider: "openai",
            scope: None,
            policies: &digest,
        };
        assert_eq!(
            *request(&ask),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &subject_token=a.b%2Bc.d&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt\
             &audience=openai&policy_digest=abababababababab"
        );
        ask.token = None;
        ask.scope = Some("chat");
        assert!(request(&ask).contains("&subject_token=spiffe%3A%2F%2Fp%2Fa&"));
        assert!(request(&ask).ends_with("&scope=chat"));
    }

    #[test]
    fn reads_a_lease() {
        let lease = read(Some(200), &answer(&[])).ok().unwrap();
        assert_eq!(lease.credential.expose(), "sk-live");
        assert_eq!(lease.attach, Attach::Bearer);
        assert_eq!(lease.expires, NOW.after(Duration::from_mins(5)));
    }

    #[test]
    fn refuses_every_answer_that_is_not_a_lease_for_the_subject() {
        use BrokerFailure::{BadAnswer, Refused, Unavailable, WrongSubject};
        for (status, body, expected) in [
            (
                Some(200),
                answer(&[("subject", "spiffe://p/b".into())]),
                WrongSubject,
            ),
            (Some(200), answer(&[("expires_in", 0.into())]), BadAnswer),
            (Some(200), answer(&[("expires_in", 3601.into())]), BadAnswer),
            (Some(200), answer(&[("expires_in", (-1).into())]), BadAnswer),
            (
                Some(200),
                answer(&[("token_type", "mac".into())]),
                BadAnswer,
            ),
            (Some(200), answer(&[("access_token", "".into())]), BadAnswer),
            (
                Some(200),
                answer(&[("access_token", "a\r\nx: y".into())]),
                BadAnswer,
            ),
            (
                Some(200),
                answer(&[("access_token", "x".repeat(20_000).into())]),
                BadAnswer,
            ),
            (
                Some(200),
                answer(&[("credential_id", "".into())]),
                BadAnswer,
            ),
            (Some(200), b"<html>".to_vec(), BadAnswer),
            (Some(200), vec![b' '; MAX_ANSWER + 1], BadAnswer),
            (Some(204), answer(&[]), BadAnswer),
            (Some(302), answer(&[]), BadAnswer),
            (Some(400), answer(&[]), Refused),
            (Some(401), answer(&[]), Refused),
            (Some(429), answer(&[]), Unavailable),
            (Some(503), answer(&[]), Unavailable),
            (None, answer(&[]), Unavailable),
        ] {
            let found = read(status, &body).err();
            assert_eq!(
                found,
                Some(expected),
                "{status:?} {}",
                String::from_utf8_lossy(&body)
            );
        }
    }
}
