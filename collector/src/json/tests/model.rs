//! Random requests, and the OTLP/JSON of a request, written from the specification and not from `schema.rs`.

use base64::Engine as _;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::*;
use opentelemetry_proto::tonic::logs::v1::*;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::*;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A request that has a JSON form.
pub trait Json {
    fn json(&self) -> Value;
}

pub fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,12}", any::<String>(), Just("n".repeat(300))]
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("NaN differs from itself", |v| !v.is_nan()),
        Just(f64::INFINITY),
        Just(0.0),
    ]
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        text().prop_map(|v| Some(Any::StringValue(v))),
        any::<bool>().prop_map(|v| Some(Any::BoolValue(v))),
        any::<i64>().prop_map(|v| Some(Any::IntValue(v))),
        double().prop_map(|v| Some(Any::DoubleValue(v))),
        vec(any::<u8>(), 0..9).prop_map(|v| Some(Any::BytesValue(v))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 16, 4, |inner| {
        let array =
            vec(inner.clone(), 0..4).prop_map(|values| Any::ArrayValue(ArrayValue { values }));
        let list = vec((text(), inner), 0..4).prop_map(|pairs| {
            let values = pairs
                .into_iter()
                .map(|(key, value)| KeyValue { key, value: Some(value), ..Default::default() })
                .collect();
            Any::KvlistValue(KeyValueList { values })
        });
        prop_oneof![array, list].prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = (text(), option::of(any_value()));
    vec(pair.prop_map(|(key, value)| KeyValue { key, value, ..Default::default() }), 0..4)
}

fn resource() -> impl Strategy<Value = Option<Resource>> {
    let some = (attributes(), any::<u32>()).prop_map(|(attributes, dropped_attributes_count)| {
        Resource { attributes, dropped_attributes_count, ..Default::default() }
    });
    option::of(some)
}

fn scope() -> impl Strategy<Value = Option<InstrumentationScope>> {
    let some = (text(), text(), attributes(), any::<u32>()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    );
    option::of(some)
}

fn id() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 16), vec(any::<u8>(), 8), Just(vec![])]
}

fn span() -> impl Strategy<Value = Span> {
    let event = (any::<u64>(), text(), attributes(), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    );
    let link = (id(), id(), text(), attributes(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count: flags / 2,
            flags,
        },
    );
    let status = option::of((text(), 0..9i32).prop_map(|(message, code)| Status { message, code }));
    let head = (id(), id(), id(), text(), text(), any::<i32>());
    let tail = (attributes(), vec(event, 0..3), vec(link, 0..3), status);
    (head, any::<[u64; 2]>(), any::<[u32; 4]>(), tail).prop_map(|(head, times, counts, tail)| {
        Span {
            trace_id: head.0,
            span_id: head.1,
            parent_span_id: head.2,
            trace_state: head.3,
            name: head.4,
            kind: head.5,
            start_time_unix_nano: times[0],
            end_time_unix_nano: times[1],
            dropped_attributes_count: counts[0],
            dropped_events_count: counts[1],
            dropped_links_count: counts[2],
            flags: counts[3],
            attributes: tail.0,
            events: tail.1,
            links: tail.2,
            status: tail.3,
        }
    })
}

pub fn traces() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scopes = (scope(), vec(span(), 0..3), text())
        .prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let resources =
        (resource(), vec(scopes, 0..3), text()).prop_map(|(resource, scope_spans, schema_url)| {
            ResourceSpans { resource, scope_spans, schema_url }
        });
    vec(resources, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

pub fn logs() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let record = (
        any::<[u64; 2]>(),
        any::<i32>(),
        any::<[u32; 2]>(),
        id(),
        id(),
        text(),
        attributes(),
        option::of(any_value()),
    )
        .prop_map(
            |(times, severity_number, counts, trace_id, span_id, text, attributes, body)| {
                LogRecord {
                    time_unix_nano: times[0],
                    observed_time_unix_nano: times[1],
                    severity_number,
                    severity_text: text.clone(),
                    event_name: text,
                    body,
                    attributes,
                    dropped_attributes_count: counts[0],
                    flags: counts[1],
                    trace_id,
                    span_id,
                }
            },
        );
    let scopes = (scope(), vec(record, 0..3), text())
        .prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url });
    let resources =
        (resource(), vec(scopes, 0..3), text()).prop_map(|(resource, scope_logs, schema_url)| {
            ResourceLogs { resource, scope_logs, schema_url }
        });
    vec(resources, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn exemplars() -> impl Strategy<Value = Vec<Exemplar>> {
    let value = option::of(prop_oneof![
        double().prop_map(exemplar::Value::AsDouble),
        any::<i64>().prop_map(exemplar::Value::AsInt),
    ]);
    vec(
        (attributes(), any::<u64>(), id(), id(), value).prop_map(
            |(filtered_attributes, time_unix_nano, span_id, trace_id, value)| Exemplar {
                filtered_attributes,
                time_unix_nano,
                span_id,
                trace_id,
                value,
            },
        ),
        0..3,
    )
}

fn number_points() -> impl Strategy<Value = Vec<NumberDataPoint>> {
    let value = option::of(prop_oneof![
        double().prop_map(number_data_point::Value::AsDouble),
        any::<i64>().prop_map(number_data_point::Value::AsInt),
    ]);
    let point = (attributes(), any::<[u64; 2]>(), exemplars(), any::<u32>(), value).prop_map(
        |(attributes, times, exemplars, flags, value)| NumberDataPoint {
            attributes,
            start_time_unix_nano: times[0],
            time_unix_nano: times[1],
            exemplars,
            flags,
            value,
        },
    );
    vec(point, 0..3)
}

fn histogram_points() -> impl Strategy<Value = Vec<HistogramDataPoint>> {
    let sums = (option::of(double()), option::of(double()), option::of(double()));
    let buckets = (vec(any::<u64>(), 0..20), vec(double(), 0..20));
    let point = (attributes(), any::<[u64; 3]>(), exemplars(), any::<u32>(), sums, buckets)
        .prop_map(
            |(
                attributes,
                times,
                exemplars,
                flags,
                (sum, min, max),
                (bucket_counts, explicit_bounds),
            )| {
                HistogramDataPoint {
                    attributes,
                    start_time_unix_nano: times[0],
                    time_unix_nano: times[1],
                    count: times[2],
                    exemplars,
                    flags,
                    sum,
                    min,
                    max,
                    bucket_counts,
                    explicit_bounds,
                }
            },
        );
    vec(point, 0..3)
}

fn exponential_points() -> impl Strategy<Value = Vec<ExponentialHistogramDataPoint>> {
    let buckets = || {
        option::of(
            (any::<i32>(), vec(any::<u64>(), 0..9))
                .prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts }),
        )
    };
    let sums = (option::of(double()), option::of(double()), option::of(double()), double());
    let point = (
        attributes(),
        any::<[u64; 4]>(),
        exemplars(),
        any::<(u32, i32)>(),
        sums,
        buckets(),
        buckets(),
    )
        .prop_map(
            |(attributes, times, exemplars, (flags, scale), sums, positive, negative)| {
                ExponentialHistogramDataPoint {
                    attributes,
                    start_time_unix_nano: times[0],
                    time_unix_nano: times[1],
                    count: times[2],
                    zero_count: times[3],
                    exemplars,
                    flags,
                    scale,
                    sum: sums.0,
                    min: sums.1,
                    max: sums.2,
                    zero_threshold: sums.3,
                    positive,
                    negative,
                }
            },
        );
    vec(point, 0..3)
}

fn summary_points() -> impl Strategy<Value = Vec<SummaryDataPoint>> {
    let quantiles = vec(
        (double(), double()).prop_map(|(quantile, value)| ValueAtQuantile { quantile, value }),
        0..4,
    );
    let point = (attributes(), any::<[u64; 3]>(), any::<u32>(), double(), quantiles).prop_map(
        |(attributes, times, flags, sum, quantile_values)| SummaryDataPoint {
            attributes,
            start_time_unix_nano: times[0],
            time_unix_nano: times[1],
            count: times[2],
            flags,
            sum,
            quantile_values,
        },
    );
    vec(point, 0..3)
}

pub fn metrics() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let data = option::of(prop_oneof![
        number_points().prop_map(|data_points| metric::Data::Gauge(Gauge { data_points })),
        (number_points(), 0..3i32, any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| metric::Data::Sum(Sum {
                data_points,
                aggregation_temporality,
                is_monotonic,
            })
        ),
        (histogram_points(), 0..3i32).prop_map(|(data_points, aggregation_temporality)| {
            metric::Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (exponential_points(), 0..3i32).prop_map(|(data_points, aggregation_temporality)| {
            metric::Data::ExponentialHistogram(ExponentialHistogram {
                data_points,
                aggregation_temporality,
            })
        }),
        summary_points().prop_map(|data_points| metric::Data::Summary(Summary { data_points })),
    ]);
    let metric = (text(), text(), text(), attributes(), data).prop_map(
        |(name, description, unit, metadata, data)| Metric {
            name,
            description,
            unit,
            metadata,
            data,
        },
    );
    let scopes = (scope(), vec(metric, 0..3), text())
        .prop_map(|(scope, metrics, schema_url)| ScopeMetrics { scope, metrics, schema_url });
    let resources = (resource(), vec(scopes, 0..3), text()).prop_map(
        |(resource, scope_metrics, schema_url)| ResourceMetrics {
            resource,
            scope_metrics,
            schema_url,
        },
    );
    vec(resources, 0..3)
        .prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

fn list<T: Json>(items: &[T]) -> Value {
    items.iter().map(Json::json).collect()
}

fn option<T: Json>(item: &Option<T>) -> Value {
    item.as_ref().map_or(Value::Null, Json::json)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn double_json(value: f64) -> Value {
    match value {
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        finite => json!(finite),
    }
}

fn maybe(value: Option<f64>) -> Value {
    value.map_or(Value::Null, double_json)
}

impl Json for AnyValue {
    fn json(&self) -> Value {
        match &self.value {
            None => json!({}),
            Some(Any::StringValue(v)) => json!({ "stringValue": v }),
            Some(Any::BoolValue(v)) => json!({ "boolValue": v }),
            // Both forms are legal: as a string and as a number.
            Some(Any::IntValue(v)) if v % 2 == 0 => json!({ "intValue": v.to_string() }),
            Some(Any::IntValue(v)) => json!({ "intValue": v }),
            Some(Any::DoubleValue(v)) => json!({ "doubleValue": double_json(*v) }),
            Some(Any::BytesValue(v)) => {
                json!({ "bytesValue": base64::prelude::BASE64_STANDARD.encode(v) })
            }
            Some(Any::ArrayValue(v)) => json!({ "arrayValue": { "values": list(&v.values) } }),
            Some(Any::KvlistValue(v)) => json!({ "kvlistValue": { "values": list(&v.values) } }),
            Some(Any::StringValueStrindex(_)) => unreachable!("only profiles use it"),
        }
    }
}

impl Json for KeyValue {
    fn json(&self) -> Value {
        json!({ "key": self.key, "value": option(&self.value) })
    }
}

impl Json for Resource {
    fn json(&self) -> Value {
        json!({
            "attributes": list(&self.attributes),
            "droppedAttributesCount": self.dropped_attributes_count,
        })
    }
}

impl Json for InstrumentationScope {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "version": self.version,
            "attributes": list(&self.attributes),
            "droppedAttributesCount": self.dropped_attributes_count,
        })
    }
}

impl Json for ExportTraceServiceRequest {
    fn json(&self) -> Value {
        json!({ "resourceSpans": list(&self.resource_spans) })
    }
}

impl Json for ResourceSpans {
    fn json(&self) -> Value {
        json!({
            "resource": option(&self.resource),
            "scopeSpans": list(&self.scope_spans),
            "schemaUrl": self.schema_url,
        })
    }
}

impl Json for ScopeSpans {
    fn json(&self) -> Value {
        json!({
            "scope": option(&self.scope),
            "spans": list(&self.spans),
            "schemaUrl": self.schema_url,
        })
    }
}

impl Json for Span {
    fn json(&self) -> Value {
        json!({
            "traceId": hex(&self.trace_id),
            "spanId": hex(&self.span_id).to_uppercase(),
            "parentSpanId": hex(&self.parent_span_id),
            "traceState": self.trace_state,
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": self.start_time_unix_nano.to_string(),
            "endTimeUnixNano": self.end_time_unix_nano,
            "attributes": list(&self.attributes),
            "droppedAttributesCount": self.dropped_attributes_count,
            "events": list(&self.events),
            "droppedEventsCount": self.dropped_events_count,
            "links": list(&self.links),
            "droppedLinksCount": self.dropped_links_count,
            "status": option(&self.status),
            "flags": self.flags,
        })
    }
}

impl Json for Event {
    fn json(&self) -> Value {
        json!({
            "timeUnixNano": self.time_unix_nano.to_string(),
            "name": self.name,
            "attributes": list(&self.attributes),
            "droppedAttributesCount": self.dropped_attributes_count,
        })
    }
}

impl Json for Link {
    fn json(&self) -> Value {
        json!({
            "traceId": hex(&self.trace_id),
            "spanId": hex(&self.span_id),
            "traceState": self.trace_state,
            "attributes": list(&self.attributes),
            "droppedAttributesCount": self.dropped_attributes_count,
            "flags": self.flags,
        })
    }
}

impl Json for Status {
    fn json(&self) -> Value {
        json!({ "message": self.message, "code": self.code })
    }
}

impl Json for ExportLogsServiceRequest {
    fn json(&self) -> Value {
        json!({ "resourceLogs": list(&self.resource_logs) })
    }
}

impl Json for ResourceLogs {
    fn json(&self) -> Value {
        json!({
            "resource": option(&self.resource),
            "scopeLogs": list(&self.scope_logs),
            "schemaUrl": self.schema_url,
        })
    }
}

impl Json for ScopeLogs {
    fn json(&self) -> Value {
        json!({
            "scope": option(&self.scope),
            "logRecords": list(&self.log_records),
            "schemaUrl": self.schema_url,
        })
    }
}

impl Json for LogRecord {
    fn json(&self) -> Value {
        json!({
            "timeUnixNano": self.time_unix_nano.to_string(),
            "observedTimeUnixNano": self.observed_time_unix_nano.to_string(),
            "severityNumber": self.severity_number,
            "severityText": self.severity_text,
            "eventName": self.event_name,
            "body": option(&self.body),
            "attributes": list(&self.attributes),
            "droppedAttributesCount": self.dropped_attributes_count,
            "flags": self.flags,
            "traceId": hex(&self.trace_id),
            "spanId": hex(&self.span_id),
        })
    }
}

impl Json for ExportMetricsServiceRequest {
    fn json(&self) -> Value {
        json!({ "resourceMetrics": list(&self.resource_metrics) })
    }
}

impl Json for ResourceMetrics {
    fn json(&self) -> Value {
        json!({
            "resource": option(&self.resource),
            "scopeMetrics": list(&self.scope_metrics),
            "schemaUrl": self.schema_url,
        })
    }
}

impl Json for ScopeMetrics {
    fn json(&self) -> Value {
        json!({
            "scope": option(&self.scope),
            "metrics": list(&self.metrics),
            "schemaUrl": self.schema_url,
        })
    }
}

impl Json for Metric {
    fn json(&self) -> Value {
        let mut metric = json!({
            "name": self.name,
            "description": self.description,
            "unit": self.unit,
            "metadata": list(&self.metadata),
        });
        match &self.data {
            None => {}
            Some(metric::Data::Gauge(v)) => {
                metric["gauge"] = json!({ "dataPoints": list(&v.data_points) });
            }
            Some(metric::Data::Sum(v)) => {
                metric["sum"] = json!({
                    "dataPoints": list(&v.data_points),
                    "aggregationTemporality": v.aggregation_temporality,
                    "isMonotonic": v.is_monotonic,
                });
            }
            Some(metric::Data::Histogram(v)) => {
                metric["histogram"] = json!({
                    "dataPoints": list(&v.data_points),
                    "aggregationTemporality": v.aggregation_temporality,
                });
            }
            Some(metric::Data::ExponentialHistogram(v)) => {
                metric["exponentialHistogram"] = json!({
                    "dataPoints": list(&v.data_points),
                    "aggregationTemporality": v.aggregation_temporality,
                });
            }
            Some(metric::Data::Summary(v)) => {
                metric["summary"] = json!({ "dataPoints": list(&v.data_points) });
            }
        }
        metric
    }
}

impl Json for NumberDataPoint {
    fn json(&self) -> Value {
        let mut point = json!({
            "attributes": list(&self.attributes),
            "startTimeUnixNano": self.start_time_unix_nano.to_string(),
            "timeUnixNano": self.time_unix_nano.to_string(),
            "exemplars": list(&self.exemplars),
            "flags": self.flags,
        });
        match self.value {
            None => {}
            Some(number_data_point::Value::AsDouble(v)) => point["asDouble"] = double_json(v),
            Some(number_data_point::Value::AsInt(v)) => point["asInt"] = json!(v.to_string()),
        }
        point
    }
}

impl Json for Exemplar {
    fn json(&self) -> Value {
        let mut exemplar = json!({
            "filteredAttributes": list(&self.filtered_attributes),
            "timeUnixNano": self.time_unix_nano.to_string(),
            "spanId": hex(&self.span_id),
            "traceId": hex(&self.trace_id),
        });
        match self.value {
            None => {}
            Some(exemplar::Value::AsDouble(v)) => exemplar["asDouble"] = double_json(v),
            Some(exemplar::Value::AsInt(v)) => exemplar["asInt"] = json!(v.to_string()),
        }
        exemplar
    }
}

impl Json for HistogramDataPoint {
    fn json(&self) -> Value {
        json!({
            "attributes": list(&self.attributes),
            "startTimeUnixNano": self.start_time_unix_nano.to_string(),
            "timeUnixNano": self.time_unix_nano.to_string(),
            "count": self.count.to_string(),
            "sum": maybe(self.sum),
            "min": maybe(self.min),
            "max": maybe(self.max),
            "bucketCounts": self.bucket_counts.iter().map(u64::to_string).collect::<Value>(),
            "explicitBounds": self.explicit_bounds.iter().copied().map(double_json).collect::<Value>(),
            "exemplars": list(&self.exemplars),
            "flags": self.flags,
        })
    }
}

impl Json for ExponentialHistogramDataPoint {
    fn json(&self) -> Value {
        json!({
            "attributes": list(&self.attributes),
            "startTimeUnixNano": self.start_time_unix_nano.to_string(),
            "timeUnixNano": self.time_unix_nano.to_string(),
            "count": self.count.to_string(),
            "sum": maybe(self.sum),
            "scale": self.scale,
            "zeroCount": self.zero_count.to_string(),
            "positive": option(&self.positive),
            "negative": option(&self.negative),
            "flags": self.flags,
            "exemplars": list(&self.exemplars),
            "min": maybe(self.min),
            "max": maybe(self.max),
            "zeroThreshold": double_json(self.zero_threshold),
        })
    }
}

impl Json for Buckets {
    fn json(&self) -> Value {
        json!({
            "offset": self.offset,
            "bucketCounts": self.bucket_counts.iter().map(u64::to_string).collect::<Value>(),
        })
    }
}

impl Json for SummaryDataPoint {
    fn json(&self) -> Value {
        json!({
            "attributes": list(&self.attributes),
            "startTimeUnixNano": self.start_time_unix_nano.to_string(),
            "timeUnixNano": self.time_unix_nano.to_string(),
            "count": self.count.to_string(),
            "sum": double_json(self.sum),
            "quantileValues": list(&self.quantile_values),
            "flags": self.flags,
        })
    }
}

impl Json for ValueAtQuantile {
    fn json(&self) -> Value {
        json!({ "quantile": double_json(self.quantile), "value": double_json(self.value) })
    }
}
