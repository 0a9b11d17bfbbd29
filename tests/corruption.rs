//! One file of a data directory is damaged, before a start or while a server runs on it: the server serves what is not
//! damaged, never a wrong number, says what is missing, and makes damaged indexes anew from Parquet.

mod common;

use common::filled::{self, HOURS, KINDS, RECORDS};
use common::{Server, rounds, seed};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::task::block_in_place;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    Delete,
    Truncate,
    Flip,
    /// With another of its kind.
    Swap,
    /// Only where we are not root, who may read all the same: there it changes nothing.
    Forbid,
}

const DAMAGES: [Damage; 5] =
    [Damage::Delete, Damage::Truncate, Damage::Flip, Damage::Swap, Damage::Forbid];

impl Damage {
    /// Damages one file of a kind; returns how many hours that concerns.
    fn plant(self, dir: &Path, kind: (&str, &str), random: &mut StdRng) -> u64 {
        let files = filled::files(dir, kind);
        let two: Vec<_> = files.choose_multiple(random, 2).collect();
        match self {
            Self::Delete => fs::remove_file(two[0]).unwrap(),
            Self::Truncate => filled::truncate(two[0], random),
            Self::Flip => filled::flip(two[0], random),
            Self::Swap => filled::swap(two[0], two[1]),
            Self::Forbid => {
                fs::set_permissions(two[0], fs::Permissions::from_mode(0o000)).unwrap();
                return u64::from(fs::File::open(two[0]).is_err());
            }
        }
        if self == Self::Swap { 2 } else { 1 }
    }
}

/// Waits until a server that has just started has compared all files with their checksums.
async fn compared(server: &Server) {
    while server.metric("trefoil_mend_passes_total").await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Rows of a signal that SQL sees.
async fn rows(server: &Server, signal: &str) -> u64 {
    let rows = server.sql(&format!("select count(*) from {signal}")).await.unwrap();
    rows[0][0].as_u64().unwrap()
}

/// Looks at everything through the query APIs.
async fn judge(server: &Server, kind: (&str, &str), hours: u64, told: &str) {
    let rebuildable = !kind.1.ends_with("parquet");
    for signal in ["spans", "logs", "metrics"] {
        let lost = if kind.0 == signal && !rebuildable { hours * RECORDS } else { 0 };
        assert_eq!(rows(server, signal).await, HOURS * RECORDS - lost, "{told}: {signal}");
        let quarantined = server.records(signal, "quarantined").await;
        assert_eq!(quarantined, lost, "{told}: {signal}");
    }
    server.books().await.unwrap_or_else(|wrong| panic!("{told}: {wrong}"));
    let expected_logs = rows(server, "logs").await;
    let all = [("q", "line"), ("count", "true"), ("limit", "0")];
    let found = server.get("/api/logs", &all).await.unwrap();
    assert_eq!(found["total"].as_u64(), Some(expected_logs), "{told}: full text");
    let (mut traces, mut with_logs) = (0, 0);
    for hour in 0..HOURS {
        let id = filled::trace_id(hour);
        traces += u64::from(server.get(&format!("/api/traces/{id}"), &[]).await.is_ok());
        let logs = server.get("/api/logs", &[("trace_id", &id)]).await.unwrap();
        with_logs += logs["logs"].as_array().unwrap().len() as u64;
    }
    assert_eq!(traces * RECORDS, rows(server, "spans").await, "{told}: traces by ID");
    // One page of logs has a hundred rows at most; an hour has fewer.
    assert_eq!(with_logs, expected_logs, "{told}: logs by trace");
    let status = server.get("/api/status", &[]).await.unwrap();
    let set_aside: &Vec<Value> = status["quarantined"].as_array().unwrap();
    let expected = if rebuildable { 0 } else { hours };
    assert_eq!(set_aside.len() as u64, expected, "{told}: {set_aside:?}");
    // An answer that may miss something says so.
    let answer = reqwest::get(format!("{}/api/services", server.http)).await.unwrap();
    assert_eq!(answer.headers().contains_key("warning"), expected > 0, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_costs_its_rows_at_most_whenever_it_is_damaged() {
    let mut random = StdRng::seed_from_u64(seed());
    let sound = block_in_place(|| filled::filled(0));
    for round in 0..rounds("DAMAGES", 18, 500) {
        let kind = KINDS[round as usize % KINDS.len()];
        let damage = *DAMAGES.choose(&mut random).unwrap();
        let running: bool = random.random();
        let told = format!("round {round}: {damage:?} {kind:?}, running: {running}");
        eprintln!("{told}");
        let dir = tempfile::tempdir().unwrap();
        filled::copy(sound.path(), dir.path());
        let start =
            || block_in_place(|| Server::start_with(dir.path(), &["--retention", "unlimited"]));
        if !running {
            let hours = damage.plant(dir.path(), kind, &mut random);
            let server = start();
            compared(&server).await;
            judge(&server, kind, hours, &told).await;
            continue;
        }
        let server = start();
        compared(&server).await;
        let hours = damage.plant(dir.path(), kind, &mut random);
        // Missing and shortened files are noticed within seconds, others by the next pass. Until then an answer is
        // right, or it lacks what was set aside, or there is none.
        for signal in ["spans", "logs", "metrics"] {
            let whole = HOURS * RECORDS;
            let some = server.sql(&format!("select count(*) from {signal}")).await;
            if let Ok(some) = some.map(|rows| rows[0][0].as_u64().unwrap()) {
                assert!(
                    [whole, whole - hours * RECORDS].contains(&some),
                    "{told}: {signal} {some}"
                );
            }
        }
        server.kill();
        let server = start();
        compared(&server).await;
        judge(&server, kind, hours, &told).await;
    }
}
