//! Durations and byte sizes as people write them.

use std::time::Duration;

/// How long data is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    For(Duration),
    /// Nothing expires, and any timestamp from 0 up is accepted.
    Unlimited,
}

/// `7d`, `12h 30m`, or `unlimited`.
pub fn retention(text: &str) -> Result<Retention, String> {
    if text == "unlimited" {
        return Ok(Retention::Unlimited);
    }
    match duration(text)? {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        some => Ok(Retention::For(some)),
    }
}

/// `250ms`, `1.5s`, `7d`, `1h 30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(whole) = humantime::parse_duration(text) {
        return Ok(whole);
    }
    // humantime has no fractions.
    let units = [
        ("ms", 1e-3),
        ("us", 1e-6),
        ("ns", 1e-9),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
        ("d", 86400.0),
    ];
    units
        .iter()
        .find_map(|(unit, seconds)| {
            let count: f64 = text.strip_suffix(unit)?.parse().ok()?;
            Duration::try_from_secs_f64(count * seconds).ok()
        })
        .ok_or_else(|| "must be a duration such as 90s, 1.5h or 7d".to_owned())
}

/// A whole number above 0.
pub fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number above 0".to_owned()),
        Ok(count) => Ok(count),
    }
}

/// `1GiB`, `512MiB`, `2GB`, `100k`, or a plain number of bytes. `K`, `M` and `G` alone are the powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "must be a size such as 512MiB or 2GiB".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (count, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = count.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let count: f64 = count.parse().map_err(|_| wrong())?;
    Ok((count * factor as f64) as u64)
}

/// A size as for [`bytes`], or `unlimited`.
pub fn size_limit(text: &str) -> Result<Option<u64>, String> {
    if text == "unlimited" { Ok(None) } else { bytes(text).map(Some) }
}

/// Bytes with a fitting unit.
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, expected) in [
            ("1GiB", Some(1 << 30)),
            ("512MiB", Some(512 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2 GB", Some(2_000_000_000)),
            ("4096", Some(4096)),
            ("", None),
            ("lots", None),
            ("-1", None),
            ("99999999999T", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, expected) in [
            ("250ms", Some(Duration::from_millis(250))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("500us", Some(Duration::from_micros(500))),
            ("7d", Some(Duration::from_secs(7 * 86400))),
            ("1h 30m", Some(Duration::from_secs(5400))),
            ("soon", None),
            ("-1s", None),
            ("", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        }
        assert_eq!(retention("unlimited"), Ok(Retention::Unlimited));
        assert!(retention("0s").is_err());
    }
}
