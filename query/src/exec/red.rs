//! RED figures from cells: rate, errors and percentiles of services and operations, heat maps, exemplars.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use trefoil_api::services::{
    Heatmap, OperationRow, Percentile, RedPoint, ServiceDetail, ServiceList, ServiceRow,
    SpanExemplar,
};
use trefoil_storage::red::sketch::bounds_of;
use trefoil_storage::red::{RedCell, RedFilter, RedStore, Sketch};
use trefoil_storage::spans::STATUS_ERROR;
use trefoil_storage::spans::records::hex;
use trefoil_storage::spans::table::kind_name;

const SECOND_NS: u64 = 1_000_000_000;

/// Narrowest step: the width of a fresh cell.
const STEP_MIN_NS: u64 = 10 * SECOND_NS;

/// Steps of a sparkline: ten seconds each over a quarter of an hour, so that a change shows within half a minute.
const SPARK_STEPS: u64 = 90;

/// Exemplars shown per step of a chart.
const EXEMPLARS_PER_STEP: usize = 4;

/// `SpanKind` of spans through which work enters a service.
const ENTRY_KINDS: [i32; 2] = [2, 5];

/// A count of spans with their durations.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub count: u64,
    pub errors: u64,
    pub sketch: Sketch,
}

impl Figures {
    pub fn add(&mut self, cell: &RedCell) {
        let count = cell.count();
        self.count += count;
        if cell.key.status == STATUS_ERROR {
            self.errors += count;
        }
        self.sketch.merge(&cell.sketch);
    }

    pub fn error_ratio(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.errors as f64 / self.count as f64 }
    }

    /// A percentile with the bucket that holds the exact one.
    pub fn percentile(&self, q: f64) -> Option<Percentile> {
        self.sketch.quantile(q).map(|found| Percentile {
            value_ns: found.value_ns,
            low_ns: found.low_ns as f64,
            high_ns: found.high_ns as f64,
        })
    }

    pub fn percentile_ns(&self, q: f64) -> Option<f64> {
        self.sketch.quantile(q).map(|found| found.value_ns)
    }
}

/// A step that divides a range into about `wanted` steps, a multiple of the cells' width.
pub fn step_for(start_ns: u64, end_ns: u64, wanted: u64) -> u64 {
    let exact = end_ns.saturating_sub(start_ns) / wanted.max(1);
    exact.div_ceil(STEP_MIN_NS).max(1) * STEP_MIN_NS
}

/// Seconds over which counts of a range were collected: from the first cell on, since nothing came before.
pub fn covered_seconds<'a>(
    cells: impl IntoIterator<Item = &'a RedCell>,
    start_ns: u64,
    end_ns: u64,
) -> f64 {
    let ends = cells
        .into_iter()
        .map(|cell| (cell.time_ns, cell.time_ns.saturating_add(cell.width_ns)))
        .reduce(|(first, last), (start, end)| (first.min(start), last.max(end)));
    let (first, last) = ends.unwrap_or((start_ns, end_ns));
    let covered = end_ns.min(last).saturating_sub(start_ns.max(first));
    (covered as f64 / SECOND_NS as f64).max(10.0)
}

/// The cells that say how a service does: those of its entry spans, or all when it has none.
pub fn entry_cells<'a>(cells: &[&'a RedCell]) -> Vec<&'a RedCell> {
    let entry: Vec<&RedCell> =
        cells.iter().copied().filter(|c| ENTRY_KINDS.contains(&c.key.kind)).collect();
    if entry.is_empty() { cells.to_vec() } else { entry }
}

/// All services over a range.
pub fn services(red: &RedStore, start_ns: u64, end_ns: u64) -> io::Result<ServiceList> {
    let cells = red.cells(&RedFilter::default(), start_ns, end_ns)?;
    let step_ns = step_for(start_ns, end_ns, SPARK_STEPS);
    let seconds = covered_seconds(&cells, start_ns, end_ns);
    let mut by_service: BTreeMap<Arc<str>, Vec<&RedCell>> = BTreeMap::new();
    for cell in &cells {
        by_service.entry(cell.key.service.clone()).or_default().push(cell);
    }
    let services = by_service
        .into_iter()
        .map(|(name, cells)| {
            let cells = entry_cells(&cells);
            let mut total = Figures::default();
            cells.iter().for_each(|cell| total.add(cell));
            let steps = series(&cells, start_ns, end_ns, step_ns);
            let step_seconds = step_ns as f64 / SECOND_NS as f64;
            ServiceRow {
                name: name.to_string(),
                count: total.count,
                error_count: total.errors,
                rate: total.count as f64 / seconds,
                error_ratio: total.error_ratio(),
                p50: total.percentile(0.5),
                p95: total.percentile(0.95),
                p99: total.percentile(0.99),
                rate_series: steps.iter().map(|(_, f)| f.count as f64 / step_seconds).collect(),
                error_series: steps
                    .iter()
                    .map(|(_, f)| (f.count > 0).then(|| f.error_ratio()))
                    .collect(),
                p99_series: steps.iter().map(|(_, f)| f.percentile_ns(0.99)).collect(),
            }
        })
        .collect();
    Ok(ServiceList { start: start_ns, end: end_ns, step_ns, services })
}

/// Figures by step; steps are aligned to multiples of their length.
fn series(cells: &[&RedCell], start_ns: u64, end_ns: u64, step_ns: u64) -> Vec<(u64, Figures)> {
    let first = start_ns - start_ns % step_ns;
    let count = (end_ns.saturating_sub(first) / step_ns + 1) as usize;
    let mut steps: Vec<(u64, Figures)> =
        (0..count as u64).map(|i| (first + i * step_ns, Figures::default())).collect();
    for cell in cells {
        let at = (cell.time_ns.max(first) - first) / step_ns;
        if let Some((_, figures)) = steps.get_mut(at as usize) {
            figures.add(cell);
        }
    }
    steps
}

/// Which part of a service is asked for.
#[derive(Debug, Clone, Default)]
pub struct DetailQuery {
    pub operation: Option<String>,
    pub kind: Option<i32>,
    pub start_ns: u64,
    pub end_ns: u64,
    /// 0 = chosen to fit.
    pub step_ns: u64,
}

/// One service over a range; `None` when nothing of it is known there.
pub fn service(
    red: &RedStore,
    name: &str,
    query: &DetailQuery,
) -> io::Result<Option<ServiceDetail>> {
    let (start_ns, end_ns) = (query.start_ns, query.end_ns);
    let filter = RedFilter { service: Some(name.to_owned()), ..RedFilter::default() };
    let all = red.cells(&filter, start_ns, end_ns)?;
    if all.is_empty() {
        return Ok(None);
    }
    let seconds = covered_seconds(&all, start_ns, end_ns);
    let step_ns = if query.step_ns == 0 {
        step_for(start_ns, end_ns, 120)
    } else {
        query.step_ns.div_ceil(STEP_MIN_NS) * STEP_MIN_NS
    };
    let all: Vec<&RedCell> = all.iter().collect();
    let chosen: Vec<&RedCell> = if query.operation.is_some() || query.kind.is_some() {
        all.iter()
            .copied()
            .filter(|c| query.operation.as_ref().is_none_or(|o| *c.key.operation == **o))
            .filter(|c| query.kind.is_none_or(|kind| c.key.kind == kind))
            .collect()
    } else {
        entry_cells(&all)
    };
    let mut total = Figures::default();
    chosen.iter().for_each(|cell| total.add(cell));
    let step_seconds = step_ns as f64 / SECOND_NS as f64;
    let steps = series(&chosen, start_ns, end_ns, step_ns);
    let points = steps
        .iter()
        .map(|(time, figures)| RedPoint {
            time: *time,
            count: figures.count,
            error_count: figures.errors,
            rate: figures.count as f64 / step_seconds,
            p50_ns: figures.percentile_ns(0.5),
            p95_ns: figures.percentile_ns(0.95),
            p99_ns: figures.percentile_ns(0.99),
        })
        .collect();
    Ok(Some(ServiceDetail {
        name: name.to_owned(),
        start: start_ns,
        end: end_ns,
        step_ns,
        count: total.count,
        error_count: total.errors,
        p50: total.percentile(0.5),
        p95: total.percentile(0.95),
        p99: total.percentile(0.99),
        heatmap: heatmap(&steps),
        exemplars: exemplars(&chosen, start_ns, end_ns, step_ns),
        operations: operations(&all, seconds),
        series: points,
    }))
}

fn operations(cells: &[&RedCell], seconds: f64) -> Vec<OperationRow> {
    let mut by_operation: BTreeMap<(Arc<str>, i32), Figures> = BTreeMap::new();
    for cell in cells {
        by_operation.entry((cell.key.operation.clone(), cell.key.kind)).or_default().add(cell);
    }
    let mut rows: Vec<OperationRow> = by_operation
        .into_iter()
        .map(|((name, kind), figures)| OperationRow {
            name: name.to_string(),
            kind: kind_name(kind),
            count: figures.count,
            error_count: figures.errors,
            rate: figures.count as f64 / seconds,
            p50: figures.percentile(0.5),
            p95: figures.percentile(0.95),
            p99: figures.percentile(0.99),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.count));
    rows
}

/// Rows of the heat map per doubling of the duration.
const ROWS_PER_DOUBLING: f64 = 2.0;

fn heatmap(steps: &[(u64, Figures)]) -> Heatmap {
    let ends = steps.iter().filter_map(|(_, figures)| {
        let buckets = figures.sketch.buckets();
        Some((bounds_of(buckets.first()?.0).0, bounds_of(buckets.last()?.0).1))
    });
    let Some((low, high)) = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else {
        return Heatmap::default();
    };
    let row_of = |ns: f64| (ns.max(1.0).log2() * ROWS_PER_DOUBLING).floor() as i64;
    let (first, last) = (row_of(low as f64), row_of(high as f64));
    let rows = (last - first + 1) as usize;
    let edge = |row: i64| 2f64.powf(row as f64 / ROWS_PER_DOUBLING);
    let bounds_ns = (first..=last + 1).map(edge).collect();
    let counts = steps
        .iter()
        .map(|(_, figures)| {
            let mut column = vec![0; rows];
            for (bucket, count) in figures.sketch.buckets() {
                let (low, high) = bounds_of(*bucket);
                let row = row_of(low as f64 + (high - low) as f64 / 2.0).clamp(first, last);
                column[(row - first) as usize] += count;
            }
            column
        })
        .collect();
    Heatmap { times: steps.iter().map(|(time, _)| *time).collect(), bounds_ns, counts }
}

/// Per step the slowest spans, errors first among equals.
fn exemplars(cells: &[&RedCell], start_ns: u64, end_ns: u64, step_ns: u64) -> Vec<SpanExemplar> {
    let mut by_step: BTreeMap<u64, Vec<SpanExemplar>> = BTreeMap::new();
    for cell in cells {
        for exemplar in &cell.exemplars {
            if exemplar.time_ns < start_ns || exemplar.time_ns > end_ns {
                continue;
            }
            by_step.entry(exemplar.time_ns / step_ns).or_default().push(SpanExemplar {
                trace_id: hex(&exemplar.trace_id),
                span_id: hex(&exemplar.span_id),
                time: exemplar.time_ns,
                duration_ns: exemplar.duration_ns,
                operation: cell.key.operation.to_string(),
                error: cell.key.status == STATUS_ERROR,
            });
        }
    }
    by_step
        .into_values()
        .flat_map(|mut step| {
            step.sort_by_key(|e| (std::cmp::Reverse(e.duration_ns), !e.error));
            let errors = step.iter().filter(|e| e.error).take(1).cloned();
            let mut kept: Vec<SpanExemplar> =
                step.iter().take(EXEMPLARS_PER_STEP).cloned().chain(errors).collect();
            kept.sort_by_key(|e| e.time);
            kept.dedup_by(|a, b| a.span_id == b.span_id);
            kept
        })
        .collect()
}
