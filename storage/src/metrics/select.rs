//! Points as Prometheus sees them: selectors, derived series, metadata, exemplars.

use super::batch::{FamilyMetadata, MetricDesc, MetricExemplar, MetricKind};
use super::derive::{derive, derive_labels, exemplar_labels, passes};
use super::gather::Gathering;
use super::native::NativeHistogram;
use super::points::Wanted;
use super::replicas::{self, Origin};
use super::series::{Label, Part, SeriesMeta};
use super::store::{HotSeries, MetricStore, StoredPoint};
use super::target_info::TARGET_INFO;
use super::tried::Tried;
use crate::meter::{Meter, Unmetered};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// One label condition of a selector.
pub trait LabelMatcher {
    fn name(&self) -> &str;

    /// Whether a value passes; a missing label is the empty string.
    fn matches(&self, value: &str) -> bool;

    /// The only values that can pass, when there are few: lets the index look them up.
    fn literals(&self) -> Option<&[String]>;
}

/// A Prometheus series with its samples in ascending time, ms.
#[derive(Debug, Clone, Default)]
pub struct PromSeries {
    /// Sorted, `__name__` included.
    pub labels: Vec<Label>,
    pub floats: Vec<(i64, f64)>,
    pub histograms: Vec<(i64, NativeHistogram)>,
    /// When the counter began, Unix ms, by sample; of samples whose sender told it by remote write.
    pub starts: Vec<(i64, i64)>,
    /// Where running totals began, and the sample before which that was, ms; while a select gathers.
    pub(super) zeros: Vec<(i64, i64)>,
}

/// A family's metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromMetadata {
    pub kind: String,
    pub unit: String,
    pub help: String,
}

/// Exemplars of one Prometheus series.
#[derive(Debug, Clone)]
pub struct PromExemplars {
    pub labels: Vec<Label>,
    pub exemplars: Vec<MetricExemplar>,
}

pub(super) type Matchers<'a> = [&'a dyn LabelMatcher];

type VisitPoints<'a> = dyn FnMut(&Arc<SeriesMeta>, Seen<'_>, &[StoredPoint]) -> io::Result<()> + 'a;

pub(super) type VisitMetas<'a> = dyn FnMut(&Arc<SeriesMeta>, u64, u64) -> io::Result<()> + 'a;

/// Rows of a segment that are decoded at a time: about 16 MiB.
const ROWS_AT_ONCE: usize = 1 << 17;

impl MetricStore {
    /// Series that pass all matchers, with their samples in `start_ms..=end_ms`.
    ///
    /// * `labels_only`: samples are left out; a series is listed when it may have a sample in the range.
    /// * `meter`: bounds the read while it goes on.
    pub fn select(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        labels_only: bool,
        meter: &dyn Meter,
    ) -> io::Result<Vec<PromSeries>> {
        let mut out = Gathering::new(meter);
        let read = if labels_only { Read::Labels } else { Read::Samples };
        let free = replicas::without_instance(matchers);
        self.visit(matchers, start_ms, end_ms, read, meter, &mut |meta, seen, points| {
            let Seen { bounds, times } = seen;
            let matchers = if meta.nameless { &free[..] } else { matchers };
            out.coming_from(meta.nameless.then(|| {
                let (first_ns, last_ns) = times.unwrap_or_else(|| bounds_of(points));
                Origin { resource: meta.metric.resource.clone(), first_ns, last_ns }
            }));
            if labels_only {
                derive_labels(meta, bounds, points, matchers, &mut out);
            } else {
                derive(meta, points, matchers, start_ms, end_ms, &mut out);
            }
            out.metered()
        })?;
        out.coming_from(None);
        self.target_info(matchers, start_ms, end_ms, &mut out)?;
        Ok(if labels_only { out.labels(matchers) } else { out.finish(matchers) })
    }

    /// Calls `visit` with the bounds and points of every series that may pass. Of sealed series whose labels alone are
    /// read, points come only where labels stand in them.
    fn visit(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        read: Read,
        meter: &dyn Meter,
        visit: &mut VisitPoints<'_>,
    ) -> io::Result<()> {
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        let within = |p: &StoredPoint| p.time_ns >= start_ns && p.time_ns <= end_ns;
        let hot = self.hot_series(matchers);
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            if segment.meta.min_ns > end_ns || segment.meta.max_ns < start_ns {
                continue;
            }
            let table = segment.table()?;
            let mut found = table.index.find(matchers);
            meter.check()?;
            found.retain(|number| {
                let series = &table.series[*number as usize];
                series.min_ns <= end_ns && series.max_ns >= start_ns
            });
            if read == Read::Labels {
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
            for part in in_parts(&found, rows) {
                let metas = part.iter().map(|number| &table.series[*number as usize].meta);
                for (meta, points) in segment.read(part, read.wanted(metas, matchers))? {
                    visit(&meta, Seen::default(), &points)?;
                }
            }
        }
        if let Some(table) = frozen {
            for number in table.index.find(matchers) {
                let series = &table.series[number as usize];
                if series.points.iter().any(within) {
                    visit(&series.meta, Seen::default(), &series.points)?;
                }
            }
        }
        for series in hot {
            if series.points.iter().any(within) {
                visit(&series.meta, Seen::default(), &series.points)?;
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

    /// All label names in the range, sorted.
    pub fn label_names(&self, start_ms: i64, end_ms: i64) -> io::Result<BTreeSet<Arc<str>>> {
        let mut names = BTreeSet::new();
        self.visit_indexes(start_ms, end_ms, |index| index.names(&mut names))?;
        if !names.is_empty() {
            names.extend(["__name__".into()]);
        }
        self.visit_metas(0, u64::MAX, &mut |meta, _, _| {
            match meta.metric.kind {
                MetricKind::Histogram => drop(names.insert("le".into())),
                MetricKind::Summary => drop(names.insert("quantile".into())),
                _ => {}
            }
            Ok(())
        })?;
        Ok(names)
    }

    /// All values of a label that is not derived, in the range, sorted.
    pub fn label_values(
        &self,
        name: &str,
        start_ms: i64,
        end_ms: i64,
    ) -> io::Result<BTreeSet<Arc<str>>> {
        let mut values = BTreeSet::new();
        self.visit_indexes(start_ms, end_ms, |index| index.values(name, &mut values))?;
        Ok(values)
    }

    /// Earliest and latest point, Unix ms, of sealed and hot points; `None` when there is none.
    pub fn time_bounds_ms(&self) -> Option<(i64, i64)> {
        let of_table = |series: &[super::store::HotSeries]| {
            let times = || series.iter().flat_map(|s| s.points.iter().map(|p| p.time_ns));
            Some((times().min()?, times().max()?))
        };
        let hot = self.with_hot(|table| of_table(&table.series));
        let (frozen, segments) = self.sealed();
        let sealed = segments.iter().map(|s| (s.meta.min_ns, s.meta.max_ns));
        let frozen = frozen.and_then(|table| of_table(&table.series));
        let (min_ns, max_ns) =
            sealed.chain(frozen).chain(hot).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        Some(((min_ns / 1_000_000) as i64, (max_ns / 1_000_000) as i64))
    }

    fn visit_indexes(
        &self,
        start_ms: i64,
        end_ms: i64,
        mut visit: impl FnMut(&super::index::LabelIndex),
    ) -> io::Result<()> {
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        self.with_hot(|table| visit(&table.index));
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            if segment.meta.min_ns <= end_ns && segment.meta.max_ns >= start_ns {
                visit(&segment.table()?.index);
            }
        }
        if let Some(table) = frozen {
            visit(&table.index);
        }
        Ok(())
    }

    /// Metadata by family, the newest last.
    pub fn metadata(&self) -> io::Result<BTreeMap<String, BTreeSet<PromMetadata>>> {
        let mut families: BTreeMap<String, BTreeSet<PromMetadata>> = BTreeMap::new();
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let mut resources: BTreeSet<u128> = BTreeSet::new();
        let mut info = false;
        let mut add_sent = |sent: &BTreeMap<Arc<str>, FamilyMetadata>| {
            for (family, metadata) in sent {
                families.entry(family.to_string()).or_default().insert(PromMetadata {
                    kind: metadata.kind.to_string(),
                    unit: metadata.unit.to_string(),
                    help: metadata.help.to_string(),
                });
            }
        };
        self.with_hot(|table| add_sent(&table.families));
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            add_sent(&segment.table()?.families);
        }
        if let Some(table) = frozen {
            add_sent(&table.families);
        }
        self.visit_metas(0, u64::MAX, &mut |meta, _, _| {
            // What came by remote write has no type of its own.
            if meta.metric.kind == MetricKind::Prometheus {
                return Ok(());
            }
            if meta.family.is_empty() || !seen.insert(Arc::as_ptr(&meta.metric) as usize) {
                return Ok(());
            }
            let resource = &meta.metric.resource;
            info = info
                || (resources.insert(resource.id) && self.naming.target_info(resource).is_some());
            families.entry(meta.family.to_string()).or_default().insert(PromMetadata {
                kind: meta.prometheus_type().to_owned(),
                unit: self.naming.metric_unit(&meta.metric.unit),
                help: meta.metric.description.to_string(),
            });
            Ok(())
        })?;
        if info {
            families.entry(TARGET_INFO.to_owned()).or_default().insert(PromMetadata {
                kind: "gauge".to_owned(),
                unit: String::new(),
                help: "Target metadata".to_owned(),
            });
        }
        Ok(families)
    }

    /// Exemplars of series that pass all matchers. Histograms show theirs on the bucket that holds the value.
    pub fn exemplars(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        meter: &dyn Meter,
    ) -> io::Result<Vec<PromExemplars>> {
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        let mut found: BTreeMap<Vec<Label>, Vec<MetricExemplar>> = BTreeMap::new();
        let free = replicas::without_instance(matchers);
        let mut visit = |meta: &Arc<SeriesMeta>, _: Seen<'_>, points: &[StoredPoint]| {
            let matchers = if meta.nameless { &free[..] } else { matchers };
            let exemplars: usize = points.iter().map(|point| point.exemplars.len()).sum();
            meter.check()?;
            meter.samples(EXEMPLAR_SAMPLES * exemplars as u64)?;
            for point in points {
                for exemplar in &point.exemplars {
                    if exemplar.time_ns < start_ns || exemplar.time_ns > end_ns {
                        continue;
                    }
                    let labels = exemplar_labels(meta, point, exemplar);
                    if passes(matchers, &labels) {
                        found.entry(labels).or_default().push(exemplar.clone());
                    }
                }
            }
            Ok(())
        };
        let sent_ms = end_ms.saturating_add(EXEMPLAR_AFTER_MS);
        self.visit(matchers, start_ms, sent_ms, Read::Exemplars, meter, &mut visit)?;
        Ok(found
            .into_iter()
            .map(|(labels, mut exemplars)| {
                let key = |e: &MetricExemplar| (e.time_ns, e.trace_id.clone(), e.value.to_bits());
                exemplars.sort_by_cached_key(key);
                // Cumulative senders repeat an exemplar with every export.
                exemplars.dedup_by(|a, b| key(a) == key(b) && a.attributes == b.attributes);
                PromExemplars { labels, exemplars }
            })
            .collect())
    }

    /// Exemplars with a trace ID, with the OTLP name of their metric.
    pub fn exemplars_of_trace(
        &self,
        trace_id: &[u8; 16],
        start_ns: u64,
        end_ns: u64,
    ) -> io::Result<Vec<PromExemplars>> {
        let mut found: BTreeMap<Vec<Label>, Vec<MetricExemplar>> = BTreeMap::new();
        let to_ms = |ns: u64| i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX);
        let (start_ms, end_ms) = (to_ms(start_ns), to_ms(end_ns));
        let mut visit = |meta: &Arc<SeriesMeta>, _: Seen<'_>, points: &[StoredPoint]| {
            for point in points {
                for exemplar in point.exemplars.iter().filter(|e| e.trace_id == trace_id) {
                    let of_series =
                        found.entry(exemplar_labels(meta, point, exemplar)).or_default();
                    if !of_series.contains(exemplar) {
                        of_series.push(exemplar.clone());
                    }
                }
            }
            Ok(())
        };
        self.visit(&[], start_ms, end_ms, Read::Exemplars, &Unmetered, &mut visit)?;
        Ok(found
            .into_iter()
            .map(|(labels, exemplars)| PromExemplars { labels, exemplars })
            .collect())
    }
}

/// An exemplar comes with the next point of its series, which is sent at most about this much later.
const EXEMPLAR_AFTER_MS: i64 = 300_000;

/// Memory of an exemplar in samples: its ids, labels and value.
const EXEMPLAR_SAMPLES: u64 = 12;

/// Cuts ascending series numbers into parts of at most [`ROWS_AT_ONCE`] rows, or of one series.
fn in_parts(found: &[u32], rows: impl Fn(&u32) -> usize) -> Vec<&[u32]> {
    let (mut parts, mut rest) = (Vec::new(), found);
    while !rest.is_empty() {
        let mut sum = 0;
        let fit = rest.iter().take_while(|number| {
            sum += rows(number);
            sum <= ROWS_AT_ONCE
        });
        let (part, after) = rest.split_at(fit.count().max(1));
        parts.push(part);
        rest = after;
    }
    parts
}

/// What a visit may know of a series besides its points.
#[derive(Clone, Copy, Default)]
struct Seen<'a> {
    /// Of its histograms, where no points are read.
    bounds: &'a [f64],
    /// First and last point, Unix ns, where no points are read.
    times: Option<(u64, u64)>,
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

/// What a visit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Labels,
    Samples,
    Exemplars,
}

impl Read {
    /// What must be read of the points of some series for this.
    fn wanted<'a>(
        self,
        metas: impl Iterator<Item = &'a Arc<SeriesMeta>>,
        matchers: &Matchers<'_>,
    ) -> Wanted {
        let mut wanted = Wanted::default();
        if self == Read::Exemplars {
            // The bounds say on which bucket an exemplar shows.
            return Wanted { exemplars: true, buckets: true, ..wanted };
        }
        let names: Vec<_> = matchers.iter().filter(|m| m.name() == "__name__").collect();
        let mut last: Option<*const MetricDesc> = None;
        for meta in metas {
            if last.replace(Arc::as_ptr(&meta.metric)) == Some(Arc::as_ptr(&meta.metric)) {
                continue;
            }
            for (name, part) in meta.names() {
                if !names.iter().all(|matcher| matcher.matches(&name)) {
                    continue;
                }
                // A running total begins with 0 at its start.
                wanted.starts |= meta.metric.is_delta();
                match (part, meta.metric.kind) {
                    (Part::Bucket, _) => wanted.buckets = true,
                    (_, MetricKind::Histogram) => wanted.histograms = true,
                    (_, MetricKind::Gauge | MetricKind::Sum) => wanted.numbers = true,
                    (_, MetricKind::Prometheus) => {
                        (wanted.numbers, wanted.details, wanted.starts) = (true, true, true);
                    }
                    (_, MetricKind::Summary | MetricKind::ExponentialHistogram) => {
                        wanted.details = true;
                    }
                }
            }
        }
        wanted
    }
}
