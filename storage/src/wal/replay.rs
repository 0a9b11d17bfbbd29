//! Reading the stream back: every whole frame, whatever stands between them.
//!
//! A torn tail ends a file. A damaged frame costs only itself: the search goes on at the next magic whose checksum
//! holds. Damaged bytes are copied to the quarantine folder before the file is ever deleted.

use super::files::{self, FILE_HEADER_BYTES, FILE_MAGIC, WalFile};
use super::frame::{self, Frame, MAGIC};
use std::fs;
use std::io;
use std::path::Path;

/// What replay found besides frames.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ReplayReport {
    pub frames: u64,
    /// Bytes that belong to no readable frame, torn tails left out.
    pub damaged_bytes: u64,
    /// Position after the last file: where writing may go on.
    pub end: u64,
}

/// Calls `visit(frame, end position)` for each frame that starts at or after `from`, in order.
///
/// * `quarantine`: folder for copies of damaged bytes; made when needed.
///
/// # Errors
/// When a file can't be read at all, is of a newer format, or `visit` fails.
pub fn replay(
    dir: &Path,
    from: u64,
    quarantine: &Path,
    mut visit: impl FnMut(Frame<'_>, u64) -> io::Result<()>,
) -> io::Result<ReplayReport> {
    let mut report = ReplayReport { end: from, ..ReplayReport::default() };
    for file in files::list(dir)? {
        report.end = report.end.max(file.end());
        if file.end() <= from && file.end() > file.start {
            continue;
        }
        replay_file(&file, from, quarantine, &mut report, &mut visit)?;
    }
    Ok(report)
}

fn replay_file(
    file: &WalFile,
    from: u64,
    quarantine: &Path,
    report: &mut ReplayReport,
    visit: &mut impl FnMut(Frame<'_>, u64) -> io::Result<()>,
) -> io::Result<()> {
    let bytes = fs::read(&file.path)?;
    if bytes.starts_with(&FILE_MAGIC[..7]) && bytes.get(7) > Some(&FILE_MAGIC[7]) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{} was written by a newer version of Trefoil", file.path.display()),
        ));
    }
    let mut at = (FILE_HEADER_BYTES as usize).min(bytes.len());
    let position = |at: usize| file.start + (at as u64).saturating_sub(FILE_HEADER_BYTES);
    while at < bytes.len() {
        match frame::decode(&bytes[at..]) {
            Ok((frame, whole)) => {
                if position(at) >= from {
                    visit(frame, position(at + whole))?;
                    report.frames += 1;
                }
                at += whole;
            }
            Err(_) => {
                let next = next_frame(&bytes, at + 1);
                if let Some(next) = next {
                    quarantine_bytes(quarantine, position(at), &bytes[at..next])?;
                    report.damaged_bytes += (next - at) as u64;
                    tracing::warn!(
                        file = %file.path.display(), at, bytes = next - at,
                        "damaged bytes in the write-ahead log; kept in quarantine, the rest is replayed"
                    );
                }
                // Without a later frame this is the torn tail of the last write, never acknowledged.
                at = next.unwrap_or(bytes.len());
            }
        }
    }
    Ok(())
}

/// Offset of the next readable frame at or after `at`.
fn next_frame(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memmem::find(bytes.get(at..)?, &MAGIC)?;
        if frame::decode(&bytes[at..]).is_ok() {
            return Some(at);
        }
        at += 1;
    }
}

fn quarantine_bytes(folder: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("wal-{position:020}.damaged")), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::FrameKind;
    use std::io::Write as _;

    /// Three frames with bodies 0, 1, 2; returns the file's bytes after its header and each frame's end.
    fn three(dir: &Path) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for i in 0..3u8 {
            bytes.extend(frame::encode(FrameKind::OtlpLogs, 1, u128::from(i), &[i; 40]).unwrap());
            ends.push(bytes.len());
        }
        write(dir, &bytes);
        (bytes, ends)
    }

    fn write(dir: &Path, bytes: &[u8]) {
        let mut file = files::create(dir, 0).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn hashes(dir: &Path) -> Vec<u128> {
        let mut found = Vec::new();
        replay(dir, 0, &dir.join("q"), |frame, _| {
            found.push(frame.hash);
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn replay_keeps_every_whole_frame_before_a_tear_at_any_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, ends) = three(dir.path());
        for cut in 0..=bytes.len() {
            write(dir.path(), &bytes[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(hashes(dir.path()).len(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_costs_only_its_frame() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, ends) = three(dir.path());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            write(dir.path(), &damaged);
            let hit = ends.iter().filter(|end| **end <= bit / 8).count() as u128;
            let rest: Vec<u128> = (0..3).filter(|i| *i != hit).collect();
            assert_eq!(hashes(dir.path()), rest, "bit {bit}");
        }
    }

    #[test]
    fn replay_starts_at_the_sealed_position() {
        let dir = tempfile::tempdir().unwrap();
        let (_, ends) = three(dir.path());
        let mut found = Vec::new();
        let report = replay(dir.path(), ends[0] as u64, &dir.path().join("q"), |frame, end| {
            found.push((frame.hash, end));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [(1, ends[1] as u64), (2, ends[2] as u64)]);
        assert_eq!(report, ReplayReport { frames: 2, damaged_bytes: 0, end: ends[2] as u64 });
    }

    #[test]
    fn zeros_garbage_and_an_empty_file_at_the_end_are_no_frames() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, _) = three(dir.path());
        for tail in [vec![0u8; 5000], (0..5000).map(|i| (i * 7) as u8).collect()] {
            write(dir.path(), &[bytes.clone(), tail].concat());
            assert_eq!(hashes(dir.path()), [0, 1, 2]);
        }
        fs::write(dir.path().join("00000000000000009999.wal"), b"").unwrap();
        assert_eq!(hashes(dir.path()), [0, 1, 2]);
    }
}
