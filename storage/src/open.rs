//! Opening a data directory: lock, manifest, segments, window of requests, replay of the log, threads.
//!
//! Nothing is changed before it is known that this version can read everything.

use crate::budget::Budget;
use crate::check::{is_shortage, verify_segment};
use crate::commit::Change;
use crate::config::Config;
use crate::dedup::{Remembered, Window};
use crate::disk::{self, Disk};
use crate::manifest::{self, Manifest, Quarantined};
use crate::segment::{SegmentDir, SegmentMeta};
use crate::signal::{Decoded, Decoder, FrameKind, Signal, SignalStore, StoreSet};
use crate::store::{Ack, Inner, Store, apply};
use crate::threads;
use crate::wal::frame::Frame;
use crate::wal::writer::{Writer, WriterStats};
use crate::wal::{files, replay};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

/// Frames are decoded side by side in chunks of about this many raw bytes.
const CHUNK_BYTES: usize = 16 << 20;

/// Threads that decode frames side by side.
const REPLAY_THREADS_MAX: usize = 8;

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
        let inner = prepare(config, stores).map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported | io::ErrorKind::InvalidData => error,
            kind => io::Error::new(kind, unusable(&data_dir, &error)),
        })?;
        let wal_dir = data_dir.join("wal");
        let end = inner.replay(&wal_dir, decoder.as_ref())?;
        inner.window.begin(inner.manifest.lock().wal_position, end);
        inner.measure_disk();

        let stats = inner.wal_stats.clone();
        let writer = Writer::new(inner.config.disk.clone(), &wal_dir, end, stats);
        let (queue, queued) = mpsc::channel();
        let (to_applier, applying) = mpsc::sync_channel(1024);
        *inner.applier.lock() = Some(to_applier.clone());
        let store = Self {
            inner: inner.clone(),
            decoder,
            queue: Mutex::new(Some(queue)),
            threads: Mutex::default(),
            _lock: lock,
        };
        // A thread that can't be started drops the store, which ends the others.
        let run = |name: &str, body: Box<dyn FnOnce() + Send>| -> io::Result<()> {
            store.threads.lock().push(spawn(name, body)?);
            Ok(())
        };
        run("wal-writer", Box::new(move || writer.run(queued, to_applier)))?;
        let applier = inner.clone();
        run("applier", Box::new(move || apply(&applier, applying, end)))?;
        let sealer = inner.clone();
        run("sealer", Box::new(move || sealer.run_sealer()))?;
        let compactor = inner.clone();
        run("compactor", Box::new(move || compactor.run_compactor()))?;
        inner.commit_mended();
        run("mender", Box::new(move || inner.run_mender()))?;
        Ok(store)
    }
}

/// Everything up to the replay.
fn prepare(config: Config, stores: Arc<dyn StoreSet>) -> io::Result<Arc<Inner>> {
    let disk = config.disk.clone();
    let [manifest_dir, wal_dir, segments_dir, quarantine] =
        ["manifest", "wal", "segments", "quarantine"].map(|name| config.data_dir.join(name));
    let loaded =
        if manifest_dir.is_dir() { manifest::load(&manifest_dir)? } else { Default::default() };
    if wal_dir.is_dir() {
        files::refuse_newer(&wal_dir)?;
    }
    let on_disk = segment_files(&segments_dir)?;
    if loaded.current.is_none() && !on_disk.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} holds segments but no manifest: restore one from a backup, or choose another --data-dir",
                config.data_dir.display()
            ),
        ));
    }

    for folder in [&manifest_dir, &wal_dir] {
        disk::make_dir(&*disk, folder)?;
        remove_temporary(&*disk, folder);
    }
    // A process that was killed after giving a manifest its name may have left that for a power cut to take back,
    // after others were told what follows from it.
    disk.sync_dir(&manifest_dir)?;
    for path in &loaded.damaged {
        set_manifest_aside(&*disk, path, &quarantine);
    }
    let previous = loaded.previous;
    let mut manifest = loaded.current.unwrap_or_default();
    // Generations never repeat, also when the newest was damaged.
    let newest = loaded.damaged.iter().filter_map(|path| manifest::generation_of(path)).max();
    let mut generation = manifest.generation.max(newest.unwrap_or(0));
    if generation == 0 {
        // So that the first real one has something to fall back to.
        generation = 1;
        manifest.generation = generation;
        manifest::commit(&*disk, &manifest_dir, &manifest).map_err(|error| error.source)?;
    }

    let highest = on_disk.iter().filter_map(|(id, _)| *id).max().unwrap_or(0);
    let next_id = manifest.next_segment_id.max(highest + 1);
    let dir = SegmentDir::on(disk.clone(), segments_dir, next_id)?;
    let listed = manifest.segments.iter().chain(previous.iter().flat_map(|p| &p.segments));
    let kept: HashSet<u64> = listed.map(|meta| meta.id).collect();
    for (id, path) in on_disk {
        if id.is_none_or(|id| !kept.contains(&id))
            && let Err(error) = disk.remove(&path)
        {
            tracing::warn!(file = %path.display(), %error, "an unused file could not be deleted");
        }
    }

    let inner = Inner {
        window: Arc::new(Window::new(config.dedup_window, config.dedup_entries_max())),
        budget: Arc::new(Budget::new(config.refuse_hot_bytes() as u64)),
        ledger: Mutex::new(manifest.ledger),
        manifest: Mutex::new(manifest),
        generation: AtomicU64::new(generation),
        stores,
        dir,
        wal_stats: Arc::new(WriterStats::default()),
        applier: Mutex::default(),
        sealing: Mutex::default(),
        maintaining: Mutex::default(),
        changing: Mutex::default(),
        garbage: Mutex::default(),
        sealer: Default::default(),
        compactor: Default::default(),
        mender: Default::default(),
        mend_stats: Default::default(),
        stopping: Arc::default(),
        seal_waiters: Mutex::default(),
        last_seal: Mutex::new(Instant::now()),
        stirred: Mutex::default(),
        free_bytes: AtomicU64::new(u64::MAX),
        reserve_bytes: AtomicU64::new(0),
        duplicate_requests: AtomicU64::new(0),
        seals: AtomicU64::new(0),
        compactions: AtomicU64::new(0),
        damaged_wal_bytes: AtomicU64::new(0),
        panics: AtomicU64::new(0),
        mended_at_open: AtomicBool::new(false),
        config,
    };
    let (saved, position) = {
        let manifest = inner.manifest.lock();
        (manifest.window_generation, manifest.wal_position)
    };
    // Without it, retries from before the last seal are not known.
    if saved > 0 {
        inner.window.load(inner.window_path(saved), position);
    }
    inner.open_segments(previous.as_ref())?;
    // A generation that was damaged leaves the other alone, without one to fall back to.
    if previous.is_none() && generation > 1 {
        inner.mended_at_open.store(true, Ordering::Release);
    }
    Ok(Arc::new(inner))
}

impl Inner {
    /// Opens what the manifest lists; what can't be opened is set aside and the rest served.
    fn open_segments(&self, previous: Option<&Manifest>) -> io::Result<()> {
        let mut manifest = self.manifest.lock();
        for store in self.stores.signals() {
            let of_signal = |meta: &&SegmentMeta| meta.signal == store.signal();
            let metas: Vec<SegmentMeta> =
                manifest.segments.iter().filter(of_signal).cloned().collect();
            for (meta, error) in store.open(&self.dir, &metas) {
                // Too few descriptors or too little memory says nothing about the file.
                if is_shortage(&error) {
                    return Err(error);
                }
                self.mended_at_open.store(true, Ordering::Release);
                match self.rebuild_at_open(store, &meta) {
                    Some(anew) => {
                        let generation = manifest.generation + 1;
                        manifest.segments.retain(|other| other.id != meta.id);
                        manifest.segments.extend(anew);
                        self.garbage.lock().push((Instant::now(), generation, meta));
                    }
                    None => self.set_aside(&mut manifest, &meta, &error.to_string()),
                }
            }
        }
        // Files that only the previous generation names wait for the next commit.
        let live: HashSet<u64> = manifest.segments.iter().map(|meta| meta.id).collect();
        let now = Instant::now();
        self.garbage.lock().extend(
            previous
                .iter()
                .flat_map(|p| &p.segments)
                .filter(|meta| !live.contains(&meta.id))
                .map(|meta| (now, manifest.generation, meta.clone())),
        );
        Ok(())
    }

    /// Makes a segment anew that can't be opened, if its Parquet files are sound.
    fn rebuild_at_open(
        &self,
        store: &dyn SignalStore,
        meta: &SegmentMeta,
    ) -> Option<Vec<SegmentMeta>> {
        let faults = verify_segment(&self.dir, meta).ok()?;
        let job = self.dir.job();
        let anew = self.rebuild(&job, meta, &faults).ok().filter(|_| !faults.is_empty());
        let opened = anew.filter(|anew| store.open(&self.dir, anew).is_empty());
        match &opened {
            Some(_) => tracing::warn!(?faults, "damaged files made anew from Parquet"),
            None => job.discard(),
        }
        opened
    }

    /// Makes durable what opening has mended or set aside. When that fails, the next change does it.
    fn commit_mended(&self) {
        if self.mended_at_open.load(Ordering::Acquire)
            && let Err(error) = self.commit(&Change::Tidy, &self.dir.job())
        {
            tracing::warn!(%error, "what was mended at the start could not be committed yet");
        }
    }

    fn replay(&self, wal_dir: &Path, decoder: &dyn Decoder) -> io::Result<u64> {
        let from = self.manifest.lock().wal_position;
        let quarantine = self.config.data_dir.join("quarantine");
        let started = Instant::now();
        let before = *self.ledger.lock();
        let mut chunk = Chunk::default();
        let report =
            replay::replay(&*self.config.disk, wal_dir, from, &quarantine, |frame, end| {
                chunk.push(&frame, end);
                if chunk.raw_bytes >= CHUNK_BYTES {
                    self.apply_chunk(&mut chunk, decoder);
                }
                Ok(())
            })?;
        self.apply_chunk(&mut chunk, decoder);
        let lost = report.damaged_bytes + report.missing_bytes;
        if lost > 0 {
            self.damaged_wal_bytes.store(lost, Ordering::Relaxed);
            self.manifest.lock().note_quarantined(Quarantined {
                file: format!("wal from position {from}"),
                reason: format!(
                    "{} bytes damaged, {} missing",
                    report.damaged_bytes, report.missing_bytes
                ),
                min_ns: 0,
                max_ns: 0,
                rows: 0,
            });
        }
        if report.frames > 0 {
            let stored = |ledger: &crate::ledger::Ledger| -> u64 {
                ledger.accounts().iter().map(|(_, account)| account.stored).sum()
            };
            tracing::info!(
                frames = report.frames,
                records = stored(&self.ledger.lock()) - stored(&before),
                elapsed_ms = started.elapsed().as_millis() as u64,
                "replayed the write-ahead log"
            );
        }
        Ok(report.end)
    }

    /// Decodes a chunk's frames side by side, then applies them in order.
    fn apply_chunk(&self, chunk: &mut Chunk, decoder: &dyn Decoder) {
        let frames = std::mem::take(chunk).frames;
        let threads = threads::worth(frames.len(), 1).min(REPLAY_THREADS_MAX);
        let decoded = threads::map(threads, &frames, |held| held.decode(decoder));
        for (held, decoded) in frames.iter().zip(decoded) {
            self.apply_replayed(held, decoded);
        }
    }

    fn apply_replayed(&self, held: &Held, decoded: Result<Decoded, String>) {
        // The same content may stand twice: a group that failed and was written again.
        if self.window.repeats(held.hash, held.arrival_ns) {
            return;
        }
        let Decoded { batch, accepted, rejected, reason } = match decoded {
            Ok(decoded) => decoded,
            Err(reason) => {
                tracing::error!(
                    reason,
                    "a frame of the write-ahead log can't be decoded; kept in quarantine"
                );
                let name = format!("frame-{:032x}.zst", held.hash);
                let folder = self.config.data_dir.join("quarantine");
                return files::quarantine(&*self.config.disk, &folder, &name, &held.compressed);
            }
        };
        let ack = Ack { accepted, rejected, reason, duplicate: false };
        let ack = self.insert_and_count(batch, held.kind.signal(), ack);
        self.window.remember(held.hash, Remembered::new(held.arrival_ns, held.end, &ack));
    }
}

/// Frames waiting to be decoded together.
#[derive(Default)]
struct Chunk {
    frames: Vec<Held>,
    raw_bytes: usize,
}

impl Chunk {
    fn push(&mut self, frame: &Frame<'_>, end: u64) {
        self.raw_bytes += frame.raw_len as usize;
        self.frames.push(Held {
            kind: frame.kind,
            arrival_ns: frame.arrival_ns,
            hash: frame.hash,
            raw_len: frame.raw_len,
            compressed: frame.compressed.to_vec(),
            end,
        });
    }
}

/// A frame of its own memory.
struct Held {
    kind: FrameKind,
    arrival_ns: u64,
    hash: u128,
    raw_len: u32,
    compressed: Vec<u8>,
    /// Position after it.
    end: u64,
}

impl Held {
    fn decode(&self, decoder: &dyn Decoder) -> Result<Decoded, String> {
        let Self { kind, arrival_ns, hash, raw_len, ref compressed, .. } = *self;
        let body = Frame { kind, arrival_ns, hash, raw_len, compressed }
            .body()
            .map_err(|error| error.to_string())?;
        catch_unwind(AssertUnwindSafe(|| decoder.decode(kind, &body, arrival_ns)))
            .unwrap_or_else(|_| Err("the decoder panicked".to_owned()))
    }
}

fn unusable(data_dir: &Path, error: &io::Error) -> String {
    format!(
        "data directory {} can't be used ({error}): choose another with --data-dir or mend its permissions",
        data_dir.display()
    )
}

fn lock(data_dir: &Path) -> io::Result<File> {
    let remedy = |error: io::Error| io::Error::new(error.kind(), unusable(data_dir, &error));
    if !data_dir.is_dir() {
        fs::create_dir_all(data_dir).map_err(remedy)?;
        // Its name must survive a power cut as well as what is in it; where the parent can't be read, nothing helps.
        if let Some(parent) = data_dir.canonicalize().map_err(remedy)?.parent() {
            let _ = File::open(parent).and_then(|parent| parent.sync_all());
        }
    }
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

/// Files that a write was making when the process ended.
fn remove_temporary(disk: &dyn Disk, folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            let _ = disk.remove(&path);
        }
    }
}

fn set_manifest_aside(disk: &dyn Disk, path: &Path, quarantine: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let moved = disk::make_dir(disk, quarantine)
        .and_then(|()| disk.rename(path, &quarantine.join(format!("manifest-{name}"))));
    if let Err(error) = moved {
        tracing::error!(%error, "a damaged manifest could not be moved to quarantine");
    }
}

/// All files below the segments folder with the id in their name; `None` for temporary ones.
pub(crate) fn segment_files(root: &Path) -> io::Result<Vec<(Option<u64>, PathBuf)>> {
    let mut found = Vec::new();
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
                if name.ends_with(".tmp") {
                    found.push((None, path));
                } else if id.is_some() {
                    found.push((id, path));
                }
            }
        }
    }
    Ok(found)
}

fn spawn(name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}
