//! One log record, whole and owned: what searches return.

use crate::attributes::{self, Value};
use crate::resource::{Resource, Scope};
use std::sync::Arc;

/// A log record with everything its sender gave.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRow {
    /// Unix ns.
    pub time_ns: u64,
    /// Unix ns, 0 when not sent.
    pub observed_ns: u64,
    pub severity_number: i32,
    pub severity_text: Arc<str>,
    /// The body as text; lists and maps as JSON.
    pub body: Box<str>,
    /// `AnyValue` message of a body that is not a string; empty bytes for a record without a body.
    pub body_message: Option<Box<[u8]>>,
    /// All zero for none.
    pub trace_id: [u8; 16],
    /// All zero for none.
    pub span_id: [u8; 8],
    pub flags: u32,
    pub event_name: Arc<str>,
    /// Canonical attribute list.
    pub attributes: Box<[u8]>,
    pub dropped_attributes_count: u32,
    pub resource: Arc<Resource>,
    pub scope: Arc<Scope>,
}

impl LogRow {
    /// The body with its OTLP type.
    pub fn body_value(&self) -> Value<'_> {
        match &self.body_message {
            Some(message) => attributes::any_value(message),
            None => Value::Str(&self.body),
        }
    }

    pub fn service(&self) -> &Arc<str> {
        &self.resource.service_name
    }

    /// Whether the record names a trace.
    pub fn has_trace(&self) -> bool {
        self.trace_id != [0; 16]
    }
}
