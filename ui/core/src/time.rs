//! Time ranges and clock texts.

/// A range as the address holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// The last so many ns up to now, with the text it was given as.
    Last(u64, String),
    /// Unix ns.
    Fixed(u64, u64),
}

/// Choices of the range picker.
pub const CHOICES: [&str; 6] = ["5m", "15m", "1h", "6h", "24h", "7d"];

pub const DEFAULT: &str = "15m";

impl Range {
    /// From the address: `range=15m`, or `start` and `end` in Unix ns.
    pub fn parse(range: Option<&str>, start: Option<&str>, end: Option<&str>) -> Self {
        let number = |text: Option<&str>| text.and_then(|t| t.parse::<u64>().ok());
        if let (Some(start), Some(end)) = (number(start), number(end))
            && start < end
        {
            return Self::Fixed(start, end);
        }
        let text = range.unwrap_or(DEFAULT);
        match length(text) {
            Some(ns) => Self::Last(ns, text.to_owned()),
            None => Self::Last(length(DEFAULT).unwrap_or(900_000_000_000), DEFAULT.to_owned()),
        }
    }

    /// Start and end, Unix ns.
    pub fn bounds(&self, now_ns: u64) -> (u64, u64) {
        match self {
            Self::Last(ns, _) => (now_ns.saturating_sub(*ns), now_ns),
            Self::Fixed(start, end) => (*start, *end),
        }
    }

    /// As query parameters, without a leading separator.
    pub fn query(&self) -> String {
        match self {
            Self::Last(_, text) => format!("range={text}"),
            Self::Fixed(start, end) => format!("start={start}&end={end}"),
        }
    }

    pub fn is_live(&self) -> bool {
        matches!(self, Self::Last(..))
    }
}

/// `15m`, `24h`, `7d`, `30s` → ns.
pub fn length(text: &str) -> Option<u64> {
    let split = text.len().checked_sub(1)?;
    let (number, unit) = text.split_at_checked(split)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds * 1_000_000_000).filter(|ns| *ns > 0)
}

/// Time of day in a zone `offset_minutes` east of UTC: `14:03:07.250`.
pub fn clock(time_ns: u64, offset_minutes: i64, millis: bool) -> String {
    let local = time_ns as i128 + i128::from(offset_minutes) * 60_000_000_000;
    let ms = local.div_euclid(1_000_000).rem_euclid(86_400_000);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    if millis {
        format!("{h:02}:{m:02}:{s:02}.{:03}", ms % 1_000)
    } else {
        format!("{h:02}:{m:02}:{s:02}")
    }
}

/// Date and time of day: `2026-11-25 14:03:07`.
pub fn date_clock(time_ns: u64, offset_minutes: i64, millis: bool) -> String {
    let local = time_ns as i128 + i128::from(offset_minutes) * 60_000_000_000;
    let days = local.div_euclid(86_400_000_000_000) as i64;
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {}", clock(time_ns, offset_minutes, millis))
}

/// Days since 1970 as a Gregorian date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_from_the_address_and_go_back() {
        let last = Range::parse(Some("1h"), None, None);
        assert_eq!(last.bounds(7_200_000_000_000), (3_600_000_000_000, 7_200_000_000_000));
        assert_eq!(last.query(), "range=1h");
        let fixed = Range::parse(Some("1h"), Some("5"), Some("9"));
        assert_eq!(fixed.query(), "start=5&end=9");
        assert_eq!(Range::parse(Some("soon"), None, None).query(), "range=15m");
    }

    #[test]
    fn clocks_show_local_time() {
        let t = 1_700_000_000_250_000_000;
        assert_eq!(date_clock(t, 0, true), "2023-11-14 22:13:20.250");
        assert_eq!(date_clock(t, 120, false), "2023-11-15 00:13:20");
    }
}
