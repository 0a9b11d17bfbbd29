//! Comparison of results with what a script expects.

use trefoil_promql::{
    CounterResetHint, Histogram, Labels, Sample, SampleValue, Series, Value, is_stale,
};

use super::series::{PointValue, SeriesLine};
use super::{Eval, TextMatch, When};

const EPSILON: f64 = 1e-6;

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

fn same(want: &PointValue, got: &SampleValue) -> bool {
    match (&want.value, got) {
        (SampleValue::Float(a), SampleValue::Float(b)) => almost_equal(*a, *b),
        (SampleValue::Histogram(a), SampleValue::Histogram(b)) => {
            same_histogram(a, b, want.hint_given)
        }
        _ => false,
    }
}

fn show(value: &SampleValue) -> String {
    match value {
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

/// Compares a value with the expected one.
pub fn value(eval: &Eval, got: &Value) -> Result<(), String> {
    match got {
        Value::Text(t) => match &eval.text {
            Some(want) if want == t => Ok(()),
            want => Err(format!("expected {want:?}, got the text {t:?}")),
        },
        Value::Scalar(v) => match eval.scalar {
            Some(want) if almost_equal(want, *v) => Ok(()),
            want => Err(format!("expected {want:?}, got the number {v}")),
        },
        Value::Vector(samples) => vector(eval, samples),
        Value::Matrix(series) => matrix(eval, series),
    }
}

/// Compares an instant vector.
pub fn vector(eval: &Eval, got: &[Sample]) -> Result<(), String> {
    if let Some(want) = eval.scalar {
        return Err(format!("expected the number {want}, got a vector"));
    }
    if got.len() != eval.series.len() {
        let list: Vec<String> =
            got.iter().map(|s| format!("{} {}", s.labels, show(&s.value))).collect();
        let want = eval.series.len();
        return Err(format!("expected {want} series, got {}: {}", got.len(), list.join(", ")));
    }
    for (position, sample) in got.iter().enumerate() {
        let Some(at) = find(&eval.series, &sample.labels) else {
            return Err(format!("unexpected {} {}", sample.labels, show(&sample.value)));
        };
        if eval.ordered && at != position {
            return Err(format!("{} is at {position} instead of {at}", sample.labels));
        }
        match eval.series[at].points.first() {
            Some(Some(want)) if same(want, &sample.value) => {}
            want => {
                let want = want.and_then(Option::as_ref).map(|p| show(&p.value));
                let want = want.unwrap_or_default();
                let got = show(&sample.value);
                return Err(format!("{}: expected {want}, got {got}", sample.labels));
            }
        }
    }
    Ok(())
}

fn find(series: &[SeriesLine], labels: &Labels) -> Option<usize> {
    series.iter().position(|s| s.labels == *labels)
}

fn matrix(eval: &Eval, got: &[Series]) -> Result<(), String> {
    let (start, end, step) = match (eval.range_vector, eval.when) {
        (Some(times), _) => times,
        (None, When::Range(start, end, step)) => (start, end, step),
        (None, When::Instant(t)) => (t, t, 1),
    };
    if let Some(pair) = got.windows(2).find(|w| w[0].labels > w[1].labels) {
        return Err(format!("{} comes before {}", pair[0].labels, pair[1].labels));
    }
    for series in got {
        let Some(at) = find(&eval.series, &series.labels) else {
            return Err(format!("unexpected series {}", series.labels));
        };
        let mut want = Vec::new();
        for (i, point) in eval.series[at].points.iter().enumerate() {
            let time = start + i as i64 * step;
            if time > end {
                return Err(format!("{}: more points expected than steps", series.labels));
            }
            want.extend(point.as_ref().map(|p| (time, p)));
        }
        let got = samples(series);
        let list = || -> String {
            let all: Vec<String> = got.iter().map(|(t, v)| format!("{} @{t}", show(v))).collect();
            all.join(", ")
        };
        if want.len() != got.len() {
            let n = want.len();
            return Err(format!("{}: expected {n} points, got {}", series.labels, list()));
        }
        for ((want_time, want), (time, value)) in want.iter().zip(&got) {
            if want_time != time || !same(want, value) {
                let want = show(&want.value);
                let labels = &series.labels;
                return Err(format!("{labels}: expected {want} @{want_time}, got {}", list()));
            }
        }
    }
    match eval.series.iter().find(|s| !got.iter().any(|g| g.labels == s.labels)) {
        Some(missing) => Err(format!("missing {}", missing.labels)),
        None => Ok(()),
    }
}

/// All samples of a series by time.
pub fn samples(series: &Series) -> Vec<(i64, SampleValue)> {
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
