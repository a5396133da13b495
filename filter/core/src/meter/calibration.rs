//! Takes what a model reported beside what was estimated of it; corrects the next estimates.

use crate::units::Tokens;

/// How much a model's own counts differ from our estimates, learned from the answers that report
/// both. It fits in a word, so that a slot of shared data holds one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Calibration {
    /// 0 <= reported, estimated <= `MAX_SUM`; both halve together, so that old answers fade.
    reported: u32,
    estimated: u32,
}

/// About how many tokens are remembered.
const MAX_SUM: u32 = 1 << 15;

/// Less than this teaches nothing: the answer may be all calls or all hidden reasoning.
const MIN_LESSON: u64 = 16;

/// Estimates are corrected by at most this factor, up or down.
const MAX_FACTOR: u64 = 8;

impl Calibration {
    /// Reads a word that `to_bits` wrote. Every word is some calibration; zero is none.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
        Self {
            reported: u32::from_be_bytes([a, b, c, d]),
            estimated: u32::from_be_bytes([e, f, g, h]),
        }
    }

    /// This calibration as one word.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        let [a, b, c, d] = self.reported.to_be_bytes();
        let [e, f, g, h] = self.estimated.to_be_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Learns from one answer that reports what was also estimated. One long answer weighs no more
    /// than the memory of all others.
    #[must_use]
    pub fn learn(self, reported: Tokens, estimated: Tokens) -> Self {
        let larger = reported.max(estimated).0;
        if reported.0 < MIN_LESSON || estimated.0 < MIN_LESSON {
            return self;
        }
        let scaled = |tokens: Tokens| {
            let most = u64::from(MAX_SUM / 2);
            let tokens = match larger > most {
                true => tokens.times(most).0.checked_div(larger).unwrap_or_default(),
                false => tokens.0,
            };
            u32::try_from(tokens).unwrap_or(MAX_SUM)
        };
        let halve = self.reported.max(self.estimated) > MAX_SUM / 2;
        let faded = |sum: u32| if halve { sum / 2 } else { sum }.min(MAX_SUM);
        Self {
            reported: faded(self.reported).saturating_add(scaled(reported)),
            estimated: faded(self.estimated).saturating_add(scaled(estimated)),
        }
    }

    /// What an estimate is once corrected.
    #[must_use]
    pub fn correct(self, estimate: Tokens) -> Tokens {
        let (Some(most), least) = (estimate.0.checked_mul(MAX_FACTOR), estimate.0 / MAX_FACTOR)
        else {
            return estimate;
        };
        let corrected = estimate.times(u64::from(self.reported)).0;
        corrected
            .checked_div(u64::from(self.estimated))
            .map_or(estimate, |tokens| Tokens(tokens.clamp(least, most)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrects_nothing_before_it_has_learned() {
        assert_eq!(Calibration::default().correct(Tokens(100)), Tokens(100));
    }

    #[test]
    fn learns_what_a_model_reports_and_forgets_what_it_used_to() {
        let mut calibration = Calibration::default();
        for _ in 0..100 {
            calibration = calibration.learn(Tokens(3000), Tokens(2000));
            assert_eq!(Calibration::from_bits(calibration.to_bits()), calibration);
        }
        assert_eq!(calibration.correct(Tokens(100)), Tokens(150));
        for _ in 0..100 {
            calibration = calibration.learn(Tokens(1000), Tokens(2000));
        }
        assert_eq!(calibration.correct(Tokens(100)), Tokens(50));
    }

    #[test]
    fn one_huge_or_tiny_answer_does_not_decide() {
        let calibration = Calibration::default().learn(Tokens(8000), Tokens(8000));
        assert_eq!(calibration.learn(Tokens(500), Tokens(1)), calibration);
        let calibration = calibration.learn(Tokens(u64::MAX), Tokens(1 << 60));
        assert!(calibration.correct(Tokens(100)) < Tokens(250));
    }

    #[test]
    fn any_word_corrects_within_bounds() {
        for bits in [
            u64::MAX,
            1,
            1 << 32,
            u64::from(u32::MAX),
            0xffff_0001_0000_0001,
        ] {
            let calibration = Calibration::from_bits(bits);
            assert!(calibration.correct(Tokens(800)) >= Tokens(100));
            assert!(calibration.correct(Tokens(800)) <= Tokens(6400));
            let _ = calibration
                .learn(Tokens(100), Tokens(100))
                .correct(Tokens(u64::MAX));
        }
    }
}
