//! Values as JSON: numbers as text, histograms as bucket lists.

use std::io::Write;

use trefoil_promql::text::write_value;
use trefoil_promql::{Histogram, Labels, Sample, SampleValue, Series, Value};

/// Writes a JSON text.
pub(super) fn text(out: &mut Vec<u8>, value: &str) {
    // Writing to a vector does not fail.
    let _ = serde_json::to_writer(out, value);
}

/// Writes `{"name":"value",…}`.
pub(super) fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text(out, name);
        out.push(b':');
        text(out, value);
    }
    out.push(b'}');
}

/// Writes a time in seconds: whole, or with three decimals.
pub(super) fn time(out: &mut Vec<u8>, ms: i64) {
    let sign = if ms < 0 { "-" } else { "" };
    let (seconds, rest) = (ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000);
    let _ = if rest == 0 {
        write!(out, "{sign}{seconds}")
    } else {
        write!(out, "{sign}{seconds}.{rest:03}")
    };
}

/// Writes a number as text.
pub(super) fn number(out: &mut Vec<u8>, value: f64) {
    let mut digits = String::with_capacity(26);
    digits.push('"');
    write_value(&mut digits, value);
    digits.push('"');
    out.extend_from_slice(digits.as_bytes());
}

/// Writes `{"count":…,"sum":…,"buckets":[[rule,"lower","upper","count"],…]}`.
fn histogram(out: &mut Vec<u8>, h: &Histogram) {
    out.extend_from_slice(b"{\"count\":");
    number(out, h.count);
    out.extend_from_slice(b",\"sum\":");
    number(out, h.sum);
    let mut any = false;
    for b in h.all_buckets().filter(|b| b.count != 0.0) {
        out.extend_from_slice(if any { b"," } else { b",\"buckets\":[" });
        any = true;
        let rule = match (b.lower_inclusive, b.upper_inclusive) {
            (false, true) => b'0',
            (true, false) => b'1',
            (false, false) => b'2',
            (true, true) => b'3',
        };
        out.extend_from_slice(&[b'[', rule]);
        for value in [b.lower, b.upper, b.count] {
            out.push(b',');
            number(out, value);
        }
        out.push(b']');
    }
    if any {
        out.push(b']');
    }
    out.push(b'}');
}

fn point(out: &mut Vec<u8>, time_ms: i64, value: &SampleValue) {
    out.push(b'[');
    time(out, time_ms);
    out.push(b',');
    match value {
        SampleValue::Float(f) => number(out, *f),
        SampleValue::Histogram(h) => histogram(out, h),
    }
    out.push(b']');
}

fn sample(out: &mut Vec<u8>, sample: &Sample, time_ms: i64) {
    out.extend_from_slice(b"{\"metric\":");
    labels(out, &sample.labels);
    let key: &[u8] = match sample.value {
        SampleValue::Float(_) => b",\"value\":",
        SampleValue::Histogram(_) => b",\"histogram\":",
    };
    out.extend_from_slice(key);
    point(out, time_ms, &sample.value);
    out.push(b'}');
}

fn points<T>(
    out: &mut Vec<u8>,
    key: &str,
    times: &[i64],
    values: &[T],
    write: impl Fn(&mut Vec<u8>, &T),
) {
    if times.is_empty() {
        return;
    }
    let _ = write!(out, ",\"{key}\":[");
    for (i, (t, value)) in times.iter().zip(values).enumerate() {
        out.extend_from_slice(if i > 0 { b",[" } else { b"[" });
        time(out, *t);
        out.push(b',');
        write(out, value);
        out.push(b']');
    }
    out.push(b']');
}

fn series(out: &mut Vec<u8>, s: &Series) {
    out.extend_from_slice(b"{\"metric\":");
    labels(out, &s.labels);
    points(out, "values", &s.floats.times, &s.floats.values, |out, v| number(out, *v));
    points(out, "histograms", &s.histograms.times, &s.histograms.values, |out, h| {
        histogram(out, h);
    });
    out.push(b'}');
}

fn list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Writes `"resultType":…,"result":…`.
///
/// * `time_ms`: the evaluation time, for instant queries.
pub(super) fn result(out: &mut Vec<u8>, value: &Value, time_ms: i64) {
    let kind = match value {
        Value::Scalar(_) => "scalar",
        Value::Text(_) => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    };
    let _ = write!(out, "\"resultType\":\"{kind}\",\"result\":");
    match value {
        Value::Scalar(f) => point(out, time_ms, &SampleValue::Float(*f)),
        Value::Text(t) => {
            out.push(b'[');
            time(out, time_ms);
            out.push(b',');
            text(out, t);
            out.push(b']');
        }
        Value::Vector(samples) => list(out, samples, |out, s| sample(out, s, time_ms)),
        Value::Matrix(all) => list(out, all, series),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use trefoil_promql::Bucket;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_have_no_or_three_decimals() {
        for (ms, text) in [
            (0, "0"),
            (1500, "1.500"),
            (-1, "-0.001"),
            (-2000, "-2"),
            (1_435_781_451_781, "1435781451.781"),
        ] {
            assert_eq!(written(|out| time(out, ms)), text);
        }
    }

    #[test]
    fn histograms_list_their_populated_buckets_in_order() {
        let h = Histogram {
            zero_threshold: 0.5,
            zero_count: 2.0,
            count: 5.0,
            sum: 2.5,
            positive: vec![Bucket { index: 1, count: 1.0 }, Bucket { index: 2, count: 0.0 }],
            negative: vec![Bucket { index: 1, count: 2.0 }],
            ..Histogram::default()
        };
        let value = SampleValue::Histogram(Arc::new(h));
        assert_eq!(
            written(|out| point(out, 1000, &value)),
            r#"[1,{"count":"5","sum":"2.5","buckets":[[1,"-2","-1","2"],[3,"-0.5","0.5","2"],[0,"1","2","1"]]}]"#
        );
    }

    #[test]
    fn empty_results_are_empty_lists() {
        let vector = Value::Vector(Vec::new());
        assert_eq!(written(|out| result(out, &vector, 0)), r#""resultType":"vector","result":[]"#);
    }
}
