//! Calendar dates in UTC, for the date functions.

/// A point in time taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// 0 = Sunday.
    pub weekday: u32,
    /// 1 to 366.
    pub year_day: u32,
}

const DAY: i64 = 86_400;

impl Civil {
    /// From Unix seconds, by the proleptic Gregorian calendar.
    pub(crate) fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(DAY);
        let in_day = seconds.rem_euclid(DAY) as u32;
        // Years begin in March here, so that the leap day is the last of its year; eras are cycles
        // of 400 years.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let month = month as u32;
        let year_day = (1..month).map(|m| days_in_month(year, m)).sum::<u32>() + day;
        Civil {
            year,
            month,
            day,
            hour: in_day / 3600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
            weekday: (days + 4).rem_euclid(7) as u32,
            year_day,
        }
    }
}

/// Number of days of a month (1 to 12).
pub(crate) fn days_in_month(year: i64, month: u32) -> u32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let c = Civil::from_unix(1_136_239_445);
        assert_eq!((c.year, c.month, c.day), (2006, 1, 2));
        assert_eq!((c.hour, c.minute, c.second, c.weekday, c.year_day), (22, 4, 5, 1, 2));
        let leap = Civil::from_unix(1_709_164_800);
        assert_eq!((leap.year, leap.month, leap.day, leap.year_day), (2024, 2, 29, 60));
        let early = Civil::from_unix(-1);
        assert_eq!((early.year, early.month, early.day, early.hour), (1969, 12, 31, 23));
    }
}
