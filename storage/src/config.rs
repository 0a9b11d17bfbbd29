//! Settings of a store, already parsed; defaults carry the sum that produced them.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Age at which data is dropped; `None` keeps it for ever.
    pub retention: Option<Duration>,
    /// Total bytes of segments above which the oldest are dropped; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// Budget for hot rows, requests in flight and caches, bytes.
    pub memory_limit: u64,
    /// How long a request's content hash is remembered, so that a retry is not a duplicate.
    pub dedup_window: Duration,
    /// Hot rows older than this are sealed, so that a restart replays at most this much.
    pub seal_age: Duration,
    /// Bytes of write-ahead log after which hot rows are sealed; bounds the time of replay.
    pub seal_wal_bytes: u64,
    /// Free bytes on the disk below which ingest is refused until space returns.
    pub disk_reserve: u64,
}

impl Config {
    /// Defaults for `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            retention: Some(Duration::from_secs(7 * 86_400)),
            retention_bytes: None,
            memory_limit: 1 << 30,
            dedup_window: Duration::from_secs(15 * 60),
            seal_age: Duration::from_secs(300),
            // zstd-1 shrinks OTLP about sixfold; 48 MiB hold about 800,000 spans, replayed in a second.
            seal_wal_bytes: 48 << 20,
            // One seal of the largest hot tier must still fit.
            disk_reserve: 256 << 20,
        }
    }

    /// Hot bytes at which a seal starts: an eighth of the budget, since sealing needs a copy of it in columns.
    pub fn seal_hot_bytes(&self) -> usize {
        (self.memory_limit / 8) as usize
    }

    /// Hot bytes at which ingest is refused until the sealer catches up.
    pub fn refuse_hot_bytes(&self) -> usize {
        (self.memory_limit / 2) as usize
    }
}
