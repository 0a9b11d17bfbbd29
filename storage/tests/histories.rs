//! Simulated histories: random appends, retries, seals, merges, faults, crashes and restarts, against a plain model.
//!
//! The promises: what was acknowledged is there exactly once after any fault; a request is there whole or not at all;
//! a retry is told that it is one; the books balance. A failing history prints itself, shrunk.

mod support;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::ids::{IdDecoder, IdStores, body};
use support::sim_disk::{Failure, SimDisk};
use tempfile::TempDir;
use trefoil_storage::config::Config;
use trefoil_storage::signal::{FrameKind, Signal};
use trefoil_storage::store::{Ack, AppendError, Store};

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// A new request of so many records.
    Append {
        logs: bool,
        records: u8,
        rejected: bool,
    },
    /// So many requests at once, which share a group.
    Crowd {
        requests: u8,
    },
    /// A request that was sent before, again.
    Retry {
        which: prop::sample::Index,
    },
    /// The same new request twice at once.
    Twins {
        logs: bool,
    },
    Seal,
    /// Retention is off: this merges only.
    Compact,
    /// A record that was acknowledged is deleted.
    Delete {
        which: prop::sample::Index,
    },
    /// A store panics in its next seal or merge.
    Panic,
    /// Steps of the disk fail.
    Fail {
        after: u8,
        count: u8,
        full: bool,
    },
    /// The process is killed at some step of the disk during the next steps of this history.
    KillAt {
        after: u8,
    },
    /// The process is killed now.
    Kill,
    /// The power goes.
    PowerCut,
    /// Killed, or the power gone, and the disk fails during the start after it, or the process is killed again.
    FaultInStart {
        power: bool,
        after: u8,
        count: u8,
        failure: Failure,
    },
    /// Orderly stop and start.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), 1..20u8, prop::bool::weighted(0.2))
            .prop_map(|(logs, records, rejected)| Step::Append { logs, records, rejected }),
        2 => (2..12u8).prop_map(|requests| Step::Crowd { requests }),
        4 => any::<prop::sample::Index>().prop_map(|which| Step::Retry { which }),
        2 => any::<bool>().prop_map(|logs| Step::Twins { logs }),
        4 => Just(Step::Seal),
        2 => Just(Step::Compact),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::Delete { which }),
        1 => Just(Step::Panic),
        3 => (0..40u8, 1..6u8, any::<bool>())
            .prop_map(|(after, count, full)| Step::Fail { after, count, full }),
        3 => (0..60u8).prop_map(|after| Step::KillAt { after }),
        2 => Just(Step::Kill),
        3 => Just(Step::PowerCut),
        2 => (any::<bool>(), 0..12u8, 1..6u8, failure()).prop_map(|(power, after, count, failure)| {
            Step::FaultInStart { power, after, count, failure }
        }),
        2 => Just(Step::Restart),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![Just(Failure::Halt), Just(Failure::Broken), Just(Failure::Full)]
}

/// A request as the sender knows it.
#[derive(Debug, Clone)]
struct Request {
    kind: FrameKind,
    ids: Vec<u64>,
    bytes: bytes::Bytes,
    /// The answer, once it came.
    ack: Option<Ack>,
}

/// A store on a simulated disk, and what its senders know.
struct World {
    runtime: tokio::runtime::Runtime,
    folder: TempDir,
    disk: SimDisk,
    open: Option<(Arc<Store>, Arc<IdStores>)>,
    requests: Vec<Request>,
    /// Records that are deleted.
    deleted: BTreeSet<u64>,
    /// Records of which a deletion that failed may have left something.
    half_deleted: BTreeSet<u64>,
    next_id: u64,
    clock_ns: u64,
    power_was_cut: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = temporary_folder();
        let mut world = Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            disk: SimDisk::new(folder.path(), seed),
            folder,
            open: None,
            requests: Vec::new(),
            deleted: BTreeSet::new(),
            half_deleted: BTreeSet::new(),
            next_id: 1,
            clock_ns: 1_000_000,
            power_was_cut: false,
        };
        world.start();
        world
    }

    fn config(&self) -> Config {
        let mut config = Config::new(self.folder.path());
        config.retention = None;
        config.disk = Arc::new(self.disk.clone());
        // Only when a step says so.
        config.seal_age = Duration::from_secs(86_400);
        config
    }

    fn start(&mut self) {
        self.open = Some(self.try_start().unwrap());
        self.verify();
    }

    fn try_start(&self) -> std::io::Result<(Arc<Store>, Arc<IdStores>)> {
        let stores = Arc::new(IdStores::new());
        let store = Store::open(self.config(), stores.clone(), Arc::new(IdDecoder))?;
        Ok((Arc::new(store), stores))
    }

    /// Drops the store without closing it; `power` takes along what was not synced. What was not stays so without.
    fn crash(&mut self, power: bool) {
        // What the threads still do until they end is what a process may still do before it is killed.
        self.open = None;
        self.disk.mend();
        if power {
            self.power_was_cut = true;
            self.disk.cut_power();
        }
    }

    fn new_request(&mut self, logs: bool, records: u8, rejected: bool) -> usize {
        let kind = if logs { FrameKind::OtlpLogs } else { FrameKind::OtlpTraces };
        let ids: Vec<u64> = (self.next_id..).take(usize::from(records)).collect();
        self.next_id += u64::from(records);
        let mut bytes = body(&ids).to_vec();
        if rejected {
            bytes.extend_from_slice(b"no number\n");
        }
        self.requests.push(Request { kind, ids, bytes: bytes.into(), ack: None });
        self.requests.len() - 1
    }

    /// Sends requests side by side.
    fn send(&mut self, which: &[usize]) {
        let (store, _) = self.open.clone().unwrap();
        self.clock_ns += 1_000;
        let clock_ns = self.clock_ns;
        let sent = which.iter().map(|number| {
            let Request { kind, bytes, .. } = self.requests[*number].clone();
            let store = store.clone();
            async move { store.append(kind, bytes, clock_ns).await }
        });
        let answers: Vec<_> = self.runtime.block_on(async {
            let tasks = tokio::task::LocalSet::new();
            let handles: Vec<_> = sent.map(|one| tasks.spawn_local(one)).collect();
            tasks
                .run_until(async {
                    let mut answers = Vec::new();
                    for handle in handles {
                        answers.push(handle.await.unwrap());
                    }
                    answers
                })
                .await
        });
        for (number, answer) in which.iter().zip(answers) {
            let request = &mut self.requests[*number];
            match answer {
                Ok(ack) => {
                    if let Some(first) = &request.ack {
                        assert!(ack.duplicate, "an acknowledged request is known: {request:?}");
                        assert_eq!((ack.accepted, ack.rejected), (first.accepted, first.rejected));
                        assert_eq!(ack.reason, first.reason);
                    }
                    assert_eq!(ack.accepted, request.ids.len() as u64);
                    request.ack = Some(ack);
                }
                Err(AppendError::Disk(_) | AppendError::Unsealed(_)) => {}
                Err(other) => panic!("unexpected: {other}"),
            }
        }
        self.verify();
    }

    /// Deletes one of the records that were acknowledged, for which no trace of it may be left anywhere.
    fn delete(&mut self, store: &Store, which: prop::sample::Index) {
        let acknowledged = self.requests.iter().filter(|request| request.ack.is_some());
        let ids: Vec<u64> = acknowledged.flat_map(|request| request.ids.iter().copied()).collect();
        let Some(id) = (!ids.is_empty()).then(|| ids[which.index(ids.len())]) else { return };
        if store.delete_service(&id.to_string()).is_ok() {
            self.half_deleted.remove(&id);
            self.deleted.insert(id);
        } else if !self.deleted.contains(&id) {
            self.half_deleted.insert(id);
        }
    }

    /// Cleans up in fewer system calls than a walk of the folders would take.
    fn end(&mut self) {
        self.open = None;
        self.disk.clear();
    }

    /// Compares what queries would see with what the senders know.
    fn verify(&self) {
        let Some((store, stores)) = &self.open else { return };
        let stats = store.stats();
        for signal in [Signal::Spans, Signal::Logs] {
            let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
            for id in stores.of(signal).visible() {
                *seen.entry(id).or_default() += 1;
            }
            if let Some((id, count)) = seen.iter().find(|(_, count)| **count > 1) {
                panic!("record {id} is there {count} times");
            }
            if let Some(id) = self.deleted.iter().find(|id| seen.contains_key(id)) {
                panic!("record {id} is deleted, and there");
            }
            for request in self.requests.iter().filter(|r| r.kind.signal() == signal) {
                let gone = |id: &&u64| self.deleted.contains(id) || self.half_deleted.contains(id);
                let kept: Vec<&u64> = request.ids.iter().filter(|id| !gone(id)).collect();
                let there = kept.iter().filter(|id| seen.contains_key(id)).count();
                if request.ack.is_some() {
                    assert_eq!(there, kept.len(), "acknowledged and lost: {request:?}");
                }
                assert!(there == 0 || there == kept.len(), "in part: {request:?}");
            }
            let (_, account) =
                stats.ledger.accounts().into_iter().find(|(s, _)| *s == signal).unwrap();
            assert_eq!(account.live(), seen.len() as u64, "{}: {account:?}", signal.name());
            assert_eq!(account.quarantined + account.expired, 0);
        }
        let deleted: u64 = stats.ledger.accounts().iter().map(|(_, account)| account.deleted).sum();
        let certain = self.deleted.len() as u64;
        let perhaps = certain + self.half_deleted.len() as u64;
        assert!((certain..=perhaps).contains(&deleted), "{deleted} of {certain} to {perhaps}");
        // What a power cut leaves of a write can look like damage, but only in the log.
        let cut = self.power_was_cut && stats.quarantined.iter().all(|q| q.file.starts_with("wal"));
        assert!(cut || stats.quarantined.is_empty(), "{:?}", stats.quarantined);
    }

    fn run(&mut self, step: &Step) {
        let store = self.open.as_ref().unwrap().0.clone();
        match step {
            Step::Append { logs, records, rejected } => {
                let number = self.new_request(*logs, *records, *rejected);
                drop(store);
                self.send(&[number]);
            }
            Step::Crowd { requests } => {
                drop(store);
                let numbers: Vec<usize> =
                    (0..*requests).map(|i| self.new_request(i % 2 == 0, 3, false)).collect();
                self.send(&numbers);
            }
            Step::Retry { which } => {
                drop(store);
                if !self.requests.is_empty() {
                    self.send(&[which.index(self.requests.len())]);
                }
            }
            Step::Twins { logs } => {
                drop(store);
                let number = self.new_request(*logs, 4, false);
                self.send(&[number, number]);
            }
            // These may fail when the disk does; what then holds is checked below.
            Step::Seal => drop(store.seal_now()),
            Step::Compact => drop(store.compact_now()),
            Step::Delete { which } => self.delete(&store, *which),
            Step::Panic => {
                let stores = &self.open.as_ref().unwrap().1;
                stores.spans.panic_next.store(true, Ordering::Release);
            }
            Step::Fail { after, count, full } => {
                let failure = if *full { Failure::Full } else { Failure::Broken };
                self.disk.fail(u64::from(*after), u64::from(*count), failure);
            }
            Step::KillAt { after } => self.disk.fail(u64::from(*after), 1, Failure::Halt),
            Step::Kill | Step::PowerCut => {
                drop(store);
                self.crash(matches!(step, Step::PowerCut));
                self.start();
            }
            Step::FaultInStart { power, after, count, failure } => {
                drop(store);
                self.crash(*power);
                self.disk.fail(u64::from(*after), u64::from(*count), *failure);
                // It may succeed all the same, or come to its end before the fault; a halt ends it at any rate.
                self.open = self.try_start().ok();
                if self.open.is_none() || *failure == Failure::Halt {
                    self.crash(false);
                    self.start();
                }
            }
            Step::Restart => {
                let closed = store.close();
                drop(store);
                // On a failing disk this is a crash as any other.
                self.crash(closed.is_err());
                self.start();
            }
        }
        self.verify();
    }
}

/// In memory where that is possible: the simulated disk needs no real one.
fn temporary_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn histories() -> u32 {
    std::env::var("TREFOIL_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000)
}

/// A history is threads that wait for each other most of the time: so many run side by side.
const AT_ONCE: u32 = 8;

#[test]
fn what_was_acknowledged_is_there_exactly_once_after_any_history() {
    let config = |number: u32| ProptestConfig {
        cases: histories() / AT_ONCE + u32::from(number < histories() % AT_ONCE),
        source_file: Some(file!()),
        // One of them repeats what failed before.
        failure_persistence: ProptestConfig::default().failure_persistence.filter(|_| number == 0),
        ..ProptestConfig::default()
    };
    std::thread::scope(|scope| {
        for number in 0..AT_ONCE {
            scope.spawn(move || {
                let history = (any::<u64>(), prop::collection::vec(step(), 1..40));
                let outcome = TestRunner::new(config(number)).run(&history, |(seed, steps)| {
                    let mut world = World::new(seed >> 1);
                    for step in &steps {
                        world.run(step);
                    }
                    for power in [true, false] {
                        world.crash(power);
                        world.start();
                    }
                    world.end();
                    Ok(())
                });
                if let Err(failed) = outcome {
                    panic!("{failed}");
                }
            });
        }
    });
}

/// What a kill leaves in the page cache is read back at the start; the retry is told that it is known, and must not be
/// lost by the power cut after it.
#[test]
fn a_retry_answered_from_what_a_killed_process_left_survives_a_power_cut() {
    let mut unsure = 0;
    for after in 0..6 {
        for seed in 0..8 {
            let mut world = World::new(seed);
            world.run(&Step::KillAt { after });
            let number = world.new_request(true, 3, false);
            world.send(&[number]);
            let answered = world.requests[number].ack.is_some();
            world.run(&Step::Kill);
            world.send(&[number]);
            let known = world.requests[number].ack.as_ref().is_some_and(|ack| ack.duplicate);
            unsure += u32::from(known && !answered);
            world.run(&Step::PowerCut);
            assert_eq!(world.open.as_ref().unwrap().1.logs.visible().len(), 3);
            world.end();
        }
    }
    assert!(unsure > 0, "no kill fell between a write and its sync");
}

/// The next deletion must also find what came after a seal that failed.
#[test]
fn a_deletion_after_a_failed_seal_takes_what_came_since() {
    let mut world = World::new(1);
    let first = world.new_request(true, 1, false);
    world.send(&[first]);
    world.disk.fail(0, 1, Failure::Full);
    let (store, stores) = world.open.clone().unwrap();
    assert!(store.seal_now().is_err());
    let second = world.new_request(true, 3, false);
    world.send(&[second]);
    let id = world.requests[second].ids[0];
    assert_eq!(store.delete_service(&id.to_string()).unwrap()["logs"], 1);
    assert!(!stores.logs.visible().contains(&id));
    assert_eq!(stores.logs.visible().len(), 3);
}

/// A seal's commit takes rows out of memory and log.
#[test]
fn a_seal_that_would_lose_a_row_is_not_committed() {
    let mut world = World::new(1);
    let number = world.new_request(true, 3, false);
    world.send(&[number]);
    let (store, stores) = world.open.clone().unwrap();
    stores.logs.forget_next.store(true, Ordering::Release);
    let told = store.seal_now().unwrap_err().to_string();
    assert_eq!(told, "2 rows of logs were written of 3 that are to be sealed");
    drop((store, stores));
    world.run(&Step::PowerCut);
    world.run(&Step::Seal);
    world.run(&Step::Kill);
    assert_eq!(world.open.as_ref().unwrap().1.logs.visible().len(), 3);
}
