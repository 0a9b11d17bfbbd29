//! Ten times the data: the same shop hour after hour into one directory, and what the first hour's questions, a restart
//! and ingest cost then.

use crate::corpus::{self, HOUR_NS, Settings, Shop};
use crate::ingest;
use crate::load;
use crate::queries::{self, Known};
use crate::report::{Report, Row};
use crate::server::{Program, Server};
use std::path::Path;

/// Hours in all.
const HOURS: u64 = 10;

/// Restarts of which the shortest counts.
const RESTARTS: usize = 3;

/// What is compared.
struct Figures {
    /// Median of the hours.
    peak_rss_mib: f64,
    ready_ms: f64,
    /// 95th percentiles.
    trace_ms: f64,
    logs_ms: f64,
}

/// Sends the first hour and the others and adds a row for each figure that may grow, each with its goal.
///
/// * `settings`: of the last hour.
/// * `data_dir`: does not exist yet.
pub async fn run(
    program: &Program,
    data_dir: &Path,
    settings: Settings,
    report: &mut Report,
) -> anyhow::Result<()> {
    let hour = |number: u64| Settings {
        traffic: number,
        start_ns: settings.start_ns - (HOURS - 1 - number) * HOUR_NS,
        ..settings
    };
    let first = Shop::new(hour(0));
    let (_, logs) = corpus::logs::encode(&first);
    let (_, metrics) = corpus::metrics::encode(&first);
    let known = Known { shop: &first, logs: &logs, metrics: &metrics };
    let mut of_all: Vec<Figures> = Vec::new();
    for (name, hours) in [("1 hour", 0..1), ("10 hours", 1..HOURS)] {
        let mut peaks = load(program, data_dir, hours.map(hour)).await?;
        let each: Vec<String> = peaks.iter().map(|peak| format!("{peak:.0}")).collect();
        peaks.sort_by(f64::total_cmp);
        let peak_rss_mib = peaks[peaks.len() / 2];
        let (ready, _) = ingest::restarts(program, data_dir, RESTARTS).await?;
        let server = Server::start(program, data_dir).await?;
        let [trace_ms, logs_ms] = queries::by_trace_id(&server, &known, name, report).await?;
        server.stop().await?;
        let ready_ms = ready.as_secs_f64() * 1e3;
        let row = |figure: &str, unit, value| Row::plain(name, figure, unit, value);
        let peak = row("peak RSS at ingest, median", "MiB", peak_rss_mib);
        report.add(peak.note(format!("by hour: {}", each.join(", "))));
        report.add(row("ready after a start", "ms", ready_ms));
        of_all.push(Figures { peak_rss_mib, ready_ms, trace_ms, logs_ms });
    }
    let [one, ten] = &of_all[..] else { return Ok(()) };
    let mut grown = |figure: &str, one: f64, ten: f64, goal: f64| {
        report.add(Row::plain("10 hours by 1", figure, "x", ten / one).at_most(goal));
    };
    grown("trace by ID, p95", one.trace_ms, ten.trace_ms, 1.5);
    grown("logs by trace ID, p95", one.logs_ms, ten.logs_ms, 1.5);
    grown("peak RSS at ingest", one.peak_rss_mib, ten.peak_rss_mib, 1.0);
    grown("ready after a start", one.ready_ms, ten.ready_ms, 2.0);
    Ok(())
}

/// Sends hours to one process, each until it is idle; returns the most memory it took in each, MiB.
async fn load(
    program: &Program,
    data_dir: &Path,
    hours: impl Iterator<Item = Settings>,
) -> anyhow::Result<Vec<f64>> {
    let server = Server::start(program, data_dir).await?;
    let mut peaks = Vec::new();
    for settings in hours {
        let shop = Shop::new(settings);
        let signals = [
            corpus::traces::encode(&shop),
            corpus::logs::encode(&shop).0,
            corpus::metrics::encode(&shop).0,
        ];
        drop(shop);
        server.forget_peak()?;
        load::send(server.otlp, &signals.each_ref()).await?;
        server.idle().await?;
        peaks.push(server.memory_mib("VmHWM")?);
    }
    server.stop().await?;
    Ok(peaks)
}
