//! The manifest: which segments live, and up to which position of the write-ahead log they hold everything.
//!
//! `manifest/<generation>.json`, first line `trefoil-manifest <format> <crc32 of the rest, hex>`. Replacing it is the
//! commit point of seal, compaction and retention. The previous generation stays, with all it needs, so that a
//! damaged newest one loses nothing.

use crate::ledger::Ledger;
use crate::segment::SegmentMeta;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Version of the data directory's format; a newer one is refused, not guessed at.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub generation: u64,
    /// All frames that end at or before this position are in the segments below.
    pub wal_position: u64,
    pub next_segment_id: u64,
    /// As of `wal_position`, plus retention and deletion up to this generation.
    pub ledger: Ledger,
    pub segments: Vec<SegmentMeta>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            generation: 0,
            wal_position: 0,
            next_segment_id: 1,
            ledger: Ledger::default(),
            segments: Vec::new(),
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

/// Writes a generation durably, then deletes all but it and the one before.
pub fn commit(dir: &Path, manifest: &Manifest) -> io::Result<()> {
    let body = serde_json::to_vec(manifest)?;
    let name = format!("{:016}.json", manifest.generation);
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    writeln!(file, "trefoil-manifest {FORMAT} {:08x}", crc32fast::hash(&body))?;
    file.write_all(&body)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()?;
    for (generation, path) in generations(dir)? {
        if generation + 1 < manifest.generation {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Manifest files, oldest first.
pub fn generations(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let generation = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".json"))
            .and_then(|digits| digits.parse().ok());
        if let Some(generation) = generation {
            found.push((generation, path));
        }
    }
    found.sort();
    Ok(found)
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
    if format > FORMAT {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the data directory has format {format}, this version of Trefoil reads up to {FORMAT}: \
                 use a newer Trefoil or another --data-dir"
            ),
        ));
    }
    let crc = words.next().and_then(|w| u32::from_str_radix(w, 16).ok());
    let body = &bytes[line_end + 1..];
    if crc != Some(crc32fast::hash(body)) {
        return Err(invalid("checksum does not match"));
    }
    serde_json::from_slice(body).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(generation: u64) -> Manifest {
        Manifest { generation, wal_position: generation * 10, ..Manifest::default() }
    }

    #[test]
    fn every_flip_and_cut_of_the_newest_falls_back_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        for generation in 1..=3 {
            commit(dir.path(), &manifest(generation)).unwrap();
        }
        assert_eq!(generations(dir.path()).unwrap().len(), 2);
        let newest = dir.path().join("0000000000000003.json");
        let good = fs::read(&newest).unwrap();
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 0x10;
            fs::write(&newest, &damaged).unwrap();
            match load(dir.path()) {
                Ok(loaded) => assert_eq!(loaded.current, Some(manifest(2)), "flip at {at}"),
                // The format number itself may be hit and read as a newer one: refused, not guessed.
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "flip at {at}"),
            }
            fs::write(&newest, &good[..at]).unwrap();
            assert_eq!(load(dir.path()).unwrap().current, Some(manifest(2)), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0000000000000001.json"), "trefoil-manifest 99 0\n{}").unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("newer Trefoil"), "{error}");
    }
}
