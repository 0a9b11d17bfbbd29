//! Trace exports that opentelemetry-proto can write, odd ones included.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::collection::vec;
use proptest::prelude::*;

/// When every generated request comes in, Unix ns.
pub const ARRIVAL_NS: u64 = 1_790_000_000_000_000_000;

const HOUR_NS: u64 = 3_600_000_000_000;

pub fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        1 => Just(None),
        4 => "[a-c\"$\\\\\u{1}é]{0,3}".prop_map(|text| Some(Any::StringValue(text))),
        2 => any::<bool>().prop_map(|v| Some(Any::BoolValue(v))),
        2 => prop_oneof![any::<i64>(), 0..3i64].prop_map(|v| Some(Any::IntValue(v))),
        2 => prop_oneof![any::<f64>(), Just(2.0), Just(-0.0), Just(f64::NAN)]
            .prop_map(|v| Some(Any::DoubleValue(v))),
        1 => vec(any::<u8>(), 0..6).prop_map(|v| Some(Any::BytesValue(v))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| AnyValue {
                value: Some(Any::ArrayValue(ArrayValue { values }))
            }),
            vec((key(), inner), 0..4).prop_map(|pairs| AnyValue {
                value: Some(Any::KvlistValue(KeyValueList { values: key_values(pairs) }))
            }),
        ]
    })
}

/// Few keys, so that they repeat across spans and within one; some look like the markers of stored JSON.
pub fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-c]{1,2}",
        1 => prop::sample::select(vec![
            "$bytes", "$empty", "$$", "$name", "$double", "service.name", "a\"b", "\u{1}", "é", "",
            "name", "attributes", "trace_id", "resource",
        ])
        .prop_map(str::to_owned),
    ]
}

pub fn key_values(pairs: Vec<(String, AnyValue)>) -> Vec<KeyValue> {
    pairs
        .into_iter()
        .map(|(key, value)| KeyValue { key, value: Some(value), ..KeyValue::default() })
        .collect()
}

pub fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec((key(), any_value()), 0..5).prop_map(key_values)
}

/// Mostly in a few hours before arrival, so that one request falls into several time partitions.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (ARRIVAL_NS - 3 * HOUR_NS)..ARRIVAL_NS,
        1 => 0..ARRIVAL_NS,
        1 => Just(0),
    ]
}

/// One of a few traces; two of them share the half that the trace index looks at.
pub fn trace_id() -> impl Strategy<Value = Vec<u8>> {
    (0u8..8).prop_map(|n| {
        let mut id = vec![n.max(1); 16];
        id[15] = n;
        id
    })
}

fn span_id() -> impl Strategy<Value = Vec<u8>> {
    (1u8..30).prop_map(|n| vec![n; 8])
}

fn event() -> impl Strategy<Value = Event> {
    (time(), "[a-z]{0,6}", attributes(), 0..3u32).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn link() -> impl Strategy<Value = Link> {
    (
        trace_id(),
        prop_oneof![3 => span_id().boxed(), 1 => vec(any::<u8>(), 0..9).boxed()],
        "[a-z=]{0,4}",
        attributes(),
        0..3u32,
        any::<u32>(),
    )
        .prop_map(|(trace_id, span_id, trace_state, attributes, dropped, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count: dropped,
            flags,
        })
}

fn duration() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0..2_000_000_000i64, 1 => Just(0), 1 => -1_000_000..0i64]
}

pub fn span() -> impl Strategy<Value = Span> {
    (
        (trace_id(), span_id(), prop_oneof![1 => Just(vec![]).boxed(), 2 => span_id().boxed()]),
        (
            "[a-z=]{0,3}",
            any::<u32>(),
            "(GET|PUT|[a-z]{0,2})",
            prop_oneof![8 => 0..6i32, 1 => any::<i32>()],
        ),
        (time(), duration()),
        attributes(),
        (
            prop_oneof![8 => Just([0; 3]), 1 => any::<[u32; 3]>()],
            vec(event(), 0..2),
            vec(link(), 0..2),
        ),
        prop::option::of(("[a-z]{0,4}", prop_oneof![8 => 0..3i32, 1 => any::<i32>()])),
    )
        .prop_map(
            |(
                (trace_id, span_id, parent_span_id),
                (trace_state, flags, name, kind),
                (start, duration),
                attributes,
                (dropped, events, links),
                status,
            )| Span {
                trace_id,
                span_id,
                parent_span_id,
                trace_state,
                flags,
                name,
                kind,
                start_time_unix_nano: start,
                end_time_unix_nano: start.saturating_add_signed(duration),
                attributes,
                dropped_attributes_count: dropped[0],
                events,
                dropped_events_count: dropped[1],
                links,
                dropped_links_count: dropped[2],
                status: status.map(|(message, code)| Status { message, code }),
            },
        )
}

fn resource() -> impl Strategy<Value = Resource> {
    (prop::option::of("(cart|checkout|a\"b)"), attributes(), 0..2u32).prop_map(
        |(service, mut attributes, dropped_attributes_count)| {
            if let Some(service) = service {
                attributes.push(KeyValue {
                    key: "service.name".into(),
                    value: Some(AnyValue { value: Some(Any::StringValue(service)) }),
                    ..KeyValue::default()
                });
            }
            Resource { attributes, dropped_attributes_count, ..Resource::default() }
        },
    )
}

fn scope() -> impl Strategy<Value = InstrumentationScope> {
    ("[a-z]{0,3}", "[0-9.]{0,2}", attributes(), 0..2u32).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    )
}

/// Up to 3 resources × 2 scopes × 12 spans, all of them acceptable.
pub fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope_spans = (prop::option::of(scope()), vec(span(), 0..12), "(|s)")
        .prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let resource_spans = (prop::option::of(resource()), vec(scope_spans, 0..3), "(|r)").prop_map(
        |(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url },
    );
    vec(resource_spans, 0..4)
        .prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}
