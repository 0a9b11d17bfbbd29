//! Segment identity and files: an immutable slice of one signal and time partition.
//!
//! `segments/<signal>/<partition>/<id>.<extension>`: the Parquet file and its sidecars share the id. Files are
//! written under a temporary name, synced, renamed, and their directory synced, before a manifest may name them
//! (`object_store` 0.13 can't sync local files, so writes do not go through it).

use crate::disk::{self, Disk, DiskFile};
use crate::signal::Signal;
use crate::threads;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Length of a time partition, ns. One hour: retention by age stays within 5% of a day and more.
pub const PARTITION_NS: u64 = 3_600_000_000_000;

/// Start of the partition that holds `time_ns`.
pub fn partition_of(time_ns: u64) -> u64 {
    time_ns - time_ns % PARTITION_NS
}

/// What the manifest knows of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SegmentMeta {
    pub signal: Signal,
    pub id: u64,
    /// Unix ns, start of the hour.
    pub partition_ns: u64,
    /// Earliest and latest time in it, Unix ns, both inclusive.
    pub min_ns: u64,
    pub max_ns: u64,
    pub rows: u64,
    /// How many merges lie behind it; 0 = sealed from hot.
    pub level: u32,
    pub files: Vec<SegmentFile>,
}

/// Segments that are opened sooner than a thread is started for them.
const SEGMENTS_PER_THREAD: usize = 4;

/// What opening several segments gave: those that could be, in their order, and those that could not, each with the
/// reason.
pub type Opened<T> = (Vec<T>, Vec<(SegmentMeta, io::Error)>);

/// Opens segments, several at once.
pub fn open_each<T: Send>(
    metas: &[SegmentMeta],
    open: impl Fn(&SegmentMeta) -> io::Result<T> + Sync,
) -> Opened<T> {
    let threads = threads::worth(metas.len(), SEGMENTS_PER_THREAD);
    let (mut opened, mut failed) = (Vec::with_capacity(metas.len()), Vec::new());
    for (meta, outcome) in metas.iter().zip(threads::map(threads, metas, open)) {
        match outcome {
            Ok(segment) => opened.push(segment),
            Err(error) => failed.push((meta.clone(), error)),
        }
    }
    (opened, failed)
}

/// One file of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SegmentFile {
    /// Extension after the id, e.g. `parquet`.
    pub extension: String,
    pub bytes: u64,
    /// CRC-32 (IEEE) over the whole file.
    pub crc32: u32,
}

impl SegmentMeta {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

/// The folder of all segments; hands out ids and makes files durable.
#[derive(Debug)]
pub struct SegmentDir {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    next_id: Arc<AtomicU64>,
    /// Files that stand since this handle was made.
    made: Arc<Mutex<Vec<PathBuf>>>,
    /// Once set, nothing more is written through this handle.
    stop: Arc<AtomicBool>,
    /// Folders whose names are known to be durable. One that is there need not be: its sync may have failed, or the
    /// process may have been killed before it.
    durable: Arc<Mutex<HashSet<PathBuf>>>,
}

impl SegmentDir {
    /// * `root`: the `segments` folder; made if missing.
    /// * `next_id`: above every id that the manifest or the folder holds.
    pub fn new(root: PathBuf, next_id: u64) -> io::Result<Self> {
        Self::on(disk::local(), root, next_id)
    }

    /// Like [`new`](Self::new), on a disk of one's choice.
    pub fn on(disk: Arc<dyn Disk>, root: PathBuf, next_id: u64) -> io::Result<Self> {
        disk::make_dir(&*disk, &root)?;
        Ok(Self {
            root,
            disk,
            next_id: Arc::new(AtomicU64::new(next_id)),
            made: Arc::default(),
            stop: Arc::default(),
            durable: Arc::default(),
        })
    }

    /// The same folder for one piece of work, whose files [`discard`](Self::discard) can take back.
    pub fn job(&self) -> Self {
        self.job_until(Arc::default())
    }

    /// The same for work that may be given up: once `stop` is set its next write fails.
    pub fn job_until(&self, stop: Arc<AtomicBool>) -> Self {
        Self {
            root: self.root.clone(),
            disk: self.disk.clone(),
            next_id: self.next_id.clone(),
            made: Arc::default(),
            stop,
            durable: self.durable.clone(),
        }
    }

    /// Removes the files made through this handle: the work failed and no manifest names them.
    pub fn discard(&self) {
        for path in self.made.lock().drain(..) {
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(file = %path.display(), %error, "an unused segment file stays until the next start");
            }
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn allocate_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub fn next_id(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    pub fn path(&self, signal: Signal, partition_ns: u64, id: u64, extension: &str) -> PathBuf {
        let hour = partition_ns / PARTITION_NS;
        self.root.join(signal.name()).join(hour.to_string()).join(format!("{id:016}.{extension}"))
    }

    pub fn file_path(&self, meta: &SegmentMeta, extension: &str) -> PathBuf {
        self.path(meta.signal, meta.partition_ns, meta.id, extension)
    }

    /// Makes a folder, or makes sure that one that is there stays after a power cut.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let mut durable = self.durable.lock();
        if folder.is_dir() && durable.contains(folder) {
            return Ok(());
        }
        durable.remove(folder);
        self.disk.create_dir(folder)?;
        if let Some(parent) = folder.parent() {
            self.disk.sync_dir(parent)?;
        }
        durable.insert(folder.to_owned());
        Ok(())
    }

    /// Starts a segment file; nothing is visible under its name before [`DurableFile::commit`].
    pub fn create(
        &self,
        signal: Signal,
        partition_ns: u64,
        id: u64,
        extension: &str,
    ) -> io::Result<DurableFile> {
        let path = self.path(signal, partition_ns, id, extension);
        let (made, stop) = (self.made.clone(), self.stop.clone());
        let folders = [path.ancestors().nth(2), path.parent()];
        let mut tries = 0;
        loop {
            for folder in folders.into_iter().flatten() {
                self.make_folder(folder)?;
            }
            let (made, stop) = (made.clone(), stop.clone());
            match DurableFile::create(self.disk.clone(), path.clone(), extension, made, stop) {
                // A folder that stood empty may have been removed just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 3 => tries += 1,
                outcome => return outcome,
            }
        }
    }
}

/// A file that appears whole or not at all.
#[derive(Debug)]
pub struct DurableFile {
    disk: Arc<dyn Disk>,
    file: io::BufWriter<Box<dyn DiskFile>>,
    temporary: PathBuf,
    path: PathBuf,
    extension: String,
    made: Arc<Mutex<Vec<PathBuf>>>,
    stop: Arc<AtomicBool>,
    crc: crc32fast::Hasher,
    bytes: u64,
    named: bool,
}

impl DurableFile {
    fn create(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        extension: &str,
        made: Arc<Mutex<Vec<PathBuf>>>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let temporary = path.with_extension(format!("{extension}.tmp"));
        let file = io::BufWriter::with_capacity(1 << 16, disk.create(&temporary)?);
        Ok(Self {
            disk,
            file,
            temporary,
            path,
            extension: extension.to_owned(),
            made,
            stop,
            crc: crc32fast::Hasher::new(),
            bytes: 0,
            named: false,
        })
    }

    /// Syncs the file, gives it its name and syncs the folder.
    pub fn commit(mut self) -> io::Result<SegmentFile> {
        self.file.flush()?;
        self.file.get_mut().sync()?;
        self.disk.rename(&self.temporary, &self.path)?;
        self.named = true;
        self.made.lock().push(self.path.clone());
        if let Some(parent) = self.path.parent() {
            self.disk.sync_dir(parent)?;
        }
        let crc32 = self.crc.clone().finalize();
        Ok(SegmentFile { extension: self.extension.clone(), bytes: self.bytes, crc32 })
    }
}

impl Drop for DurableFile {
    /// A file that was not finished leaves nothing behind.
    fn drop(&mut self) {
        if !self.named {
            let _ = self.disk.remove(&self.temporary);
        }
    }
}

impl Write for DurableFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("given up: the store is closing"));
        }
        let n = self.file.write(buf)?;
        self.crc.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_file_and_discarded_work_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let dir = SegmentDir::new(folder.path().join("segments"), 1).unwrap();
        let job = dir.job();
        let id = job.allocate_id();
        let mut kept = job.create(Signal::Logs, 0, id, "parquet").unwrap();
        kept.write_all(b"rows").unwrap();
        let kept = kept.commit().unwrap();
        assert_eq!((kept.bytes, kept.crc32), (4, crc32fast::hash(b"rows")));
        drop(job.create(Signal::Logs, 0, id, "idx").unwrap());
        let path = dir.path(Signal::Logs, 0, id, "parquet");
        let names = || std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names(), 1, "the index file was never finished");
        job.discard();
        assert_eq!(names(), 0);
        assert_eq!(dir.next_id(), 2, "ids are shared between handles");
    }

    #[test]
    fn work_that_is_given_up_fails_at_its_next_write_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let dir = SegmentDir::new(folder.path().join("segments"), 1).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let job = dir.job_until(stop.clone());
        let mut file = job.create(Signal::Logs, 0, job.allocate_id(), "parquet").unwrap();
        file.write_all(b"rows").unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(file.write_all(b"more").is_err());
        drop(file);
        let path = dir.path(Signal::Logs, 0, 1, "parquet");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        let mut sealed = dir.job().create(Signal::Logs, 0, 2, "parquet").unwrap();
        sealed.write_all(b"what is sealed meanwhile").unwrap();
        sealed.commit().unwrap();
    }
}
