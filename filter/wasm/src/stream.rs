//! The callbacks of one request: reads what the host has, lets its exchange decide, does that.

use std::rc::Rc;

use almoner_core::{
    denial::Denial,
    exchange::{AnswerStep, BodyStep, HeadStep, Stance},
    meter::{Forward, More},
    refusal::OperatorFault,
};
use proxy_wasm::{
    traits::{Context, HttpContext},
    types::{Action, BufferType, Bytes, MapType, Status},
};

use crate::{
    host,
    worker::{Live, Worker},
};

pub(crate) struct Stream {
    id: u32,
    worker: Rc<Worker>,
    live: Rc<Live>,
}

impl Stream {
    pub(crate) fn new(id: u32, worker: Rc<Worker>) -> Self {
        let live = worker.begin(id);
        Self { id, worker, live }
    }

    /// What this callback returns, by the state of the exchange.
    fn action(&self) -> Action {
        match self.live.exchange.borrow().stance() {
            Stance::Hold => Action::Pause,
            Stance::Pass => Action::Continue,
        }
    }

    /// The request is complete: decides, and sends it up, holds on, or answers it.
    fn on_complete(&self, body: &[u8]) -> Action {
        self.live.body_complete.set(true);
        let step = self.live.exchange.borrow_mut().on_body(
            body,
            self.id,
            &mut self.worker.leases.borrow_mut(),
            &self.worker.host(),
        );
        match step {
            BodyStep::Await(edit, fetch) => {
                if let Some(fetch) = fetch {
                    self.worker.ask(fetch);
                }
                self.or_fail(replace_body(edit.as_deref()))
            }
            BodyStep::Refuse(reply) => {
                self.worker.answer(&reply);
                Action::Pause
            }
            BodyStep::Send(edit, header, renew) => {
                if let Some(fetch) = renew {
                    self.worker.ask(fetch);
                }
                let done = replace_body(edit.as_deref())
                    .and_then(|()| host::set_request_header(header.name, &header.value));
                self.or_fail(done)
            }
        }
    }

    /// Goes on as the exchange says, or ends it where the host did not do as it was told.
    fn or_fail(&self, done: Result<(), Status>) -> Action {
        if done.is_err() {
            self.fail();
            return Action::Pause;
        }
        self.action()
    }

    fn fail(&self) {
        self.worker.critical(
            "host_failure",
            "the host did not edit a request or an answer",
        );
        let reply = self
            .live
            .exchange
            .borrow_mut()
            .refuse(OperatorFault::Host, &self.worker.host());
        self.worker.answer(&reply);
    }
}

fn replace_body(edit: Option<&[u8]>) -> Result<(), Status> {
    let Some(body) = edit else { return Ok(()) };
    host::replace_buffer(BufferType::HttpRequestBody, body)?;
    // Envoy does not: a provider would take what lies beyond the old length for another request.
    host::set_request_header("content-length", &body.len().to_string())
}

fn pairs(headers: &[(String, Bytes)]) -> Vec<(&[u8], &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_slice()))
        .collect()
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let headers = host::headers(MapType::HttpRequestHeaders);
        let step = self
            .live
            .exchange
            .borrow_mut()
            .on_head(&pairs(&headers), &self.worker.host());
        match step {
            HeadStep::Hold(edits) => {
                if host::edit_headers(MapType::HttpRequestHeaders, &edits).is_err() {
                    self.fail();
                    return Action::Pause;
                }
                if end_of_stream {
                    self.on_complete(&[])
                } else {
                    Action::Pause
                }
            }
            HeadStep::Refuse(reply) => {
                self.worker.answer(&reply);
                Action::Pause
            }
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.live.body_seen.set(true);
        if self.action() == Action::Continue {
            return Action::Continue;
        }
        let mut exchange = self.live.exchange.borrow_mut();
        if exchange.is_too_much(size, &self.worker.config) {
            let reply = exchange.refuse(Denial::BodyTooLarge, &self.worker.host());
            self.worker.answer(&reply);
            return Action::Pause;
        }
        drop(exchange);
        if !end_of_stream || self.live.body_complete.get() {
            return self.action();
        }
        self.on_complete(&host::buffer(BufferType::HttpRequestBody))
    }

    /// With trailers no body callback has the end of the stream: these are it.
    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.live.body_seen.set(true);
        if host::remove_all(MapType::HttpRequestTrailers).is_err() {
            self.fail();
            return Action::Pause;
        }
        if self.live.body_complete.get() {
            return self.action();
        }
        self.on_complete(&host::buffer(BufferType::HttpRequestBody))
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let headers = host::headers(MapType::HttpResponseHeaders);
        let step = self.live.exchange.borrow_mut().on_answer_head(
            &pairs(&headers),
            &mut self.worker.leases.borrow_mut(),
            &self.worker.host(),
        );
        match step {
            AnswerStep::Pass(edits) => {
                if host::edit_headers(MapType::HttpResponseHeaders, &edits).is_err() {
                    self.fail();
                    return Action::Pause;
                }
                if end_of_stream {
                    // Nothing can be held back where nothing has come.
                    let _ = self
                        .live
                        .exchange
                        .borrow_mut()
                        .on_answer_bytes(&[], More::Over);
                }
                Action::Continue
            }
            AnswerStep::Refuse(reply) => {
                self.worker.answer(&reply);
                Action::Pause
            }
        }
    }

    fn on_http_response_body(&mut self, _: usize, end_of_stream: bool) -> Action {
        let chunk = host::buffer(BufferType::HttpResponseBody);
        let more = if end_of_stream {
            More::Over
        } else {
            More::Expected
        };
        let forward = self
            .live
            .exchange
            .borrow_mut()
            .on_answer_bytes(&chunk, more);
        if let Forward::Replace(bytes) = forward
            && host::replace_buffer(BufferType::HttpResponseBody, &bytes).is_err()
        {
            self.worker
                .critical("host_failure", "can't replace a chunk of an answer");
            let _ = host::reset_stream();
        }
        Action::Continue
    }

    /// No API promises any; what a provider puts there is not the caller's business.
    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.live.exchange.borrow_mut().on_answer_trailers();
        if host::remove_all(MapType::HttpResponseTrailers).is_err() {
            self.worker
                .critical("host_failure", "can't remove the trailers of an answer");
            let _ = host::reset_stream();
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let exchange = self.live.exchange.take();
        self.worker.finish(&exchange.on_end(&self.worker.host()));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.worker.forget(self.id);
    }
}
