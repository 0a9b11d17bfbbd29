//! The program under test as a process: started, watched through /proc, asked whether it is idle, stopped.

use crate::client::Client;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What to start and how.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    /// Further arguments of `trefoil serve`.
    pub arguments: Vec<String>,
}

/// A running server.
pub struct Server {
    child: Child,
    pub otlp: SocketAddr,
    pub http: SocketAddr,
    /// From the start of the process to the first answer of /readyz that says so.
    pub ready_after: Duration,
}

/// A clock tick of /proc/<pid>/stat, fixed for user space (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// The merges of the whole corpus take less.
const IDLE_WITHIN: Duration = Duration::from_secs(600);

impl Server {
    /// Starts on free ports and waits until requests are taken.
    pub async fn start(program: &Program, data_dir: &Path) -> anyhow::Result<Self> {
        let [grpc, otlp, http] = free_addrs()?;
        let log = File::options().create(true).append(true).open(data_dir.with_extension("log"))?;
        let started = Instant::now();
        let child = Command::new(&program.path)
            .arg("serve")
            .args(["--retention", "unlimited"])
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--otlp-grpc-addr", &grpc.to_string()])
            .args(["--otlp-http-addr", &otlp.to_string()])
            .args(["--http-addr", &http.to_string()])
            .args(&program.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.path.display()))?;
        let mut server = Self { child, otlp, http, ready_after: Duration::ZERO };
        loop {
            if let Some(status) = server.child.try_wait()? {
                bail!(
                    "the server ended at start: {status}; see {}",
                    data_dir.with_extension("log").display()
                );
            }
            if let Ok(mut client) = Client::connect(http).await
                && client.get("/readyz").await.is_ok()
            {
                server.ready_after = started.elapsed();
                return Ok(server);
            }
            ensure!(
                started.elapsed() < Duration::from_secs(120),
                "the server is not ready after 120 s"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// User and system time so far, seconds; also of a process that has ended and was not waited for.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.proc_file("stat")?;
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let ticks: Vec<f64> = fields
            .split_ascii_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|f| f.parse().ok())
            .collect();
        ensure!(ticks.len() == 2, "no times in stat");
        Ok((ticks[0] + ticks[1]) / TICKS_PER_SECOND)
    }

    /// A line of /proc/<pid>/status in MiB: `VmRSS` now, `VmHWM` at most.
    pub fn memory_mib(&self, key: &str) -> anyhow::Result<f64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
        Ok(kib.with_context(|| format!("no {key} in status"))? / 1024.0)
    }

    /// `VmHWM` begins anew at what is in memory now (proc(5), `clear_refs`).
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }

    fn proc_file(&self, name: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{name}", self.child.id()))?)
    }

    pub async fn status(&self) -> anyhow::Result<Value> {
        let body = Client::connect(self.http).await?.get("/api/status").await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Waits until nothing is sealed or merged, nor will be without new data or the passing of time.
    pub async fn idle(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut quiet = 0;
        while quiet < 3 {
            let status = self.status().await?;
            let working = status.get("working").and_then(Value::as_bool);
            quiet = if working.context("/api/status does not say whether it is working")? {
                0
            } else {
                quiet + 1
            };
            ensure!(
                started.elapsed() < IDLE_WITHIN,
                "the server is not idle after {IDLE_WITHIN:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Asks the server to stop, which seals all that is hot, and waits for it. Returns its CPU seconds in all.
    pub async fn stop(mut self) -> anyhow::Result<f64> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(killed.success(), "the server could not be signalled");
        let asked = Instant::now();
        while !self.proc_file("stat")?.rsplit_once(')').is_some_and(|(_, f)| f.starts_with(" Z")) {
            ensure!(asked.elapsed() < Duration::from_secs(30), "the server does not stop");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cpu = self.cpu_seconds()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(cpu)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a fault of the benchmark's own; a server that was stopped is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_addrs<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let mut held = Vec::new();
    let mut addrs = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for addr in &mut addrs {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *addr = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addrs)
}

/// Bytes of all files below a folder, by its first level.
pub fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
