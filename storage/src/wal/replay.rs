//! Reading the stream back: every whole frame, whatever stands between them.
//!
//! A torn tail ends a file. A damaged frame costs only itself: the search goes on at the next place where a frame's
//! checksums hold. Damaged bytes are copied to the quarantine folder before the file is ever deleted.

use super::files::{self, FILE_HEADER_BYTES, Header, WalFile};
use super::frame::{self, Frame, FrameError, MAGIC};
use crate::disk::Disk;
use std::fs;
use std::io;
use std::path::Path;

/// What replay found besides frames.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ReplayReport {
    pub frames: u64,
    /// Bytes at the end of a file from a write that was cut short, and so never acknowledged.
    pub torn_bytes: u64,
    /// Bytes that belong to no readable frame and are no torn tail.
    pub damaged_bytes: u64,
    /// Bytes of the stream for which there is no file.
    pub missing_bytes: u64,
    /// Position after the last file: where writing may go on.
    pub end: u64,
}

/// Bytes between frames, as [`scan`] tells of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap<'a> {
    Torn(&'a [u8]),
    Damaged(&'a [u8]),
    /// No file holds this part of the stream; its length.
    Missing(u64),
}

/// Calls `visit(frame, end position)` for each frame that starts at or after `from`, in order, and keeps what is
/// damaged in `quarantine`, a folder that is made when needed.
///
/// # Errors
/// When a file can't be read at all, or `visit` fails.
pub fn replay(
    disk: &dyn Disk,
    dir: &Path,
    from: u64,
    quarantine: &Path,
    visit: impl FnMut(Frame<'_>, u64) -> io::Result<()>,
) -> io::Result<ReplayReport> {
    scan(dir, from, visit, |position, gap| match gap {
        Gap::Torn(_) => {}
        Gap::Damaged(bytes) => {
            tracing::warn!(
                position,
                bytes = bytes.len(),
                "damaged bytes in the write-ahead log; kept in quarantine, the rest is replayed"
            );
            files::quarantine(disk, quarantine, &format!("wal-{position:020}.damaged"), bytes);
        }
        Gap::Missing(bytes) => {
            tracing::error!(position, bytes, "a file of the write-ahead log is missing");
        }
    })
}

/// Reads the stream from `from` on, changing nothing: frames go to `visit` with the position after them, what stands
/// between them to `gap` with the position where it begins.
pub fn scan(
    dir: &Path,
    from: u64,
    mut visit: impl FnMut(Frame<'_>, u64) -> io::Result<()>,
    mut gap: impl FnMut(u64, Gap<'_>),
) -> io::Result<ReplayReport> {
    let mut report = ReplayReport { end: from, ..ReplayReport::default() };
    for file in files::list(dir)? {
        if file.start > report.end {
            report.missing_bytes += file.start - report.end;
            gap(report.end, Gap::Missing(file.start - report.end));
        }
        report.end = report.end.max(file.end());
        if file.end() > from {
            scan_file(&file, from, &mut report, &mut visit, &mut gap)?;
        }
    }
    Ok(report)
}

fn scan_file(
    file: &WalFile,
    from: u64,
    report: &mut ReplayReport,
    visit: &mut impl FnMut(Frame<'_>, u64) -> io::Result<()>,
    gap: &mut impl FnMut(u64, Gap<'_>),
) -> io::Result<()> {
    let bytes = fs::read(&file.path)?;
    let mut at = (FILE_HEADER_BYTES as usize).min(bytes.len());
    match files::read_header(&bytes, file.start) {
        Header::Known => {}
        // The file was being made: no frame of it was acknowledged. Were it cut later, the next file would show what
        // is missing.
        Header::Torn => {
            report.torn_bytes += at as u64;
            gap(file.start, Gap::Torn(&bytes[..at]));
        }
        Header::Damaged | Header::Newer => {
            report.damaged_bytes += at as u64;
            gap(file.start, Gap::Damaged(&bytes[..at]));
        }
    }
    let position = |at: usize| file.start + (at as u64).saturating_sub(FILE_HEADER_BYTES);
    while at < bytes.len() {
        match frame::decode(&bytes[at..], position(at)) {
            Ok((frame, whole)) => {
                if position(at) >= from {
                    visit(frame, position(at + whole))?;
                    report.frames += 1;
                }
                at += whole;
            }
            Err(error) => {
                let next = next_frame(&bytes, at + 1, position);
                let lost = &bytes[at..next.unwrap_or(bytes.len())];
                // What a crash leaves of the last write: a prefix, or room that was never filled.
                let torn = next.is_none()
                    && (error == FrameError::Torn || lost.iter().all(|byte| *byte == 0));
                if torn {
                    report.torn_bytes += lost.len() as u64;
                    gap(position(at), Gap::Torn(lost));
                } else if position(at) + lost.len() as u64 > from {
                    report.damaged_bytes += lost.len() as u64;
                    gap(position(at), Gap::Damaged(lost));
                }
                at += lost.len();
            }
        }
    }
    Ok(())
}

/// Offset of the next readable frame at or after `at`.
fn next_frame(bytes: &[u8], mut at: usize, position: impl Fn(usize) -> u64) -> Option<usize> {
    loop {
        at += memchr::memmem::find(bytes.get(at..)?, &MAGIC)?;
        if frame::decode(&bytes[at..], position(at)).is_ok() {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;
    use crate::signal::FrameKind;
    use rand::rngs::StdRng;
    use rand::{RngCore as _, SeedableRng as _};
    use std::io::Write as _;

    /// Three frames with hashes 0, 1, 2; returns the file's bytes after its header and each frame's end.
    fn three(dir: &Path) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for i in 0..3u8 {
            let mut one = frame::encode(FrameKind::OtlpLogs, 1, u128::from(i), &[i; 40]).unwrap();
            frame::place(&mut one, bytes.len() as u64);
            bytes.extend(one);
            ends.push(bytes.len());
        }
        write(dir, &bytes);
        (bytes, ends)
    }

    fn write(dir: &Path, bytes: &[u8]) {
        let mut file = files::create(&LocalDisk, dir, 0).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn hashes(dir: &Path) -> (Vec<u128>, ReplayReport) {
        let mut found = Vec::new();
        let report = replay(&LocalDisk, dir, 0, &dir.join("q"), |frame, _| {
            found.push(frame.hash);
            Ok(())
        });
        (found, report.unwrap())
    }

    fn kept_in_quarantine(dir: &Path) -> Vec<u8> {
        let mut all = Vec::new();
        for entry in fs::read_dir(dir.join("q")).into_iter().flatten() {
            all.extend(fs::read(entry.unwrap().path()).unwrap());
        }
        let _ = fs::remove_dir_all(dir.join("q"));
        all
    }

    #[test]
    fn replay_keeps_every_whole_frame_before_a_tear_at_any_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, ends) = three(dir.path());
        for cut in 0..=bytes.len() {
            write(dir.path(), &bytes[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let (found, report) = hashes(dir.path());
            assert_eq!(found.len(), whole, "cut at {cut}");
            assert_eq!(report.damaged_bytes, 0, "cut at {cut}: a torn write is no damage");
        }
    }

    #[test]
    fn a_file_whose_making_was_cut_short_is_no_damage_and_one_cut_later_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, _) = three(dir.path());
        let end = bytes.len() as u64;
        drop(files::create(&LocalDisk, dir.path(), end).unwrap());
        let whole = fs::read(files::path(dir.path(), end)).unwrap();
        for cut in 0..whole.len() {
            fs::write(files::path(dir.path(), end), &whole[..cut]).unwrap();
            let (found, report) = hashes(dir.path());
            assert_eq!((found.len(), report.torn_bytes), (3, cut as u64));
            assert_eq!((report.damaged_bytes, report.missing_bytes), (0, 0));
        }
        drop(files::create(&LocalDisk, dir.path(), end + 70).unwrap());
        assert_eq!(hashes(dir.path()).1.missing_bytes, 70);
    }

    #[test]
    fn a_flipped_bit_costs_only_its_frame_which_is_kept_in_quarantine() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, ends) = three(dir.path());
        for bit in (0..bytes.len() * 8).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            write(dir.path(), &damaged);
            let hit = ends.iter().filter(|end| **end <= bit / 8).count();
            let rest: Vec<u128> = (0..3).filter(|i| *i != hit as u128).collect();
            let (found, report) = hashes(dir.path());
            assert_eq!(found, rest, "bit {bit}");
            let start = if hit == 0 { 0 } else { ends[hit - 1] };
            assert_eq!(report.damaged_bytes, (ends[hit] - start) as u64, "bit {bit}");
            assert!(kept_in_quarantine(dir.path()) == damaged[start..ends[hit]], "bit {bit}");
        }
    }

    #[test]
    fn a_flipped_bit_in_a_file_header_costs_no_frame() {
        let dir = tempfile::tempdir().unwrap();
        three(dir.path());
        let path = files::list(dir.path()).unwrap()[0].path.clone();
        let good = fs::read(&path).unwrap();
        for bit in (0..FILE_HEADER_BYTES as usize * 8).step_by(3) {
            let mut damaged = good.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &damaged).unwrap();
            files::refuse_newer(dir.path()).unwrap();
            let (found, report) = hashes(dir.path());
            assert_eq!(found, [0, 1, 2], "bit {bit}");
            assert_eq!(report.damaged_bytes, FILE_HEADER_BYTES);
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = b"TREFWAL2".to_vec();
        header.extend_from_slice(&7u64.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        fs::write(dir.path().join("00000000000000000007.wal"), header).unwrap();
        let error = files::refuse_newer(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("--data-dir"), "{error}");
    }

    #[test]
    fn replay_starts_at_the_sealed_position() {
        let dir = tempfile::tempdir().unwrap();
        let (_, ends) = three(dir.path());
        let mut found = Vec::new();
        let from = ends[0] as u64;
        let report = replay(&LocalDisk, dir.path(), from, &dir.path().join("q"), |frame, end| {
            found.push((frame.hash, end));
            Ok(())
        });
        assert_eq!(found, [(1, ends[1] as u64), (2, ends[2] as u64)]);
        let expected = ReplayReport { frames: 2, end: ends[2] as u64, ..ReplayReport::default() };
        assert_eq!(report.unwrap(), expected);
    }

    #[test]
    fn zeros_garbage_and_an_empty_file_at_the_end_are_no_frames() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, _) = three(dir.path());
        write(dir.path(), &[bytes.clone(), vec![0u8; 5000]].concat());
        assert_eq!(hashes(dir.path()).1.torn_bytes, 5000, "room that was never filled");
        let garbage = (0..5000).map(|i| (i * 7) as u8).collect();
        write(dir.path(), &[bytes.clone(), garbage].concat());
        let (found, report) = hashes(dir.path());
        assert_eq!((found, report.damaged_bytes), (vec![0, 1, 2], 5000));
        fs::write(dir.path().join(format!("{:020}.wal", bytes.len() + 5000)), b"").unwrap();
        assert_eq!(hashes(dir.path()).0, [0, 1, 2]);
    }

    #[test]
    fn a_missing_file_is_told_and_the_files_after_it_are_replayed() {
        let dir = tempfile::tempdir().unwrap();
        let mut frames = Vec::new();
        for position in [100u64, 500] {
            let mut one = frame::encode(FrameKind::OtlpLogs, 1, 5, b"x").unwrap();
            frame::place(&mut one, position);
            files::create(&LocalDisk, dir.path(), position).unwrap().write_all(&one).unwrap();
            frames.push(one);
        }
        let (found, report) = hashes(dir.path());
        assert_eq!(found, [5, 5]);
        assert_eq!(report.missing_bytes, 100 + (400 - frames[0].len() as u64));
    }

    #[test]
    fn a_frame_hidden_in_a_damaged_body_is_not_replayed() {
        let dir = tempfile::tempdir().unwrap();
        let mut inner = frame::encode(FrameKind::OtlpLogs, 1, 66, b"hidden").unwrap();
        frame::place(&mut inner, 0);
        // Random bytes before it keep zstd from compressing, so that the inner frame stands in the file as it is.
        let mut body = vec![0; 4000];
        StdRng::seed_from_u64(1).fill_bytes(&mut body);
        body.extend_from_slice(&inner);
        let mut outer = frame::encode(FrameKind::OtlpLogs, 1, 1, &body).unwrap();
        frame::place(&mut outer, 0);
        assert!(memchr::memmem::find(&outer, &inner).is_some());
        outer[60] ^= 1;
        write(dir.path(), &outer);
        assert_eq!(hashes(dir.path()).0, Vec::<u128>::new());
    }
}
