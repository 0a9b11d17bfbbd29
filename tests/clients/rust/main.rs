//! Tells the story of `../README.md` with the Rust SDK, over OTLP/gRPC.
//!
//! Usage: `otlp-client SERVICE TIME_NS`, with `OTEL_EXPORTER_OTLP_ENDPOINT` set.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags,
    TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Array, Context, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, SdkMeterProvider, Stream};
use opentelemetry_sdk::trace::SdkTracerProvider;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let service = arguments.next().context("which service name?")?;
    let time_ns = arguments.next().context("which time?")?.parse().context("a time in ns")?;
    let story = Story { service, time: UNIX_EPOCH + Duration::from_nanos(time_ns) };
    let child = story.send_traces()?;
    let in_child = Context::new().with_remote_span_context(child);
    // The providers' flushes block, and their exports need the runtime: hence another thread.
    tokio::task::spawn_blocking(move || {
        story.send_logs(&in_child)?;
        story.send_metrics(&in_child)
    })
    .await?
}

struct Story {
    service: String,
    time: SystemTime,
}

impl Story {
    fn at(&self, milliseconds: u64) -> SystemTime {
        self.time + Duration::from_millis(milliseconds)
    }

    fn resource(&self) -> Resource {
        Resource::builder()
            .with_service_name(self.service.clone())
            .with_attributes([
                KeyValue::new("service.version", "1.2.3"),
                KeyValue::new("service.instance.id", "i-1"),
                KeyValue::new("host.cpus", 8),
            ])
            .build()
    }

    fn scope() -> InstrumentationScope {
        InstrumentationScope::builder("story").with_version("0.9").build()
    }

    /// Returns the child span's context.
    fn send_traces(&self) -> anyhow::Result<SpanContext> {
        let exporter = SpanExporter::builder().with_tonic().build()?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(self.resource())
            .build();
        let tracer = provider.tracer_with_scope(Self::scope());
        let elsewhere = SpanContext::new(
            TraceId::from_hex("0af7651916cd43dd8448eb211c80319c")?,
            SpanId::from_hex("b7ad6b7169203331")?,
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        let texts: Vec<StringValue> = vec!["a".into(), "b".into()];
        let mut root = tracer
            .span_builder("root")
            .with_kind(SpanKind::Server)
            .with_start_time(self.at(0))
            .with_links(vec![Link::new(
                elsewhere,
                vec![KeyValue::new("reason", "retry"), KeyValue::new("attempt", 2)],
                0,
            )])
            .with_attributes([
                KeyValue::new("text", "grüße 🍀"),
                KeyValue::new("empty", ""),
                KeyValue::new("yes", true),
                KeyValue::new("no", false),
                KeyValue::new("int", 42),
                KeyValue::new("negative", -7),
                KeyValue::new("big", 9_007_199_254_740_993_i64),
                KeyValue::new("double", 2.5),
                KeyValue::new("texts", Value::Array(Array::String(texts))),
                KeyValue::new("ints", Value::Array(Array::I64(vec![1, 2, 3]))),
                KeyValue::new("doubles", Value::Array(Array::F64(vec![0.5, 1.5]))),
                KeyValue::new("bools", Value::Array(Array::Bool(vec![true, false]))),
            ])
            .start_with_context(&tracer, &Context::new());
        root.add_event_with_timestamp(
            "first",
            self.at(10),
            vec![KeyValue::new("n", 1), KeyValue::new("ok", true)],
        );
        root.record_error(&NoSuchCard);
        root.set_status(Status::Ok);
        let (trace_id, root_id) = (root.span_context().trace_id(), root.span_context().span_id());
        let in_root = Context::new().with_span(root);
        let mut child = tracer
            .span_builder("child")
            .with_kind(SpanKind::Client)
            .with_start_time(self.at(50))
            .start_with_context(&tracer, &in_root);
        child.set_status(Status::error("it broke"));
        child.end_with_timestamp(self.at(150));
        let child = child.span_context().clone();
        in_root.span().end_with_timestamp(self.at(250));
        tokio::task::block_in_place(|| provider.force_flush())?;
        acknowledged(&format!(
            r#"{{"signal":"traces","trace_id":"{trace_id}","root_span_id":"{root_id}","child_span_id":"{}"}}"#,
            child.span_id()
        ));
        tokio::task::block_in_place(|| provider.shutdown())?;
        Ok(child)
    }

    fn send_logs(&self, in_child: &Context) -> anyhow::Result<()> {
        let exporter = LogExporter::builder().with_tonic().build()?;
        let provider = SdkLoggerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(self.resource())
            .build();
        let logger = provider.logger_with_scope(Self::scope());
        let severities = [
            ("TRACE", Severity::Trace),
            ("DEBUG", Severity::Debug),
            ("INFO", Severity::Info),
            ("WARN", Severity::Warn),
            ("ERROR", Severity::Error),
            ("FATAL", Severity::Fatal),
        ];
        let guard = in_child.clone().attach();
        for (n, (text, number)) in severities.into_iter().enumerate() {
            let mut record = logger.create_log_record();
            record.set_timestamp(self.at(n as u64));
            record.set_severity_text(text);
            record.set_severity_number(number);
            record.set_body(format!("the story is at {text}").into());
            record.add_attribute("n", n as i64);
            record.set_event_name("story.told");
            logger.emit(record);
        }
        drop(guard);
        let map = |pairs: &[(&'static str, AnyValue)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).into(), value.clone()));
            AnyValue::Map(Box::new(pairs.collect::<HashMap<_, _>>()))
        };
        let list = |values: &[AnyValue]| AnyValue::ListAny(Box::new(values.to_vec()));
        let mut record = logger.create_log_record();
        record.set_timestamp(self.at(10));
        record.set_severity_text("INFO");
        record.set_severity_number(Severity::Info);
        record.set_body(map(&[("kind", "structured".into()), ("count", AnyValue::Int(3))]));
        record.add_attribute("bytes", AnyValue::Bytes(Box::new(vec![0x00, 0xff, 0x10])));
        let mixed =
            list(&["a".into(), AnyValue::Int(1), AnyValue::Double(2.5), AnyValue::Boolean(true)]);
        record.add_attribute("list", mixed);
        let deep = map(&[("list", list(&["x".into(), AnyValue::Int(2)]))]);
        record.add_attribute("map", map(&[("inner", AnyValue::Int(1)), ("deep", deep)]));
        logger.emit(record);
        provider.force_flush()?;
        acknowledged(r#"{"signal":"logs"}"#);
        provider.shutdown()?;
        Ok(())
    }

    fn send_metrics(&self, in_child: &Context) -> anyhow::Result<()> {
        let exporter = MetricExporter::builder().with_tonic().build()?;
        let exponential = |instrument: &Instrument| {
            if instrument.name() != "client.size" {
                return None;
            }
            let aggregation = Aggregation::Base2ExponentialHistogram {
                max_size: 160,
                max_scale: 20,
                record_min_max: true,
            };
            Stream::builder().with_aggregation(aggregation).build().ok()
        };
        let provider = SdkMeterProvider::builder()
            .with_periodic_exporter(exporter)
            .with_view(exponential)
            .with_resource(self.resource())
            .build();
        let meter = provider.meter_with_scope(Self::scope());
        let _guard = in_child.clone().attach();
        let requests = meter
            .u64_counter("client.requests")
            .with_unit("{request}")
            .with_description("Requests made.")
            .build();
        requests.add(3, &[KeyValue::new("k", "v")]);
        requests.add(2, &[KeyValue::new("k", "w")]);
        let active = meter
            .i64_up_down_counter("client.active")
            .with_unit("{request}")
            .with_description("Requests under way.")
            .build();
        active.add(5, &[]);
        active.add(-2, &[]);
        meter
            .f64_gauge("client.temperature")
            .with_unit("Cel")
            .with_description("How warm it is.")
            .build()
            .record(21.5, &[]);
        let duration = meter
            .f64_histogram("client.duration")
            .with_unit("s")
            .with_description("How long.")
            .with_boundaries(vec![0.01, 0.1, 1.0])
            .build();
        for value in [0.003, 0.3, 7.0] {
            duration.record(value, &[]);
        }
        let size = meter
            .u64_histogram("client.size")
            .with_unit("By")
            .with_description("How much.")
            .build();
        for value in [1, 2, 4, 8] {
            size.record(value, &[]);
        }
        provider.force_flush()?;
        acknowledged(r#"{"signal":"metrics"}"#);
        // The last collection at shutdown repeats the same totals.
        provider.shutdown()?;
        Ok(())
    }
}

fn acknowledged(line: &str) {
    println!("{line}");
}

#[derive(Debug)]
struct NoSuchCard;

impl std::fmt::Display for NoSuchCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no such card")
    }
}

impl std::error::Error for NoSuchCard {}
