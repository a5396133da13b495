use serde_json::json;

use super::*;
use crate::{config::Config, testing::Map};

const JWT: &str = "metadata.filter_metadata.envoy.filters.http.jwt_authn";

struct Sent(&'static [Slot]);

impl Presented for Sent {
    fn presents(&self, slot: Slot) -> bool {
        self.0.contains(&slot)
    }
}

fn identity(require: &str) -> Identity {
    let document = json!({
        "identity": { "require": require, "sources": [
            { "mtls": { "trust_domains": ["prod.example"] } },
            { "jwt": { "slots": ["authorization", "x-api-key"], "audience": "llm" } },
        ] },
        "providers": { "o": { "api": "openai", "match": { "path_prefix": "/o" }, "clusters": ["o"] } },
        "broker": { "cluster": "broker" },
        "policies": [{ "name": "p", "subjects": ["jwt:i|*"], "allow": [] }],
    });
    Config::parse(document.to_string().as_bytes())
        .unwrap()
        .identity
}

fn certificate(san: Option<&str>) -> Map {
    let mut map = Map::default();
    map.set("connection.mtls", [1]);
    if let Some(san) = san {
        map.set("connection.uri_san_peer_certificate", san);
    }
    map
}

fn token(map: &mut Map, slot: &str, sub: &str) {
    map.set(&format!("{JWT}.{slot}.iss"), "https://issuer");
    map.set(&format!("{JWT}.{slot}.aud"), "llm");
    map.set(&format!("{JWT}.{slot}.sub"), sub);
}

fn name(identity: &Identity, sent: Sent, map: &Map) -> Result<String, &'static str> {
    prove(identity, &sent, map)
        .map(|s| s.id.as_str().to_owned())
        .map_err(Denial::reason)
}

#[test]
fn a_certificate_names_its_subject() {
    let any = identity("any");
    for (san, expected) in [
        (
            Some("spiffe://prod.example/ns/a/sa/b"),
            Ok("spiffe://prod.example/ns/a/sa/b"),
        ),
        (
            Some("spiffe://other.example/a"),
            Err("certificate_wrong_trust_domain"),
        ),
        (
            Some("spiffe://prod.example"),
            Err("certificate_without_spiffe_id"),
        ),
        (
            Some("spiffe://prod.example/"),
            Err("certificate_without_spiffe_id"),
        ),
        (
            Some("spiffe://prod.example/a//b"),
            Err("certificate_without_spiffe_id"),
        ),
        (
            Some("spiffe://prod.example/a/../b"),
            Err("certificate_without_spiffe_id"),
        ),
        (
            Some("spiffe://prod.example/a%2Fb"),
            Err("certificate_without_spiffe_id"),
        ),
        (
            Some("spiffe://PROD.example/a"),
            Err("certificate_without_spiffe_id"),
        ),
        (
            Some("spiffe://prod.example@evil/a"),
            Err("certificate_without_spiffe_id"),
        ),
        (
            Some("https://prod.example/a"),
            Err("certificate_without_spiffe_id"),
        ),
        (None, Err("certificate_without_spiffe_id")),
    ] {
        let found = name(&any, Sent(&[]), &certificate(san));
        assert_eq!(found, expected.map(str::to_owned), "{san:?}");
    }
}

#[test]
fn the_first_verified_slot_decides_and_what_another_holds_is_ignored() {
    let any = identity("any");
    let mut map = Map::default();
    token(&mut map, "x-api-key", "bot");
    map.set(
        &format!("{JWT}.authorization_failed.message"),
        "Jwt is expired",
    );
    let both = Sent(&[Slot::Authorization, Slot::XApiKey]);
    assert_eq!(
        name(&any, both, &map).as_deref(),
        Ok("jwt:https://issuer|bot")
    );
    let mut map = Map::default();
    token(&mut map, "authorization", "first");
    token(&mut map, "x-api-key", "second");
    let both = Sent(&[Slot::Authorization, Slot::XApiKey]);
    assert_eq!(
        name(&any, both, &map).as_deref(),
        Ok("jwt:https://issuer|first")
    );
}

#[test]
fn a_token_that_failed_is_refused_with_its_reason() {
    let any = identity("any");
    for (message, expected) in [
        ("Jwt is expired", "token_expired"),
        ("Jwt not yet valid", "token_not_yet_valid"),
        ("Jwt verification fails", "token_bad_signature"),
        ("Audiences in Jwt are not allowed", "token_bad_audience"),
        ("Jwt issuer is not configured", "token_bad_issuer"),
        ("Jwks remote fetch is failed", "token_unverified"),
        (
            "Jwt is not in the form of Header.Payload.Signature",
            "token_malformed",
        ),
        ("", "token_malformed"),
    ] {
        let mut map = Map::default();
        map.set(&format!("{JWT}.authorization_failed.message"), message);
        let found = name(&any, Sent(&[Slot::Authorization]), &map);
        assert_eq!(found, Err(expected), "{message}");
    }
    assert_eq!(name(&any, Sent(&[]), &Map::default()), Err("no_identity"));
}

#[test]
fn a_token_for_somebody_else_is_refused() {
    let any = identity("any");
    let list: &[u8] = &[
        2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, b'o', b't', b'h', b'e', b'r',
        0, 0, b'l', b'l', b'm', 0, 0,
    ];
    for (audience, accepted) in [
        (&b"llm"[..], true),
        (b"llm2", false),
        (b"", false),
        (list, true),
        (&list[..20], false),
    ] {
        let mut map = Map::default();
        token(&mut map, "authorization", "bot");
        map.set(&format!("{JWT}.authorization.aud"), audience);
        let found = name(&any, Sent(&[Slot::Authorization]), &map);
        assert_eq!(found.is_ok(), accepted, "{audience:?}: {found:?}");
    }
}

#[test]
fn no_token_can_spell_another_kind_of_subject() {
    let any = identity("any");
    for (sub, expected) in [
        (
            "spiffe://prod.example/a",
            "jwt:https://issuer|spiffe://prod.example/a",
        ),
        ("a|b", "jwt:https://issuer|a%7Cb"),
        ("a*b", "jwt:https://issuer|a%2Ab"),
        ("a%7Cb", "jwt:https://issuer|a%257Cb"),
        ("ä b", "jwt:https://issuer|%C3%A4%20b"),
    ] {
        let mut map = Map::default();
        token(&mut map, "authorization", sub);
        let found = name(&any, Sent(&[Slot::Authorization]), &map);
        assert_eq!(found.as_deref(), Ok(expected));
    }
}

#[test]
fn a_claim_that_is_no_text_names_nobody() {
    let any = identity("any");
    let long = "x".repeat(2000);
    for sub in [
        &b"\x00\x01"[..],
        b"",
        b"a\nb",
        long.as_bytes(),
        &1.5f64.to_le_bytes(),
    ] {
        let mut map = Map::default();
        token(&mut map, "authorization", "x");
        map.set(&format!("{JWT}.authorization.sub"), sub);
        assert_eq!(
            name(&any, Sent(&[Slot::Authorization]), &map),
            Err("subject_malformed"),
            "{sub:?}"
        );
    }
    let mut map = Map::default();
    token(&mut map, "authorization", "x");
    map.set(&format!("{JWT}.authorization.sub"), 4711f64.to_le_bytes());
    let found = name(&any, Sent(&[Slot::Authorization]), &map);
    assert_eq!(found.as_deref(), Ok("jwt:https://issuer|4711"));
}

#[test]
fn any_takes_the_first_that_is_present_and_all_takes_no_less() {
    let mut map = certificate(Some("spiffe://other.example/a"));
    token(&mut map, "authorization", "bot");
    let sent = || Sent(&[Slot::Authorization]);
    assert_eq!(
        name(&identity("any"), sent(), &map),
        Err("certificate_wrong_trust_domain")
    );
    map.set(
        "connection.uri_san_peer_certificate",
        "spiffe://prod.example/a",
    );
    assert_eq!(
        name(&identity("all"), sent(), &map).as_deref(),
        Ok("spiffe://prod.example/a")
    );
    assert_eq!(
        name(&identity("all"), Sent(&[]), &map),
        Err("identity_incomplete")
    );
    let mut token_alone = Map::default();
    token(&mut token_alone, "authorization", "bot");
    assert_eq!(
        name(&identity("all"), sent(), &token_alone),
        Err("identity_incomplete")
    );
}

#[test]
fn a_sidecar_speaks_for_its_own_workload() {
    let pieces = [
        Piece::Literal("spiffe://prod.example/ns/".to_owned()),
        Piece::NodeMetadata("NAMESPACE".to_owned()),
    ];
    for (namespace, expected) in [
        (Some("a"), Some("spiffe://prod.example/ns/a")),
        (Some("a/sa/b"), None),
        (Some(".."), None),
        (None, None),
    ] {
        let mut map = Map::default();
        if let Some(namespace) = namespace {
            map.set("xds.node.metadata.NAMESPACE", namespace);
        }
        let bound = OnceLock::new();
        for _ in 0..2 {
            let found = proxy(&pieces, &bound, &map).ok();
            assert_eq!(found.as_ref().map(|subject| subject.id.as_str()), expected);
        }
    }
}
