//! What budgets count: the units, and amounts given in all of them at once.

use std::str::FromStr;

use crate::units::{MicroUsd, Tokens};

use super::window::Expected;

/// What a budget's limit counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Unit {
    /// Tokens that the model read.
    InputTokens,
    /// Money, in millionths of a US dollar.
    MicroUsd,
    /// Tokens that the model wrote.
    OutputTokens,
    /// Requests, each counted when it is admitted.
    Requests,
    /// Tokens read and written.
    Tokens,
}

impl Unit {
    /// The name in configuration, records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InputTokens => "input_tokens",
            Self::MicroUsd => "usd",
            Self::OutputTokens => "output_tokens",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }

    /// Whether admission is the spending itself. A budget of requests limits how many begin in a
    /// window: holding one until its stream ends would make it a limit of concurrency.
    pub(super) const fn is_spent_at_admission(self) -> bool {
        matches!(self, Self::Requests)
    }
}

impl FromStr for Unit {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        [
            Self::InputTokens,
            Self::MicroUsd,
            Self::OutputTokens,
            Self::Requests,
            Self::Tokens,
        ]
        .into_iter()
        .find(|unit| unit.as_str() == text)
        .ok_or_else(|| Expected {
            expected: "one of `requests`, `input_tokens`, `output_tokens`, `tokens`, `usd`",
            found: text.to_owned(),
        })
    }
}

/// One exchange's amount in every unit: what may be spent, or what was.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Amounts {
    /// How many requests.
    pub requests: u64,
    /// Tokens read.
    pub input: Tokens,
    /// Tokens written.
    pub output: Tokens,
    /// The price of both.
    pub cost: MicroUsd,
}

impl Amounts {
    /// Nothing in any unit.
    pub const ZERO: Self = Self {
        requests: 0,
        input: Tokens::ZERO,
        output: Tokens::ZERO,
        cost: MicroUsd::ZERO,
    };

    /// The amount in one unit.
    #[must_use]
    pub const fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::InputTokens => self.input.0,
            Unit::MicroUsd => self.cost.0,
            Unit::OutputTokens => self.output.0,
            Unit::Requests => self.requests,
            Unit::Tokens => self.input.plus(self.output).0,
        }
    }
}

/// How much of a limit stands, in thousandths: a verdict may lower it while exchanges run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Clamp(
    /// At most 1000.
    u16,
);

impl Clamp {
    /// The whole limit.
    pub const NONE: Self = Self(1000);

    /// `n` thousandths of a limit; above 1000 is the whole limit.
    #[must_use]
    pub const fn per_mille(n: u16) -> Self {
        if n < 1000 { Self(n) } else { Self::NONE }
    }

    /// What is left of `limit`, rounded down.
    pub(super) fn of(self, limit: u64) -> u64 {
        let scaled = u128::from(limit).saturating_mul(u128::from(self.0)) / 1000;
        u64::try_from(scaled).unwrap_or(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::{Amounts, Clamp, Unit};
    use crate::units::{MicroUsd, Tokens};

    #[test]
    fn each_unit_reads_its_own_amount() {
        let amounts = Amounts {
            requests: 1,
            input: Tokens(20),
            output: Tokens(300),
            cost: MicroUsd(4),
        };
        let of = |name: &str| amounts.of(name.parse::<Unit>().unwrap());
        assert_eq!(of("requests"), 1);
        assert_eq!(of("input_tokens"), 20);
        assert_eq!(of("output_tokens"), 300);
        assert_eq!(of("tokens"), 320);
        assert_eq!(of("usd"), 4);
    }

    #[test]
    fn an_unknown_unit_names_the_known_ones() {
        assert_eq!(
            "token".parse::<Unit>().unwrap_err().to_string(),
            "expected one of `requests`, `input_tokens`, `output_tokens`, `tokens`, `usd`, \
             found `token`"
        );
    }

    #[test]
    fn a_clamp_scales_without_overflow_and_never_raises() {
        assert_eq!(Clamp::per_mille(250).of(1000), 250);
        assert_eq!(Clamp::per_mille(0).of(u64::MAX), 0);
        assert_eq!(Clamp::per_mille(1).of(999), 0);
        assert_eq!(Clamp::NONE.of(u64::MAX), u64::MAX);
        assert_eq!(Clamp::per_mille(5000).of(7), 7);
    }
}
