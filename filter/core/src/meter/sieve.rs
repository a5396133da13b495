//! Takes the ends of events in a stream; gives the bytes to forward, without the event that only we
//! asked for.
//!
//! With `stream_options.include_usage`, OpenAI's chat streams end with one more chunk, whose
//! `choices` is empty and whose `usage` is not null. A caller who did not ask for it may well take
//! `choices[0]`. All other bytes go on as they came.

use super::{Forward, More, tally::Event};

/// The longest event that is held back while it may be the one to drop; the real one is a tenth.
const MAX_HELD: usize = 16 * 1024;

/// Removes the events that hold a report and no choice.
#[derive(Default)]
pub(super) struct Sieve {
    /// The beginning of the event under way, from earlier chunks, not forwarded yet.
    held: Vec<u8>,
    /// Part of the event under way is forwarded: the rest must follow.
    released: bool,
    /// The event before was dropped.
    dropped: bool,
    /// What to forward for the chunk up to `settled`; `None` while that is the chunk itself.
    out: Option<Vec<u8>>,
    /// How much of the chunk is forwarded or dropped.
    settled: usize,
}

impl Sieve {
    /// Bytes of memory beside itself.
    pub(super) fn kept(&self) -> usize {
        self.held
            .capacity()
            .saturating_add(self.out.as_ref().map_or(0, Vec::capacity))
    }

    /// An event ends with the byte at `at`.
    pub(super) fn end_event(&mut self, chunk: &[u8], at: usize, event: Event) {
        let end = at.saturating_add(1);
        self.dropped = event.report && !event.choice && !self.released;
        self.released = false;
        if self.dropped {
            self.drop_to(chunk, end);
        } else {
            self.forward_to(chunk, end);
        }
    }

    /// The byte at `at` is the LF of a CRLF whose CR came before. Where that CR ended an event, it
    /// shares the event's fate.
    pub(super) fn end_pair(&mut self, chunk: &[u8], at: usize) {
        let between_events = self.held.is_empty() && self.settled == at && !self.released;
        let end = at.saturating_add(1);
        match (between_events, self.dropped) {
            (true, true) => self.drop_to(chunk, end),
            (true, false) => self.forward_to(chunk, end),
            (false, _) => {}
        }
    }

    /// The chunk ends, inside an event or between two.
    pub(super) fn end_chunk(&mut self, chunk: &[u8], event: Event, more: More) -> Forward {
        let rest = chunk.len().saturating_sub(self.settled);
        let undecided = !event.choice && !self.released;
        let fits = self.held.len().saturating_add(rest) <= MAX_HELD;
        if undecided && fits && more == More::Expected {
            self.hold(chunk);
        } else if undecided && event.report && more == More::Over {
            // The stream ends without the blank line: some callers read the event all the same.
            self.drop_to(chunk, chunk.len());
        } else if rest > 0 || !self.held.is_empty() {
            self.released = true;
            self.dropped = false;
            self.forward_to(chunk, chunk.len());
        }
        self.settled = 0;
        let forward = self.out.take().map_or(Forward::Unchanged, Forward::Replace);
        if !self.held.is_empty() {
            self.out = Some(Vec::new());
        }
        forward
    }

    fn hold(&mut self, chunk: &[u8]) {
        let rest = chunk.get(self.settled..).unwrap_or_default();
        if !rest.is_empty() {
            self.dropped = false;
            self.held.extend_from_slice(rest);
            self.drop_from(chunk, self.settled);
        }
    }

    fn drop_to(&mut self, chunk: &[u8], end: usize) {
        self.held.clear();
        self.drop_from(chunk, self.settled);
        self.settled = end;
    }

    /// From `at` on, what is forwarded is no longer the chunk itself.
    fn drop_from(&mut self, chunk: &[u8], at: usize) {
        if self.out.is_none() {
            self.out = Some(chunk.get(..at).unwrap_or_default().to_vec());
        }
    }

    fn forward_to(&mut self, chunk: &[u8], end: usize) {
        if let Some(out) = &mut self.out {
            out.append(&mut self.held);
            out.extend_from_slice(chunk.get(self.settled..end).unwrap_or_default());
        }
        self.settled = end;
    }
}
