//! The log store: hot batches and open segments, and the snapshot that queries read.

use super::batch::LogBatch;
use super::sealed::LogSegment;
use super::snapshot::LogSnapshot;
use super::{compact, rebuild, write};
use crate::bloom::Room;
use crate::columnar::KeyTypes;
use crate::resource::Interner;
use crate::segment::{SegmentDir, SegmentMeta, open_each};
use crate::shapes::Noted;
use crate::signal::{Signal, SignalStore};
use parking_lot::{Mutex, RwLock};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::broadcast;

/// Small requests share one hot batch up to this many rows.
const BATCH_ROWS: usize = 4096;

/// Batches that a live tail may fall behind before it loses some.
const TAIL_BATCHES: usize = 256;

/// Memory for the filters of trace indexes: enough for 6 million traces. Beyond it a look-up reads a slot of each further
/// segment.
const FILTER_BYTES_MAX: usize = 8 << 20;

/// Sealed and recent log records.
#[derive(Debug)]
pub struct LogStore {
    interner: Arc<Interner>,
    live: RwLock<Live>,
    hot_bytes: AtomicUsize,
    /// Attribute keys ever seen by this process, for SQL columns.
    keys: RwLock<KeyTypes>,
    /// What has its keys in `keys`.
    noted: Mutex<Noted>,
    tail: broadcast::Sender<Arc<LogBatch>>,
    filter_room: Arc<Room>,
}

#[derive(Debug, Default)]
struct Live {
    /// Being sealed; still visible.
    frozen: Vec<Arc<LogBatch>>,
    hot: Vec<Arc<LogBatch>>,
    segments: Vec<Arc<LogSegment>>,
}

impl LogStore {
    pub fn new(interner: Arc<Interner>) -> Self {
        Self {
            interner,
            live: RwLock::default(),
            hot_bytes: AtomicUsize::new(0),
            keys: RwLock::default(),
            noted: Mutex::default(),
            tail: broadcast::Sender::new(TAIL_BATCHES),
            filter_room: Arc::new(Room::new(FILTER_BYTES_MAX)),
        }
    }

    /// Makes a durable batch visible. Called in log order from one thread.
    pub fn insert(&self, batch: LogBatch) {
        if batch.is_empty() {
            return;
        }
        self.note(&batch);
        let tailed = self.tail.receiver_count() > 0;
        let mut live = self.live.write();
        if !tailed
            && let Some(last) = live.hot.last_mut().and_then(Arc::get_mut)
            && last.len() + batch.len() <= BATCH_ROWS
        {
            let before = last.heap_bytes();
            last.append(&batch);
            self.hot_bytes.fetch_add(last.heap_bytes() - before, Ordering::Relaxed);
            return;
        }
        self.hot_bytes.fetch_add(batch.heap_bytes(), Ordering::Relaxed);
        let batch = Arc::new(batch);
        live.hot.push(batch.clone());
        drop(live);
        if tailed {
            // An error means that the last listener has just left.
            let _ = self.tail.send(batch);
        }
    }

    /// Every batch from now on, once it is visible. A receiver that falls behind learns how many it has missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<LogBatch>> {
        self.tail.subscribe()
    }

    /// Remembers the attribute keys of a batch.
    fn note(&self, batch: &LogBatch) {
        let mut fresh = KeyTypes::default();
        self.noted.lock().note(&batch.attributes, &batch.resources, &mut fresh);
        let known = self.keys.read().covers(&fresh);
        if !known {
            self.keys.write().merge(&fresh);
        }
    }

    /// A fixed view of all visible records.
    pub fn snapshot(&self) -> LogSnapshot {
        let live = self.live.read();
        LogSnapshot {
            hot: live.frozen.iter().chain(&live.hot).cloned().collect(),
            segments: live.segments.clone(),
        }
    }

    /// Attribute and resource keys with the type as which SQL sees them.
    pub fn key_types(&self) -> KeyTypes {
        self.keys.read().clone()
    }

    /// Attribute and resource keys, sorted.
    pub fn attribute_keys(&self) -> Vec<Arc<str>> {
        let mut keys: Vec<Arc<str>> = self.keys.read().0.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }
}

impl LogStore {
    fn open_one(&self, dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Arc<LogSegment>> {
        let segment = LogSegment::open(dir, meta, &self.interner, &self.filter_room)?;
        let footer = segment.file.footer()?;
        segment.file.forget_footer();
        let mut keys = KeyTypes::default();
        for (key, scalar) in footer.attribute_keys() {
            keys.add(key, Some(scalar));
        }
        self.keys.write().merge(&keys);
        Ok(Arc::new(segment))
    }
}

impl SignalStore for LogStore {
    fn signal(&self) -> Signal {
        Signal::Logs
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
        write::seal(dir, &frozen)
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
        let opened: Vec<Arc<LogSegment>> =
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
        rebuild::rebuild(dir, meta, &self.interner, None)
    }

    fn without(
        &self,
        dir: &SegmentDir,
        meta: &SegmentMeta,
        service: &str,
    ) -> io::Result<Option<Vec<SegmentMeta>>> {
        let segment = LogSegment::open(dir, meta, &self.interner, &self.filter_room)?;
        let outline = segment.outline()?;
        if !outline.groups.resources.iter().any(|resource| *resource.service_name == *service) {
            return Ok(None);
        }
        rebuild::rebuild(dir, meta, &self.interner, Some(service)).map(Some)
    }

    fn compact(&self, dir: &SegmentDir, inputs: &[SegmentMeta]) -> io::Result<Vec<SegmentMeta>> {
        let segments: Vec<Arc<LogSegment>> = {
            let live = self.live.read();
            live.segments
                .iter()
                .filter(|segment| inputs.iter().any(|meta| meta.id == segment.meta.id))
                .cloned()
                .collect()
        };
        if segments.len() != inputs.len() || segments.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "a segment to merge is not open"));
        }
        let level = inputs.iter().map(|meta| meta.level).max().unwrap_or(0) + 1;
        Ok(vec![compact::merge(dir, &segments, level)?])
    }
}
