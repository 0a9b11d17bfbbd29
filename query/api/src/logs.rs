//! `GET /api/logs`, `/api/logs/histogram`, `/api/logs/fields`, `/api/logs/patterns`, `/api/logs/tail`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// `GET /api/logs?q=&trace_id=&span_id=&start=&end=&limit=&order=&count=`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogList {
    pub logs: Vec<LogRow>,
    /// Exact number of matches; with `count=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogRow {
    /// RFC 3339 with nanoseconds, UTC.
    pub timestamp: String,
    pub time_unix_nano: u64,
    pub severity_text: String,
    /// 1-24, 0 = unset.
    pub severity_number: i32,
    pub service: String,
    /// Text as sent; other bodies as JSON.
    pub body: Value,
    /// Empty when there is none.
    pub trace_id: String,
    pub span_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    pub attributes: Map<String, Value>,
    pub resource: Map<String, Value>,
}

/// `GET /api/logs/histogram?q=&start=&end=&step=&by=severity`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogHistogram {
    pub step_ns: u64,
    pub buckets: Vec<LogBucket>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogBucket {
    /// Start of the bucket, RFC 3339.
    pub start: String,
    pub start_unix_nano: u64,
    /// By the asked field's value; severities as TRACE DEBUG INFO WARN ERROR FATAL UNSET.
    pub counts: BTreeMap<String, u64>,
}

/// `GET /api/logs/fields`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogFields {
    pub fields: Vec<LogField>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogField {
    pub name: String,
    pub count: u64,
    /// Most frequent values first.
    pub values: Vec<FieldValue>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FieldValue {
    pub value: String,
    pub count: u64,
}

/// `GET /api/logs/patterns`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogPatterns {
    pub patterns: Vec<LogPattern>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogPattern {
    /// The body with its variable parts as `<*>`.
    pub pattern: String,
    pub count: u64,
    pub sample: String,
}
