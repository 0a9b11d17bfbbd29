//! What typical queries over 27,000 series in memory cost the engine itself, without a store: the
//! median and the slowest of the runs in milliseconds, then per query and per step (evaluation time)
//! the CPU time of all threads, allocations, and kilobytes allocated. A copy of the samples that the
//! source makes is part of it.
//!
//! `cargo bench -p trefoil-promql`

use std::alloc::System;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use trefoil_promql::{
    Budget, Engine, EngineOptions, ExemplarSeries, Labels, Limits, Matcher, Metadata, QueryRange,
    SelectHints, Series, SeriesSource, SourceError, SourceStats, TimeRange, matches_all,
};

const SERVICES: usize = 20;
const ROUTES: usize = 75;
const BOUNDS: [&str; 15] = [
    "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5", "0.75", "1", "2.5", "5",
    "7.5", "10", "+Inf",
];
/// One hour of samples, 15 s apart.
const SAMPLES: i64 = 240;
/// At least so many runs, and for so long: the kernel counts CPU time in hundredths of a second.
const RUNS: usize = 15;
const RUNS_FOR: Duration = Duration::from_millis(700);

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// User and system time of this process, ms (proc(5)).
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_ascii_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// Series in vectors, so that reading is little more than copying.
struct Columns(Vec<Series>);

impl SeriesSource for Columns {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _hints: &SelectHints,
        budget: &Budget,
    ) -> Result<Vec<Series>, SourceError> {
        let mut out = Vec::new();
        for s in self.0.iter().filter(|s| matches_all(matchers, &s.labels)) {
            let from = s.floats.times.partition_point(|t| *t < range.start_ms);
            let to = s.floats.times.partition_point(|t| *t <= range.end_ms);
            let mut series = Series::new(s.labels.clone());
            series.floats.times = s.floats.times[from..to].to_vec().into();
            series.floats.values = s.floats.values[from..to].to_vec().into();
            budget.take_read(series.sample_cost())?;
            out.push(series);
        }
        Ok(out)
    }

    fn series(
        &self,
        _: &[Vec<Matcher>],
        _: TimeRange,
        _: usize,
        _: &Budget,
    ) -> Result<Vec<Labels>, SourceError> {
        Ok(self.0.iter().map(|s| s.labels.clone()).collect())
    }

    fn label_names(
        &self,
        _: &[Vec<Matcher>],
        _: TimeRange,
        _: usize,
        _: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn label_values(
        &self,
        _: &str,
        _: &[Vec<Matcher>],
        _: TimeRange,
        _: usize,
        _: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn metadata(
        &self,
        _: Option<&str>,
    ) -> Result<std::collections::BTreeMap<String, Vec<Metadata>>, SourceError> {
        Ok(std::collections::BTreeMap::new())
    }

    fn exemplars(
        &self,
        _: &[Vec<Matcher>],
        _: TimeRange,
        _: &Budget,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        Ok(Vec::new())
    }

    fn stats(&self, _: usize) -> Result<SourceStats, SourceError> {
        Ok(SourceStats::default())
    }
}

fn series(name: &str, labels: &[(&str, &str)], slope: f64) -> Series {
    let pairs = labels.iter().copied().chain([("__name__", name), ("job", "shop")]);
    let mut series = Series::new(Labels::new(pairs));
    for i in 0..SAMPLES {
        series.floats.push(i * 15_000, slope * i as f64);
    }
    series
}

fn corpus() -> Columns {
    let mut all = Vec::new();
    for service in 0..SERVICES {
        let service = format!("service-{service}");
        for route in 0..ROUTES {
            let slope = (route + 1) as f64;
            let route = format!("/route/{route}");
            let base = [("service", service.as_str()), ("route", route.as_str())];
            for (i, le) in BOUNDS.iter().enumerate() {
                let labels = [base[0], base[1], ("le", le)];
                all.push(series("latency_bucket", &labels, slope * (i + 1) as f64));
            }
            all.push(series("latency_count", &base, slope));
            all.push(series("latency_sum", &base, slope / 10.0));
            all.push(series("requests_total", &base, slope));
        }
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Columns(all)
}

fn main() {
    let source: Arc<dyn SeriesSource> = Arc::new(corpus());
    let engine = Engine::new(EngineOptions::default());
    let end = SAMPLES * 15_000;
    let range = QueryRange { start_ms: end - 1_800_000, end_ms: end, step_ms: 15_000 };
    for query in [
        "sum by (service) (rate(requests_total[1m]))",
        "histogram_quantile(0.95, sum by (le, service) (rate(latency_bucket[1m])))",
        "topk(5, rate(requests_total[1m]))",
        "requests_total / on (service, route) latency_count",
        "count({job=\"shop\"})",
    ] {
        for (kind, times) in [("range", Some(range)), ("instant", None)] {
            let steps = times.map_or(1, |range| range.steps());
            let mut ms: Vec<f64> = Vec::new();
            let (began, cpu_before, region) = (Instant::now(), cpu_ms(), Region::new(ALLOCATOR));
            while ms.len() < RUNS || began.elapsed() < RUNS_FOR {
                let budget = Budget::new(Limits::default());
                let started = Instant::now();
                let outcome = match times {
                    Some(range) => engine.range(source.as_ref(), query, range, &budget),
                    None => engine.instant(source.as_ref(), query, end, &budget),
                };
                if let Err(e) = outcome {
                    println!("{query}: {e}");
                }
                ms.push(started.elapsed().as_secs_f64() * 1000.0);
            }
            let (made, cpu) = (region.change(), cpu_ms() - cpu_before);
            let runs = ms.len() as f64;
            let (blocks, kilobytes) =
                (made.allocations as f64 / runs, made.bytes_allocated as f64 / 1024.0 / runs);
            ms.sort_by(f64::total_cmp);
            println!(
                "{kind:8} {:8.2} {:8.2} ms  {:8.2} ms CPU, {blocks:8.0} allocations, {kilobytes:8.0} kB a query; {:8.1} us CPU, {:8.1} allocations a step  {query}",
                ms[ms.len() / 2],
                ms[ms.len() - 1],
                cpu / runs,
                cpu / runs * 1000.0 / steps as f64,
                blocks / steps as f64,
            );
        }
    }
}
