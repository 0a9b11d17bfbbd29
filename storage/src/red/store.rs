//! Hot cells, sealed cells, and reading both.

use super::edges::{EDGE_CLIENT, EDGE_SERVER, Pairing};
use super::segment::{self, RedSegment};
use super::sketch::Sketch;
use super::totals::{RedTotal, Sums};
use crate::meter::{Meter, Unmetered};
use crate::retention::now_ns;
use crate::segment::{SegmentDir, SegmentMeta, open_each};
use crate::signal::{Signal, SignalStore};
use crate::spans::SpanBatch;
use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};
use std::io;
use std::sync::Arc;

/// Width of a slot as spans come in, ns.
pub const SLOT_NS: u64 = 10_000_000_000;

/// Operations of a service beyond this many share the name [`OTHER`].
const OPERATIONS_MAX: usize = 1_000;

/// Stands for the operations of a service that has too many.
pub const OTHER: &str = "__other__";

/// Spans kept per cell to lead from a chart to a trace.
const EXEMPLARS_MAX: usize = 3;

/// What a cell counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedKey {
    pub service: Arc<str>,
    /// Span name.
    pub operation: Arc<str>,
    /// `SpanKind`, numbers that the protocol does not know as 0; or [`EDGE_CLIENT`], [`EDGE_SERVER`].
    pub kind: i32,
    /// `StatusCode`.
    pub status: i32,
}

/// A real span of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// Start, Unix ns.
    pub time_ns: u64,
    pub duration_ns: u64,
}

/// One group of spans in one slot, by the spans' start.
#[derive(Debug, Clone, PartialEq)]
pub struct RedCell {
    /// Start of the slot, Unix ns, and its width.
    pub time_ns: u64,
    pub width_ns: u64,
    pub key: Arc<RedKey>,
    pub sum_ns: u128,
    /// Durations; its count is the number of spans.
    pub sketch: Sketch,
    /// The first, the slowest and one more.
    pub exemplars: Vec<Exemplar>,
}

impl RedCell {
    fn new(time_ns: u64, width_ns: u64, key: Arc<RedKey>) -> Self {
        Self { time_ns, width_ns, key, sum_ns: 0, sketch: Sketch::default(), exemplars: Vec::new() }
    }

    fn record(&mut self, exemplar: Exemplar) {
        self.sum_ns += u128::from(exemplar.duration_ns);
        self.sketch.record(exemplar.duration_ns);
        self.keep(exemplar);
    }

    /// Keeps the first two, then replaces the faster of the later ones.
    fn keep(&mut self, exemplar: Exemplar) {
        if self.exemplars.len() < EXEMPLARS_MAX {
            self.exemplars.push(exemplar);
        } else if let Some(fastest) = self.exemplars[1..].iter_mut().min_by_key(|e| e.duration_ns)
            && exemplar.duration_ns > fastest.duration_ns
        {
            *fastest = exemplar;
        }
    }

    pub fn count(&self) -> u64 {
        self.sketch.count()
    }

    /// Adds a cell of the same key.
    pub fn merge(&mut self, other: &Self) {
        self.sum_ns += other.sum_ns;
        self.sketch.merge(&other.sketch);
        for exemplar in &other.exemplars {
            self.keep(*exemplar);
        }
    }

    /// Memory it takes, in samples of 16 bytes.
    fn samples(&self) -> u64 {
        (self.heap_bytes() / 16) as u64
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.sketch.heap_bytes() + EXEMPLARS_MAX * size_of::<Exemplar>() + 64
    }
}

/// Which cells to read; `None` is any.
#[derive(Debug, Clone, Default)]
pub struct RedFilter {
    pub service: Option<String>,
    pub operation: Option<String>,
    /// `None` is every kind of span; calls between services come only when they are asked for.
    pub kind: Option<i32>,
}

impl RedFilter {
    pub(super) fn fits(&self, key: &RedKey) -> bool {
        self.service.as_ref().is_none_or(|service| *key.service == **service)
            && self.operation.as_ref().is_none_or(|operation| *key.operation == **operation)
            && self.kind.map_or(key.kind >= 0, |kind| key.kind == kind)
    }
}

/// Hot cells.
#[derive(Debug, Default)]
struct Cells {
    cells: Vec<RedCell>,
    /// By slot start and number of the key.
    places: FxHashMap<(u64, u32), u32>,
}

impl Cells {
    fn iter(&self) -> std::slice::Iter<'_, RedCell> {
        self.cells.iter()
    }
}

/// Numbers of the keys of one service: by operation a few with their kind and status.
type KeysOfService = FxHashMap<Arc<str>, Vec<(i32, i32, u32)>>;

/// Numbers of the keys of calls by status and the addresses of the names of caller and callee; these are held so that no
/// other name takes their place.
type KeysOfEdges = FxHashMap<(*const u8, *const u8, i32), ([u32; 2], [Arc<str>; 2])>;

/// RED figures of every service.
#[derive(Debug, Default)]
pub struct RedStore {
    live: RwLock<Live>,
    sums: Sums,
}

#[derive(Debug, Default)]
struct Live {
    hot: Cells,
    frozen: Arc<Cells>,
    segments: Vec<Arc<RedSegment>>,
    /// Keys of the hot cells, and their numbers by service.
    keys: Vec<Arc<RedKey>>,
    numbers: FxHashMap<Arc<str>, KeysOfService>,
    /// Survives a seal: the other end of a call may come after it.
    pairing: Pairing,
    hot_bytes: usize,
}

impl Live {
    /// Number of the cell for a key and a time, a new one if need be.
    fn cell(&mut self, key: u32, time_ns: u64) -> u32 {
        let slot = time_ns - time_ns % SLOT_NS;
        let Cells { cells, places } = &mut self.hot;
        *places.entry((slot, key)).or_insert_with(|| {
            let cell = RedCell::new(slot, SLOT_NS, self.keys[key as usize].clone());
            self.hot_bytes += cell.heap_bytes();
            cells.push(cell);
            cells.len() as u32 - 1
        })
    }

    fn record(&mut self, cell: u32, exemplar: Exemplar) {
        let cell = &mut self.hot.cells[cell as usize];
        let before = cell.heap_bytes();
        cell.record(exemplar);
        self.hot_bytes += cell.heap_bytes() - before;
    }

    fn key(&mut self, service: &Arc<str>, operation: &Arc<str>, kind: i32, status: i32) -> u32 {
        let known = |of_operation: &Vec<(i32, i32, u32)>| {
            let same = of_operation.iter().find(|key| (key.0, key.1) == (kind, status));
            same.map(|key| key.2)
        };
        let of_service = match self.numbers.get_mut(service) {
            Some(of_service) => of_service,
            None => self.numbers.entry(service.clone()).or_default(),
        };
        if let Some(number) = of_service.get(operation).and_then(known) {
            return number;
        }
        let keys: usize = of_service.values().map(Vec::len).sum();
        let operation = if keys >= OPERATIONS_MAX { OTHER.into() } else { operation.clone() };
        let of_operation = of_service.entry(operation.clone()).or_default();
        if let Some(number) = known(of_operation) {
            return number;
        }
        let number = self.keys.len() as u32;
        of_operation.push((kind, status, number));
        self.keys.push(Arc::new(RedKey { service: service.clone(), operation, kind, status }));
        number
    }
}

/// Kinds of the protocol (`SpanKind` 0 to 5); others count as unspecified.
fn known_kind(kind: i32) -> i32 {
    if (0..=5).contains(&kind) { kind } else { 0 }
}

/// Service, operation, kind and status of spans of a request, as numbers.
type Group = (u32, u32, i32, i32);

/// Key of a group, and slot and cell of its span before: spans of a request are close in time.
type LastCell = (u32, u64, u32);

impl RedStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts every span of a batch. Called in log order from one thread, before any sampling.
    pub fn observe(&self, batch: &SpanBatch) {
        let mut live = self.live.write();
        let mut groups: FxHashMap<Group, LastCell> = FxHashMap::default();
        let mut edges = KeysOfEdges::default();
        for (row, span) in batch.rows.iter().enumerate() {
            let code = batch.name.codes()[row];
            let slot = span.start_ns / SLOT_NS;
            let group = groups
                .entry((span.resource, code, span.kind, span.status_code))
                .or_insert_with(|| {
                    let service = &batch.resources[span.resource as usize].service_name;
                    let name = &batch.name.values()[code as usize];
                    let key = live.key(service, name, known_kind(span.kind), span.status_code);
                    (key, slot, live.cell(key, span.start_ns))
                });
            if group.1 != slot {
                *group = (group.0, slot, live.cell(group.0, span.start_ns));
            }
            live.record(
                group.2,
                Exemplar {
                    trace_id: span.trace_id,
                    span_id: span.span_id,
                    time_ns: span.start_ns,
                    duration_ns: span.duration_ns(),
                },
            );
            for call in live.pairing.observe(batch, span) {
                let (caller, callee) = (&call.client.service, &call.server.service);
                let status = call.status();
                let address = |name: &Arc<str>| Arc::as_ptr(name).cast::<u8>();
                let (keys, _) =
                    edges.entry((address(caller), address(callee), status)).or_insert_with(|| {
                        let key = |kind| live.key(caller, callee, kind, status);
                        ([EDGE_CLIENT, EDGE_SERVER].map(key), [caller.clone(), callee.clone()])
                    });
                for (key, end) in keys.iter().copied().zip([&call.client, &call.server]) {
                    let cell = live.cell(key, end.exemplar.time_ns);
                    live.record(cell, end.exemplar);
                }
            }
        }
    }

    /// Cells whose slot overlaps `start_ns..=end_ns`, in no order. One group may come in several cells of a slot.
    pub fn cells(
        &self,
        filter: &RedFilter,
        start_ns: u64,
        end_ns: u64,
    ) -> io::Result<Vec<RedCell>> {
        self.metered_cells(filter, start_ns, end_ns, &Unmetered)
    }

    /// As [`cells`](Self::cells), bounded while it goes on.
    pub fn metered_cells(
        &self,
        filter: &RedFilter,
        start_ns: u64,
        end_ns: u64,
        meter: &dyn Meter,
    ) -> io::Result<Vec<RedCell>> {
        let (mut cells, frozen, segments) = {
            let live = self.live.read();
            let hot: Vec<RedCell> =
                live.hot.iter().filter(|c| fits(c, filter, start_ns, end_ns)).cloned().collect();
            (hot, live.frozen.clone(), live.segments.clone())
        };
        cells.extend(frozen.iter().filter(|c| fits(c, filter, start_ns, end_ns)).cloned());
        meter.samples(cells.iter().map(RedCell::samples).sum())?;
        for segment in segments {
            if segment.meta.min_ns > end_ns || segment.meta.max_ns < start_ns {
                continue;
            }
            let mut fresh = 0;
            segment.visit(|key| filter.fits(key), &mut |cell| {
                if fits(&cell, filter, start_ns, end_ns) {
                    fresh += cell.samples();
                    cells.push(cell);
                }
                if fresh > METERED_SAMPLES {
                    meter.samples(std::mem::take(&mut fresh))?;
                }
                Ok(())
            })?;
            meter.samples(fresh)?;
            meter.check()?;
        }
        Ok(cells)
    }

    /// Keys that have cells in segments or memory around `start_ns..=end_ns`.
    pub fn keys(
        &self,
        filter: &RedFilter,
        start_ns: u64,
        end_ns: u64,
        meter: &dyn Meter,
    ) -> io::Result<FxHashSet<Arc<RedKey>>> {
        let mut keys: FxHashSet<Arc<RedKey>> = FxHashSet::default();
        let (frozen, segments) = {
            let live = self.live.read();
            let hot = live.hot.iter().filter(|c| fits(c, filter, start_ns, end_ns));
            keys.extend(hot.map(|cell| cell.key.clone()));
            (live.frozen.clone(), live.segments.clone())
        };
        let frozen = frozen.iter().filter(|c| fits(c, filter, start_ns, end_ns));
        keys.extend(frozen.map(|cell| cell.key.clone()));
        for segment in segments {
            if segment.meta.min_ns <= end_ns && segment.meta.max_ns >= start_ns {
                let all = segment.keys()?;
                let fitting = all.iter().filter(|k| filter.fits(&k.key));
                keys.extend(fitting.map(|k| k.key.clone()));
                meter.check()?;
            }
        }
        Ok(keys)
    }

    /// What the cells of each key that begin before `boundary_ns` add up to.
    ///
    /// * `boundary_ns`: a multiple of [`PARTITION_NS`](crate::segment::PARTITION_NS).
    /// * `sketches`: whether durations are wanted, too.
    pub fn totals(
        &self,
        filter: &RedFilter,
        boundary_ns: u64,
        sketches: bool,
        meter: &dyn Meter,
    ) -> io::Result<FxHashMap<Arc<RedKey>, RedTotal>> {
        let before = |cell: &&RedCell| cell.time_ns < boundary_ns && filter.fits(&cell.key);
        let (hot, frozen, segments) = {
            let live = self.live.read();
            let hot: Vec<RedCell> = live.hot.iter().filter(before).cloned().collect();
            let segments = live.segments.iter().filter(|s| s.meta.partition_ns < boundary_ns);
            (hot, live.frozen.clone(), segments.cloned().collect::<Vec<_>>())
        };
        let sealed = self.sums.of(segments, meter)?;
        let mut totals = FxHashMap::default();
        for (key, sum) in sealed.iter().filter(|(key, _)| filter.fits(key)) {
            let total = sum.decode(sketches)?;
            meter.samples(total.samples())?;
            totals.insert(key.clone(), total);
        }
        for cell in hot.iter().chain(frozen.iter().filter(before)) {
            let total: &mut RedTotal = totals.entry(cell.key.clone()).or_default();
            total.add(cell, sketches);
        }
        Ok(totals)
    }
}

/// Cells are metered in lots of about this many samples.
const METERED_SAMPLES: u64 = 1 << 16;

fn fits(cell: &RedCell, filter: &RedFilter, start_ns: u64, end_ns: u64) -> bool {
    cell.time_ns <= end_ns
        && cell.time_ns.saturating_add(cell.width_ns) > start_ns
        && filter.fits(&cell.key)
}

impl SignalStore for RedStore {
    fn signal(&self) -> Signal {
        Signal::Red
    }

    fn hot_bytes(&self) -> usize {
        self.live.read().hot_bytes
    }

    fn hot_rows(&self) -> u64 {
        let live = self.live.read();
        (live.frozen.cells.len() + live.hot.cells.len()) as u64
    }

    fn freeze(&self) {
        let mut live = self.live.write();
        if live.frozen.cells.is_empty() {
            // About as many will come until the next seal: growing step by step copies them twice.
            let next =
                Cells { cells: Vec::with_capacity(live.hot.cells.len()), ..Cells::default() };
            live.frozen = Arc::new(std::mem::replace(&mut live.hot, next));
            live.keys.clear();
            live.numbers.clear();
        }
    }

    fn seal(&self, dir: &SegmentDir) -> io::Result<Vec<SegmentMeta>> {
        let frozen = self.live.read().frozen.clone();
        segment::write(dir, frozen.cells.clone(), 0)
    }

    fn open(&self, dir: &SegmentDir, metas: &[SegmentMeta]) -> Vec<(SegmentMeta, io::Error)> {
        let (opened, failed) = open_each(metas, |meta| RedSegment::open(dir, meta).map(Arc::new));
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
        let opened: Vec<Arc<RedSegment>> = added
            .iter()
            .map(|meta| RedSegment::open(dir, meta).map(Arc::new))
            .collect::<io::Result<_>>()?;
        let mut live = self.live.write();
        live.segments.retain(|segment| !removed.iter().any(|gone| gone.id == segment.meta.id));
        live.segments.extend(opened);
        if sealed {
            live.frozen = Arc::default();
            live.hot_bytes = live.hot.iter().map(RedCell::heap_bytes).sum();
        }
        Ok(())
    }

    fn without(
        &self,
        dir: &SegmentDir,
        meta: &SegmentMeta,
        service: &str,
    ) -> io::Result<Option<Vec<SegmentMeta>>> {
        // Calls between services carry the callee's name as their operation.
        let names =
            |key: &RedKey| *key.service == *service || (key.kind < 0 && *key.operation == *service);
        let segment = RedSegment::open(dir, meta)?;
        let mut rest = Vec::new();
        segment.read(|key| !names(key), &mut rest)?;
        if rest.len() as u64 == meta.rows {
            return Ok(None);
        }
        segment::write(dir, rest, meta.level).map(Some)
    }

    fn compact(&self, dir: &SegmentDir, inputs: &[SegmentMeta]) -> io::Result<Vec<SegmentMeta>> {
        self.compact_as_of(dir, inputs, now_ns())
    }

    fn outgrown(&self, now_ns: u64) -> Option<Vec<SegmentMeta>> {
        let live = self.live.read();
        let due =
            live.segments.iter().find(|s| s.width_ns < segment::width_at(s.meta.max_ns, now_ns))?;
        let of_partition = |s: &&Arc<RedSegment>| s.meta.partition_ns == due.meta.partition_ns;
        Some(live.segments.iter().filter(of_partition).map(|s| s.meta.clone()).collect())
    }
}

impl RedStore {
    /// Merges segments into slots as wide as their age at `now_ns` allows.
    pub(super) fn compact_as_of(
        &self,
        dir: &SegmentDir,
        inputs: &[SegmentMeta],
        now_ns: u64,
    ) -> io::Result<Vec<SegmentMeta>> {
        let segments: Vec<Arc<RedSegment>> = self
            .live
            .read()
            .segments
            .iter()
            .filter(|segment| inputs.iter().any(|meta| meta.id == segment.meta.id))
            .cloned()
            .collect();
        if segments.is_empty() {
            return Ok(Vec::new());
        }
        let level = inputs.iter().map(|meta| meta.level).max().unwrap_or(0) + 1;
        Ok(vec![segment::merge(dir, &segments, level, now_ns)?])
    }
}
