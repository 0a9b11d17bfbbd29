//! The store: append, open, close. What happens in the background is in `maintain.rs`.
//!
//! The life of a request: hash and look it up → decode → frame → write-ahead log, one sync for the group → hot rows
//! → answer. One thread writes the log, one applies what is durable, so hot rows stand in log order and a cut between
//! two frames is exact.

use crate::config::Config;
use crate::dedup::{Admission, Ticket, Window};
use crate::ledger::Ledger;
use crate::manifest::{self, Manifest};
use crate::segment::{SegmentDir, SegmentMeta};
use crate::signal::{Batch, Decoder, FrameKind, Signal, StoreSet};
use crate::wal::writer::{Applying, Queued, Writer, WriterStats};
use crate::wal::{frame, replay};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_128_with_seed;

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
    #[error("the store is shutting down")]
    Closed,
}

impl AppendError {
    /// Whether the same request may succeed when sent again.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Malformed(_))
    }
}

/// A decoded request between the log and the hot rows.
pub(crate) struct Pending {
    batch: Batch,
    signal: Signal,
    ack: Ack,
    arrival_ns: u64,
    ticket: Ticket,
    bytes: u64,
    done: oneshot::Sender<Result<Ack, AppendError>>,
}

/// A cut: everything up to `position` is frozen, and this is what the ledger held then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub position: u64,
    pub ledger: Ledger,
}

pub(crate) type ToApplier = Applying<Pending, SyncSender<Cut>>;

/// A file that was set aside.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Quarantined {
    pub file: String,
    pub reason: String,
    /// Times that the file covered, Unix ns, and its records.
    pub min_ns: u64,
    pub max_ns: u64,
    pub rows: u64,
}

/// Shared by the handle, the applier and the background threads.
pub(crate) struct Inner {
    pub config: Config,
    pub stores: Arc<dyn StoreSet>,
    pub dir: SegmentDir,
    pub manifest: Mutex<Manifest>,
    pub ledger: Mutex<Ledger>,
    pub window: Arc<Window>,
    pub wal_stats: Arc<WriterStats>,
    pub quarantined: Mutex<Vec<Quarantined>>,
    /// Files that the last generation no longer lists, and since when.
    pub garbage: Mutex<Vec<(Instant, u64, SegmentMeta)>>,
    pub applier: Mutex<Option<SyncSender<ToApplier>>>,
    /// Held while sealing; what is frozen but not yet committed.
    pub sealing: Mutex<Option<Cut>>,
    pub nudge: Mutex<bool>,
    pub nudged: Condvar,
    pub stopping: AtomicBool,
    pub last_seal: Mutex<Instant>,
    pub free_bytes: AtomicU64,
    pub duplicates_requests: AtomicU64,
    pub seals: AtomicU64,
    pub compactions: AtomicU64,
    pub damaged_wal_bytes: AtomicU64,
}

/// One data directory, open.
pub struct Store {
    inner: Arc<Inner>,
    decoder: Arc<dyn Decoder>,
    queue: Mutex<Option<Sender<Queued<Pending>>>>,
    in_flight: Arc<AtomicU64>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: File,
}

/// What the store is doing, for `/api/status` and `/metrics`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StoreStats {
    pub ledger: Ledger,
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
    pub manifest_generation: u64,
    pub seals: u64,
    pub compactions: u64,
    /// Segments, rows and bytes by signal.
    pub segments: Vec<(Signal, u64, u64, u64)>,
    pub free_bytes: u64,
    pub quarantined: Vec<Quarantined>,
}

impl Store {
    /// Opens or makes a data directory: locks it, reads the manifest, opens segments, replays the log, starts the
    /// background threads. Blocks; with 48 MiB of log about a second.
    ///
    /// # Errors
    /// One line that names the remedy: locked by another process, not writable, newer format, no readable manifest.
    pub fn open(
        config: Config,
        stores: Arc<dyn StoreSet>,
        decoder: Arc<dyn Decoder>,
    ) -> io::Result<Self> {
        let data_dir = config.data_dir.clone();
        let lock = lock(&data_dir)?;
        let manifest_dir = data_dir.join("manifest");
        let wal_dir = data_dir.join("wal");
        fs::create_dir_all(&manifest_dir)?;
        fs::create_dir_all(&wal_dir)?;
        File::open(&data_dir)?.sync_all()?;

        let loaded = manifest::load(&manifest_dir)?;
        let previous = loaded.previous;
        let mut manifest = loaded.current.unwrap_or_default();
        // Generations never repeat, also when the newest was damaged.
        let newest = manifest::generations(&manifest_dir)?.last().map_or(0, |(g, _)| *g);
        manifest.generation = manifest.generation.max(newest);

        let segments_dir = data_dir.join("segments");
        let on_disk = segment_files(&segments_dir)?;
        let next_id =
            on_disk.iter().map(|(id, _)| id + 1).max().unwrap_or(1).max(manifest.next_segment_id);
        let dir = SegmentDir::new(segments_dir, next_id)?;
        let kept: std::collections::HashSet<u64> = manifest
            .segments
            .iter()
            .chain(previous.iter().flat_map(|p| p.segments.iter()))
            .map(|meta| meta.id)
            .collect();
        for (id, path) in on_disk {
            if !kept.contains(&id) {
                fs::remove_file(path)?;
            }
        }

        let wal_stats = Arc::new(WriterStats::default());
        let inner = Arc::new(Inner {
            ledger: Mutex::new(manifest.ledger),
            window: Arc::new(Window::new(config.dedup_window)),
            manifest: Mutex::new(manifest),
            stores,
            dir,
            wal_stats: wal_stats.clone(),
            quarantined: Mutex::default(),
            garbage: Mutex::default(),
            applier: Mutex::new(None),
            sealing: Mutex::new(None),
            nudge: Mutex::new(false),
            nudged: Condvar::new(),
            stopping: AtomicBool::new(false),
            last_seal: Mutex::new(Instant::now()),
            free_bytes: AtomicU64::new(u64::MAX),
            duplicates_requests: AtomicU64::new(0),
            seals: AtomicU64::new(0),
            compactions: AtomicU64::new(0),
            damaged_wal_bytes: AtomicU64::new(0),
            config,
        });
        inner.open_segments(previous.as_ref());
        inner.load_window();
        let end = inner.replay(&wal_dir, decoder.as_ref())?;
        inner.measure_disk();

        let writer = Writer::open(&wal_dir, end, wal_stats)?;
        let (queue, queued) = mpsc::channel();
        let (to_applier, applying) = mpsc::sync_channel(1024);
        *inner.applier.lock() = Some(to_applier.clone());
        let in_flight = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        threads.push(spawn("wal-writer", move || writer.run(queued, to_applier))?);
        let (applier, flight) = (inner.clone(), in_flight.clone());
        threads.push(spawn("applier", move || apply(&applier, applying, end, &flight))?);
        let sealer = inner.clone();
        threads.push(spawn("sealer", move || sealer.run_sealer())?);
        let compactor = inner.clone();
        threads.push(spawn("compactor", move || compactor.run_compactor())?);
        Ok(Self {
            inner,
            decoder,
            queue: Mutex::new(Some(queue)),
            in_flight,
            threads: Mutex::new(threads),
            _lock: lock,
        })
    }

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
            }
        };
        self.admit_bytes()?;
        let decoded =
            self.decoder.decode(kind, &body, arrival_ns).map_err(AppendError::Malformed)?;
        let ack = Ack {
            accepted: decoded.accepted,
            rejected: decoded.rejected,
            reason: decoded.reason,
            duplicate: false,
        };
        if decoded.batch.is_empty() {
            if let Some(account) = self.inner.ledger.lock().account_mut(kind.signal()) {
                account.rejected += ack.rejected;
            }
            return Ok(ack);
        }
        let frame = frame::encode(kind, arrival_ns, hash, &body)
            .map_err(|error| AppendError::Disk(Arc::new(error)))?;
        let (done, outcome) = oneshot::channel();
        let bytes = body.len() as u64;
        let pending = Pending {
            batch: decoded.batch,
            signal: kind.signal(),
            ack,
            arrival_ns,
            ticket,
            bytes,
            done,
        };
        self.in_flight.fetch_add(bytes, Ordering::Relaxed);
        {
            let queue = self.queue.lock();
            let sent =
                queue.as_ref().is_some_and(|q| q.send(Queued { frame, item: pending }).is_ok());
            if !sent {
                self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
                return Err(AppendError::Closed);
            }
        }
        outcome.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Refuses what would not fit: hot rows wait for the sealer, or the disk is nearly full.
    fn admit_bytes(&self) -> Result<(), AppendError> {
        let inner = &self.inner;
        if inner.stopping.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        let hot = inner.stores.hot_bytes() as u64 + self.in_flight.load(Ordering::Relaxed);
        if hot > inner.config.refuse_hot_bytes() as u64 {
            inner.wake_sealer();
            return Err(AppendError::Busy { hot_bytes: hot });
        }
        let free_bytes = inner.free_bytes.load(Ordering::Relaxed);
        let reserve_bytes = inner.config.disk_reserve;
        if free_bytes < reserve_bytes {
            return Err(AppendError::Full { free_bytes, reserve_bytes });
        }
        Ok(())
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
        while self.inner.compact_one()? {}
        Ok(())
    }

    /// Stops taking in, seals, and ends the threads. Blocks; a second call does nothing.
    pub fn close(&self) -> io::Result<()> {
        if self.inner.stopping.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // The sealer needs the applier for its cut: end the writer only after the last seal.
        let sealed = self.inner.seal();
        self.inner.nudged.notify_all();
        drop(self.queue.lock().take());
        drop(self.inner.applier.lock().take());
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a storage thread had panicked");
            }
        }
        sealed
    }

    pub fn stats(&self) -> StoreStats {
        let inner = &self.inner;
        let manifest = inner.manifest.lock();
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
        let wal = &inner.wal_stats;
        StoreStats {
            ledger: *inner.ledger.lock(),
            hot_bytes: inner.stores.hot_bytes() as u64,
            in_flight_bytes: self.in_flight.load(Ordering::Relaxed),
            wal_bytes: wal.end.load(Ordering::Acquire).saturating_sub(manifest.wal_position),
            wal_groups: wal.groups.load(Ordering::Relaxed),
            wal_frames: wal.frames.load(Ordering::Relaxed),
            wal_written_bytes: wal.bytes.load(Ordering::Relaxed),
            wal_failures: wal.failures.load(Ordering::Relaxed),
            wal_failing: wal.failing.load(Ordering::Relaxed),
            wal_damaged_bytes: inner.damaged_wal_bytes.load(Ordering::Relaxed),
            dedup_entries: inner.window.len() as u64,
            dedup_hits: inner.duplicates_requests.load(Ordering::Relaxed),
            manifest_generation: manifest.generation,
            seals: inner.seals.load(Ordering::Relaxed),
            compactions: inner.compactions.load(Ordering::Relaxed),
            segments,
            free_bytes: inner.free_bytes.load(Ordering::Relaxed),
            quarantined: inner.quarantined.lock().clone(),
        }
    }
}

impl Drop for Store {
    /// Ends the threads without sealing, as a crash would; [`Store::close`] is the orderly way.
    fn drop(&mut self) {
        self.inner.stopping.store(true, Ordering::Release);
        self.inner.nudged.notify_all();
        drop(self.queue.lock().take());
        drop(self.inner.applier.lock().take());
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

/// Applies what is durable, in log order.
fn apply(inner: &Inner, applying: Receiver<ToApplier>, start: u64, in_flight: &AtomicU64) {
    let mut position = start;
    while let Ok(message) = applying.recv() {
        match message {
            Applying::Durable { item, end } => {
                position = end;
                let Pending { batch, signal, ack, arrival_ns, ticket, bytes, done } = item;
                inner.stores.insert(batch);
                if let Some(account) = inner.ledger.lock().account_mut(signal) {
                    account.stored += ack.accepted;
                    account.rejected += ack.rejected;
                }
                ticket.settle(arrival_ns, ack.clone());
                in_flight.fetch_sub(bytes, Ordering::Relaxed);
                // The sender may have gone; its retry will be a duplicate.
                let _ = done.send(Ok(ack));
            }
            Applying::Failed { item, error } => {
                in_flight.fetch_sub(item.bytes, Ordering::Relaxed);
                drop(item.ticket);
                let _ = item.done.send(Err(AppendError::Disk(error)));
            }
            Applying::Cut(reply) => {
                for store in inner.stores.signals() {
                    store.freeze();
                }
                let _ = reply.send(Cut { position, ledger: *inner.ledger.lock() });
            }
        }
        if inner.stores.hot_bytes() > inner.config.seal_hot_bytes() {
            inner.wake_sealer();
        }
    }
}

impl Inner {
    fn count_duplicate(&self, signal: Signal, ack: &Ack) {
        self.duplicates_requests.fetch_add(1, Ordering::Relaxed);
        if let Some(account) = self.ledger.lock().account_mut(signal) {
            account.duplicate += ack.accepted + ack.rejected;
        }
    }

    /// Opens what the manifest lists; what can't be opened is set aside and the rest served.
    fn open_segments(&self, previous: Option<&Manifest>) {
        let mut manifest = self.manifest.lock();
        for store in self.stores.signals() {
            let metas: Vec<SegmentMeta> = manifest
                .segments
                .iter()
                .filter(|meta| meta.signal == store.signal())
                .cloned()
                .collect();
            for (meta, error) in store.open(&self.dir, &metas) {
                self.set_aside(&meta, &error.to_string());
                manifest.segments.retain(|m| m.id != meta.id);
                for ledger in [&mut manifest.ledger, &mut *self.ledger.lock()] {
                    if let Some(account) = ledger.account_mut(meta.signal) {
                        account.quarantined += meta.rows;
                    }
                }
            }
        }
        // Files that only the previous generation names wait for the next commit.
        let now = Instant::now();
        let generation = manifest.generation;
        let live: std::collections::HashSet<u64> = manifest.segments.iter().map(|m| m.id).collect();
        let mut garbage = self.garbage.lock();
        for meta in previous.iter().flat_map(|p| p.segments.iter()) {
            if !live.contains(&meta.id) {
                garbage.push((now, generation, meta.clone()));
            }
        }
    }

    /// Moves a segment's files to the quarantine folder and says so.
    pub(crate) fn set_aside(&self, meta: &SegmentMeta, reason: &str) {
        let folder = self.config.data_dir.join("quarantine");
        let path = self.dir.file_path(meta, "*");
        tracing::error!(file = %path.display(), reason, "damaged segment set aside; the rest is served");
        let moved = fs::create_dir_all(&folder).and_then(|()| {
            for file in &meta.files {
                let from = self.dir.file_path(meta, &file.extension);
                let name = format!("{}-{:016}.{}", meta.signal.name(), meta.id, file.extension);
                if from.exists() {
                    fs::rename(from, folder.join(name))?;
                }
            }
            Ok(())
        });
        if let Err(error) = moved {
            tracing::error!(%error, "files could not be moved to quarantine");
        }
        self.quarantined.lock().push(Quarantined {
            file: format!("{}-{:016}", meta.signal.name(), meta.id),
            reason: reason.to_owned(),
            min_ns: meta.min_ns,
            max_ns: meta.max_ns,
            rows: meta.rows,
        });
    }

    pub(crate) fn window_path(&self, generation: u64) -> PathBuf {
        self.config.data_dir.join("manifest").join(format!("{generation:016}.dedup"))
    }

    /// Takes in the newest saved window; without one, retries from before the last seal are not known.
    fn load_window(&self) {
        let generation = self.manifest.lock().generation;
        for g in (0..=generation).rev().take(64) {
            if let Ok(saved) = fs::read_to_string(self.window_path(g)) {
                return self.window.load(&saved);
            }
        }
    }

    fn replay(&self, wal_dir: &Path, decoder: &dyn Decoder) -> io::Result<u64> {
        let from = self.manifest.lock().wal_position;
        let quarantine = self.config.data_dir.join("quarantine");
        let started = Instant::now();
        let mut records = 0;
        let report = replay::replay(wal_dir, from, &quarantine, |frame, _end| {
            // The same content may stand twice: a group that failed and was written again.
            if self.window.contains(frame.hash) {
                return Ok(());
            }
            let decoded = frame
                .body()
                .map_err(|error| error.to_string())
                .and_then(|body| decoder.decode(frame.kind, &body, frame.arrival_ns));
            let decoded = match decoded {
                Ok(decoded) => decoded,
                Err(reason) => {
                    tracing::error!(
                        reason,
                        "a frame of the write-ahead log can't be decoded; kept in quarantine"
                    );
                    fs::create_dir_all(&quarantine)?;
                    let name = format!("frame-{:032x}.zst", frame.hash);
                    return fs::write(quarantine.join(name), frame.compressed);
                }
            };
            self.stores.insert(decoded.batch);
            records += decoded.accepted;
            if let Some(account) = self.ledger.lock().account_mut(frame.kind.signal()) {
                account.stored += decoded.accepted;
                account.rejected += decoded.rejected;
            }
            let ack = Ack {
                accepted: decoded.accepted,
                rejected: decoded.rejected,
                reason: decoded.reason,
                duplicate: false,
            };
            self.window.remember(frame.hash, frame.arrival_ns, ack);
            Ok(())
        })?;
        self.damaged_wal_bytes.store(report.damaged_bytes, Ordering::Relaxed);
        if report.frames > 0 {
            tracing::info!(
                frames = report.frames,
                records,
                elapsed_ms = started.elapsed().as_millis() as u64,
                "replayed the write-ahead log"
            );
        }
        Ok(report.end)
    }
}

fn lock(data_dir: &Path) -> io::Result<File> {
    let remedy = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!(
                "data directory {} can't be used ({error}): choose another with --data-dir or mend its permissions",
                data_dir.display()
            ),
        )
    };
    fs::create_dir_all(data_dir).map_err(remedy)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join("LOCK"))
        .map_err(remedy)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!(
                "data directory {} is in use by another Trefoil: stop that one or choose another --data-dir",
                data_dir.display()
            ),
        )),
        Err(fs::TryLockError::Error(error)) => Err(remedy(error)),
    }
}

/// All files below the segments folder with the id in their name; temporary files get id 0.
fn segment_files(root: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    if !root.is_dir() {
        return Ok(found);
    }
    for signal in Signal::ALL {
        let folder = root.join(signal.name());
        if !folder.is_dir() {
            continue;
        }
        for partition in fs::read_dir(folder)? {
            for file in fs::read_dir(partition?.path())? {
                let path = file?.path();
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let id = name.split('.').next().and_then(|digits| digits.parse().ok());
                let id = if name.ends_with(".tmp") { Some(0) } else { id };
                if let Some(id) = id {
                    found.push((id, path));
                }
            }
        }
    }
    Ok(found)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}
