//! The span store: hot batches and open segments, and the snapshot that queries read.

use super::batch::SpanBatch;
use super::hot::HotBatch;
use super::merge::{self, Sizes};
use super::names::{NAMES_TEXT, Names};
use super::row::Span;
use super::segment::{ParsedTexts, SpanSegment};
use super::write;
use crate::bloom::Room;
use crate::check::verify_segment;
use crate::columnar::KeyTypes;
use crate::resource::Interner;
use crate::segment::{SegmentDir, SegmentMeta, open_each};
use crate::shapes::Noted;
use crate::signal::{Signal, SignalStore};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory for the filters of trace indexes: enough for 13 million traces. Beyond it a look-up reads a page of each
/// further segment.
const FILTER_BYTES_MAX: usize = 16 << 20;

/// Sealed and recent spans.
#[derive(Debug)]
pub struct SpanStore {
    interner: Arc<Interner>,
    live: RwLock<Live>,
    hot_bytes: AtomicUsize,
    /// Attribute keys ever seen by this process, for SQL columns.
    keys: RwLock<KeyTypes>,
    /// What has its keys in `keys`.
    noted: Mutex<Noted>,
    names: RwLock<Names>,
    /// Hashes of what is in `names`.
    noted_names: Mutex<FxHashSet<u64>>,
    filter_room: Arc<Room>,
    texts: Arc<ParsedTexts>,
}

#[derive(Debug, Default)]
struct Live {
    /// Being sealed; still visible.
    frozen: Vec<Arc<HotBatch>>,
    hot: Vec<Arc<HotBatch>>,
    segments: Vec<Arc<SpanSegment>>,
}

impl SpanStore {
    pub fn new(interner: Arc<Interner>) -> Self {
        Self {
            interner,
            live: RwLock::default(),
            hot_bytes: AtomicUsize::new(0),
            keys: RwLock::default(),
            noted: Mutex::default(),
            names: RwLock::default(),
            noted_names: Mutex::default(),
            filter_room: Arc::new(Room::new(FILTER_BYTES_MAX)),
            texts: Arc::default(),
        }
    }

    /// Makes a durable batch visible. Called in log order from one thread.
    pub fn insert(&self, batch: SpanBatch) {
        if batch.is_empty() {
            return;
        }
        self.note(&batch);
        let mut live = self.live.write();
        self.hot_bytes.fetch_add(batch.heap_bytes(), Ordering::Relaxed);
        if let Some(last) = live.hot.last_mut().and_then(Arc::get_mut)
            && last.has_room_for(&batch)
        {
            last.append(&batch);
        } else {
            live.hot.push(Arc::new(HotBatch::new(batch)));
        }
    }

    /// Remembers keys and names of a batch.
    fn note(&self, batch: &SpanBatch) {
        let mut fresh = KeyTypes::default();
        self.noted.lock().note(&batch.attributes, &batch.resources, &mut fresh);
        let known = self.keys.read().covers(&fresh);
        if !known {
            self.keys.write().merge(&fresh);
        }
        let names = Names::fresh(batch, &mut self.noted_names.lock());
        if !self.names.read().covers(&names) {
            self.names.write().merge(&names);
        }
    }

    /// A fixed view of all visible spans.
    pub fn snapshot(&self) -> SpanSnapshot {
        let live = self.live.read();
        SpanSnapshot {
            hot: live.frozen.iter().chain(&live.hot).cloned().collect(),
            segments: live.segments.clone(),
            interner: self.interner.clone(),
            texts: self.texts.clone(),
        }
    }

    /// All service names, sorted.
    pub fn services(&self) -> Vec<Arc<str>> {
        self.names.read().services().cloned().collect()
    }

    /// Operation names of a service with their kinds, sorted.
    pub fn operations(&self, service: &str) -> Vec<(Arc<str>, i32)> {
        self.names.read().operations(service).cloned().collect()
    }

    /// Attribute and resource keys with the type as which SQL sees them.
    pub fn key_types(&self) -> KeyTypes {
        self.keys.read().clone()
    }

    /// Opens a segment and learns its keys and names, which this process may not have seen come in.
    fn open_one(&self, dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Arc<SpanSegment>> {
        let segment = SpanSegment::open(dir, meta, &self.filter_room)?;
        let footer = segment.file.footer()?;
        segment.file.forget_footer();
        self.keys.write().merge(&footer.key_types());
        if let Some(text) = footer.text(NAMES_TEXT) {
            self.names.write().merge(&Names::from_text(text));
        }
        Ok(Arc::new(segment))
    }
}

impl SignalStore for SpanStore {
    fn signal(&self) -> Signal {
        Signal::Spans
    }

    fn hot_bytes(&self) -> usize {
        self.hot_bytes.load(Ordering::Relaxed)
    }

    fn hot_rows(&self) -> u64 {
        let live = self.live.read();
        live.frozen.iter().chain(&live.hot).map(|batch| batch.len() as u64).sum()
    }

    fn freeze(&self) {
        let mut live = self.live.write();
        if live.frozen.is_empty() {
            live.frozen = std::mem::take(&mut live.hot);
        }
    }

    fn seal(&self, dir: &SegmentDir) -> io::Result<Vec<SegmentMeta>> {
        let frozen = self.live.read().frozen.clone();
        let batches: Vec<&SpanBatch> = frozen.iter().map(|batch| &***batch).collect();
        write::write(dir, &batches, 0)
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
        let opened: Vec<Arc<SpanSegment>> =
            added.iter().map(|meta| self.open_one(dir, meta)).collect::<io::Result<_>>()?;
        let mut live = self.live.write();
        live.segments.retain(|segment| !removed.iter().any(|gone| gone.id == segment.meta.id));
        live.segments.extend(opened);
        if sealed {
            live.frozen.clear();
            let hot: usize = live.hot.iter().map(|batch| batch.heap_bytes()).sum();
            self.hot_bytes.store(hot, Ordering::Relaxed);
        }
        Ok(())
    }

    fn rebuild(&self, dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Vec<SegmentMeta>> {
        let segment = Arc::new(SpanSegment::open_rows(dir, meta)?);
        Ok(vec![merge::merge(dir, &[segment], meta.level, Sizes::default())?])
    }

    fn without(
        &self,
        dir: &SegmentDir,
        meta: &SegmentMeta,
        service: &str,
    ) -> io::Result<Option<Vec<SegmentMeta>>> {
        let segment = SpanSegment::open_rows(dir, meta)?;
        let names =
            segment.file.footer()?.text(NAMES_TEXT).map(Names::from_text).unwrap_or_default();
        if !names.services().any(|named| **named == *service) {
            return Ok(None);
        }
        let mut rest = SpanBatch::default();
        for span in segment.spans(None, &self.interner, &self.texts)? {
            if *span.resource.service_name != *service {
                rest.push_span(&span);
            }
        }
        rest.finish();
        write::write(dir, &[&rest], meta.level).map(Some)
    }

    fn forget(&self, service: &str) {
        self.names.write().remove(service);
        self.noted_names.lock().clear();
    }

    fn compact(&self, dir: &SegmentDir, inputs: &[SegmentMeta]) -> io::Result<Vec<SegmentMeta>> {
        let segments: Vec<Arc<SpanSegment>> = {
            let live = self.live.read();
            live.segments
                .iter()
                .filter(|segment| inputs.iter().any(|meta| meta.id == segment.meta.id))
                .cloned()
                .collect()
        };
        // Copied row groups are not looked at: damage must not get a new checksum.
        for meta in inputs {
            if let Some((path, what)) = verify_segment(dir, meta)?.first() {
                let what = format!("{}: {what}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        let level = inputs.iter().map(|meta| meta.level).max().unwrap_or(0) + 1;
        Ok(vec![merge::merge(dir, &segments, level, Sizes::default())?])
    }

    fn examine(&self, dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Vec<String>> {
        SpanSegment::open(dir, meta, &Arc::default())?.examine(dir)
    }
}

/// A fixed view of the spans: cheap to make, unaffected by what comes later.
#[derive(Debug, Clone)]
pub struct SpanSnapshot {
    pub(super) hot: Vec<Arc<HotBatch>>,
    pub(super) segments: Vec<Arc<SpanSegment>>,
    pub(super) interner: Arc<Interner>,
    pub(super) texts: Arc<ParsedTexts>,
}

impl SpanSnapshot {
    /// All spans of a trace by start time; empty when there is none.
    pub fn trace(&self, trace_id: &[u8; 16]) -> io::Result<Vec<Span>> {
        let mut spans = Vec::new();
        for segment in &self.segments {
            let rows = segment.rows_of(&[*trace_id])?;
            if !rows.is_empty() {
                spans.extend(segment.spans(Some(&rows), &self.interner, &self.texts)?);
            }
        }
        // The index goes by a hash.
        spans.retain(|span| span.fields.trace_id == *trace_id);
        for batch in self.hot.iter().filter(|batch| batch.may_hold(trace_id)) {
            for (row, fields) in batch.rows.iter().enumerate() {
                if fields.trace_id == *trace_id {
                    spans.push(Span::from_batch(batch, row));
                }
            }
        }
        spans.sort_by_key(|span| (span.fields.start_ns, span.fields.span_id));
        Ok(spans)
    }
}
