//! Takes a request in Anthropic's wire format; gives the answer that Anthropic would give.
//!
//! Messages as in Anthropic's API reference: in a stream, `message_start` has the input and an early
//! output count, `message_delta` the cumulative output.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, Piece, headers};
use crate::behaviour::{Behaviour, Fail};
use crate::journal::Usage;
use crate::words;

pub(crate) fn answer(method: &Method, path: &str, body: &[u8], cue: &Behaviour) -> Answer {
    let request = serde_json::from_slice::<Value>(body);
    let mut answer = match (method, path, request) {
        (&Method::POST, "/v1/messages", Ok(request)) if request["max_tokens"].is_u64() => {
            messages(&request, cue)
        }
        (&Method::POST, "/v1/messages/count_tokens", Ok(request)) => {
            let count = json!({"input_tokens": input_tokens(&request, cue)});
            Answer::json(StatusCode::OK, &count, 0, 0)
        }
        (&Method::POST, "/v1/messages" | "/v1/messages/count_tokens", _) => fail(Fail::BadRequest),
        _ => fail(Fail::NotFound),
    };
    answer.headers.extend(headers(&[
        (
            "anthropic-organization-id",
            "00000000-0000-4000-8000-000000000000",
        ),
        ("anthropic-ratelimit-requests-limit", "4000"),
        ("anthropic-ratelimit-requests-remaining", "3999"),
        ("request-id", "req_simulated"),
        ("set-cookie", "_cfuvid=simulated; path=/; HttpOnly; Secure"),
    ]));
    answer
}

/// An error in Anthropic's shape.
pub(crate) fn fail(fail: Fail) -> Answer {
    let (status, kind, message) = match fail {
        Fail::BadCredential => (401, "authentication_error", "invalid x-api-key"),
        Fail::BadRequest => (400, "invalid_request_error", "max_tokens: Field required"),
        Fail::NotFound => (404, "not_found_error", "Not found"),
        Fail::Overloaded => (529, "overloaded_error", "Overloaded"),
        Fail::Permission => (
            403,
            "permission_error",
            "Your API key can't use this resource.",
        ),
        Fail::RateLimited => (
            429,
            "rate_limit_error",
            "This request would exceed a rate limit.",
        ),
        Fail::Server => (500, "api_error", "Internal server error"),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut error = error(kind, message);
    error["request_id"] = "req_simulated".into();
    Answer::json(status, &error, 0, 0)
}

fn error(kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

fn input_tokens(request: &Value, cue: &Behaviour) -> u64 {
    let text = ["system", "messages"].map(|field| words::tokens_in(&request[field]));
    cue.input
        .unwrap_or_else(|| text.into_iter().fold(0, u64::saturating_add))
}

fn messages(request: &Value, cue: &Behaviour) -> Answer {
    let allowed = request["max_tokens"].as_u64();
    let length = words::length(cue.output, allowed);
    let turn = Turn {
        model: &request["model"],
        tool: tool(request),
        stop: if Some(length) == allowed {
            "max_tokens"
        } else {
            "end_turn"
        },
        usage: Usage {
            input: input_tokens(request, cue),
            output: length,
        },
        reports: cue.usage.unwrap_or(true),
    };
    if request["stream"].as_bool() == Some(true) {
        turn.streamed()
    } else {
        turn.whole()
    }
}

/// The tool to use: the first one offered, unless its result is already there.
fn tool(request: &Value) -> Option<&str> {
    let last = request["messages"]
        .as_array()
        .and_then(|messages| messages.last());
    let blocks = last.and_then(|message| message["content"].as_array());
    if blocks.is_some_and(|blocks| blocks.iter().any(|block| block["type"] == "tool_result")) {
        return None;
    }
    request["tools"][0]["name"].as_str()
}

struct Turn<'a> {
    model: &'a Value,
    tool: Option<&'a str>,
    stop: &'static str,
    usage: Usage,
    reports: bool,
}

impl Turn<'_> {
    fn whole(&self) -> Answer {
        let text: String = words::speak(self.usage.output).collect();
        let block = match self.tool {
            None => json!({"type": "text", "text": text}),
            Some(_) => self.tool_block(json!({"text": text})),
        };
        let mut value = self.message(json!([block]), Some(self.stop_reason()));
        if self.reports {
            value["usage"] = wire_usage(self.usage);
        }
        Answer::json(StatusCode::OK, &value, self.usage.input, self.usage.output)
    }

    fn streamed(&self) -> Answer {
        let early = Usage {
            output: self.usage.output.min(1),
            ..self.usage
        };
        let mut message = self.message(json!([]), None);
        let mut delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null},
        });
        if self.reports {
            message["usage"] = wire_usage(early);
            delta["usage"] = json!({"output_tokens": self.usage.output});
        }
        let block = match self.tool {
            None => json!({"type": "text", "text": ""}),
            Some(_) => self.tool_block(json!({})),
        };
        let start = json!({"type": "message_start", "message": message});
        let mut pieces = vec![
            Piece {
                usage: self.reports.then_some(early),
                ..event(&start)
            },
            event(&json!({"type": "content_block_start", "index": 0, "content_block": block})),
            event(&json!({"type": "ping"})),
        ];
        for part in self.parts() {
            let value = json!({"type": "content_block_delta", "index": 0, "delta": part});
            pieces.push(Piece {
                output: 1,
                ..event(&value)
            });
        }
        pieces.push(event(&json!({"type": "content_block_stop", "index": 0})));
        pieces.push(Piece {
            usage: self.reports.then_some(self.usage),
            ..event(&delta)
        });
        pieces.push(event(&json!({"type": "message_stop"})));
        let failed = error("overloaded_error", "Overloaded");
        Answer::events(
            pieces,
            format!("event: error\ndata: {failed}\n\n"),
            self.usage.input,
        )
    }

    /// The content deltas, each of one token.
    fn parts(&self) -> Vec<Value> {
        let text: Vec<&str> = words::speak(self.usage.output).collect();
        let last = text.len().saturating_sub(1);
        let part = |(index, word): (usize, &&str)| {
            if self.tool.is_none() {
                return json!({"type": "text_delta", "text": word});
            }
            let opens = if index == 0 { "{\"text\": \"" } else { "" };
            let closes = if index == last { "\"}" } else { "" };
            json!({"type": "input_json_delta", "partial_json": format!("{opens}{word}{closes}")})
        };
        text.iter().enumerate().map(part).collect()
    }

    fn stop_reason(&self) -> &'static str {
        if self.tool.is_some() {
            "tool_use"
        } else {
            self.stop
        }
    }

    fn tool_block(&self, input: Value) -> Value {
        json!({"type": "tool_use", "id": "toolu_simulated", "name": self.tool, "input": input})
    }

    fn message(&self, content: Value, stop_reason: Option<&str>) -> Value {
        json!({
            "id": "msg_simulated", "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": stop_reason, "stop_sequence": null,
        })
    }
}

fn wire_usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input, "output_tokens": usage.output,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "service_tier": "standard",
    })
}

fn event(value: &Value) -> Piece {
    let kind = value["type"].as_str().unwrap_or_default();
    Piece::from(format!("event: {kind}\ndata: {value}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_reports_first_the_input_and_last_the_output() {
        let request = json!({"model": "m", "max_tokens": 9, "messages": [{"content": "12345678"}], "stream": true});
        let answer = messages(&request, &Behaviour::default());
        let reported: Vec<_> = answer
            .pieces
            .iter()
            .filter_map(|piece| piece.usage)
            .collect();
        assert_eq!(
            reported,
            [
                Usage {
                    input: 2,
                    output: 1
                },
                Usage {
                    input: 2,
                    output: 9
                }
            ]
        );
        assert_eq!(
            answer.pieces.iter().map(|piece| piece.output).sum::<u64>(),
            9
        );
    }

    #[test]
    fn a_request_without_max_tokens_is_refused() {
        let refused = answer(&Method::POST, "/v1/messages", b"{}", &Behaviour::default());
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
}
