//! Every change the store makes to files, behind one trait, so that a test can make any step fail, stop the world
//! there, or lose what was not synced. Reading goes through `std::fs` directly.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// The changes a store makes to its data directory.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes or empties a file. Its name is durable only after [`sync_dir`](Self::sync_dir) on its folder.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in one step, in place of what has that name. Durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes one folder; no error when it is there already.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// A file open for writing.
pub trait DiskFile: Write + fmt::Debug + Send {
    /// Makes the bytes written so far, and the length, durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub free: u64,
    pub total: u64,
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            outcome => outcome,
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stats = fs4::statvfs(path)?;
        Ok(Space { free: stats.available_space(), total: stats.total_space() })
    }
}

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The disk that a store uses unless told otherwise.
pub fn local() -> Arc<dyn Disk> {
    Arc::new(LocalDisk)
}

/// Makes a folder below one that exists, durably. One that is there already is made durable, too: it may be left from
/// a try whose sync failed.
pub fn make_dir(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        disk.create_dir(path)?;
    }
    path.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))
}

/// Writes a file that appears whole or not at all; durable on return.
pub fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let written = disk.create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync()
    });
    if let Err(error) = written.and_then(|()| disk.rename(&temporary, path)) {
        // What stays behind is removed at the next start.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    path.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))
}
