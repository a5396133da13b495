//! Header pairs of a request and a response: a line is a header and what becomes of it, or a head
//! and how it is refused.

use almoner_core::{
    api::Api::{self, Anthropic, OpenAi},
    denial::Denial,
    head::{
        Head,
        endpoint::Body,
        headers::{Fate, PassHeaders, request_header, response_header},
    },
};

type Pair = (&'static str, &'static str);

const POST: [Pair; 4] = [
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    (":authority", "gateway:8080"),
    (":scheme", "http"),
];

fn read<'a>(pairs: &[(&'a str, &'a str)]) -> Result<Head<'a>, Denial> {
    Head::read(
        pairs
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    )
}

/// How a POST with these headers besides is refused, where JSON is expected.
fn refusal(headers: &[Pair]) -> Option<Denial> {
    let pairs: Vec<Pair> = POST.iter().chain(headers).copied().collect();
    read(&pairs).and_then(|head| head.expect(Body::Json)).err()
}

fn goes_up(api: Api, name: &str) -> bool {
    request_header(api, &PassHeaders::default(), name.as_bytes()) != Fate::Drop
}

// What the Python and Node SDKs send, call for call.
const OPENAI_PYTHON: &[Pair] = &[
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("authorization", "Bearer eyJ.a.b"),
    ("connection", "keep-alive"),
    ("content-length", "123"),
    ("content-type", "application/json"),
    ("user-agent", "OpenAI/Python 3.52.0"),
    ("x-request-id", "0e0e7b5f-0000-4000-8000-000000000000"),
    ("x-stainless-arch", "x64"),
    ("x-stainless-async", "false"),
    ("x-stainless-lang", "python"),
    ("x-stainless-os", "Linux"),
    ("x-stainless-package-version", "3.52.0"),
    ("x-stainless-read-timeout", "600"),
    ("x-stainless-retry-count", "0"),
    ("x-stainless-runtime", "CPython"),
    ("x-stainless-runtime-version", "3.11.7"),
];

const OPENAI_NODE: &[Pair] = &[
    ("accept", "application/json"),
    ("accept-encoding", "br, gzip, deflate"),
    ("accept-language", "*"),
    ("authorization", "Bearer eyJ.a.b"),
    ("content-length", "123"),
    ("content-type", "application/json"),
    ("openai-organization", "org-1"),
    ("openai-project", "proj_1"),
    ("sec-fetch-mode", "cors"),
    ("user-agent", "OpenAI/JS 6.0.0"),
    ("x-stainless-lang", "js"),
    ("x-stainless-retry-count", "0"),
];

const ANTHROPIC_PYTHON: &[Pair] = &[
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("anthropic-beta", "context-1m-2025-08-07"),
    ("anthropic-version", "2023-06-01"),
    ("content-type", "application/json"),
    ("user-agent", "Anthropic/Python 2.11.0"),
    ("x-api-key", "eyJ.a.b"),
    ("x-stainless-helper-method", "stream"),
    ("x-stainless-timeout", "600"),
];

const ANTHROPIC_NODE: &[Pair] = &[
    ("accept", "application/json"),
    ("anthropic-dangerous-direct-browser-access", "true"),
    ("anthropic-version", "2023-06-01"),
    ("content-type", "application/json"),
    ("user-agent", "Anthropic/JS 0.70.0"),
    ("x-api-key", "eyJ.a.b"),
    ("x-stainless-timeout", "600"),
];

#[test]
fn takes_what_the_sdks_send() {
    for headers in [OPENAI_PYTHON, OPENAI_NODE, ANTHROPIC_PYTHON, ANTHROPIC_NODE] {
        assert_eq!(refusal(headers), None, "{headers:?}");
    }
    let up = |api, headers: &[Pair]| -> Vec<&str> {
        headers
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| goes_up(api, name))
            .collect()
    };
    let common = [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "user-agent",
    ];
    assert_eq!(up(OpenAi, OPENAI_PYTHON), common);
    assert_eq!(up(OpenAi, OPENAI_NODE), common);
    assert_eq!(
        up(Anthropic, ANTHROPIC_PYTHON),
        [
            "accept",
            "accept-encoding",
            "anthropic-beta",
            "anthropic-version",
            "content-type",
            "user-agent"
        ]
    );
    assert_eq!(
        up(Anthropic, ANTHROPIC_NODE),
        ["accept", "anthropic-version", "content-type", "user-agent"]
    );
}

#[test]
fn lets_no_secret_and_no_machinery_up() {
    for name in [
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "ocp-apim-subscription-key",
        "cookie",
        "x-amz-security-token",
        "x-amz-date",
        "x-amz-content-sha256",
        "openai-organization",
        "openai-project",
        "anthropic-workspace-id",
        "anthropic-user-profile-id",
        "sec-websocket-protocol",
        "sec-websocket-key",
        "idempotency-key",
        "x-envoy-retry-on",
        "x-envoy-max-retries",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-original-path",
        "x-envoy-anything",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-client-cert",
        "forwarded",
        "via",
        "te",
        "trailer",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "expect",
        "host",
        "x-request-id",
        "x-geo-country",
        "traceparent",
        "baggage",
        "x-real-ip",
        "x-stainless-lang",
        "x-anything",
        "content-encoding",
        ":protocol",
        "",
        " ",
        "Authorization",
        "ACCEPT",
        "accept ",
        "content-typ",
        "content-type2",
        "x-http-method-override",
        "range",
        "if-none-match",
        "origin",
        "referer",
    ] {
        assert_eq!(
            request_header(OpenAi, &PassHeaders::default(), name.as_bytes()),
            Fate::Drop,
            "{name}"
        );
        assert_eq!(
            request_header(Anthropic, &PassHeaders::default(), name.as_bytes()),
            Fate::Drop,
            "{name}"
        );
    }
    for name in [":method", ":path", ":authority", ":scheme"] {
        assert_eq!(
            request_header(OpenAi, &PassHeaders::default(), name.as_bytes()),
            Fate::Keep,
            "{name}"
        );
    }
    assert!(!goes_up(OpenAi, "anthropic-version") && !goes_up(Anthropic, "openai-beta"));
}

#[test]
fn asks_for_an_answer_that_can_be_read() {
    assert_eq!(
        request_header(OpenAi, &PassHeaders::default(), b"accept-encoding"),
        Fate::Set("identity")
    );
}

#[test]
fn lets_up_what_the_configuration_names() {
    let mut pass = PassHeaders::default();
    pass.insert("x-tenant").unwrap();
    assert_eq!(request_header(OpenAi, &pass, b"x-tenant"), Fate::Keep);
    assert_eq!(request_header(OpenAi, &pass, b"x-tenant2"), Fate::Drop);
}

#[test]
fn says_what_a_configuration_can_not_name() {
    for name in [
        "",
        "X-Tenant",
        "x tenant",
        "x:tenant",
        ":path",
        "x-ténant",
        "authorization",
        "x-api-key",
        "api-key",
        "cookie",
        "set-cookie",
        "x-envoy-retry-on",
        "x-forwarded-for",
        "forwarded",
        "via",
        "te",
        "trailer",
        "transfer-encoding",
        "host",
        "openai-organization",
        "openai-project",
        "anthropic-workspace-id",
        "x-goog-user-project",
        "x-ms-client-request-id",
        "x-auth-user",
        "x-my-token",
        "x-secret",
        "x-password",
        "sec-websocket-protocol",
        "idempotency-key",
        "proxy-authorization",
        "x-amz-date",
        "upgrade",
        "expect",
        "content-encoding",
    ] {
        assert!(PassHeaders::default().insert(name).is_err(), "{name}");
    }
    for name in [
        "x-tenant",
        "traceparent",
        "tracestate",
        "x-request-id",
        "x-client-request-id",
        "accept-language",
    ] {
        assert_eq!(PassHeaders::default().insert(name), Ok(()), "{name}");
    }
}

#[test]
fn reads_the_head() {
    let pairs = [
        &POST[..],
        &[("content-length", "12"), ("openai-beta", "assistants=v2")],
    ]
    .concat();
    let head = read(&pairs).unwrap();
    assert_eq!(head.method, "POST");
    assert_eq!(head.target.path(), "/v1/chat/completions");
    assert_eq!(head.authority, "gateway:8080");
    assert_eq!(head.content_length(), Some(12));
    assert_eq!(head.betas, ["assistants=v2"]);
}

#[test]
fn reads_every_beta_flag_however_it_is_sent() {
    let betas = |headers: &[Pair]| {
        let pairs: Vec<Pair> = POST.iter().chain(headers).copied().collect();
        read(&pairs).map(|head| head.betas.join(" "))
    };
    assert_eq!(betas(&[("anthropic-beta", "a,b")]).unwrap(), "a b");
    assert_eq!(betas(&[("anthropic-beta", " a ,\tb , ,")]).unwrap(), "a b");
    assert_eq!(
        betas(&[("anthropic-beta", "a"), ("anthropic-beta", "b")]).unwrap(),
        "a b"
    );
    assert_eq!(
        betas(&[("anthropic-beta", "a"), ("openai-beta", "b")]).unwrap(),
        "a b"
    );
    let invalid = Err(Denial::HeaderInvalid {
        name: "anthropic-beta",
    });
    assert_eq!(betas(&[("anthropic-beta", "a b")]), invalid);
    assert_eq!(betas(&[("anthropic-beta", "\u{fe}")]), invalid);
}

#[test]
fn refuses_a_method_that_is_none() {
    for method in [
        "", "CONNECT", "TRACE", "post", "Post", "P OST", "POST ", "GET\0", "PÖST", "M-SEARCH",
    ] {
        let pairs = [
            (":method", method),
            (":path", "/v1/models"),
            (":authority", "a"),
        ];
        assert_eq!(
            read(&pairs).err(),
            Some(Denial::MethodUnsupported),
            "{method:?}"
        );
    }
    assert_eq!(
        read(&[(":path", "/v1/models")]).err(),
        Some(Denial::MethodUnsupported)
    );
    assert_eq!(
        read(&[(":method", "GET")]).err(),
        Some(Denial::PathNotNormal)
    );
    assert_eq!(
        read(&[(":method", "CONNECT")]).err(),
        Some(Denial::MethodUnsupported)
    );
}

#[test]
#[rustfmt::skip]
fn refuses_upgrades_and_doubtful_framing() {
    let twice = |name| Some(Denial::HeaderInvalid { name });
    for (headers, denial) in [
        (&[("upgrade", "websocket")][..], Some(Denial::UpgradeUnsupported)),
        (&[("upgrade", "")], Some(Denial::UpgradeUnsupported)),
        (&[(":protocol", "websocket")], Some(Denial::UpgradeUnsupported)),
        (&[("content-length", "1"), ("transfer-encoding", "chunked")], Some(Denial::FramingAmbiguous)),
        (&[("transfer-encoding", "gzip, chunked")], Some(Denial::FramingAmbiguous)),
        (&[("transfer-encoding", "identity")], Some(Denial::FramingAmbiguous)),
        (&[("transfer-encoding", "xchunked")], Some(Denial::FramingAmbiguous)),
        (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Some(Denial::FramingAmbiguous)),
        (&[("content-length", "1"), ("content-length", "1")], Some(Denial::FramingAmbiguous)),
        (&[("content-length", "1"), ("content-length", "2")], Some(Denial::FramingAmbiguous)),
        (&[("content-length", "1,1")], Some(Denial::FramingAmbiguous)),
        (&[("content-length", "+1")], Some(Denial::FramingAmbiguous)),
        (&[("content-length", "-1")], Some(Denial::FramingAmbiguous)),
        (&[("content-length", "0x10")], Some(Denial::FramingAmbiguous)),
        (&[("content-length", "")], Some(Denial::FramingAmbiguous)),
        (&[("content-length", "99999999999999999999999")], Some(Denial::FramingAmbiguous)),
        (&[("content-encoding", "gzip")], Some(Denial::ContentEncodingUnsupported)),
        (&[("content-encoding", "identity, gzip")], Some(Denial::ContentEncodingUnsupported)),
        (&[("content-encoding", "")], Some(Denial::ContentEncodingUnsupported)),
        (&[(":path", "/v1/models")], twice(":path")),
        (&[(":method", "GET")], twice(":method")),
        (&[(":authority", "b")], twice(":authority")),
        (&[("content-type", "application/json"), ("content-type", "application/json")], twice("content-type")),
        (&[("content-type", "application/json"), ("content-encoding", "identity")], None),
        (&[("content-type", "application/json"), ("transfer-encoding", "Chunked")], None),
        // Not ours to refuse: they don't go up, and say nothing about the message.
        (&[("content-type", "application/json"), ("expect", "100-continue"), ("te", "trailers"), ("trailer", "x")], None),
    ] {
        assert_eq!(refusal(headers), denial, "{headers:?}");
    }
}

#[test]
fn reads_an_authority_that_is_host_and_port_only() {
    let authority = |value| {
        read(&[(":method", "GET"), (":path", "/"), (":authority", value)]).map(|h| h.authority)
    };
    for value in [
        "",
        "api.openai.com",
        "api.openai.com:443",
        "API.OpenAI.com",
        "api.openai.com.",
        "[::1]:8080",
        "10.0.0.1",
    ] {
        assert_eq!(authority(value), Ok(value), "{value}");
    }
    for value in [
        "user@host",
        "user:pass@host",
        "a b",
        "a/b",
        "a,b",
        "exämple.com",
        "a\0",
        "a%2e",
        "a#",
        "a?",
        "a\\b",
    ] {
        let denial = Denial::HeaderInvalid { name: ":authority" };
        assert_eq!(authority(value), Err(denial), "{value}");
    }
}

#[test]
fn wants_json_in_utf_8_where_json_is_expected() {
    for value in [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json; charset=utf-8",
        "application/json; charset=UTF-8",
        "application/json; charset=\"utf-8\"",
        "application/json ; Charset=Utf-8",
        " application/json",
    ] {
        assert_eq!(refusal(&[("content-type", value)]), None, "{value}");
    }
    for value in [
        "",
        "text/json",
        "text/plain",
        "application/jsonl",
        "application/x-json",
        "application/json5",
        "application/problem+json",
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
        "application/json; charset=latin1",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; boundary=x",
        "application/json, text/plain",
        "application/json;",
        "application/json; charset='utf-8'",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/json\0",
        "application/jſon",
    ] {
        let denial = Some(Denial::ContentTypeUnsupported);
        assert_eq!(refusal(&[("content-type", value)]), denial, "{value}");
    }
    assert_eq!(refusal(&[]), Some(Denial::ContentTypeUnsupported));
}

#[test]
fn refuses_a_body_where_none_belongs() {
    let expect = |length, body| {
        let pairs = [
            (":method", "GET"),
            (":path", "/v1/models"),
            ("content-length", length),
        ];
        read(&pairs).and_then(|head| head.expect(body))
    };
    assert_eq!(expect("0", Body::None), Ok(()));
    assert_eq!(expect("1", Body::None), Err(Denial::BodyUnexpected));
    assert_eq!(expect("1", Body::Opaque), Ok(()));
}

#[test]
fn lets_down_what_a_caller_needs_and_no_more() {
    let both = [
        ":status",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "request-id",
        "retry-after",
        "retry-after-ms",
        "x-request-id",
        "x-should-retry",
    ];
    for name in both {
        assert_eq!(
            response_header(OpenAi, name.as_bytes()),
            Fate::Keep,
            "{name}"
        );
        assert_eq!(
            response_header(Anthropic, name.as_bytes()),
            Fate::Keep,
            "{name}"
        );
    }
    for (api, name, fate) in [
        (OpenAi, "x-ratelimit-remaining-tokens", Fate::Keep),
        (OpenAi, "openai-processing-ms", Fate::Keep),
        (Anthropic, "anthropic-ratelimit-tokens-reset", Fate::Keep),
        (Anthropic, "x-ratelimit-remaining-tokens", Fate::Drop),
    ] {
        assert_eq!(response_header(api, name.as_bytes()), fate, "{name}");
    }
    for name in [
        "set-cookie",
        "set-cookie2",
        "openai-organization",
        "openai-project",
        "anthropic-organization-id",
        "x-ms-region",
        "x-ms-deployment-name",
        "apim-request-id",
        "cf-ray",
        "cf-cache-status",
        "server",
        "alt-svc",
        "via",
        "strict-transport-security",
        "www-authenticate",
        "proxy-authenticate",
        "authorization",
        "x-envoy-upstream-service-time",
        "location",
        "refresh",
        "access-control-allow-origin",
        "upgrade",
        "connection",
        "transfer-encoding",
        "trailer",
        "x-anything",
        "",
    ] {
        assert_eq!(
            response_header(OpenAi, name.as_bytes()),
            Fate::Drop,
            "{name}"
        );
        assert_eq!(
            response_header(Anthropic, name.as_bytes()),
            Fate::Drop,
            "{name}"
        );
    }
}
