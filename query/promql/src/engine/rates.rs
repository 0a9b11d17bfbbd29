//! `rate`, `increase`, `delta`, `irate`, `idelta`.

use std::sync::Arc;

use crate::annotations::{Annotations, HistogramOperation, Note};
use crate::engine::range_call::{RangeContext, Window};
use crate::histogram::{CounterResetHint, Histogram, HistogramSum, Incompatible, Remarks};
use crate::series::SampleValue;

/// How far the samples of a window reach, seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// From the first to the last sample.
    sampled: f64,
    /// From the samples to the edges of the range, or as far as the series is taken to go.
    to_start: f64,
    to_end: f64,
    /// By how much a difference of the samples grows to that of the range.
    factor: f64,
}

impl Reach {
    /// Of at least two samples; an edge is covered as [`extrapolated`] tells.
    ///
    /// * `edges`: of the range.
    pub(crate) fn new(times: &[i64], (start, end): (i64, i64)) -> Option<Self> {
        let (first, last) = (*times.first()?, *times.last()?);
        let gaps = times.len() - 1;
        if gaps == 0 {
            return None;
        }
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let sampled = seconds(last - first);
        let average = sampled / gaps as f64;
        let threshold = average * 1.1;
        let near = |gap: f64| if gap >= threshold { average / 2.0 } else { gap };
        let (to_start, to_end) = (near(seconds(first - start)), near(seconds(end - last)));
        Some(Reach { sampled, to_start, to_end, factor: factor(sampled, to_start, to_end) })
    }

    /// [`extrapolated`] of numbers without start times.
    ///
    /// * `values`: of the same samples.
    /// * `lost`: what counter resets hide.
    /// * `per`: seconds of the range, for a rate.
    #[inline]
    pub(crate) fn rate(
        &self,
        values: &[f64],
        lost: f64,
        is_counter: bool,
        per: Option<f64>,
    ) -> f64 {
        let (first, last) = (values[0], values[values.len() - 1]);
        let mut float = last - first;
        let mut factor = self.factor;
        if is_counter {
            float += lost;
            // Far from zero, which is nearly always, nothing is divided: the margin is wider than rounding errors.
            let near_zero = first * self.sampled <= self.to_start * float * (1.0 + 1e-9);
            if float > 0.0 && first >= 0.0 && near_zero {
                factor = self.factor_from_zero(first, float);
            }
        }
        if let Some(per) = per {
            factor /= per;
        }
        float * factor
    }

    /// The factor when the series is not taken to begin below zero.
    #[cold]
    fn factor_from_zero(&self, first: f64, float: f64) -> f64 {
        let to_zero = self.sampled * (first / float);
        if to_zero < self.to_start {
            factor(self.sampled, to_zero, self.to_end)
        } else {
            self.factor
        }
    }
}

fn factor(sampled: f64, to_start: f64, to_end: f64) -> f64 {
    if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled }
}

/// The difference between the ends of a range, extrapolated to its edges.
///
/// An edge that is nearer to the outermost sample than 1.1 times the average distance of samples is
/// taken as covered; otherwise the series is taken to begin or end half a distance beyond its
/// outermost sample. A counter is not extrapolated below zero. A start time inside the range is
/// taken as a sample of zero.
pub(crate) fn extrapolated(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    is_counter: bool,
    is_rate: bool,
) -> Option<SampleValue> {
    if !w.times.is_empty() && !w.h_times.is_empty() {
        notes.add(Note::mixed_floats_histograms(w.name(), context.span));
        return None;
    }
    let is_histogram = !w.h_times.is_empty();
    let times = if is_histogram { w.h_times } else { w.times };
    let (first, last) = (*times.first()?, *times.last()?);
    let gaps = times.len() - 1;
    let starts = match (is_counter, is_histogram) {
        (false, _) => &[],
        (true, true) => w.h_starts,
        (true, false) => w.starts,
    };
    let mut float = 0.0;
    let mut histogram = None;
    if is_histogram {
        if gaps > 0 {
            histogram = Some(histogram_difference(w, starts, context, notes, is_counter)?);
        }
    } else {
        float = w.values[gaps] - w.values[0];
        if is_counter {
            float += lost_in_resets(w, starts, context, notes);
        }
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let mut to_start = seconds(first - w.start);
    let mut to_end = seconds(w.end - last);
    let mut sampled = seconds(last - first);
    let average = if gaps > 0 { sampled / gaps as f64 } else { 0.0 };
    let threshold = average * 1.1;
    match starts.first() {
        Some(&start) if start != 0 && start > w.start && start < first => {
            to_start = 0.0;
            sampled = seconds(last - start);
            if is_histogram {
                let mut sum = match &histogram {
                    Some(h) => HistogramSum::new(h),
                    None => {
                        let mut none = empty_like(&w.h_values[0]);
                        none.reset_hint = w.h_values[0].reset_hint;
                        HistogramSum::new(&none)
                    }
                };
                let remarks = combine(&mut sum, &w.h_values[0], true, w, context, notes)?;
                if remarks.bounds_reconciled {
                    notes.add(Note::bounds_reconciled(HistogramOperation::Addition, context.span));
                }
                histogram = Some(sum.finish());
            } else {
                float += w.values[0];
            }
        }
        _ if gaps == 0 => return None,
        _ => {
            if to_start >= threshold {
                to_start = average / 2.0;
            }
            if is_counter {
                let mut to_zero = to_start;
                if float > 0.0 && !is_histogram && w.values[0] >= 0.0 {
                    to_zero = sampled * (w.values[0] / float);
                } else if let Some(h) = histogram.as_ref().filter(|h| h.count > 0.0)
                    && w.h_values[0].count >= 0.0
                {
                    to_zero = sampled * (w.h_values[0].count / h.count);
                }
                if to_zero < to_start {
                    to_start = to_zero;
                }
            }
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = factor(sampled, to_start, to_end);
    if is_rate {
        factor /= context.range_ms as f64 / 1000.0;
    }
    Some(match histogram {
        Some(mut h) => {
            h.multiply(factor);
            SampleValue::Histogram(Arc::new(h))
        }
        None => SampleValue::Float(float * factor),
    })
}

/// What counter resets in the window hide: the sum of the values before them.
fn lost_in_resets(
    w: &Window<'_>,
    starts: &[i64],
    context: &RangeContext<'_>,
    notes: &mut Annotations,
) -> f64 {
    if starts.is_empty() {
        return w.resets.iter().map(|(_, before)| before).sum();
    }
    let mut lost = 0.0;
    let mut overlap = false;
    for i in 1..w.times.len() {
        overlap |= starts_overlap(starts[i - 1], w.times[i - 1], starts[i]);
        let by_start = start_tells_reset(starts[i - 1], w.times[i - 1], starts[i], w.times[i]);
        if w.values[i] < w.values[i - 1] || by_start {
            lost += w.values[i - 1];
        }
    }
    if overlap {
        notes.add(Note::start_time_overlap(w.name(), context.span));
    }
    lost
}

/// Whether start times tell that a counter began anew between two samples.
pub(crate) fn start_tells_reset(
    previous_start: i64,
    previous: i64,
    start: i64,
    current: i64,
) -> bool {
    // 0 is unknown; at or after the sample itself it is invalid, or OpenTelemetry's "unknown".
    if start == 0 || start >= current || start < previous {
        return false;
    }
    if start > previous {
        return true;
    }
    // It points to the sample before: a delta series, or a series of unknown start. The start of
    // the sample before tells which.
    previous_start <= previous && previous_start != 0 && previous_start != previous
}

/// A start before the previous sample is only right if it is the same start.
fn starts_overlap(previous_start: i64, previous: i64, start: i64) -> bool {
    start != 0 && start < previous && start != previous_start
}

fn empty_like(h: &Histogram) -> Histogram {
    Histogram {
        schema: h.schema,
        custom_values: h.custom_values.clone(),
        zero_threshold: h.zero_threshold,
        ..Histogram::default()
    }
}

fn combine(
    sum: &mut HistogramSum,
    other: &Histogram,
    add: bool,
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
) -> Option<Remarks> {
    match if add { sum.add(other) } else { sum.sub(other) } {
        Ok(remarks) => Some(remarks),
        Err(Incompatible) => {
            notes.add(Note::mixed_exponential_custom(w.name(), context.span));
            None
        }
    }
}

/// The difference between the last and the first histogram, with what resets hide added.
fn histogram_difference(
    w: &Window<'_>,
    starts: &[i64],
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    is_counter: bool,
) -> Option<Histogram> {
    let (points, span, name) = (w.h_values, context.span, w.name());
    let (first, last) = (&points[0], &points[points.len() - 1]);
    let is_gauge = |h: &Histogram| h.reset_hint == CounterResetHint::Gauge;
    if is_counter && (is_gauge(first) || is_gauge(last)) {
        notes.add(Note::not_a_counter(name, span));
    }
    let by_start = |i: usize| {
        starts.len() > i
            && start_tells_reset(starts[i - 1], w.h_times[i - 1], starts[i], w.h_times[i])
    };
    let mut custom = first.uses_custom_buckets();
    let nothing;
    let mut previous: &Histogram = first;
    if is_counter && (by_start(1) || points[1].is_reset_after(first)) {
        // The first sample ends with the reset: its layout does not matter.
        nothing = Histogram {
            schema: points[1].schema,
            custom_values: points[1].custom_values.clone(),
            ..Histogram::default()
        };
        previous = &nothing;
        custom = points[1].uses_custom_buckets();
    }
    let mixed = |notes: &mut Annotations| {
        notes.add(Note::mixed_exponential_custom(name, span));
        None
    };
    if last.uses_custom_buckets() != custom {
        return mixed(notes);
    }
    if is_counter {
        for h in &points[1..points.len() - 1] {
            if is_gauge(h) {
                notes.add(Note::not_a_counter(name, span));
            }
            if h.uses_custom_buckets() != custom {
                return mixed(notes);
            }
        }
    }
    let mut sum = HistogramSum::new(last);
    if combine(&mut sum, previous, false, w, context, notes)?.bounds_reconciled {
        notes.add(Note::bounds_reconciled(HistogramOperation::Subtraction, span));
    }
    if is_counter {
        let mut overlap = false;
        for i in 1..points.len() {
            let current = &points[i];
            if i < starts.len() {
                overlap |= starts_overlap(starts[i - 1], w.h_times[i - 1], starts[i]);
            }
            if by_start(i) || current.is_reset_after(previous) {
                let remarks = combine(&mut sum, previous, true, w, context, notes)?;
                if remarks.bounds_reconciled {
                    notes.add(Note::bounds_reconciled(HistogramOperation::Addition, span));
                }
            }
            previous = current;
        }
        if overlap {
            notes.add(Note::start_time_overlap(name, span));
        }
    } else if !(is_gauge(first) && is_gauge(last)) {
        notes.add(Note::not_a_gauge(name, span));
    }
    let mut h = sum.finish();
    h.reset_hint = CounterResetHint::Gauge;
    Some(h)
}

/// One of the last two samples of a window.
#[derive(Clone, Copy)]
struct Last<'a> {
    time: i64,
    start: i64,
    float: f64,
    histogram: Option<&'a Arc<Histogram>>,
}

/// The difference of the last two samples; per second if `is_rate`.
pub(crate) fn last_two(
    w: &Window<'_>,
    context: &RangeContext<'_>,
    notes: &mut Annotations,
    is_rate: bool,
) -> Option<SampleValue> {
    let (span, name) = (context.span, w.name());
    let floats = (0..w.times.len()).rev().take(2).map(|i| Last {
        time: w.times[i],
        start: w.starts.get(i).copied().unwrap_or(0),
        float: w.values[i],
        histogram: None,
    });
    let histograms = (0..w.h_times.len()).rev().take(2).map(|i| Last {
        time: w.h_times[i],
        start: w.h_starts.get(i).copied().unwrap_or(0),
        float: 0.0,
        histogram: Some(&w.h_values[i]),
    });
    let mut newest: Vec<Last<'_>> = floats.chain(histograms).collect();
    newest.sort_by_key(|s| std::cmp::Reverse(s.time));
    let [b, a, ..] = newest[..] else { return None };
    let seconds = (b.time - a.time) as f64 / 1000.0;
    if seconds == 0.0 {
        return None;
    }
    let by_start = start_tells_reset(a.start, a.time, b.start, b.time);
    match (a.histogram, b.histogram) {
        (None, None) => {
            let reset = is_rate && (b.float < a.float || by_start);
            let difference = if reset { b.float } else { b.float - a.float };
            Some(SampleValue::Float(if is_rate { difference / seconds } else { difference }))
        }
        (Some(before), Some(after)) => {
            let gauge = |h: &Histogram| h.reset_hint == CounterResetHint::Gauge;
            if is_rate && (gauge(before) || gauge(after)) {
                notes.add(Note::not_a_counter(name, span));
            }
            let both_gauges = gauge(before) && gauge(after);
            if !is_rate && !both_gauges {
                notes.add(Note::not_a_gauge(name, span));
            }
            let mut sum = HistogramSum::new(after);
            if !is_rate || !(by_start || after.is_reset_after(before)) {
                let remarks = combine(&mut sum, before, false, w, context, notes)?;
                if remarks.bounds_reconciled {
                    notes.add(Note::bounds_reconciled(HistogramOperation::Subtraction, span));
                }
            }
            let mut h = sum.finish();
            if is_rate {
                h.divide(seconds);
            }
            h.reset_hint = CounterResetHint::Gauge;
            Some(SampleValue::Histogram(Arc::new(h)))
        }
        _ => {
            notes.add(Note::mixed_floats_histograms(name, span));
            None
        }
    }
}
