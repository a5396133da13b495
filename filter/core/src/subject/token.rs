//! A caller by its token: takes what `jwt_authn` left in the metadata, gives issuer and subject.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Presented, Proof, Subject, SubjectId};
use crate::{
    attributes::{Attributes, pairs, text},
    config::Slot,
    denial::Denial,
};

const NAMESPACE: [&str; 3] = [
    "metadata",
    "filter_metadata",
    "envoy.filters.http.jwt_authn",
];

/// What would make a name ambiguous in a pattern, a record or a header is escaped in it.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'*')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'`')
    .add(b'|');

const MAX_CLAIM: usize = 1024;

/// `None` where no slot holds anything. The first slot whose token was verified decides; where one
/// failed and none was verified, its failure does.
pub(super) fn prove(
    slots: &[Slot],
    subject: &str,
    audience: &str,
    presented: &impl Presented,
    attributes: &impl Attributes,
) -> Result<Option<Subject>, Denial> {
    let mut failure = None;
    for &slot in slots {
        if !presented.presents(slot) {
            continue;
        }
        let Some(issuer) = claim(attributes, slot, "iss") else {
            failure = failure.or_else(|| Some(why(attributes, slot)));
            continue;
        };
        if !is_for(audience, attributes, slot) {
            return Err(Denial::TokenBadAudience);
        }
        let sub = claim(attributes, slot, subject).ok_or(Denial::SubjectMalformed)?;
        let id = subject_id(&issuer, &sub);
        return Ok(Some(Subject {
            id,
            proof: Proof::Token(slot),
            claims_in: Some(slot),
        }));
    }
    failure.map_or(Ok(None), Err)
}

/// The type is in the name, and neither part can spell the `|` between them.
pub(super) fn subject_id(issuer: &str, sub: &str) -> SubjectId {
    let issuer = utf8_percent_encode(issuer, ESCAPED);
    let sub = utf8_percent_encode(sub, ESCAPED);
    SubjectId(format!("jwt:{issuer}|{sub}"))
}

/// A claim of a verified token, as text: booleans and whole numbers as JSON writes them. The
/// host does not say which type a claim had, so a text with control characters is none: eight bytes
/// of a number have some, unless its issuer took pains.
pub(crate) fn claim(attributes: &impl Attributes, slot: Slot, name: &str) -> Option<String> {
    let value = attributes.attribute(&path(slot.header(), name))?;
    let text = str::from_utf8(&value).ok().filter(|text| {
        !text.is_empty() && text.len() <= MAX_CLAIM && !text.contains(char::is_control)
    });
    if let Some(text) = text {
        return Some(text.to_owned());
    }
    match value.as_slice() {
        [0] => Some("false".to_owned()),
        [1] => Some("true".to_owned()),
        bytes => {
            let number = f64::from_le_bytes(bytes.try_into().ok()?);
            let whole = number.is_finite() && number.fract() == 0.0 && number.abs() < 1e15;
            whole.then(|| number.to_string())
        }
    }
}

fn path<'a>(key: &'a str, name: &'a str) -> [&'a str; 5] {
    let [a, b, c] = NAMESPACE;
    [a, b, c, key, name]
}

/// RFC 7519, section 4.1.3: `aud` is a text, or a list that must contain us.
fn is_for(audience: &str, attributes: &impl Attributes, slot: Slot) -> bool {
    let Some(value) = attributes.attribute(&path(slot.header(), "aud")) else {
        return false;
    };
    value == audience.as_bytes()
        || pairs(&value).is_some_and(|list| {
            list.iter()
                .any(|(key, value)| *key == audience.as_bytes() || *value == audience.as_bytes())
        })
}

/// Why `jwt_authn` did not verify what the slot holds, by the words of its status.
fn why(attributes: &impl Attributes, slot: Slot) -> Denial {
    let message = text(attributes, &path(slot.failure_key(), "message")).unwrap_or_default();
    let has = |words: &str| message.contains(words);
    if has("expired") {
        Denial::TokenExpired
    } else if has("not yet valid") {
        Denial::TokenNotYetValid
    } else if has("Audiences") {
        Denial::TokenBadAudience
    } else if has("issuer") {
        Denial::TokenBadIssuer
    } else if has("verification fails") || has("Jwks doesn't have") {
        Denial::TokenBadSignature
    } else if has("Jwks") || has("jwks") {
        Denial::TokenUnverified
    } else {
        Denial::TokenMalformed
    }
}
