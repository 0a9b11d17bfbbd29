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
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path(), &SETTINGS);
    let senders = Senders::start(&server);
    let each = rounds("SYSCALL_KILLS", 3, 60);
    let mut killed = 0;
    for call in CALLS {
        for round in 1..=each {
            let number = if each == 60 { round } else { random.random_range(1..=60) };
            server.kill();
            let wrapper = strace(call, &format!("signal=KILL:when={number}"), None);
            // It may be killed while it starts.
            let started =
                block_in_place(|| Server::try_start(&wrapper, dir.path(), &SETTINGS)).ok();
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
    }
    assert!(killed > 0, "strace killed the server at no call");
    let sent = senders.finish().await;
    eprintln!("{killed} kills, {} requests acknowledged", sent.count());
    sent.compare(&server).await.unwrap();
    server.stop();
    sent.compare(&block_in_place(|| Server::start(dir.path()))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_is_never_acknowledged() {
    let mut random = StdRng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path(), &SETTINGS);
    let senders = Senders::start(&server);
    for point in 0..rounds("SYSCALL_FAILURES", 10, 200) {
        server.kill();
        let call =
            *["fdatasync", "fsync", "rename", "unlink", "write"].choose(&mut random).unwrap();
        let error = *["EIO", "ENOSPC", "EDQUOT"].choose(&mut random).unwrap();
        let first = random.random_range(1..40);
        let last = first + random.random_range(0..6);
        // Sockets are written with the same call as the log: only the log's next file is meant.
        let file = (call == "write").then(|| next_log(dir.path()));
        let tampering = format!("error={error}:when={first}..{last}");
        let wrapper = strace(call, &tampering, file.as_deref());
        let before = senders.sent().count();
        let failing = block_in_place(|| Server::start_under(&wrapper, dir.path(), &SETTINGS));
        senders.moved_to(&failing);
        tokio::time::sleep(Duration::from_millis(random.random_range(500..2500))).await;
        // Killed while it may still be failing: only what it had acknowledged counts.
        failing.kill();
        server = block_in_place(|| Server::start_with(dir.path(), &SETTINGS));
        let sent = senders.sent();
        let told = format!("point {point}: {call} {tampering}");
        sent.compare(&server).await.unwrap_or_else(|wrong| panic!("{told}: {wrong}"));
        senders.moved_to(&server);
        eprintln!("{told}: {} requests acknowledged meanwhile", sent.count() - before);
    }
    let sent = senders.finish().await;
    sent.compare(&server).await.unwrap();
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
