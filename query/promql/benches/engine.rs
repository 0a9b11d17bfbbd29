//! Times of typical queries over 27,000 series in memory: what the engine itself costs, without a
//! store. Prints the median and the slowest of the runs, in milliseconds.
//!
//! `cargo bench -p trefoil-promql`

use std::sync::Arc;
use std::time::Instant;

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
const RUNS: usize = 15;

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
            series.floats.times = s.floats.times[from..to].to_vec();
            series.floats.values = s.floats.values[from..to].to_vec();
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
            let mut ms: Vec<f64> = (0..RUNS)
                .map(|_| {
                    let budget = Budget::new(Limits::default());
                    let started = Instant::now();
                    let outcome = match times {
                        Some(range) => engine.range(source.as_ref(), query, range, &budget),
                        None => engine.instant(source.as_ref(), query, end, &budget),
                    };
                    if let Err(e) = outcome {
                        println!("{query}: {e}");
                    }
                    started.elapsed().as_secs_f64() * 1000.0
                })
                .collect();
            ms.sort_by(f64::total_cmp);
            println!("{kind:8} {:8.2} {:8.2}  {query}", ms[RUNS / 2], ms[RUNS - 1]);
        }
    }
}
