//! Comparison of results with what a script expects.

use trefoil_promql::{CounterResetHint, Histogram, Labels, SampleValue, Series, Value, is_stale};

use super::series::{PointValue, SeriesLine};
use super::{Eval, TextMatch, When};

const EPSILON: f64 = 1e-6;

/// A value that a target gave.
pub trait Shown {
    /// Whether it is what a script expects.
    fn is(&self, want: &PointValue) -> bool;

    /// The number, if it is one.
    fn number(&self) -> Option<f64>;

    /// For messages.
    fn show(&self) -> String;
}

/// What a query gave.
#[derive(Clone, Debug)]
pub enum Got<V> {
    Text(String),
    Scalar(f64),
    /// In the order of the answer.
    Vector(Vec<(Labels, V)>),
    /// Samples by Unix milliseconds, in order of time.
    Matrix(Vec<(Labels, Vec<(i64, V)>)>),
}

/// What a query gave, and notes about it.
#[derive(Clone, Debug)]
pub struct Answer<V> {
    pub value: Got<V>,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

impl From<Value> for Got<SampleValue> {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Got::Text(text),
            Value::Scalar(number) => Got::Scalar(number),
            Value::Vector(list) => {
                Got::Vector(list.into_iter().map(|s| (s.labels, s.value)).collect())
            }
            Value::Matrix(list) => {
                Got::Matrix(list.into_iter().map(|s| (s.labels.clone(), samples(&s))).collect())
            }
        }
    }
}

/// Whether two numbers are equal within a relative 1e-6; NaN equals NaN.
pub fn almost_equal(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let (sum, diff) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < EPSILON * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < EPSILON
}

fn same_histogram(want: &Histogram, got: &Histogram, with_hint: bool) -> bool {
    let side = |a: &[trefoil_promql::Bucket], b: &[trefoil_promql::Bucket]| {
        let a: Vec<_> = a.iter().filter(|b| b.count != 0.0).collect();
        let b: Vec<_> = b.iter().filter(|b| b.count != 0.0).collect();
        a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| a.index == b.index && almost_equal(a.count, b.count))
    };
    want.schema == got.schema
        && almost_equal(want.count, got.count)
        && almost_equal(want.sum, got.sum)
        && want.zero_threshold == got.zero_threshold
        && almost_equal(want.zero_count, got.zero_count)
        && want.custom_bounds() == got.custom_bounds()
        && side(&want.positive, &got.positive)
        && side(&want.negative, &got.negative)
        && (!with_hint || want.reset_hint == got.reset_hint)
}

impl Shown for SampleValue {
    fn is(&self, want: &PointValue) -> bool {
        match (&want.value, self) {
            (SampleValue::Float(a), SampleValue::Float(b)) => almost_equal(*a, *b),
            (SampleValue::Histogram(a), SampleValue::Histogram(b)) => {
                same_histogram(a, b, want.hint_given)
            }
            _ => false,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            SampleValue::Float(f) => Some(*f),
            SampleValue::Histogram(_) => None,
        }
    }

    fn show(&self) -> String {
        match self {
            SampleValue::Float(f) => f.to_string(),
            SampleValue::Histogram(h) => {
                let hint = match h.reset_hint {
                    CounterResetHint::Unknown => "",
                    CounterResetHint::CounterReset => " reset",
                    CounterResetHint::NotCounterReset => " not_reset",
                    CounterResetHint::Gauge => " gauge",
                };
                format!("{h} schema {} zero {}{hint}", h.schema, h.zero_threshold)
            }
        }
    }
}

/// Compares a value with the expected one.
pub fn value<V: Shown>(eval: &Eval, got: &Got<V>) -> Result<(), String> {
    match got {
        Got::Text(t) => match &eval.text {
            Some(want) if want == t => Ok(()),
            want => Err(format!("expected {want:?}, got the text {t:?}")),
        },
        Got::Scalar(v) => match eval.scalar {
            Some(want) if almost_equal(want, *v) => Ok(()),
            want => Err(format!("expected {want:?}, got the number {v}")),
        },
        Got::Vector(samples) => {
            let samples: Vec<(&Labels, &V)> = samples.iter().map(|(l, v)| (l, v)).collect();
            vector(eval, &samples)
        }
        Got::Matrix(series) => matrix(eval, series),
    }
}

/// Compares the step of a range query at a time with an instant expectation.
pub fn step<V: Shown>(eval: &Eval, got: &Got<V>, time_ms: i64) -> Result<(), String> {
    let Got::Matrix(series) = got else { return Err("expected a matrix".to_owned()) };
    let at_time = |(labels, samples)| -> Option<(&Labels, &V)> {
        let samples: &Vec<(i64, V)> = samples;
        samples.iter().find(|(t, _)| *t == time_ms).map(|(_, value)| (labels, value))
    };
    let samples: Vec<(&Labels, &V)> =
        series.iter().map(|(labels, samples)| (labels, samples)).filter_map(at_time).collect();
    match (eval.scalar, &samples[..]) {
        (Some(want), [(_, value)]) => match value.number() {
            Some(number) if almost_equal(want, number) => Ok(()),
            _ => Err(format!("expected {want}, got {}", value.show())),
        },
        _ => vector(eval, &samples),
    }
}

fn show(want: &PointValue) -> String {
    want.value.show()
}

/// Compares an instant vector.
fn vector<V: Shown>(eval: &Eval, got: &[(&Labels, &V)]) -> Result<(), String> {
    if let Some(want) = eval.scalar {
        return Err(format!("expected the number {want}, got a vector"));
    }
    if got.len() != eval.series.len() {
        let list: Vec<String> = got.iter().map(|(l, v)| format!("{l} {}", v.show())).collect();
        let want = eval.series.len();
        return Err(format!("expected {want} series, got {}: {}", got.len(), list.join(", ")));
    }
    for (position, (labels, value)) in got.iter().enumerate() {
        let Some(at) = find(&eval.series, labels) else {
            return Err(format!("unexpected {labels} {}", value.show()));
        };
        if eval.ordered && at != position {
            return Err(format!("{labels} is at {position} instead of {at}"));
        }
        match eval.series[at].points.first() {
            Some(Some(want)) if value.is(want) => {}
            want => {
                let want = want.and_then(Option::as_ref).map(show).unwrap_or_default();
                return Err(format!("{labels}: expected {want}, got {}", value.show()));
            }
        }
    }
    Ok(())
}

fn find(series: &[SeriesLine], labels: &Labels) -> Option<usize> {
    series.iter().position(|s| s.labels == *labels)
}

fn matrix<V: Shown>(eval: &Eval, got: &[(Labels, Vec<(i64, V)>)]) -> Result<(), String> {
    let (start, end, step) = match (eval.range_vector, eval.when) {
        (Some(times), _) => times,
        (None, When::Range(start, end, step)) => (start, end, step),
        (None, When::Instant(t)) => (t, t, 1),
    };
    if let Some(pair) = got.windows(2).find(|w| w[0].0 > w[1].0) {
        return Err(format!("{} comes before {}", pair[0].0, pair[1].0));
    }
    for (labels, got) in got {
        let Some(at) = find(&eval.series, labels) else {
            return Err(format!("unexpected series {labels}"));
        };
        let mut want = Vec::new();
        for (i, point) in eval.series[at].points.iter().enumerate() {
            let time = start + i as i64 * step;
            if time > end {
                return Err(format!("{labels}: more points expected than steps"));
            }
            want.extend(point.as_ref().map(|p| (time, p)));
        }
        let list = || -> String {
            let all: Vec<String> = got.iter().map(|(t, v)| format!("{} @{t}", v.show())).collect();
            all.join(", ")
        };
        if want.len() != got.len() {
            let n = want.len();
            return Err(format!("{labels}: expected {n} points, got {}", list()));
        }
        for ((want_time, want), (time, value)) in want.iter().zip(got) {
            if want_time != time || !value.is(want) {
                let want = show(want);
                return Err(format!("{labels}: expected {want} @{want_time}, got {}", list()));
            }
        }
    }
    match eval.series.iter().find(|s| !got.iter().any(|g| g.0 == s.labels)) {
        Some(missing) => Err(format!("missing {}", missing.labels)),
        None => Ok(()),
    }
}

/// All samples of a series by time.
fn samples(series: &Series) -> Vec<(i64, SampleValue)> {
    let floats = series.floats.times.iter().copied();
    let floats = floats.zip(series.floats.values.iter().map(|v| SampleValue::Float(*v)));
    let histograms = series.histograms.times.iter().copied();
    let values = series.histograms.values.iter().map(|h| SampleValue::Histogram(h.clone()));
    let mut out: Vec<_> = floats.chain(histograms.zip(values)).collect();
    out.sort_by_key(|(t, _)| *t);
    out
}

/// Compares warnings and infos with the expected ones.
pub fn annotations(eval: &Eval, warnings: &[String], infos: &[String]) -> Result<(), String> {
    for (kind, want, none, got) in
        [("warning", &eval.warn, eval.no_warn, warnings), ("info", &eval.info, eval.no_info, infos)]
    {
        if none && !got.is_empty() {
            return Err(format!("expected no {kind}, got {got:?}"));
        }
        if want.is_empty() {
            continue;
        }
        if let Some(missing) = want.iter().find(|w| !got.iter().any(|g| w.matches(g))) {
            return Err(format!("expected a {kind} {}, got {got:?}", text(missing)));
        }
        if let Some(extra) = got.iter().find(|g| !want.iter().any(|w| w.matches(g))) {
            return Err(format!("unexpected {kind} {extra:?}"));
        }
    }
    Ok(())
}

fn text(m: &TextMatch) -> String {
    match m {
        TextMatch::Any => "of any text".to_owned(),
        TextMatch::Message(m) => format!("{m:?}"),
        TextMatch::Regex(r) => format!("/{r}/"),
    }
}
