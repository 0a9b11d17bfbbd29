//! Span metrics as series: running totals as numbers, classic buckets and native histograms.

use super::counters::{Event, Window};
use super::span_metrics::{BOUNDS, Group, Groups, Shape};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use trefoil_promql::{
    Bucket, Histogram, Labels, MatchOp, Matcher, Series, matches_all, stale_marker,
};
use trefoil_storage::meter::Meter;
use trefoil_storage::metrics::naming::float_label;
use trefoil_storage::red::sketch::bounds_of;
use trefoil_storage::red::{RedCell, RedTotal, Sketch};

/// Classic buckets are refined while the samples of one select stay below this.
const BUCKET_SAMPLES: u64 = 2_000_000;

/// Resolution of native histograms: buckets 0.54% wide, so that a quantile is within 1%.
const SCHEMA: i32 = 7;

/// The coarsest resolution that many busy series may be brought down to.
const SCHEMA_LEAST: i32 = 3;

/// Native-histogram buckets of one select before the resolution goes down.
const NATIVE_BUCKETS: u64 = 8_000_000;

/// Width of the zero bucket, as of OTLP histograms.
const ZERO_THRESHOLD: f64 = 1e-128;

/// Samples between two looks at the meter.
const METERED_SAMPLES: u64 = 4_096;

pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Labels of a classic bucket.
pub(super) fn bucket(labels: &Labels, bound: f64) -> Labels {
    let mut labels = labels.to_builder();
    labels.set("le", float_label(bound));
    labels.build()
}

/// Makes the series of one metric.
pub(super) struct Shown<'a> {
    groups: &'a Groups,
    window: &'a Window,
    meter: &'a dyn Meter,
    fresh: u64,
    spent: io::Result<()>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(groups: &'a Groups, window: &'a Window, meter: &'a dyn Meter) -> Self {
        Self { groups, window, meter, fresh: 0, spent: Ok(()) }
    }

    /// Accounts for samples; whether they may be held. Once they may not, nothing may.
    fn may_hold(&mut self, samples: u64) -> bool {
        self.fresh += samples;
        if self.fresh >= METERED_SAMPLES && self.spent.is_ok() {
            self.spent = self.meter.samples(std::mem::take(&mut self.fresh));
        }
        self.spent.is_ok()
    }

    fn finish(self) -> io::Result<()> {
        self.spent?;
        self.meter.samples(self.fresh)
    }

    /// Adds a series of one number per sample.
    pub(super) fn numbers(mut self, shape: Shape, out: &mut Vec<Series>) -> io::Result<()> {
        for (labels, Group { base, cells }) in self.groups {
            let mut series = Series::new(labels.clone());
            let number = |count: u64, sum_ns: u128| match shape {
                Shape::Sum => sum_ns as f64 / 1e9,
                _ => count as f64,
            };
            let mut before = base.as_ref().map_or(0.0, |base| number(base.count, base.sum_ns));
            let mut now = before;
            self.window.tell(base.as_ref(), cells, |event| match event {
                Event::Grow { cell, share } => {
                    now = before
                        + match shape {
                            Shape::Sum => number(0, cell.sum_ns) * share,
                            _ => number(cell.count(), 0) * share,
                        };
                    if share >= 1.0 {
                        before = now;
                    }
                }
                Event::Sample(time_ms) if self.may_hold(1) => series.floats.push(time_ms, now),
                Event::Stale(time_ms) if self.may_hold(1) => {
                    series.floats.push(time_ms, stale_marker());
                }
                Event::Sample(_) | Event::Stale(_) => {}
            });
            out.push(series);
        }
        self.finish()
    }

    /// Bounds that one select shows, ascending, seconds, `+Inf` included.
    ///
    /// Those of [`BOUNDS`] always, and finer ones around what was measured in the window while that stays affordable: a
    /// quantile of a few series is then as sharp as from a native histogram. All series of a select have the same, so
    /// that they add up. An equality on `le` names its bound itself, and any number may be asked.
    fn bounds(&self, matchers: &[Matcher]) -> Vec<f64> {
        let mut bounds: Vec<f64> = BOUNDS.to_vec();
        let mut asked = matchers.iter().filter(|m| m.name() == "le" && m.op() == MatchOp::Equal);
        if let Some(asked) = asked.next() {
            bounds = asked.value().parse().into_iter().collect();
        } else {
            let samples: u64 = self
                .groups
                .values()
                .map(|group| self.window.samples(group.base.as_ref(), &group.cells))
                .sum();
            let affordable = BUCKET_SAMPLES / samples.max(1);
            let mut measured: Vec<u32> = self
                .groups
                .values()
                .flat_map(|group| &group.cells)
                .flat_map(|cell| cell.sketch.buckets())
                .map(|(bucket, _)| *bucket)
                .collect();
            measured.sort_unstable();
            measured.dedup();
            for schema in (0..=SCHEMA).rev() {
                let mut indices: Vec<i32> = measured
                    .iter()
                    .map(|bucket| native_index(*bucket, schema))
                    .flat_map(|index| [index - 1, index])
                    .collect();
                indices.sort_unstable();
                indices.dedup();
                if (indices.len() + BOUNDS.len()) as u64 <= affordable {
                    let base = 2f64.powi(-schema);
                    bounds.extend(indices.into_iter().map(|i| (f64::from(i) * base).exp2()));
                    break;
                }
            }
        }
        bounds.push(f64::INFINITY);
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        bounds
    }

    /// Adds `_bucket` series.
    pub(super) fn buckets(mut self, matchers: &[Matcher], out: &mut Vec<Series>) -> io::Result<()> {
        let bounds = self.bounds(matchers);
        for (labels, Group { base, cells }) in self.groups {
            let mut series: Vec<Option<Series>> = bounds
                .iter()
                .map(|bound| bucket(labels, *bound))
                .map(|labels| matches_all(matchers, &labels).then(|| Series::new(labels)))
                .collect();
            let shown = series.iter().flatten().count() as u64;
            let mut before = match base {
                Some(base) => cumulative(&base.sketch, &bounds),
                None => vec![0.0; bounds.len()],
            };
            let mut now = before.clone();
            self.window.tell(base.as_ref(), cells, |event| match event {
                Event::Grow { cell, share } => {
                    let counts = cumulative(&cell.sketch, &bounds);
                    for (at, count) in counts.into_iter().enumerate() {
                        now[at] = before[at] + count * share;
                    }
                    if share >= 1.0 {
                        before.clone_from(&now);
                    }
                }
                Event::Sample(time_ms) if self.may_hold(shown) => {
                    for (series, total) in series.iter_mut().zip(&now) {
                        if let Some(series) = series {
                            series.floats.push(time_ms, *total);
                        }
                    }
                }
                Event::Stale(time_ms) if self.may_hold(shown) => {
                    for series in series.iter_mut().flatten() {
                        series.floats.push(time_ms, stale_marker());
                    }
                }
                Event::Sample(_) | Event::Stale(_) => {}
            });
            out.extend(series.into_iter().flatten());
        }
        self.finish()
    }

    /// Adds native histograms.
    pub(super) fn natives(mut self, out: &mut Vec<Series>) -> io::Result<()> {
        let schema = self.native_schema();
        for (labels, Group { base, cells }) in self.groups {
            let mut series = Series::new(labels.clone());
            let mut total = Running::new(base.as_ref(), schema);
            let mut shown: Option<Arc<Histogram>> = None;
            self.window.tell(base.as_ref(), cells, |event| match event {
                Event::Grow { cell, share } => {
                    total.grow(cell, share, schema);
                    shown = None;
                }
                Event::Sample(time_ms) => {
                    let histogram =
                        shown.get_or_insert_with(|| Arc::new(total.histogram(schema))).clone();
                    if self.may_hold(histogram.cost()) {
                        series.histograms.push(time_ms, histogram);
                    }
                }
                Event::Stale(time_ms) => {
                    let gone = Histogram { schema, sum: stale_marker(), ..Histogram::default() };
                    if self.may_hold(gone.cost()) {
                        series.histograms.push(time_ms, Arc::new(gone));
                    }
                }
            });
            out.push(series);
        }
        self.finish()
    }

    /// The finest resolution whose histograms stay within [`NATIVE_BUCKETS`].
    fn native_schema(&self) -> i32 {
        let samples = |group: &Group| self.window.samples(group.base.as_ref(), &group.cells);
        let sizes: Vec<u64> = self.groups.values().map(samples).collect();
        (SCHEMA_LEAST..=SCHEMA)
            .rev()
            .find(|schema| {
                let buckets: u64 = self
                    .groups
                    .values()
                    .zip(&sizes)
                    .map(|(group, samples)| {
                        let base = group.base.iter().map(|base| &base.sketch);
                        let mut indices: Vec<i32> = base
                            .chain(group.cells.iter().map(|cell| &cell.sketch))
                            .flat_map(Sketch::buckets)
                            .map(|(bucket, _)| native_index(*bucket, *schema))
                            .collect();
                        indices.sort_unstable();
                        indices.dedup();
                        samples * indices.len() as u64
                    })
                    .sum();
                buckets <= NATIVE_BUCKETS
            })
            .unwrap_or(SCHEMA_LEAST)
    }
}

/// How many durations lie at or below each of some ascending bounds, the last of which is `+Inf`.
fn cumulative(sketch: &Sketch, bounds: &[f64]) -> Vec<f64> {
    let mut counts = vec![0u64; bounds.len()];
    for (bucket, count) in sketch.buckets() {
        let value = seconds(bounds_of(*bucket).0);
        let at = bounds.partition_point(|bound| *bound < value);
        counts[at.min(bounds.len() - 1)] += count;
    }
    let mut below = 0;
    let sum = |count| {
        below += count;
        below as f64
    };
    counts.into_iter().map(sum).collect()
}

/// Index of the native bucket that holds the middle of an HDR bucket.
fn native_index(bucket: u32, schema: i32) -> i32 {
    let (low, high) = bounds_of(bucket);
    let value = (low as f64 + high as f64) / 2e9;
    // 1 ns is the least that is told from 0.
    (value.max(1e-9).log2() * f64::from(1 << schema)).ceil() as i32
}

/// Running counts of one native histogram.
#[derive(Default)]
struct Running {
    before: BTreeMap<i32, f64>,
    now: BTreeMap<i32, f64>,
    zero: (f64, f64),
    sum: (f64, f64),
}

/// Counts by native bucket, and of durations of zero.
fn native_counts(sketch: &Sketch, schema: i32) -> (BTreeMap<i32, f64>, f64) {
    let (mut counts, mut zero) = (BTreeMap::new(), 0.0);
    for (bucket, count) in sketch.buckets() {
        if bounds_of(*bucket).1 == 0 {
            zero += *count as f64;
        } else {
            *counts.entry(native_index(*bucket, schema)).or_default() += *count as f64;
        }
    }
    (counts, zero)
}

impl Running {
    fn new(base: Option<&RedTotal>, schema: i32) -> Self {
        let Some(base) = base else { return Self::default() };
        let (before, zero) = native_counts(&base.sketch, schema);
        let sum = base.sum_ns as f64 / 1e9;
        Self { now: before.clone(), before, zero: (zero, zero), sum: (sum, sum) }
    }

    fn grow(&mut self, cell: &RedCell, share: f64, schema: i32) {
        let (counts, zero) = native_counts(&cell.sketch, schema);
        for (index, count) in counts {
            let before = self.before.get(&index).copied().unwrap_or(0.0);
            self.now.insert(index, before + count * share);
        }
        self.zero.1 = self.zero.0 + zero * share;
        self.sum.1 = self.sum.0 + cell.sum_ns as f64 / 1e9 * share;
        if share >= 1.0 {
            self.before.clone_from(&self.now);
            self.zero.0 = self.zero.1;
            self.sum.0 = self.sum.1;
        }
    }

    fn histogram(&self, schema: i32) -> Histogram {
        let positive: Vec<Bucket> = self
            .now
            .iter()
            .filter(|(_, count)| **count > 0.0)
            .map(|(index, count)| Bucket { index: *index, count: *count })
            .collect();
        Histogram {
            schema,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: self.zero.1,
            count: positive.iter().map(|bucket| bucket.count).sum::<f64>() + self.zero.1,
            sum: self.sum.1,
            positive,
            ..Histogram::default()
        }
    }
}
