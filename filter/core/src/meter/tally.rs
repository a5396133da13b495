//! Takes what the scanner finds in one answer; keeps the numbers, and what else the record says.

use super::{
    estimate::Estimator,
    grammar::{Count, Counts, Label, Mark, Passes},
};
use crate::units::Tokens;

/// The longest model name or response id that is kept, in bytes.
const MAX_LABEL: usize = 128;

/// The most finish reasons that are kept: one answer has few different ones.
const MAX_FINISH_REASONS: usize = 8;

/// Larger numbers are a provider's mistake: no model reads or writes a trillion tokens at once.
const MAX_COUNT: f64 = 1e12;

/// What one answer has said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    pub(super) text: Estimator,
    pub(super) model: Option<String>,
    pub(super) response_id: Option<String>,
    pub(super) finish_reasons: Vec<String>,
    /// The provider said that it failed.
    pub(super) failed: bool,
    /// The provider said that the answer is whole.
    pub(super) finished: bool,
    /// What the event under way holds.
    pub(super) event: Event,
    /// The next number is the first of a report.
    pub(super) renew: bool,
    /// How many numbers were read: tells whether a stretch of JSON held any.
    pub(super) numbers: u32,
}

/// What one event holds. The extra one of a chat stream holds a report and no choice.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Event {
    pub(super) choice: bool,
    /// Its strings are sound or pictures, not words.
    pub(super) wordless: bool,
    pub(super) report: bool,
}

impl Tally {
    /// Bytes of memory beside itself.
    pub(super) fn kept(&self) -> usize {
        let labels = self
            .finish_reasons
            .iter()
            .chain(&self.model)
            .chain(&self.response_id);
        labels.map(String::capacity).fold(0, usize::saturating_add)
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::Choice => self.event.choice = true,
            Mark::Merge => {
                self.event.report = true;
                self.counts.passes = Passes::default();
            }
            Mark::None => {}
            Mark::Report => {
                self.event.report = true;
                self.renew = true;
            }
        }
    }

    pub(super) fn count(&mut self, count: Count, token: &[u8]) {
        if let Some(tokens) = parse(token) {
            *self.slot(count) = Some(tokens);
        }
    }

    pub(super) fn add(&mut self, count: Count, token: &[u8]) {
        if let Some(tokens) = parse(token) {
            let slot = self.slot(count);
            *slot = Some(slot.unwrap_or_default().plus(tokens));
        }
    }

    fn slot(&mut self, count: Count) -> &mut Option<Tokens> {
        self.numbers = self.numbers.wrapping_add(1);
        if self.renew {
            self.renew = false;
            self.counts = Counts::default();
        }
        self.counts.slot(count)
    }

    pub(super) fn label(&mut self, label: Label, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        match label {
            Label::Finish => self.finish(text),
            // The first name stands: some providers leave it out or blank in later events.
            Label::Model => keep_first(&mut self.model, text),
            Label::PassType => self.counts.passes.beside |= text != b"message",
            Label::ResponseId => keep_first(&mut self.response_id, text),
            Label::Status => match text {
                b"cancelled" | b"completed" | b"incomplete" => self.finish(text),
                b"failed" => self.error(),
                _ => {}
            },
            Label::Type => match text {
                b"error" | b"response.failed" => self.error(),
                b"message_stop" | b"transcript.text.done" => self.done(),
                _ => self.event.wordless = text.ends_with(b"audio.delta"),
            },
        }
    }

    pub(super) const fn done(&mut self) {
        self.finished = true;
    }

    pub(super) const fn error(&mut self) {
        self.failed = true;
    }

    pub(super) fn text(&mut self, run: &[u8]) {
        if !self.event.wordless {
            self.text.push(run);
        }
    }

    pub(super) fn code_unit(&mut self, code: u16) {
        if !self.event.wordless {
            self.text.push_code_unit(code);
        }
    }

    fn finish(&mut self, reason: &[u8]) {
        self.finished = true;
        let reason = bounded(reason);
        if self.finish_reasons.len() < MAX_FINISH_REASONS && !self.finish_reasons.contains(&reason)
        {
            self.finish_reasons.push(reason);
        }
    }
}

fn keep_first(slot: &mut Option<String>, text: &[u8]) {
    if slot.is_none() {
        *slot = Some(bounded(text));
    }
}

fn bounded(text: &[u8]) -> String {
    String::from_utf8_lossy(text.get(..MAX_LABEL).unwrap_or(text)).into_owned()
}

/// A JSON number as tokens, rounded up; `None` for what can't be a count: negative, not a number,
/// absurdly large.
pub(super) fn parse(token: &[u8]) -> Option<Tokens> {
    let number: f64 = str::from_utf8(token).ok()?.parse().ok()?;
    // A negative zero is zero; the cast is exact in this range.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..=MAX_COUNT)
        .contains(&number)
        .then(|| Tokens(number.ceil() as u64))
}
