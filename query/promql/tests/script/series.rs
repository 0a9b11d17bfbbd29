//! Series lines of a script: labels and a compact form of points.

use std::sync::Arc;

use trefoil_promql::histogram::CUSTOM_BUCKETS_SCHEMA;
use trefoil_promql::parse::parse_duration;
use trefoil_promql::{
    Bucket, CounterResetHint, Histogram, Labels, SampleValue, parse_selector, stale_marker,
};

/// A point; `None` is a gap.
pub type Point = Option<PointValue>;

/// The value of a point.
#[derive(Clone, Debug)]
pub struct PointValue {
    /// The value.
    pub value: SampleValue,
    /// A histogram's hint is written out, so that it is to be compared.
    pub hint_given: bool,
}

/// Labels and points.
#[derive(Clone, Debug)]
pub struct SeriesLine {
    /// The series.
    pub labels: Labels,
    /// The points, one per step.
    pub points: Vec<Point>,
    /// Start times relative to the points, milliseconds; empty if not given.
    pub start_offsets: Vec<Option<i64>>,
}

/// Splits a line into metric and points.
pub fn split(line: &str) -> (&str, &str) {
    let mut depth = 0;
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in line.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(q), '\\') if q != '`' => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') => depth -= 1,
            (None, c) if c.is_whitespace() && depth == 0 => return (&line[..i], line[i..].trim()),
            _ => {}
        }
    }
    (line, "")
}

impl SeriesLine {
    /// Reads a line such as `a{b="c"} 1+2x3`.
    pub fn parse(line: &str, number: usize) -> Self {
        let (metric, values) = split(line);
        let matchers =
            parse_selector(metric).unwrap_or_else(|e| panic!("line {number}: {metric}: {e}"));
        let labels = Labels::new(matchers.iter().map(|m| (m.name(), m.value())));
        let points = items(values).into_iter().flat_map(|item| points(item, number)).collect();
        SeriesLine { labels, points, start_offsets: Vec::new() }
    }
}

/// Splits points at spaces outside `{{…}}`.
fn items(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = None;
    let mut inside = false;
    for (i, c) in text.char_indices() {
        match c {
            '{' => inside = true,
            '}' => inside = false,
            c if c.is_whitespace() && !inside => {
                out.extend(start.take().map(|s| &text[s..i]));
                continue;
            }
            _ => {}
        }
        start.get_or_insert(i);
    }
    out.extend(start.map(|s| &text[s..]));
    out
}

/// A number, alone.
pub fn number(text: &str) -> Option<f64> {
    let (value, rest) = take_number(text)?;
    rest.is_empty().then_some(value)
}

/// A number at the start of a text, and the rest.
fn take_number(text: &str) -> Option<(f64, &str)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    for (word, value) in [("inf", f64::INFINITY), ("nan", f64::NAN)] {
        if unsigned.get(..3).is_some_and(|w| w.eq_ignore_ascii_case(word)) {
            return Some((sign * value, &unsigned[3..]));
        }
    }
    let bytes = unsigned.as_bytes();
    let mut end = 0;
    while let Some(b) = bytes.get(end) {
        let exponent = end > 0 && matches!(bytes[end - 1], b'e' | b'E');
        let part = b.is_ascii_digit()
            || *b == b'.'
            || (matches!(b, b'e' | b'E') && end > 0)
            || (matches!(b, b'+' | b'-') && exponent);
        if !part {
            break;
        }
        end += 1;
    }
    let value: f64 = unsigned[..end].parse().ok()?;
    Some((sign * value, &unsigned[end..]))
}

fn float(value: f64) -> Point {
    Some(PointValue { value: SampleValue::Float(value), hint_given: false })
}

fn bad(what: &str, item: &str, line: usize) -> ! {
    panic!("line {line}: bad {what} {item}")
}

fn points(item: &str, line: usize) -> Vec<Point> {
    let times = |rest: &str| -> usize {
        rest.strip_prefix('x')
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| bad("points", item, line))
    };
    if let Some(rest) = item.strip_prefix('_') {
        return vec![None; if rest.is_empty() { 1 } else { times(rest) }];
    }
    if item == "stale" {
        return vec![float(stale_marker())];
    }
    if item.starts_with("{{") {
        return histograms(item, line);
    }
    let Some((first, rest)) = take_number(item) else { bad("points", item, line) };
    if rest.is_empty() {
        return vec![float(first)];
    }
    if rest.starts_with('x') {
        return vec![float(first); times(rest) + 1];
    }
    let Some((step, rest)) = take_number(rest) else { bad("points", item, line) };
    let mut value = first;
    (0..=times(rest))
        .map(|_| {
            let point = float(value);
            value += step;
            point
        })
        .collect()
}

fn histograms(item: &str, line: usize) -> Vec<Point> {
    let point = |h: &Histogram, hint_given: bool| {
        Some(PointValue { value: SampleValue::Histogram(Arc::new(h.clone())), hint_given })
    };
    let end = item.find("}}").unwrap_or_else(|| bad("histogram", item, line)) + 2;
    let (first, hint_given) = histogram(&item[2..end - 2], line);
    let rest = &item[end..];
    if rest.is_empty() {
        return vec![point(&first, hint_given)];
    }
    if let Some(n) = rest.strip_prefix('x') {
        let n: usize = n.parse().unwrap_or_else(|_| bad("histogram", item, line));
        return vec![point(&first, hint_given); n + 1];
    }
    let end = rest.find("}}").unwrap_or_else(|| bad("histogram", item, line)) + 2;
    let (step, hint_given) = histogram(&rest[3..end - 2], line);
    let n: usize = rest[end..]
        .strip_prefix('x')
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| bad("histogram", item, line));
    let sign = if rest.starts_with('-') { -1.0 } else { 1.0 };
    let mut value = first;
    let mut out = vec![point(&value, hint_given)];
    for _ in 0..n {
        value = added(&value, &step, sign);
        out.push(point(&value, hint_given));
    }
    out
}

/// The next histogram of a sequence. The step may have a finer resolution than the sequence.
fn added(a: &Histogram, b: &Histogram, sign: f64) -> Histogram {
    assert!(a.schema <= b.schema, "a step can't be coarser than its sequence");
    let reduced = |index: i32| ((index - 1) >> (b.schema - a.schema)) + 1;
    let side = |ours: &[Bucket], theirs: &[Bucket]| {
        let mut out = std::collections::BTreeMap::new();
        for bucket in ours {
            *out.entry(bucket.index).or_insert(0.0) += bucket.count;
        }
        for bucket in theirs {
            *out.entry(reduced(bucket.index)).or_insert(0.0) += sign * bucket.count;
        }
        out.into_iter().map(|(index, count)| Bucket { index, count }).collect()
    };
    let hint = match (a.reset_hint, b.reset_hint) {
        (x, y) if x == y => x,
        (CounterResetHint::Gauge, _) | (_, CounterResetHint::Gauge) => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    };
    Histogram {
        zero_count: a.zero_count + sign * b.zero_count,
        count: a.count + sign * b.count,
        sum: a.sum + sign * b.sum,
        positive: side(&a.positive, &b.positive),
        negative: side(&a.negative, &b.negative),
        reset_hint: hint,
        ..a.clone()
    }
}

/// The inside of `{{…}}`, and whether the hint is given.
fn histogram(text: &str, line: usize) -> (Histogram, bool) {
    let mut h = Histogram::default();
    let mut hint_given = false;
    let (mut offset, mut n_offset) = (0, 0);
    let (mut buckets, mut n_buckets) = (Vec::new(), Vec::new());
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) =
            rest.split_once(':').unwrap_or_else(|| panic!("line {line}: bad histogram {text}"));
        let (value, after) = match after.strip_prefix('[') {
            Some(list) => list.split_once(']').unwrap_or((list, "")),
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        let float = || number(value).unwrap_or_else(|| panic!("line {line}: bad {key}"));
        let list = || -> Vec<f64> { value.split_whitespace().filter_map(number).collect() };
        match key.trim() {
            "schema" => h.schema = float() as i32,
            "sum" => h.sum = float(),
            "count" => h.count = float(),
            "z_bucket" => h.zero_count = float(),
            "z_bucket_w" => h.zero_threshold = float(),
            "offset" => offset = float() as i32,
            "n_offset" => n_offset = float() as i32,
            "buckets" => buckets = list(),
            "n_buckets" => n_buckets = list(),
            "custom_values" => h.custom_values = Some(list().into()),
            "counter_reset_hint" => {
                hint_given = true;
                h.reset_hint = match value {
                    "reset" => CounterResetHint::CounterReset,
                    "not_reset" => CounterResetHint::NotCounterReset,
                    "gauge" => CounterResetHint::Gauge,
                    _ => CounterResetHint::Unknown,
                };
            }
            other => panic!("line {line}: unknown key {other} in histogram"),
        }
        rest = after.trim();
    }
    let side = |counts: Vec<f64>, offset: i32| {
        let from = counts.into_iter().zip(offset..);
        from.map(|(count, index)| Bucket { index, count }).filter(|b| b.count != 0.0).collect()
    };
    h.positive = side(buckets, offset);
    h.negative = side(n_buckets, n_offset);
    if h.schema == CUSTOM_BUCKETS_SCHEMA && h.custom_values.is_none() {
        h.custom_values = Some(Vec::new().into());
    }
    (h, hint_given)
}

/// The points of an `@st` line: durations relative to the sample, `_` for none, with repetition.
pub fn start_offsets(text: &str, line: usize) -> Vec<Option<i64>> {
    text.split_whitespace().flat_map(|item| start_offset(item, line)).collect()
}

fn start_offset(item: &str, line: usize) -> Vec<Option<i64>> {
    let times = |rest: &str| -> usize {
        rest.strip_prefix('x')
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| bad("start offset", item, line))
    };
    if let Some(rest) = item.strip_prefix('_') {
        return vec![None; if rest.is_empty() { 1 } else { times(rest) }];
    }
    let take = |text: &'_ str| -> (i64, usize) {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let sign = if text.starts_with('-') { -1 } else { 1 };
        let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
        let unit = unsigned[digits..]
            .bytes()
            .take_while(|b| b.is_ascii_alphabetic() && *b != b'x')
            .count();
        let duration = parse_duration(&unsigned[..digits + unit])
            .unwrap_or_else(|_| bad("start offset", item, line));
        (sign * duration, text.len() - unsigned.len() + digits + unit)
    };
    let (first, len) = take(item);
    let rest = &item[len..];
    if rest.is_empty() {
        return vec![Some(first)];
    }
    if rest.starts_with('x') {
        return vec![Some(first); times(rest) + 1];
    }
    let (step, len) = take(rest);
    let n = times(&rest[len..]);
    (0..=n as i64).map(|i| Some(first + i * step)).collect()
}
