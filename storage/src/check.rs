//! `trefoil check`: reads a whole data directory, changing nothing, and tells what is wrong with it.
//!
//! Every listed file is read from end to end against its checksum and opened by its store, which compares row counts;
//! the log's frames are unpacked and hashed; the books are balanced against the segments. What only the generation
//! before needs is read too: it is what a damaged newest one falls back to.
//!
//! A store may be running on the directory meanwhile: where it commits a change during the check, faults found by then
//! may be files that it has deleted since, so the check looks again.

use crate::commit::quarantined_name;
use crate::manifest::{self, Manifest, Quarantined};
use crate::segment::{SegmentDir, SegmentMeta};
use crate::signal::StoreSet;
use crate::wal::files;
use crate::wal::replay::{self, Gap};
use crate::window_file;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Looks at a directory that keeps changing: a store commits at most every few seconds.
const LOOKS_MAX: usize = 5;

/// What a check found.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    pub generation: u64,
    /// Segments, rows and bytes by signal.
    pub segments: BTreeMap<&'static str, Totals>,
    /// Frames of the log that a start would replay.
    pub wal_frames: u64,
    /// Bytes of writes that were cut short and never acknowledged; no fault.
    pub wal_torn_bytes: u64,
    /// What the store has set aside already.
    pub quarantined: Vec<Quarantined>,
    pub faults: Vec<Fault>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    pub segments: u64,
    pub rows: u64,
    pub bytes: u64,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    pub file: PathBuf,
    pub what: String,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, file: impl Into<PathBuf>, what: impl Into<String>) {
        self.faults.push(Fault { file: file.into(), what: what.into() });
    }
}

/// Checks a data directory.
///
/// * `stores`: makes fresh ones, which open every segment.
///
/// # Errors
/// When the directory can't be read at all: not there, no readable manifest, a newer format.
pub fn check(data_dir: &Path, stores: &dyn Fn() -> Arc<dyn StoreSet>) -> io::Result<Report> {
    let manifest_dir = data_dir.join("manifest");
    if !manifest_dir.is_dir() || !data_dir.join("wal").is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{} is no data directory of Trefoil: name one with --data-dir",
                data_dir.display()
            ),
        ));
    }
    let mut look = 1;
    loop {
        let report = check_once(data_dir, &*stores());
        let faults = report.as_ref().map_or(1, |report| report.faults.len());
        let generation = report.as_ref().map_or(0, |report| report.generation);
        let now = newest_generation(&manifest_dir);
        if faults == 0 || now <= generation || look == LOOKS_MAX {
            return report;
        }
        look += 1;
    }
}

/// The newest sound generation; 0 when there is none.
fn newest_generation(manifest_dir: &Path) -> u64 {
    let loaded = manifest::load(manifest_dir);
    loaded.ok().and_then(|loaded| loaded.current).map_or(0, |manifest| manifest.generation)
}

fn check_once(data_dir: &Path, stores: &dyn StoreSet) -> io::Result<Report> {
    let manifest_dir = data_dir.join("manifest");
    let wal_dir = data_dir.join("wal");
    files::refuse_newer(&wal_dir)?;
    let mut report = Report::default();
    let loaded = manifest::load(&manifest_dir)?;
    // A directory whose first manifest was never written holds nothing.
    let Some(current) = loaded.current else { return Ok(report) };
    report.generation = current.generation;
    report.quarantined = current.quarantined.clone();
    check_manifests(&manifest_dir, &current, &mut report)?;
    check_windows(&manifest_dir, &current, loaded.previous.as_ref(), &mut report);
    check_segments(data_dir, &current, loaded.previous.as_ref(), stores, &mut report)?;
    check_wal(&wal_dir, &current, loaded.previous.as_ref(), &mut report)?;
    check_books(&manifest_dir, &current, &mut report);
    Ok(report)
}

/// Both generations must be sound: the newest counts, the one before takes its place when it is damaged.
fn check_manifests(manifest_dir: &Path, current: &Manifest, report: &mut Report) -> io::Result<()> {
    let all = manifest::generations(manifest_dir)?;
    for (_, path) in &all {
        if let Err(error) = manifest::read(path) {
            report.fault(path, error.to_string());
        }
    }
    // The first generation of a directory has none before it.
    if all.len() < 2 && current.generation > 1 {
        report.fault(
            manifest_dir,
            format!(
                "generation {} stands alone; another one should stand beside it",
                current.generation
            ),
        );
    }
    Ok(())
}

fn check_windows(
    manifest_dir: &Path,
    current: &Manifest,
    previous: Option<&Manifest>,
    report: &mut Report,
) {
    let mut generations = vec![current.window_generation];
    generations.extend(previous.map(|p| p.window_generation));
    generations.dedup();
    for generation in generations.into_iter().filter(|generation| *generation > 0) {
        let path = window_file::path(manifest_dir, generation);
        if let Err(error) = fs::read(&path).and_then(|saved| window_file::decode(&saved).1) {
            report.fault(path, error.to_string());
        }
    }
}

fn check_segments(
    data_dir: &Path,
    current: &Manifest,
    previous: Option<&Manifest>,
    stores: &dyn StoreSet,
    report: &mut Report,
) -> io::Result<()> {
    let root = data_dir.join("segments");
    if !root.is_dir() {
        if !current.segments.is_empty() {
            report.fault(root, "the folder is missing");
        }
        return Ok(());
    }
    let dir = SegmentDir::new(root, current.next_segment_id)?;
    let mut sound: Vec<SegmentMeta> = Vec::new();
    for meta in &current.segments {
        let totals = report.segments.entry(meta.signal.name()).or_default();
        totals.segments += 1;
        totals.rows += meta.rows;
        totals.bytes += meta.bytes();
        let before = report.faults.len();
        for (path, what) in verify_segment(&dir, meta)? {
            report.fault(path, what);
        }
        if report.faults.len() == before {
            sound.push(meta.clone());
        }
    }
    for store in stores.signals() {
        let metas: Vec<SegmentMeta> =
            sound.iter().filter(|meta| meta.signal == store.signal()).cloned().collect();
        let failed = store.open(&dir, &metas);
        for (meta, error) in &failed {
            report.fault(dir.file_path(meta, "parquet"), error.to_string());
        }
        for meta in metas.iter().filter(|meta| !failed.iter().any(|(bad, _)| bad.id == meta.id)) {
            let lines = store.examine(&dir, meta).unwrap_or_else(|error| vec![error.to_string()]);
            lines.into_iter().for_each(|what| report.fault(dir.file_path(meta, "parquet"), what));
        }
    }
    let live: HashSet<u64> = current.segments.iter().map(|meta| meta.id).collect();
    let set_aside: HashSet<&str> = current.quarantined.iter().map(|q| q.file.as_str()).collect();
    let needed = |meta: &&SegmentMeta| {
        !live.contains(&meta.id) && !set_aside.contains(&*quarantined_name(meta))
    };
    for meta in previous.iter().flat_map(|p| &p.segments).filter(needed) {
        for (path, what) in verify_segment(&dir, meta)? {
            report.fault(path, what);
        }
    }
    Ok(())
}

fn check_wal(
    wal_dir: &Path,
    current: &Manifest,
    previous: Option<&Manifest>,
    report: &mut Report,
) -> io::Result<()> {
    let names = files::list(wal_dir)?;
    let file_at = |position: u64| {
        let holds = names.iter().rev().find(|file| file.start <= position);
        holds.map_or(wal_dir.to_owned(), |file| file.path.clone())
    };
    let from = previous.map_or(current.wal_position, |p| p.wal_position.min(current.wal_position));
    let mut faults: Vec<Fault> = Vec::new();
    let mut bad_frames: Vec<Fault> = Vec::new();
    let mut replayed = 0;
    let scanned = replay::scan(
        wal_dir,
        from,
        |frame, end| {
            replayed += u64::from(end > current.wal_position);
            let hash = frame.body().map(|body| xxh3_128_with_seed(&body, frame.kind as u64));
            let what = match hash {
                Ok(hash) if hash == frame.hash => return Ok(()),
                Ok(_) => "a frame's content does not have its hash".to_owned(),
                Err(error) => format!("a frame can't be unpacked: {error}"),
            };
            bad_frames
                .push(Fault { file: file_at(end - 1), what: format!("{what} (ends at {end})") });
            Ok(())
        },
        |position, gap| match gap {
            Gap::Torn(_) => {}
            Gap::Damaged(bytes) => faults.push(Fault {
                file: file_at(position),
                what: format!("{} damaged bytes at position {position}", bytes.len()),
            }),
            Gap::Missing(bytes) => faults.push(Fault {
                file: wal_dir.to_owned(),
                what: format!("{bytes} bytes from position {position} on are missing"),
            }),
        },
    )?;
    report.wal_frames = replayed;
    report.wal_torn_bytes = scanned.torn_bytes;
    report.faults.extend(faults);
    report.faults.extend(bad_frames);
    Ok(())
}

/// `stored = live + expired + deleted + quarantined`, live being the rows of the listed segments.
fn check_books(manifest_dir: &Path, current: &Manifest, report: &mut Report) {
    for (signal, account) in current.ledger.accounts() {
        let rows: u64 =
            current.segments.iter().filter(|m| m.signal == signal).map(|m| m.rows).sum();
        if rows != account.live() {
            let path = manifest_dir.join(format!("{:016}.json", current.generation));
            let signal = signal.name();
            report.fault(
                path,
                format!("{signal}: segments hold {rows} rows, the ledger says {}", account.live()),
            );
        }
    }
}

/// errno(3) values of a shortage, the same on every Linux: they say nothing about a file.
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// Whether an error comes from too little memory or too few descriptors, and not from what was opened.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE))
}

/// Whether an error says that the file is not what was written, rather than that it can't be read now.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
}

/// Compares a segment's files with what the manifest says of them; returns each that differs, with the reason.
///
/// # Errors
/// When there is too little memory, or too few descriptors, to tell.
pub(crate) fn verify_segment(
    dir: &SegmentDir,
    meta: &SegmentMeta,
) -> io::Result<Vec<(PathBuf, String)>> {
    let mut faults = Vec::new();
    for file in &meta.files {
        let path = dir.file_path(meta, &file.extension);
        let what = match read_file(&path) {
            Ok((bytes, _)) if bytes != file.bytes => {
                format!("{bytes} bytes long, the manifest says {}", file.bytes)
            }
            Ok((_, crc32)) if crc32 != file.crc32 => "checksum does not match".to_owned(),
            Ok(_) => continue,
            Err(error) if is_shortage(&error) => return Err(error),
            Err(error) => error.to_string(),
        };
        faults.push((path, what));
    }
    Ok(faults)
}

/// Length and CRC-32 of a file.
fn read_file(path: &Path) -> io::Result<(u64, u32)> {
    let mut reader = File::open(path)?;
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((bytes, crc.finalize())),
            n => {
                crc.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}
