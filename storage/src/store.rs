//! The store: append, stats, close.
//!
//! The life of a request: hash and look it up → decode → frame → write-ahead log, one sync for the group → hot rows
//! → answer. One thread writes the log, one applies what is durable, so hot rows stand in log order and a cut between
//! two frames is exact. Start-up is in `open.rs`, what happens behind ingest in `seal.rs`, `compact.rs` and
//! `retention.rs`, each ending in `commit.rs`.

use crate::budget::{self, Budget, Reservation};
use crate::config::Config;
use crate::dedup::{Admission, Remembered, Ticket, Window};
use crate::ledger::Ledger;
use crate::manifest::Manifest;
use crate::mend::MendStats;
use crate::segment::{SegmentDir, SegmentMeta};
use crate::signal::{Batch, Decoder, FrameKind, Signal, SignalStore, StoreSet};
use crate::wal::frame;
use crate::wal::writer::{Applying, Order, Queued, WriterStats};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_128_with_seed;

pub use crate::manifest::Quarantined;

/// The answer to a stored request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    pub accepted: u64,
    pub rejected: u64,
    /// Why records were rejected, for `partial_success`.
    pub reason: Option<String>,
    /// The same request had been stored before.
    pub duplicate: bool,
}

/// Why an append was refused. Queries never see the batch; only `Disk` may bring it back at the next start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    #[error("{0}")]
    Malformed(String),
    #[error(
        "memory budget full: {hot_bytes} bytes of recent data wait to be written; send again soon"
    )]
    Busy { hot_bytes: u64 },
    #[error("disk full: {free_bytes} bytes are free, {reserve_bytes} are kept in reserve")]
    Full { free_bytes: u64, reserve_bytes: u64 },
    #[error("the write-ahead log can't be written: {0}")]
    Disk(Arc<io::Error>),
    #[error("known from before the start, but not made durable yet: {0}")]
    Unsealed(Arc<io::Error>),
    #[error("the store is shutting down")]
    Closed,
}

impl AppendError {
    /// Whether the same request may succeed when sent again.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Malformed(_))
    }
}

/// Writing a manifest and opening new segments takes less.
const CHANGE_TIME_MAX: Duration = Duration::from_millis(500);

/// A decoded request between the log and the hot rows.
pub(crate) struct Pending {
    batch: Batch,
    signal: Signal,
    ack: Ack,
    arrival_ns: u64,
    ticket: Ticket,
    /// Given back when the rows are hot.
    _room: Reservation,
    done: oneshot::Sender<Result<Ack, AppendError>>,
}

/// A cut: everything up to `position` is frozen.
#[derive(Debug)]
pub(crate) struct Cut {
    pub position: u64,
    /// What it held then.
    pub ledger: Ledger,
    /// What was frozen, in the order of the stores.
    pub rows: Vec<(Signal, u64)>,
}

/// Asks the applier for a cut.
pub(crate) struct CutOrder {
    /// Up to there everything is sealed: without a frame after it there is nothing to freeze, and no cut.
    pub sealed: Option<u64>,
    pub reply: SyncSender<Option<Cut>>,
}

pub(crate) type ToApplier = Applying<Pending, CutOrder>;

/// Shared by the handle, the applier and the background threads.
///
/// Locks are taken in the order in which they stand here.
pub(crate) struct Inner {
    pub config: Config,
    pub stores: Arc<dyn StoreSet>,
    pub dir: SegmentDir,
    pub window: Arc<Window>,
    pub budget: Arc<Budget>,
    pub wal_stats: Arc<WriterStats>,
    pub applier: Mutex<Option<SyncSender<ToApplier>>>,
    /// Held while sealing; what is frozen but not yet committed.
    pub sealing: Mutex<Option<Cut>>,
    /// Held while segments are merged or dropped.
    pub maintaining: Mutex<()>,
    /// Held from before a commit until its segments are published: while it is, stores and manifest may differ.
    pub changing: Mutex<()>,
    pub manifest: Mutex<Manifest>,
    pub ledger: Mutex<Ledger>,
    /// Segments that the manifest no longer lists since that time and generation, and whose files still stand.
    pub garbage: Mutex<Vec<(Instant, u64, SegmentMeta)>>,
    /// The highest generation tried.
    pub generation: AtomicU64,
    pub sealer: Bell,
    pub compactor: Bell,
    pub mender: Bell,
    pub mend_stats: MendStats,
    /// Also gives up a merge that is under way.
    pub stopping: Arc<AtomicBool>,
    /// Senders who wait for the next seal, and are told how it ended.
    pub seal_waiters: Mutex<Vec<oneshot::Sender<Result<(), AppendError>>>>,
    pub last_seal: Mutex<Instant>,
    /// Start of each partition that got rows by a seal within [`crate::compact::CALM`], and when it last did.
    pub stirred: Mutex<BTreeMap<u64, Instant>>,
    pub free_bytes: AtomicU64,
    pub reserve_bytes: AtomicU64,
    pub duplicate_requests: AtomicU64,
    pub seals: AtomicU64,
    pub compactions: AtomicU64,
    pub damaged_wal_bytes: AtomicU64,
    pub panics: AtomicU64,
    /// Something was set aside or made anew before the store was open, and is not yet committed.
    pub mended_at_open: AtomicBool,
}

/// Wakes one background thread.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    condvar: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock() = true;
        self.condvar.notify_one();
    }

    /// Returns when rung, also before the call, or after `timeout`.
    pub fn wait(&self, timeout: std::time::Duration) {
        let mut rung = self.rung.lock();
        if !*rung {
            self.condvar.wait_for(&mut rung, timeout);
        }
        *rung = false;
    }
}

/// One data directory, open.
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    pub(crate) decoder: Arc<dyn Decoder>,
    pub(crate) queue: Mutex<Option<Sender<Order<Pending>>>>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) _lock: File,
}

/// What the store is doing, for `/api/status` and `/metrics`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StoreStats {
    pub ledger: Ledger,
    /// Records that queries see, counted in hot rows and segments: what the ledger's `live` must say.
    pub live: Vec<(Signal, u64)>,
    pub hot_bytes: u64,
    pub in_flight_bytes: u64,
    pub wal_bytes: u64,
    pub wal_groups: u64,
    pub wal_frames: u64,
    pub wal_written_bytes: u64,
    pub wal_failures: u64,
    pub wal_failing: bool,
    pub wal_damaged_bytes: u64,
    pub dedup_entries: u64,
    pub dedup_hits: u64,
    /// Requests forgotten before their time because there were too many.
    pub dedup_crowded_out: u64,
    pub manifest_generation: u64,
    /// Data are being sealed or merged, or will be though nothing comes in. Hot rows below every limit may wait.
    pub working: bool,
    pub seals: u64,
    pub compactions: u64,
    /// Segments, rows and bytes by signal.
    pub segments: Vec<(Signal, u64, u64, u64)>,
    pub free_bytes: u64,
    /// Free bytes below which ingest is refused.
    pub reserve_bytes: u64,
    /// Requests that a store could not take in because of a fault of its own.
    pub panics: u64,
    pub quarantined: Vec<Quarantined>,
    /// Passes in which all files were compared with the manifest; the first follows the start at once.
    pub mend_passes: u64,
    /// Segments made anew from their Parquet files.
    pub rebuilt: u64,
}

impl Store {
    /// Stores one request. When this returns `Ok`, its accepted records are durable and every query sees them.
    ///
    /// Decoding and compression run on the caller's thread (about a millisecond per 1,000 records). If the caller
    /// goes away while waiting, the request is stored all the same and its retry is a duplicate.
    ///
    /// * `body`: the request's protobuf bytes, decompressed.
    /// * `arrival_ns`: Unix ns.
    pub async fn append(
        &self,
        kind: FrameKind,
        body: Bytes,
        arrival_ns: u64,
    ) -> Result<Ack, AppendError> {
        let hash = xxh3_128_with_seed(&body, kind as u64);
        let ticket = loop {
            match self.inner.window.admit(hash, arrival_ns) {
                Admission::Fresh(ticket) => break ticket,
                Admission::Duplicate(ack) => {
                    self.inner.count_duplicate(kind.signal(), &ack);
                    return Ok(Ack { duplicate: true, ..ack });
                }
                // A closed channel means that the twin has ended, either way: ask again.
                Admission::Wait(mut twin) => drop(twin.changed().await),
                Admission::Unsure => self.wait_for_seal().await?,
            }
        };
        let room = self.admit_bytes(body.len() as u64)?;
        let decoded =
            self.decoder.decode(kind, &body, arrival_ns).map_err(AppendError::Malformed)?;
        let ack = Ack {
            accepted: decoded.accepted,
            rejected: decoded.rejected,
            reason: decoded.reason,
            duplicate: false,
        };
        if decoded.batch.is_empty() {
            self.note_rejected(kind.signal(), ack.rejected);
            return Ok(ack);
        }
        let frame = frame::encode(kind, arrival_ns, hash, &body)
            .map_err(|error| AppendError::Disk(Arc::new(error)))?;
        drop(body);
        let (done, outcome) = oneshot::channel();
        let signal = kind.signal();
        let item =
            Pending { batch: decoded.batch, signal, ack, arrival_ns, ticket, _room: room, done };
        let sent = match self.queue.lock().as_ref() {
            Some(queue) => queue.send(Order::Write(Queued { frame, item })).is_ok(),
            None => false,
        };
        if !sent {
            return Err(AppendError::Closed);
        }
        outcome.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Has everything sealed that is hot now.
    async fn wait_for_seal(&self) -> Result<(), AppendError> {
        let (done, outcome) = oneshot::channel();
        self.inner.seal_waiters.lock().push(done);
        // The sealer may have ended before it could see this.
        if self.inner.stopping.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        self.inner.sealer.ring();
        outcome.await.unwrap_or(Err(AppendError::Closed))
    }

    /// How long a request should wait before it is appended, so that memory stays near what is sealed at once. A store
    /// far behind refuses requests; one that lags a little takes them slower.
    pub fn pause(&self) -> Duration {
        let hot_bytes = self.inner.stores.hot_bytes() as u64;
        budget::pause(hot_bytes, self.inner.config.seal_hot_bytes() as u64)
    }

    /// Refuses what would not fit: hot rows wait for the sealer, or the disk is nearly full.
    fn admit_bytes(&self, body_bytes: u64) -> Result<Reservation, AppendError> {
        let inner = &self.inner;
        if inner.stopping.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        let free_bytes = inner.free_bytes.load(Ordering::Relaxed);
        let reserve_bytes = inner.reserve_bytes.load(Ordering::Relaxed);
        if free_bytes < reserve_bytes {
            return Err(AppendError::Full { free_bytes, reserve_bytes });
        }
        let hot_bytes = inner.stores.hot_bytes() as u64;
        inner.budget.reserve(body_bytes, hot_bytes).ok_or_else(|| {
            inner.sealer.ring();
            AppendError::Busy { hot_bytes: hot_bytes + inner.budget.in_flight() }
        })
    }

    /// Enters records into the ledger that the sender was told are rejected, and that never came to an append.
    pub fn note_rejected(&self, signal: Signal, records: u64) {
        if let Some(account) = self.inner.ledger.lock().account_mut(signal) {
            account.rejected += records;
        }
    }

    /// Seals everything that is acknowledged now. Blocks.
    pub fn seal_now(&self) -> io::Result<()> {
        self.inner.seal()
    }

    /// Runs retention and compaction until nothing is left to do. Blocks.
    pub fn compact_now(&self) -> io::Result<()> {
        self.inner.expire()?;
        while self.inner.compact_one(|_| true)? {}
        Ok(())
    }

    /// Stops taking in, seals, and ends the threads. Blocks; a second call does nothing.
    pub fn close(&self) -> io::Result<()> {
        if self.inner.stopping.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // The sealer needs the applier for its cut: end the writer only after the last seal.
        let sealed = self.inner.seal();
        self.end_threads();
        sealed
    }

    fn end_threads(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        self.inner.sealer.ring();
        self.inner.compactor.ring();
        self.inner.mender.ring();
        drop(self.queue.lock().take());
        drop(self.inner.applier.lock().take());
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a storage thread had panicked");
            }
        }
        self.inner.seal_waiters.lock().clear();
    }

    /// What was found damaged and set aside, so that answers can say what they may lack.
    pub fn set_aside(&self) -> Vec<Quarantined> {
        self.inner.manifest.lock().quarantined.clone()
    }

    pub fn stats(&self) -> StoreStats {
        let inner = &self.inner;
        let working = inner.is_sealing() || inner.merge_is_due();
        // While it is held, stores and manifest agree. On a disk that hangs the numbers may be off for that long.
        let unchanging = inner.changing.try_lock_for(CHANGE_TIME_MAX);
        let manifest = inner.manifest.lock();
        // Rows become hot and are counted under this lock.
        let ledger = inner.ledger.lock();
        let live = inner.count_live(&manifest);
        let ledger = *ledger;
        let segments = Signal::ALL
            .into_iter()
            .map(|signal| {
                let of = manifest.segments.iter().filter(|meta| meta.signal == signal);
                let (mut count, mut rows, mut bytes) = (0, 0, 0);
                for meta in of {
                    count += 1;
                    rows += meta.rows;
                    bytes += meta.bytes();
                }
                (signal, count, rows, bytes)
            })
            .collect();
        let (manifest_generation, wal_position) = (manifest.generation, manifest.wal_position);
        let quarantined = manifest.quarantined.clone();
        drop(manifest);
        drop(unchanging);
        let wal = &inner.wal_stats;
        StoreStats {
            ledger,
            live,
            hot_bytes: inner.stores.hot_bytes() as u64,
            in_flight_bytes: inner.budget.in_flight(),
            wal_bytes: wal.end.load(Ordering::Acquire).saturating_sub(wal_position),
            wal_groups: wal.groups.load(Ordering::Relaxed),
            wal_frames: wal.frames.load(Ordering::Relaxed),
            wal_written_bytes: wal.bytes.load(Ordering::Relaxed),
            wal_failures: wal.failures.load(Ordering::Relaxed),
            wal_failing: wal.failing.load(Ordering::Relaxed),
            wal_damaged_bytes: inner.damaged_wal_bytes.load(Ordering::Relaxed),
            dedup_entries: inner.window.len() as u64,
            dedup_hits: inner.duplicate_requests.load(Ordering::Relaxed),
            dedup_crowded_out: inner.window.crowded_out(),
            manifest_generation,
            working,
            seals: inner.seals.load(Ordering::Relaxed),
            compactions: inner.compactions.load(Ordering::Relaxed),
            segments,
            free_bytes: inner.free_bytes.load(Ordering::Relaxed),
            reserve_bytes: inner.reserve_bytes.load(Ordering::Relaxed),
            panics: inner.panics.load(Ordering::Relaxed),
            quarantined,
            mend_passes: inner.mend_stats.passes.load(Ordering::Relaxed),
            rebuilt: inner.mend_stats.rebuilt.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Store {
    /// Ends the threads without sealing, as a crash would; [`Store::close`] is the orderly way.
    fn drop(&mut self) {
        self.end_threads();
    }
}

/// Applies what is durable, in log order, until all senders have gone.
///
/// * `start`: log position up to which everything is applied.
pub(crate) fn apply(inner: &Inner, applying: Receiver<ToApplier>, start: u64) {
    let mut position = start;
    while let Ok(message) = applying.recv() {
        match message {
            Applying::Durable { item, end } => {
                position = end;
                apply_one(inner, item, end);
            }
            Applying::Failed { item, error } => {
                // Before the answer, so that the sender's next try finds the way free.
                drop(item.ticket);
                let _ = item.done.send(Err(AppendError::Disk(error)));
            }
            Applying::Cut(CutOrder { sealed, reply }) => {
                let cut = (sealed != Some(position)).then(|| cut(inner, position));
                let _ = reply.send(cut);
            }
        }
        if inner.stores.hot_bytes() > inner.config.seal_hot_bytes() {
            inner.sealer.ring();
        }
    }
}

fn cut(inner: &Inner, position: u64) -> Cut {
    let freeze = |store: &dyn SignalStore| {
        store.freeze();
        (store.signal(), store.hot_rows())
    };
    let rows = inner.stores.signals().into_iter().map(freeze).collect();
    Cut { position, ledger: *inner.ledger.lock(), rows }
}

fn apply_one(inner: &Inner, item: Pending, end: u64) {
    let Pending { batch, signal, ack, arrival_ns, ticket, _room, done } = item;
    let ack = inner.insert_and_count(batch, signal, ack);
    ticket.settle(Remembered::new(arrival_ns, end, &ack));
    // The sender may have gone; its retry will be a duplicate.
    let _ = done.send(Ok(ack));
}

/// The answer to a request that a store can't hold, and never will.
fn all_rejected(ack: &Ack) -> Ack {
    Ack {
        accepted: 0,
        rejected: ack.accepted + ack.rejected,
        reason: Some("internal error: the records could not be stored".to_owned()),
        duplicate: false,
    }
}

impl Inner {
    /// Makes a batch visible. A panic in a store costs this batch only; `false` then.
    fn insert(&self, batch: Batch) -> bool {
        let inserted = catch_unwind(AssertUnwindSafe(|| self.stores.insert(batch))).is_ok();
        if !inserted {
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a store panicked on a batch; its records are rejected");
        }
        inserted
    }

    /// Makes a batch visible and enters it into the ledger, in one step for those who compare the two. Returns the
    /// answer for its sender.
    pub(crate) fn insert_and_count(&self, batch: Batch, signal: Signal, ack: Ack) -> Ack {
        let mut ledger = self.ledger.lock();
        let ack = if self.insert(batch) { ack } else { all_rejected(&ack) };
        if let Some(account) = ledger.account_mut(signal) {
            account.stored += ack.accepted;
            account.rejected += ack.rejected;
        }
        ack
    }

    /// Rows that are hot or in segments. For those who hold `changing` and `ledger`.
    fn count_live(&self, manifest: &Manifest) -> Vec<(Signal, u64)> {
        let of_store = |store: &dyn SignalStore| {
            let sealed = manifest.segments.iter().filter(|meta| meta.signal == store.signal());
            (store.signal(), store.hot_rows() + sealed.map(|meta| meta.rows).sum::<u64>())
        };
        self.stores.signals().into_iter().map(of_store).collect()
    }

    fn count_duplicate(&self, signal: Signal, ack: &Ack) {
        self.duplicate_requests.fetch_add(1, Ordering::Relaxed);
        if let Some(account) = self.ledger.lock().account_mut(signal) {
            account.duplicate += ack.accepted + ack.rejected;
        }
    }
}
