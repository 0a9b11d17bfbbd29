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

/// A mark on a time axis: where it stands, 0-1, and its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub share: f64,
    pub text: String,
}

/// About `wanted` marks at round local times between two Unix times in ns.
pub fn marks(start_ns: u64, end_ns: u64, offset_minutes: i64, wanted: usize) -> Vec<Mark> {
    const STEPS: [u64; 21] = [
        1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
        86_400, 172_800, 604_800, 2_592_000,
    ];
    let width = end_ns.saturating_sub(start_ns).max(1);
    let raw = width / 1_000_000_000 / wanted.max(1) as u64;
    let step = STEPS.into_iter().find(|step| *step >= raw).unwrap_or(STEPS[STEPS.len() - 1]);
    let step_ns = i128::from(step) * 1_000_000_000;
    let offset = i128::from(offset_minutes) * 60_000_000_000;
    let first = (i128::from(start_ns) + offset).div_euclid(step_ns) + 1;
    (first..)
        .map(|n| n * step_ns - offset)
        .take_while(|time| *time <= i128::from(end_ns))
        .map(|time| {
            let whole = date_clock(time as u64, offset_minutes, false);
            let text = match step {
                86_400.. => &whole[5..10],
                60.. => &whole[11..16],
                _ => &whole[11..],
            };
            let share = (time - i128::from(start_ns)) as f64 / width as f64;
            Mark { share, text: text.to_owned() }
        })
        .collect()
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
    fn marks_stand_at_round_local_times() {
        let start = 1_700_000_000_000_000_000; // 22:13:20
        let texts = |seconds: u64, zone| -> Vec<String> {
            let marks = marks(start, start + seconds * 1_000_000_000, zone, 5);
            assert!(marks.iter().all(|mark| (0.0..=1.0).contains(&mark.share)));
            marks.into_iter().map(|mark| mark.text).collect()
        };
        assert_eq!(texts(900, 0), ["22:15", "22:20", "22:25"]);
        assert_eq!(texts(60, 0), ["22:13:30", "22:13:45", "22:14:00", "22:14:15"]);
        assert_eq!(texts(86_400, 330), ["06:00", "12:00", "18:00", "00:00"]);
        assert_eq!(texts(3 * 86_400, 0), ["11-15", "11-16", "11-17"]);
        assert!(
            (marks(start, start + 900_000_000_000, 0, 5)[0].share - 100.0 / 900.0).abs() < 1e-9
        );
    }

    #[test]
    fn clocks_show_local_time() {
        let t = 1_700_000_000_250_000_000;
        assert_eq!(date_clock(t, 0, true), "2023-11-14 22:13:20.250");
        assert_eq!(date_clock(t, 120, false), "2023-11-15 00:13:20");
    }
}
