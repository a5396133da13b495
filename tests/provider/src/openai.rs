//! Takes a request in OpenAI's wire format; gives the answer that OpenAI would give.
//!
//! Chat completions and embeddings as in OpenAI's API reference; a stream has usage only where
//! `stream_options.include_usage` asks for it: then `"usage": null` in every chunk, and one more
//! chunk, without choices, that has it.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, Piece, headers};
use crate::behaviour::{Behaviour, Fail};
use crate::journal::Usage;
use crate::words;

const CREATED: u64 = 1_767_225_600;

pub(crate) fn answer(method: &Method, path: &str, body: &[u8], cue: &Behaviour) -> Answer {
    let mut answer = match (method, path) {
        (&Method::GET, "/v1/models") => models(),
        (&Method::POST, "/v1/chat/completions") => with_json(body, |request| chat(request, cue)),
        (&Method::POST, "/v1/embeddings") => with_json(body, |request| embeddings(request, cue)),
        _ => fail(Fail::NotFound, ""),
    };
    answer.headers.extend(headers(&[
        ("openai-organization", "org-simulated"),
        ("openai-processing-ms", "7"),
        ("openai-version", "2020-10-01"),
        ("set-cookie", "__cf_bm=simulated; path=/; HttpOnly; Secure"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-request-id", "req_simulated"),
    ]));
    answer
}

/// An error in OpenAI's shape. `key` is what the caller presented: OpenAI repeats part of it.
pub(crate) fn fail(fail: Fail, key: &str) -> Answer {
    let (status, kind, code, message) = match fail {
        Fail::BadCredential => {
            let shown: String = key.chars().take(8).collect();
            let message = format!(
                "Incorrect API key provided: {shown}********. You can find your API key at \
                 https://platform.openai.com/account/api-keys."
            );
            (
                401,
                "invalid_request_error",
                Some("invalid_api_key"),
                message,
            )
        }
        Fail::BadRequest => {
            let message = "We could not parse the JSON body of your request.".to_owned();
            (400, "invalid_request_error", None, message)
        }
        Fail::NotFound => (
            404,
            "invalid_request_error",
            Some("unknown_url"),
            "Invalid URL".to_owned(),
        ),
        Fail::Permission => {
            let message = "You have insufficient permissions for this operation.".to_owned();
            (
                403,
                "invalid_request_error",
                Some("insufficient_permissions"),
                message,
            )
        }
        Fail::RateLimited => {
            let message = "Rate limit reached for requests".to_owned();
            (429, "requests", Some("rate_limit_exceeded"), message)
        }
        Fail::Overloaded => {
            let message = "The engine is currently overloaded, please try again later".to_owned();
            (503, "server_error", None, message)
        }
        Fail::Server => (500, "server_error", None, SERVER_ERROR.to_owned()),
    };
    let error = json!({"message": message, "type": kind, "param": null, "code": code});
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer::json(status, &json!({"error": error}), 0, 0)
}

const SERVER_ERROR: &str = "The server had an error while processing your request. Sorry!";

fn with_json(body: &[u8], then: impl FnOnce(&Value) -> Answer) -> Answer {
    match serde_json::from_slice(body) {
        Ok(request) => then(&request),
        Err(_) => fail(Fail::BadRequest, ""),
    }
}

fn models() -> Answer {
    let model = |id| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "system"});
    let list = json!({"object": "list", "data": [model("gpt-4o-mini"), model("gpt-4o")]});
    Answer::json(StatusCode::OK, &list, 0, 0)
}

fn embeddings(request: &Value, cue: &Behaviour) -> Answer {
    let input = cue
        .input
        .unwrap_or_else(|| words::tokens_in(&request["input"]));
    let count = request["input"].as_array().map_or(1, Vec::len);
    let vectors: Vec<Value> = (0..count)
        .map(|index| json!({"object": "embedding", "index": index, "embedding": [0.25, -0.5]}))
        .collect();
    let mut value = json!({"object": "list", "data": vectors, "model": request["model"]});
    if cue.usage.unwrap_or(true) {
        set(
            &mut value,
            "usage",
            json!({"prompt_tokens": input, "total_tokens": input}),
        );
    }
    Answer::json(StatusCode::OK, &value, input, 0)
}

fn chat(request: &Value, cue: &Behaviour) -> Answer {
    let input = cue
        .input
        .unwrap_or_else(|| words::tokens_in(&request["messages"]));
    let allowed = ["max_completion_tokens", "max_tokens"]
        .iter()
        .find_map(|f| request[f].as_u64());
    let length = words::length(cue.output, allowed);
    let choices = request["n"].as_u64().unwrap_or(1);
    let turn = Turn {
        model: &request["model"],
        tool: tool(request),
        choices,
        length,
        finish: if Some(length) == allowed {
            "length"
        } else {
            "stop"
        },
        usage: Usage {
            input,
            output: length.saturating_mul(choices),
        },
    };
    let reports = cue.usage.unwrap_or(true);
    if request["stream"].as_bool() != Some(true) {
        return turn.whole(reports);
    }
    let asked = request["stream_options"]["include_usage"].as_bool() == Some(true);
    turn.streamed(asked, reports)
}

/// The function to call: the first one offered, unless its result is already there.
fn tool(request: &Value) -> Option<&str> {
    let last = request["messages"]
        .as_array()
        .and_then(|messages| messages.last());
    if last.is_some_and(|message| message["role"] == "tool") || request["tool_choice"] == "none" {
        return None;
    }
    request["tools"][0]["function"]["name"].as_str()
}

struct Turn<'a> {
    model: &'a Value,
    tool: Option<&'a str>,
    choices: u64,
    /// Output tokens of each choice.
    length: u64,
    finish: &'static str,
    usage: Usage,
}

impl Turn<'_> {
    fn whole(&self, reports: bool) -> Answer {
        let text: String = words::speak(self.length).collect();
        let (message, finish) = match self.tool {
            None => (
                json!({"role": "assistant", "content": text, "refusal": null}),
                self.finish,
            ),
            Some(name) => {
                let arguments = json!({"text": text}).to_string();
                let function = json!({"name": name, "arguments": arguments});
                let call =
                    json!({"id": "call_simulated", "type": "function", "function": function});
                let calls = json!({"role": "assistant", "content": null, "tool_calls": [call]});
                (calls, "tool_calls")
            }
        };
        let choices: Vec<Value> = (0..self.choices)
            .map(|index| json!({"index": index, "message": message, "finish_reason": finish}))
            .collect();
        let mut value = json!({
            "id": "chatcmpl-simulated", "object": "chat.completion", "created": CREATED,
            "model": self.model, "choices": choices, "system_fingerprint": "fp_simulated",
        });
        if reports {
            set(&mut value, "usage", self.wire_usage());
        }
        Answer::json(StatusCode::OK, &value, self.usage.input, self.usage.output)
    }

    fn streamed(&self, asked: bool, reports: bool) -> Answer {
        let mut pieces = Vec::new();
        let opening = match self.tool {
            None => json!({"role": "assistant", "content": "", "refusal": null}),
            Some(name) => {
                let function = json!({"name": name, "arguments": ""});
                let id = "call_simulated";
                let call = json!({"index": 0, "id": id, "type": "function", "function": function});
                json!({"role": "assistant", "content": null, "tool_calls": [call]})
            }
        };
        for index in 0..self.choices {
            pieces.push(self.chunk(asked, json!([delta(index, opening.clone(), None)])));
        }
        let fragments = self.fragments();
        for fragment in &fragments {
            for index in 0..self.choices {
                let mut piece = self.chunk(asked, json!([delta(index, fragment.clone(), None)]));
                piece.output = 1;
                pieces.push(piece);
            }
        }
        let finish = if self.tool.is_some() {
            "tool_calls"
        } else {
            self.finish
        };
        for index in 0..self.choices {
            pieces.push(self.chunk(asked, json!([delta(index, json!({}), Some(finish))])));
        }
        if asked && reports {
            let mut value = self.envelope(json!([]));
            set(&mut value, "usage", self.wire_usage());
            let mut piece = event(&value);
            piece.usage = Some(self.usage);
            pieces.push(piece);
        }
        pieces.push(Piece::from("data: [DONE]\n\n".to_owned()));
        let error = json!({"error": {
            "message": SERVER_ERROR, "type": "server_error", "param": null, "code": null,
        }});
        Answer::events(pieces, format!("data: {error}\n\n"), self.usage.input)
    }

    /// The deltas after the first, each of one token.
    fn fragments(&self) -> Vec<Value> {
        if self.tool.is_none() {
            return words::speak(self.length)
                .map(|word| json!({"content": word}))
                .collect();
        }
        let text: Vec<&str> = words::speak(self.length).collect();
        let last = text.len().saturating_sub(1);
        let call = |(index, word): (usize, &&str)| {
            let opens = if index == 0 { "{\"text\": \"" } else { "" };
            let closes = if index == last { "\"}" } else { "" };
            let arguments = format!("{opens}{word}{closes}");
            json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})
        };
        text.iter().enumerate().map(call).collect()
    }

    fn chunk(&self, asked: bool, choices: Value) -> Piece {
        let mut value = self.envelope(choices);
        if asked {
            set(&mut value, "usage", Value::Null);
        }
        event(&value)
    }

    fn envelope(&self, choices: Value) -> Value {
        json!({
            "id": "chatcmpl-simulated", "object": "chat.completion.chunk", "created": CREATED,
            "model": self.model, "choices": choices, "service_tier": "default",
            "system_fingerprint": "fp_simulated",
        })
    }

    fn wire_usage(&self) -> Value {
        let Usage { input, output } = self.usage;
        json!({
            "prompt_tokens": input, "completion_tokens": output,
            "total_tokens": input.saturating_add(output),
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        })
    }
}

fn delta(index: u64, delta: Value, finish: Option<&str>) -> Value {
    json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish})
}

fn event(value: &Value) -> Piece {
    Piece::from(format!("data: {value}\n\n"))
}

fn set(value: &mut Value, field: &str, to: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(field.to_owned(), to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(request: &Value) -> Vec<Piece> {
        chat(request, &Behaviour::default()).pieces
    }

    fn has_usage(piece: &Piece) -> bool {
        memchr::memmem::find(&piece.bytes, b"\"prompt_tokens\"").is_some()
    }

    #[test]
    fn a_stream_reports_usage_only_when_asked() {
        let mut request = json!({"model": "m", "messages": [], "stream": true});
        assert!(!stream(&request).iter().any(has_usage));
        request["stream_options"] = json!({"include_usage": true});
        let pieces = stream(&request);
        let reporting: Vec<_> = pieces.iter().filter(|piece| has_usage(piece)).collect();
        assert_eq!(reporting.len(), 1);
        let generated = pieces.iter().map(|piece| piece.output).sum::<u64>();
        assert_eq!(reporting[0].usage.unwrap().output, generated);
    }

    #[test]
    fn each_choice_costs_its_own_output() {
        let request = json!({"model": "m", "messages": [], "n": 3, "max_tokens": 5});
        let answer = chat(&request, &Behaviour::default());
        assert_eq!(
            answer.pieces.iter().map(|piece| piece.output).sum::<u64>(),
            15
        );
    }

    #[test]
    fn streamed_arguments_are_one_json_value() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let request = json!({"model": "m", "messages": [], "tools": tools, "stream": true});
        let text: String = stream(&request)
            .iter()
            .filter_map(|piece| {
                serde_json::from_slice::<Value>(piece.bytes.strip_prefix(b"data: ")?).ok()
            })
            .filter_map(|chunk| {
                let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
                call["function"]["arguments"].as_str().map(str::to_owned)
            })
            .collect();
        assert!(serde_json::from_str::<Value>(&text).unwrap()["text"].is_string());
    }
}
