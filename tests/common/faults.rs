//! Faults from outside of the server: file systems that can lose their power or fill up, and system calls that fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a command; its output if it succeeds.
fn run(program: &str, arguments: &[&str]) -> Result<Output, String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {words}", arguments.join(" ")))
}

/// A file system of its own in a file, mounted through a loop device; unmounted when dropped.
pub struct LoopDisk {
    folder: tempfile::TempDir,
    mounted: bool,
}

impl LoopDisk {
    /// Makes one of `mebibytes`.
    ///
    /// # Errors
    /// Why this machine can't: not root, no loop devices, a program that is missing.
    pub fn new(kind: &str, mebibytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(mebibytes << 20).map_err(|error| error.to_string())?;
        // No blocks kept for root: full is full.
        let options: &[&str] = if kind == "ext4" { &["-qF", "-m", "0"] } else { &["-q"] };
        run(&format!("mkfs.{kind}"), &[options, &[&*image.to_string_lossy()]].concat())?;
        run("xfs_io", &["-V"])?;
        std::fs::create_dir(folder.path().join("mount")).map_err(|error| error.to_string())?;
        let mut disk = Self { folder, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    fn mount(&mut self) -> Result<(), String> {
        let image = self.folder.path().join("image");
        run("mount", &["-o", "loop", &image.to_string_lossy(), &self.path().to_string_lossy()])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        run("umount", &[&*self.path().to_string_lossy()])?;
        self.mounted = false;
        Ok(())
    }

    /// Takes its power: from now on nothing reaches the disk, and what did not reach it is gone.
    pub fn cut_power(&self) {
        run("xfs_io", &["-x", "-c", "shutdown", &self.path().to_string_lossy()]).unwrap();
    }

    /// Mounts it again after [`cut_power`](Self::cut_power); nobody may have a file open on it.
    pub fn restore_power(&mut self) {
        self.unmount().unwrap();
        self.mount().unwrap();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // A server that a failing test left behind still ends.
            let _ = run("umount", &["-l", &self.path().to_string_lossy()]);
        }
    }
}

/// The words that run a program under strace, with system calls tampered with.
///
/// * `calls`: for example `fdatasync,fsync`.
/// * `tampering`: strace's `inject` expression, such as `signal=KILL:when=3`.
/// * `path`: only calls on this file.
pub fn strace(calls: &str, tampering: &str, path: Option<&Path>) -> Vec<String> {
    let mut words: Vec<String> =
        ["strace", "-f", "-qq", "-o", "/dev/null"].map(str::to_owned).into();
    if let Some(path) = path {
        words.extend(["-P".to_owned(), path.display().to_string()]);
    } else if !tampering.starts_with("signal") {
        // Only these calls stop the program. Signals are not sent in this mode (strace 6.1).
        words.push("--seccomp-bpf".to_owned());
    }
    words.push(format!("--trace={calls}"));
    words.push(format!("--inject={calls}:{tampering}"));
    words
}

/// A file system in memory; unmounted when dropped.
pub struct Tmpfs {
    folder: tempfile::TempDir,
}

impl Tmpfs {
    /// * `options`: mount's, such as `size=128m`.
    ///
    /// # Errors
    /// Why this machine can't: only root may.
    pub fn new(options: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().to_string_lossy().into_owned();
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &path])?;
        Ok(Self { folder })
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.folder.path().to_string_lossy()]);
    }
}
