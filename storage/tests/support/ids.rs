//! Stores of records that are nothing but an id, so that what became of each can be told.

use parking_lot::Mutex;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trefoil_storage::attributes::Value;
use trefoil_storage::logs::{LogBatch, LogFields};
use trefoil_storage::segment::{PARTITION_NS, SegmentDir, SegmentMeta};
use trefoil_storage::signal::{Batch, Decoded, Decoder, FrameKind, Signal, SignalStore, StoreSet};
use trefoil_storage::spans::{SpanBatch, SpanFields};

/// A request's bytes: an id a line; a line that is no number is a record to reject. Beginning with `!` the whole
/// request is malformed.
pub fn body(ids: &[u64]) -> bytes::Bytes {
    ids.iter().map(|id| format!("{id}\n")).collect::<String>().into()
}

/// Reads [`body`].
pub struct IdDecoder;

impl Decoder for IdDecoder {
    fn decode(&self, kind: FrameKind, body: &[u8], _arrival_ns: u64) -> Result<Decoded, String> {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        if text.starts_with('!') {
            return Err("begins with !".to_owned());
        }
        let lines = text.lines().count() as u64;
        let ids: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        let accepted = ids.len() as u64;
        let batch = match kind.signal() {
            Signal::Logs => Batch::Logs(log_batch(&ids)),
            _ => Batch::Spans(span_batch(&ids)),
        };
        let rejected = lines - accepted;
        let reason = (rejected > 0).then(|| format!("{rejected} lines are no numbers"));
        Ok(Decoded { batch, accepted, rejected, reason })
    }
}

fn span_batch(ids: &[u64]) -> SpanBatch {
    let mut batch = SpanBatch::default();
    for id in ids {
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&id.to_le_bytes());
        batch.rows.push(SpanFields { trace_id, ..SpanFields::default() });
    }
    batch
}

fn log_batch(ids: &[u64]) -> LogBatch {
    let mut batch = LogBatch::default();
    for id in ids {
        batch.push_row(&LogFields::default(), Value::Str(&id.to_string()), "", "");
    }
    batch
}

/// A signal store of ids; a segment is a file with an id a line.
pub struct IdStore {
    signal: Signal,
    live: Mutex<Live>,
    /// Makes the next seal or merge panic.
    pub panic_next: AtomicBool,
    /// Makes the next seal leave a row out.
    pub forget_next: AtomicBool,
}

#[derive(Default)]
struct Live {
    hot: Vec<u64>,
    frozen: Option<Vec<u64>>,
    segments: Vec<(SegmentMeta, Arc<Vec<u64>>)>,
}

impl IdStore {
    pub fn new(signal: Signal) -> Self {
        Self {
            signal,
            live: Mutex::default(),
            panic_next: AtomicBool::new(false),
            forget_next: AtomicBool::new(false),
        }
    }

    /// All visible ids, sorted; one that is there twice comes twice.
    pub fn visible(&self) -> Vec<u64> {
        let live = self.live.lock();
        let mut all: Vec<u64> =
            live.hot.iter().chain(live.frozen.iter().flatten()).copied().collect();
        for (_, ids) in &live.segments {
            all.extend(ids.iter());
        }
        all.sort_unstable();
        all
    }

    fn write(&self, dir: &SegmentDir, ids: &[u64], level: u32) -> io::Result<Vec<SegmentMeta>> {
        assert!(!self.panic_next.swap(false, Ordering::AcqRel), "asked to panic");
        let mut partitions: std::collections::BTreeMap<u64, Vec<u64>> = Default::default();
        for id in ids {
            partitions.entry(partition_ns(*id)).or_default().push(*id);
        }
        let write_one = |(partition_ns, ids): (u64, Vec<u64>)| {
            let id = dir.allocate_id();
            let mut files = Vec::new();
            for extension in ["parquet", "idx"] {
                let mut file = dir.create(self.signal, partition_ns, id, extension)?;
                for id in &ids {
                    writeln!(file, "{id}")?;
                }
                files.push(file.commit()?);
            }
            Ok(SegmentMeta {
                signal: self.signal,
                id,
                partition_ns,
                min_ns: partition_ns,
                max_ns: partition_ns + 1,
                rows: ids.len() as u64,
                level,
                files,
            })
        };
        partitions.into_iter().map(write_one).collect()
    }
}

/// The partition of an id: three hours long past.
pub fn partition_ns(id: u64) -> u64 {
    (id % 3) * PARTITION_NS
}

fn read(dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Arc<Vec<u64>>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut read = Vec::new();
    for file in &meta.files {
        let text = std::fs::read_to_string(dir.file_path(meta, &file.extension))?;
        if crc32fast::hash(text.as_bytes()) != file.crc32 {
            return Err(invalid("checksum"));
        }
        let ids: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if ids.len() as u64 != meta.rows {
            return Err(invalid("rows"));
        }
        read.push(ids);
    }
    Ok(Arc::new(read.swap_remove(0)))
}

impl SignalStore for IdStore {
    fn signal(&self) -> Signal {
        self.signal
    }

    fn hot_bytes(&self) -> usize {
        self.hot_rows() as usize * 100
    }

    fn hot_rows(&self) -> u64 {
        let live = self.live.lock();
        (live.hot.len() + live.frozen.as_ref().map_or(0, Vec::len)) as u64
    }

    fn freeze(&self) {
        let mut live = self.live.lock();
        assert!(live.frozen.is_none(), "frozen before what was frozen is sealed");
        live.frozen = Some(std::mem::take(&mut live.hot));
    }

    fn seal(&self, dir: &SegmentDir) -> io::Result<Vec<SegmentMeta>> {
        let mut frozen = self.live.lock().frozen.clone().unwrap_or_default();
        if self.forget_next.swap(false, Ordering::AcqRel) {
            frozen.pop();
        }
        self.write(dir, &frozen, 0)
    }

    fn open(&self, dir: &SegmentDir, metas: &[SegmentMeta]) -> Vec<(SegmentMeta, io::Error)> {
        let mut failed = Vec::new();
        for meta in metas {
            match read(dir, meta) {
                Ok(ids) => self.live.lock().segments.push((meta.clone(), ids)),
                Err(error) => failed.push((meta.clone(), error)),
            }
        }
        failed
    }

    fn publish(
        &self,
        dir: &SegmentDir,
        added: &[SegmentMeta],
        removed: &[SegmentMeta],
        sealed: bool,
    ) -> io::Result<()> {
        let mut opened = Vec::new();
        for meta in added {
            opened.push((meta.clone(), read(dir, meta)?));
        }
        let mut live = self.live.lock();
        live.segments.retain(|(meta, _)| !removed.iter().any(|gone| gone.id == meta.id));
        live.segments.extend(opened);
        if sealed {
            live.frozen = None;
        }
        Ok(())
    }

    fn without(
        &self,
        dir: &SegmentDir,
        meta: &SegmentMeta,
        service: &str,
    ) -> io::Result<Option<Vec<SegmentMeta>>> {
        // An id is its own service.
        let ids = read(dir, meta)?;
        let rest: Vec<u64> = ids.iter().copied().filter(|id| id.to_string() != service).collect();
        if rest.len() == ids.len() {
            return Ok(None);
        }
        self.write(dir, &rest, meta.level).map(Some)
    }

    fn compact(&self, dir: &SegmentDir, inputs: &[SegmentMeta]) -> io::Result<Vec<SegmentMeta>> {
        let mut all = Vec::new();
        for meta in inputs {
            // Read from the files, as real stores do.
            all.extend(read(dir, meta)?.iter());
        }
        let level = inputs.iter().map(|meta| meta.level).max().unwrap_or(0) + 1;
        self.write(dir, &all, level)
    }
}

/// A store for spans and one for logs.
pub struct IdStores {
    pub spans: IdStore,
    pub logs: IdStore,
    /// A batch with this id makes the insert panic.
    pub poison: Option<u64>,
}

impl IdStores {
    pub fn new() -> Self {
        Self { spans: IdStore::new(Signal::Spans), logs: IdStore::new(Signal::Logs), poison: None }
    }

    pub fn of(&self, signal: Signal) -> &IdStore {
        if signal == Signal::Logs { &self.logs } else { &self.spans }
    }
}

impl StoreSet for IdStores {
    fn insert(&self, batch: Batch) {
        let (store, ids) = match batch {
            Batch::Logs(batch) => {
                let id = |row| String::from_utf8_lossy(batch.body.get(row)).parse().unwrap_or(0);
                (&self.logs, (0..batch.len()).map(id).collect::<Vec<u64>>())
            }
            Batch::Spans(batch) => {
                let id = |row: &SpanFields| {
                    u64::from_le_bytes(row.trace_id[..8].try_into().unwrap_or_default())
                };
                (&self.spans, batch.rows.iter().map(id).collect())
            }
            Batch::Metrics(_) => return,
        };
        assert!(self.poison.is_none_or(|id| !ids.contains(&id)), "asked to panic");
        store.live.lock().hot.extend(ids);
    }

    fn signals(&self) -> Vec<&dyn SignalStore> {
        vec![&self.spans, &self.logs]
    }
}
