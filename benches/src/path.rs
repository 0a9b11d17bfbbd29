//! The write path inside this process, from the protobuf bytes to the last merge: what each kind of thread costs, and
//! something for a profiler to look at (`perf record -g target/release/trefoil-bench --only path-spans`).

use crate::corpus::Requests;
use crate::report::{Report, Row};
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decoder::FrameDecoder;
use trefoil_storage::Stores;
use trefoil_storage::config::Config;
use trefoil_storage::metrics::naming::Naming;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::{AppendError, Store};

/// Requests under way at once, as many as the load generator has connections.
const SENDERS: usize = 4;

/// A refused request is sent again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Sends one signal to a store in `data_dir` and waits until all of it is sealed and merged.
pub async fn run(
    name: &str,
    requests: &Requests,
    data_dir: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    let kind = match requests.path {
        "/v1/traces" => FrameKind::OtlpTraces,
        "/v1/logs" => FrameKind::OtlpLogs,
        _ => FrameKind::OtlpMetrics,
    };
    let interner = Arc::new(Interner::default());
    let stores = Arc::new(Stores::new(interner.clone(), Naming::default()));
    let decoder = Arc::new(FrameDecoder::new(interner, DecodeLimits::default()));
    let config = Config { retention: None, ..Config::new(data_dir) };
    let store = Arc::new(Store::open(config, stores, decoder)?);
    let before = cpu_by_thread()?;
    let started = Instant::now();
    let (bodies, next) = (Arc::new(requests.bodies.clone()), Arc::new(AtomicUsize::new(0)));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let (store, bodies, next) = (store.clone(), bodies.clone(), next.clone());
        senders.spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                tokio::time::sleep(store.pause()).await;
                let arrival_ns = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
                while let Err(error) = store.append(kind, body.clone(), arrival_ns).await {
                    ensure!(matches!(error, AppendError::Busy { .. }), "not stored: {error}");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
            Ok(())
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    let acknowledged = started.elapsed();
    let until_acknowledged: f64 = cpu_since(&before)?.values().sum();
    let (sealed, outcome) = tokio::sync::oneshot::channel();
    let (measured, until_measured) = std::sync::mpsc::channel::<()>();
    let sealing = store.clone();
    // Named as the store's own, and alive until its time is read.
    let sealer = std::thread::Builder::new().name("sealer".to_owned()).spawn(move || {
        // Whoever waits for it has failed otherwise.
        let _ = sealed.send(sealing.seal_now());
        let _ = until_measured.recv();
    })?;
    outcome.await??;
    while store.stats().working {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let threads = cpu_since(&before)?;
    drop(measured);
    ensure!(sealer.join().is_ok(), "sealing panicked");
    let section = format!("path of {name}, in this process");
    let row = |figure: &str, unit, value| Row::plain(&section, figure, unit, value);
    let records = requests.records as f64;
    let all: f64 = threads.values().sum();
    report.add(row("per CPU-second, to idle", "records", records / all));
    let until = records / until_acknowledged;
    report.add(row("per CPU-second, until the last is acknowledged", "records", until));
    report.add(row("per second", "records", records / acknowledged.as_secs_f64()));
    for (thread, cpu_s) in threads {
        if cpu_s / all > 0.001 {
            report.add(row(&format!("thread {thread}"), "µs/record", cpu_s * 1e6 / records));
        }
    }
    for (signal, count, rows, bytes) in store.stats().segments {
        if rows > 0 {
            let figure = format!("{} in {count} segments", signal.name());
            report.add(row(&figure, "B/record", bytes as f64 / records));
        }
    }
    tokio::task::spawn_blocking(move || store.close()).await??;
    Ok(())
}

/// CPU seconds of the running threads by name.
fn cpu_by_thread() -> anyhow::Result<BTreeMap<String, f64>> {
    let mut by_name = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        // A thread may end while the list is read.
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else { continue };
        let Ok(schedstat) = std::fs::read_to_string(path.join("schedstat")) else { continue };
        let ns = schedstat.split_ascii_whitespace().next().context("schedstat is empty")?;
        *by_name.entry(name.trim().to_owned()).or_default() += ns.parse::<f64>()? / 1e9;
    }
    Ok(by_name)
}

fn cpu_since(before: &BTreeMap<String, f64>) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut threads = cpu_by_thread()?;
    for (name, cpu_s) in &mut threads {
        *cpu_s -= before.get(name).copied().unwrap_or(0.0);
    }
    Ok(threads)
}
