//! The files of the stream: `wal/<position>.wal`, each a 16-byte header and then frames.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// First bytes of every file: name and format version.
pub const FILE_MAGIC: [u8; 8] = *b"TREFWAL1";

/// Magic and the position of the first frame.
pub const FILE_HEADER_BYTES: u64 = 16;

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

/// Makes the file whose first frame will stand at `start`; the file and its name are durable on return.
pub fn create(dir: &Path, start: u64) -> io::Result<File> {
    let path = dir.join(format!("{start:020}.wal"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(&FILE_MAGIC)?;
    file.write_all(&start.to_le_bytes())?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

/// Deletes files that end at or before `position`, never one that starts at `keep_from` or later.
/// Returns how many bytes remain before `keep_from`.
pub fn truncate(dir: &Path, position: u64, keep_from: u64) -> io::Result<u64> {
    let mut remaining = 0;
    for file in list(dir)? {
        if file.start >= keep_from {
            continue;
        }
        if file.end() <= position {
            fs::remove_file(&file.path)?;
        } else {
            remaining += file.bytes;
        }
    }
    Ok(remaining)
}
