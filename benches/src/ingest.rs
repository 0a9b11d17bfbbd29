//! Ingest from an empty directory to an idle server: time, CPU, memory, bytes.

use crate::corpus::Requests;
use crate::load::{self, Load};
use crate::server::{Program, Server, bytes_below};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// One run. CPU seconds hold everything: start, decoding, log, seal at the stop, a second start, merges until idle.
pub struct Run {
    pub load: Load,
    pub cpu_s: f64,
    /// Until the last acknowledgement; what is sealed later is left out.
    pub cpu_until_acknowledged_s: f64,
    pub peak_rss_mib: f64,
    /// Bytes of segments by signal, indexes included.
    pub segment_bytes: Vec<(String, u64)>,
    pub directory_bytes: u64,
    pub ready_empty: Duration,
    pub idle_empty_mib: f64,
}

impl Run {
    pub fn bytes_of(&self, signals: &[&str]) -> u64 {
        self.segment_bytes
            .iter()
            .filter(|(name, _)| signals.contains(&name.as_str()))
            .map(|s| s.1)
            .sum()
    }
}

/// How long a started server rests before its memory is read.
pub const REST: Duration = Duration::from_secs(2);

/// Sends `signals` to a fresh server in `data_dir` and waits until all is sealed and merged.
pub async fn run(
    program: &Program,
    data_dir: &Path,
    signals: &[(&str, &Requests)],
) -> anyhow::Result<Run> {
    let server = Server::start(program, data_dir).await?;
    let ready_empty = server.ready_after;
    tokio::time::sleep(REST).await;
    let idle_empty_mib = server.memory_mib("VmRSS")?;
    let requests: Vec<&Requests> = signals.iter().map(|(_, requests)| *requests).collect();
    let load = load::send(server.otlp, &requests).await?;
    let cpu_until_acknowledged_s = server.cpu_seconds()?;
    server.idle().await?;
    all_stored(&server.status().await?, signals)?;
    let peak_before_stop = server.memory_mib("VmHWM")?;
    let cpu_before_restart = server.stop().await?;

    let (mut cpu_s, mut peak_rss_mib) = (cpu_before_restart, peak_before_stop);
    // A stop has ten seconds; on a busy machine the seal may not end in time, and the next start replays the log.
    let status = loop {
        let server = Server::start(program, data_dir).await?;
        server.idle().await?;
        let status = server.status().await?;
        all_stored(&status, signals)?;
        peak_rss_mib = peak_rss_mib.max(server.memory_mib("VmHWM")?);
        cpu_s += server.stop().await?;
        if status["wal_bytes"] == 0 {
            break status;
        }
    };
    let segments = status["segments"].as_object().context("no segments in /api/status")?;
    let segment_bytes =
        segments.iter().map(|(name, totals)| (name.clone(), totals["bytes"].as_u64().unwrap_or(0)));
    Ok(Run {
        load,
        cpu_s,
        cpu_until_acknowledged_s,
        peak_rss_mib,
        segment_bytes: segment_bytes.collect(),
        directory_bytes: bytes_below(data_dir),
        ready_empty,
        idle_empty_mib,
    })
}

/// The least time until ready and the least memory at rest, MiB.
pub async fn restarts(
    program: &Program,
    data_dir: &Path,
    times: usize,
) -> anyhow::Result<(Duration, f64)> {
    let (mut ready, mut idle_mib) = (Duration::MAX, f64::INFINITY);
    for _ in 0..times {
        let server = Server::start(program, data_dir).await?;
        tokio::time::sleep(REST).await;
        ready = ready.min(server.ready_after);
        idle_mib = idle_mib.min(server.memory_mib("VmRSS")?);
        server.stop().await?;
    }
    Ok((ready, idle_mib))
}

/// The books must say that every record is stored once.
fn all_stored(status: &Value, signals: &[(&str, &Requests)]) -> anyhow::Result<()> {
    for (name, requests) in signals {
        let account = &status["ledger"][name];
        let (stored, live) = (account["stored"].as_u64(), account["live"].as_u64());
        ensure!(
            stored == Some(requests.records) && live == stored,
            "{name}: {} sent, the ledger says {account}",
            requests.records
        );
    }
    Ok(())
}
