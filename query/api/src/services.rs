//! `GET /api/services`, `/api/services/{s}`, `/api/services/{s}/heatmap`, `/api/map`: rate, errors and duration from every span.

use serde::{Deserialize, Serialize};

/// A percentile with the interval in which the exact one lies, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    pub value_ns: f64,
    pub low_ns: f64,
    pub high_ns: f64,
}

/// `GET /api/services?start=&end=` (default: the last 15 minutes).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceList {
    pub start: u64,
    pub end: u64,
    /// Length of a sparkline step, ns.
    pub step_ns: u64,
    pub services: Vec<ServiceRow>,
}

/// One service over the range. Counted are its entry spans (server and consumer; root spans if it has none).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    pub name: String,
    /// Spans in the range.
    pub count: u64,
    pub error_count: u64,
    /// Per second.
    pub rate: f64,
    /// Errors over spans, 0 to 1.
    pub error_ratio: f64,
    /// `None` when no span fell into the range.
    pub p50: Option<Percentile>,
    pub p95: Option<Percentile>,
    pub p99: Option<Percentile>,
    /// One value a step, oldest first; `None` where nothing happened.
    pub rate_series: Vec<f64>,
    pub error_series: Vec<Option<f64>>,
    /// p99 in ns.
    pub p99_series: Vec<Option<f64>>,
}

/// `GET /api/services/{s}?start=&end=&step=&operation=&kind=`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceDetail {
    pub name: String,
    pub start: u64,
    pub end: u64,
    pub step_ns: u64,
    pub count: u64,
    pub error_count: u64,
    pub p50: Option<Percentile>,
    pub p95: Option<Percentile>,
    pub p99: Option<Percentile>,
    pub series: Vec<RedPoint>,
    pub operations: Vec<OperationRow>,
    pub heatmap: Heatmap,
    pub exemplars: Vec<SpanExemplar>,
}

/// One step of a service's charts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RedPoint {
    /// Start of the step.
    pub time: u64,
    pub count: u64,
    pub error_count: u64,
    pub rate: f64,
    pub p50_ns: Option<f64>,
    pub p95_ns: Option<f64>,
    pub p99_ns: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationRow {
    pub name: String,
    /// `SERVER`, `CLIENT`, `INTERNAL`, `PRODUCER`, `CONSUMER` or `UNSPECIFIED`.
    pub kind: String,
    pub count: u64,
    pub error_count: u64,
    pub rate: f64,
    pub p50: Option<Percentile>,
    pub p95: Option<Percentile>,
    pub p99: Option<Percentile>,
}

/// Spans by start of step and duration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Heatmap {
    /// Start of each column.
    pub times: Vec<u64>,
    /// Edges of the rows, ns, ascending; one more than rows.
    pub bounds_ns: Vec<f64>,
    /// `counts[column][row]`.
    pub counts: Vec<Vec<u64>>,
}

/// A real span that stands for a point of a chart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpanExemplar {
    pub trace_id: String,
    pub span_id: String,
    pub time: u64,
    pub duration_ns: u64,
    pub operation: String,
    pub error: bool,
}

/// `GET /api/map?start=&end=`: who calls whom.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceMap {
    pub edges: Vec<ServiceEdge>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceEdge {
    pub caller: String,
    pub callee: String,
    pub count: u64,
    pub error_count: u64,
}
