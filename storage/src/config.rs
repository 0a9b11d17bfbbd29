//! Settings of a store, already parsed; defaults carry the sum that produced them.

use crate::disk::{self, Disk, Space};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The log between two seals, and a merged segment, are at most this share of the data directory's size limit: the
/// steps in which the directory grows and shrinks. 128 of them keep it within 5 % of the limit.
pub(crate) const LIMIT_SHARE: u64 = 128;

#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Age at which data is dropped; `None` keeps it for ever.
    pub retention: Option<Duration>,
    /// Bytes of the whole data directory above which the oldest segments are dropped; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// Budget for hot rows, requests in flight and caches, bytes.
    pub memory_limit: u64,
    /// How long a request's content hash is remembered, so that a retry is not a duplicate.
    pub dedup_window: Duration,
    /// Hot rows older than this are sealed, so that a restart replays at most this much.
    pub seal_age: Duration,
    /// Bytes of write-ahead log after which hot rows are sealed; bounds the time of replay.
    pub seal_wal_bytes: u64,
    /// Free bytes on the disk below which ingest is refused until space returns; see [`Config::reserve`].
    pub disk_reserve: u64,
    /// Where changes of files go.
    pub disk: Arc<dyn Disk>,
    /// Called by a thread that has finished a seal or a merge, for which it took much memory, so that the allocator can
    /// give it back.
    pub give_back: fn(),
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
            // zstd shrinks OTLP about sixfold; 48 MiB hold about 800,000 spans, replayed in a second.
            seal_wal_bytes: 48 << 20,
            // One seal of the largest hot tier must still fit.
            disk_reserve: 256 << 20,
            disk: disk::local(),
            give_back: || {},
        }
    }

    /// The reserve on a disk of this size: never more than a tenth of it, so that small disks can be used at all.
    pub fn reserve(&self, space: Space) -> u64 {
        self.disk_reserve.min(space.total / 10)
    }

    /// Requests remembered at most: an entry takes about 130 bytes, all together a sixteenth of the budget.
    pub fn dedup_entries_max(&self) -> usize {
        ((self.memory_limit / 16 / 130) as usize).clamp(10_000, 2_000_000)
    }

    /// Bytes of log at which a seal starts. Under a limit of the directory the log is a small share of it, so that
    /// cutting it off does not leave much of the limit unused.
    pub fn seal_wal_bytes(&self) -> u64 {
        self.retention_bytes
            .map_or(self.seal_wal_bytes, |limit| self.seal_wal_bytes.min(limit / LIMIT_SHARE))
    }

    /// Hot bytes at which a seal starts: a sixteenth of the budget, since as much again comes in while it goes on, and
    /// sealing and merging hold columns beside it. Smaller seals would cost merges, and metrics a table of all series
    /// for each.
    pub fn seal_hot_bytes(&self) -> usize {
        (self.memory_limit / 16) as usize
    }

    /// Hot bytes at which ingest is refused until the sealer catches up.
    pub fn refuse_hot_bytes(&self) -> usize {
        (self.memory_limit / 2) as usize
    }
}
