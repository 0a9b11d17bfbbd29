//! Points as Prometheus sees them: selectors, derived series, metadata, exemplars.

use super::batch::{
    FamilyMetadata, MetricDesc, MetricExemplar, MetricKind, NO_RECORDED_VALUE, PointValue,
};
use super::index::is_derived;
use super::naming::{self, float_label};
use super::native::{NativeHistogram, STALE_BITS};
use super::points::Wanted;
use super::series::{Label, Part, SeriesMeta};
use super::store::{MetricStore, StoredPoint};
use crate::resource::Resource;
use rustc_hash::FxHashMap;
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

/// Name of the series that carries resource attributes.
const TARGET_INFO: &str = "target_info";

/// Distance of synthesised `target_info` samples, ns: less than half the usual lookback of five minutes.
const TARGET_INFO_STEP_NS: u64 = 60_000_000_000;

type Matchers<'a> = [&'a dyn LabelMatcher];

/// A resource and the times, Unix ns, between which it sent.
type Presence = (Arc<Resource>, Vec<(u64, u64)>);

/// Bounds of a histogram and, per bucket, the gathered series it goes to.
type BucketSlots = (Arc<[f64]>, Vec<Option<usize>>);

/// Collects points by Prometheus label set.
#[derive(Default)]
struct Gathering {
    by_labels: FxHashMap<Vec<Label>, usize>,
    series: Vec<PromSeries>,
}

impl Gathering {
    fn slot(&mut self, labels: Vec<Label>) -> &mut PromSeries {
        let at = match self.by_labels.get(&labels) {
            Some(&at) => at,
            None => {
                self.by_labels.insert(labels.clone(), self.series.len());
                self.series.push(PromSeries { labels, ..PromSeries::default() });
                self.series.len() - 1
            }
        };
        &mut self.series[at]
    }

    /// Sorts by time; of samples at one time the last that came counts.
    fn finish(mut self) -> Vec<PromSeries> {
        for series in &mut self.series {
            tidy(&mut series.floats);
            tidy(&mut series.histograms);
        }
        self.series.retain(|s| !s.floats.is_empty() || !s.histograms.is_empty());
        self.series
    }
}

fn tidy<T>(samples: &mut Vec<(i64, T)>) {
    if !samples.is_sorted_by(|a, b| a.0 < b.0) {
        samples.sort_by_key(|(time_ms, _)| *time_ms);
        samples.reverse();
        samples.dedup_by_key(|(time_ms, _)| *time_ms);
        samples.reverse();
    }
}

impl MetricStore {
    /// Series that pass all matchers, with their samples in `start_ms..=end_ms`.
    ///
    /// * `labels_only`: samples are left out; a series is listed when it may have a sample in the range.
    pub fn select(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        labels_only: bool,
    ) -> io::Result<Vec<PromSeries>> {
        let mut out = Gathering::default();
        let read = if labels_only { Read::Labels } else { Read::Samples };
        self.visit(matchers, start_ms, end_ms, read, &mut |meta, bounds, points| {
            if labels_only {
                derive_labels(meta, bounds, points, matchers, &mut out);
            } else {
                derive(meta, points, matchers, start_ms, end_ms, &mut out);
            }
        })?;
        self.target_info(matchers, start_ms, end_ms, &mut out)?;
        Ok(if labels_only { out.series } else { out.finish() })
    }

    /// Calls `visit` with the bounds and points of every series that may pass. Of sealed series whose labels alone are
    /// read, points come only where labels stand in them.
    fn visit(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        read: Read,
        visit: &mut dyn FnMut(&Arc<SeriesMeta>, &[f64], &[StoredPoint]),
    ) -> io::Result<()> {
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        let within = |p: &StoredPoint| p.time_ns >= start_ns && p.time_ns <= end_ns;
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            if segment.meta.min_ns > end_ns || segment.meta.max_ns < start_ns {
                continue;
            }
            let table = segment.table()?;
            let mut found = table.index.find(matchers);
            found.retain(|number| {
                let series = &table.series[*number as usize];
                series.min_ns <= end_ns && series.max_ns >= start_ns
            });
            if read == Read::Labels {
                let series = |number: &u32| &table.series[*number as usize];
                found.retain(|number| {
                    let series = series(number);
                    let summary = series.meta.metric.kind == MetricKind::Summary;
                    if !summary {
                        visit(&series.meta, &series.bounds, &[]);
                    }
                    summary
                });
            }
            if found.is_empty() {
                continue;
            }
            let metas = found.iter().map(|number| &table.series[*number as usize].meta);
            for (meta, points) in segment.read(&found, read.wanted(metas, matchers))? {
                visit(&meta, &[], &points);
            }
        }
        if let Some(table) = frozen {
            for number in table.index.find(matchers) {
                let series = &table.series[number as usize];
                if series.points.iter().any(within) {
                    visit(&series.meta, &[], &series.points);
                }
            }
        }
        // Copied out under the lock as shared pointers, read without it.
        let hot = self.with_hot(|table| {
            let numbers = table.index.find(matchers);
            numbers.iter().map(|n| table.series[*n as usize].clone()).collect::<Vec<_>>()
        });
        for series in hot {
            if series.points.iter().any(within) {
                visit(&series.meta, &[], &series.points);
            }
        }
        Ok(())
    }

    /// Calls `visit` with every series' meta and the bounds of its times, Unix ns.
    fn visit_metas(
        &self,
        start_ns: u64,
        end_ns: u64,
        visit: &mut dyn FnMut(&Arc<SeriesMeta>, u64, u64),
    ) -> io::Result<()> {
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            if segment.meta.min_ns <= end_ns && segment.meta.max_ns >= start_ns {
                for series in &segment.table()?.series {
                    visit(&series.meta, series.min_ns, series.max_ns);
                }
            }
        }
        let hot = self.with_hot(|table| table.series.clone());
        let frozen = frozen.iter().flat_map(|table| table.series.iter());
        for series in frozen.chain(&hot) {
            let times = || series.points.iter().map(|p| p.time_ns);
            if let (Some(min), Some(max)) = (times().min(), times().max()) {
                visit(&series.meta, min, max);
            }
        }
        Ok(())
    }

    /// One series per resource, present while the resource sends metrics.
    fn target_info(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        out: &mut Gathering,
    ) -> io::Result<()> {
        let asked =
            matchers.iter().filter(|m| m.name() == "__name__").all(|m| m.matches(TARGET_INFO));
        let named = matchers.iter().any(|m| m.name() == "__name__" && !m.matches(""));
        // A selector without a name would show it too, but then nearly everything else as well: still right.
        if !asked || (!named && matchers.is_empty()) {
            return Ok(());
        }
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        let mut resources: FxHashMap<u128, Presence> = FxHashMap::default();
        self.visit_metas(start_ns, end_ns, &mut |meta, min_ns, max_ns| {
            let resource = &meta.metric.resource;
            let entry =
                resources.entry(resource.id).or_insert_with(|| (resource.clone(), Vec::new()));
            match entry.1.last_mut() {
                Some(last) if min_ns <= last.1 + TARGET_INFO_STEP_NS && max_ns >= last.0 => {
                    last.0 = last.0.min(min_ns);
                    last.1 = last.1.max(max_ns);
                }
                _ => entry.1.push((min_ns, max_ns)),
            }
        })?;
        for (resource, spans) in resources.into_values() {
            let Some(labels) = naming::target_info(&resource) else { continue };
            let labels = with_labels(&labels, TARGET_INFO, None);
            if !passes(matchers, &labels) {
                continue;
            }
            let series = out.slot(labels);
            for (min_ns, max_ns) in spans {
                let mut time_ns = min_ns;
                loop {
                    let time_ms = (time_ns / 1_000_000) as i64;
                    if time_ms >= start_ms && time_ms <= end_ms {
                        series.floats.push((time_ms, 1.0));
                    }
                    if time_ns >= max_ns {
                        break;
                    }
                    time_ns = time_ns.saturating_add(TARGET_INFO_STEP_NS).min(max_ns);
                }
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
        self.visit_metas(0, u64::MAX, &mut |meta, _, _| match meta.metric.kind {
            super::MetricKind::Histogram => drop(names.insert("le".into())),
            super::MetricKind::Summary => drop(names.insert("quantile".into())),
            _ => {}
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
        let (frozen, segments) = self.sealed();
        let of_table = |series: &[super::store::HotSeries]| {
            let times = || series.iter().flat_map(|s| s.points.iter().map(|p| p.time_ns));
            Some((times().min()?, times().max()?))
        };
        let sealed = segments.iter().map(|s| (s.meta.min_ns, s.meta.max_ns));
        let frozen = frozen.and_then(|table| of_table(&table.series));
        let hot = self.with_hot(|table| of_table(&table.series));
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
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            if segment.meta.min_ns <= end_ns && segment.meta.max_ns >= start_ns {
                visit(&segment.table()?.index);
            }
        }
        if let Some(table) = frozen {
            visit(&table.index);
        }
        self.with_hot(|table| visit(&table.index));
        Ok(())
    }

    /// Metadata by family, the newest last.
    pub fn metadata(&self) -> io::Result<BTreeMap<String, BTreeSet<PromMetadata>>> {
        let mut families: BTreeMap<String, BTreeSet<PromMetadata>> = BTreeMap::new();
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let mut add_sent = |sent: &BTreeMap<Arc<str>, FamilyMetadata>| {
            for (family, metadata) in sent {
                families.entry(family.to_string()).or_default().insert(PromMetadata {
                    kind: metadata.kind.to_string(),
                    unit: metadata.unit.to_string(),
                    help: metadata.help.to_string(),
                });
            }
        };
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            add_sent(&segment.table()?.families);
        }
        if let Some(table) = frozen {
            add_sent(&table.families);
        }
        self.with_hot(|table| add_sent(&table.families));
        self.visit_metas(0, u64::MAX, &mut |meta, _, _| {
            // What came by remote write has no type of its own.
            if meta.metric.kind == MetricKind::Prometheus {
                return;
            }
            if meta.family.is_empty() || !seen.insert(Arc::as_ptr(&meta.metric) as usize) {
                return;
            }
            families.entry(meta.family.to_string()).or_default().insert(PromMetadata {
                kind: meta.prometheus_type().to_owned(),
                unit: naming::metric_unit(&meta.metric.unit),
                help: meta.metric.description.to_string(),
            });
        })?;
        Ok(families)
    }

    /// Exemplars of series that pass all matchers. Histograms show theirs on the bucket that holds the value.
    pub fn exemplars(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
    ) -> io::Result<Vec<PromExemplars>> {
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        let mut found: BTreeMap<Vec<Label>, Vec<MetricExemplar>> = BTreeMap::new();
        self.visit(matchers, start_ms, end_ms, Read::Exemplars, &mut |meta, _, points| {
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
        })?;
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
        self.visit(&[], start_ms, end_ms, Read::Exemplars, &mut |meta, _, points| {
            for point in points {
                for exemplar in point.exemplars.iter().filter(|e| e.trace_id == trace_id) {
                    let of_series =
                        found.entry(exemplar_labels(meta, point, exemplar)).or_default();
                    if !of_series.contains(exemplar) {
                        of_series.push(exemplar.clone());
                    }
                }
            }
        })?;
        Ok(found
            .into_iter()
            .map(|(labels, exemplars)| PromExemplars { labels, exemplars })
            .collect())
    }
}

fn range_ns(start_ms: i64, end_ms: i64) -> (u64, u64) {
    let start_ns = start_ms.max(0).saturating_mul(1_000_000) as u64;
    // The last nanosecond that floors to `end_ms`.
    let end_ns = end_ms.max(0).saturating_mul(1_000_000).saturating_add(999_999) as u64;
    (start_ns, end_ns)
}

/// The series on which an exemplar shows: the first bucket whose bound is not below its value.
fn exemplar_labels(
    meta: &SeriesMeta,
    point: &StoredPoint,
    exemplar: &MetricExemplar,
) -> Vec<Label> {
    match &point.value {
        PointValue::Histogram(h) => {
            let bound = h.bounds.iter().copied().find(|bound| exemplar.value <= *bound);
            let le = float_label(bound.unwrap_or(f64::INFINITY));
            let name = format!("{}_bucket", meta.family);
            with_labels(&meta.labels, &name, Some(("le", &le)))
        }
        _ => with_labels(&meta.labels, &meta.family, None),
    }
}

/// Adds `__name__` and perhaps a derived label, keeping the order.
fn with_labels(labels: &[Label], name: &str, extra: Option<(&str, &str)>) -> Vec<Label> {
    let mut all: Vec<Label> = Vec::with_capacity(labels.len() + 2);
    all.push(("__name__".into(), name.into()));
    all.extend(labels.iter().cloned());
    if let Some((label, value)) = extra {
        all.retain(|(name, _)| &**name != label);
        all.push((label.into(), value.into()));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn passes(matchers: &Matchers<'_>, labels: &[Label]) -> bool {
    matchers.iter().all(|matcher| {
        let value = labels
            .binary_search_by(|(name, _)| (**name).cmp(matcher.name()))
            .map_or("", |at| &labels[at].1);
        matcher.matches(value)
    })
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
                match (part, meta.metric.kind) {
                    (Part::Bucket, _) => wanted.buckets = true,
                    (_, MetricKind::Histogram) => wanted.histograms = true,
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
}

/// Whether the labels of a series pass but for those that only its parts have.
fn base_passes(meta: &SeriesMeta, matchers: &Matchers<'_>) -> bool {
    matchers.iter().filter(|m| m.name() != "__name__" && !is_derived(m.name())).all(|m| {
        let at = meta.labels.binary_search_by(|(name, _)| (**name).cmp(m.name()));
        m.matches(at.map_or("", |at| &meta.labels[at].1))
    })
}

/// Parts of a series whose name passes.
fn parts(meta: &SeriesMeta, matchers: &Matchers<'_>) -> Vec<(String, Part)> {
    let mut names = meta.names();
    names.retain(|(name, _)| {
        matchers.iter().filter(|m| m.name() == "__name__").all(|matcher| matcher.matches(name))
    });
    names
}

/// Adds the label sets of one OTLP series that pass, without samples.
///
/// * `bounds`: of its histograms, where there are no points to take them from.
fn derive_labels(
    meta: &SeriesMeta,
    bounds: &[f64],
    points: &[StoredPoint],
    matchers: &Matchers<'_>,
    out: &mut Gathering,
) {
    if !base_passes(meta, matchers) {
        return;
    }
    for (name, part) in parts(meta, matchers) {
        let mut values: BTreeSet<String> = BTreeSet::new();
        let label = match part {
            Part::Bucket => {
                let of_points = points.iter().filter_map(|point| match &point.value {
                    PointValue::Histogram(h) => Some(&*h.bounds),
                    _ => None,
                });
                let mut seen: Option<&[f64]> = None;
                for bounds in of_points.chain([bounds]) {
                    if seen.replace(bounds) != Some(bounds) {
                        values.extend(bounds.iter().map(|bound| float_label(*bound)));
                    }
                }
                values.insert(float_label(f64::INFINITY));
                Some("le")
            }
            Part::Quantile => {
                for point in points {
                    if let PointValue::Summary(summary) = &point.value {
                        let quantiles = summary.quantiles.iter();
                        values.extend(quantiles.map(|quantile| float_label(quantile.quantile)));
                    }
                }
                Some("quantile")
            }
            Part::Whole | Part::Count | Part::Sum => None,
        };
        let sets = match label {
            Some(label) => values
                .iter()
                .map(|value| with_labels(&meta.labels, &name, Some((label, value))))
                .collect(),
            None => vec![with_labels(&meta.labels, &name, None)],
        };
        for labels in sets {
            if passes(matchers, &labels) {
                out.slot(labels);
            }
        }
    }
}

/// Adds the Prometheus series of one OTLP series that pass.
fn derive(
    meta: &SeriesMeta,
    points: &[StoredPoint],
    matchers: &Matchers<'_>,
    start_ms: i64,
    end_ms: i64,
    out: &mut Gathering,
) {
    // The base labels pass once for all parts; only derived labels differ.
    if !base_passes(meta, matchers) {
        return;
    }
    let in_range = |point: &&StoredPoint| {
        let time_ms = (point.time_ns / 1_000_000) as i64;
        time_ms >= start_ms && time_ms <= end_ms
    };
    for (name, part) in parts(meta, matchers) {
        match part {
            Part::Bucket => buckets(meta, points, &name, matchers, &in_range, out),
            Part::Quantile => quantiles(meta, points, &name, matchers, &in_range, out),
            Part::Whole | Part::Count | Part::Sum => {
                let labels = with_labels(&meta.labels, &name, None);
                if !passes(matchers, &labels) {
                    continue;
                }
                let series = out.slot(labels);
                for point in points.iter().filter(in_range) {
                    let time_ms = (point.time_ns / 1_000_000) as i64;
                    match sample(point, part) {
                        Some(Sample::Float(value)) => series.floats.push((time_ms, value)),
                        Some(Sample::Histogram(h)) => series.histograms.push((time_ms, h)),
                        None => {}
                    }
                }
            }
        }
    }
}

enum Sample {
    Float(f64),
    Histogram(NativeHistogram),
}

fn stale() -> f64 {
    f64::from_bits(STALE_BITS)
}

fn is_gone(point: &StoredPoint) -> bool {
    point.flags & NO_RECORDED_VALUE != 0
}

fn sample(point: &StoredPoint, part: Part) -> Option<Sample> {
    if is_gone(point) {
        return Some(match (&point.value, part) {
            (PointValue::Exponential(_) | PointValue::Native(_), _) => {
                Sample::Histogram(NativeHistogram::stale())
            }
            _ => Sample::Float(stale()),
        });
    }
    Some(match (&point.value, part) {
        (PointValue::Double(v), Part::Whole) => Sample::Float(point.total.unwrap_or(*v)),
        (PointValue::Int(v), Part::Whole) => Sample::Float(point.total.unwrap_or(*v as f64)),
        (PointValue::Exponential(p), Part::Whole) => Sample::Histogram(match &p.total {
            Some(total) => (**total).clone(),
            None => NativeHistogram::from_exponential(p)?,
        }),
        (PointValue::Native(h), Part::Whole) => Sample::Histogram((**h).clone()),
        (PointValue::Histogram(h), Part::Count) => {
            Sample::Float(h.totals.as_ref().map_or(h.count, |t| t.count) as f64)
        }
        (PointValue::Histogram(h), Part::Sum) => {
            let sum = h.sum?;
            Sample::Float(h.totals.as_ref().map_or(sum, |t| t.sum))
        }
        (PointValue::Summary(s), Part::Count) => Sample::Float(s.count as f64),
        (PointValue::Summary(s), Part::Sum) => Sample::Float(s.sum),
        _ => return None,
    })
}

fn buckets<'a>(
    meta: &SeriesMeta,
    points: &'a [StoredPoint],
    name: &str,
    matchers: &Matchers<'_>,
    in_range: &impl Fn(&&'a StoredPoint) -> bool,
    out: &mut Gathering,
) {
    // Bounds hardly ever change within a series: the labels of each are made once.
    let mut known: Option<BucketSlots> = None;
    for point in points.iter().filter(|p| in_range(p)) {
        let PointValue::Histogram(h) = &point.value else { continue };
        if known.as_ref().is_none_or(|(bounds, _)| bounds != &h.bounds) {
            let slots = h
                .bounds
                .iter()
                .copied()
                .chain([f64::INFINITY])
                .map(|bound| {
                    let labels = with_labels(&meta.labels, name, Some(("le", &float_label(bound))));
                    passes(matchers, &labels).then(|| {
                        out.slot(labels.clone());
                        out.by_labels[&labels]
                    })
                })
                .collect();
            known = Some((h.bounds.clone(), slots));
        }
        let Some((_, slots)) = &known else { continue };
        let time_ms = (point.time_ns / 1_000_000) as i64;
        let (counts, count) = match &h.totals {
            Some(totals) => (&totals.counts, totals.count),
            None => (&h.counts, h.count),
        };
        let mut below = 0;
        for (i, slot) in slots.iter().enumerate() {
            below += counts.get(i).copied().unwrap_or(0);
            let Some(slot) = slot else { continue };
            let last = i + 1 == slots.len();
            let value = if is_gone(point) {
                stale()
            } else if last {
                count as f64
            } else {
                below as f64
            };
            out.series[*slot].floats.push((time_ms, value));
        }
    }
}

fn quantiles<'a>(
    meta: &SeriesMeta,
    points: &'a [StoredPoint],
    name: &str,
    matchers: &Matchers<'_>,
    in_range: &impl Fn(&&'a StoredPoint) -> bool,
    out: &mut Gathering,
) {
    for point in points.iter().filter(|p| in_range(p)) {
        let PointValue::Summary(summary) = &point.value else { continue };
        let time_ms = (point.time_ns / 1_000_000) as i64;
        for quantile in &summary.quantiles {
            let text = float_label(quantile.quantile);
            let labels = with_labels(&meta.labels, name, Some(("quantile", &text)));
            if passes(matchers, &labels) {
                let value = if is_gone(point) { stale() } else { quantile.value };
                out.slot(labels).floats.push((time_ms, value));
            }
        }
    }
}
