//! Functions that sum a window up: `*_over_time`, `changes`, `resets`, `deriv` and others.

use std::sync::Arc;

use crate::annotations::{Annotations, HistogramOperation, Note};
use crate::engine::histograms::HistogramMean;
use crate::engine::range_call::{RangeContext, Window};
use crate::engine::rates::start_tells_reset;
use crate::histogram::{CounterResetHint, Histogram};
use crate::kahan::{Kahan, Mean};
use crate::parse::Extend;
use crate::series::SampleValue;

type Out = Option<SampleValue>;

fn float(value: f64) -> Out {
    Some(SampleValue::Float(value))
}

/// For functions of floats alone: whether there is a float; notes that histograms are ignored.
fn floats_only(w: &Window<'_>, context: &RangeContext<'_>, notes: &mut Annotations) -> Option<()> {
    if w.values.is_empty() {
        return None;
    }
    if !w.h_values.is_empty() {
        notes.add(Note::ignored_in_mixed_range(w.name(), context.span));
    }
    Some(())
}

pub(crate) fn count(w: &Window<'_>) -> Out {
    float((w.values.len() + w.h_values.len()) as f64)
}

pub(crate) fn first(w: &Window<'_>) -> Out {
    match (w.times.first(), w.h_times.first()) {
        (Some(f), Some(h)) if f >= h => Some(SampleValue::Histogram(w.h_values[0].clone())),
        (Some(_), _) => float(w.values[0]),
        (None, _) => Some(SampleValue::Histogram(w.h_values.first()?.clone())),
    }
}

pub(crate) fn last(w: &Window<'_>) -> Out {
    match (w.times.last(), w.h_times.last()) {
        (Some(f), h) if h.is_none_or(|h| h < f) => float(*w.values.last()?),
        _ => Some(SampleValue::Histogram(w.h_values.last()?.clone())),
    }
}

pub(crate) fn time_of_first(w: &Window<'_>) -> Out {
    let first = w.times.first().into_iter().chain(w.h_times.first()).min()?;
    float(*first as f64 / 1000.0)
}

pub(crate) fn time_of_last(w: &Window<'_>) -> Out {
    let last = w.times.last().into_iter().chain(w.h_times.last()).max()?;
    float(*last as f64 / 1000.0)
}

/// Smallest or largest value, or with `time` its last occurrence.
pub(crate) fn extreme(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    max: bool,
    time: bool,
) -> Out {
    floats_only(w, context, notes)?;
    let (mut best, mut at) = (w.values[0], w.times[0]);
    for (&value, &t) in w.values.iter().zip(w.times) {
        let beats = if max { value > best } else { value < best };
        if beats || best.is_nan() || (time && value == best) {
            (best, at) = (value, t);
        }
    }
    float(if time { at as f64 / 1000.0 } else { best })
}

pub(crate) fn variance(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    root: bool,
) -> Out {
    floats_only(w, context, notes)?;
    let (mut mean, mut squares) = (Kahan::default(), Kahan::default());
    for (i, &value) in w.values.iter().enumerate() {
        let delta = value - mean.value();
        mean.add(delta / (i + 1) as f64);
        squares.add(delta * (value - mean.value()));
    }
    let variance = squares.value() / w.values.len() as f64;
    float(if root { variance.sqrt() } else { variance })
}

/// The quantile of values by linear interpolation; sorts them.
pub(crate) fn quantile_of(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // NaN is the smallest value.
    values.sort_unstable_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.total_cmp(b),
    });
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor().max(0.0) as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

pub(crate) fn quantile(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    q: f64,
) -> Out {
    if w.values.is_empty() {
        return None;
    }
    // Of a call with a scalar first, notes point to that argument.
    let span = context.first_span;
    if !(0.0..=1.0).contains(&q) {
        notes.add(Note::invalid_quantile(q, span));
    }
    if !w.h_values.is_empty() {
        notes.add(Note::ignored_in_mixed_range(w.name(), span));
    }
    float(quantile_of(q, &mut w.values.to_vec()))
}

/// Median absolute deviation.
pub(crate) fn mad(w: &Window<'_>, context: &RangeContext<'_>, notes: &mut Annotations) -> Out {
    floats_only(w, context, notes)?;
    if w.values.iter().any(|v| v.is_nan()) {
        return float(f64::NAN);
    }
    let mut values = w.values.to_vec();
    let median = quantile_of(0.5, &mut values);
    for v in &mut values {
        *v = (*v - median).abs();
    }
    float(quantile_of(0.5, &mut values))
}

/// For sums of one kind: notes and refuses a mix.
fn one_kind(w: &Window<'_>, context: &RangeContext<'_>, notes: &mut Annotations) -> Option<()> {
    if !w.values.is_empty() && !w.h_values.is_empty() {
        notes.add(Note::mixed_floats_histograms(w.name(), context.span));
        return None;
    }
    Some(())
}

pub(crate) fn sum(w: &Window<'_>, context: &RangeContext<'_>, notes: &mut Annotations) -> Out {
    one_kind(w, context, notes)?;
    if w.values.is_empty() {
        return histograms_together(w, context, notes, false);
    }
    let mut sum = Kahan::default();
    w.values.iter().for_each(|v| sum.add(*v));
    float(if sum.sum.is_infinite() { sum.sum } else { sum.value() })
}

pub(crate) fn avg(w: &Window<'_>, context: &RangeContext<'_>, notes: &mut Annotations) -> Out {
    one_kind(w, context, notes)?;
    let Some((first, rest)) = w.values.split_first() else {
        return histograms_together(w, context, notes, true);
    };
    let mut mean = Mean::new(*first);
    rest.iter().for_each(|v| mean.add(*v));
    float(mean.value())
}

/// Sum or mean of the histograms of a window.
fn histograms_together(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    mean: bool,
) -> Out {
    let span = context.span;
    let (first, rest) = w.h_values.split_first()?;
    let mut seen = (false, false);
    let mut watch = |h: &Histogram| match h.reset_hint {
        CounterResetHint::CounterReset => seen.0 = true,
        CounterResetHint::NotCounterReset => seen.1 = true,
        _ => {}
    };
    watch(first);
    let mut reconciled = false;
    let mut total = HistogramMean::new(first, mean);
    for h in rest {
        watch(h);
        match total.add(h) {
            Ok(remarks) => reconciled |= remarks.bounds_reconciled,
            Err(_) => {
                notes.add(Note::mixed_exponential_custom(w.name(), span));
                return None;
            }
        }
    }
    if seen == (true, true) {
        notes.add(Note::reset_collision(HistogramOperation::Aggregation, span));
    }
    if reconciled {
        notes.add(Note::bounds_reconciled(HistogramOperation::Aggregation, span));
    }
    Some(SampleValue::Histogram(Arc::new(total.finish())))
}

/// Slope and the value at `at_ms` of the least-squares line.
fn regression(times: &[i64], values: &[f64], at_ms: i64) -> (f64, f64) {
    let first = values[0];
    if values.iter().all(|v| *v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (mut x, mut y) = (Kahan::default(), Kahan::default());
    let (mut xy, mut x2) = (Kahan::default(), Kahan::default());
    for (t, v) in times.iter().zip(values) {
        let seconds = (t - at_ms) as f64 / 1000.0;
        x.add(seconds);
        y.add(*v);
        xy.add(seconds * v);
        x2.add(seconds * seconds);
    }
    let n = values.len() as f64;
    let (x, y) = (x.value(), y.value());
    let slope = (xy.value() - x * y / n) / (x2.value() - x * x / n);
    (slope, y / n - slope * x / n)
}

/// For trends: at least two floats; notes that histograms are ignored.
fn trend(w: &Window<'_>, context: &RangeContext<'_>, notes: &mut Annotations) -> Option<()> {
    if !w.values.is_empty() && !w.h_values.is_empty() {
        notes.add(Note::ignored_in_mixed_range(w.name(), context.span));
    }
    (w.values.len() >= 2).then_some(())
}

pub(crate) fn deriv(w: &Window<'_>, context: &RangeContext<'_>, notes: &mut Annotations) -> Out {
    trend(w, context, notes)?;
    float(regression(w.times, w.values, w.times[0]).0)
}

pub(crate) fn predict_linear(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    ahead_s: f64,
) -> Out {
    trend(w, context, notes)?;
    let (slope, now) = regression(w.times, w.values, w.step_time);
    float(slope * ahead_s + now)
}

/// Double exponential smoothing.
pub(crate) fn smoothing(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    smoothing: f64,
    trend_factor: f64,
) -> Result<Out, String> {
    for (what, factor, short) in [("smoothing", smoothing, "sf"), ("trend", trend_factor, "tf")] {
        if factor <= 0.0 || factor >= 1.0 {
            return Err(format!(
                "invalid {what} factor. Expected: 0 < {short} < 1, got: {factor:.6}"
            ));
        }
    }
    if trend(w, context, notes).is_none() {
        return Ok(None);
    }
    let (mut previous, mut smooth) = (0.0, w.values[0]);
    let mut slope = w.values[1] - w.values[0];
    for (i, value) in w.values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend_factor * (smooth - previous) + (1.0 - trend_factor) * slope;
        }
        let next = smoothing * value + (1.0 - smoothing) * (smooth + slope);
        (previous, smooth) = (smooth, next);
    }
    Ok(float(smooth))
}

/// A sample of a window in order of time.
#[derive(Clone, Copy)]
enum Item<'a> {
    Float { time: i64, start: i64, value: f64 },
    Histogram { time: i64, start: i64, value: &'a Histogram },
}

/// Floats and histograms of a window by time. For an anchored range only the newest sample at or
/// before its start is left of those; `None` if there is none after the start.
fn in_order<'a>(w: &Window<'a>, context: &RangeContext<'_>) -> Option<Vec<Item<'a>>> {
    let (mut f, mut h) = (0, 0);
    if context.extend == Extend::Anchored {
        f = w.times.partition_point(|t| *t <= w.start);
        h = w.h_times.partition_point(|t| *t <= w.start);
        if f == w.times.len() && h == w.h_times.len() {
            return None;
        }
        let float = f.checked_sub(1).map(|i| w.times[i]);
        let histogram = h.checked_sub(1).map(|i| w.h_times[i]);
        match (float, histogram) {
            (None, None) => {}
            (float, histogram) if float >= histogram => f -= 1,
            _ => h -= 1,
        }
    }
    let mut out = Vec::with_capacity(w.times.len() - f + w.h_times.len() - h);
    loop {
        match (w.times.get(f), w.h_times.get(h)) {
            (None, None) => return Some(out),
            (Some(&time), histogram) if histogram.is_none_or(|h| time < *h) => {
                let start = w.starts.get(f).copied().unwrap_or(0);
                out.push(Item::Float { time, start, value: w.values[f] });
                f += 1;
            }
            (_, Some(&time)) => {
                let start = w.h_starts.get(h).copied().unwrap_or(0);
                out.push(Item::Histogram { time, start, value: &w.h_values[h] });
                h += 1;
            }
            (Some(_), None) => return Some(out),
        }
    }
}

pub(crate) fn resets(w: &Window<'_>, context: &RangeContext<'_>) -> Out {
    let items = in_order(w, context)?;
    let is_reset = |pair: &&[Item<'_>]| match (pair[0], pair[1]) {
        (
            Item::Float { time: t1, start: s1, value: a },
            Item::Float { time: t2, start: s2, value: b },
        ) => b < a || start_tells_reset(s1, t1, s2, t2),
        (
            Item::Histogram { time: t1, start: s1, value: a },
            Item::Histogram { time: t2, start: s2, value: b },
        ) => start_tells_reset(s1, t1, s2, t2) || b.is_reset_after(a),
        _ => true,
    };
    float(items.windows(2).filter(is_reset).count() as f64)
}

pub(crate) fn changes(w: &Window<'_>, context: &RangeContext<'_>) -> Out {
    let items = in_order(w, context)?;
    let is_change = |pair: &&[Item<'_>]| match (pair[0], pair[1]) {
        (Item::Float { value: a, .. }, Item::Float { value: b, .. }) => {
            a != b && !(a.is_nan() && b.is_nan())
        }
        (Item::Histogram { value: a, .. }, Item::Histogram { value: b, .. }) => !a.same_data(b),
        _ => true,
    };
    float(items.windows(2).filter(is_change).count() as f64)
}
