//! Numbers as people read them.

/// Nanoseconds: `0 s`, `820 ns`, `4.2 µs`, `180 ms`, `1.25 s`, `3 min 20 s`.
pub fn duration(ns: f64) -> String {
    let magnitude = ns.abs();
    if magnitude == 0.0 {
        // An axis in seconds does not begin with nanoseconds.
        "0 s".to_owned()
    } else if magnitude < 1e3 {
        format!("{ns:.0} ns")
    } else if magnitude < 1e6 {
        format!("{} µs", significant(ns / 1e3))
    } else if magnitude < 1e9 {
        format!("{} ms", significant(ns / 1e6))
    } else if magnitude < 60e9 {
        format!("{} s", significant(ns / 1e9))
    } else {
        let seconds = (magnitude / 1e9).round() as u64;
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        match (hours, minutes, rest) {
            (0, m, 0) => format!("{m} min"),
            (0, m, s) => format!("{m} min {s} s"),
            (h, m, _) => format!("{h} h {m} min"),
        }
    }
}

/// Three significant digits without needless zeros.
pub fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Large counts: `999`, `12.3 k`, `4.5 M`.
pub fn count(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 1e3 {
        significant(value)
    } else if magnitude < 1e6 {
        format!("{} k", significant(value / 1e3))
    } else if magnitude < 1e9 {
        format!("{} M", significant(value / 1e6))
    } else {
        format!("{} G", significant(value / 1e9))
    }
}

/// Up to six significant digits, for numbers that may be anything.
pub fn six_digits(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || !(1e-6..1e15).contains(&magnitude) {
        return format!("{value}");
    }
    let digits = (5 - magnitude.log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A whole number with its digits in groups: `36,122`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes by powers of 1024: `999 B`, `1.5 KiB`, `20 MiB`.
pub fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value.abs() < 1024.0 {
            return format!("{} {unit}", significant(value));
        }
        value /= 1024.0;
    }
    format!("{} TiB", significant(value))
}

/// Per second.
pub fn rate(value: f64) -> String {
    format!("{}/s", count(value))
}

/// A share of 1 as percent: `0%`, `<0.1%`, `4.2%`.
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent == 0.0 {
        "0%".to_owned()
    } else if percent < 0.1 {
        "<0.1%".to_owned()
    } else {
        format!("{}%", significant(percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_people_expect() {
        for (ns, text) in [
            (0.0, "0 s"),
            (820.0, "820 ns"),
            (4_200.0, "4.2 µs"),
            (180e6, "180 ms"),
            (1.25e9, "1.25 s"),
            (200e9, "3 min 20 s"),
            (7_260e9, "2 h 1 min"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn counts_and_percents_stay_short() {
        assert_eq!(count(12_345.0), "12.3 k");
        assert_eq!(count(100.0), "100");
        assert_eq!(six_digits(159.635_570_174_999_88), "159.636");
        assert_eq!((six_digits(0.5), six_digits(-2e9)), ("0.5".into(), "-2000000000".into()));
        assert_eq!((grouped(7), grouped(36_122)), ("7".into(), "36,122".into()));
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(bytes(1536.0), "1.5 KiB");
        assert_eq!(bytes(3e15), "2728 TiB");
        assert_eq!(count(-2_500.0), "-2.5 k");
        assert_eq!(percent(0.0421), "4.21%");
        assert_eq!(percent(0.000_01), "<0.1%");
        assert_eq!(percent(1.0), "100%");
    }
}
