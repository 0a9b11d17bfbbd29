//! The server side of a request: a span, a duration, a count of requests under way.
//!
//! Names follow the semantic conventions for HTTP (spans and metrics, stable since 1.23).

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Router, http::header};
use opentelemetry::global::BoxedTracer;
use opentelemetry::metrics::UpDownCounter;
use opentelemetry::trace::{FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use std::sync::Arc;

use super::answer::Refusal;
use super::instruments::TracedHistogram;
use super::{Kit, propagation};
use crate::shop::Service;

/// Traces and measures every request to the routes of `router`.
///
/// A request that carries a `traceparent` continues that trace, any other begins one.
pub fn traced(kit: &Kit, router: Router) -> Router {
    let recorder = Arc::new(Recorder {
        tracer: kit.tracer(),
        duration: kit
            .instruments
            .duration("http.server.request.duration", "Duration of HTTP server requests."),
        active: kit
            .instruments
            .meter()
            .i64_up_down_counter("http.server.active_requests")
            .with_unit("{request}")
            .with_description("Number of active HTTP server requests.")
            .build(),
        port: kit.addresses.port(kit.service),
        log_requests: kit.service == Service::Gateway,
    });
    router.layer(middleware::from_fn_with_state(recorder, record))
}

struct Recorder {
    tracer: BoxedTracer,
    duration: TracedHistogram,
    active: UpDownCounter<i64>,
    port: u16,
    /// Whether each answer is a line in the log. Once per customer's request is enough, so only at the door.
    log_requests: bool,
}

/// Counts a request as under way until it is dropped, whether it was answered or the client went away.
struct Active<'a> {
    counter: &'a UpDownCounter<i64>,
    attributes: [KeyValue; 2],
}

impl<'a> Active<'a> {
    fn begin(counter: &'a UpDownCounter<i64>, attributes: [KeyValue; 2]) -> Self {
        counter.add(1, &attributes);
        Self { counter, attributes }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.counter.add(-1, &self.attributes);
    }
}

async fn record(State(recorder): State<Arc<Recorder>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = KeyValue::new("http.request.method", request.method().as_str().to_owned());
    let scheme = KeyValue::new("url.scheme", "http");
    let _active = Active::begin(&recorder.active, [method.clone(), scheme.clone()]);
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let path = request.uri().path().to_owned();

    let context = recorder.begin_span(&request, route.as_deref());
    let response = next.run(request).with_context(context.clone()).await;

    let status = response.status();
    let mut measured = vec![
        method,
        scheme,
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
        KeyValue::new("network.protocol.version", "1.1"),
    ];
    measured.extend(route.map(|route| KeyValue::new("http.route", route)));
    let span = context.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    let refusal = response.extensions().get::<Refusal>();
    if let Some(refusal) = refusal {
        span.set_attribute(KeyValue::new("shop.refusal", refusal.code.clone()));
    }
    // A 4xx is the client's doing: by the conventions not an error of the server's span.
    if status.is_server_error() {
        let kind = KeyValue::new("error.type", status.as_u16().to_string());
        span.set_attribute(kind.clone());
        measured.push(kind);
        span.set_status(Status::error(
            refusal.map_or_else(|| status.to_string(), |refusal| refusal.message.clone()),
        ));
    }
    // Recorded inside the span, so that the exemplar points to it.
    let _guard = context.clone().attach();
    let took = started.elapsed();
    recorder.duration.record(took.as_secs_f64(), &measured);
    if recorder.log_requests {
        tracing::info!(
            name: "request.answered",
            { http.response.status_code = status.as_u16(), url.path = path },
            "{path} answered {} in {} ms",
            status.as_u16(),
            took.as_millis()
        );
    }
    span.end();
    response
}

impl Recorder {
    fn begin_span(&self, request: &Request, route: Option<&str>) -> Context {
        let parent = propagation::from_http(request.headers());
        let method = request.method().as_str();
        let uri = request.uri();
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("url.path", uri.path().to_owned()),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("server.address", "127.0.0.1"),
            KeyValue::new("server.port", i64::from(self.port)),
            KeyValue::new("network.protocol.version", "1.1"),
        ];
        attributes.extend(uri.query().map(|query| KeyValue::new("url.query", query.to_owned())));
        attributes.extend(
            request
                .headers()
                .get(header::USER_AGENT)
                .and_then(|agent| agent.to_str().ok())
                .map(|agent| KeyValue::new("user_agent.original", agent.to_owned())),
        );
        let name = match route {
            Some(route) => {
                attributes.push(KeyValue::new("http.route", route.to_owned()));
                format!("{method} {route}")
            }
            None => method.to_owned(),
        };
        let span = self
            .tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent);
        parent.with_span(span)
    }
}
