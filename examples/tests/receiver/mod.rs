//! An OTLP/gRPC receiver that keeps everything it is sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// What arrived so far.
#[derive(Default)]
pub struct Received {
    spans: Vec<ResourceSpans>,
    metrics: Vec<ResourceMetrics>,
    logs: Vec<ResourceLogs>,
}

fn service(resource: &Option<Resource>) -> String {
    resource.as_ref().map(|one| super::text(&one.attributes, "service.name")).unwrap_or_default()
}

impl Received {
    /// Every span with its service.
    pub fn spans(&self) -> impl Iterator<Item = (String, &Span)> {
        self.spans.iter().flat_map(|of| {
            let spans = of.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.map(|span| (service(&of.resource), span))
        })
    }

    /// Every metric of every collection with its service.
    pub fn metrics(&self) -> impl Iterator<Item = (String, &Metric)> {
        self.metrics.iter().flat_map(|of| {
            let metrics = of.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            metrics.map(|metric| (service(&of.resource), metric))
        })
    }

    /// Every log record with its service.
    pub fn logs(&self) -> impl Iterator<Item = (String, &LogRecord)> {
        self.logs.iter().flat_map(|of| {
            let logs = of.scope_logs.iter().flat_map(|scope| &scope.log_records);
            logs.map(|log| (service(&of.resource), log))
        })
    }

    /// The resource attributes of everything that sent metrics.
    pub fn resources(&self) -> impl Iterator<Item = &[KeyValue]> {
        self.metrics.iter().filter_map(|of| of.resource.as_ref()).map(|one| &one.attributes[..])
    }
}

/// A receiver on a port of its own, for as long as the test's runtime lives.
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = incoming.local_addr().unwrap();
        let keep = Keep(received.clone());
        tokio::spawn(
            Server::builder()
                .add_service(TraceServiceServer::new(keep.clone()))
                .add_service(MetricsServiceServer::new(keep.clone()))
                .add_service(LogsServiceServer::new(keep))
                .serve_with_incoming(incoming),
        );
        Self { address, received }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap()
    }
}

#[derive(Clone)]
struct Keep(Arc<Mutex<Received>>);

#[tonic::async_trait]
impl TraceService for Keep {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().spans.extend(request.into_inner().resource_spans);
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Keep {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.lock().unwrap().metrics.extend(request.into_inner().resource_metrics);
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Keep {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.lock().unwrap().logs.extend(request.into_inner().resource_logs);
        Ok(Response::new(Default::default()))
    }
}
