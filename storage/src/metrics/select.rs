//! Points as Prometheus sees them: selectors, and the walk over all series that may pass.

use super::batch::MetricKind;
use super::derive::{derive, derive_labels};
use super::floats::Floats;
use super::gather::{Gathered, Gathering};
use super::native::NativeHistogram;
use super::points::Wanted;
use super::replicas::{self, Origin};
use super::sealed;
use super::segment::{MetricSegment, SeriesTable};
use super::series::{Label, Part, SeriesMeta};
use super::series_cache::Asker;
use super::shown::{Judge, Shown};
use super::store::{HotSeries, MetricStore, StoredPoint};
use super::tried::Tried;
use crate::meter::Meter;
use std::io;
use std::sync::{Arc, LazyLock};

/// One label condition of a selector.
pub trait LabelMatcher {
    fn name(&self) -> &str;

    /// Whether a value passes; a missing label is the empty string.
    fn matches(&self, value: &str) -> bool;

    /// The only values that can pass, when there are few: lets the index look them up.
    fn literals(&self) -> Option<&[String]>;

    /// The condition as text: two of one text let the same pass.
    fn text(&self) -> String;
}

/// A Prometheus series with its samples in ascending time, ms.
#[derive(Debug, Clone, Default)]
pub struct PromSeries {
    /// Sorted, `__name__` included.
    pub labels: Arc<Vec<Label>>,
    pub floats: Floats,
    pub histograms: Vec<(i64, NativeHistogram)>,
    /// When the counter began, Unix ms, by sample; if that was asked for, of samples whose sender told it.
    pub starts: Vec<(i64, i64)>,
    /// Where running totals began, and the sample before which that was, ms; while a select gathers.
    pub(super) zeros: Vec<(i64, i64)>,
    /// Further samples; while a select gathers.
    pub(super) more: Vec<Floats>,
}

/// What a select reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Labels alone: a series is listed when it may have a sample in the range.
    Labels,
    /// Samples whose values may be any numbers, except for staleness markers and histograms.
    Presence,
    /// Samples as they are.
    Samples {
        /// Also when the counters behind them began.
        starts: bool,
    },
}

impl Read {
    /// Whether it tells when the counter behind a series began.
    pub(super) fn starts_of(self, meta: &SeriesMeta) -> bool {
        self == Self::Samples { starts: true } && meta.tells_start()
    }
}

pub(super) type Matchers<'a> = [&'a dyn LabelMatcher];

type VisitPoints<'a> = dyn FnMut(&Arc<SeriesMeta>, Seen<'_>, &[StoredPoint]) -> io::Result<()> + 'a;

pub(super) type VisitMetas<'a> = dyn FnMut(&Arc<SeriesMeta>, u64, u64) -> io::Result<()> + 'a;

/// Rows of a segment that are decoded at a time: about 16 MiB.
const ROWS_AT_ONCE: usize = 1 << 17;

/// What a selector asks of samples.
pub(super) struct Asked<'m> {
    pub matchers: &'m Matchers<'m>,
    /// Those that decide before replicas are told apart.
    pub free: &'m Matchers<'m>,
    /// Unix ms, both included.
    pub start_ms: i64,
    pub end_ms: i64,
    pub read: Read,
}

impl<'m> Asked<'m> {
    /// The matchers that hold for a series.
    pub(super) fn matchers_of(&self, meta: &SeriesMeta) -> &'m Matchers<'m> {
        if meta.nameless { self.free } else { self.matchers }
    }

    pub(super) fn holds(&self, time_ms: i64) -> bool {
        time_ms >= self.start_ms && time_ms <= self.end_ms
    }
}

impl MetricStore {
    /// Series that pass all matchers, with their samples in `start_ms..=end_ms`.
    ///
    /// * `meter`: bounds the read while it goes on.
    pub fn select(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        read: Read,
        meter: &dyn Meter,
    ) -> io::Result<Vec<PromSeries>> {
        let mut out = Gathering::new(meter);
        let mut judge = Judge::new(matchers);
        let free = replicas::without_instance(matchers);
        let asked = Asked { matchers, free: &free, start_ms, end_ms, read };
        if read == Read::Labels {
            self.labels(&asked, &mut judge, &mut out)?;
        } else {
            self.samples(&asked, &mut judge, &mut out)?;
        }
        out.coming_from(None);
        self.target_info(matchers, start_ms, end_ms, &mut out)?;
        Ok(if read == Read::Labels { out.labels(matchers) } else { out.finish(matchers) })
    }

    fn labels(
        &self,
        asked: &Asked<'_>,
        judge: &mut Judge<'_>,
        out: &mut Gathering<'_>,
    ) -> io::Result<()> {
        let meter = out.meter;
        let mut visit = |meta: &Arc<SeriesMeta>, seen: Seen<'_>, points: &[StoredPoint]| {
            let times = seen.times.unwrap_or_else(|| bounds_of(points));
            out.coming_from(origin(meta, times));
            derive_labels(meta, seen.bounds, points, asked.matchers_of(meta), judge, out);
            out.metered()
        };
        let Asked { matchers, start_ms, end_ms, .. } = *asked;
        self.visit(matchers, start_ms, end_ms, Visit::Labels, meter, &mut visit)
    }

    fn samples(
        &self,
        asked: &Asked<'_>,
        judge: &mut Judge<'_>,
        out: &mut Gathering<'_>,
    ) -> io::Result<()> {
        let (start_ns, end_ns) = range_ns(asked.start_ms, asked.end_ms);
        let hot = self.hot_series(asked.matchers);
        let (frozen, segments) = self.sealed();
        match self.kept(&segments, asked, judge, out.meter)? {
            Some(known) => out.begin_with(&known, asked.start_ms, asked.end_ms)?,
            None => self.sealed_samples(&segments, asked, judge, out)?,
        }
        let of_table = frozen.iter().flat_map(|table| {
            let found = table.index.find(asked.matchers);
            found.into_iter().map(|number| &table.series[number as usize])
        });
        for series in of_table.chain(&hot) {
            if series.points.iter().any(|p| p.time_ns >= start_ns && p.time_ns <= end_ns) {
                out.coming_from(origin(&series.meta, bounds_of(&series.points)));
                derive(&series.meta, &series.points, asked, judge, out);
                out.metered()?;
            }
        }
        Ok(())
    }

    fn sealed_samples(
        &self,
        segments: &[Arc<MetricSegment>],
        asked: &Asked<'_>,
        judge: &mut Judge<'_>,
        out: &mut Gathering<'_>,
    ) -> io::Result<()> {
        let (start_ns, end_ns) = range_ns(asked.start_ms, asked.end_ms);
        for segment in segments {
            let found = found_in(segment, asked.matchers, start_ns, end_ns)?;
            out.meter.check()?;
            if found.is_empty() {
                continue;
            }
            let table = segment.table()?;
            let rows = |number: &u32| table.series[*number as usize].rows.len();
            let columns = Some(&self.columns);
            let others = sealed::gather(segment, columns, &found, asked, judge, out)?;
            for part in in_parts(&others, ROWS_AT_ONCE, rows) {
                for (meta, points) in segment.read(part, wanted(&table, part, asked.read, judge))? {
                    out.coming_from(origin(&meta, bounds_of(&points)));
                    derive(&meta, &points, asked, judge, out);
                    out.metered()?;
                }
            }
        }
        Ok(())
    }

    /// All that a selector finds in the segments of its time, when these lie in it for the most part and columns alone
    /// tell it: then it is kept for the next one that asks.
    fn kept(
        &self,
        segments: &[Arc<MetricSegment>],
        asked: &Asked<'_>,
        judge: &mut Judge<'_>,
        meter: &dyn Meter,
    ) -> io::Result<Option<Arc<Gathered>>> {
        let (start_ns, end_ns) = range_ns(asked.start_ms, asked.end_ms);
        let segments: Vec<&MetricSegment> = (segments.iter().map(Arc::as_ref))
            .filter(|segment| segment.meta.min_ns <= end_ns && segment.meta.max_ns >= start_ns)
            .collect();
        let first_ns = segments.iter().map(|segment| segment.meta.min_ns).min();
        let last_ns = segments.iter().map(|segment| segment.meta.max_ns).max();
        let Some((first_ns, last_ns)) = first_ns.zip(last_ns) else { return Ok(None) };
        let inside_ns = last_ns.min(end_ns) - first_ns.max(start_ns).min(end_ns);
        if asked.read != (Read::Samples { starts: false }) || inside_ns < (last_ns - first_ns) / 2 {
            return Ok(None);
        }
        let asker = Asker {
            segments: segments.iter().map(|segment| segment.meta.id).collect(),
            selector: asked.matchers.iter().map(|matcher| matcher.text() + "\n").collect(),
        };
        let asked = Asked { start_ms: 0, end_ms: i64::MAX, ..*asked };
        self.series.series(asker, meter, |room| {
            let mut out = Gathering::new(room);
            for segment in segments {
                let found = found_in(segment, asked.matchers, 0, u64::MAX)?;
                if !sealed::gather(segment, None, &found, &asked, judge, &mut out)?.is_empty() {
                    return Ok(None);
                }
                // Matchers of a query that is over let nothing pass.
                room.check()?;
            }
            Ok(Some(out.settled()))
        })
    }

    /// Calls `visit` with the bounds and points of every series that may pass. Of sealed series whose labels alone are
    /// read, points come only where labels stand in them.
    pub(super) fn visit(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        read: Visit,
        meter: &dyn Meter,
        visit: &mut VisitPoints<'_>,
    ) -> io::Result<()> {
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        let within = |p: &StoredPoint| p.time_ns >= start_ns && p.time_ns <= end_ns;
        let hot = self.hot_series(matchers);
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            let table = segment.table()?;
            let mut found = found_in(segment, matchers, start_ns, end_ns)?;
            meter.check()?;
            if read == Visit::Labels {
                // Quantiles stand in the points of a summary only.
                let mut summaries = Vec::new();
                for number in found {
                    let series = &table.series[number as usize];
                    if series.meta.metric.kind == MetricKind::Summary {
                        summaries.push(number);
                    } else {
                        let times = Some((series.min_ns, series.max_ns));
                        visit(&series.meta, Seen { bounds: &series.bounds, times }, &[])?;
                    }
                }
                found = summaries;
            }
            let rows = |number: &u32| table.series[*number as usize].rows.len();
            for part in in_parts(&found, ROWS_AT_ONCE, rows) {
                for (meta, points) in segment.read(part, read.wanted())? {
                    visit(&meta, Seen::nothing(), &points)?;
                }
            }
        }
        if let Some(table) = frozen {
            for number in table.index.find(matchers) {
                let series = &table.series[number as usize];
                if series.points.iter().any(within) {
                    visit(&series.meta, Seen::nothing(), &series.points)?;
                }
            }
        }
        for series in hot {
            if series.points.iter().any(within) {
                visit(&series.meta, Seen::nothing(), &series.points)?;
            }
        }
        Ok(())
    }

    /// Series in memory that may pass: copied out under the lock as shared pointers, to be read without it. Writers
    /// wait for the lock, so slow patterns are tried on the many values of a label without it, too.
    fn hot_series(&self, matchers: &Matchers<'_>) -> Vec<HotSeries> {
        let tried: Vec<Tried<'_>> = matchers
            .iter()
            .map(|matcher| {
                let values = match matcher.literals() {
                    Some(_) => Vec::new(),
                    None => self.with_hot(|table| table.index.many_values(matcher.name())),
                };
                Tried::new(*matcher, values)
            })
            .collect();
        let tried: Vec<&dyn LabelMatcher> = tried.iter().map(|m| m as &dyn LabelMatcher).collect();
        self.with_hot(|table| {
            let numbers = table.index.find(&tried);
            numbers.iter().map(|n| table.series[*n as usize].clone()).collect()
        })
    }

    /// Calls `visit` with every series' meta and the bounds of its times, Unix ns.
    ///
    /// # Errors
    /// Of reading, or those of `visit`.
    pub(super) fn visit_metas(
        &self,
        start_ns: u64,
        end_ns: u64,
        visit: &mut VisitMetas<'_>,
    ) -> io::Result<()> {
        let hot = self.with_hot(|table| table.series.clone());
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            if segment.meta.min_ns <= end_ns && segment.meta.max_ns >= start_ns {
                for series in &segment.table()?.series {
                    visit(&series.meta, series.min_ns, series.max_ns)?;
                }
            }
        }
        let frozen = frozen.iter().flat_map(|table| table.series.iter());
        for series in frozen.chain(&hot) {
            let times = || series.points.iter().map(|p| p.time_ns);
            if let (Some(min), Some(max)) = (times().min(), times().max()) {
                visit(&series.meta, min, max)?;
            }
        }
        Ok(())
    }
}

/// Cuts series into parts of at most so many rows, or of one series.
pub(super) fn in_parts<T>(
    found: &[T],
    rows_at_once: usize,
    rows: impl Fn(&T) -> usize,
) -> Vec<&[T]> {
    let (mut parts, mut rest) = (Vec::new(), found);
    while !rest.is_empty() {
        let mut sum = 0;
        let fit = rest.iter().take_while(|number| {
            sum += rows(number);
            sum <= rows_at_once
        });
        let (part, after) = rest.split_at(fit.count().max(1));
        parts.push(part);
        rest = after;
    }
    parts
}

/// What a visit may know of a series besides its points.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// Of its histograms, where no points are read.
    bounds: &'a Arc<[f64]>,
    /// First and last point, Unix ns, where no points are read.
    times: Option<(u64, u64)>,
}

static NO_BOUNDS: LazyLock<Arc<[f64]>> = LazyLock::new(|| Arc::from([]));

impl Seen<'_> {
    fn nothing() -> Self {
        Self { bounds: &NO_BOUNDS, times: None }
    }
}

/// Who sent a series that has no `instance`.
///
/// * `times`: of its first and last point, Unix ns.
pub(super) fn origin(meta: &SeriesMeta, (first_ns, last_ns): (u64, u64)) -> Option<Origin> {
    let resource = meta.nameless.then(|| meta.metric.resource.clone())?;
    Some(Origin { resource, first_ns, last_ns })
}

/// First and last time of points, Unix ns.
fn bounds_of(points: &[StoredPoint]) -> (u64, u64) {
    let times = || points.iter().map(|point| point.time_ns);
    (times().min().unwrap_or(0), times().max().unwrap_or(0))
}

pub(super) fn range_ns(start_ms: i64, end_ms: i64) -> (u64, u64) {
    let start_ns = start_ms.max(0).saturating_mul(1_000_000) as u64;
    // The last nanosecond that floors to `end_ms`.
    let end_ns = end_ms.max(0).saturating_mul(1_000_000).saturating_add(999_999) as u64;
    (start_ns, end_ns)
}

/// Numbers of a segment's series that may pass and may have a point in the range.
fn found_in(
    segment: &MetricSegment,
    matchers: &Matchers<'_>,
    start_ns: u64,
    end_ns: u64,
) -> io::Result<Vec<u32>> {
    if segment.meta.min_ns > end_ns || segment.meta.max_ns < start_ns {
        return Ok(Vec::new());
    }
    let table = segment.table()?;
    let mut found = table.index.find(matchers);
    found.retain(|number| {
        let series = &table.series[*number as usize];
        series.min_ns <= end_ns && series.max_ns >= start_ns
    });
    Ok(found)
}

/// What a visit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    Labels,
    Exemplars,
}

impl Visit {
    /// What must be read of points for this.
    fn wanted(self) -> Wanted {
        match self {
            // Quantiles.
            Self::Labels => Wanted { details: true, ..Wanted::default() },
            // The bounds say on which bucket an exemplar shows.
            Self::Exemplars => Wanted { exemplars: true, buckets: true, ..Wanted::default() },
        }
    }
}

/// What must be read of the points of some series for the parts that are asked for.
fn wanted(table: &SeriesTable, numbers: &[u32], read: Read, judge: &mut Judge<'_>) -> Wanted {
    let mut wanted = Wanted::default();
    for number in numbers {
        let meta = &table.series[*number as usize].meta;
        let shown = judge.names(meta);
        // A running total begins with 0 at its start.
        wanted.starts |= !shown.is_empty() && (meta.metric.is_delta() || read.starts_of(meta));
        for Shown { part, .. } in shown.iter() {
            match (part, meta.metric.kind) {
                (Part::Bucket, _) => wanted.buckets = true,
                (Part::Sum, MetricKind::Histogram) => wanted.sums = true,
                (_, MetricKind::Histogram) => wanted.counts = true,
                (_, MetricKind::Gauge | MetricKind::Sum) => wanted.numbers = true,
                (_, MetricKind::Prometheus) => {
                    (wanted.numbers, wanted.details) = (true, true);
                }
                (_, MetricKind::Summary | MetricKind::ExponentialHistogram) => {
                    wanted.details = true;
                }
            }
        }
    }
    wanted
}
