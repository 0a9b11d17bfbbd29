//! `trefoil check` over a data directory in which faults were planted: it finds each of them and nothing else, and
//! `--repair` leaves a directory without any.

mod common;

use common::filled::{self, HOURS, KINDS, RECORDS, copy, files, filled, flip, swap, truncate};
use common::{Server, otlp, run, seed, trefoil};
use prost::Message;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Requests in the log that are in no segment, a frame each.
const FRAMES: u64 = 20;

/// The report and the exit code.
fn check(dir: &Path, arguments: &[&str]) -> (Value, i32) {
    let output = run(trefoil()
        .args(["check", "--retention", "unlimited", "-o", "json", "--data-dir"])
        .arg(dir)
        .args(arguments));
    let code = output.status.code().unwrap();
    assert_ne!(code, 2, "{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), code)
}

/// How often each file is named in a report's faults.
fn named(report: &Value) -> BTreeMap<PathBuf, usize> {
    let mut files = BTreeMap::new();
    for fault in report["faults"].as_array().unwrap() {
        *files.entry(PathBuf::from(fault["file"].as_str().unwrap())).or_default() += 1;
    }
    files
}

/// Files in a folder with an extension, in order.
fn in_folder(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == extension));
    found.sort();
    found
}

/// Damages one bit of each of the frames with these numbers, in the log's last file.
fn flip_frames(path: &Path, numbers: &[usize], random: &mut StdRng) {
    let mut bytes = fs::read(path).unwrap();
    let magic = b"TfR\xf1";
    let starts: Vec<usize> =
        (0..bytes.len() - 4).filter(|at| bytes[*at..*at + 4] == magic[..]).collect();
    assert_eq!(starts.len(), FRAMES as usize, "a file of its own for what is not sealed");
    for number in numbers {
        let at = random.random_range(starts[*number]..starts[*number + 1]);
        bytes[at] ^= 1 << random.random_range(0..8);
    }
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_planted_faults_are_found_and_nothing_else_and_a_repair_leaves_none() {
    let mut random = StdRng::seed_from_u64(seed());
    let dir = tokio::task::block_in_place(|| filled(FRAMES));
    let (report, code) = check(dir.path(), &[]);
    assert_eq!((code, named(&report).len()), (0, 0), "{report}");
    assert_eq!(report["wal_frames"], FRAMES);

    let mut planted: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for kind in KINDS {
        let mut files = files(dir.path(), kind);
        assert_eq!(files.len(), HOURS as usize, "{kind:?}");
        files.shuffle(&mut random);
        flip(&files[0], &mut random);
        truncate(&files[1], &mut random);
        fs::remove_file(&files[2]).unwrap();
        swap(&files[3], &files[4]);
        planted.extend(files[..5].iter().map(|path| (path.clone(), 1)));
    }
    let manifest_dir = dir.path().join("manifest");
    let manifests = in_folder(&manifest_dir, "json");
    assert_eq!(manifests.len(), 2);
    flip(&manifests[0], &mut random);
    let window = in_folder(&manifest_dir, "dedup").pop().unwrap();
    truncate(&window, &mut random);
    let log = in_folder(&dir.path().join("wal"), "wal").pop().unwrap();
    flip_frames(&log, &[2, 7, 13], &mut random);
    planted.extend([(manifests[0].clone(), 1), (window, 1), (log, 3)]);
    assert_eq!(planted.values().sum::<usize>(), 50);

    let (report, code) = check(dir.path(), &[]);
    assert_eq!(named(&report), planted);
    assert_eq!(code, 1);

    let (repair, code) = check(dir.path(), &["--repair"]);
    assert_eq!((code, named(&repair["left"]).len()), (0, 0), "{}", repair["left"]);
    assert_eq!(named(&repair["found"]), planted);
    let (report, code) = check(dir.path(), &[]);
    assert_eq!((code, named(&report).len()), (0, 0), "{report}");

    // What Parquet still held is all there; each hour is there whole or not at all.
    let server = tokio::task::block_in_place(|| {
        Server::start_with(dir.path(), &["--retention", "unlimited"])
    });
    let spans = server.sql("select count(*) from spans").await.unwrap()[0][0].as_u64().unwrap();
    assert_eq!(spans, (HOURS - 5) * RECORDS);
    let logs = server.sql("select count(*) from logs").await.unwrap()[0][0].as_u64().unwrap();
    assert_eq!(logs, (HOURS - 5) * RECORDS + FRAMES - 3);
    let metrics = server.sql("select count(*) from metrics").await.unwrap()[0][0].as_u64().unwrap();
    assert_eq!(metrics % RECORDS, 0);
    for (signal, rows) in [("spans", spans), ("logs", logs), ("metrics", metrics)] {
        let quarantined = server.records(signal, "quarantined").await;
        assert_eq!(server.records(signal, "stored").await, rows + quarantined, "{signal}");
    }
    // Full text and traces are found again, through the indexes made anew.
    let total =
        server.get("/api/logs", &[("q", "line"), ("count", "true"), ("limit", "0")]).await.unwrap();
    assert_eq!(total["total"].as_u64().unwrap(), logs);
    let mut found = 0;
    for hour in 0..HOURS {
        let id = filled::trace_id(hour);
        found += u64::from(server.get(&format!("/api/traces/{id}"), &[]).await.is_ok());
    }
    assert_eq!(found, HOURS - 5);
}

#[test]
fn each_kind_of_fault_of_the_directory_itself_is_named_alone() {
    let mut random = StdRng::seed_from_u64(seed());
    let sound = filled(FRAMES);
    let planted = |plant: &mut dyn FnMut(&Path) -> PathBuf| {
        let dir = tempfile::tempdir().unwrap();
        copy(sound.path(), dir.path());
        let file = plant(dir.path());
        let (report, _) = check(dir.path(), &[]);
        assert_eq!(named(&report), BTreeMap::from([(file, 1)]), "{report}");
        let (repair, code) = check(dir.path(), &["--repair"]);
        assert_eq!(code, 0, "{}", repair["left"]);
        repair["left"]["segments"].clone()
    };
    let whole = check(sound.path(), &["--repair"]).0["segments"].clone();
    let newest = |dir: &Path, extension| in_folder(&dir.join("manifest"), extension).pop().unwrap();
    // The generation before takes its place, with the log that it needs: nothing is lost.
    let rows = |segments: &Value, signal: &str| segments[signal]["rows"].as_u64().unwrap();
    let logs = rows(&whole, "logs") + FRAMES;
    let left = planted(&mut |dir| {
        let path = newest(dir, "json");
        flip(&path, &mut random);
        path
    });
    assert_eq!(rows(&left, "logs"), logs);
    let left = planted(&mut |dir| {
        let path = newest(dir, "json");
        truncate(&path, &mut random);
        path
    });
    assert_eq!(rows(&left, "spans"), rows(&whole, "spans"));
    planted(&mut |dir| {
        fs::remove_file(newest(dir, "json")).unwrap();
        dir.join("manifest")
    });
    planted(&mut |dir| {
        let path = newest(dir, "dedup");
        flip(&path, &mut random);
        path
    });
    planted(&mut |dir| {
        let path = newest(dir, "dedup");
        fs::remove_file(&path).unwrap();
        path
    });
    planted(&mut |dir| {
        let files = in_folder(&dir.join("wal"), "wal");
        fs::remove_file(&files[files.len() - 2]).unwrap();
        dir.join("wal")
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use_is_checked_and_not_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let server = tokio::task::block_in_place(|| Server::start(dir.path()));
    for number in 0..20 {
        let request = reqwest::Client::new()
            .post(format!("{}/v1/logs", server.otlp_http))
            .header("content-type", "application/x-protobuf")
            .body(otlp::logs(number, 5).encode_to_vec());
        assert_eq!(request.send().await.unwrap().status(), 200);
        let (report, code) = check(dir.path(), &[]);
        assert_eq!(code, 0, "{report}");
    }
    let log = in_folder(&dir.path().join("wal"), "wal").pop().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[30] ^= 1;
    fs::write(&log, bytes).unwrap();
    let repair = run(trefoil().args(["check", "--repair", "--data-dir"]).arg(dir.path()));
    let told = String::from_utf8_lossy(&repair.stderr);
    assert_eq!(repair.status.code(), Some(2), "{told}");
    assert!(told.contains("in use") && told.lines().count() == 1, "{told}");
}

#[test]
fn what_is_no_data_directory_is_told_with_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(trefoil().args(["check", "--data-dir"]).arg(dir.path()));
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("--data-dir") && told.lines().count() == 1, "{told}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}
