//! One span, whole and owned.

use super::batch::{SpanBatch, SpanFields};
use crate::resource::{Resource, Scope};
use std::sync::Arc;

/// Everything OTLP says of a span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its `resource` and `scope` numbers mean nothing here.
    pub fields: SpanFields,
    pub name: Arc<str>,
    pub resource: Arc<Resource>,
    pub scope: Arc<Scope>,
    /// Canonical attribute list.
    pub attributes: Vec<u8>,
    /// `Event` messages, each under field 1; read with [`records::events`](super::records::events).
    pub events: Vec<u8>,
    /// `Link` messages, each under field 1.
    pub links: Vec<u8>,
    pub trace_state: String,
    pub status_message: String,
}

impl Span {
    /// A row of a batch, copied out.
    pub fn from_batch(batch: &SpanBatch, row: usize) -> Self {
        Self {
            fields: SpanFields { resource: 0, scope: 0, ..batch.rows[row] },
            name: batch.name.get(row).clone(),
            resource: batch.resource(row).clone(),
            scope: batch.scope(row).clone(),
            attributes: batch.attributes.get(row).to_vec(),
            events: batch.events.get(row).to_vec(),
            links: batch.links.get(row).to_vec(),
            trace_state: batch.trace_state.text(row).to_owned(),
            status_message: batch.status_message.text(row).to_owned(),
        }
    }

    pub fn service(&self) -> &str {
        &self.resource.service_name
    }
}
