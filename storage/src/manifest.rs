//! The manifest: which segments live, and up to which position of the write-ahead log they hold everything.
//!
//! `manifest/<generation>.json`, first line `trefoil-manifest <format> <crc32, hex>`; the checksum covers the format
//! number and the rest of the file. Replacing it is the commit point of seal, compaction and retention. The previous
//! generation stays, with all it needs, so that a damaged newest one loses nothing.

use crate::disk::{self, Disk};
use crate::ledger::Ledger;
use crate::segment::SegmentMeta;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Version of the data directory's format; a newer one is refused, not guessed at.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub generation: u64,
    /// All frames that end at or before this position are in the segments below.
    pub wal_position: u64,
    pub next_segment_id: u64,
    /// Generation under whose number the window of recent requests as of `wal_position` is saved.
    pub window_generation: u64,
    /// As of `wal_position`, plus retention and deletion up to this generation.
    pub ledger: Ledger,
    pub segments: Vec<SegmentMeta>,
    /// What was set aside as damaged, so that it is told also after a restart.
    pub quarantined: Vec<Quarantined>,
}

/// A segment that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub file: String,
    pub reason: String,
    /// Times that the segment covered, Unix ns, and its records.
    pub min_ns: u64,
    pub max_ns: u64,
    pub rows: u64,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            generation: 0,
            wal_position: 0,
            next_segment_id: 1,
            window_generation: 0,
            ledger: Ledger::default(),
            segments: Vec::new(),
            quarantined: Vec::new(),
        }
    }
}

/// What a directory of manifests holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest readable generation; `None` in a new data directory.
    pub current: Option<Manifest>,
    /// The generation before it, if it is still there.
    pub previous: Option<Manifest>,
    /// Newer generations that could not be read.
    pub damaged: Vec<PathBuf>,
}

/// Reads the newest two readable generations.
///
/// # Errors
/// `Unsupported` for a newer format. `InvalidData` when manifests exist and none can be read.
pub fn load(dir: &Path) -> io::Result<Loaded> {
    let mut loaded = Loaded::default();
    for (_, path) in generations(dir)?.into_iter().rev() {
        match read(&path) {
            Ok(manifest) if loaded.current.is_none() => loaded.current = Some(manifest),
            Ok(manifest) => {
                loaded.previous = Some(manifest);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "damaged manifest; falling back");
                if loaded.current.is_none() {
                    loaded.damaged.push(path);
                }
            }
        }
    }
    if loaded.current.is_none() && !loaded.damaged.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("no readable manifest in {}; restore one from a backup", dir.display()),
        ));
    }
    Ok(loaded)
}

/// A generation that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("manifest generation {generation} could not be written")]
pub struct CommitError {
    pub generation: u64,
    /// It may stand there all the same after a crash: what it names must stay.
    pub may_stand: bool,
    pub source: io::Error,
}

/// Writes a generation durably. Nothing is deleted; see [`forget`].
pub fn commit(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> Result<(), CommitError> {
    let path = dir.join(format!("{:016}.json", manifest.generation));
    let bytes = encode(manifest).and_then(|bytes| disk::write_whole(disk, &path, &bytes));
    bytes.map_err(|source| CommitError {
        generation: manifest.generation,
        may_stand: path.exists(),
        source,
    })
}

fn encode(manifest: &Manifest) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(manifest)?;
    Ok([header_of(FORMAT, &body).as_bytes(), b"\n", &body].concat())
}

fn header_of(format: u32, body: &[u8]) -> String {
    format!("trefoil-manifest {format} {:08x}", checksum(format, body))
}

fn checksum(format: u32, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(format!("{format}\n").as_bytes());
    crc.update(body);
    crc.finalize()
}

/// Deletes all generations but the newest two.
pub fn forget(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let mut all = generations(dir)?;
    all.truncate(all.len().saturating_sub(2));
    all.iter().try_for_each(|(_, path)| disk.remove(path))
}

impl Manifest {
    /// Enters a file that was set aside, once.
    pub fn note_quarantined(&mut self, entry: Quarantined) {
        if !self.quarantined.contains(&entry) {
            self.quarantined.push(entry);
        }
    }
}

/// Manifest files, oldest first.
pub fn generations(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if let Some(generation) = generation_of(&path) {
            found.push((generation, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The generation in a manifest file's name; `None` for other files.
pub fn generation_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

/// Reads and checks one generation.
pub fn read(path: &Path) -> io::Result<Manifest> {
    let bytes = fs::read(path)?;
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let line_end =
        bytes.iter().position(|b| *b == b'\n').ok_or_else(|| invalid("no header line"))?;
    let header = std::str::from_utf8(&bytes[..line_end]).map_err(|_| invalid("header not text"))?;
    let mut words = header.split(' ');
    if words.next() != Some("trefoil-manifest") {
        return Err(invalid("not a manifest"));
    }
    let format: u32 =
        words.next().and_then(|w| w.parse().ok()).ok_or_else(|| invalid("no format version"))?;
    let body = &bytes[line_end + 1..];
    // Compared as text: a flipped bit may turn a digit into a capital of the same value.
    if header != header_of(format, body) {
        return Err(invalid("checksum does not match"));
    }
    // Only now: a flipped bit in the number is damage, not a newer version.
    if format > FORMAT {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the data directory has format {format}, this version of Trefoil reads up to {FORMAT}: \
                 use a newer Trefoil or another --data-dir"
            ),
        ));
    }
    serde_json::from_slice(body).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;

    fn manifest(generation: u64) -> Manifest {
        Manifest { generation, wal_position: generation * 10, ..Manifest::default() }
    }

    #[test]
    fn every_flip_and_cut_of_the_newest_falls_back_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        for generation in 1..=3 {
            commit(&LocalDisk, dir.path(), &manifest(generation)).unwrap();
            forget(&LocalDisk, dir.path()).unwrap();
        }
        assert_eq!(generations(dir.path()).unwrap().len(), 2);
        let newest = dir.path().join("0000000000000003.json");
        let good = fs::read(&newest).unwrap();
        let fallen_back = || {
            let loaded = load(dir.path()).unwrap();
            loaded.current == Some(manifest(2)) && loaded.damaged == [newest.clone()]
        };
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&newest, &damaged).unwrap();
            assert!(fallen_back(), "flip at {at}");
        }
        for cut in 0..good.len() {
            fs::write(&newest, &good[..cut]).unwrap();
            assert!(fallen_back(), "cut at {cut}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let newer = format!("trefoil-manifest 99 {:08x}\n{{}}", checksum(99, b"{}"));
        fs::write(dir.path().join("0000000000000001.json"), newer).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("newer Trefoil"), "{error}");
    }

    #[test]
    fn with_every_generation_damaged_the_directory_is_refused_and_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        commit(&LocalDisk, dir.path(), &manifest(1)).unwrap();
        fs::write(dir.path().join("0000000000000001.json"), "{").unwrap();
        assert_eq!(load(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
