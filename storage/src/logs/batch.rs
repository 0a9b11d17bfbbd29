//! Decoded log records, a column each: what a request becomes, and what hot rows are made of.

use super::row::LogRow;
use crate::attributes::{self, Value};
use crate::columns::{BytesColumn, DictColumn, fit};
use crate::resource::{Resource, Scope};
use crate::shapes::AttributeLists;
use std::sync::Arc;

/// The fixed-size fields of one log record, see `logs/v1/logs.proto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogFields {
    /// Unix ns; never 0: the decoder puts the observed or arrival time where the sender left it out.
    pub time_ns: u64,
    /// Unix ns, 0 when not sent.
    pub observed_ns: u64,
    /// All zero for none.
    pub trace_id: [u8; 16],
    /// All zero for none.
    pub span_id: [u8; 8],
    /// `SeverityNumber`: 0 unset, 1-24; unknown numbers kept.
    pub severity_number: i32,
    /// W3C trace flags in bits 0-7, others kept as sent.
    pub flags: u32,
    pub dropped_attributes_count: u32,
    /// Index into the batch's resources and scopes.
    pub resource: u32,
    pub scope: u32,
}

/// One decoded request of logs.
#[derive(Debug, Default)]
pub struct LogBatch {
    pub rows: Vec<LogFields>,
    pub severity_text: DictColumn,
    pub event_name: DictColumn,
    pub resources: Vec<Arc<Resource>>,
    pub scopes: Vec<Arc<Scope>>,
    /// Bodies as text ([`Value::to_text`]): strings as they are, lists and maps as JSON.
    pub body: BytesColumn,
    pub attributes: AttributeLists,
    /// `AnyValue` messages of the bodies that are not strings, by row in ascending order.
    pub body_values: Vec<(u32, Box<[u8]>)>,
    /// Earliest and latest time, Unix ns.
    pub min_ns: u64,
    pub max_ns: u64,
}

impl LogBatch {
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

    /// Attribute buffer of the row being decoded; [`push_row`](Self::push_row) closes it, or
    /// [`abandon_row`](Self::abandon_row) drops it.
    pub fn open_attributes(&mut self) -> &mut Vec<u8> {
        self.attributes.open_row()
    }

    pub fn abandon_row(&mut self) {
        self.attributes.abandon_row();
    }

    /// Closes a row.
    ///
    /// * `body`: the body's `AnyValue`, borrowed; [`Value::Empty`] when the record has none.
    pub fn push_row(
        &mut self,
        row: &LogFields,
        body: Value<'_>,
        severity_text: &str,
        event_name: &str,
    ) {
        match body {
            Value::Str(text) => self.body.push(text.as_bytes()),
            other => {
                let mut message = Vec::new();
                attributes::put_any_value(&mut message, other);
                self.body_values.push((self.rows.len() as u32, message.into()));
                self.body.push(other.to_text().as_bytes());
            }
        }
        self.rows.push(*row);
        self.severity_text.push(severity_text);
        self.event_name.push(event_name);
        self.attributes.end_row();
    }

    /// Called once after the last row: bounds are set and spare memory is given back.
    pub fn finish(&mut self) {
        self.min_ns = self.rows.iter().map(|row| row.time_ns).min().unwrap_or(0);
        self.max_ns = self.rows.iter().map(|row| row.time_ns).max().unwrap_or(0);
        fit(&mut self.rows);
        self.body.shrink_to_fit();
        self.attributes.shrink_to_fit();
        self.body_values.shrink_to_fit();
    }

    /// Adds all rows of another batch; small requests share one batch in memory.
    pub fn append(&mut self, other: &Self) {
        let resources: Vec<u32> = other.resources.iter().map(|r| self.resource_index(r)).collect();
        let scopes: Vec<u32> = other.scopes.iter().map(|s| self.scope_index(s)).collect();
        let base = self.rows.len() as u32;
        self.rows.extend(other.rows.iter().map(|row| LogFields {
            resource: resources[row.resource as usize],
            scope: scopes[row.scope as usize],
            ..*row
        }));
        self.severity_text.append(&other.severity_text);
        self.event_name.append(&other.event_name);
        self.body.append(&other.body);
        self.attributes.append(&other.attributes);
        let values = other.body_values.iter().map(|(row, value)| (base + row, value.clone()));
        self.body_values.extend(values);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    pub fn resource(&self, row: usize) -> &Arc<Resource> {
        &self.resources[self.rows[row].resource as usize]
    }

    pub fn scope(&self, row: usize) -> &Arc<Scope> {
        &self.scopes[self.rows[row].scope as usize]
    }

    /// The body's `AnyValue` message when it is not a string.
    pub fn body_message(&self, row: usize) -> Option<&[u8]> {
        let at = self.body_values.binary_search_by_key(&(row as u32), |(row, _)| *row).ok()?;
        Some(&self.body_values[at].1)
    }

    /// The body with its OTLP type.
    pub fn body_value(&self, row: usize) -> Value<'_> {
        match self.body_message(row) {
            Some(message) => attributes::any_value(message),
            None => Value::Str(self.body.text(row)),
        }
    }

    /// A copy of one row.
    pub fn row(&self, row: usize) -> LogRow {
        let fields = &self.rows[row];
        LogRow {
            time_ns: fields.time_ns,
            observed_ns: fields.observed_ns,
            severity_number: fields.severity_number,
            severity_text: self.severity_text.get(row).clone(),
            body: self.body.text(row).into(),
            body_message: self.body_message(row).map(Into::into),
            trace_id: fields.trace_id,
            span_id: fields.span_id,
            flags: fields.flags,
            event_name: self.event_name.get(row).clone(),
            attributes: self.attributes.get(row).into(),
            dropped_attributes_count: fields.dropped_attributes_count,
            resource: self.resource(row).clone(),
            scope: self.scope(row).clone(),
        }
    }

    /// Heap bytes held, shared resources left out.
    pub fn heap_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<LogFields>()
            + self.severity_text.heap_bytes()
            + self.event_name.heap_bytes()
            + self.body.heap_bytes()
            + self.attributes.heap_bytes()
            + self.body_values.iter().map(|(_, message)| message.len() + 24).sum::<usize>()
    }
}

/// Position of `item` in `items`, appended if new; the last one is the likely one.
fn index_of<T>(items: &mut Vec<Arc<T>>, item: &Arc<T>) -> u32 {
    let at = items.iter().rposition(|known| Arc::ptr_eq(known, item)).unwrap_or_else(|| {
        items.push(item.clone());
        items.len() - 1
    });
    at as u32
}
