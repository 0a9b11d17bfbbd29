//! OTLP requests to send, each built from a number so that no two are alike.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use std::time::{SystemTime, UNIX_EPOCH};

pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn resource(service: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![text("service.name", service)], ..Resource::default() })
}

/// Whose requests they are, and for when.
#[derive(Debug, Clone)]
pub struct Sender {
    pub service: String,
    /// Unix ns; spans last a millisecond.
    pub time_ns: u64,
}

impl Sender {
    /// A service's requests of this moment.
    pub fn now(service: &str) -> Self {
        Self { service: service.to_owned(), time_ns: now_ns() }
    }

    /// `count` spans of one trace.
    pub fn traces(&self, number: u64, count: u64) -> ExportTraceServiceRequest {
        let spans = (1..=count)
            .map(|index| Span {
                trace_id: trace_id(number).into(),
                span_id: (number << 16 | index).to_be_bytes().into(),
                name: format!("operation {index}"),
                kind: 2,
                start_time_unix_nano: self.time_ns,
                end_time_unix_nano: self.time_ns + 1_000_000,
                attributes: vec![text("request.id", &number.to_string())],
                ..Span::default()
            })
            .collect();
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource = resource(&self.service);
        let resource_spans =
            vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        ExportTraceServiceRequest { resource_spans }
    }

    /// `count` log records of one trace.
    pub fn logs(&self, number: u64, count: u64) -> ExportLogsServiceRequest {
        let body = |index| Value::StringValue(format!("request {number} line {index}"));
        let log_records = (1..=count)
            .map(|index| LogRecord {
                time_unix_nano: self.time_ns,
                severity_number: 9,
                severity_text: "INFO".into(),
                body: Some(AnyValue { value: Some(body(index)) }),
                trace_id: trace_id(number).into(),
                attributes: vec![text("request.id", &number.to_string())],
                ..LogRecord::default()
            })
            .collect();
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource = resource(&self.service);
        let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
        ExportLogsServiceRequest { resource_logs }
    }

    /// `count` points of one gauge, each of a series of its own.
    pub fn metrics(&self, number: u64, count: u64) -> ExportMetricsServiceRequest {
        let data_points = (1..=count)
            .map(|index| NumberDataPoint {
                time_unix_nano: self.time_ns,
                attributes: vec![
                    text("request.id", &number.to_string()),
                    text("index", &index.to_string()),
                ],
                value: Some(number_data_point::Value::AsDouble(index as f64)),
                ..NumberDataPoint::default()
            })
            .collect();
        let metric = Metric {
            name: "queue.depth".into(),
            data: Some(metric::Data::Gauge(Gauge { data_points })),
            ..Metric::default()
        };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
        let resource = resource(&self.service);
        let resource_metrics =
            vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        ExportMetricsServiceRequest { resource_metrics }
    }
}

/// The trace ID that the spans and logs of request `number` carry; its first half tells it from others, too.
pub fn trace_id(number: u64) -> [u8; 16] {
    (u128::from(number) << 72 | u128::from(number) << 8 | 1).to_be_bytes()
}

/// `count` spans of one trace, now.
pub fn traces(number: u64, count: u64) -> ExportTraceServiceRequest {
    Sender::now("checkout").traces(number, count)
}

/// The same as OTLP/JSON.
pub fn traces_json(number: u64, count: u64) -> String {
    let spans: Vec<serde_json::Value> = (1..=count)
        .map(|index| {
            serde_json::json!({
                "traceId": format!("{:032x}", u128::from_be_bytes(trace_id(number))),
                "spanId": format!("{:016x}", number << 16 | index),
                "name": format!("operation {index}"),
                "kind": 2,
                "startTimeUnixNano": now_ns().to_string(),
                "endTimeUnixNano": (now_ns() + 1_000_000).to_string(),
                "attributes": [{"key": "request.id", "value": {"stringValue": number.to_string()}}],
            })
        })
        .collect();
    let service = serde_json::json!({"key": "service.name", "value": {"stringValue": "checkout"}});
    serde_json::json!({"resourceSpans": [{
        "resource": {"attributes": [service]},
        "scopeSpans": [{"spans": spans}],
    }]})
    .to_string()
}

/// `count` log records of one trace, now.
pub fn logs(number: u64, count: u64) -> ExportLogsServiceRequest {
    Sender::now("checkout").logs(number, count)
}

/// `count` points of one gauge, each of a series of its own, now.
pub fn metrics(number: u64, count: u64) -> ExportMetricsServiceRequest {
    Sender::now("checkout").metrics(number, count)
}
