//! Correlation: one trace in all three signals.
//!
//! The trace ID joins spans, logs and exemplars; the services on the trace join it to their RED figures around it.

use crate::exec::logs::log_row;
use crate::exec::red::{Figures, covered_seconds, entry_cells};
use crate::exec::traces::traces_data;
use std::collections::BTreeMap;
use std::io;
use trefoil_api::metrics::ExemplarRow;
use trefoil_api::traces::{ContextService, TraceContext};
use trefoil_storage::Stores;
use trefoil_storage::logs::{LogFilter, LogQuery, LogRange, Order};
use trefoil_storage::metrics::PromExemplars;
use trefoil_storage::red::{RedCell, RedFilter};
use trefoil_storage::spans::records::hex;

/// Figures of services are taken this far before and after a trace, ns.
const AROUND_NS: u64 = 150_000_000_000;

/// Cumulative senders repeat exemplars until a new one comes: looked for this far after a trace, ns.
const EXEMPLARS_AFTER_NS: u64 = 600_000_000_000;

/// Logs of a trace at most.
const LOGS_MAX: usize = 10_000;

/// Everything known of a trace; `None` when no span, log or exemplar has its ID.
pub fn trace_context(stores: &Stores, trace_id: &[u8; 16]) -> io::Result<Option<TraceContext>> {
    let spans = stores.spans.snapshot().trace(trace_id)?;
    let query = LogQuery {
        filter: LogFilter::TraceId(*trace_id),
        range: LogRange::ALL,
        limit: LOGS_MAX,
        order: Order::OldestFirst,
    };
    let logs = stores.logs.snapshot().search(&query)?;
    if spans.is_empty() && logs.is_empty() {
        return Ok(None);
    }
    let times = || {
        let of_spans = spans.iter().flat_map(|s| [s.fields.start_ns, s.fields.end_ns]);
        of_spans.chain(logs.iter().map(|log| log.time_ns))
    };
    let start_ns = times().min().unwrap_or(0);
    let end_ns = times().max().unwrap_or(start_ns).max(start_ns);

    let exemplars = stores
        .metrics
        .exemplars_of_trace(trace_id, start_ns, end_ns.saturating_add(EXEMPLARS_AFTER_NS))?
        .iter()
        .flat_map(exemplar_rows)
        .collect();

    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for span in &spans {
        let count = counts.entry(span.service()).or_default();
        count.0 += 1;
        count.1 += u64::from(span.fields.is_error());
    }
    let (from_ns, to_ns) = (start_ns.saturating_sub(AROUND_NS), end_ns.saturating_add(AROUND_NS));
    let mut cells: Vec<Vec<RedCell>> = Vec::new();
    for name in counts.keys() {
        let filter = RedFilter { service: Some((*name).to_owned()), ..RedFilter::default() };
        cells.push(stores.red.cells(&filter, from_ns, to_ns)?);
    }
    // Of a trace that has just ended, the time after it is still to come.
    let seconds = covered_seconds(cells.iter().flatten(), from_ns, to_ns);
    let mut services = Vec::new();
    for ((name, (span_count, error_count)), cells) in counts.into_iter().zip(&cells) {
        let cells: Vec<&RedCell> = cells.iter().collect();
        let mut figures = Figures::default();
        entry_cells(&cells).iter().for_each(|cell| figures.add(cell));
        services.push(ContextService {
            name: name.to_owned(),
            span_count,
            error_count,
            rate: figures.count as f64 / seconds,
            error_ratio: figures.error_ratio(),
            p50_ns: figures.percentile_ns(0.5),
            p99_ns: figures.percentile_ns(0.99),
        });
    }
    Ok(Some(TraceContext {
        trace: traces_data(&spans),
        logs: logs.iter().map(log_row).collect(),
        exemplars,
        services,
    }))
}

fn exemplar_rows(series: &PromExemplars) -> Vec<ExemplarRow> {
    let mut labels: BTreeMap<String, String> =
        series.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let metric = labels.remove("__name__").unwrap_or_default();
    series
        .exemplars
        .iter()
        .map(|exemplar| ExemplarRow {
            metric: metric.clone(),
            labels: labels.clone(),
            value: exemplar.value,
            time_unix_nano: exemplar.time_ns,
            trace_id: hex(&exemplar.trace_id),
            span_id: hex(&exemplar.span_id),
        })
        .collect()
}
