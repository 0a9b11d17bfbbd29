//! What the store asks of each signal: the seam between the write-ahead log and the four stores behind it.
//!
//! A signal store keeps *hot* rows in memory, *seals* them into segment files, opens segments and merges them.
//! The store (`store.rs`) decides when; the manifest decides which segments live.

use crate::segment::{SegmentDir, SegmentMeta};
use serde::{Deserialize, Serialize};
use std::io;

/// The kinds of segments on disk. `Red` holds the HDR histograms fed from every span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    Spans,
    Logs,
    Metrics,
    Red,
}

impl Signal {
    pub const ALL: [Signal; 4] = [Signal::Spans, Signal::Logs, Signal::Metrics, Signal::Red];

    /// Folder and label name.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Spans => "spans",
            Signal::Logs => "logs",
            Signal::Metrics => "metrics",
            Signal::Red => "red",
        }
    }
}

/// What a write-ahead-log frame holds; tells replay which decoder to use. Numbers are part of the file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// `ExportTraceServiceRequest` protobuf bytes.
    OtlpTraces = 1,
    /// `ExportLogsServiceRequest` protobuf bytes.
    OtlpLogs = 2,
    /// `ExportMetricsServiceRequest` protobuf bytes.
    OtlpMetrics = 3,
    /// Prometheus remote write 1.0 `WriteRequest`, snappy removed.
    RemoteWrite1 = 4,
    /// Prometheus remote write 2.0 `Request`, snappy removed.
    RemoteWrite2 = 5,
}

impl FrameKind {
    pub fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::OtlpTraces,
            2 => Self::OtlpLogs,
            3 => Self::OtlpMetrics,
            4 => Self::RemoteWrite1,
            5 => Self::RemoteWrite2,
            _ => return None,
        })
    }

    /// The signal whose ledger counts this frame's records.
    pub fn signal(self) -> Signal {
        match self {
            Self::OtlpTraces => Signal::Spans,
            Self::OtlpLogs => Signal::Logs,
            Self::OtlpMetrics | Self::RemoteWrite1 | Self::RemoteWrite2 => Signal::Metrics,
        }
    }
}

/// A decoded request: columnar, not yet durable.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once per request, never stored in bulk")]
pub enum Batch {
    Spans(crate::spans::SpanBatch),
    Logs(crate::logs::LogBatch),
    Metrics(crate::metrics::MetricBatch),
}

impl Batch {
    /// Whether there is nothing to keep: no record, and nothing that comes along with records.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Spans(batch) => batch.is_empty(),
            Self::Logs(batch) => batch.is_empty(),
            Self::Metrics(batch) => batch.is_empty() && batch.families.is_empty(),
        }
    }
}

/// What a decoder made of one request. `accepted + rejected` is always the number of records sent.
#[derive(Debug)]
pub struct Decoded {
    pub batch: Batch,
    pub accepted: u64,
    pub rejected: u64,
    /// Why records were rejected, for the sender: the first reasons with their counts.
    pub reason: Option<String>,
}

/// Turns a frame's bytes into a batch. Given to the store when it is opened, so that it need not know OTLP; replay
/// and ingest use the same one, and equal arguments give equal batches.
pub trait Decoder: Send + Sync + 'static {
    /// * `body`: the request's bytes, decompressed.
    /// * `arrival_ns`: Unix ns when the request came in; stands in for missing times and bounds future ones.
    ///
    /// # Errors
    /// A message for the sender when the body as a whole can't be read; nothing of it is kept.
    fn decode(&self, kind: FrameKind, body: &[u8], arrival_ns: u64) -> Result<Decoded, String>;
}

/// One signal's hot rows and live segments. All methods take `&self`: queries run beside them on a snapshot.
/// Inserting a batch is each store's own method; [`StoreSet::insert`] hands batches out.
pub trait SignalStore: Send + Sync + 'static {
    fn signal(&self) -> Signal;

    /// Heap bytes of hot rows, frozen ones included.
    fn hot_bytes(&self) -> usize;

    /// Sets all present hot rows apart for the next [`seal`](Self::seal); they stay visible. Called from the thread
    /// that inserts, so the cut falls exactly between two frames, and only while nothing is frozen.
    fn freeze(&self);

    /// Writes the frozen rows as segment files into `dir`, each file synced; split by time partition. They become
    /// visible as segments only with [`publish`](Self::publish). An empty result means nothing was frozen.
    /// After an error it may be called again: file names are new each time.
    fn seal(&self, dir: &SegmentDir) -> io::Result<Vec<SegmentMeta>>;

    /// Opens segments that the manifest lists (at start). A segment that can't be opened is returned with the reason
    /// and is left out; the store quarantines it.
    fn open(&self, dir: &SegmentDir, metas: &[SegmentMeta]) -> Vec<(SegmentMeta, io::Error)>;

    /// The manifest now lists `added` and no longer `removed`: in one step queries see the new set, and if
    /// `sealed` the frozen rows are dropped. The caller deletes files of removed segments one manifest generation
    /// later and not before any query that began on an older snapshot must have ended.
    fn publish(
        &self,
        dir: &SegmentDir,
        added: &[SegmentMeta],
        removed: &[SegmentMeta],
        sealed: bool,
    ) -> io::Result<()>;

    /// Writes a segment anew from its Parquet files alone, indexes and all; it need not be open. The same rows come out.
    ///
    /// # Errors
    /// `Unsupported` where there is nothing beside the Parquet files that could be made from them.
    fn rebuild(&self, dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Vec<SegmentMeta>> {
        let _ = (dir, meta);
        Err(io::Error::new(io::ErrorKind::Unsupported, "it has no indexes of its own"))
    }

    /// Writes an open segment anew without the rows of a service; nothing is left of it in the files. `None` when the
    /// segment does not name the service at all, and no file where no row is left.
    fn without(
        &self,
        dir: &SegmentDir,
        meta: &SegmentMeta,
        service: &str,
    ) -> io::Result<Option<Vec<SegmentMeta>>>;

    /// Forgets what is remembered of a service beside rows: its names in pickers. Later rows bring them back.
    fn forget(&self, service: &str) {
        let _ = service;
    }

    /// Rows that are hot or frozen.
    fn hot_rows(&self) -> u64;

    /// Merges segments of one partition into one (or few); inputs stay as they are.
    fn compact(&self, dir: &SegmentDir, inputs: &[SegmentMeta]) -> io::Result<Vec<SegmentMeta>>;

    /// Segments of one partition that [`compact`](Self::compact) would make smaller at this time although there may
    /// be only one of them: what is kept of old data may be coarser.
    ///
    /// * `now_ns`: Unix ns.
    fn outgrown(&self, _now_ns: u64) -> Option<Vec<SegmentMeta>> {
        None
    }

    /// Reads a segment whose files match their checksums from end to end, and tells where they disagree with each
    /// other or with the manifest; one line each.
    fn examine(&self, _dir: &SegmentDir, _meta: &SegmentMeta) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// The stores behind one write-ahead log.
pub trait StoreSet: Send + Sync + 'static {
    /// Makes a durable batch visible to queries. Called in WAL order from one thread.
    fn insert(&self, batch: Batch);

    /// Every store once; sealed and published in this order.
    fn signals(&self) -> Vec<&dyn SignalStore>;

    /// Heap bytes of all hot rows.
    fn hot_bytes(&self) -> usize {
        self.signals().iter().map(|store| store.hot_bytes()).sum()
    }
}
