//! What a request says, as plain values: the yardstick for every store, whatever form its rows are in.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message;
use std::collections::BTreeMap;
use trefoil_storage::attributes::{self, Value};
use trefoil_storage::spans::{Span, records};
use trefoil_storage::wire;

/// An attribute value that compares: doubles by their bits, maps without order, of duplicate keys the last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plain {
    Empty,
    Str(String),
    Bool(bool),
    Int(i64),
    Double(u64),
    Bytes(Vec<u8>),
    List(Vec<Plain>),
    Map(BTreeMap<String, Plain>),
}

pub type PlainMap = BTreeMap<String, Plain>;

pub fn plain(value: Value<'_>) -> Plain {
    match value {
        Value::Empty => Plain::Empty,
        Value::Str(v) => Plain::Str(v.to_owned()),
        Value::Bool(v) => Plain::Bool(v),
        Value::Int(v) => Plain::Int(v),
        Value::Double(v) if v.is_nan() => Plain::Double(f64::NAN.to_bits()),
        Value::Double(v) => Plain::Double(v.to_bits()),
        Value::Bytes(v) => Plain::Bytes(v.to_vec()),
        Value::Array(v) => Plain::List(attributes::array_items(v).map(plain).collect()),
        Value::Map(v) => Plain::Map(plain_map(v)),
    }
}

pub fn plain_map(list: &[u8]) -> PlainMap {
    attributes::iter(list).map(|(key, value)| (key.to_owned(), plain(value))).collect()
}

/// The canonical bytes of a list as prost writes them.
pub fn canonical(list: &[KeyValue]) -> Vec<u8> {
    let mut out = Vec::new();
    for pair in list {
        wire::put_bytes(&mut out, 1, &pair.encode_to_vec());
    }
    out
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlainEvent {
    pub time_ns: u64,
    pub name: String,
    pub attributes: PlainMap,
    pub dropped: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlainLink {
    pub trace_id: Vec<u8>,
    pub span_id: Vec<u8>,
    pub trace_state: String,
    pub attributes: PlainMap,
    pub dropped: u32,
    pub flags: u32,
}

/// A span with its resource and scope, as values that compare and sort.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlainSpan {
    pub start_ns: u64,
    pub trace_id: Vec<u8>,
    pub span_id: Vec<u8>,
    /// Empty for a root.
    pub parent_span_id: Vec<u8>,
    pub end_ns: u64,
    pub name: String,
    pub kind: i32,
    pub status_code: i32,
    pub status_message: String,
    pub flags: u32,
    pub trace_state: String,
    pub dropped: [u32; 3],
    pub attributes: PlainMap,
    pub events: Vec<PlainEvent>,
    pub links: Vec<PlainLink>,
    pub resource: (PlainMap, String, u32),
    pub scope: (String, String, PlainMap, String, u32),
}

impl PlainSpan {
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    pub fn service(&self) -> &str {
        match self.resource.0.get("service.name") {
            Some(Plain::Str(name)) if !name.is_empty() => name,
            _ => "unknown_service",
        }
    }

    /// An attribute of the span, else of its resource.
    pub fn attribute(&self, key: &str) -> Option<&Plain> {
        self.attributes.get(key).or_else(|| self.resource.0.get(key))
    }
}

/// All spans of a request by start, trace and span.
pub fn spans_of(request: &ExportTraceServiceRequest) -> Vec<PlainSpan> {
    let map = |list: &[KeyValue]| plain_map(&canonical(list));
    let mut spans = Vec::new();
    for group in &request.resource_spans {
        let sent = group.resource.clone().unwrap_or_default();
        let resource =
            (map(&sent.attributes), group.schema_url.clone(), sent.dropped_attributes_count);
        for scope_group in &group.scope_spans {
            let sent = scope_group.scope.clone().unwrap_or_default();
            let scope = (
                sent.name,
                sent.version,
                map(&sent.attributes),
                scope_group.schema_url.clone(),
                sent.dropped_attributes_count,
            );
            for span in &scope_group.spans {
                let status = span.status.clone().unwrap_or_default();
                spans.push(PlainSpan {
                    start_ns: span.start_time_unix_nano,
                    trace_id: span.trace_id.clone(),
                    span_id: span.span_id.clone(),
                    parent_span_id: span.parent_span_id.clone(),
                    end_ns: span.end_time_unix_nano,
                    name: span.name.clone(),
                    kind: span.kind,
                    status_code: status.code,
                    status_message: status.message,
                    flags: span.flags,
                    trace_state: span.trace_state.clone(),
                    dropped: [
                        span.dropped_attributes_count,
                        span.dropped_events_count,
                        span.dropped_links_count,
                    ],
                    attributes: map(&span.attributes),
                    events: span
                        .events
                        .iter()
                        .map(|event| PlainEvent {
                            time_ns: event.time_unix_nano,
                            name: event.name.clone(),
                            attributes: map(&event.attributes),
                            dropped: event.dropped_attributes_count,
                        })
                        .collect(),
                    links: span
                        .links
                        .iter()
                        .map(|link| PlainLink {
                            trace_id: link.trace_id.clone(),
                            span_id: link.span_id.clone(),
                            trace_state: link.trace_state.clone(),
                            attributes: map(&link.attributes),
                            dropped: link.dropped_attributes_count,
                            flags: link.flags,
                        })
                        .collect(),
                    resource: resource.clone(),
                    scope: scope.clone(),
                });
            }
        }
    }
    spans.sort();
    spans
}

/// A span as a store gives it.
pub fn plain_span(span: &Span) -> PlainSpan {
    let fields = &span.fields;
    let parent = &fields.parent_span_id;
    PlainSpan {
        start_ns: fields.start_ns,
        trace_id: fields.trace_id.to_vec(),
        span_id: fields.span_id.to_vec(),
        parent_span_id: if *parent == [0; 8] { Vec::new() } else { parent.to_vec() },
        end_ns: fields.end_ns,
        name: span.name.to_string(),
        kind: fields.kind,
        status_code: fields.status_code,
        status_message: span.status_message.clone(),
        flags: fields.flags,
        trace_state: span.trace_state.clone(),
        dropped: fields.dropped,
        attributes: plain_map(&span.attributes),
        events: records::events(&span.events)
            .into_iter()
            .map(|event| PlainEvent {
                time_ns: event.time_ns,
                name: event.name,
                attributes: plain_map(&event.attributes),
                dropped: event.dropped_attributes_count,
            })
            .collect(),
        links: records::links(&span.links)
            .into_iter()
            .map(|link| PlainLink {
                trace_id: link.trace_id,
                span_id: link.span_id,
                trace_state: link.trace_state,
                attributes: plain_map(&link.attributes),
                dropped: link.dropped_attributes_count,
                flags: link.flags,
            })
            .collect(),
        resource: (
            plain_map(&span.resource.attributes),
            span.resource.schema_url.to_string(),
            span.resource.dropped_attributes_count,
        ),
        scope: (
            span.scope.name.to_string(),
            span.scope.version.to_string(),
            plain_map(&span.scope.attributes),
            span.scope.schema_url.to_string(),
            span.scope.dropped_attributes_count,
        ),
    }
}

/// A value as an `AnyValue` message.
pub fn message(value: &Plain) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Plain::Empty => {}
        Plain::Str(v) => attributes::put_any_value(&mut out, Value::Str(v)),
        Plain::Bool(v) => attributes::put_any_value(&mut out, Value::Bool(*v)),
        Plain::Int(v) => attributes::put_any_value(&mut out, Value::Int(*v)),
        Plain::Double(v) => attributes::put_any_value(&mut out, Value::Double(f64::from_bits(*v))),
        Plain::Bytes(v) => attributes::put_any_value(&mut out, Value::Bytes(v)),
        Plain::List(items) => {
            let mut list = Vec::new();
            for item in items {
                wire::put_bytes(&mut list, 1, &message(item));
            }
            attributes::put_any_value(&mut out, Value::Array(&list));
        }
        Plain::Map(map) => {
            let mut list = Vec::new();
            for (key, item) in map {
                let bytes = message(item);
                attributes::put_attribute(&mut list, key, attributes::any_value(&bytes));
            }
            attributes::put_any_value(&mut out, Value::Map(&list));
        }
    }
    out
}

/// A value's text form, as searches compare it.
pub fn text(value: &Plain) -> String {
    attributes::any_value(&message(value)).to_text().into_owned()
}
