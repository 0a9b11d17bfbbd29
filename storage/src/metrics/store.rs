//! The metric store: series in memory and open segments.

use super::batch::{
    FamilyMetadata, HistogramTotals, MetricBatch, MetricExemplar, MetricKind, PointValue,
};
use super::column_cache::ColumnCache;
use super::index::LabelIndex;
use super::known::KnownSeries;
use super::merge::merge;
use super::naming::Naming;
use super::native::NativeHistogram;
use super::segment::{self, MetricSegment};
use super::series::SeriesMeta;
use super::series_cache::SeriesCache;
use crate::columnar::KeyTypes;
use crate::resource::Interner;
use crate::segment::{SegmentDir, SegmentMeta, open_each};
use crate::signal::{Signal, SignalStore};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// One stored point of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPoint {
    pub time_ns: u64,
    pub start_ns: u64,
    pub flags: u32,
    pub value: PointValue,
    /// Running total of a delta sum up to this point.
    pub total: Option<f64>,
    pub exemplars: Vec<MetricExemplar>,
}

/// A series with its points in the order in which they came.
#[derive(Debug, Clone)]
pub struct HotSeries {
    pub meta: Arc<SeriesMeta>,
    pub points: Arc<Vec<StoredPoint>>,
}

/// Series in memory: a table and its index.
#[derive(Debug, Default)]
pub struct HotTable {
    pub series: Vec<HotSeries>,
    pub index: LabelIndex,
    by_id: FxHashMap<u128, u32>,
    bytes: usize,
    /// Metadata that remote write brought, by family.
    pub families: BTreeMap<Arc<str>, FamilyMetadata>,
}

/// What a delta series has added up to; lost at a restart, which then shows as a counter reset.
#[derive(Debug, Clone)]
enum Total {
    Number(f64),
    Histogram(HistogramTotals),
    Native(NativeHistogram),
}

#[derive(Debug)]
pub struct MetricStore {
    pub(super) interner: Arc<Interner>,
    pub(super) naming: Naming,
    known: Arc<KnownSeries>,
    /// Columns of sealed points for the next query.
    pub(super) columns: ColumnCache,
    /// Series of sealed points for the next query.
    pub(super) series: SeriesCache,
    live: RwLock<Live>,
    keys: RwLock<KeyTypes>,
}

#[derive(Debug, Default)]
struct Live {
    frozen: Option<Arc<HotTable>>,
    hot: HotTable,
    segments: Vec<Arc<MetricSegment>>,
    totals: FxHashMap<u128, (u64, Total)>,
}

/// Delta series whose last point is older than this start anew, ns.
const TOTALS_IDLE_NS: u64 = 3_600_000_000_000;

/// Totals above this number are swept for idle ones.
const TOTALS_SWEEP: usize = 100_000;

impl MetricStore {
    pub fn new(interner: Arc<Interner>, naming: Naming) -> Self {
        Self {
            interner,
            naming,
            known: Arc::default(),
            columns: ColumnCache::default(),
            series: SeriesCache::default(),
            live: RwLock::default(),
            keys: RwLock::default(),
        }
    }

    /// Keeps what was read of sealed points for the queries to come, up to so many bytes; at first nothing.
    pub fn keep(&self, bytes: usize) {
        // Series serve ranges, columns what looks at less of the time.
        self.columns.limit(bytes / 4);
        self.series.limit(bytes - bytes / 4);
    }

    /// Makes a durable batch visible. Called in log order from one thread.
    pub fn insert(&self, batch: MetricBatch) {
        let mut live = self.live.write();
        let Live { hot, totals, .. } = &mut *live;
        for metadata in batch.families {
            hot.families.insert(metadata.family.clone(), metadata);
        }
        if totals.len() > TOTALS_SWEEP {
            let newest = batch.points.iter().map(|p| p.time_ns).max().unwrap_or(0);
            totals.retain(|_, (seen_ns, _)| *seen_ns + TOTALS_IDLE_NS > newest);
        }
        let mut fresh = KeyTypes::default();
        for (row, point) in batch.points.into_iter().enumerate() {
            let desc = &batch.metrics[point.metric as usize];
            let number = match hot.by_id.get(&point.series_id) {
                Some(&number) => number,
                None => {
                    let known = self.known.get(point.series_id, &desc.description);
                    hot.add_series(known.unwrap_or_else(|| {
                        let list = batch.attributes.get(row);
                        fresh.add_list(list);
                        fresh.add_list(&desc.resource.attributes);
                        let id = point.series_id;
                        self.known.add(SeriesMeta::new(id, desc.clone(), list, &self.naming))
                    }))
                }
            };
            let (value, total) = if desc.is_delta() {
                accumulate(totals, point.series_id, point.time_ns, point.value)
            } else {
                (point.value, None)
            };
            hot.push(
                number,
                StoredPoint {
                    time_ns: point.time_ns,
                    start_ns: point.start_ns,
                    flags: point.flags,
                    value,
                    total,
                    exemplars: point.exemplars,
                },
            );
        }
        drop(live);
        if !fresh.0.is_empty() {
            self.keys.write().merge(&fresh);
        }
    }

    /// A fixed view of all visible points.
    pub fn snapshot(&self) -> MetricSnapshot {
        let live = self.live.read();
        MetricSnapshot {
            hot: Arc::new(live.hot.series.clone()),
            frozen: live.frozen.clone(),
            segments: live.segments.clone(),
        }
    }

    /// Runs `read` over the hot table under its lock: for index look-ups without copying every series.
    pub(super) fn with_hot<T>(&self, read: impl FnOnce(&HotTable) -> T) -> T {
        read(&self.live.read().hot)
    }

    /// What is not hot. Asked for after the hot table was read: what is frozen in between is then met twice and counts
    /// once; the other way round it would be met nowhere.
    pub(super) fn sealed(&self) -> (Option<Arc<HotTable>>, Vec<Arc<MetricSegment>>) {
        let live = self.live.read();
        (live.frozen.clone(), live.segments.clone())
    }

    /// Attribute and resource keys with the type as which SQL sees them.
    pub fn key_types(&self) -> KeyTypes {
        self.keys.read().clone()
    }

    /// Opens a segment and learns its keys, which this process may not have seen come in.
    fn open_one(&self, dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Arc<MetricSegment>> {
        let (interner, naming) = (self.interner.clone(), self.naming.clone());
        let segment = MetricSegment::open(dir, meta, interner, naming, self.known.clone())?;
        self.keys.write().merge(&segment.key_types()?);
        segment.points().forget_footer();
        Ok(Arc::new(segment))
    }
}

impl HotTable {
    pub(super) fn add_series(&mut self, meta: Arc<SeriesMeta>) -> u32 {
        let number = self.series.len() as u32;
        self.index.push(&meta);
        self.by_id.insert(meta.id, number);
        // Labels, index entries and the table's own row; an estimate.
        self.bytes += 400 + meta.attributes.len() * 3;
        self.series.push(HotSeries { meta, points: Arc::default() });
        number
    }

    fn push(&mut self, number: u32, point: StoredPoint) {
        self.bytes += size_of::<StoredPoint>() + point.value.heap_bytes();
        self.bytes += point.exemplars.len() * 120;
        Arc::make_mut(&mut self.series[number as usize].points).push(point);
    }
}

/// Adds a delta point to its series' running total; returns the value with the total beside it.
fn accumulate(
    totals: &mut FxHashMap<u128, (u64, Total)>,
    id: u128,
    time_ns: u64,
    mut value: PointValue,
) -> (PointValue, Option<f64>) {
    let fresh = |value: &PointValue| match value {
        PointValue::Histogram(_) => Total::Histogram(HistogramTotals::default()),
        PointValue::Exponential(p) => {
            let mut empty = NativeHistogram::from_exponential(p).unwrap_or_default();
            empty.positive.clear();
            empty.negative.clear();
            (empty.count, empty.sum, empty.zero_count) = (0.0, 0.0, 0.0);
            Total::Native(empty)
        }
        _ => Total::Number(0.0),
    };
    let entry = totals.entry(id).or_insert_with(|| (time_ns, fresh(&value)));
    entry.0 = entry.0.max(time_ns);
    let mut total = None;
    match (&mut entry.1, &mut value) {
        (Total::Number(sum), PointValue::Double(v)) => {
            *sum += *v;
            total = Some(*sum);
        }
        (Total::Number(sum), PointValue::Int(v)) => {
            *sum += *v as f64;
            total = Some(*sum);
        }
        (Total::Histogram(sums), PointValue::Histogram(point)) => {
            sums.count += point.count;
            sums.sum += point.sum.unwrap_or(0.0);
            if sums.counts.len() != point.counts.len() {
                // Other bounds: the running counts start anew, as after a reset.
                sums.counts = vec![0; point.counts.len()];
            }
            for (sum, count) in sums.counts.iter_mut().zip(&point.counts) {
                *sum += count;
            }
            point.totals = Some(Box::new(sums.clone()));
        }
        (Total::Native(sums), PointValue::Exponential(point)) => {
            if let Some(native) = NativeHistogram::from_exponential(point) {
                sums.add(&native);
                point.total = Some(Box::new(sums.clone()));
            }
        }
        _ => {}
    }
    (value, total)
}

impl SignalStore for MetricStore {
    fn signal(&self) -> Signal {
        Signal::Metrics
    }

    fn hot_bytes(&self) -> usize {
        let live = self.live.read();
        live.hot.bytes + live.frozen.as_ref().map_or(0, |frozen| frozen.bytes)
    }

    fn hot_rows(&self) -> u64 {
        let live = self.live.read();
        let tables = live.frozen.as_deref().into_iter().chain([&live.hot]);
        tables.flat_map(|table| &table.series).map(|series| series.points.len() as u64).sum()
    }

    fn freeze(&self) {
        let mut live = self.live.write();
        if live.frozen.is_none() {
            let table = std::mem::take(&mut live.hot);
            // Without a series no segment is written that could hold the metadata.
            if table.series.is_empty() {
                live.hot.families = table.families.clone();
            }
            live.frozen = Some(Arc::new(table));
        }
    }

    fn seal(&self, dir: &SegmentDir) -> io::Result<Vec<SegmentMeta>> {
        let frozen = self.live.read().frozen.clone();
        frozen.map_or(Ok(Vec::new()), |table| segment::write(dir, &table, 0))
    }

    fn open(&self, dir: &SegmentDir, metas: &[SegmentMeta]) -> Vec<(SegmentMeta, io::Error)> {
        let (opened, failed) = open_each(metas, |meta| self.open_one(dir, meta));
        self.live.write().segments.extend(opened);
        failed
    }

    fn publish(
        &self,
        dir: &SegmentDir,
        added: &[SegmentMeta],
        removed: &[SegmentMeta],
        sealed: bool,
    ) -> io::Result<()> {
        let opened: Vec<Arc<MetricSegment>> =
            added.iter().map(|meta| self.open_one(dir, meta)).collect::<io::Result<_>>()?;
        let mut live = self.live.write();
        live.segments.retain(|segment| !removed.iter().any(|gone| gone.id == segment.meta.id));
        live.segments.extend(opened);
        if sealed {
            live.frozen = None;
        }
        drop(live);
        let is_gone = |id| removed.iter().any(|gone| gone.id == id);
        self.columns.forget(is_gone);
        self.series.forget(is_gone);
        Ok(())
    }

    fn without(
        &self,
        dir: &SegmentDir,
        meta: &SegmentMeta,
        service: &str,
    ) -> io::Result<Option<Vec<SegmentMeta>>> {
        let segment = self.open_one(dir, meta)?;
        let table = segment.table()?;
        let is_theirs = |series: &SeriesMeta| *series.metric.resource.service_name == *service;
        if !table.series.iter().any(|series| is_theirs(&series.meta)) {
            return Ok(None);
        }
        let rest =
            merge(dir, std::slice::from_ref(&segment), |series| !is_theirs(series), meta.level)?;
        Ok(Some(rest.into_iter().collect()))
    }

    fn compact(&self, dir: &SegmentDir, inputs: &[SegmentMeta]) -> io::Result<Vec<SegmentMeta>> {
        let segments: Vec<Arc<MetricSegment>> = self
            .live
            .read()
            .segments
            .iter()
            .filter(|segment| inputs.iter().any(|meta| meta.id == segment.meta.id))
            .cloned()
            .collect();
        let level = inputs.iter().map(|meta| meta.level).max().unwrap_or(0) + 1;
        Ok(merge(dir, &segments, |_| true, level)?.into_iter().collect())
    }
}

/// A fixed view of the points for whole-table reads (SQL).
#[derive(Debug, Clone)]
pub struct MetricSnapshot {
    pub(super) hot: Arc<Vec<HotSeries>>,
    pub(super) frozen: Option<Arc<HotTable>>,
    pub(super) segments: Vec<Arc<MetricSegment>>,
}

/// Metric kind by its stored name.
pub(super) fn kind_from_name(name: &str) -> Option<MetricKind> {
    [
        MetricKind::Gauge,
        MetricKind::Sum,
        MetricKind::Histogram,
        MetricKind::ExponentialHistogram,
        MetricKind::Summary,
        MetricKind::Prometheus,
    ]
    .into_iter()
    .find(|kind| kind.name() == name)
}
