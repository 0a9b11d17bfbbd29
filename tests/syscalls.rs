//! The server is killed at a single system call of its storage, or the call fails: nothing that was acknowledged is
//! lost or doubled, whichever call it is.

mod common;

use common::faults::strace;
use common::senders::Senders;
use common::{Server, rounds, seed};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// Seals, merges and garbage collection happen all the time.
const SETTINGS: [&str; 2] = ["--seal-age", "200ms"];

/// The calls with which the store changes files.
const CALLS: [&str; 6] = ["fdatasync", "fsync", "rename", "unlink", "rmdir", "mkdir"];

/// How long a server runs that is not killed, because the call does not come so often.
const ROUND_MAX: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_system_call_is_harmless() {
    let mut random = StdRng::seed_from_u64(seed());
    let each = rounds("SYSCALL_KILLS", 3, 60);
    let (mut killed, mut acknowledged) = (0, 0);
    for call in CALLS {
        let numbers: Vec<u64> = match each {
            60 => (1..=60).collect(),
            _ => (0..each).map(|_| random.random_range(1..=60)).collect(),
        };
        let (of_call, sent) = kills_at(call, &numbers).await;
        eprintln!("{call}: {of_call} kills, {sent} requests acknowledged, 0 lost");
        killed += of_call;
        acknowledged += sent;
    }
    assert!(killed > 0, "strace killed the server at no call");
    eprintln!("{killed} kills, {acknowledged} requests acknowledged, 0 lost");
}

/// Kills a server at the calls with these numbers, one after the other; returns how often it came to that, and how many
/// requests were acknowledged.
async fn kills_at(call: &str, numbers: &[u64]) -> (u64, usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path(), &SETTINGS);
    let senders = Senders::start(&server);
    let mut killed = 0;
    for number in numbers {
        server.kill();
        let wrapper = strace(call, &format!("signal=KILL:when={number}"), None);
        // It may be killed while it starts.
        let started = block_in_place(|| Server::try_start(&wrapper, dir.path(), &SETTINGS)).ok();
        killed += u64::from(match started {
            Some(mut doomed) => {
                senders.moved_to(&doomed);
                let since = Instant::now();
                while !doomed.has_ended() && since.elapsed() < ROUND_MAX {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                doomed.has_ended()
            }
            None => true,
        });
        server = block_in_place(|| Server::start_with(dir.path(), &SETTINGS));
        senders.moved_to(&server);
        server.books().await.unwrap_or_else(|wrong| panic!("{call} {number}: {wrong}"));
    }
    let sent = senders.finish().await;
    sent.compare(&server).await.unwrap();
    server.stop();
    sent.compare(&block_in_place(|| Server::start(dir.path()))).await.unwrap();
    (killed, sent.count())
}

/// So many points of failure go on with one data directory; then a new one keeps the comparisons short.
const POINTS_OF_ONE: u64 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_is_never_acknowledged() {
    let mut random = StdRng::seed_from_u64(seed());
    let points = rounds("SYSCALL_FAILURES", 10, 200);
    let mut acknowledged = 0;
    for first in (0..points).step_by(POINTS_OF_ONE as usize) {
        let last = points.min(first + POINTS_OF_ONE);
        acknowledged += failures(first..last, &mut random).await;
    }
    eprintln!("{points} points of failure, {acknowledged} requests acknowledged, 0 lost");
}

/// Lets calls fail in one run of the server after the other; returns how many requests were acknowledged.
async fn failures(points: Range<u64>, random: &mut StdRng) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path(), &SETTINGS);
    let senders = Senders::start(&server);
    for point in points {
        server.kill();
        let call = *["fdatasync", "fsync", "rename", "unlink", "write"].choose(random).unwrap();
        let error = *["EIO", "ENOSPC", "EDQUOT"].choose(random).unwrap();
        let first = random.random_range(1..40);
        let last = first + random.random_range(0..6);
        // Sockets are written with the same call as the log: only the log's next file is meant.
        let file = (call == "write").then(|| next_log(dir.path()));
        let tampering = format!("error={error}:when={first}..{last}");
        let wrapper = strace(call, &tampering, file.as_deref());
        let before = senders.sent().count();
        // One whose start fails at that call has taken nothing in.
        let failing = block_in_place(|| Server::try_start(&wrapper, dir.path(), &SETTINGS)).ok();
        if let Some(failing) = failing {
            senders.moved_to(&failing);
            tokio::time::sleep(Duration::from_millis(random.random_range(500..2500))).await;
            // Killed while it may still be failing: only what it had acknowledged counts.
            failing.kill();
        }
        server = block_in_place(|| Server::start_with(dir.path(), &SETTINGS));
        let told = format!("point {point}: {call} {tampering}");
        senders.compare(&server).await.unwrap_or_else(|wrong| panic!("{told}: {wrong}"));
        let meanwhile = senders.sent().count() - before;
        senders.moved_to(&server);
        eprintln!("{told}: {meanwhile} requests acknowledged meanwhile");
    }
    let sent = senders.finish().await;
    sent.compare(&server).await.unwrap();
    sent.count()
}

/// Where the log goes on after the next start.
fn next_log(data_dir: &Path) -> PathBuf {
    let end = fs::read_dir(data_dir.join("wal")).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let start: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        start + fs::metadata(&path).unwrap().len().saturating_sub(20)
    });
    let end = end.max().unwrap_or(0);
    data_dir.canonicalize().unwrap().join("wal").join(format!("{end:020}.wal"))
}
