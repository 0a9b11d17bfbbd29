//! Selectors: loading series, and looking up the sample that counts at each step.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use crate::annotations::Note;
use crate::engine::eval::{Evaluator, Result};
use crate::engine::extended::{interpolate, interpolate_histograms};
use crate::engine::value::{
    ABSENT, Held, Points, RangeSeries, StepSeries, Steps, Vector, cell, is_absent,
};
use crate::histogram::{CounterResetHint, Histogram, detect_resets};
use crate::labels::METRIC_NAME;
use crate::parse::{Extend, MatrixSelector, VectorSelector};
use crate::series::{Column, Series, is_stale};
use crate::source::{SelectHints, TimeRange};

/// Series that were loaded, accounted for.
pub(crate) struct Loaded {
    pub series: Vec<Series>,
    pub _held: Held,
}

/// A sample found by an instant lookup.
pub(crate) struct Found<'a> {
    pub time_ms: i64,
    pub start_ms: i64,
    pub value: FoundValue<'a>,
}

pub(crate) enum FoundValue<'a> {
    Float(f64),
    Histogram(&'a Arc<Histogram>),
}

/// Walks over a series with ever later times, giving the newest sample in the lookback window.
pub(crate) struct Lookup<'a> {
    series: &'a Series,
    lookback_ms: i64,
    floats: usize,
    histograms: usize,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(series: &'a Series, lookback_ms: i64) -> Self {
        Lookup { series, lookback_ms, floats: 0, histograms: 0 }
    }

    /// The sample that counts at a time, unless it is missing, too old or a staleness marker. Times
    /// must not go backward.
    pub(crate) fn at(&mut self, time_ms: i64) -> Option<Found<'a>> {
        fn advance<T>(column: &Column<T>, from: &mut usize, time_ms: i64) -> Option<usize> {
            while column.times.get(*from).is_some_and(|t| *t <= time_ms) {
                *from += 1;
            }
            from.checked_sub(1)
        }
        let (floats, histograms) = (&self.series.floats, &self.series.histograms);
        let float = advance(floats, &mut self.floats, time_ms);
        let histogram = advance(histograms, &mut self.histograms, time_ms);
        let float_time = float.map(|i| floats.times[i]);
        let histogram_time = histogram.map(|i| histograms.times[i]);
        let oldest = time_ms.saturating_sub(self.lookback_ms);
        if float_time >= histogram_time {
            let (i, time_ms) = (float?, float_time?);
            let value = floats.values[i];
            (time_ms > oldest && !is_stale(value)).then(|| Found {
                time_ms,
                start_ms: floats.starts.get(i).copied().unwrap_or(0),
                value: FoundValue::Float(value),
            })
        } else {
            let (i, time_ms) = (histogram?, histogram_time?);
            let value = &histograms.values[i];
            (time_ms > oldest && !value.is_stale()).then(|| Found {
                time_ms,
                start_ms: histograms.starts.get(i).copied().unwrap_or(0),
                value: FoundValue::Histogram(value),
            })
        }
    }
}

/// The times a selector looks at, before its own range or lookback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    pub at: Option<i64>,
    pub offset_ms: i64,
}

impl Looks {
    /// The time that is looked at from a step.
    #[inline]
    pub(crate) fn seen_from(&self, step_time_ms: i64) -> i64 {
        self.at.unwrap_or(step_time_ms).saturating_sub(self.offset_ms)
    }
}

impl Evaluator<'_> {
    pub(crate) fn looks(&self, v: &VectorSelector) -> Result<Looks> {
        let offset_ms = self.duration(&v.timing.offset, true)?;
        Ok(Looks { at: self.at(v.timing.at), offset_ms })
    }

    /// Loads the series of a selector, sorted by labels.
    ///
    /// * `before_ms`: how far before the first time samples matter, exclusive.
    /// * `after_ms`: how far after the last time they matter, inclusive.
    pub(crate) fn load(
        &self,
        v: &VectorSelector,
        steps: &Steps,
        looks: Looks,
        around: (i64, i64),
        hints: SelectHints,
    ) -> Result<Loaded> {
        let mut loaded = self.load_raw(v, steps, looks, around, hints)?;
        loaded.series.iter_mut().for_each(without_absent);
        self.budget.check()?;
        Ok(loaded)
    }

    /// As [`load`](Self::load), but values may be what stands for none in columns, for callers that
    /// clean them series by series, and series that are only grouped come in any order.
    pub(crate) fn load_raw(
        &self,
        v: &VectorSelector,
        steps: &Steps,
        looks: Looks,
        (before_ms, after_ms): (i64, i64),
        hints: SelectHints,
    ) -> Result<Loaded> {
        let first = looks.seen_from(steps.start_ms);
        let last = looks.seen_from(steps.last_ms());
        let range = TimeRange {
            start_ms: first.saturating_sub(before_ms).saturating_add(1),
            end_ms: last.saturating_add(after_ms),
        };
        let step_ms = if steps.count > 1 { steps.step_ms } else { 0 };
        let hints = SelectHints { step_ms, ..hints };
        let mut series = self.source.select(&v.matchers, range, &hints, self.budget)?;
        let cost = series.iter().map(Series::sample_cost).sum();
        let held = Held::adopt(self.budget, cost);
        if !self.grouped.contains(&v.span.start) {
            sort(&mut series);
        }
        if self.counts_only.contains(&v.span.start) {
            for s in &mut series {
                s.histograms.values.change(|all| detect_resets(all));
            }
        }
        self.budget.check()?;
        Ok(Loaded { series, _held: held })
    }

    /// The newest sample of each series at each step.
    ///
    /// * `hints`: what is known of its use.
    pub(crate) fn instant_vector(
        &self,
        v: &VectorSelector,
        steps: &Steps,
        hints: SelectHints,
    ) -> Result<Vector> {
        let looks = self.looks(v)?;
        let lookback = self.lookback_ms();
        if v.extend == Extend::Smoothed {
            return self.smoothed_vector(v, steps, looks);
        }
        let loaded = self.load(v, steps, looks, (lookback, 0), hints)?;
        let mut out = Vec::with_capacity(loaded.series.len());
        let mut held = Held::new(self.budget, 0)?;
        let mut counts = vec![0; steps.count];
        for series in &loaded.series {
            held.grow(steps.count as u64)?;
            let mut lookup = Lookup::new(series, lookback);
            let mut points = Points::absent(steps.count);
            for (step, count) in counts.iter_mut().enumerate() {
                let Some(found) = lookup.at(looks.seen_from(steps.time(step))) else { continue };
                *count += 1;
                match found.value {
                    FoundValue::Float(f) => points.floats[step] = f,
                    FoundValue::Histogram(h) => points.set_histogram(step, h.clone()),
                }
            }
            out.push(StepSeries { labels: series.labels.clone(), drop_name: false, points });
        }
        self.count_samples(steps, &counts);
        Ok(Vector::held(out, steps, held)?)
    }

    /// `timestamp(selector)`, and with `starts` `start_timestamp(selector)`: times of the samples
    /// instead of their values, in seconds.
    pub(crate) fn instant_times(
        &self,
        v: &VectorSelector,
        steps: &Steps,
        starts: bool,
    ) -> Result<Vector> {
        let looks = self.looks(v)?;
        let lookback = self.lookback_ms();
        let hints = SelectHints { starts, ..SelectHints::default() };
        let loaded = self.load(v, steps, looks, (lookback, 0), hints)?;
        let mut out = Vec::with_capacity(loaded.series.len());
        let mut held = Held::new(self.budget, 0)?;
        for series in &loaded.series {
            held.grow(steps.count as u64)?;
            let mut lookup = Lookup::new(series, lookback);
            let mut points = Points::absent(steps.count);
            for step in 0..steps.count {
                if let Some(found) = lookup.at(looks.seen_from(steps.time(step))) {
                    let ms = if starts { found.start_ms } else { found.time_ms };
                    points.floats[step] = ms as f64 / 1000.0;
                }
            }
            out.push(StepSeries { labels: series.labels.clone(), drop_name: false, points });
        }
        Ok(Vector::held(out, steps, held)?)
    }

    /// A smoothed selector: interpolated between the samples around each step.
    fn smoothed_vector(&self, v: &VectorSelector, steps: &Steps, looks: Looks) -> Result<Vector> {
        let lookback = self.lookback_ms();
        let loaded = self.load(v, steps, looks, (lookback, lookback), SelectHints::default())?;
        let mut out = Vec::with_capacity(loaded.series.len());
        let mut held = Held::new(self.budget, 0)?;
        for mut series in loaded.series {
            held.grow(steps.count as u64)?;
            without_stale(&mut series);
            let name = series.labels.name().to_owned();
            let mut points = Points::absent(steps.count);
            for step in 0..steps.count {
                let time = looks.seen_from(steps.time(step));
                let around = |times: &[i64]| {
                    let from = times.partition_point(|t| *t <= time - lookback);
                    (from, times.partition_point(|t| *t <= time + lookback))
                };
                let (ff, ft) = around(&series.floats.times);
                let (hf, ht) = around(&series.histograms.times);
                if ff < ft && hf < ht {
                    self.note(Note::mixed_floats_histograms(&name, v.span));
                } else if hf < ht {
                    if let Some(h) =
                        self.smoothed_histogram(&series.histograms, (hf, ht), time, &name, v)
                    {
                        points.set_histogram(step, Arc::new(h));
                    }
                } else if ff < ft {
                    points.floats[step] = smoothed_float(&series.floats, (ff, ft), time);
                }
            }
            out.push(StepSeries { labels: series.labels, drop_name: false, points });
        }
        Ok(Vector::held(out, steps, held)?)
    }

    fn smoothed_histogram(
        &self,
        column: &Column<Arc<Histogram>>,
        (from, to): (usize, usize),
        time: i64,
        name: &str,
        v: &VectorSelector,
    ) -> Option<Histogram> {
        let (times, values) = (&column.times[from..to], &column.values[from..to]);
        let next = times.partition_point(|t| *t < time);
        if times.get(next) == Some(&time) {
            return Some((*values[next]).clone());
        }
        let previous = next.checked_sub(1)?;
        let Some(after) = values.get(next) else {
            let mut h = (*values[previous]).clone();
            h.reset_hint = CounterResetHint::Unknown;
            return Some(h);
        };
        let before = &values[previous];
        let gauge = |h: &Histogram| h.reset_hint == CounterResetHint::Gauge;
        let is_counter = !(gauge(before) && gauge(after));
        let span = (times[previous], times[next]);
        let (h, remarks) = interpolate_histograms(before, after, span, time, is_counter)
            .map_err(|_| self.note(Note::mixed_exponential_custom(name, v.span)))
            .ok()?;
        for operation in remarks {
            self.note(Note::bounds_reconciled(operation, v.span));
        }
        Some(h)
    }

    /// A range selector as the result of an instant query.
    pub(crate) fn matrix_result(
        &self,
        m: &MatrixSelector,
        steps: &Steps,
    ) -> Result<Vec<RangeSeries>> {
        let looks = self.looks(&m.selector)?;
        let range = self.duration(&m.range, false)?;
        let lookback = self.lookback_ms();
        let (before, after) = match m.selector.extend {
            Extend::No => (range, 0),
            Extend::Anchored => (range + lookback, 0),
            Extend::Smoothed => (range + lookback, lookback),
        };
        let hints = SelectHints { range_ms: range, ..SelectHints::default() };
        let loaded = self.load(&m.selector, steps, looks, (before, after), hints)?;
        let end = looks.seen_from(steps.start_ms);
        let mut out = Vec::with_capacity(loaded.series.len());
        for mut series in loaded.series {
            without_stale(&mut series);
            if m.selector.extend != Extend::No {
                let smoothed = m.selector.extend == Extend::Smoothed;
                let word = if smoothed { "smoothed" } else { "anchored" };
                if !series.histograms.is_empty() {
                    return self.fail(format!("{word} modifier is not supported with histograms"));
                }
                series.floats =
                    crate::engine::extended::extend(&series.floats, end - range, end, smoothed);
            }
            if !series.is_empty() {
                out.push(RangeSeries { series, drop_name: false });
            }
        }
        Ok(out)
    }
}

/// Sorts series by labels. Sources give them nearly in order, but the parts of histograms mixed.
fn sort(series: &mut Vec<Series>) {
    if series.is_sorted_by(|a, b| a.labels <= b.labels) {
        return;
    }
    let named = |s: &Series| s.labels.pairs().first().is_some_and(|(n, _)| **n == *METRIC_NAME);
    if !series.iter().all(named) {
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        return;
    }
    // The name decides first, and there are few.
    let mut at: HashMap<Arc<str>, usize, FxBuildHasher> = HashMap::default();
    let mut by_name: Vec<(Arc<str>, Vec<Series>)> = Vec::new();
    for s in series.drain(..) {
        let name = &s.labels.pairs()[0].1;
        let i = match at.get(name) {
            Some(i) => *i,
            None => {
                at.insert(name.clone(), by_name.len());
                by_name.push((name.clone(), Vec::new()));
                by_name.len() - 1
            }
        };
        by_name[i].1.push(s);
    }
    by_name.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, mut of_name) in by_name {
        of_name.sort_by(|a, b| a.labels.cmp(&b.labels));
        series.append(&mut of_name);
    }
}

/// Makes the value that stands for none in columns an ordinary NaN.
pub(crate) fn without_absent(series: &mut Series) {
    let values = &mut series.floats.values;
    if values.iter().fold(false, |any, f| any | is_absent(*f)) {
        let absent = |f: &&mut f64| is_absent(**f);
        values.change(|all| all.iter_mut().filter(absent).for_each(|f| *f = f64::NAN));
    }
}

fn smoothed_float(column: &Column<f64>, (from, to): (usize, usize), time: i64) -> f64 {
    let (times, values) = (&column.times[from..to], &column.values[from..to]);
    let next = times.partition_point(|t| *t < time);
    if times.get(next) == Some(&time) {
        return values[next];
    }
    let Some(previous) = next.checked_sub(1) else { return ABSENT };
    if next == times.len() {
        return values[previous];
    }
    let (a, b) = ((times[previous], values[previous]), (times[next], values[next]));
    cell(interpolate(a, b, time, false))
}

/// Ranges do not show staleness markers.
pub(crate) fn without_stale(series: &mut Series) {
    fn keep<T: Clone>(column: &mut Column<T>, stale: impl Fn(&T) -> bool) {
        // Without a way out the loop is quick.
        if !column.values.iter().fold(false, |any, v| any | stale(v)) {
            return;
        }
        let kept: Vec<bool> = column.values.iter().map(|v| !stale(v)).collect();
        let mut flags = kept.iter();
        column.times.retain(|_| *flags.next().unwrap_or(&true));
        let mut flags = kept.iter();
        column.values.retain(|_| *flags.next().unwrap_or(&true));
        let mut flags = kept.iter();
        column.starts.retain(|_| *flags.next().unwrap_or(&true));
    }
    keep(&mut series.floats, |f| is_stale(*f));
    keep(&mut series.histograms, |h| h.is_stale());
}
