//! Sets up the OpenTelemetry SDK: three signals over OTLP/gRPC, one resource.

use std::env;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{
    BatchConfigBuilder as LogBatch, BatchLogProcessor, SdkLoggerProvider,
};
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, PeriodicReader, SdkMeterProvider, Stream,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder as SpanBatch, BatchSpanProcessor, SdkTracerProvider,
};
use tonic::transport::{Channel, Endpoint};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, registry};

use super::exemplars::{ExemplarExporter, Exemplars};
use super::instruments::EXPONENTIAL_SUFFIX;
use crate::shop::Service;

const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:4317";

/// Short, so that a person who switches a scenario sees it soon. The SDK's own variables
/// (`OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BLRP_SCHEDULE_DELAY`, `OTEL_METRIC_EXPORT_INTERVAL`) win when they are set.
const BATCH_EVERY: Duration = Duration::from_secs(1);
const METRICS_EVERY: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Owns the providers of the process; they end with `shutdown`.
pub struct Telemetry {
    tracers: SdkTracerProvider,
    meters: SdkMeterProvider,
    loggers: SdkLoggerProvider,
    exemplars: Exemplars,
}

impl Telemetry {
    /// Installs the global tracer, meter and propagator, and the `tracing` subscriber that makes log records.
    ///
    /// # Errors
    /// When `OTEL_EXPORTER_OTLP_ENDPOINT` is no address. Nothing is connected here: a receiver may come later.
    pub fn start(service: Service, port: u16) -> anyhow::Result<Self> {
        let endpoint = env::var(ENDPOINT_VARIABLE).unwrap_or_else(|_| ENDPOINT_DEFAULT.to_owned());
        let channel = connect_later(&endpoint)?;
        let resource = Resource::builder()
            .with_service_name(service.name())
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", format!("{service}-{port}")),
                KeyValue::new("deployment.environment.name", "demo"),
                KeyValue::new("process.pid", i64::from(std::process::id())),
            ])
            .build();

        let tracers = tracer_provider(&endpoint, &channel, resource.clone())?;
        let exemplars = Exemplars::default();
        let meters = meter_provider(&channel, resource.clone(), &exemplars);
        let loggers = logger_provider(&endpoint, &channel, resource)?;

        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_tracer_provider(tracers.clone());
        global::set_meter_provider(meters.clone());
        // Only our own events become log records: the exporter's would feed back into it.
        let own = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO);
        registry()
            .with(OpenTelemetryTracingBridge::new(&loggers).with_filter(own))
            .with(DeliveryNotice::new(service, endpoint))
            .init();
        Ok(Self { tracers, meters, loggers, exemplars })
    }

    pub fn exemplars(&self) -> Exemplars {
        self.exemplars.clone()
    }

    /// Hands over what is still held. Returns after at most a few seconds, receiver or not.
    pub async fn shutdown(self) {
        // The providers block, and their exports need the runtime to go on: hence another thread.
        let ended = tokio::task::spawn_blocking(move || {
            let patience = Duration::from_secs(2);
            let _ = self.tracers.shutdown_with_timeout(patience);
            let _ = self.loggers.shutdown_with_timeout(patience);
            let _ = self.meters.shutdown_with_timeout(patience);
        });
        let _ = ended.await;
    }
}

fn connect_later(endpoint: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned())
        .with_context(|| format!("{ENDPOINT_VARIABLE}={endpoint} is not an address"))?;
    Ok(endpoint.connect_timeout(EXPORT_TIMEOUT).timeout(EXPORT_TIMEOUT).connect_lazy())
}

fn tracer_provider(
    endpoint: &str,
    channel: &Channel,
    resource: Resource,
) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_channel(channel.clone())
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .context("cannot make the span exporter")?;
    let mut batch = SpanBatch::default();
    if env::var_os("OTEL_BSP_SCHEDULE_DELAY").is_none() {
        batch = batch.with_scheduled_delay(BATCH_EVERY);
    }
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch.build()).build();
    Ok(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build())
}

fn logger_provider(
    endpoint: &str,
    channel: &Channel,
    resource: Resource,
) -> anyhow::Result<SdkLoggerProvider> {
    let exporter = LogExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_channel(channel.clone())
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .context("cannot make the log exporter")?;
    let mut batch = LogBatch::default();
    if env::var_os("OTEL_BLRP_SCHEDULE_DELAY").is_none() {
        batch = batch.with_scheduled_delay(BATCH_EVERY);
    }
    let processor = BatchLogProcessor::builder(exporter).with_batch_config(batch.build()).build();
    Ok(SdkLoggerProvider::builder().with_log_processor(processor).with_resource(resource).build())
}

fn meter_provider(
    channel: &Channel,
    resource: Resource,
    exemplars: &Exemplars,
) -> SdkMeterProvider {
    let exporter = ExemplarExporter::new(channel.clone(), exemplars.clone());
    let mut reader = PeriodicReader::builder(exporter);
    if env::var_os("OTEL_METRIC_EXPORT_INTERVAL").is_none() {
        reader = reader.with_interval(METRICS_EVERY);
    }
    SdkMeterProvider::builder()
        .with_reader(reader.build())
        .with_view(exponential)
        .with_resource(resource)
        .build()
}

/// Gives the chosen histograms buckets that follow their data.
fn exponential(instrument: &Instrument) -> Option<Stream> {
    instrument.name().ends_with(EXPONENTIAL_SUFFIX).then(|| {
        Stream::builder()
            .with_aggregation(Aggregation::Base2ExponentialHistogram {
                max_size: 160,
                max_scale: 20,
                record_min_max: true,
            })
            .build()
            .ok()
    })?
}

/// Tells a person, once a minute at most, that telemetry does not arrive.
///
/// The SDK reports failed exports as events of its own targets, one for each attempt.
struct DeliveryNotice {
    service: Service,
    endpoint: String,
    told: Mutex<Option<Instant>>,
}

impl DeliveryNotice {
    const QUIET: Duration = Duration::from_secs(60);

    fn new(service: Service, endpoint: String) -> Self {
        Self { service, endpoint, told: Mutex::new(None) }
    }
}

impl<S: Subscriber> Layer<S> for DeliveryNotice {
    fn on_event(&self, event: &Event<'_>, _context: LayerContext<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() != Level::ERROR || !metadata.target().starts_with("opentelemetry") {
            return;
        }
        let Ok(mut told) = self.told.lock() else { return };
        if told.is_none_or(|at| at.elapsed() >= Self::QUIET) {
            *told = Some(Instant::now());
            // One write, so that the lines of several processes do not mix.
            let line = format!(
                "{}: telemetry does not reach {} ({}); the shop works on. Is `trefoil serve` running?\n",
                self.service,
                self.endpoint,
                metadata.name()
            );
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}
