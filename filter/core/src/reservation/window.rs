//! Takes a window as the configuration spells it; gives the slots of time in which it counts.

use std::{num::NonZeroU64, str::FromStr, time::Duration};

use thiserror::Error;

use crate::units::{Timestamp, millis};

use super::calendar::Period;

/// Slots that a rolling window's length is divided into.
const DIVISIONS: u64 = 60;

/// Slots that a rolling window counts: one more, because the oldest is only partly in the past.
const ROLLING_SLOTS: NonZeroU64 = NonZeroU64::new(61).unwrap();

/// The most slots that any window counts.
pub(super) const MAX_SLOTS: usize = ROLLING_SLOTS.get() as usize;

const LONGEST: Duration = Duration::from_secs(31 * 24 * 60 * 60);
const SHORTEST: Duration = Duration::from_secs(1);

/// What was expected where something else was found; the caller knows where.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("expected {expected}, found `{found}`")]
pub struct Expected {
    /// What would have been right.
    pub expected: &'static str,
    /// What was there.
    pub found: String,
}

/// The period for which a limit holds.
///
/// A duration rolls: within any span of that length no more than the limit is spent. It frees at
/// the edges of its slots, so at most a sixtieth of it late, never early. A word is the calendar
/// in UTC, and frees at its edge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window(Kind);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Calendar(Period),
    /// The length of one slot in milliseconds.
    Rolling(NonZeroU64),
}

impl Window {
    /// The hour of the clock.
    pub const HOUR: Self = Self(Kind::Calendar(Period::Hour));
    /// The day, UTC.
    pub const DAY: Self = Self(Kind::Calendar(Period::Day));
    /// The week, from Monday (ISO 8601), UTC.
    pub const WEEK: Self = Self(Kind::Calendar(Period::Week));
    /// The month, UTC.
    pub const MONTH: Self = Self(Kind::Calendar(Period::Month));

    /// A window that rolls over `length`, rounded up to a whole number of slots.
    #[must_use]
    pub fn rolling(length: Duration) -> Self {
        let slot = millis(length).div_ceil(DIVISIONS);
        Self(Kind::Rolling(
            NonZeroU64::new(slot).unwrap_or(NonZeroU64::MIN),
        ))
    }

    /// How many slots count at a time: the one that holds now, and those before it.
    pub(super) const fn slots(self) -> NonZeroU64 {
        match self.0 {
            Kind::Calendar(_) => NonZeroU64::MIN,
            Kind::Rolling(_) => ROLLING_SLOTS,
        }
    }

    /// The number of the slot that holds `time`.
    pub(super) fn slot_at(self, time: Timestamp) -> u64 {
        match self.0 {
            Kind::Calendar(period) => period.number_at(time),
            Kind::Rolling(slot) => time.0 / slot,
        }
    }

    /// When what was spent in `slot` no longer counts.
    pub(super) fn frees(self, slot: u64) -> Timestamp {
        let next = slot.saturating_add(self.slots().get());
        match self.0 {
            Kind::Calendar(period) => period.begin(next),
            Kind::Rolling(length) => Timestamp(next.saturating_mul(length.get())),
        }
    }

    /// Nine bytes that tell windows apart.
    pub(super) fn encode(self) -> (u8, u64) {
        match self.0 {
            Kind::Calendar(period) => (1, period as u64),
            Kind::Rolling(slot) => (0, slot.get()),
        }
    }

    /// The window that was encoded, or `None` where these bytes are nobody's.
    pub(super) fn decode(kind: u8, number: u64) -> Option<Self> {
        match kind {
            0 => Some(Self(Kind::Rolling(NonZeroU64::new(number)?))),
            1 => Some(Self(Kind::Calendar(Period::from_number(number)?))),
            _ => None,
        }
    }
}

impl FromStr for Window {
    type Err = Expected;

    /// Reads `30s`, `1m`, `5h`, `7d` (1 s to 31 d), or `hour`, `day`, `week`, `month`.
    fn from_str(text: &str) -> Result<Self, Expected> {
        let expected = |expected| Expected {
            expected,
            found: text.to_owned(),
        };
        match text {
            "hour" => return Ok(Self::HOUR),
            "day" => return Ok(Self::DAY),
            "week" => return Ok(Self::WEEK),
            "month" => return Ok(Self::MONTH),
            _ => {}
        }
        let length = read_duration(text).ok_or_else(|| {
            expected("a duration such as `1m`, or one of `hour`, `day`, `week`, `month`")
        })?;
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Err(expected("a duration from `1s` to `31d`"));
        }
        Ok(Self::rolling(length))
    }
}

/// Digits and one of `s`, `m`, `h`, `d`; no sign, no space, no leading zero.
fn read_duration(text: &str) -> Option<Duration> {
    let (digits, seconds_each) = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]
        .into_iter()
        .find_map(|(suffix, seconds)| Some((text.strip_suffix(suffix)?, seconds)))?;
    if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(Duration::from_secs(count.checked_mul(seconds_each)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Window, String> {
        text.parse().map_err(|error: Expected| error.to_string())
    }

    #[test]
    fn reads_durations_and_words() {
        assert_eq!(parse("30s"), Ok(Window::rolling(Duration::from_secs(30))));
        assert_eq!(
            parse("5h"),
            Ok(Window::rolling(Duration::from_secs(5 * 3600)))
        );
        assert_eq!(
            parse("7d"),
            Ok(Window::rolling(Duration::from_secs(7 * 86400)))
        );
        assert_eq!(parse("month"), Ok(Window::MONTH));
    }

    #[test]
    fn says_what_was_expected_and_what_was_found() {
        for wrong in [
            "", "m", "1", "1 min", "+1m", "01m", "0s", "1.5h", "1M", "Hour", "-1s", "1ms",
        ] {
            assert_eq!(
                parse(wrong),
                Err(format!(
                    "expected a duration such as `1m`, or one of `hour`, `day`, `week`, `month`, \
                     found `{wrong}`"
                ))
            );
        }
        for wrong in ["32d", "999999h"] {
            let error = format!("expected a duration from `1s` to `31d`, found `{wrong}`");
            assert_eq!(parse(wrong), Err(error));
        }
        assert!(parse("99999999999999999999d").is_err());
        assert!(parse("9999999999999999999d").is_err());
    }

    #[test]
    fn a_rolling_window_counts_at_least_its_length_and_a_sixtieth_more_at_most() {
        for text in ["1s", "7s", "30s", "1m", "5h", "1d", "7d"] {
            let length = millis(read_duration(text).unwrap());
            let window: Window = text.parse().unwrap();
            for spent in [0, 1, 999, 1000, 1_700_000_000_123, 1_700_000_001_999] {
                let frees = window.frees(window.slot_at(Timestamp(spent))).0;
                assert!(frees >= spent + length, "{text}: freed early");
                // Slots are whole milliseconds, so each of the 61 may be up to 1 ms longer.
                assert!(
                    frees <= spent + length + length / 60 + 61,
                    "{text}: freed late"
                );
            }
        }
    }

    #[test]
    fn a_window_survives_its_encoding() {
        for text in ["1s", "31d", "hour", "day", "week", "month"] {
            let window: Window = text.parse().unwrap();
            let (kind, number) = window.encode();
            assert_eq!(Window::decode(kind, number), Some(window));
        }
        assert_eq!(Window::decode(0, 0), None);
        assert_eq!(Window::decode(1, 4), None);
        assert_eq!(Window::decode(2, 1), None);
    }
}
