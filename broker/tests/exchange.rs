//! The token endpoint over real TLS: who gets a credential, who does not, and what is written.

#[cfg(test)] // so that clippy knows it as a test's
mod support;

use serde_json::json;
use support::{
    ANTHROPIC_KEY, BOT, FORM, GATEWAY, OPENAI_KEY, SIDECAR, Stand, encode,
    issuer::{claims, now},
    pki,
};

#[tokio::test]
async fn a_listed_envoy_gets_a_bearer_key_for_a_workload_with_a_token() {
    let stand = Stand::start().await;
    let token = stand.issuer.token("support-bot");
    let answer = stand.exchange(&Stand::with_token(&token, "openai")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.json["access_token"], OPENAI_KEY);
    assert_eq!(answer.json["token_type"], "Bearer");
    assert_eq!(
        answer.json["issued_token_type"],
        "urn:ietf:params:oauth:token-type:access_token"
    );
    assert_eq!(
        answer.json["subject"],
        "jwt:https://issuer.example|support-bot"
    );
    let life = answer.json["expires_in"].as_u64().expect("a number");
    assert!(
        (295..=300).contains(&life),
        "no longer than the token: {life}"
    );
    let id = answer.json["credential_id"].as_str().expect("a name");
    assert!(id.starts_with("openai-") && !id.contains("planted"), "{id}");

    let events = stand.events();
    assert_eq!(events.len(), 1);
    for (field, expected) in [
        ("event", "credential_issued"),
        ("envoy", GATEWAY),
        ("subject", "jwt:https://issuer.example|support-bot"),
        ("provider", "openai"),
        ("policy", "bots"),
        ("credential_id", id),
        ("owner", "ml-platform"),
    ] {
        assert_eq!(events[0][field], expected, "{field}");
    }
    assert_eq!(events[0]["expires_in"], life);
}

#[tokio::test]
async fn a_listed_envoy_gets_a_key_for_a_workload_that_it_vouches_for() {
    let stand = Stand::start().await;
    let answer = stand
        .exchange(&Stand::with_spiffe_id(SIDECAR, "anthropic"))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json["access_token"], ANTHROPIC_KEY);
    assert_eq!(answer.json["token_type"], "N_A");
    assert_eq!(
        answer.json["issued_token_type"],
        "urn:almoner:params:oauth:token-type:api-key"
    );
    assert_eq!(answer.json["subject"], SIDECAR);
    assert_eq!(answer.json["expires_in"], 900, "no longer than max_lease");
}

#[tokio::test]
async fn only_listed_envoys_get_anything_whatever_the_token() {
    let stand = Stand::start().await;
    let token = stand.issuer.token("support-bot");
    let workload = stand.identity(BOT);
    let nameless = stand.authority.identity(&[]);
    let two_names = stand
        .authority
        .identity(&[GATEWAY, "spiffe://prod.example/other"]);
    let not_spiffe = stand.authority.identity(&["https://prod.example/gateway"]);
    for identity in [
        None,
        Some(&workload),
        Some(&nameless),
        Some(&two_names),
        Some(&not_spiffe),
    ] {
        for form in [
            Stand::with_token(&token, "openai"),
            Stand::with_spiffe_id(BOT, "openai"),
        ] {
            let answer = stand.exchange_as(identity, &form).await.expect("an answer");
            assert_eq!(answer.status, 401, "{answer:?}");
            assert_eq!(answer.json["error"], "invalid_client");
        }
    }
    assert!(
        stand
            .events()
            .iter()
            .all(|event| event["event"] == "exchange_refused")
    );
}

#[tokio::test]
async fn a_certificate_that_nobody_trusted_signed_gets_in_nowhere() {
    let stand = Stand::start().await;
    let stranger = pki::Authority::new().identity(&[GATEWAY]);
    for forged in [pki::self_signed(GATEWAY), stranger] {
        let form = Stand::with_spiffe_id(BOT, "openai");
        let outcome = stand.exchange_as(Some(&forged), &form).await;
        assert!(outcome.is_err(), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_envoy_speaks_only_for_its_subjects() {
    let stand = Stand::start().await;
    let token = stand.issuer.token("shop-cart");
    let sidecar = stand.identity(SIDECAR);
    let own = Stand::with_spiffe_id(SIDECAR, "anthropic");
    let answer = stand
        .exchange_as(Some(&sidecar), &own)
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");

    for form in [
        Stand::with_spiffe_id("spiffe://prod.example/ns/shop/sa/till", "anthropic"),
        Stand::with_spiffe_id(BOT, "openai"),
        Stand::with_token(&token, "anthropic"),
    ] {
        let answer = stand
            .exchange_as(Some(&sidecar), &form)
            .await
            .expect("an answer");
        assert_eq!(
            (answer.status, &answer.json["error"]),
            (400, &json!("unauthorized_client"))
        );
    }
    let other_domain = Stand::with_spiffe_id("spiffe://other.example/ns/support/sa/bot", "openai");
    let answer = stand.exchange(&other_domain).await;
    assert_eq!(
        (answer.status, &answer.json["error"]),
        (400, &json!("unauthorized_client"))
    );
}

#[tokio::test]
async fn policy_and_credential_decide_about_the_provider() {
    let stand = Stand::start().await;
    for (sub, provider, reason) in [
        ("support-bot", "anthropic", "provider_not_allowed"),
        ("support-bot", "nowhere", "provider_not_allowed"),
        ("support-bot", "keyless", "no_credential"),
        ("nobody", "openai", "no_policy"),
        ("staging-bot", "openai", "other_environment"),
        ("shop-cart", "expired", "credential_expired"),
    ] {
        let token = stand.issuer.token(sub);
        let answer = stand.exchange(&Stand::with_token(&token, provider)).await;
        assert_eq!(
            (answer.status, &answer.json["error"]),
            (400, &json!("invalid_target")),
            "{sub}"
        );
        let event = stand.events().pop().expect("an event");
        assert_eq!(
            (&event["event"], &event["reason"]),
            (&json!("exchange_refused"), &json!(reason))
        );
        assert_eq!(
            event["subject"],
            format!("jwt:https://issuer.example|{sub}")
        );
    }
}

#[tokio::test]
async fn a_token_proves_nothing_unless_everything_about_it_is_right() {
    let stand = Stand::start().await;
    let es256 = json!({ "alg": "ES256", "kid": "ec" });
    let with = |field: &str, value: serde_json::Value| {
        let mut claims = claims("support-bot");
        claims[field] = value;
        claims
    };
    let without = |field: &str| {
        let mut claims = claims("support-bot");
        claims.as_object_mut().expect("an object").remove(field);
        claims
    };
    let good = claims("support-bot");
    let sign =
        |header: serde_json::Value, claims: &serde_json::Value| stand.issuer.sign(&header, claims);
    let twice = stand.issuer.token("support-bot");
    let tampered = {
        let mut parts: Vec<_> = twice.split('.').map(str::to_owned).collect();
        parts[1] = support::issuer::encode(with("sub", json!("shop-cart")).to_string());
        parts.join(".")
    };
    for (token, reason) in [
        (
            sign(json!({ "alg": "none", "kid": "ec" }), &good),
            "token_malformed",
        ),
        (sign(json!({ "alg": "None" }), &good), "token_malformed"),
        (
            sign(json!({ "alg": "HS256", "kid": "rsa" }), &good),
            "token_bad_signature",
        ),
        (
            sign(json!({ "alg": "HS256" }), &good),
            "token_bad_signature",
        ),
        (
            sign(json!({ "alg": "ES256", "kid": "rsa" }), &good),
            "token_bad_signature",
        ),
        (
            sign(json!({ "alg": "RS256", "kid": "ec" }), &good),
            "token_bad_signature",
        ),
        (
            sign(json!({ "alg": "RS256", "kid": "for-encryption" }), &good),
            "token_bad_signature",
        ),
        (
            sign(json!({ "alg": "ES256", "kid": "unknown" }), &good),
            "token_bad_signature",
        ),
        (
            sign(
                json!({ "alg": "ES256", "kid": "ec", "crit": ["b64"] }),
                &good,
            ),
            "token_malformed",
        ),
        (
            sign(
                json!({ "alg": "ES256", "kid": "x", "jwk": stand.issuer.jwks()["keys"][0] }),
                &good,
            ),
            "token_bad_signature",
        ),
        (
            sign(es256.clone(), &with("exp", json!(now() - 1))),
            "token_expired",
        ),
        (
            sign(es256.clone(), &with("exp", json!("soon"))),
            "token_malformed",
        ),
        (
            sign(es256.clone(), &with("exp", json!(-5))),
            "token_malformed",
        ),
        (
            sign(es256.clone(), &with("exp", json!(1e300))),
            "token_malformed",
        ),
        (sign(es256.clone(), &without("exp")), "token_malformed"),
        (
            sign(es256.clone(), &with("nbf", json!(now() + 90))),
            "token_not_yet_valid",
        ),
        (
            sign(es256.clone(), &with("aud", json!("other"))),
            "token_bad_audience",
        ),
        (
            sign(es256.clone(), &with("aud", json!([]))),
            "token_bad_audience",
        ),
        (sign(es256.clone(), &without("aud")), "token_malformed"),
        (
            sign(es256.clone(), &with("iss", json!("https://evil.example"))),
            "token_bad_issuer",
        ),
        (
            sign(
                es256.clone(),
                &with("iss", json!(["https://issuer.example"])),
            ),
            "token_malformed",
        ),
        (sign(es256.clone(), &without("iss")), "token_malformed"),
        (sign(es256.clone(), &without("sub")), "token_malformed"),
        (
            sign(es256.clone(), &with("sub", json!(""))),
            "token_malformed",
        ),
        (
            sign(es256.clone(), &with("sub", json!(["support-bot"]))),
            "token_malformed",
        ),
        (
            sign(es256.clone(), &with("sub", json!("support-\u{0}"))),
            "token_malformed",
        ),
        (tampered, "token_bad_signature"),
        (
            twice.trim_end_matches(|c| c != '.').to_owned(),
            "token_bad_signature",
        ),
        (format!("{twice}.{twice}"), "token_malformed"),
        ("a.b.c".to_owned(), "token_malformed"),
        (OPENAI_KEY.to_owned(), "token_malformed"),
    ] {
        let answer = stand.exchange(&Stand::with_token(&token, "openai")).await;
        let event = stand.events().pop().expect("an event");
        assert_eq!(event["reason"], reason, "{token}");
        assert_eq!(
            (answer.status, &answer.json["error"]),
            (400, &json!("invalid_request"))
        );
        assert!(
            event.get("subject").is_none(),
            "an unproven subject is nobody's"
        );
    }
    let late = sign(es256, &with("nbf", json!(now() + 20)));
    let rsa = sign(json!({ "alg": "RS256", "kid": "rsa" }), &good);
    let unnamed = sign(json!({ "alg": "ES256" }), &good);
    for token in [late, rsa, unnamed] {
        let answer = stand.exchange(&Stand::with_token(&token, "openai")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_subject_can_not_spell_another_kind_of_subject() {
    let stand = Stand::start().await;
    for sub in [BOT, "x|https://issuer.example|support-bot", "support-*"] {
        let token = stand.issuer.token(sub);
        let answer = stand.exchange(&Stand::with_token(&token, "openai")).await;
        if answer.status == 200 {
            assert_eq!(
                answer.json["subject"],
                "jwt:https://issuer.example|support-%2A"
            );
        } else {
            assert_eq!(answer.json["error"], "invalid_target");
        }
    }
}

#[tokio::test]
async fn bad_requests_are_answered_as_rfc_6749_says() {
    let stand = Stand::start().await;
    let gateway = stand.identity(GATEWAY);
    let token = stand.issuer.token("support-bot");
    let form = |extra: &str| encode(&Stand::with_token(&token, "openai")) + extra;
    for (content_type, body, status, error) in [
        (FORM, String::new(), 400, "invalid_request"),
        (FORM, form("&audience=openai"), 400, "invalid_request"),
        (FORM, form("&subject_token=x"), 400, "invalid_request"),
        (
            FORM,
            form("").replace("token-exchange", "jwt-bearer"),
            400,
            "unsupported_grant_type",
        ),
        (FORM, form("&resource=https://x"), 400, "invalid_target"),
        (
            FORM,
            form("").replace("openai", "open%0d%0aai"),
            400,
            "invalid_target",
        ),
        (
            FORM,
            form("&x=") + &"x".repeat(70_000),
            413,
            "invalid_request",
        ),
        (
            FORM,
            "\u{0}\u{1}%zz&&&===".to_owned(),
            400,
            "invalid_request",
        ),
        ("application/json", form(""), 400, "invalid_request"),
        ("", form(""), 400, "invalid_request"),
    ] {
        let answer = stand
            .post(Some(&gateway), content_type, body)
            .await
            .expect("an answer");
        assert_eq!(
            (answer.status, &answer.json["error"]),
            (status, &json!(error)),
            "{answer:?}"
        );
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(answer.json["error_description"].is_string());
        assert!(answer.json.get("access_token").is_none());
    }
    let answer = stand
        .post(Some(&gateway), FORM, form(""))
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200, "the broker goes on");
}

#[tokio::test]
async fn made_up_key_ids_do_not_flood_the_issuer() {
    let stand = Stand::start().await;
    for n in 0..50 {
        let header = json!({ "alg": "ES256", "kid": format!("made-up-{n}") });
        let token = stand.issuer.sign(&header, &claims("support-bot"));
        let answer = stand.exchange(&Stand::with_token(&token, "openai")).await;
        assert_eq!(answer.status, 400);
    }
    assert_eq!(stand.issuer.fetches(), 1);
    let token = stand.issuer.token("support-bot");
    assert_eq!(
        stand
            .exchange(&Stand::with_token(&token, "openai"))
            .await
            .status,
        200
    );
    assert_eq!(stand.issuer.fetches(), 1);
}

#[tokio::test]
async fn without_the_issuers_keys_nothing_is_issued_and_it_is_said_that_waiting_helps() {
    let huge = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(300_000));
    let many = json!({ "keys": vec![json!({ "kty": "EC" }); 65] }).to_string();
    for (status, body) in [
        (500, String::new()),
        (302, String::new()),
        (200, "not JSON".to_owned()),
        (200, "[]".to_owned()),
        (200, huge),
        (200, many),
    ] {
        let stand = Stand::start().await;
        stand.issuer.show(status, body);
        let token = stand.issuer.token("support-bot");
        for _ in 0..3 {
            let answer = stand.exchange(&Stand::with_token(&token, "openai")).await;
            assert_eq!(answer.status, 503, "{answer:?}");
            assert_eq!(answer.headers["retry-after"], "1");
        }
        assert_eq!(stand.issuer.fetches(), 1);
        let vouched = stand.exchange(&Stand::with_spiffe_id(BOT, "openai")).await;
        assert_eq!(vouched.status, 200, "other callers are not held up");
    }
}

#[tokio::test]
async fn nothing_is_issued_that_is_not_audited() {
    let stand = Stand::start_with(|config| config["audit"] = json!("/dev/full")).await;
    let answer = stand.exchange(&Stand::with_spiffe_id(BOT, "openai")).await;
    assert_eq!(
        (answer.status, &answer.json["error"]),
        (503, &json!("temporarily_unavailable"))
    );
    assert!(answer.json.get("access_token").is_none());
    let (_, metrics) = stand.admin("/metrics").await;
    assert!(
        metrics.contains("almoner_broker_audit_failures_total 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn one_envoy_can_not_take_the_others_share() {
    let stand = Stand::start_with(|config| {
        config["limits"] = json!({ "exchanges_per_second": 1 });
    })
    .await;
    let form = Stand::with_spiffe_id(BOT, "openai");
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(stand.exchange(&form).await.status);
    }
    assert_eq!(&statuses[..2], [200, 200]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let own = Stand::with_spiffe_id(SIDECAR, "anthropic");
    let other = stand
        .exchange_as(Some(&stand.identity(SIDECAR)), &own)
        .await
        .expect("an answer");
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn an_envoy_with_another_policy_document_is_noticed() {
    let stand = Stand::start().await;
    let mut form = Stand::with_spiffe_id(BOT, "openai");
    form.push(("policy_digest", "0123456789abcdef"));
    assert_eq!(stand.exchange(&form).await.status, 200);
    let event = stand.events().pop().expect("an event");
    assert_eq!(event["envoy_policy_digest"], "0123456789abcdef");
    let ours = event["policy_digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let last = form.len() - 1;
    form[last].1 = &ours;
    assert_eq!(stand.exchange(&form).await.status, 200);
    assert!(
        stand
            .events()
            .pop()
            .expect("an event")
            .get("envoy_policy_digest")
            .is_none()
    );
}

#[tokio::test]
async fn metrics_and_probes_tell_no_secret() {
    let stand = Stand::start().await;
    let token = stand.issuer.token("support-bot");
    assert_eq!(
        stand
            .exchange(&Stand::with_token(&token, "openai"))
            .await
            .status,
        200
    );
    assert_eq!(
        stand
            .exchange(&Stand::with_token("x", "openai"))
            .await
            .status,
        400
    );
    assert_eq!(stand.admin("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(stand.admin("/readyz").await, (200, "ready\n".to_owned()));
    let (status, metrics) = stand.admin("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "almoner_broker_exchanges_total{outcome=\"issued\"} 1",
        "almoner_broker_exchanges_total{outcome=\"token_malformed\"} 1",
        "almoner_broker_jwks_refreshes_total{issuer=\"https://issuer.example\",outcome=\"ok\"} 1",
        "almoner_broker_credential_expiry_seconds{provider=\"openai\"} 4102444800",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let audit = std::fs::read_to_string(stand.dir.path().join("audit.jsonl")).expect("audit");
    for text in [&metrics, &audit] {
        assert!(!text.contains("planted") && !text.contains(&token));
    }
}
