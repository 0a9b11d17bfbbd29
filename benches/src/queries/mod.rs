//! Queries, one after the other over one connection, each answer checked against what the generator knows.

mod logs;
mod metrics;
mod traces;

use crate::client::Client;
use crate::corpus::{Shop, logs as corpus_logs, metrics as corpus_metrics};
use crate::report::{Report, Row};
use crate::server::Server;
use crate::stats::Times;
use serde_json::Value;
use std::time::Instant;

/// Rounds over all queries; the first meets cold caches.
const ROUNDS: usize = 3;

/// What is known of the corpus.
pub struct Known<'a> {
    pub shop: &'a Shop,
    pub logs: &'a corpus_logs::Facts,
    pub metrics: &'a corpus_metrics::Facts,
}

/// One request and what its answer must be.
struct Query<'a> {
    path: String,
    check: Box<dyn Fn(&Value) -> Result<(), String> + 'a>,
}

/// Queries of one kind.
struct Set<'a> {
    name: &'static str,
    /// Goals of p50 and p95, ms.
    goals: (Option<f64>, Option<f64>),
    queries: Vec<Query<'a>>,
}

/// Asks everything and adds a row for each percentile.
///
/// * `wanted`: whether a signal is asked about.
pub async fn run(
    server: &Server,
    known: &Known<'_>,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let sets = [
        if wanted("traces") { traces::sets(known) } else { Vec::new() },
        if wanted("logs") { logs::sets(known) } else { Vec::new() },
        if wanted("metrics") { metrics::sets(known) } else { Vec::new() },
    ];
    let mut client = Client::connect(server.http).await?;
    let cpu_before = server.cpu_seconds()?;
    for set in sets.into_iter().flatten() {
        ask(server, &mut client, set, "queries", report).await?;
    }
    let cpu = server.cpu_seconds()? - cpu_before;
    report.add(Row::plain("queries", "all of them", "CPU-s", cpu));
    report.add(Row::plain("queries", "peak RSS after them", "MiB", server.memory_mib("VmHWM")?));
    Ok(())
}

/// Asks by trace ID, first for the trace, then for its logs; returns the 95th percentile of each, ms.
pub async fn by_trace_id(
    server: &Server,
    known: &Known<'_>,
    section: &str,
    report: &mut Report,
) -> anyhow::Result<[f64; 2]> {
    let mut client = Client::connect(server.http).await?;
    Ok([
        ask(server, &mut client, traces::by_trace_id(known), section, report).await?,
        ask(server, &mut client, logs::by_trace_id(known), section, report).await?,
    ])
}

/// Returns the 95th percentile, ms.
async fn ask(
    server: &Server,
    client: &mut Client,
    set: Set<'_>,
    section: &str,
    report: &mut Report,
) -> anyhow::Result<f64> {
    let cpu_before = server.cpu_seconds()?;
    let (mut times, mut right, mut asked) = (Vec::new(), 0, 0u32);
    let mut first_fault: Option<String> = None;
    for _ in 0..ROUNDS {
        for query in &set.queries {
            let started = Instant::now();
            let answer = client.get(&query.path).await;
            times.push(started.elapsed());
            asked += 1;
            let checked = match answer {
                Ok(body) => serde_json::from_slice(&body)
                    .map_err(|error| error.to_string())
                    .and_then(|json| (query.check)(&json)),
                Err(error) => Err(error.to_string()),
            };
            match checked {
                Ok(()) => right += 1,
                Err(fault) => {
                    first_fault.get_or_insert_with(|| format!("{}: {fault}", query.path));
                }
            }
        }
    }
    let cpu_ms = (server.cpu_seconds()? - cpu_before) * 1e3 / f64::from(asked);
    if let Some(fault) = first_fault {
        eprintln!("  wrong answer: {fault}");
    }
    let times = Times::new(times);
    let note = format!("{right}/{asked} right");
    let row = |percent: f64| {
        let figure = format!("{}, p{percent}", set.name);
        Row::plain(section, &figure, "ms", times.percentile_ms(percent))
    };
    let with_goal = |row: Row, goal: Option<f64>| match goal {
        Some(goal) => row.at_most(goal),
        None => row,
    };
    report.add(with_goal(row(50.0), set.goals.0).note(note));
    report.add(with_goal(row(95.0), set.goals.1));
    report.add(row(99.0));
    report.add(Row::plain(section, &format!("{}, CPU each", set.name), "ms", cpu_ms));
    Ok(times.percentile_ms(95.0))
}

fn ensure_equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: got {got:?}, want {want:?}")) }
}

/// The list at `key`.
fn list<'v>(answer: &'v Value, key: &str) -> Result<&'v Vec<Value>, String> {
    answer.get(key).and_then(Value::as_array).ok_or_else(|| format!("no list {key:?}"))
}
