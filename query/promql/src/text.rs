//! How strings and numbers are written in messages and results.

use std::fmt::Write;

/// Quotes a string as Go's `strconv.Quote` does: the form of label values in Prometheus' output.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    escape(&mut out, text);
    out.push('"');
    out
}

/// As [`quote`], for bytes that need not be UTF-8.
pub fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        escape(&mut out, chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
}

/// Formats a sample value as the Prometheus HTTP API does: the shortest decimal that reads back as
/// the same number, in plain digits, with an exponent below 1e-6 and from 1e21 on; `NaN`, `+Inf`,
/// `-Inf`.
pub fn format_value(value: f64) -> String {
    let mut out = String::with_capacity(24);
    write_value(&mut out, value);
    out
}

/// As [`format_value`], appending to a string.
pub fn write_value(out: &mut String, value: f64) {
    let abs = value.abs();
    if write_special(out, value) {
    } else if abs != 0.0 && !(1e-6..1e21).contains(&abs) {
        write_exponent(out, value);
    } else {
        let _ = write!(out, "{value}");
    }
}

/// Formats a number in plain digits whatever its size (Go's `strconv.FormatFloat` with `'f'`): the
/// form that `count_values` and the query printer use.
pub fn format_plain(value: f64) -> String {
    let mut out = String::new();
    if !write_special(&mut out, value) {
        let _ = write!(out, "{value}");
    }
    out
}

/// Formats a number as Go's `%g` and `%v` do: shortest digits, with an exponent below 1e-4 and from
/// 1e6 on.
pub fn format_short(value: f64) -> String {
    let mut out = String::new();
    let abs = value.abs();
    if write_special(&mut out, value) {
    } else if abs != 0.0 && !(1e-4..1e6).contains(&abs) {
        write_exponent(&mut out, value);
    } else {
        let _ = write!(out, "{value}");
    }
    out
}

fn write_special(out: &mut String, value: f64) -> bool {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        return false;
    }
    true
}

/// Rust writes `1e-7`; Go writes at least two exponent digits and always a sign.
fn write_exponent(out: &mut String, value: f64) {
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(rest) => ('-', rest),
        None => ('+', exponent),
    };
    let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_prometheus_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (1e-7, "1e-07"),
            (1.5e-10, "1.5e-10"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-2.5e100, "-2.5e+100"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(format_value(value), text);
        }
        assert_eq!(format_plain(1e21), "1000000000000000000000");
        assert_eq!(format_short(0.00001), "1e-05");
        assert_eq!(format_short(123_456_789.0), "1.23456789e+08");
        assert_eq!(format_short(100_000.0), "100000");
    }

    #[test]
    fn strings_are_quoted_with_go_escapes() {
        assert_eq!(quote("a\"b\\c\n\u{1}é"), "\"a\\\"b\\\\c\\n\\x01é\"");
    }
}
