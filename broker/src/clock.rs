//! The only place that asks what time it is: gives a [`Timestamp`] to whoever passes it on.

use std::time::{Duration, SystemTime};

use almoner_core::units::{Timestamp, millis};

/// The time now. A clock that stands before 1970 gives zero, where no token is valid yet.
#[must_use]
pub(crate) fn now() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock is read here and nowhere else"
    )]
    let now = SystemTime::now();
    Timestamp(millis(
        now.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    ))
}

/// `time` in RFC 3339, for people and for logs.
#[must_use]
pub(crate) fn rfc3339(time: Timestamp) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(|| "out of range".to_owned(), |time| time.to_string())
}
