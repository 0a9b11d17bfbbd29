//! Parameters: address and form body together, with Prometheus' times, durations and selectors.

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, header};
use trefoil_promql::parse::parse_duration;
use trefoil_promql::{Matcher, TimeRange, parse_selector};

use super::reply::Failure;
use crate::http::params::Params;

/// The longest form body that is read. Queries with thousands of alternatives fit easily.
const BODY_BYTES_MAX: usize = 16 << 20;

/// The parameters of a request. Those of the body come before those of the address.
pub(super) struct Form(Params);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let address = request.uri().query().unwrap_or_default().to_owned();
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.starts_with("application/x-www-form-urlencoded"));
        if request.method() != Method::POST || !is_form {
            return Ok(Form(Params::parse(Some(&address))));
        }
        let body = to_bytes(request.into_body(), BODY_BYTES_MAX)
            .await
            .map_err(|e| Failure::bad_data(format!("error parsing form values: {e}")))?;
        let body = String::from_utf8_lossy(&body);
        Ok(Form(Params::parse(Some(&format!("{body}&{address}")))))
    }
}

impl Form {
    /// The value of a parameter, or the empty text.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or("")
    }

    /// A required time, Unix milliseconds.
    pub(super) fn time(&self, name: &str) -> Result<i64, Failure> {
        parse_time(self.get(name)).map_err(|e| Failure::parameter(name, e))
    }

    /// An optional time, Unix milliseconds.
    pub(super) fn time_or(&self, name: &str, default: i64) -> Result<i64, Failure> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(default);
        }
        parse_time(text)
            .map_err(|e| Failure::parameter(name, format!("invalid time value for '{name}': {e}")))
    }

    /// `start` and `end`, all of time by default.
    pub(super) fn range(&self) -> Result<TimeRange, Failure> {
        let start_ms = self.time_or("start", i64::MIN)?;
        Ok(TimeRange { start_ms, end_ms: self.time_or("end", i64::MAX)? })
    }

    /// An optional duration in milliseconds.
    pub(super) fn duration(&self, name: &str) -> Result<Option<i64>, Failure> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        parse_seconds(text).map(Some).map_err(|e| Failure::parameter(name, e))
    }

    /// `limit`; 0 = none.
    pub(super) fn limit(&self) -> Result<usize, Failure> {
        let text = self.get("limit");
        if text.is_empty() {
            return Ok(0);
        }
        let number: i64 = text
            .parse()
            .map_err(|_| Failure::parameter("limit", format!("{text:?} is not a whole number")))?;
        usize::try_from(number)
            .map_err(|_| Failure::parameter("limit", "limit must be non-negative"))
    }

    /// The selectors in `match[]`. Each must exclude the empty label set.
    pub(super) fn selectors(&self) -> Result<Vec<Vec<Matcher>>, Failure> {
        self.0
            .all("match[]")
            .map(|text| {
                let matchers =
                    parse_selector(text).map_err(|e| Failure::parameter("match[]", e))?;
                if matchers.iter().all(Matcher::matches_empty) {
                    let message = "match[] must contain at least one non-empty matcher";
                    return Err(Failure::parameter("match[]", message));
                }
                Ok(matchers)
            })
            .collect()
    }
}

/// Reads a time: Unix seconds, maybe with a fraction (rounded to milliseconds), or RFC 3339.
fn parse_time(text: &str) -> Result<i64, String> {
    let bad = || format!("cannot parse {text:?} to a valid timestamp");
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        // The largest exact float below the range of 64 bits of nanoseconds in Prometheus' terms.
        return if ms.abs() < 9.2e18 { Ok(ms as i64) } else { Err(bad()) };
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| bad())?;
    Ok(time.as_millisecond())
}

/// Reads a duration: float seconds, or units as in `1m30s`. Gives milliseconds.
fn parse_seconds(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = seconds * 1000.0;
        if !(ms.abs() < 9.2e15) {
            return Err(format!("cannot parse {text:?} to a valid duration. It overflows int64"));
        }
        return Ok(ms.round() as i64);
    }
    parse_duration(text).map_err(|_| format!("cannot parse {text:?} to a valid duration"))
}

/// Undoes the escaping of names in paths: `U__` in front, `__` for `_`, `_hex_` for any character.
/// A name that is not escaped this way stays as it is.
pub(super) fn unescape_name(name: &str) -> String {
    let unescaped = || -> Option<String> {
        let mut out = String::new();
        let mut rest = name.strip_prefix("U__")?;
        while let Some(at) = rest.find('_') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('_') {
                out.push('_');
                rest = after;
                continue;
            }
            let (hex, after) = rest.split_once('_')?;
            out.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
            rest = after;
        }
        out.push_str(rest);
        Some(out)
    };
    unescaped().unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        assert_eq!(parse_time("1.5"), Ok(1500));
        assert_eq!(parse_time("1435781451.781"), Ok(1_435_781_451_781));
        assert_eq!(parse_time("2015-07-01T20:10:51.781Z"), Ok(1_435_781_451_781));
        assert_eq!(parse_time("2015-07-01T22:10:51+02:00"), Ok(1_435_781_451_000));
        assert!(
            parse_time("").is_err() && parse_time("x").is_err() && parse_time("1e300").is_err()
        );
    }

    #[test]
    fn durations_are_seconds_or_units() {
        assert_eq!(parse_seconds("0.5"), Ok(500));
        assert_eq!(parse_seconds("1m30s"), Ok(90_000));
        assert!(parse_seconds("NaN").is_err() && parse_seconds("1x").is_err());
    }

    #[test]
    fn escaped_names_are_unescaped() {
        assert_eq!(unescape_name("U__http_2e_method"), "http.method");
        assert_eq!(unescape_name("U__a__b"), "a_b");
        assert_eq!(unescape_name("U__a_zz_"), "U__a_zz_");
        assert_eq!(unescape_name("job"), "job");
    }
}
