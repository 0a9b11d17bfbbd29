//! Trefoil: metrics, traces and logs in one binary.
//!
//! This package holds only the command line, the configuration and the wiring; `ARCHITECTURE.md` tells the rest.

mod app;
mod assets;
mod check;
mod cli;
mod client;
mod config;
mod demo;
mod guard;
mod logging;
mod memory;
mod rooms;
mod self_metrics;
mod site;
mod units;

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

/// Ingest makes many short-lived allocations of all sizes on several threads: 15 to 50 % faster with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::give_back_soon();
    let command = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = runtime.block_on(cli::run(command));
    // What may still run on blocking threads (an interrupted replay) must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match result {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// Says what went wrong in one line, causes included.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("trefoil: {error:#}");
    ExitCode::FAILURE
}
