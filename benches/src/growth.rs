//! Ten times the data: the same shop hour after hour into one directory, and what the first hour's questions, a restart
//! and ingest cost then.

use crate::corpus::{self, HOUR_NS, Settings, Shop};
use crate::ingest;
use crate::load;
use crate::queries::{self, Known};
use crate::report::{Report, Row};
use crate::server::{Program, Server};
use anyhow::ensure;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Hours in all.
const HOURS: u64 = 10;

/// The first hour is sent so many times, each time to an empty directory, and the last hour to copies of what the hours
/// before left: peaks of memory differ by a tenth from one time to the next. Each meets a server that was just started,
/// so that what differs is the data; hours that follow each other in one process are told beside it.
const TIMES: usize = 3;

/// Directories of one hour and of ten are asked in turn, so that both meet the machine's fast and slow moments; the
/// least counts.
const ROUNDS: usize = 3;

/// Restarts of a round.
const RESTARTS: usize = 2;

/// What is compared, the least of all rounds, ms.
struct Figures {
    ready_ms: f64,
    /// 95th percentiles.
    trace_ms: f64,
    logs_ms: f64,
}

/// Sends the first hour and the others and adds a row for each figure that may grow, each with its goal.
///
/// * `settings`: of the last hour.
/// * `data_dir`: does not exist yet, nor does another whose name begins as its.
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
    let of_one = |number: usize| data_dir.with_extension(format!("first-{number}"));
    let mut first_peaks = Vec::new();
    for number in 0..TIMES {
        first_peaks.extend(load(program, &of_one(number), [hour(0)].into_iter()).await?);
    }
    let of_nine = of_one(TIMES - 1);
    let running = load(program, &of_nine, (1..HOURS - 1).map(hour)).await?;
    let of_ten = data_dir.with_extension("ten");
    let mut last_peaks = Vec::new();
    for _ in 0..TIMES {
        copy(&of_nine, &of_ten)?;
        last_peaks.extend(load(program, &of_ten, [hour(HOURS - 1)].into_iter()).await?);
    }

    let first = Shop::new(hour(0));
    let (_, logs) = corpus::logs::encode(&first);
    let (_, metrics) = corpus::metrics::encode(&first);
    let known = Known { shop: &first, logs: &logs, metrics: &metrics };
    let names = ["1 hour", "10 hours"];
    let mut least = names.map(|_| Figures {
        ready_ms: f64::INFINITY,
        trace_ms: f64::INFINITY,
        logs_ms: f64::INFINITY,
    });
    for round in 1..=ROUNDS {
        for ((name, dir), least) in names.iter().zip([of_one(0), of_ten.clone()]).zip(&mut least) {
            let section = format!("{name}, round {round}");
            let (ready, _) = ingest::restarts(program, &dir, RESTARTS).await?;
            let ready_ms = ready.as_secs_f64() * 1e3;
            report.add(Row::plain(&section, "ready after a start", "ms", ready_ms));
            let server = Server::start(program, &dir).await?;
            let [trace_ms, logs_ms] =
                queries::by_trace_id(&server, &known, &section, report).await?;
            server.stop().await?;
            *least = Figures {
                ready_ms: least.ready_ms.min(ready_ms),
                trace_ms: least.trace_ms.min(trace_ms),
                logs_ms: least.logs_ms.min(logs_ms),
            };
        }
    }
    let mut medians = Vec::new();
    let sections = [names[0], names[1], "2nd to 9th hour in one process"];
    for (section, mut peaks) in sections.iter().zip([first_peaks, last_peaks, running]) {
        let each: Vec<String> = peaks.iter().map(|peak| format!("{peak:.0}")).collect();
        peaks.sort_by(f64::total_cmp);
        medians.push(peaks[peaks.len() / 2]);
        let row = Row::plain(section, "peak RSS at ingest, median", "MiB", peaks[peaks.len() / 2]);
        report.add(row.note(each.join(", ")));
    }
    let [one, ten] = least;
    let mut grown = |figure: &str, one: f64, ten: f64, goal: f64| {
        let row = Row::plain("10 hours by 1", figure, "x", ten / one).at_most(goal);
        report.add(row.note(format!("{one:.2} to {ten:.2}")));
    };
    grown("trace by ID, p95", one.trace_ms, ten.trace_ms, 1.5);
    grown("logs by trace ID, p95", one.logs_ms, ten.logs_ms, 1.5);
    grown("peak RSS at ingest", medians[0], medians[1], 1.0);
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

/// Makes `to` a copy of the folder `from`.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status()?;
    ensure!(copied.success(), "{} could not be copied", from.display());
    Ok(())
}
