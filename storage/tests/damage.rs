//! A data directory is damaged at one place, then opened: what was not damaged is there, nothing panics, and the books
//! balance.
//!
//! Sizes are those of `make test`; `TREFOIL_TORTURE` makes them those of a release.

mod support;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::ids::{IdDecoder, IdStores, body};
use tempfile::TempDir;
use trefoil_storage::config::Config;
use trefoil_storage::disk::LocalDisk;
use trefoil_storage::signal::{FrameKind, Signal};
use trefoil_storage::store::Store;
use trefoil_storage::wal::replay;

/// Requests in the log, of three records each.
const REQUESTS: u64 = 400;

fn rounds(everyday: usize, torture: usize) -> usize {
    if std::env::var_os("TREFOIL_TORTURE").is_some() { torture } else { everyday }
}

fn temporary_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn open(folder: &Path) -> (Store, Arc<IdStores>) {
    let stores = Arc::new(IdStores::new());
    let mut config = Config::new(folder);
    config.retention = None;
    (Store::open(config, stores.clone(), Arc::new(IdDecoder)).unwrap(), stores)
}

/// The ids that queries see after a start; the books must balance.
fn seen(folder: &Path) -> BTreeSet<u64> {
    let (store, stores) = open(folder);
    let ids = stores.of(Signal::Logs).visible();
    let account = store.stats().ledger.logs;
    assert_eq!(account.live(), ids.len() as u64, "{account:?}");
    let set: BTreeSet<u64> = ids.iter().copied().collect();
    assert_eq!(set.len(), ids.len(), "no record twice");
    set
}

fn ids_of(request: u64) -> [u64; 3] {
    [request * 3, request * 3 + 1, request * 3 + 2]
}

/// A directory with `REQUESTS` acknowledged requests in the log; the log's file.
fn logged() -> (TempDir, PathBuf) {
    let folder = temporary_folder();
    let (store, _) = open(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for request in 0..REQUESTS {
        let appended = store.append(FrameKind::OtlpLogs, body(&ids_of(request)), 1_000 + request);
        runtime.block_on(appended).unwrap();
    }
    drop(store);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.path().join("wal")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    (folder, files.remove(0))
}

/// Where each frame ends in the log's file.
fn frame_ends(wal: &Path) -> Vec<usize> {
    let mut ends = Vec::new();
    let quarantine = wal.join("nowhere");
    replay::replay(&LocalDisk, wal, 0, &quarantine, |_, end| {
        ends.push(end as usize + 20);
        Ok(())
    })
    .unwrap();
    ends
}

/// Opens a copy whose log was changed.
fn with_log(folder: &TempDir, log: &Path, change: impl FnOnce(&mut Vec<u8>)) -> BTreeSet<u64> {
    let damaged = temporary_folder();
    copy(folder.path(), damaged.path());
    let path = damaged.path().join("wal").join(log.file_name().unwrap());
    let mut bytes = fs::read(log).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    seen(damaged.path())
}

#[test]
fn a_log_torn_at_any_byte_keeps_every_whole_frame_before_the_tear() {
    let (folder, log) = logged();
    let ends = frame_ends(&folder.path().join("wal"));
    let length = fs::metadata(&log).unwrap().len() as usize;
    let step = length / rounds(60, length).min(length);
    let mut random = StdRng::seed_from_u64(1);
    for cut in (0..=length).step_by(step.max(1)).chain([0, 1, 19, 20, 21, length - 1]) {
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
        let expected: BTreeSet<u64> = (0..whole).flat_map(ids_of).collect();
        let tail = random.random_range(0..3);
        let found = with_log(&folder, &log, |bytes| {
            bytes.truncate(cut);
            match tail {
                0 => {}
                1 => bytes.resize(cut + 5_000, 0),
                _ => bytes.extend((0..5_000).map(|_| random.random::<u8>())),
            }
        });
        assert!(found == expected, "cut at {cut}, tail {tail}: {} records", found.len());
    }
}

#[test]
fn a_flipped_bit_in_the_log_costs_at_most_its_frame() {
    let (folder, log) = logged();
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let ends = frame_ends(&folder.path().join("wal"));
    for _ in 0..rounds(100, 2_000) {
        let (mut at, mut bit) = (0, 0);
        let found = with_log(&folder, &log, |bytes| {
            at = random.random_range(0..bytes.len());
            bit = random.random_range(0..8);
            bytes[at] ^= 1 << bit;
        });
        // The first 20 bytes are the file's header, which no frame needs.
        let hit = (at >= 20).then(|| ends.iter().filter(|end| **end <= at).count() as u64);
        let expected: BTreeSet<u64> =
            (0..REQUESTS).filter(|request| Some(*request) != hit).flat_map(ids_of).collect();
        assert!(found == expected, "seed {seed}: bit {bit} of byte {at}: {} records", found.len());
    }
}

#[test]
fn an_empty_file_a_missing_one_and_damaged_frames_are_told_and_kept_aside() {
    let (folder, log) = logged();
    let found = with_log(&folder, &log, Vec::clear);
    assert_eq!(found.len(), 0);

    let damaged = temporary_folder();
    copy(folder.path(), damaged.path());
    let path = damaged.path().join("wal").join(log.file_name().unwrap());
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (store, _) = open(damaged.path());
    let stats = store.stats();
    assert!(stats.wal_damaged_bytes > 0);
    assert!(stats.quarantined[0].file.starts_with("wal"), "{:?}", stats.quarantined);
    assert!(fs::read_dir(damaged.path().join("quarantine")).unwrap().count() > 0);
    drop(store);

    fs::remove_file(path).unwrap();
    assert_eq!(seen(damaged.path()).len(), 0);
}

#[test]
fn a_damaged_manifest_falls_back_to_the_generation_before_and_nothing_is_lost() {
    let folder = temporary_folder();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (store, _) = open(folder.path());
    for request in 0..60 {
        let appended = store.append(FrameKind::OtlpLogs, body(&ids_of(request)), 1_000 + request);
        runtime.block_on(appended).unwrap();
        if request % 10 == 5 {
            store.seal_now().unwrap();
        }
        if request == 40 {
            store.compact_now().unwrap();
        }
    }
    drop(store);
    let expected: BTreeSet<u64> = (0..60).flat_map(ids_of).collect();
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..rounds(60, 500) {
        let damaged = temporary_folder();
        copy(folder.path(), damaged.path());
        let mut generations: Vec<PathBuf> = fs::read_dir(damaged.path().join("manifest"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        generations.sort();
        let path = &generations[random.random_range(0..generations.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = random.random_range(0..bytes.len());
        let told = if random.random() {
            bytes.truncate(at);
            format!("seed {seed}: {} cut at {at}", path.display())
        } else {
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("seed {seed}: {} flipped at {at}", path.display())
        };
        fs::write(path, bytes).unwrap();
        assert!(seen(damaged.path()) == expected, "{told}");
        // And it can go on from there.
        let (store, stores) = open(damaged.path());
        let more = store.append(FrameKind::OtlpLogs, body(&[9_999]), 5_000);
        runtime.block_on(more).unwrap();
        store.seal_now().unwrap();
        store.compact_now().unwrap();
        assert_eq!(stores.of(Signal::Logs).visible().len(), expected.len() + 1, "{told}");
        drop(store);
        assert_eq!(seen(damaged.path()).len(), expected.len() + 1, "{told}");
    }
}
