//! `trefoil-bench`: measures the release binary from outside, as `docs/performance.md` tells.

mod client;
mod corpus;
mod growth;
mod ingest;
mod limits;
mod load;
mod path;
mod queries;
mod report;
mod server;
mod stats;

use anyhow::Context;
use clap::Parser;
use corpus::{Requests, Settings, Shop, metrics::SERIES_PER_POD};
use ingest::Run;
use load::Load;
use queries::Known;
use report::{Report, Row};
use server::{Program, Server};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// As in the program under test, so that the limits are comparable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ingest, sizes, restarts and checked queries of a release build.
#[derive(Debug, Parser)]
struct Options {
    /// The program under test [default: the one beside this]
    #[arg(long)]
    trefoil: Option<PathBuf>,
    /// Part of the whole corpus; 0.1 takes about a minute
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Everything in the corpus follows from it
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// First moment of the corpus' hour, Unix seconds [default: the last hour that ended at least an hour ago]
    #[arg(long)]
    start: Option<u64>,
    /// Runs of each signal's ingest, of which the one with the least CPU time counts, and of the queries, each of a server
    /// just started, of which the least percentiles count
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// What to measure; also `growth`: ten hours one after the other; `path-spans`, `path-logs`, `path-metrics`: the
    /// write path inside this process
    #[arg(long, value_delimiter = ',', default_values = ["limits", "traces", "logs", "metrics", "all"])]
    only: Vec<String>,
    /// Where data directories are made and removed
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Leaves the data directories there
    #[arg(long)]
    keep: bool,
    /// A data directory that an earlier run with the same seed, scale and start left: nothing is sent, restarts and
    /// queries are measured on it. Wants `--start` and `--only all`
    #[arg(long, requires = "start")]
    reuse: Option<PathBuf>,
    /// Only asks the queries of the signals of --only, over a data directory that an earlier run left with --keep and
    /// the same seed, scale and --start
    #[arg(long)]
    over: Option<PathBuf>,
    /// Further arguments for `trefoil serve`
    #[arg(last = true)]
    serve: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let beside = std::env::current_exe()?.with_file_name("trefoil");
    let program = Program {
        path: options.trefoil.clone().unwrap_or(beside),
        arguments: options.serve.clone(),
    };
    std::fs::create_dir_all(&options.dir)?;
    let settings = Settings {
        seed: options.seed,
        traffic: 0,
        scale: options.scale,
        start_ns: options.start.map_or_else(last_hour_ns, |seconds| seconds * 1_000_000_000),
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut report =
        Report { command: format!("trefoil-bench {}", arguments.join(" ")), rows: Vec::new() };
    measure(&options, &program, settings, &mut report).await?;
    let markdown = report.markdown();
    std::fs::write(options.dir.join("report.md"), &markdown)?;
    std::fs::write(options.dir.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    println!("{markdown}");
    Ok(())
}

async fn measure(
    options: &Options,
    program: &Program,
    settings: Settings,
    report: &mut Report,
) -> anyhow::Result<()> {
    let wanted = |part: &str| options.only.iter().any(|only| only == part);
    if wanted("growth") {
        let dir = fresh_dir(options)?;
        growth::run(program, &dir.path().join("data"), settings, report).await?;
        if options.only.len() == 1 {
            return Ok(());
        }
    }
    let started = Instant::now();
    let shop = Shop::new(settings);
    let traces = corpus::traces::encode(&shop);
    let (logs, log_facts) = corpus::logs::encode(&shop);
    let (metrics, metric_facts) = corpus::metrics::encode(&shop);
    eprintln!("corpus made in {:.1} s", started.elapsed().as_secs_f64());
    let signals = [("spans", &traces), ("logs", &logs), ("metrics", &metrics)];
    for (name, requests) in signals {
        report.add(Row::plain("corpus", name, "records", requests.records as f64));
        let per_record = requests.bytes() as f64 / requests.records as f64;
        report.add(Row::plain("corpus", &format!("{name}: on the wire"), "B/record", per_record));
    }
    let series = (metric_facts.pods.len() * SERIES_PER_POD) as f64;
    report.add(Row::plain("corpus", "Prometheus series", "", series));
    if wanted("limits") {
        for (name, requests) in signals {
            limits::of_signal(name, requests, report)?;
        }
        limits::of_disk(&options.dir, report)?;
    }
    let known = Known { shop: &shop, logs: &log_facts, metrics: &metric_facts };
    if let Some(data_dir) = &options.over {
        let server = Server::start(program, data_dir).await?;
        queries::run(&server, &known, &wanted, report).await?;
        server.stop().await?;
        return Ok(());
    }
    for (name, requests) in signals {
        if wanted(&format!("path-{name}")) {
            path::run(name, requests, &fresh_dir(options)?.path().join("data"), report).await?;
        }
    }
    for (part, (name, requests)) in ["traces", "logs", "metrics"].into_iter().zip(signals) {
        if wanted(part) {
            one_signal(options, program, name, requests, series, report).await?;
        }
    }
    if wanted("all") {
        together(options, program, &signals, &known, report).await?;
    }
    Ok(())
}

/// The start of the last hour that ended an hour ago, Unix ns.
fn last_hour_ns() -> u64 {
    let now_ns =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    (now_ns / corpus::HOUR_NS).saturating_sub(2) * corpus::HOUR_NS
}

/// A fresh folder for a data directory and its log; removed when dropped, unless it is kept.
fn fresh_dir(options: &Options) -> anyhow::Result<tempfile::TempDir> {
    let mut dir = tempfile::Builder::new()
        .prefix("data-")
        .tempdir_in(&options.dir)
        .context("making a directory")?;
    dir.disable_cleanup(options.keep);
    Ok(dir)
}

/// Goals per CPU-second and bytes on disk, from the peers' figures; see docs/performance.md.
fn goals(signal: &str) -> (f64, f64) {
    match signal {
        "spans" => (140_000.0, 40.0),
        "logs" => (150_000.0, 36.0),
        _ => (200_000.0, 1.8),
    }
}

async fn one_signal(
    options: &Options,
    program: &Program,
    name: &str,
    requests: &Requests,
    series: f64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut runs: Vec<Run> = Vec::new();
    for _ in 0..options.runs.max(1) {
        let dir = fresh_dir(options)?;
        runs.push(ingest::run(program, &dir.path().join("data"), &[(name, requests)]).await?);
    }
    let all: Vec<String> =
        runs.iter().map(|run| format!("{:.0}", requests.records as f64 / run.cpu_s)).collect();
    let run = runs.into_iter().min_by(|a, b| a.cpu_s.total_cmp(&b.cpu_s)).context("no run")?;
    let records = requests.records as f64;
    let (per_cpu, bytes) = goals(name);
    let row = |figure: &str, unit, value| Row::plain(name, figure, unit, value);
    report.add(
        row("per CPU-second, to idle", "records", records / run.cpu_s)
            .at_least(per_cpu)
            .note(format!("{} runs: {}", all.len(), all.join(", "))),
    );
    let until = records / run.cpu_until_acknowledged_s;
    report.add(row("per CPU-second, until the last is acknowledged", "records", until));
    report.add(row("per second", "records", records / run.load.wall.as_secs_f64()));
    add_acknowledged(name, &run.load, report);
    let on_disk = match name {
        "spans" => run.bytes_of(&["spans", "red"]) as f64,
        _ => run.bytes_of(&[name]) as f64,
    };
    if name == "metrics" {
        let samples = series * corpus::metrics::STEPS as f64;
        report.add(row("on disk per sample", "B", on_disk / samples).at_most(bytes));
        report.add(row("on disk per point", "B", on_disk / records));
    } else {
        report.add(row("on disk", "B/record", on_disk / records).at_most(bytes));
    }
    if name == "spans" {
        let red = run.bytes_of(&["red"]) as f64;
        report.add(row("of that histograms per operation", "B/record", red / records));
    }
    report.add(row("data directory in all", "MiB", run.directory_bytes as f64 / 1048576.0));
    report.add(row("peak RSS", "MiB", run.peak_rss_mib));
    Ok(())
}

/// How long acknowledgements took, after the sync.
fn add_acknowledged(section: &str, load: &Load, report: &mut Report) {
    let row = |figure: &str, value| Row::plain(section, figure, "ms", value);
    let times = &load.acknowledged;
    report.add(row("acknowledged, p50", times.percentile_ms(50.0)).at_most(12.0).note(format!(
        "{} requests, {} refused",
        times.len(),
        load.refused
    )));
    report.add(row("acknowledged, p99", times.percentile_ms(99.0)).at_most(50.0));
}

/// All three at once, then restarts and queries over what they left.
async fn together(
    options: &Options,
    program: &Program,
    signals: &[(&str, &Requests)],
    known: &Known<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let dir = fresh_dir(options)?;
    if let Some(data_dir) = &options.reuse {
        return restarts_and_queries(options, program, dir.path(), data_dir, None, known, report)
            .await;
    }
    let data_dir = dir.path().join("data");
    let run = ingest::run(program, &data_dir, signals).await?;
    let records: u64 = signals.iter().map(|(_, requests)| requests.records).sum();
    let section = "all signals at once";
    let row = |figure: &str, unit, value| Row::plain(section, figure, unit, value);
    report.add(row("peak RSS", "MiB", run.peak_rss_mib).at_most(400.0));
    report.add(row("per CPU-second, to idle", "records", records as f64 / run.cpu_s));
    report.add(row("per second", "records", records as f64 / run.load.wall.as_secs_f64()));
    add_acknowledged(section, &run.load, report);
    let first = (run.ready_empty, run.idle_empty_mib);
    restarts_and_queries(options, program, dir.path(), &data_dir, Some(first), known, report).await
}

/// * `dir`: for an empty data directory.
/// * `first`: time until ready and memory at rest of an earlier start without data.
async fn restarts_and_queries(
    options: &Options,
    program: &Program,
    dir: &Path,
    data_dir: &Path,
    first: Option<(Duration, f64)>,
    known: &Known<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut empty = ingest::restarts(program, &dir.join("empty"), 3).await?;
    if let Some((ready, idle_mib)) = first {
        empty = (empty.0.min(ready), empty.1.min(idle_mib));
    }
    let full = ingest::restarts(program, data_dir, 3).await?;
    let row = |figure: &str, unit, value| Row::plain("restart, best of 3", figure, unit, value);
    report.add(row("ready, empty", "ms", empty.0.as_secs_f64() * 1e3).at_most(50.0));
    report.add(row("ready, with this data", "ms", full.0.as_secs_f64() * 1e3).at_most(100.0));
    report.add(row("idle RSS, empty", "MiB", empty.1).at_most(30.0));
    report.add(row("idle RSS, with this data", "MiB", full.1).at_most(60.0));
    let mut runs = Vec::new();
    for _ in 0..options.runs.max(1) {
        let mut run = Report::default();
        let server = Server::start(program, data_dir).await?;
        queries::run(&server, known, &|_| true, &mut run).await?;
        run.add(Row::plain("queries", "RSS after them", "MiB", server.memory_mib("VmRSS")?));
        server.stop().await?;
        runs.push(run);
    }
    report.add_least(&runs);
    Ok(())
}
