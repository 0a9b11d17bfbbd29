//! `GET /api/traces`, `/api/traces/{id}`, `/api/traces/{id}/context`.

use crate::logs::LogRow;
use crate::metrics::ExemplarRow;
use crate::otlp::TracesData;
use serde::{Deserialize, Serialize};

/// `GET /api/traces?service=&operation=&min_duration=&max_duration=&status=&attr=&start=&end=&limit=`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceList {
    pub traces: Vec<TraceRow>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceRow {
    pub trace_id: String,
    pub root_service: String,
    pub root_operation: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub start: String,
    pub start_unix_nano: u64,
    pub duration_ns: u64,
    pub span_count: u64,
    pub error_count: u64,
    pub services: Vec<String>,
}

/// `GET /api/traces/{id}/context`: the trace in all three signals.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceContext {
    pub trace: TracesData,
    /// Logs that carry the trace ID, oldest first.
    pub logs: Vec<LogRow>,
    /// Exemplars that carry the trace ID, with their series.
    pub exemplars: Vec<ExemplarRow>,
    /// Services on the trace with their figures around it.
    pub services: Vec<ContextService>,
}

/// A service on a trace: how it did in the minutes around it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContextService {
    pub name: String,
    /// Spans of this trace.
    pub span_count: u64,
    pub error_count: u64,
    /// Per second, over all its entry spans in the five minutes around the trace.
    pub rate: f64,
    pub error_ratio: f64,
    pub p50_ns: Option<f64>,
    pub p99_ns: Option<f64>,
}
