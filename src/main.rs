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

/// How long the allocator keeps free memory before the system gets it back, ms. With its own second the peak of a busy
/// server is a fifth higher; at 0.1 s clearing pages anew takes a sixth more CPU time (docs/performance.md, "Memory").
const PURGE_DELAY_MS: std::ffi::c_long = 200;

/// `mi_option_purge_delay` of mimalloc 3, which the bindings have no name for.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Sets [`PURGE_DELAY_MS`].
#[allow(unsafe_code)]
fn give_memory_back_soon() {
    // SAFETY: stores a number in a table of the allocator, atomically; no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
}

fn main() -> ExitCode {
    give_memory_back_soon();
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
