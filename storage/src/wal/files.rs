//! The files of the stream: `wal/<position>.wal`, each a header and then frames.

use crate::disk::{self, Disk, DiskFile};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// First bytes of every file; the format version follows.
const FILE_MAGIC: [u8; 7] = *b"TREFWAL";

/// Version of the stream's format.
const FILE_VERSION: u8 = b'1';

/// Magic and version, the position of the first frame, and a CRC-32 of these. Later versions keep this much.
pub const FILE_HEADER_BYTES: u64 = 20;

/// One file of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFile {
    /// Position of the first frame.
    pub start: u64,
    pub path: PathBuf,
    /// Bytes on disk, header included.
    pub bytes: u64,
}

impl WalFile {
    /// Position after the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.saturating_sub(FILE_HEADER_BYTES)
    }
}

/// All files in order of position.
pub fn list(dir: &Path) -> io::Result<Vec<WalFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let start = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".wal"))
            .and_then(|digits| digits.parse().ok());
        if let Some(start) = start {
            files.push(WalFile { start, path, bytes: entry.metadata()?.len() });
        }
    }
    files.sort_by_key(|file| file.start);
    Ok(files)
}

/// Where the file is whose first frame stands at `start`.
pub fn path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.wal"))
}

fn header(start: u64) -> Vec<u8> {
    let mut bytes = FILE_MAGIC.to_vec();
    bytes.push(FILE_VERSION);
    bytes.extend_from_slice(&start.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// What the first bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    Known,
    /// Shorter than a header: the file was being made.
    Torn,
    /// Not the header that a file of this name has. Its frames speak for themselves.
    Damaged,
    /// Whole, and of a later version.
    Newer,
}

/// Judges the first bytes of a file whose name says `start`.
pub fn read_header(bytes: &[u8], start: u64) -> Header {
    let Some(found) = bytes.get(..FILE_HEADER_BYTES as usize) else { return Header::Torn };
    if found == header(start) {
        return Header::Known;
    }
    let crc = u32::from_le_bytes(found[16..].try_into().expect("4 bytes"));
    let whole = found.starts_with(&FILE_MAGIC) && crc32fast::hash(&found[..16]) == crc;
    if whole && found[7] > FILE_VERSION { Header::Newer } else { Header::Damaged }
}

/// Refuses a folder that holds a file of a newer version, before anything is changed.
pub fn refuse_newer(dir: &Path) -> io::Result<()> {
    for file in list(dir)? {
        let mut bytes = Vec::new();
        fs::File::open(&file.path)?.take(FILE_HEADER_BYTES).read_to_end(&mut bytes)?;
        if read_header(&bytes, file.start) == Header::Newer {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{} was written by a newer version of Trefoil: use that one or another --data-dir",
                    file.path.display()
                ),
            ));
        }
    }
    Ok(())
}

/// Makes the file whose first frame will stand at `start`; the file and its name are durable on return.
pub fn create(disk: &dyn Disk, dir: &Path, start: u64) -> io::Result<Box<dyn DiskFile>> {
    let path = path(dir, start);
    let mut file = disk.create(&path)?;
    let made = file.write_all(&header(start)).and_then(|()| file.sync());
    if let Err(error) = made.and_then(|()| disk.sync_dir(dir)) {
        // It holds no frame, and must not stand in the way of the next attempt.
        let _ = disk.remove(&path);
        return Err(error);
    }
    Ok(file)
}

/// Deletes files that end at or before `position`, never one that starts at `keep_from` or later.
/// Returns the bytes of all files that stay.
pub fn truncate(disk: &dyn Disk, dir: &Path, position: u64, keep_from: u64) -> io::Result<u64> {
    let mut kept = 0;
    for file in list(dir)? {
        if file.start < keep_from && file.end() <= position {
            disk.remove(&file.path)?;
        } else {
            kept += file.bytes;
        }
    }
    Ok(kept)
}

/// Sets bytes aside that belong to no frame, best effort: that they are damaged must not stop a start.
pub fn quarantine(disk: &dyn Disk, folder: &Path, name: &str, bytes: &[u8]) {
    let kept = disk::make_dir(disk, folder)
        .and_then(|()| disk::write_whole(disk, &folder.join(name), bytes));
    if let Err(error) = kept {
        tracing::error!(%error, name, "damaged bytes could not be copied to quarantine");
    }
}
