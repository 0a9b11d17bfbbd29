//! Segment identity and files: an immutable slice of one signal and time partition.
//!
//! `segments/<signal>/<partition>/<id>.<extension>`: the Parquet file and its sidecars share the id. Files are
//! written under a temporary name, synced, renamed, and their directory synced, before a manifest may name them
//! (`object_store` 0.13 can't sync local files, so writes do not go through it).

use crate::signal::Signal;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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
    next_id: AtomicU64,
}

impl SegmentDir {
    /// * `root`: the `segments` folder; made if missing.
    /// * `next_id`: above every id that the manifest or the folder holds.
    pub fn new(root: PathBuf, next_id: u64) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root, next_id: AtomicU64::new(next_id) })
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

    /// Starts a segment file; nothing is visible under its name before [`DurableFile::commit`].
    pub fn create(
        &self,
        signal: Signal,
        partition_ns: u64,
        id: u64,
        extension: &str,
    ) -> io::Result<DurableFile> {
        let path = self.path(signal, partition_ns, id, extension);
        if let Some(parent) = path.parent()
            && !parent.is_dir()
        {
            fs::create_dir_all(parent)?;
            // The new folders' own entries must survive a power cut too.
            for dir in parent.ancestors().skip(1).take(2) {
                File::open(dir)?.sync_all()?;
            }
        }
        DurableFile::create(path, extension)
    }
}

/// A file that appears whole or not at all.
#[derive(Debug)]
pub struct DurableFile {
    file: io::BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    extension: String,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl DurableFile {
    fn create(path: PathBuf, extension: &str) -> io::Result<Self> {
        let temporary = path.with_extension(format!("{extension}.tmp"));
        let file = io::BufWriter::with_capacity(1 << 16, File::create(&temporary)?);
        Ok(Self {
            file,
            temporary,
            path,
            extension: extension.to_owned(),
            crc: crc32fast::Hasher::new(),
            bytes: 0,
        })
    }

    /// Syncs the file, gives it its name and syncs the folder.
    pub fn commit(mut self) -> io::Result<SegmentFile> {
        self.file.flush()?;
        self.file.get_ref().sync_data()?;
        fs::rename(&self.temporary, &self.path)?;
        if let Some(parent) = self.path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(SegmentFile { extension: self.extension, bytes: self.bytes, crc32: self.crc.finalize() })
    }
}

impl Write for DurableFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.crc.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
