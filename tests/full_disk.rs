//! The disk is full: ingest is refused in a way that makes senders come back, queries go on, nothing that was
//! acknowledged is lost, and ingest goes on by itself once there is room.
//!
//! It needs a file system of its own, which only root may mount; elsewhere a store runs on a simulated disk.

mod common;
#[path = "../storage/tests/support/sim_disk.rs"]
#[allow(dead_code, reason = "only its free space is used here")]
mod sim_disk;

use common::faults::{LoopDisk, Tmpfs};
use common::senders::Senders;
use common::{Server, otlp, rounds};
use prost::Message;
use sim_disk::SimDisk;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decoder::FrameDecoder;
use trefoil_storage::Stores;
use trefoil_storage::config::Config;
use trefoil_storage::metrics::naming::Naming;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::{AppendError, Store};

const SETTINGS: [&str; 2] = ["--seal-age", "500ms"];

/// How long ingest may take to notice, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// What else fills a disk.
trait Filler {
    /// Takes whatever is free now: the server may have freed some since the last time.
    fn fill(&self, folder: &Path);

    fn free(&self, folder: &Path) {
        fs::remove_dir_all(folder.join("others")).unwrap();
    }
}

/// Bytes.
struct Bytes;

impl Filler for Bytes {
    fn fill(&self, folder: &Path) {
        fs::create_dir_all(folder.join("others")).unwrap();
        let path = folder.join("others/bytes");
        let Ok(mut file) = fs::File::options().create(true).append(true).open(path) else { return };
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
    }
}

/// Names: no file can be made any more.
struct Names;

impl Filler for Names {
    fn fill(&self, folder: &Path) {
        fs::create_dir_all(folder.join("others")).unwrap();
        let mut number = 0;
        let taken = |number| folder.join(format!("others/{number}"));
        while taken(number).exists() || fs::File::create(taken(number)).is_ok() {
            number += 1;
        }
    }
}

/// Posts a request of its own until the answer has this status.
///
/// * `before`: done before each.
async fn post_until(
    server: &Server,
    status: u16,
    number: &mut u64,
    before: impl Fn(),
) -> reqwest::Response {
    let since = Instant::now();
    loop {
        block_in_place(&before);
        *number += 1;
        let answer = reqwest::Client::new()
            .post(format!("{}/v1/logs", server.otlp_http))
            .header("content-type", "application/x-protobuf")
            .body(otlp::logs(*number, 1).encode_to_vec())
            .send()
            .await
            .unwrap();
        if answer.status() == status {
            return answer;
        }
        // Anything else would make senders drop what they have.
        assert!([200, 503].contains(&answer.status().as_u16()), "{}", answer.status());
        assert!(since.elapsed() < PATIENCE, "no answer with {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// So many cycles go on with one disk; then a new one keeps the comparison at the end short.
const CYCLES_OF_ONE: u64 = 5;

/// Fills and frees again and again under load, with a kill and a start while it is full.
async fn cycles(folder: &Path, filler: &dyn Filler, cycles: u64) {
    let data_dir = folder.join("data");
    let start = || block_in_place(|| Server::start_with(&data_dir, &SETTINGS));
    let mut server = start();
    let mut number = 1_000_000;
    let senders = Senders::start(&server);
    for cycle in 0..cycles {
        tokio::time::sleep(Duration::from_millis(700)).await;
        block_in_place(|| filler.fill(folder));
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.sql("select count(*) from logs").await.unwrap();
        server.kill();
        server = start();
        // A start deletes what a seal left unfinished. A request that came before that room is taken would get a file of
        // the log, and with it nothing but 200 for as long as that lasts.
        block_in_place(|| filler.fill(folder));
        senders.moved_to(&server);
        // Now there is not even a file of the log.
        let refusal = post_until(&server, 503, &mut number, || filler.fill(folder)).await;
        let seconds: u64 = refusal.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=4).contains(&seconds), "retry after {seconds} s");
        server.sql("select count(*) from logs").await.unwrap();
        block_in_place(|| filler.free(folder));
        let freed = Instant::now();
        post_until(&server, 200, &mut number, || {}).await;
        eprintln!("cycle {cycle}: taken in again {:?} after there was room", freed.elapsed());
    }
    let sent = senders.finish().await;
    for (table, acknowledged) in &sent.acknowledged {
        let rows = server
            .sql(&format!(
                "select count(*), count(distinct \"request.id\") from {table} where \
                 cast(\"request.id\" as bigint) < 1000000"
            ))
            .await
            .unwrap();
        let (rows, requests) = (rows[0][0].as_u64().unwrap(), rows[0][1].as_u64().unwrap());
        assert_eq!(requests, acknowledged.len() as u64, "{table}");
        assert_eq!(rows, requests * common::senders::RECORDS, "{table}");
    }
    server.books().await.unwrap();
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_retryably_loses_nothing_and_recovers() {
    let rounds = rounds("FULL_DISK", 2, 20);
    for first in (0..rounds).step_by(CYCLES_OF_ONE as usize) {
        match LoopDisk::new("ext4", 256) {
            Ok(disk) => cycles(&disk.path(), &Bytes, CYCLES_OF_ONE.min(rounds - first)).await,
            Err(reason) => return simulated(&reason).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_inodes_refuses_retryably_loses_nothing_and_recovers() {
    let rounds = rounds("FULL_DISK", 2, 20);
    for first in (0..rounds).step_by(CYCLES_OF_ONE as usize) {
        match Tmpfs::new("size=128m,nr_inodes=2000") {
            Ok(disk) => cycles(&disk.path(), &Names, CYCLES_OF_ONE.min(rounds - first)).await,
            Err(reason) => return simulated(&reason).await,
        }
    }
}

/// A store whose disk says that it is full, and then that it is not.
async fn simulated(reason: &str) {
    eprintln!("no file system of our own here ({reason}): the full disk is simulated");
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(dir.path(), 1);
    let interner = Arc::new(Interner::default());
    let stores = Arc::new(Stores::new(interner.clone(), Naming::default()));
    let mut config = Config::new(dir.path());
    config.disk = Arc::new(disk.clone());
    let decoder = Arc::new(FrameDecoder::new(interner, DecodeLimits::default()));
    let store = block_in_place(|| Store::open(config, stores, decoder)).unwrap();
    let append = async |number| {
        let body = otlp::logs(number, 1).encode_to_vec().into();
        store.append(FrameKind::OtlpLogs, body, otlp::now_ns()).await
    };
    append(0).await.unwrap();
    disk.set_free(0);
    let mut number = 1;
    let refused = loop {
        match append(number).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(matches!(refused, AppendError::Full { .. }) && refused.is_retryable(), "{refused}");
    assert_eq!(store.stats().ledger.logs.stored, number);
    disk.set_free(1 << 40);
    while append(number).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.stats().ledger.logs.stored, number + 1);
}
