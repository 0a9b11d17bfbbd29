//! `trefoil check`: reads a whole data directory, changing nothing, and tells what is wrong with it.
//!
//! Every listed file is read from end to end against its checksum and opened by its store, which compares row counts;
//! the log's frames are unpacked and hashed; the books are balanced against the segments. A store may be running on
//! the directory meanwhile: a file that it deletes during the check is no fault.

use crate::dedup;
use crate::manifest::{self, Manifest, Quarantined};
use crate::segment::{SegmentDir, SegmentFile, SegmentMeta};
use crate::signal::StoreSet;
use crate::wal::files;
use crate::wal::replay::{self, Gap};
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128_with_seed;

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
/// * `stores`: fresh ones, which open every segment.
///
/// # Errors
/// When the directory can't be read at all: not there, no readable manifest, a newer format.
pub fn check(data_dir: &Path, stores: &dyn StoreSet) -> io::Result<Report> {
    let manifest_dir = data_dir.join("manifest");
    let wal_dir = data_dir.join("wal");
    if !manifest_dir.is_dir() || !wal_dir.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is no data directory of Trefoil", data_dir.display()),
        ));
    }
    files::refuse_newer(&wal_dir)?;
    let mut report = Report::default();
    let loaded = manifest::load(&manifest_dir)?;
    let Some(current) = loaded.current else { return Ok(report) };
    for (_, path) in manifest::generations(&manifest_dir)? {
        if let Err(error) = manifest::read(&path) {
            report.fault(path, error.to_string());
        }
    }
    report.generation = current.generation;
    report.quarantined = current.quarantined.clone();
    check_window(&manifest_dir, &current, &mut report);
    check_segments(data_dir, &current, loaded.previous.as_ref(), stores, &mut report)?;
    check_wal(&wal_dir, &current, &mut report)?;
    check_books(&manifest_dir, &current, &mut report);
    forgive_deleted(&manifest_dir, &current, &mut report);
    Ok(report)
}

fn check_window(manifest_dir: &Path, current: &Manifest, report: &mut Report) {
    let generation = current.window_generation;
    if generation > 0 {
        let path = manifest_dir.join(format!("{generation:016}.dedup"));
        if let Err(error) = fs::read(&path).and_then(|saved| dedup::check(&saved)) {
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
        for file in &meta.files {
            if let Err(what) = verify_file(&dir, meta, file) {
                report.fault(dir.file_path(meta, &file.extension), what);
            }
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
    // What only the generation before names is its fall-back: it must be whole too, as far as it still stands.
    let live: HashSet<u64> = current.segments.iter().map(|meta| meta.id).collect();
    for meta in previous.iter().flat_map(|p| &p.segments).filter(|meta| !live.contains(&meta.id)) {
        for file in &meta.files {
            let path = dir.file_path(meta, &file.extension);
            if path.exists()
                && let Err(what) = verify_file(&dir, meta, file)
            {
                report.fault(path, what);
            }
        }
    }
    Ok(())
}

fn check_wal(wal_dir: &Path, current: &Manifest, report: &mut Report) -> io::Result<()> {
    let names = files::list(wal_dir)?;
    let file_at = |position: u64| {
        let holds = names.iter().rev().find(|file| file.start <= position);
        holds.map_or(wal_dir.to_owned(), |file| file.path.clone())
    };
    let mut faults: Vec<Fault> = Vec::new();
    let mut bad_frames: Vec<Fault> = Vec::new();
    let scanned = replay::scan(
        wal_dir,
        current.wal_position,
        |frame, end| {
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
    report.wal_frames = scanned.frames;
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

/// Takes back faults of files that a running store has deleted or moved since its manifest was read.
fn forgive_deleted(manifest_dir: &Path, then: &Manifest, report: &mut Report) {
    let newer = manifest::load(manifest_dir).ok().and_then(|loaded| loaded.current);
    if newer.is_some_and(|now| now.generation > then.generation) {
        report.faults.retain(|fault| fault.file.exists());
    }
}

/// Compares a segment's files with what the manifest says of them; one line for each that differs.
pub(crate) fn verify_files(dir: &SegmentDir, meta: &SegmentMeta) -> Vec<String> {
    let faults = meta.files.iter().filter_map(|file| {
        verify_file(dir, meta, file).err().map(|what| format!("{}: {what}", file.extension))
    });
    faults.collect()
}

fn verify_file(dir: &SegmentDir, meta: &SegmentMeta, file: &SegmentFile) -> Result<(), String> {
    let mut reader =
        File::open(dir.file_path(meta, &file.extension)).map_err(|error| error.to_string())?;
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                crc.update(&buffer[..n]);
                bytes += n as u64;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    if bytes != file.bytes {
        return Err(format!("{bytes} bytes long, the manifest says {}", file.bytes));
    }
    if crc.finalize() != file.crc32 {
        return Err("checksum does not match".to_owned());
    }
    Ok(())
}
