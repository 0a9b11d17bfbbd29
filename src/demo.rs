//! `trefoil demo`: the shop of `examples/`, against the running server or one of its own.

use crate::app::{App, Cause, shutdown_signal};
use crate::config::Config;
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tracing::{info, warn};

/// The shop's launcher: starts every service and the load, and ends them when its stdin is closed.
const SHOP: &str = "trefoil-shop";

/// Runs until Ctrl-C, or until the shop ends.
///
/// # Errors
/// When the shop is not there, can't start, or fails.
pub async fn run(config: Config) -> anyhow::Result<()> {
    crate::logging::start(&config.log);
    let shop = shop_path()?;
    let (mut http, mut otlp) = (config.http_addr, config.otlp_grpc_addr);
    let app = if is_running(http).await {
        info!(ui = %format!("http://{http}"), "using the server that is running");
        None
    } else {
        let app = App::build(config).await?;
        (http, otlp) = (app.addrs().http, app.addrs().otlp_grpc);
        Some(app)
    };

    let mut child = Command::new(&shop)
        .args(["--end-with-stdin", "up"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}"))
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("can't start {}", shop.display()))?;
    // Held open as long as this process lives: the shop ends with it, however it ends. Kept apart from the child,
    // whose `wait` would close it.
    let mut open = child.stdin.take();
    info!("the shop is open; look at http://{http}  (Ctrl-C ends everything)");

    let result = match app {
        None => tokio::select! {
            signal = shutdown_signal() => {
                info!(signal, "closing the shop");
                close(&mut child, open.take()).await;
                Ok(())
            }
            ended = child.wait() => fail_unless_done(ended),
        },
        Some(mut app) => {
            let (cause, result) = tokio::select! {
                cause = app.first_stop(shutdown_signal()) => (cause, Ok(())),
                ended = child.wait() => {
                    (Cause::Asked("the shop's end"), fail_unless_done(ended))
                }
            };
            close(&mut child, open.take()).await;
            app.drain(cause).await.and(result)
        }
    };
    result
}

fn shop_path() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where this program is")?;
    let shop = own.with_file_name(SHOP);
    if !shop.is_file() {
        bail!("{} is not there: build it with `cargo build -p trefoil-examples`", shop.display());
    }
    Ok(shop)
}

/// Whether a Trefoil answers there.
async fn is_running(http: SocketAddr) -> bool {
    let answer = reqwest::Client::new()
        .get(format!("http://{http}/readyz"))
        .timeout(Duration::from_secs(2))
        .send()
        .await;
    answer.is_ok_and(|response| response.status().is_success())
}

/// Asks the shop to end by closing its stdin, and ends it if it does not.
async fn close(child: &mut Child, open: Option<ChildStdin>) {
    const GRACE: Duration = Duration::from_secs(10);
    drop(open);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        warn!("the shop took too long to end");
        let _ = child.kill().await;
    }
}

fn fail_unless_done(ended: std::io::Result<std::process::ExitStatus>) -> anyhow::Result<()> {
    let status = ended.context("waiting for the shop")?;
    if !status.success() {
        bail!("the shop ended: {status}");
    }
    Ok(())
}
