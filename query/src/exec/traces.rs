//! Traces as OTLP/JSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value as Json;
use std::sync::Arc;
use trefoil_api::otlp;
use trefoil_storage::attributes::{self, Value};
use trefoil_storage::resource::{Resource, Scope};
use trefoil_storage::spans::records::{self, hex};
use trefoil_storage::spans::{Span, TraceSummary};

/// Groups spans by resource and scope, in order of first appearance.
pub fn traces_data(spans: &[Span]) -> otlp::TracesData {
    let mut groups: Vec<(Arc<Resource>, Vec<(Arc<Scope>, Vec<otlp::Span>)>)> = Vec::new();
    for span in spans {
        let at = groups.iter().position(|(r, _)| **r == *span.resource).unwrap_or_else(|| {
            groups.push((span.resource.clone(), Vec::new()));
            groups.len() - 1
        });
        let scopes = &mut groups[at].1;
        let at = scopes.iter().position(|(s, _)| **s == *span.scope).unwrap_or_else(|| {
            scopes.push((span.scope.clone(), Vec::new()));
            scopes.len() - 1
        });
        scopes[at].1.push(otlp_span(span));
    }
    let resource_spans = groups
        .into_iter()
        .map(|(resource, scopes)| otlp::ResourceSpans {
            resource: otlp::Resource {
                attributes: key_values(&resource.attributes),
                dropped_attributes_count: resource.dropped_attributes_count,
            },
            scope_spans: scopes
                .into_iter()
                .map(|(scope, spans)| otlp::ScopeSpans {
                    scope: otlp::Scope {
                        name: scope.name.to_string(),
                        version: scope.version.to_string(),
                        attributes: key_values(&scope.attributes),
                        dropped_attributes_count: scope.dropped_attributes_count,
                    },
                    spans,
                    schema_url: scope.schema_url.to_string(),
                })
                .collect(),
            schema_url: resource.schema_url.to_string(),
        })
        .collect();
    otlp::TracesData { resource_spans }
}

fn otlp_span(span: &Span) -> otlp::Span {
    let fields = &span.fields;
    let root = fields.parent_span_id == [0; 8];
    otlp::Span {
        trace_id: hex(&fields.trace_id),
        span_id: hex(&fields.span_id),
        trace_state: span.trace_state.clone(),
        parent_span_id: if root { String::new() } else { hex(&fields.parent_span_id) },
        name: span.name.to_string(),
        kind: fields.kind,
        start_time_unix_nano: fields.start_ns,
        end_time_unix_nano: fields.end_ns,
        attributes: key_values(&span.attributes),
        dropped_attributes_count: fields.dropped[0],
        events: records::events(&span.events)
            .into_iter()
            .map(|event| otlp::Event {
                time_unix_nano: event.time_ns,
                name: event.name,
                attributes: key_values(&event.attributes),
                dropped_attributes_count: event.dropped_attributes_count,
            })
            .collect(),
        dropped_events_count: fields.dropped[1],
        links: records::links(&span.links)
            .into_iter()
            .map(|link| otlp::Link {
                trace_id: hex(&link.trace_id),
                span_id: hex(&link.span_id),
                trace_state: link.trace_state,
                attributes: key_values(&link.attributes),
                dropped_attributes_count: link.dropped_attributes_count,
                flags: link.flags,
            })
            .collect(),
        dropped_links_count: fields.dropped[2],
        status: otlp::Status { message: span.status_message.clone(), code: fields.status_code },
        flags: fields.flags,
    }
}

/// A canonical attribute list as OTLP/JSON.
pub fn key_values(list: &[u8]) -> Vec<otlp::KeyValue> {
    attributes::iter(list)
        .map(|(key, value)| otlp::KeyValue { key: key.to_owned(), value: any_value(value) })
        .collect()
}

fn any_value(value: Value<'_>) -> otlp::AnyValue {
    match value {
        Value::Empty => otlp::AnyValue::Empty,
        Value::Str(text) => otlp::AnyValue::Str(text.to_owned()),
        Value::Bool(value) => otlp::AnyValue::Bool(value),
        Value::Int(number) => otlp::AnyValue::Int(number),
        Value::Double(number) => otlp::AnyValue::Double(number),
        Value::Bytes(bytes) => otlp::AnyValue::Bytes(BASE64_STANDARD.encode(bytes)),
        Value::Array(items) => {
            otlp::AnyValue::Array(attributes::array_items(items).map(any_value).collect())
        }
        Value::Map(list) => otlp::AnyValue::Map(key_values(list)),
    }
}

/// A summary as the API lists it.
pub fn trace_row(summary: &TraceSummary) -> trefoil_api::traces::TraceRow {
    trefoil_api::traces::TraceRow {
        trace_id: hex(&summary.trace_id),
        root_service: summary.root_service.clone(),
        root_operation: summary.root_operation.clone(),
        start: rfc3339(summary.start_ns),
        start_unix_nano: summary.start_ns,
        duration_ns: summary.duration_ns,
        span_count: summary.span_count,
        error_count: summary.error_count,
        services: summary.services.clone(),
    }
}

/// Unix ns as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(time_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time_ns))
        .map_or_else(|_| time_ns.to_string(), |time| format!("{time:.9}"))
}

/// Attributes as a plain JSON object, for people.
pub fn plain_object(list: &[u8]) -> serde_json::Map<String, Json> {
    attributes::plain_json_object(list)
}
