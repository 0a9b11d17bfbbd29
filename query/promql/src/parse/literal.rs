//! Numbers, durations and strings as written in a query.

/// Reads a number: decimal with `_` between digits, exponent, `0x`, `0o`, `0b`, a leading `0` for
/// octal integers, `Inf` and `NaN` in any case.
pub(crate) fn parse_number(text: &str) -> Result<f64, String> {
    if text.eq_ignore_ascii_case("inf") || text.eq_ignore_ascii_case("+inf") {
        return Ok(f64::INFINITY);
    }
    if text.eq_ignore_ascii_case("-inf") {
        return Ok(f64::NEG_INFINITY);
    }
    if text.eq_ignore_ascii_case("nan") {
        return Ok(f64::NAN);
    }
    let bad =
        || format!("strconv.ParseFloat: parsing {}: invalid syntax", crate::text::quote(text));
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let radix = |digits: &str, radix| i64::from_str_radix(digits, radix).ok().map(|n| n as f64);
    let lower = plain.to_ascii_lowercase();
    for (prefix, base) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return radix(digits, base).ok_or_else(bad);
        }
    }
    if plain.len() > 1
        && plain.starts_with('0')
        && let Some(n) = radix(&plain[1..], 8)
    {
        return Ok(n);
    }
    if plain.bytes().all(|b| b.is_ascii_digit())
        && let Some(n) = radix(&plain, 10)
    {
        return Ok(n);
    }
    plain.parse::<f64>().map_err(|_| bad())
}

const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 24 * 3600 * 1000),
    ("w", 7 * 24 * 3600 * 1000),
    ("d", 24 * 3600 * 1000),
    ("h", 3600 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a duration such as `1h30m`: units in descending order, each at most once. Gives
/// milliseconds.
///
/// # Errors
/// A message for a text of another form or a duration beyond 292 years.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let bad = || format!("not a valid duration string: {}", crate::text::quote(text));
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut units = &UNITS[..];
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_len = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &rest[digits..digits + unit_len];
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(bad)?;
        let count: i64 = rest[..digits]
            .parse()
            .map_err(|_| if digits == 0 { bad() } else { "duration out of range".to_owned() })?;
        total = count
            .checked_mul(units[at].1)
            .and_then(|ms| total.checked_add(ms))
            .filter(|ms| *ms <= i64::MAX / 1_000_000)
            .ok_or("duration out of range")?;
        units = &units[at + 1..];
        rest = &rest[digits + unit_len..];
    }
    Ok(total)
}

/// Writes a duration in milliseconds the way it can be read again.
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    let mut rest = ms.abs();
    if ms < 0 {
        out.push('-');
    }
    for (unit, size) in UNITS {
        // Years and weeks only if nothing remains: 90d reads better than 12w6d.
        if matches!(unit, "y" | "w") && rest % size != 0 {
            continue;
        }
        if rest / size > 0 {
            out.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    out
}

/// Removes quotes and escapes. With escapes the result may be any bytes.
pub(crate) fn unquote(quoted: &str) -> Result<Vec<u8>, String> {
    let bad = || "invalid syntax".to_owned();
    let open = quoted.chars().next().ok_or_else(bad)?;
    if quoted.len() < 2 || !quoted.ends_with(open) {
        return Err(bad());
    }
    let inner = &quoted[1..quoted.len() - 1];
    if open == '`' {
        return Ok(inner.into());
    }
    let mut out: Vec<u8> = Vec::with_capacity(inner.len());
    let mut chars = inner.chars().peekable();
    let push = |out: &mut Vec<u8>, c: char| {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    };
    while let Some(c) = chars.next() {
        if c != '\\' {
            push(&mut out, c);
            continue;
        }
        let escape = chars.next().ok_or_else(bad)?;
        let mut code = |digits: usize, radix: u32, first: Option<char>| -> Result<u32, String> {
            let mut value = match first {
                Some(c) => c.to_digit(radix).ok_or_else(bad)?,
                None => 0,
            };
            for _ in first.map_or(0, |_| 1)..digits {
                let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or_else(bad)?;
                value = value * radix + digit;
            }
            Ok(value)
        };
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            '\'' | '"' if escape == open => push(&mut out, escape),
            'x' => out.push(code(2, 16, None)? as u8),
            '0'..='7' => {
                out.push(u8::try_from(code(3, 8, Some(escape))?).map_err(|_| bad())?);
            }
            'u' => push(&mut out, char::from_u32(code(4, 16, None)?).ok_or_else(bad)?),
            'U' => push(&mut out, char::from_u32(code(8, 16, None)?).ok_or_else(bad)?),
            _ => return Err(bad()),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_all_their_forms() {
        for (text, value) in [
            ("1", 1.0),
            ("0x1f", 31.0),
            ("1_000.5", 1000.5),
            ("010", 8.0),
            ("08", 8.0),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("5.", 5.0),
            ("inf", f64::INFINITY),
        ] {
            assert_eq!(parse_number(text), Ok(value), "{text}");
        }
        assert!(parse_number("NaN").unwrap().is_nan());
    }

    #[test]
    fn durations_read_and_write_alike() {
        for (text, ms) in [
            ("1h30m", 5_400_000),
            ("90d", 90 * 86_400_000),
            ("1y", 365 * 86_400_000),
            ("2w", 14 * 86_400_000),
            ("10ms", 10),
            ("1m1ms", 60_001),
        ] {
            assert_eq!(parse_duration(text), Ok(ms));
            assert_eq!(format_duration(ms), text);
        }
        for text in ["", "1", "1m1h", "1m1m", "m", "1x", "99999999999y"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn escapes_are_those_of_go() {
        assert_eq!(unquote(r#""a\n\x41\u00e9\'""#), Err("invalid syntax".into()));
        assert_eq!(unquote(r#""a\n\x41\u00e9\101""#).unwrap(), "a\nAéA".as_bytes());
        assert_eq!(unquote(r"'\''").unwrap(), b"'");
        assert_eq!(unquote("`\\n`").unwrap(), b"\\n");
    }
}
