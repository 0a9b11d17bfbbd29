//! Decoded spans, a column each: what a request becomes, and what hot rows are made of.

use crate::columns::{BytesColumn, DictColumn, fit};
use crate::resource::{Resource, Scope};
use crate::shapes::AttributeLists;
use std::sync::Arc;

/// The fixed-size fields of one span, see `trace/v1/trace.proto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanFields {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// All zero for a root span.
    pub parent_span_id: [u8; 8],
    /// Unix ns.
    pub start_ns: u64,
    /// Unix ns, as sent: may lie before the start.
    pub end_ns: u64,
    /// `SpanKind`, unknown numbers kept.
    pub kind: i32,
    /// `StatusCode`: 0 unset, 1 ok, 2 error; unknown numbers kept.
    pub status_code: i32,
    /// W3C flags in bits 0-7, 0x100 and 0x200 tell of a remote parent.
    pub flags: u32,
    /// Dropped attributes, events, links.
    pub dropped: [u32; 3],
    /// Index into the batch's resources and scopes.
    pub resource: u32,
    pub scope: u32,
}

/// `StatusCode.STATUS_CODE_ERROR`.
pub const STATUS_ERROR: i32 = 2;

impl SpanFields {
    /// End minus start, ns; 0 when the end lies before the start.
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    pub fn is_error(&self) -> bool {
        self.status_code == STATUS_ERROR
    }
}

/// One decoded request of spans.
#[derive(Debug, Default)]
pub struct SpanBatch {
    pub rows: Vec<SpanFields>,
    pub name: DictColumn,
    pub resources: Vec<Arc<Resource>>,
    pub scopes: Vec<Arc<Scope>>,
    pub attributes: AttributeLists,
    /// `Span.Event` messages, each under field 1.
    pub events: BytesColumn,
    /// `Span.Link` messages, each under field 1.
    pub links: BytesColumn,
    pub trace_state: BytesColumn,
    pub status_message: BytesColumn,
    /// Earliest and latest start, Unix ns, and the latest end.
    pub min_ns: u64,
    pub max_ns: u64,
}

impl SpanBatch {
    /// An empty batch with room for so many spans and the bytes of their attributes.
    pub fn with_room(spans: usize, attribute_bytes: usize) -> Self {
        Self {
            rows: Vec::with_capacity(spans),
            attributes: AttributeLists::with_room(spans, attribute_bytes),
            trace_state: BytesColumn::with_room(spans, 0),
            status_message: BytesColumn::with_room(spans, 0),
            events: BytesColumn::with_room(spans, 0),
            links: BytesColumn::with_room(spans, 0),
            ..Self::default()
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Index under which rows refer to `resource`; requests repeat the last one.
    pub fn resource_index(&mut self, resource: &Arc<Resource>) -> u32 {
        index_of(&mut self.resources, resource)
    }

    pub fn scope_index(&mut self, scope: &Arc<Scope>) -> u32 {
        index_of(&mut self.scopes, scope)
    }

    /// Buffers of the row being decoded; [`push_row`](Self::push_row) closes it, or
    /// [`abandon_row`](Self::abandon_row) drops it.
    pub fn open_attributes(&mut self) -> &mut Vec<u8> {
        self.attributes.open_row()
    }

    pub fn open_events(&mut self) -> &mut Vec<u8> {
        self.events.open_row()
    }

    pub fn open_links(&mut self) -> &mut Vec<u8> {
        self.links.open_row()
    }

    pub fn abandon_row(&mut self) {
        self.attributes.abandon_row();
        self.events.abandon_row();
        self.links.abandon_row();
    }

    pub fn push_row(&mut self, row: &SpanFields, name: &str, trace_state: &str, message: &str) {
        self.rows.push(*row);
        self.name.push(name);
        self.trace_state.push(trace_state.as_bytes());
        self.status_message.push(message.as_bytes());
        self.attributes.end_row();
        self.events.end_row();
        self.links.end_row();
    }

    /// Appends a span of another batch or segment.
    pub fn push_span(&mut self, span: &super::Span) {
        let row = SpanFields {
            resource: self.resource_index(&span.resource),
            scope: self.scope_index(&span.scope),
            ..span.fields
        };
        self.open_attributes().extend_from_slice(&span.attributes);
        self.open_events().extend_from_slice(&span.events);
        self.open_links().extend_from_slice(&span.links);
        self.push_row(&row, &span.name, &span.trace_state, &span.status_message);
    }

    /// Called once after the last row: bounds are set and spare memory is given back.
    pub fn finish(&mut self) {
        self.min_ns = self.rows.iter().map(|row| row.start_ns).min().unwrap_or(0);
        self.max_ns = self.rows.iter().map(|row| row.start_ns).max().unwrap_or(0);
        fit(&mut self.rows);
        self.attributes.shrink_to_fit();
        for column in
            [&mut self.events, &mut self.links, &mut self.trace_state, &mut self.status_message]
        {
            column.shrink_to_fit();
        }
    }

    /// Adds all rows of another batch; small requests share one batch in memory.
    pub fn append(&mut self, other: &Self) {
        let resources: Vec<u32> = other.resources.iter().map(|r| self.resource_index(r)).collect();
        let scopes: Vec<u32> = other.scopes.iter().map(|s| self.scope_index(s)).collect();
        self.rows.extend(other.rows.iter().map(|row| SpanFields {
            resource: resources[row.resource as usize],
            scope: scopes[row.scope as usize],
            ..*row
        }));
        self.name.append(&other.name);
        self.attributes.append(&other.attributes);
        self.events.append(&other.events);
        self.links.append(&other.links);
        self.trace_state.append(&other.trace_state);
        self.status_message.append(&other.status_message);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    pub fn resource(&self, row: usize) -> &Arc<Resource> {
        &self.resources[self.rows[row].resource as usize]
    }

    pub fn scope(&self, row: usize) -> &Arc<Scope> {
        &self.scopes[self.rows[row].scope as usize]
    }

    /// Heap bytes held, shared resources left out.
    pub fn heap_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<SpanFields>()
            + self.name.heap_bytes()
            + self.attributes.heap_bytes()
            + self.events.heap_bytes()
            + self.links.heap_bytes()
            + self.trace_state.heap_bytes()
            + self.status_message.heap_bytes()
    }
}

/// Position of `item` in `items`, appended if new; the last one is the likely one.
pub(crate) fn index_of<T>(items: &mut Vec<Arc<T>>, item: &Arc<T>) -> u32 {
    let at = items.iter().rposition(|known| Arc::ptr_eq(known, item)).unwrap_or_else(|| {
        items.push(item.clone());
        items.len() - 1
    });
    at as u32
}
