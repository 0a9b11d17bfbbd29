//! `trefoil-shop up`: starts every service as a process of its own and ends them all together.
//!
//! Each child holds the reading end of a pipe as its standard input and ends when that pipe is closed. So closing
//! the pipes is how children are asked to end, and it also happens by itself if this process is killed.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::kit::listen;
use crate::shop::{Addresses, Service};

/// From a child's start to its `ready`.
const START_MAX: Duration = Duration::from_secs(20);
/// From the closing of its pipe to a child's end; telemetry is handed over in between.
const END_MAX: Duration = Duration::from_secs(8);

struct Running {
    service: Service,
    child: Child,
    /// Kept apart from `child`, whose `wait` would close it. Closing it asks the child to end.
    pipe: Option<ChildStdin>,
}

/// Runs the shop until `stop` is cancelled or one of its processes ends by itself, which is an error.
///
/// # Errors
/// When a port is taken, or a process does not start or does not stay.
pub async fn run(addresses: Addresses, rate: f64, stop: CancellationToken) -> anyhow::Result<()> {
    for service in Service::ALL {
        // Bound and released: a taken port is told before anything is started.
        drop(listen(service, addresses).await?);
    }
    let mut running = Vec::new();
    let outcome = tokio::select! {
        outcome = run_all(addresses, rate, &mut running) => outcome,
        () = stop.cancelled() => Ok(()),
    };
    end_all(running).await;
    outcome
}

/// Starts all and waits for the first that ends; returns only with an error.
async fn run_all(
    addresses: Addresses,
    rate: f64,
    running: &mut Vec<Running>,
) -> anyhow::Result<()> {
    for service in Service::ALL {
        running.push(start(service, addresses, rate)?);
        let child = &mut running.last_mut().context("nothing was started")?.child;
        match timeout(START_MAX, ready(child)).await {
            Ok(Ok(())) => {}
            // Its own words, on standard error, say more.
            Ok(Err(_)) => bail!("{service} did not start"),
            Err(_) => bail!("{service} was not ready within {START_MAX:?}"),
        }
        println!("{service:14} {}", addresses.url(service));
    }
    println!("the shop is open; Ctrl-C closes it");
    let mut ends: FuturesUnordered<_> =
        running.iter_mut().map(|one| async { (one.service, one.child.wait().await) }).collect();
    match ends.next().await {
        Some((service, Ok(status))) => bail!("{service} ended by itself ({status})"),
        Some((service, Err(error))) => {
            Err(anyhow!(error).context(format!("lost sight of {service}")))
        }
        None => bail!("no service was started"),
    }
}

fn start(service: Service, addresses: Addresses, rate: f64) -> anyhow::Result<Running> {
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let mut command = Command::new(program);
    command
        .arg(service.name())
        .arg("--end-with-stdin")
        .arg("--port-base")
        .arg(addresses.port_base().to_string());
    if service == Service::Traffic {
        command.arg("--rate").arg(rate.to_string());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A group of its own: Ctrl-C at the terminal reaches this process alone, which then ends the load first.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {service}"))?;
    let pipe = child.stdin.take();
    Ok(Running { service, child, pipe })
}

/// Waits for the line `ready` on the child's standard output.
async fn ready(child: &mut Child) -> anyhow::Result<()> {
    let stdout = child.stdout.take().context("the child has no standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if line == "ready" {
            return Ok(());
        }
    }
    bail!("the child closed its standard output")
}

/// Ends the load first and then, all at once, the services, so that none is missed by another.
async fn end_all(running: Vec<Running>) {
    let (load, services): (Vec<_>, Vec<_>) =
        running.into_iter().partition(|one| one.service == Service::Traffic);
    for group in [load, services] {
        futures::future::join_all(group.into_iter().map(end)).await;
    }
}

async fn end(mut one: Running) {
    drop(one.pipe.take());
    if timeout(END_MAX, one.child.wait()).await.is_err() {
        eprintln!("{} did not end within {END_MAX:?} and was killed", one.service);
        let _ = one.child.kill().await;
    }
}
