//! The writing thread: takes what has queued up, writes it as one group, syncs once, hands the group on in order.
//!
//! A failed write or sync is never acknowledged, and never tried again on the same file, whose pages the kernel may
//! have dropped ("fsyncgate"): the group goes to a new file, and if that fails too its senders get the error. Frames
//! of a failed group may still come up at replay; the content hash then keeps them single.

use super::files::{self, FILE_HEADER_BYTES};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

/// A file is closed after this many bytes; truncation frees whole files.
const FILE_BYTES: u64 = 32 << 20;

/// A group ends here even when more is queued, so that memory and latency stay bounded.
const GROUP_BYTES: usize = 8 << 20;

/// An encoded frame and what its sender waits for.
pub struct Queued<T> {
    pub frame: Vec<u8>,
    pub item: T,
}

/// What the applier is told, in stream order.
#[derive(Debug)]
pub enum Applying<T, C> {
    /// Durable; `end` is the position after the frame.
    Durable { item: T, end: u64 },
    /// Not written, not to be acknowledged.
    Failed { item: T, error: Arc<io::Error> },
    /// From the sealer, not the writer: a cut between two frames.
    Cut(C),
}

/// Numbers that others read while the writer runs.
#[derive(Debug, Default)]
pub struct WriterStats {
    pub groups: AtomicU64,
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
    pub failures: AtomicU64,
    /// Start position of the file being written.
    pub file_start: AtomicU64,
    /// Position after the last durable frame.
    pub end: AtomicU64,
    /// The last write failed: the disk is full or broken.
    pub failing: AtomicBool,
    /// Asks for a new file before the next group, so that the old one can be freed.
    pub rotate: AtomicBool,
}

/// The stream's writing end.
pub struct Writer {
    dir: PathBuf,
    file: Option<File>,
    file_bytes: u64,
    position: u64,
    stats: Arc<WriterStats>,
}

impl Writer {
    /// Starts a new file at `position`: an older file's torn tail is never written over.
    pub fn open(dir: &Path, position: u64, stats: Arc<WriterStats>) -> io::Result<Self> {
        let file = files::create(dir, position)?;
        stats.file_start.store(position, Ordering::Release);
        stats.end.store(position, Ordering::Release);
        Ok(Self {
            dir: dir.to_owned(),
            file: Some(file),
            file_bytes: FILE_HEADER_BYTES,
            position,
            stats,
        })
    }

    /// Runs until all senders of `queue` are gone.
    pub fn run<T, C>(mut self, queue: Receiver<Queued<T>>, applier: SyncSender<Applying<T, C>>) {
        let mut buffer = Vec::new();
        while let Ok(first) = queue.recv() {
            buffer.clear();
            buffer.extend_from_slice(&first.frame);
            let mut group = vec![(first.item, first.frame.len() as u64)];
            while buffer.len() < GROUP_BYTES
                && let Ok(next) = queue.try_recv()
            {
                buffer.extend_from_slice(&next.frame);
                group.push((next.item, next.frame.len() as u64));
            }
            let outcome = self.write_group(&buffer);
            let mut end = self.position - if outcome.is_ok() { buffer.len() as u64 } else { 0 };
            self.stats.failing.store(outcome.is_err(), Ordering::Release);
            self.stats.groups.fetch_add(1, Ordering::Relaxed);
            let error = outcome.err().map(Arc::new);
            for (item, bytes) in group {
                let applying = match &error {
                    None => {
                        end += bytes;
                        self.stats.frames.fetch_add(1, Ordering::Relaxed);
                        Applying::Durable { item, end }
                    }
                    Some(error) => Applying::Failed { item, error: error.clone() },
                };
                if applier.send(applying).is_err() {
                    return;
                }
            }
        }
    }

    fn write_group(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file_bytes >= FILE_BYTES || self.stats.rotate.swap(false, Ordering::AcqRel) {
            // A failure here leaves no file; the next attempt below makes one.
            self.file = None;
        }
        let first = self.attempt(bytes);
        if first.is_ok() {
            return Ok(());
        }
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(error = ?first, "write-ahead log write failed; trying a new file");
        self.attempt(bytes).inspect_err(|error| {
            self.stats.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "write-ahead log can't be written; ingest is refused until it can");
        })
    }

    /// Writes and syncs; whatever fails, the file is given up.
    fn attempt(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                // After a failure the old file may hold bytes past our position: start beyond them.
                let taken = files::list(&self.dir)?.last().map_or(0, |last| last.end());
                self.position = self.position.max(taken);
                let file = match files::create(&self.dir, self.position) {
                    Ok(file) => file,
                    Err(error) => {
                        // A file without a whole header holds no frame; it must not block this name.
                        let _ = std::fs::remove_file(
                            self.dir.join(format!("{:020}.wal", self.position)),
                        );
                        return Err(error);
                    }
                };
                self.file_bytes = FILE_HEADER_BYTES;
                self.stats.file_start.store(self.position, Ordering::Release);
                file
            }
        };
        file.write_all(bytes)?;
        file.sync_data()?;
        self.file = Some(file);
        self.file_bytes += bytes.len() as u64;
        self.position += bytes.len() as u64;
        self.stats.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.stats.end.store(self.position, Ordering::Release);
        Ok(())
    }
}
