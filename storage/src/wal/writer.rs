//! The writing thread: takes what has queued up, writes it as one group, syncs once, hands the group on in order.
//!
//! A failed write or sync is never acknowledged, and never tried again on the same file, whose pages the kernel may
//! have dropped ("fsyncgate"): the group goes to a new file, and if that fails too its senders get the error. Frames
//! of a failed group may still come up at replay; the content hash then keeps them single.
//!
//! What is durable is handed to the applier over a channel, in stream order, so that rows become visible in the order
//! of the log while the next group is being written.

use super::files::{self, FILE_HEADER_BYTES};
use super::frame;
use crate::disk::{Disk, DiskFile};
use std::io;
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

/// What the writing thread is asked for.
pub enum Order<T> {
    Write(Queued<T>),
    /// To close its file: what comes later goes to a new one. Answered when it is so.
    NewFile(SyncSender<()>),
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
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Option<Box<dyn DiskFile>>,
    file_bytes: u64,
    position: u64,
    stats: Arc<WriterStats>,
}

/// Frames that share one sync: their bytes and each one's length.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Group {
    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.lengths.push(frame.len());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.lengths.clear();
    }

    fn place(&mut self, position: u64) {
        let mut at = 0;
        for length in &self.lengths {
            frame::place(&mut self.bytes[at..at + length], position + at as u64);
            at += length;
        }
    }
}

impl Writer {
    /// A writer that goes on at `position`, in a file that the first group makes: an older file's torn tail is never
    /// written over, and a full disk does not stop a start.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, position: u64, stats: Arc<WriterStats>) -> Self {
        stats.file_start.store(position, Ordering::Release);
        stats.end.store(position, Ordering::Release);
        Self { disk, dir: dir.to_owned(), file: None, file_bytes: 0, position, stats }
    }

    /// Runs until all senders of `queue` are gone.
    pub fn run<T, C>(mut self, queue: Receiver<Order<T>>, applier: SyncSender<Applying<T, C>>) {
        let mut group = Group::default();
        let mut items = Vec::new();
        while let Ok(order) = queue.recv() {
            let first = match order {
                Order::Write(first) => first,
                Order::NewFile(done) => {
                    self.close_file(&done);
                    continue;
                }
            };
            group.clear();
            group.push(&first.frame);
            items.push(first.item);
            let mut then_close = None;
            while group.bytes.len() < GROUP_BYTES
                && then_close.is_none()
                && let Ok(next) = queue.try_recv()
            {
                match next {
                    Order::Write(next) => {
                        group.push(&next.frame);
                        items.push(next.item);
                    }
                    Order::NewFile(done) => then_close = Some(done),
                }
            }
            let outcome = self.write_group(&mut group);
            self.stats.failing.store(outcome.is_err(), Ordering::Release);
            self.stats.groups.fetch_add(1, Ordering::Relaxed);
            let written = outcome.map_err(Arc::new);
            let mut end = self.position - group.bytes.len() as u64 * u64::from(written.is_ok());
            for (item, length) in items.drain(..).zip(&group.lengths) {
                let applying = match &written {
                    Ok(()) => {
                        end += *length as u64;
                        self.stats.frames.fetch_add(1, Ordering::Relaxed);
                        Applying::Durable { item, end }
                    }
                    Err(error) => Applying::Failed { item, error: error.clone() },
                };
                if applier.send(applying).is_err() {
                    return;
                }
            }
            if let Some(done) = then_close {
                self.close_file(&done);
            }
            // One huge group must not hold its memory for ever.
            group.bytes.shrink_to(GROUP_BYTES);
        }
    }

    fn close_file(&mut self, done: &SyncSender<()>) {
        self.file = None;
        self.stats.file_start.store(self.position, Ordering::Release);
        // Whoever asked may have gone.
        let _ = done.send(());
    }

    fn write_group(&mut self, group: &mut Group) -> io::Result<()> {
        if self.file_bytes >= FILE_BYTES || self.stats.rotate.swap(false, Ordering::AcqRel) {
            self.file = None;
        }
        let Err(first) = self.attempt(group) else { return Ok(()) };
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(error = %first, "write-ahead log write failed; trying a new file");
        self.attempt(group).inspect_err(|error| {
            self.stats.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "write-ahead log can't be written; ingest is refused until it can");
        })
    }

    /// Writes and syncs; whatever fails, the file is given up.
    fn attempt(&mut self, group: &mut Group) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                // After a failure the old file may hold bytes past our position: start beyond them.
                let taken = files::list(&self.dir)?.last().map_or(0, |last| last.end());
                self.position = self.position.max(taken);
                let file = files::create(&*self.disk, &self.dir, self.position)?;
                self.file_bytes = FILE_HEADER_BYTES;
                self.stats.file_start.store(self.position, Ordering::Release);
                file
            }
        };
        group.place(self.position);
        if let Err(error) = file.write_all(&group.bytes).and_then(|()| file.sync()) {
            if self.file_bytes == FILE_HEADER_BYTES {
                // Nothing in it was acknowledged; on a full disk its room is wanted.
                let _ = self.disk.remove(&files::path(&self.dir, self.position));
            }
            return Err(error);
        }
        self.file = Some(file);
        let bytes = group.bytes.len() as u64;
        self.file_bytes += bytes;
        self.position += bytes;
        self.stats.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.stats.end.store(self.position, Ordering::Release);
        Ok(())
    }
}
