//! Query parameters: a line is what the caller sends and what goes up.

use almoner_core::{
    api::Api::{self, Anthropic, OpenAi},
    head::{Target, query},
};

fn sent_up(api: Api, target: &str) -> String {
    match Target::parse(target.as_bytes()) {
        Ok(parsed) => query::rewrite(api, parsed).unwrap_or_else(|| target.to_owned()),
        Err(denial) => format!("{denial:?}"),
    }
}

#[test]
#[rustfmt::skip]
fn lets_up_what_is_listed_and_nothing_else() {
    for (api, sent, up) in [
        (Anthropic, "/v1/messages?beta=true", "/v1/messages?beta=true"),
        (Anthropic, "/v1/models?limit=20&after_id=a", "/v1/models?limit=20&after_id=a"),
        (OpenAi, "/v1/responses/r?include[]=a&include[]=b", "/v1/responses/r?include[]=a&include[]=b"),
        (OpenAi, "/v1/responses/r?include%5B%5D=a", "/v1/responses/r?include%5B%5D=a"),
        (OpenAi, "/v1/files?limit=1&after=f", "/v1/files?limit=1&after=f"),
        // Secrets, in every spelling of their names.
        (OpenAi, "/p?key=s", "/p"),
        (OpenAi, "/p?%6Bey=s", "/p"),
        (OpenAi, "/p?%6bey=s", "/p"),
        (OpenAi, "/p?KEY=s", "/p"),
        (OpenAi, "/p?api_key=s", "/p"),
        (OpenAi, "/p?api-key=s", "/p"),
        (OpenAi, "/p?access_token=s", "/p"),
        (OpenAi, "/p?X-Amz-Signature=s", "/p"),
        (OpenAi, "/p?limit=1&key=s&after=x", "/p?limit=1&after=x"),
        (OpenAi, "/p?key=s&limit=1", "/p?limit=1"),
        (OpenAi, "/p?limit=1&key=s", "/p?limit=1"),
        (OpenAi, "/p?key", "/p"),
        (OpenAi, "/p?key=a&key=b", "/p"),
        // Separators that some servers know.
        (OpenAi, "/p?limit=1;key=s", "/p?limit=1"),
        (OpenAi, "/p?key=s;limit=1", "/p?limit=1"),
        (OpenAi, "/p?limit=1;", "/p?limit=1"),
        (OpenAi, "/p?limit=1?key=s", "/p?limit=1"),
        (OpenAi, "/p?key=s?limit=1", "/p?limit=1"),
        (OpenAi, "/p??limit=1", "/p?limit=1"),
        (OpenAi, "/p??key=s", "/p"),
        // Names that are none.
        (OpenAi, "/p?", "/p"),
        (OpenAi, "/p?=s", "/p"),
        (OpenAi, "/p?&", "/p"),
        (OpenAi, "/p?limit=1&&after=x", "/p?limit=1&after=x"),
        (OpenAi, "/p?&limit=1", "/p?limit=1"),
        (OpenAi, "/p?limit%00=1", "/p"),
        (OpenAi, "/p?limit%=1", "/p"),
        (OpenAi, "/p?limit%2=1", "/p"),
        (OpenAi, "/p?limit%+1=1", "/p"),
        (OpenAi, "/p?limit%2x=1", "/p"),
        (OpenAi, "/p?limit+=1", "/p"),
        (OpenAi, "/p?+limit=1", "/p"),
        (OpenAi, "/p?limit%3D1=s", "/p"),
        (OpenAi, "/p?Limit=1", "/p"),
        // A parameter of the other API.
        (OpenAi, "/p?after_id=x", "/p"),
        (Anthropic, "/p?after=x", "/p"),
    ] {
        assert_eq!(sent_up(api, sent), up, "{sent}");
    }
}

#[test]
fn says_nothing_where_nothing_changes() {
    for target in [
        "/v1/models",
        "/v1/files?limit=1",
        "/v1/files?limit=1&after=x&include[]=y",
    ] {
        let parsed = Target::parse(target.as_bytes()).unwrap();
        assert_eq!(query::rewrite(OpenAi, parsed), None, "{target}");
    }
}
