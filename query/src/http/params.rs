//! Query-string parameters of the native API: repeated keys, times, durations, IDs.

use super::error::ApiError;
use std::time::{SystemTime, UNIX_EPOCH};

/// Decoded parameters in the order sent. Unknown ones are ignored by never being asked for.
#[derive(Debug, Default, Clone)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// * `query`: the raw query string of the address, `application/x-www-form-urlencoded`.
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (form_decode(key), form_decode(value))
                })
                .collect(),
        )
    }

    /// First value of `name`; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, v)| key == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// A time in Unix ns, see [`parse_time`].
    pub fn time(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.get(name)
            .map(|text| parse_time(text).map_err(|why| malformed(name, text, &why)))
            .transpose()
    }

    /// A duration in ns, see [`parse_duration`].
    pub fn duration(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.get(name)
            .map(|text| parse_duration(text).map_err(|why| malformed(name, text, &why)))
            .transpose()
    }

    /// `start` and `end` in Unix ns, both inclusive; default: everything up to the end of time.
    pub fn range(&self) -> Result<(u64, u64), ApiError> {
        let start = self.time("start")?.unwrap_or(0);
        let end = self.time("end")?.unwrap_or(u64::MAX);
        if end < start {
            return Err(ApiError::bad_request("parameter \"end\" lies before \"start\""));
        }
        Ok((start, end))
    }

    /// `start` and `end` where an answer is a series over time: default is the last `default_ns` up to now.
    pub fn recent_range(&self, default_ns: u64) -> Result<(u64, u64), ApiError> {
        let end = self.time("end")?.unwrap_or_else(now_ns);
        let start = self.time("start")?.unwrap_or_else(|| end.saturating_sub(default_ns));
        if end < start {
            return Err(ApiError::bad_request("parameter \"end\" lies before \"start\""));
        }
        Ok((start, end))
    }

    /// `limit`, at most `max`.
    pub fn limit(&self, default: usize, max: usize) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        let limit: usize =
            text.parse().map_err(|_| malformed("limit", text, "a whole number is expected"))?;
        if limit > max {
            return Err(ApiError::limit(format!("parameter \"limit\" is {limit}; at most {max}")));
        }
        Ok(limit)
    }

    /// `true`/`1` or `false`/`0`; absent is false.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(malformed(name, other, "true or false is expected")),
        }
    }
}

/// 400 for a parameter that can't be read.
pub fn malformed(name: &str, text: &str, why: &str) -> ApiError {
    let shown: String = text.chars().take(100).collect();
    ApiError::bad_request(format!("parameter \"{name}\" is malformed ({shown:?}): {why}"))
}

pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

/// RFC 3339 or integer Unix ns → Unix ns.
pub fn parse_time(text: &str) -> Result<u64, String> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| "the number is too large for Unix nanoseconds".to_owned());
    }
    // A `+` of an offset that was not percent-encoded arrives as a space.
    let time: jiff::Timestamp = text.replace(' ', "+").parse().map_err(|_| {
        "expected RFC 3339 (2026-01-31T12:00:00Z) or integer Unix nanoseconds".to_owned()
    })?;
    u64::try_from(time.as_nanosecond()).map_err(|_| "the time lies before 1970".to_owned())
}

/// `250ms`, `500us`, `1.5s`, `1h30m` → ns. Units: ns us µs ms s m h d.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a duration like 250ms, 500us, 1.5s or 1h30m";
    let mut rest = text;
    let mut total = 0f64;
    if rest.is_empty() {
        return Err(EXPECTED.to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(EXPECTED)?;
        let number: f64 = rest[..digits].parse().map_err(|_| EXPECTED.to_owned())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let scale = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            "d" => 86_400e9,
            _ => return Err(EXPECTED.to_owned()),
        };
        total += number * scale;
        rest = &rest[end..];
    }
    if total >= u64::MAX as f64 {
        return Err("the duration is too long".to_owned());
    }
    Ok(total.round() as u64)
}

/// 1-32 hex digits in any case, dashes allowed, padded left with zeros → 16 bytes.
pub fn parse_trace_id(text: &str) -> Result<[u8; 16], ApiError> {
    parse_hex(text).filter(|id| *id != [0; 16]).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        ApiError::bad_request(format!("{shown:?} is not a trace ID: 32 hex digits are expected"))
    })
}

/// 1-16 hex digits → 8 bytes.
pub fn parse_span_id(text: &str) -> Result<[u8; 8], ApiError> {
    parse_hex(text).filter(|id| *id != [0; 8]).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        ApiError::bad_request(format!("{shown:?} is not a span ID: 16 hex digits are expected"))
    })
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut id = [0u8; N];
    let mut count = 0;
    for c in text.chars().rev().filter(|c| *c != '-') {
        let digit = c.to_digit(16)? as u8;
        let at = N.checked_sub(1 + count / 2)?;
        id[at] |= digit << (4 * (count % 2));
        count += 1;
    }
    (count > 0).then_some(id)
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}

/// Decodes `+` and `%XX`; invalid UTF-8 becomes U+FFFD.
fn form_decode(text: &str) -> String {
    percent_decode(&text.replace('+', " "))
}

/// Decodes `%XX` of a path segment or parameter; invalid UTF-8 becomes U+FFFD.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let pair = bytes.get(i + 1..i + 3).and_then(|p| std::str::from_utf8(p).ok());
        match (bytes[i], pair.and_then(|p| u8::from_str_radix(p, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_documented() {
        assert_eq!(parse_duration("250ms"), Ok(250_000_000));
        assert_eq!(parse_duration("500us"), Ok(500_000));
        assert_eq!(parse_duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(parse_duration("1h30m"), Ok(5_400_000_000_000));
        for wrong in ["", "5", "ms", "1.2.3s", "-1s", "1 s", "5x"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_rfc_3339_or_unix_nanoseconds() {
        assert_eq!(parse_time("1700000000000000001"), Ok(1_700_000_000_000_000_001));
        assert_eq!(parse_time("2023-11-14T22:13:20.5Z"), Ok(1_700_000_000_500_000_000));
        assert_eq!(parse_time("2023-11-14T23:13:20 01:00"), Ok(1_700_000_000_000_000_000));
        assert!(parse_time("yesterday").is_err());
        assert!(parse_time("99999999999999999999999").is_err());
    }

    #[test]
    fn trace_ids_are_padded_and_case_does_not_matter() {
        assert_eq!(parse_trace_id("Ab").unwrap()[15], 0xab);
        assert_eq!(
            hex(&parse_trace_id("0AF76519-16cd43dd8448eb211c80319c").unwrap()),
            "0af7651916cd43dd8448eb211c80319c"
        );
        for wrong in ["", "xyz", "0", "1234567890123456789012345678901234"] {
            assert!(parse_trace_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn parameters_decode_and_repeat() {
        let params = Params::parse(Some("attr=a%3D1&attr=b+c&limit=&x"));
        assert_eq!(params.all("attr").collect::<Vec<_>>(), ["a=1", "b c"]);
        assert_eq!(params.get("limit"), None);
    }
}
