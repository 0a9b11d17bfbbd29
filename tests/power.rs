//! The power goes while records come in: everything that was acknowledged is there afterwards.
//!
//! On a machine that lets us (root, loop devices, mkfs and xfs_io) the data directory is on file systems of its own,
//! which forget at the cut what was not synced. The same test with syncs that do nothing must fail: it does see loss.
//! Elsewhere the cut is simulated, on a disk in memory that forgets in the same way.

mod common;
#[path = "../storage/tests/support/sim_disk.rs"]
#[allow(dead_code, reason = "only the power cut is used here")]
mod sim_disk;

use common::faults::{LoopDisk, strace};
use common::senders::Senders;
use common::{Server, otlp, rounds, seed};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sim_disk::SimDisk;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decoder::FrameDecoder;
use trefoil_storage::Stores;
use trefoil_storage::config::Config;
use trefoil_storage::metrics::naming::Naming;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::Store;

const SETTINGS: [&str; 2] = ["--seal-age", "500ms"];

/// So many cuts go on with one data directory; then a new one keeps the comparisons short.
const CUTS_OF_ONE: u64 = 25;

/// Cuts the power under load again and again.
///
/// # Errors
/// What was lost at which cut.
async fn cuts(disk: &mut LoopDisk, cuts: u64, wrapper: &[String], seed: u64) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut acknowledged = 0;
    for first in (0..cuts).step_by(CUTS_OF_ONE as usize) {
        let last = cuts.min(first + CUTS_OF_ONE);
        acknowledged += cuts_of_one(disk, first..last, wrapper, &mut random).await?;
    }
    eprintln!("{cuts} cuts, {acknowledged} requests acknowledged, 0 lost");
    Ok(())
}

/// The same on one data directory; returns how many requests were acknowledged.
async fn cuts_of_one(
    disk: &mut LoopDisk,
    cuts: Range<u64>,
    wrapper: &[String],
    random: &mut StdRng,
) -> Result<usize, String> {
    let data_dir = disk.path().join(format!("data-{}", cuts.start));
    let start = || block_in_place(|| Server::start_under(wrapper, &data_dir, &SETTINGS));
    let mut server = start();
    let senders = Senders::start(&server);
    for cut in cuts {
        tokio::time::sleep(Duration::from_millis(random.random_range(50..1500))).await;
        // All of the machine stops at a power cut. Else the server would go on while the file system is being shut
        // down, and be told that a sync went well of which nothing will be left.
        server.freeze();
        disk.cut_power();
        // What was acknowledged up to here must be there; what is on its way may be.
        server.kill();
        block_in_place(|| disk.restore_power());
        server = start();
        senders.compare(&server).await.map_err(|lost| format!("cut {cut}: {lost}"))?;
        senders.moved_to(&server);
    }
    let sent = senders.finish().await;
    sent.compare(&server).await?;
    server.kill();
    std::fs::remove_dir_all(&data_dir).map_err(|error| error.to_string())?;
    Ok(sent.count())
}

/// The disk, unless this machine has none to give.
fn disk(kind: &str) -> Option<LoopDisk> {
    match LoopDisk::new(kind, 512) {
        Ok(disk) => Some(disk),
        Err(reason) => {
            eprintln!("no {kind} of our own here ({reason}): the power cut is simulated");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_a_power_cut_on_ext4() {
    let seed = seed();
    match disk("ext4") {
        Some(mut disk) => {
            cuts(&mut disk, rounds("POWER_CUTS", 15, 250), &[], seed).await.unwrap();
        }
        None => simulated(seed, true).await.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_a_power_cut_on_xfs() {
    let seed = seed();
    match disk("xfs") {
        Some(mut disk) => {
            cuts(&mut disk, rounds("POWER_CUTS", 15, 250), &[], seed).await.unwrap();
        }
        None => simulated(seed, true).await.unwrap(),
    }
}

/// The control: the same with `fsync` and `fdatasync` that do nothing and say that all is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_the_power_cut_test_sees_the_loss() {
    let seed = seed();
    let lost = match disk("ext4") {
        Some(mut disk) => {
            let nothing_synced = strace("fsync,fdatasync", "retval=0", None);
            cuts(&mut disk, 20, &nothing_synced, seed).await.unwrap_err()
        }
        None => simulated(seed, false).await.unwrap_err(),
    };
    eprintln!("seen: {lost}");
    assert!(lost.contains("lost"), "{lost}");
}

/// Appends on a simulated disk, cuts its power, looks.
///
/// * `synced`: whether what was acknowledged was synced; without, the disk forgets it.
async fn simulated(seed: u64, synced: bool) -> Result<(), String> {
    // A task of the runtime may not block for as long as this does.
    tokio::task::spawn_blocking(move || simulated_cuts(seed, synced)).await.unwrap()
}

fn simulated_cuts(seed: u64, synced: bool) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    for cut in 0..20 {
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let disk = SimDisk::new(before.path(), seed + cut);
        let open = |folder: &Path, disk: &SimDisk| {
            let interner = Arc::new(Interner::default());
            let stores = Arc::new(Stores::new(interner.clone(), Naming::default()));
            let mut config = Config::new(folder);
            config.disk = Arc::new(disk.clone());
            let decoder = Arc::new(FrameDecoder::new(interner, DecodeLimits::default()));
            Store::open(config, stores, decoder).unwrap()
        };
        let store = open(before.path(), &disk);
        // A disk whose state is taken before the appends stands for one that synced none of them.
        if !synced {
            disk.power_cut(after.path());
        }
        let requests = random.random_range(1..30);
        for number in 0..requests {
            let body = otlp::logs(number, 1).encode_to_vec().into();
            let appended = store.append(FrameKind::OtlpLogs, body, otlp::now_ns());
            futures::executor::block_on(appended).unwrap();
            if random.random_bool(0.1) {
                store.seal_now().unwrap();
            }
        }
        drop(store);
        if synced {
            disk.power_cut(after.path());
        }
        let again = open(after.path(), &SimDisk::new(after.path(), seed));
        let there = again.stats().ledger.logs.stored;
        if there != requests {
            return Err(format!("cut {cut}: {} of {requests} lost", requests - there));
        }
    }
    Ok(())
}
