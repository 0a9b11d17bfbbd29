//! Extended ranges: `anchored` takes the sample before the range in, `smoothed` interpolates at the
//! edges of the range.

use std::sync::Arc;

use crate::annotations::{Annotations, HistogramOperation, Note};
use crate::engine::range_call::{RangeContext, Window};
use crate::histogram::{CounterResetHint, Histogram, HistogramSum, Incompatible};
use crate::series::{Column, SampleValue};

/// The value at a time between two samples. After a counter reset the counter is taken to start from
/// zero.
pub(crate) fn interpolate(a: (i64, f64), b: (i64, f64), time: i64, is_counter: bool) -> f64 {
    let from = if is_counter && b.1 < a.1 { 0.0 } else { a.1 };
    from + (b.1 - from) * (time - a.0) as f64 / (b.0 - a.0) as f64
}

/// As [`interpolate`] for histograms. Also gives the operations in which custom bounds had to be
/// reconciled.
pub(crate) fn interpolate_histograms(
    a: &Histogram,
    b: &Histogram,
    (a_time, b_time): (i64, i64),
    time: i64,
    is_counter: bool,
) -> Result<(Histogram, Vec<HistogramOperation>), Incompatible> {
    if time == a_time {
        return Ok((a.clone(), Vec::new()));
    }
    if time == b_time {
        return Ok((b.clone(), Vec::new()));
    }
    let fraction = (time - a_time) as f64 / (b_time - a_time) as f64;
    if is_counter && b.is_reset_after(a) {
        let mut h = b.clone();
        h.multiply(fraction);
        return Ok((h, Vec::new()));
    }
    let mut operations = Vec::new();
    let mut sum = HistogramSum::new(b);
    if sum.sub(a)?.bounds_reconciled {
        operations.push(HistogramOperation::Subtraction);
    }
    sum.scale(fraction);
    if sum.add(a)?.bounds_reconciled {
        operations.push(HistogramOperation::Addition);
    }
    Ok((sum.finish(), operations))
}

/// The samples of a range with a sample at each edge.
pub(crate) fn extend(column: &Column<f64>, start: i64, end: i64, smoothed: bool) -> Column<f64> {
    let mut out = Column::default();
    let Some((mut first, last)) = edges(&column.times, start, end, smoothed) else {
        return out;
    };
    let sample = |i: usize| (column.times[i], column.values[i]);
    let left = left_edge(sample, first, start, smoothed, false);
    let right = right_edge(sample, last, end, smoothed, false);
    // Samples at the edges themselves or beyond are represented by the edges.
    if column.times[first] <= start {
        first += 1;
    }
    let until = if column.times[last] >= end { last } else { last + 1 };
    out.push(start, left);
    for i in first..until {
        out.push(column.times[i], column.values[i]);
    }
    out.push(end, right);
    out
}

/// The first and last samples that matter: the newest at or before the start, and the newest, or for
/// smoothing the first at or after the end. `None` if nothing lies after the start.
fn edges(times: &[i64], start: i64, end: i64, smoothed: bool) -> Option<(usize, usize)> {
    let mut last = times.len().checked_sub(1)?;
    let first = times[..last].partition_point(|t| *t <= start).saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|t| *t < end);
    }
    if times[last] <= start || (smoothed && times[first] > end) {
        return None;
    }
    Some((first, last))
}

fn left_edge(
    sample: impl Fn(usize) -> (i64, f64),
    first: usize,
    start: i64,
    smoothed: bool,
    is_counter: bool,
) -> f64 {
    if smoothed && sample(first).0 < start {
        return interpolate(sample(first), sample(first + 1), start, is_counter);
    }
    sample(first).1
}

fn right_edge(
    sample: impl Fn(usize) -> (i64, f64),
    last: usize,
    end: i64,
    smoothed: bool,
    is_counter: bool,
) -> f64 {
    if smoothed && last > 0 && sample(last).0 > end {
        return interpolate(sample(last - 1), sample(last), end, is_counter);
    }
    sample(last).1
}

/// `rate`, `increase` and `delta` of an extended range.
pub(crate) fn extended_rate(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    is_counter: bool,
    is_rate: bool,
) -> Option<SampleValue> {
    if !w.h_times.is_empty() && !w.times.is_empty() {
        notes.add(Note::mixed_floats_histograms(w.name(), context.span));
        return None;
    }
    if !w.h_times.is_empty() {
        return histogram_rate(w, context, notes, is_counter, is_rate);
    }
    let smoothed = context.is_smoothed();
    let (mut first, last) = edges(w.times, w.start, w.end, smoothed)?;
    let sample = |i: usize| (w.times[i], w.values[i]);
    let left = left_edge(sample, first, w.start, smoothed, is_counter);
    let right = right_edge(sample, last, w.end, smoothed, is_counter);
    let mut result = right - left;
    if is_counter {
        // Resets at the edges are accounted for by the interpolation.
        if w.times[first] <= w.start {
            first += 1;
        }
        let until = if w.times[last] >= w.end { last } else { last + 1 };
        let mut previous = left;
        for &value in w.values[..until].iter().skip(first).chain([&right]) {
            if value < previous {
                result += previous;
            }
            previous = value;
        }
    }
    if is_rate {
        result /= context.range_ms as f64 / 1000.0;
    }
    Some(SampleValue::Float(result))
}

fn histogram_rate(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    is_counter: bool,
    is_rate: bool,
) -> Option<SampleValue> {
    let (span, name, smoothed) = (context.span, w.name(), context.is_smoothed());
    let (times, values) = (w.h_times, w.h_values);
    let (first, last) = edges(times, w.start, w.end, smoothed)?;
    let custom = values[first].uses_custom_buckets();
    for h in &values[first..=last] {
        if h.uses_custom_buckets() != custom {
            notes.add(Note::mixed_exponential_custom(name, span));
            return None;
        }
        if is_counter && h.reset_hint == CounterResetHint::Gauge {
            notes.add(Note::not_a_counter(name, span));
        }
    }
    let mut between = |i: usize, j: usize, time: i64| match interpolate_histograms(
        &values[i],
        &values[j],
        (times[i], times[j]),
        time,
        is_counter,
    ) {
        Ok((h, operations)) => {
            for operation in operations {
                notes.add(Note::bounds_reconciled(operation, span));
            }
            Some(h)
        }
        Err(Incompatible) => {
            notes.add(Note::mixed_exponential_custom(name, span));
            None
        }
    };
    let left = if smoothed && times[first] < w.start {
        between(first, first + 1, w.start)?
    } else {
        (*values[first]).clone()
    };
    let right = if smoothed && last > 0 && times[last] > w.end {
        between(last - 1, last, w.end)?
    } else {
        (*values[last]).clone()
    };
    let gauge = |h: &Histogram| h.reset_hint == CounterResetHint::Gauge;
    let both_gauges = gauge(&left) && gauge(&right);
    if !is_counter && !both_gauges {
        notes.add(Note::not_a_gauge(name, span));
    }
    let mut result = HistogramSum::new(&right);
    let mut combine = |result: &mut HistogramSum, other: &Histogram, add: bool| {
        let (outcome, operation) = if add {
            (result.add(other), HistogramOperation::Addition)
        } else {
            (result.sub(other), HistogramOperation::Subtraction)
        };
        match outcome {
            Ok(remarks) => {
                if remarks.bounds_reconciled {
                    notes.add(Note::bounds_reconciled(operation, span));
                }
                Some(())
            }
            Err(Incompatible) => {
                notes.add(Note::mixed_exponential_custom(name, span));
                None
            }
        }
    };
    combine(&mut result, &left, false)?;
    if is_counter {
        for lost in resets(w, first, last, &left, &right, smoothed) {
            combine(&mut result, &lost, true)?;
        }
    }
    if is_rate {
        result.scale(1.0 / (context.range_ms as f64 / 1000.0));
    }
    let mut h = result.finish();
    h.reset_hint = CounterResetHint::Gauge;
    Some(SampleValue::Histogram(Arc::new(h)))
}

/// The histograms just before each counter reset between the edges.
fn resets(
    w: &Window<'_>,
    first: usize,
    last: usize,
    left: &Histogram,
    right: &Histogram,
    smoothed: bool,
) -> Vec<Histogram> {
    let (times, values) = (w.h_times, w.h_values);
    // The first sample is represented by the left edge, the last one by the right edge.
    let mut from = first + 1;
    let mut previous = left;
    if smoothed && times[first] < w.start && values[first + 1].is_reset_after(&values[first]) {
        // The interpolation at the left edge went over this reset already.
        previous = &values[first + 1];
        from += 1;
    }
    if from > last {
        return Vec::new();
    }
    let mut lost = Vec::new();
    for h in &values[from..last] {
        if h.is_reset_after(previous) {
            lost.push(previous.clone());
        }
        previous = h;
    }
    if right.is_reset_after(previous) {
        lost.push(previous.clone());
    }
    lost
}
