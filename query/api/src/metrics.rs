//! `GET /api/metrics` and exemplars.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /api/metrics`: the metrics that are stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricList {
    pub metrics: Vec<MetricRow>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// Name as PromQL knows it.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub unit: String,
    pub description: String,
}

/// An exemplar with the series on which it was recorded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExemplarRow {
    pub metric: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    pub time_unix_nano: u64,
    pub trace_id: String,
    pub span_id: String,
}
