//! JSON bodies of requests: a line is a body and what it says, or how it is refused.

use almoner_core::{
    api::{
        Endpoint::{self, *},
        State,
    },
    body::{self, BodyFacts},
    denial::Denial,
    units::Tokens,
};

fn read(endpoint: Endpoint, text: &str) -> Result<BodyFacts<'_>, Denial> {
    body::read(endpoint, text.as_bytes())
}

fn denial(endpoint: Endpoint, text: &str) -> Option<Denial> {
    read(endpoint, text).err()
}

/// A chat body with this field beside the usual ones.
fn chat(field: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],{field}}}"#)
}

#[test]
fn refuses_what_is_not_one_json_object_in_utf_8() {
    use Denial::*;
    for (text, expected) in [
        ("", BodyMissing),
        (" \t\r\n", BodyMissing),
        ("\u{feff}{}", BodyNotUtf8),
        ("[]", BodyNotObject),
        ("null", BodyNotObject),
        ("\"{}\"", BodyNotObject),
        ("1", BodyNotObject),
        ("x", BodyNotObject),
        ("\u{b}{}", BodyNotObject),
        ("\u{c}{}", BodyNotJson),
        ("\u{a0}{}", BodyNotObject),
        ("{", BodyNotJson),
        ("{}x", BodyNotJson),
        ("{}{}", BodyNotJson),
        ("{} {}", BodyNotJson),
        ("{}\n{}", BodyNotJson),
        ("{},", BodyNotJson),
        ("{}\0", BodyNotJson),
        ("{}\u{feff}", BodyNotJson),
        ("{\"a\":1,}", BodyNotJson),
        ("{,}", BodyNotJson),
        ("{a:1}", BodyNotJson),
        ("{'a':1}", BodyNotJson),
        ("{\"a\":NaN}", BodyNotJson),
        ("{\"a\":Infinity}", BodyNotJson),
        ("{\"a\":-Infinity}", BodyNotJson),
        ("{\"a\":undefined}", BodyNotJson),
        ("{\"a\":True}", BodyNotJson),
        ("{\"a\":01}", BodyNotJson),
        ("{\"a\":+1}", BodyNotJson),
        ("{\"a\":.5}", BodyNotJson),
        ("{\"a\":1.}", BodyNotJson),
        ("{\"a\":0x10}", BodyNotJson),
        ("{\"a\":1e}", BodyNotJson),
        ("{\"a\":\"\n\"}", BodyNotJson),
        ("{\"a\":\"\t\"}", BodyNotJson),
        ("{\"a\":\"\\x41\"}", BodyNotJson),
        ("{\"a\":\"\\u12\"}", BodyNotJson),
        ("{\"a\":\"\\", BodyNotJson),
        ("{\"a\":\"", BodyNotJson),
        ("{\"a\":[1,]}", BodyNotJson),
        ("{\"a\":[}", BodyNotJson),
        ("{\"a\":1]", BodyNotJson),
        ("{\"a\":1 \"b\":2}", BodyNotJson),
        ("{\"a\":1}//c", BodyNotJson),
        ("{/*c*/\"a\":1}", BodyNotJson),
        ("{1:2}", BodyNotJson),
        ("{\"a\":1}}", BodyNotJson),
        // Half a character, where text is read.
        ("{\"input\":\"\\ud83d\"}", BodyNotJson),
        ("{\"messages\":[{\"content\":\"\\ude00\"}]}", BodyNotJson),
        ("{\"mod\\ud800el\":\"m\"}", BodyNotJson),
        (")]}',\n{}", BodyNotObject),
    ] {
        assert_eq!(denial(Chat, text), Some(expected), "{text:?}");
    }
    for bytes in [
        &b"\xff\xfe{\0}\0"[..],
        b"\xfe\xff\0{\0}",
        b"\x00\x00\xfe\xff",
        b"{\"model\":\"\xff\"}",
        b"{\"model\":\"\xc0\xaf\"}",
        b"{\"model\":\"\xed\xa0\x80\"}",
        b"\x1f\x8b\x08",
    ] {
        assert_eq!(
            body::read(Chat, bytes).err(),
            Some(BodyNotUtf8),
            "{bytes:?}"
        );
    }
    // UTF-16 and UTF-32 without a mark are valid UTF-8, and no JSON.
    assert_eq!(denial(Chat, "{\0}\0"), Some(BodyNotJson));
    assert_eq!(denial(Chat, "\0{\0}"), Some(BodyNotObject));
}

#[test]
fn takes_white_space_around_and_between() {
    let facts = read(
        Chat,
        " \t\r\n{ \"model\" :\n\"m\" ,\t\"stream\" : true }\r\n ",
    )
    .unwrap();
    assert_eq!(facts.models, ["m"]);
    assert!(facts.stream);
    let spaces = " ".repeat(8 << 20);
    assert_eq!(denial(Chat, &format!("{spaces}{{}}")), None);
    assert_eq!(denial(Chat, &format!("{{{spaces}}}")), None);
    assert_eq!(denial(Chat, &spaces), Some(Denial::BodyMissing));
}

#[test]
fn nests_to_128_levels_and_no_deeper() {
    let nested = |levels: usize, open: &str, close: &str| {
        format!(
            "{{\"x\":{}{}}}",
            open.repeat(levels - 1),
            close.repeat(levels - 1)
        )
    };
    let deep = Some(Denial::BodyTooDeep);
    assert_eq!(denial(Chat, &nested(128, "[", "]")), None);
    assert_eq!(denial(Chat, &nested(129, "[", "]")), deep);
    assert_eq!(denial(Chat, &nested(10_000, "[", "]")), deep);
    assert_eq!(denial(Chat, &nested(1_000_000, "[", "]")), deep);
    assert_eq!(
        denial(Chat, &format!("{{\"x\":{}", "{\"a\":".repeat(10_000))),
        deep
    );
    assert_eq!(
        denial(Chat, &format!("{{\"messages\":{}", "[".repeat(10_000))),
        deep
    );
    // Brackets in strings are no structure, wherever the strings end.
    assert_eq!(
        denial(Chat, &format!("{{\"x\":\"{}\"}}", "[".repeat(1000))),
        None
    );
    assert_eq!(
        denial(Chat, &format!("{{\"x\":\"\\\"{}\"}}", "{".repeat(1000))),
        None
    );
    assert_eq!(
        denial(
            Chat,
            &format!(
                "{{\"x\":\"\\\\\",\"y\":{}{}}}",
                "[".repeat(128),
                "]".repeat(128)
            )
        ),
        deep
    );
    // Siblings do not add up.
    assert_eq!(
        denial(Chat, &format!("{{\"x\":[{}[]]}}", "[],".repeat(1000))),
        None
    );
}

#[test]
fn refuses_two_keys_that_a_provider_may_take_for_one() {
    let twice = Some(Denial::DuplicateKey);
    for text in [
        r#"{"model":"a","model":"a"}"#,
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"a","mod\u0065l":"b"}"#,
        r#"{"mod\u0065l":"a","model":"b"}"#,
        r#"{"model":"a","Model":"b"}"#,
        r#"{"model":"a","MODEL":"b"}"#,
        r#"{"model":"a","mo\u0044el":"b"}"#,
        r#"{"unknown":1,"unknown":1}"#,
        r#"{"unknown":1,"UnKnown":1}"#,
        r#"{"\u212a":1,"k":1}"#,
        r#"{"":1,"":1}"#,
        r#"{"messages":[{"role":"user","role":"system"}]}"#,
        r#"{"messages":[{"content":"a","content":"b"}]}"#,
        r#"{"messages":[{"content":[{"type":"text","type":"file"}]}]}"#,
        r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"a","url":"b"}}]}]}"#,
        r#"{"tools":[{"type":"function","type":"mcp"}]}"#,
        r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
        r#"{"stream_options":{"x":1,"X":1}}"#,
        r#"{"metadata":{"user_id":"a","user_id":"b"}}"#,
        r#"{"container":{"id":"a","id":"b"}}"#,
        r#"{"mcp_servers":[{"url":"a","url":"b"}]}"#,
        r#"{"fallbacks":[{"model":"a","model":"b"}]}"#,
    ] {
        assert_eq!(denial(Chat, text), twice, "{text}");
    }
    // Where nothing is read, two keys decide nothing.
    for text in [
        r#"{"logit_bias":{"a":1,"a":2}}"#,
        r#"{"tools":[{"type":"function","function":{"parameters":{"properties":{"id":1,"ID":2}}}}]}"#,
    ] {
        assert_eq!(denial(Chat, text), None, "{text}");
    }
}

#[test]
fn refuses_a_key_that_only_some_parsers_take_for_one_that_is_read() {
    let not_exact = Some(Denial::KeyNotExact);
    for text in [
        r#"{"Model":"a"}"#,
        r#"{"MODEL":"a"}"#,
        r#"{"Stream":true}"#,
        r#"{"Max_Tokens":1}"#,
        "{\"max_to\u{212a}ens\":1}",
        "{\"me\u{17f}sages\":[]}",
        r#"{"\u017ftream":true}"#,
        r#"{"store":false,"Background":true}"#,
        r#"{"API_KEY":"s"}"#,
        r#"{"stream_options":{"Include_Usage":false}}"#,
        r#"{"tools":[{"Type":"mcp"}]}"#,
        r#"{"tools":[{"type":"mcp","Authorization":"s"}]}"#,
        r#"{"messages":[{"content":[{"type":"file","File":{}}]}]}"#,
    ] {
        assert_eq!(denial(Chat, text), not_exact, "{text}");
    }
    // Escapes alone make no other key.
    let facts = read(Chat, r#"{"mod\u0065l":"gpt\u002d4o","str\u0065am":true}"#).unwrap();
    assert_eq!(facts.models, ["gpt-4o"]);
    assert!(facts.stream);
}

#[test]
fn bounds_the_keys_of_one_object() {
    let object = |keys: usize| {
        let fields: Vec<String> = (0..keys).map(|i| format!("\"k{i}\":0")).collect();
        format!("{{{}}}", fields.join(","))
    };
    assert_eq!(denial(Chat, &object(1024)), None);
    assert_eq!(denial(Chat, &object(1025)), Some(Denial::TooManyKeys));
    assert_eq!(denial(Chat, &object(100_000)), Some(Denial::TooManyKeys));
}

#[test]
fn bounds_what_the_policy_has_to_compare() {
    let list = |names: usize, field: &str, quote: fn(usize) -> String| {
        let names: Vec<String> = (0..names).map(quote).collect();
        format!(r#"{{"{field}":[{}]}}"#, names.join(","))
    };
    for (key, field, quote) in [
        (
            "models",
            "model",
            (|i| format!("\"m{i}\"")) as fn(usize) -> String,
        ),
        ("fallbacks", "model", |i| format!(r#"{{"model":"m{i}"}}"#)),
        ("tools", "tools", |i| format!(r#"{{"type":"t{i}"}}"#)),
        ("betas", "betas", |i| format!("\"b{i}\"")),
        ("fallbacks", "speed", |i| format!(r#"{{"speed":"s{i}"}}"#)),
    ] {
        assert_eq!(denial(Chat, &list(64, key, quote)), None, "{key}");
        let too_many = Some(Denial::FieldInvalid { field });
        assert_eq!(denial(Chat, &list(65, key, quote)), too_many, "{key}");
        assert_eq!(denial(Chat, &list(200_000, key, quote)), too_many, "{key}");
    }
    // One name many times is one name; functions are the caller's own.
    assert_eq!(
        denial(Chat, &list(10_000, "models", |_| "\"m\"".to_owned())),
        None
    );
    let functions = list(10_000, "tools", |i| {
        format!(r#"{{"type":"function","name":"f{i}"}}"#)
    });
    assert_eq!(denial(Chat, &functions), None);
}

#[test]
fn refuses_values_that_are_not_what_is_documented() {
    for (field, value) in [
        ("model", "1"),
        ("model", "true"),
        ("model", "[\"m\"]"),
        ("model", "{\"id\":\"m\"}"),
        ("model", "\"\\ud83d\""),
        ("model", "\"\\ude00\""),
        ("max_tokens", "1.0"),
        ("max_tokens", "1.5"),
        ("max_tokens", "1e3"),
        ("max_tokens", "1E3"),
        ("max_tokens", "-1"),
        ("max_tokens", "-0"),
        ("max_tokens", "\"1\""),
        ("max_tokens", "true"),
        ("max_tokens", "[]"),
        ("max_tokens", "{}"),
        ("max_tokens", "4294967296"),
        ("max_tokens", "18446744073709551616"),
        ("max_tokens", "9007199254740993"),
        ("max_tokens", "1e400"),
        ("max_completion_tokens", "1.0"),
        ("n", "1.0"),
        ("n", "-1"),
        ("n", "\"2\""),
        ("best_of", "2.0"),
        ("stream", "1"),
        ("stream", "0"),
        ("stream", "\"true\""),
        ("stream", "[]"),
        ("store", "\"false\""),
        ("store", "0"),
        ("background", "1"),
        ("stream_options", "true"),
        ("stream_options", "[]"),
        ("stream_options", "\"\""),
        ("service_tier", "1"),
        ("service_tier", "[\"priority\"]"),
        ("speed", "1"),
        ("betas", "\"a\""),
        ("betas", "[1]"),
        ("user", "1"),
    ] {
        let text = format!(r#"{{"{field}":{value}}}"#);
        assert_eq!(
            denial(Chat, &text),
            Some(Denial::FieldInvalid { field }),
            "{text}"
        );
    }
    for (text, field) in [
        (
            r#"{"stream_options":{"include_usage":1}}"#,
            "stream_options.include_usage",
        ),
        (
            r#"{"stream_options":{"include_usage":"true"}}"#,
            "stream_options.include_usage",
        ),
        (r#"{"metadata":{"user_id":7}}"#, "metadata.user_id"),
        (r#"{"tools":[{"type":7}]}"#, "type"),
        (
            r#"{"tools":[{"type":"image_generation","model":7}]}"#,
            "model",
        ),
    ] {
        assert_eq!(
            denial(Chat, text),
            Some(Denial::FieldInvalid { field }),
            "{text}"
        );
    }
}

#[test]
fn takes_null_for_absent() {
    let text = chat(
        r#""max_tokens":null,"stream":null,"stream_options":null,"store":null,"n":null,"tools":null,
        "service_tier":null,"user":null,"previous_response_id":null,"file_ids":[],"metadata":null,
        "background":null,"functions":null,"web_search_options":null,"mcp_servers":null,
        "container":null,"conversation":null,"moderation":null,"models":null,"speed":null"#,
    );
    let facts = read(Chat, &text).unwrap();
    assert_eq!(facts.models, ["m"]);
    assert_eq!((facts.max_output_tokens, facts.choices), (None, 1));
    assert!(!facts.stream && !facts.background && !facts.usage_asked);
    assert_eq!((facts.state, facts.tools.len()), (None, 0));
}

#[test]
#[rustfmt::skip]
fn finds_every_model_that_is_named() {
    for (text, models) in [
        (r#"{"messages":[]}"#, &[][..]),
        (r#"{"model":null}"#, &[]),
        (r#"{"model":""}"#, &[""]),
        (r#"{"model":"a"}"#, &["a"]),
        (r#"{"models":["b","c"],"model":"a"}"#, &["a", "b", "c"]),
        (r#"{"model":"a","fallbacks":[{"model":"b"},{"model":"c"}]}"#, &["a", "b", "c"]),
        (r#"{"model":"a","fallbacks":"default"}"#, &["a", "default"]),
        (r#"{"model":"a","moderation":{"model":"b"}}"#, &["a", "b"]),
        (r#"{"model":"a","tools":[{"type":"image_generation","model":"b"}]}"#, &["a", "b"]),
        (r#"{"model":"a","tools":[{"type":"image_generation","svg":{"model":"b"}}]}"#, &["a", "b"]),
        (r#"{"model":"a","tools":[{"type":"advisor_20260301","model":"b","name":"advisor"}]}"#, &["a", "b"]),
        (r#"{"model":"a","tools":[{"type":"namespace","tools":[{"type":"image_generation","model":"b"}]}]}"#, &["a", "b"]),
        (r#"{"model":"a","input":[{"type":"additional_tools","tools":[{"type":"image_generation","model":"b"}]}]}"#, &["a", "b"]),
        (r#"{"model":"a","messages":[{"role":"user","content":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"type":"advisor_20260301","model":"b"}}}]}]}"#, &["a", "b"]),
        // A function's parameters may well be called model.
        (r#"{"model":"a","tools":[{"type":"function","function":{"parameters":{"properties":{"model":{}}}}}]}"#, &["a"]),
        (r#"{"model":"a","messages":[{"content":[{"type":"tool_use","id":"t","input":{"model":"x"}}]}]}"#, &["a"]),
    ] {
        assert_eq!(read(Responses, text).unwrap().models, models, "{text}");
    }
}

#[test]
#[rustfmt::skip]
fn finds_the_tools_that_the_provider_runs() {
    for (text, tools) in [
        (r#"{"tools":[]}"#, &[][..]),
        (r#"{"tools":[{"type":"function","function":{"name":"f"}},{"type":"custom","custom":{}}]}"#, &[]),
        (r#"{"tools":[{"name":"f","input_schema":{"type":"object"}},{"type":"custom","name":"g"},{"type":null}]}"#, &[]),
        (r#"{"tools":[{"type":"bash_20250124","name":"bash"},{"type":"text_editor_20250728"},{"type":"computer_20251124"},{"type":"memory_20250818"}]}"#, &[]),
        (r#"{"tools":[{"type":"local_shell"},{"type":"computer_use_preview"},{"type":"apply_patch"}]}"#, &[]),
        (r#"{"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#, &["web_search_20250305"]),
        (r#"{"tools":[{"name":"x","type":"code_execution_20250825"}]}"#, &["code_execution_20250825"]),
        (r#"{"tools":[{"type":"bash_code_execution_20250825"}]}"#, &["bash_code_execution_20250825"]),
        (r#"{"tools":[{"type":"bash_2025012"}]}"#, &["bash_2025012"]),
        (r#"{"tools":[{"type":"Function"}]}"#, &["Function"]),
        (r#"{"tools":[{"type":"\u006dcp"}]}"#, &["mcp"]),
        (r#"{"tools":[{"type":"mcp"},{"type":"mcp"},{"type":"file_search","vector_store_ids":[]}]}"#, &["mcp", "file_search"]),
        (r#"{"tools":{"type":"mcp"}}"#, &["mcp"]),
        (r#"{"tools":["web_search"]}"#, &["web_search"]),
        (r#"{"tools":[{"type":"something_new"}]}"#, &["something_new"]),
        (r#"{"tools":[{"type":"namespace","tools":[{"type":"mcp"}]}]}"#, &["mcp"]),
        (r#"{"input":[{"type":"tool_search_output","tools":[{"type":"mcp"}]}]}"#, &["mcp"]),
        (r#"{"messages":[{"content":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"type":"mcp_toolset"}}}]}]}"#, &["mcp_toolset"]),
        (r#"{"messages":[{"content":[{"type":"tool_addition","tool":{"type":"tool_reference","tool_name":"x"}}]}]}"#, &[]),
        (r#"{"mcp_servers":[{"type":"url","url":"https://x","name":"x"}]}"#, &["mcp"]),
        (r#"{"mcp_servers":[]}"#, &[]),
        (r#"{"web_search_options":{}}"#, &["web_search"]),
        (r#"{"plugins":[{"id":"web"}]}"#, &["plugins"]),
        (r#"{"search_parameters":{"mode":"on"}}"#, &["live_search"]),
        (r#"{"data_sources":[{"type":"azure_search","parameters":{"endpoint":"x"}}]}"#, &["data_sources"]),
    ] {
        assert_eq!(read(Chat, text).unwrap().tools, tools, "{text}");
    }
}

#[test]
#[rustfmt::skip]
fn finds_what_the_provider_keeps() {
    for (text, state) in [
        (r#"{"input":"hi"}"#, None),
        (r#"{"store":false}"#, None),
        (r#"{"store":true}"#, Some(State::Store)),
        (r#"{"previous_response_id":"resp_1"}"#, Some(State::PreviousResponse)),
        (r#"{"conversation":"conv_1"}"#, Some(State::Conversation)),
        (r#"{"conversation":{"id":"conv_1"}}"#, Some(State::Conversation)),
        (r#"{"thread":{"id":"t"}}"#, Some(State::Conversation)),
        (r#"{"prompt":{"id":"pmpt_1","version":"2"}}"#, Some(State::StoredPrompt)),
        (r#"{"prompt":"text"}"#, None),
        (r#"{"model":"ft:gpt-4o:org::x"}"#, Some(State::FineTunedModel)),
        (r#"{"container":"container_1"}"#, Some(State::Container)),
        (r#"{"container":{"id":"container_1"}}"#, Some(State::Container)),
        (r#"{"container":{"id":null,"skills":[{"type":"custom","skill_id":"s"}]}}"#, Some(State::Skill)),
        (r#"{"tools":[{"type":"code_interpreter","container":"cntr_1"}]}"#, Some(State::Container)),
        (r#"{"tools":[{"type":"code_interpreter","container":{"type":"auto"}}]}"#, None),
        (r#"{"tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["f"]}}]}"#, Some(State::File)),
        (r#"{"tools":[{"type":"shell","environment":{"type":"container_reference","container_id":"c"}}]}"#, Some(State::Container)),
        (r#"{"tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}"#, Some(State::VectorStore)),
        (r#"{"tools":[{"type":"image_generation","input_image_mask":{"file_id":"f"}}]}"#, Some(State::File)),
        (r#"{"messages":[{"content":[{"type":"file","file":{"file_id":"f"}}]}]}"#, Some(State::File)),
        (r#"{"messages":[{"content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}]}"#, Some(State::File)),
        (r#"{"messages":[{"content":[{"type":"container_upload","file_id":"f"}]}]}"#, Some(State::File)),
        (r#"{"messages":[{"content":[{"type":"tool_result","content":[{"type":"document","source":{"file_id":"f"}}]}]}]}"#, Some(State::File)),
        (r#"{"messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}"#, Some(State::Audio)),
        (r#"{"input":[{"content":[{"type":"input_file","file_id":"f"}]}]}"#, Some(State::File)),
        (r#"{"input":[{"content":[{"type":"input_image","file_id":"f"}]}]}"#, Some(State::File)),
        (r#"{"input":[{"type":"computer_call_output","output":{"file_id":"f"}}]}"#, Some(State::File)),
        (r#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#, Some(State::PreviousResponse)),
        (r#"{"input":[{"id":"msg_1","type":"item_reference"}]}"#, Some(State::PreviousResponse)),
        (r#"{"input":[{"id":"msg_1"}]}"#, Some(State::PreviousResponse)),
        (r#"{"input":[{"id":"msg_1","type":null}]}"#, Some(State::PreviousResponse)),
        (r#"{"input":[{"id":"rs_1","type":"reasoning","summary":[]}]}"#, Some(State::PreviousResponse)),
        (r#"{"input":[{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"x"}]}"#, None),
        (r#"{"input":[{"id":"ig_1","type":"image_generation_call"}]}"#, Some(State::PreviousResponse)),
        (r#"{"input":[{"id":"ig_1","type":"image_generation_call","result":"aGk="}]}"#, None),
        (r#"{"input":[{"id":"ci_1","type":"code_interpreter_call","container_id":"c"}]}"#, Some(State::Container)),
        (r#"{"input":[{"id":"msg_1","type":"message","role":"assistant","content":[]}]}"#, None),
        (r#"{"input":[{"id":"fc_1","type":"function_call","call_id":"c","arguments":"{}"}]}"#, None),
        (r#"{"messages":[{"id":"x","role":"user","content":"hi"}]}"#, None),
        (r#"{"messages":[{"content":[{"type":"tool_use","id":"toolu_1","input":{"file_id":"x"}}]}]}"#, None),
        (r#"{"diagnostics":{"previous_message_id":"msg_1"}}"#, Some(State::PreviousResponse)),
        (r#"{"diagnostics":{"previous_message_id":null}}"#, None),
        (r#"{"prompt_cache_options":{"comparison_response_id":"r"}}"#, Some(State::PreviousResponse)),
        (r#"{"fallback_credit_token":"t"}"#, Some(State::PreviousResponse)),
        (r#"{"assistant_id":"asst_1"}"#, Some(State::Assistant)),
        (r#"{"cached_content":"c"}"#, Some(State::CachedContent)),
    ] {
        assert_eq!(read(Responses, text).unwrap().state, state, "{text}");
    }
}

#[test]
#[rustfmt::skip]
fn refuses_secrets_wherever_the_schema_has_them() {
    for (text, field) in [
        (r#"{"tools":[{"type":"mcp","authorization":"s"}]}"#, "authorization"),
        (r#"{"tools":[{"authorization":"s","type":"mcp"}]}"#, "authorization"),
        (r#"{"tools":[{"type":"mcp","authoriz\u0061tion":"s"}]}"#, "authorization"),
        (r#"{"tools":[{"type":"mcp","headers":{"Authorization":"s"}}]}"#, "headers"),
        (r#"{"tools":[{"type":"namespace","tools":[{"type":"mcp","headers":{}}]}]}"#, "headers"),
        (r#"{"tools":[{"type":"code_interpreter","container":{"type":"auto","network_policy":{"domain_secrets":[]}}}]}"#, "domain_secrets"),
        (r#"{"tools":[{"type":"shell","environment":{"network_policy":{"domain_secrets":[{"value":"s"}]}}}]}"#, "domain_secrets"),
        (r#"{"input":[{"type":"tool_search_output","tools":[{"type":"mcp","authorization":"s"}]}]}"#, "authorization"),
        (r#"{"input":[{"type":"additional_tools","tools":[{"type":"mcp","headers":{}}]}]}"#, "headers"),
        (r#"{"mcp_servers":[{"url":"u","authorization_token":"s"}]}"#, "authorization_token"),
        (r#"{"messages":[{"content":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"authorization":"s"}}}]}]}"#, "authorization"),
        (r#"{"data_sources":[{"type":"azure_search","parameters":{"authentication":{"type":"api_key","key":"s"}}}]}"#, "authentication"),
        (r#"{"data_sources":[{"parameters":{"embedding_dependency":{"authentication":{}}}}]}"#, "authentication"),
        (r#"{"api_key":"s"}"#, "api_key"),
        (r#"{"extra_headers":{"x":"s"}}"#, "extra_headers"),
        (r#"{"authorization":"s"}"#, "authorization"),
    ] {
        assert_eq!(
            denial(Responses, text),
            Some(Denial::SecretInBody { field }),
            "{text}"
        );
    }
    // What describes a secret, or has none, is no secret.
    for text in [
        r#"{"tools":[{"type":"mcp","authorization":null,"headers":null}]}"#,
        r#"{"tools":[{"type":"function","name":"f","parameters":{"properties":{"authorization":{},"api_key":{}}}}]}"#,
        r#"{"tools":[{"name":"f","input_schema":{"properties":{"password":{}}}}]}"#,
        r#"{"messages":[{"content":[{"type":"tool_use","id":"t","input":{"headers":{}}}]}]}"#,
    ] {
        assert_eq!(denial(Responses, text), None, "{text}");
    }
}

#[test]
fn finds_the_bound_of_each_endpoint() {
    for (endpoint, text, limit) in [
        (Chat, r#"{"max_tokens":5}"#, Some(5)),
        (Chat, r#"{"max_completion_tokens":6}"#, Some(6)),
        (
            Chat,
            r#"{"max_completion_tokens":6,"max_tokens":5}"#,
            Some(6),
        ),
        (
            Chat,
            r#"{"max_tokens":7,"max_completion_tokens":6}"#,
            Some(7),
        ),
        (Chat, r#"{"max_output_tokens":5}"#, None),
        (Chat, r#"{"max_tokens":0}"#, Some(0)),
        (Chat, r#"{"max_tokens":4294967295}"#, Some(4_294_967_295)),
        (Completions, r#"{"max_tokens":5}"#, Some(5)),
        (Completions, r#"{"max_completion_tokens":5}"#, None),
        (Responses, r#"{"max_output_tokens":5}"#, Some(5)),
        (Responses, r#"{"max_tokens":5}"#, None),
        (Messages, r#"{"max_tokens":5}"#, Some(5)),
        (
            Messages,
            r#"{"max_tokens":5,"fallbacks":[{"model":"a","max_tokens":9}]}"#,
            Some(9),
        ),
        (Embeddings, r#"{"max_tokens":5}"#, None),
    ] {
        let facts = read(endpoint, text).unwrap();
        assert_eq!(
            facts.max_output_tokens,
            limit.map(Tokens),
            "{endpoint:?} {text}"
        );
    }
}

#[test]
fn counts_the_outputs_asked_for() {
    for (text, choices) in [
        (r#"{}"#, 1),
        (r#"{"n":0}"#, 1),
        (r#"{"n":3}"#, 3),
        (r#"{"n":3,"best_of":5}"#, 5),
        (r#"{"best_of":5,"n":3}"#, 5),
        (r#"{"prompt":"a"}"#, 1),
        (r#"{"prompt":["a"]}"#, 1),
        (r#"{"prompt":["a","b"],"n":2}"#, 4),
        (r#"{"prompt":[1,2,3]}"#, 1),
        (r#"{"prompt":[[1,2],[3]]}"#, 2),
        (r#"{"prompt":[]}"#, 1),
        (r#"{"prompt":null}"#, 1),
        (r#"{"n":4294967295,"prompt":["a","b"]}"#, 8_589_934_590),
    ] {
        assert_eq!(read(Completions, text).unwrap().choices, choices, "{text}");
    }
}

#[test]
fn reads_what_else_decides() {
    let text = chat(
        r#""stream":true,"stream_options":{"include_usage":true},"service_tier":"priority","user":"u",
        "background":true,"betas":["b1","b2"],"speed":"fast""#,
    );
    let facts = read(Chat, &text).unwrap();
    assert!(facts.stream && facts.usage_asked && facts.background);
    assert_eq!(facts.service_tier.as_deref(), Some("priority"));
    assert_eq!(facts.speeds, ["fast"]);
    assert_eq!(facts.betas, ["b1", "b2"]);
    assert_eq!(facts.end_user.as_deref(), Some("u"));
    let facts = read(
        Messages,
        r#"{"metadata":{"user_id":"v"},"speed":"standard","fallbacks":[{"speed":"fast"}]}"#,
    );
    let facts = facts.unwrap();
    assert_eq!(facts.end_user.as_deref(), Some("v"));
    assert_eq!(facts.speeds, ["standard", "fast"]);
    assert_eq!(
        read(Responses, r#"{"metadata":{"other":7}}"#)
            .unwrap()
            .end_user,
        None
    );
}

#[test]
#[rustfmt::skip]
fn counts_media_apart_from_text() {
    let blob = "A".repeat(10_000);
    for (text, attachments) in [
        (format!(r#"{{"messages":[{{"content":[{{"image_url":{{"url":"data:image/png;base64,{blob}"}}}}]}}]}}"# ), 1),
        (format!(r#"{{"messages":[{{"content":[{{"type":"image","source":{{"type":"base64","data":"{blob}"}}}}]}}]}}"# ), 1),
        (format!(r#"{{"messages":[{{"content":[{{"source":{{"data":"{blob}","type":"base64"}}}}]}}]}}"# ), 1),
        (format!(r#"{{"messages":[{{"content":[{{"input_audio":{{"data":"{blob}"}}}}]}}]}}"#), 1),
        (format!(r#"{{"messages":[{{"content":[{{"file":{{"file_data":"{blob}"}}}}]}}]}}"#), 1),
        (format!(r#"{{"input":[{{"content":[{{"type":"input_image","image_url":"data:{blob}"}}]}}]}}"# ), 1),
        (format!(r#"{{"input":[{{"content":[{{"file_data":"{blob}"}},{{"file_data":"{blob}"}}]}}]}}"# ), 2),
        (format!(r#"{{"input":[{{"type":"image_generation_call","result":"{blob}"}}]}}"#), 1),
    ] {
        let facts = read(Messages, &text).unwrap();
        assert_eq!(facts.attachments, attachments, "{}", &text[..80]);
        assert!(
            facts.input_text_bytes < 200,
            "{} {}",
            facts.input_text_bytes,
            &text[..80]
        );
    }
    // Text is text, also where a document could be.
    for text in [
        format!(r#"{{"messages":[{{"content":"{blob}"}}]}}"#),
        format!(r#"{{"messages":[{{"content":[{{"type":"text","text":"{blob}"}}]}}]}}"#),
        format!(
            r#"{{"messages":[{{"content":[{{"source":{{"type":"text","data":"{blob}"}}}}]}}]}}"#
        ),
        format!(
            r#"{{"messages":[{{"content":[{{"source":{{"data":"{blob}","type":"text"}}}}]}}]}}"#
        ),
        format!(
            r#"{{"messages":[{{"content":[{{"source":{{"type":"content","content":"{blob}"}}}}]}}]}}"#
        ),
        format!(r#"{{"system":"{blob}"}}"#),
        format!(r#"{{"tools":[{{"description":"{blob}"}}]}}"#),
    ] {
        let facts = read(Messages, &text).unwrap();
        assert_eq!(facts.input_text_bytes, text.len() as u64, "{}", &text[..80]);
    }
}

#[test]
fn passes_what_it_does_not_read() {
    for text in [
        chat(r#""temperature":0.7,"top_p":1e-2,"seed":-0,"x":1e400,"logit_bias":{"50256":-100}"#),
        chat(r#""response_format":{"type":"json_schema","json_schema":{"schema":{"a":1,"A":2}}}"#),
        chat(r#""x":"\ud800","extra":{"Model":"y","model":"z"}"#),
    ] {
        assert_eq!(read(Chat, &text).unwrap().models, ["m"], "{text}");
    }
}

#[test]
#[rustfmt::skip]
fn takes_what_the_sdks_send() {
    for (endpoint, text) in [
        (Chat, r#"{"messages":[{"role":"user","content":"Say this is a test"}],"model":"gpt-4o-mini"}"#),
        (Chat, r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"t"},{"type":"image_url","image_url":{"url":"https://x/y.png","detail":"low"}}]}],"model":"gpt-4o","n":1,"stream":true,"stream_options":{"include_usage":true},"temperature":0.2}"#),
        (Chat, r#"{"messages":[{"role":"user","content":"w"},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},{"role":"tool","tool_call_id":"call_1","content":"{}"}],"model":"gpt-4o","tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"x":{"type":"number"}},"required":["x"]},"strict":true}}],"tool_choice":"auto","parallel_tool_calls":false}"#),
        (Completions, r#"{"model":"gpt-3.5-turbo-instruct","prompt":"Once","max_tokens":16,"logprobs":5}"#),
        (Embeddings, r#"{"input":["a","b"],"model":"text-embedding-3-small","encoding_format":"base64"}"#),
        (Responses, r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]}],"instructions":"i","model":"gpt-5","reasoning":{"effort":"low"},"store":false,"include":["reasoning.encrypted_content"],"text":{"format":{"type":"text"}},"tools":[{"type":"function","name":"f","parameters":{"type":"object"},"strict":true}]}"#),
        (Messages, r#"{"max_tokens":1024,"messages":[{"role":"user","content":"Hello"}],"model":"claude-sonnet-4-5","stream":true}"#),
        (Messages, r#"{"max_tokens":2048,"messages":[{"role":"user","content":[{"type":"text","text":"t","cache_control":{"type":"ephemeral"}}]},{"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"s"},{"type":"tool_use","id":"toolu_1","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":[{"type":"text","text":"r"}]}]}],"model":"claude-opus-4-1","system":[{"type":"text","text":"s"}],"thinking":{"type":"enabled","budget_tokens":1024},"tools":[{"name":"f","description":"d","input_schema":{"type":"object","properties":{}}}],"metadata":{"user_id":"u"},"service_tier":"auto"}"#),
        (CountTokens, r#"{"messages":[{"role":"user","content":"Hello"}],"model":"claude-sonnet-4-5"}"#),
    ] {
        let facts = read(endpoint, text).unwrap();
        assert_eq!(facts.models.len(), 1, "{text}");
        assert_eq!(
            (facts.state, facts.tools.len(), facts.background),
            (None, 0, false),
            "{text}"
        );
    }
}
