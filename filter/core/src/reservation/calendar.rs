//! Takes a time; gives the number of the hour, day, week or month (UTC) that holds it, and back.

use crate::units::Timestamp;

const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// 1970-01-01 was a Thursday, three days after the Monday that week 0 began on.
const MONDAY_TO_EPOCH: u64 = 3 * DAY;

/// Days of 400 Gregorian years.
const ERA_DAYS: u64 = 146_097;

/// Days from 0000-03-01 to 1970-01-01: years that begin in March have the leap day at their end.
const MARCH_ZERO_TO_EPOCH: u64 = 719_468;

/// A unit of the calendar. The discriminants are part of the stored encoding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Period {
    Hour = 0,
    Day = 1,
    Week = 2,
    Month = 3,
}

impl Period {
    pub(super) fn from_number(number: u64) -> Option<Self> {
        [Self::Hour, Self::Day, Self::Week, Self::Month]
            .into_iter()
            .find(|period| *period as u64 == number)
    }

    /// How many of these periods ended between 1970 and `time`.
    pub(super) fn number_at(self, time: Timestamp) -> u64 {
        match self {
            Self::Hour => time.0 / HOUR,
            Self::Day => time.0 / DAY,
            Self::Week => time.0.saturating_add(MONDAY_TO_EPOCH) / WEEK,
            Self::Month => month_of_day(time.0 / DAY),
        }
    }

    /// When the period of this number begins.
    pub(super) fn begin(self, number: u64) -> Timestamp {
        Timestamp(match self {
            Self::Hour => number.saturating_mul(HOUR),
            Self::Day => number.saturating_mul(DAY),
            Self::Week => number.saturating_mul(WEEK).saturating_sub(MONDAY_TO_EPOCH),
            Self::Month => first_day_of(number).saturating_mul(DAY),
        })
    }
}

/// The month, counted from January 1970, that holds the day of this number since the epoch.
///
/// The arithmetic is `civil_from_days` of Howard Hinnant's "chrono-Compatible Low-Level Date
/// Algorithms". It saturates only at dates that no clock shows.
fn month_of_day(day: u64) -> u64 {
    let from_march_zero = day.saturating_add(MARCH_ZERO_TO_EPOCH);
    let era = from_march_zero / ERA_DAYS;
    let day_of_era = from_march_zero % ERA_DAYS;
    let leap_days = (day_of_era / 1460)
        .saturating_add(day_of_era / 146_096)
        .saturating_sub(day_of_era / 36_524);
    let year_of_era = day_of_era.saturating_sub(leap_days) / 365;
    let day_of_year = day_of_era.saturating_sub(days_before_year(year_of_era));
    let month_from_march = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    era.saturating_mul(400)
        .saturating_add(year_of_era)
        .saturating_mul(12)
        .saturating_add(month_from_march)
        .saturating_sub(MARCH_ZERO_TO_1970_MONTHS)
}

/// Months from 0000-03 to 1970-01.
const MARCH_ZERO_TO_1970_MONTHS: u64 = 1970 * 12 - 2;

/// The first day, since the epoch, of the month of this number (`days_from_civil`, as above).
fn first_day_of(month: u64) -> u64 {
    let from_march_zero = month.saturating_add(MARCH_ZERO_TO_1970_MONTHS);
    let year = from_march_zero / 12;
    let month_from_march = from_march_zero % 12;
    let day_of_year = month_from_march.saturating_mul(153).saturating_add(2) / 5;
    (year / 400)
        .saturating_mul(ERA_DAYS)
        .saturating_add(days_before_year(year % 400))
        .saturating_add(day_of_year)
        .saturating_sub(MARCH_ZERO_TO_EPOCH)
}

/// Days of an era before the year of this number in it.
fn days_before_year(year_of_era: u64) -> u64 {
    year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts months the slow way, day by day, with the leap years of the Gregorian calendar.
    fn days_in(year: u64, month: u64) -> u64 {
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    #[test]
    fn months_agree_with_counting_days_for_five_centuries() {
        let (mut day, mut number) = (0, 0);
        for year in 1970..2470 {
            for month in 1..=12 {
                let next = day + days_in(year, month);
                assert_eq!(first_day_of(number), day, "{year}-{month}");
                assert_eq!(month_of_day(day), number, "{year}-{month} begins");
                assert_eq!(month_of_day(next - 1), number, "{year}-{month} ends");
                (day, number) = (next, number + 1);
            }
        }
    }

    #[test]
    fn the_leap_day_is_in_february_to_its_last_millisecond() {
        let march_2028 = Period::Month.begin((2028 - 1970) * 12 + 2);
        assert_eq!(march_2028, Timestamp(1_835_481_600_000));
        assert_eq!(Period::Month.number_at(march_2028), (2028 - 1970) * 12 + 2);
        assert_eq!(
            Period::Month.number_at(Timestamp(march_2028.0 - 1)),
            (2028 - 1970) * 12 + 1
        );
    }

    #[test]
    fn a_week_begins_on_monday() {
        // 2026-11-23 is a Monday.
        let monday = Timestamp::from_secs(1_795_392_000);
        let week = Period::Week.number_at(monday);
        assert_eq!(Period::Week.begin(week), monday);
        assert_eq!(Period::Week.number_at(Timestamp(monday.0 - 1)), week - 1);
        assert_eq!(Period::Week.number_at(Timestamp(0)), 0);
    }

    #[test]
    fn every_period_holds_its_own_edges() {
        for period in [Period::Hour, Period::Day, Period::Week, Period::Month] {
            for number in [1, 2, 24, 683, 684, 685] {
                let (begin, end) = (period.begin(number), period.begin(number + 1));
                assert_eq!(period.number_at(begin), number, "{period:?}");
                assert_eq!(period.number_at(Timestamp(end.0 - 1)), number, "{period:?}");
            }
        }
    }
}
