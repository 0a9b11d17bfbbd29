//! The client side of a request between services: a span, a duration, the trace in the headers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::trace::{FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::{Refusal, RefusalBody};
use super::instruments::{Instruments, TracedHistogram};
use super::propagation;
use crate::shop::{Addresses, Service};

/// Longer than any healthy call, shorter than a customer's patience.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Calls other services of the shop. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    addresses: Addresses,
    tracer: BoxedTracer,
    duration: TracedHistogram,
}

/// One request, before it is sent.
pub struct Call<'a> {
    method: Method,
    peer: Service,
    template: &'static str,
    path: String,
    body: Option<&'a (dyn ErasedBody + 'a)>,
    headers: HeaderMap,
    patience: Duration,
}

/// Anything that can be sent as JSON, seen through a pointer.
trait ErasedBody: Send + Sync {
    fn encode(&self) -> serde_json::Result<Vec<u8>>;
}

impl<T: Serialize + Send + Sync> ErasedBody for T {
    fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

/// Why a call brought no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{peer} is not reachable: {reason}")]
    Unreachable { peer: Service, reason: String },
    #[error("{peer} did not answer within {patience:?}")]
    TimedOut { peer: Service, patience: Duration },
    #[error("{peer} answered {}: {}", refusal.status.as_u16(), refusal.message)]
    Refused { peer: Service, refusal: Refusal },
    #[error("{peer} sent an answer that cannot be read: {source}")]
    Unreadable { peer: Service, source: serde_json::Error },
}

impl CallError {
    /// `error.type` by the semantic conventions: a status code, or a word of low cardinality.
    fn kind(&self) -> String {
        match self {
            CallError::Unreachable { .. } => "unreachable".into(),
            CallError::TimedOut { .. } => "timeout".into(),
            CallError::Refused { refusal, .. } => refusal.status.as_u16().to_string(),
            CallError::Unreadable { .. } => "unreadable".into(),
        }
    }

    /// What to answer to one's own caller: a refusal of the request goes through, a failure becomes a 502 or 504.
    pub fn into_refusal(self) -> Refusal {
        let message = self.to_string();
        match self {
            CallError::Refused { refusal, .. } if refusal.status.is_client_error() => refusal,
            CallError::Refused { refusal, .. } => {
                Refusal { status: StatusCode::BAD_GATEWAY, message, code: refusal.code }
            }
            CallError::TimedOut { .. } => {
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
            }
            CallError::Unreachable { .. } => {
                Refusal::new(StatusCode::BAD_GATEWAY, "unreachable", message)
            }
            CallError::Unreadable { .. } => {
                Refusal::new(StatusCode::BAD_GATEWAY, "unreadable", message)
            }
        }
    }
}

impl<'a> Call<'a> {
    /// * `template`: the path with its variable parts as `{name}`, for names that do not grow without bound.
    /// * `path`: the path and query that are really asked for.
    pub fn new(method: Method, peer: Service, template: &'static str, path: String) -> Self {
        Self {
            method,
            peer,
            template,
            path,
            body: None,
            headers: HeaderMap::new(),
            patience: PATIENCE,
        }
    }

    pub fn get(peer: Service, template: &'static str, path: String) -> Self {
        Self::new(Method::GET, peer, template, path)
    }

    pub fn post<T: Serialize + Send + Sync>(
        peer: Service,
        template: &'static str,
        path: String,
        body: &'a T,
    ) -> Self {
        Self::new(Method::POST, peer, template, path).body(body)
    }

    /// Sends `body` as JSON.
    pub fn body<T: Serialize + Send + Sync>(mut self, body: &'a T) -> Self {
        self.body = Some(body);
        self
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl Client {
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(
        service: Service,
        addresses: Addresses,
        instruments: &Instruments,
    ) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Inner {
            http: http_client(service)?,
            addresses,
            tracer: global::tracer(service.name()),
            duration: instruments
                .duration("http.client.request.duration", "Duration of HTTP client requests."),
        })))
    }

    /// Sends the call within a span of its own and reads the answer as JSON.
    pub async fn send<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, CallError> {
        let inner = &*self.0;
        let started = Instant::now();
        let peer = [
            KeyValue::new("http.request.method", call.method.as_str().to_owned()),
            KeyValue::new("url.template", call.template),
            KeyValue::new("server.address", "127.0.0.1"),
            KeyValue::new("server.port", i64::from(inner.addresses.port(call.peer))),
        ];
        let span = inner
            .tracer
            .span_builder(format!("{} {}", call.method, call.template))
            .with_kind(SpanKind::Client)
            .with_attributes(peer.iter().cloned().chain([
                KeyValue::new(
                    "url.full",
                    format!("{}{}", inner.addresses.url(call.peer), call.path),
                ),
                KeyValue::new("service.peer.name", call.peer.name()),
            ]))
            .start(&inner.tracer);
        let context = Context::current_with_span(span);
        let outcome = self.exchange(call, &context).with_context(context.clone()).await;

        let span = context.span();
        let mut measured = peer.to_vec();
        let status = match &outcome {
            Ok((status, _)) => Some(*status),
            Err(CallError::Refused { refusal, .. }) => Some(refusal.status),
            Err(_) => None,
        };
        if let Some(status) = status {
            let status = KeyValue::new("http.response.status_code", i64::from(status.as_u16()));
            span.set_attribute(status.clone());
            measured.push(status);
        }
        if let Err(error) = &outcome {
            let kind = KeyValue::new("error.type", error.kind());
            span.set_attribute(kind.clone());
            measured.push(kind);
            span.set_status(Status::error(error.to_string()));
        }
        let _guard = context.clone().attach();
        inner.duration.record(started.elapsed().as_secs_f64(), &measured);
        span.end();
        outcome.map(|(_, answer)| answer)
    }

    /// Sends a call that is nobody's trace: idle polls and control requests.
    pub async fn send_untraced<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, CallError> {
        self.exchange(call, &Context::new()).await.map(|(_, answer)| answer)
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        context: &Context,
    ) -> Result<(StatusCode, T), CallError> {
        let Call { peer, patience, .. } = call;
        let unreadable = |source| CallError::Unreadable { peer, source };
        let mut headers = call.headers;
        propagation::into_http(context, &mut headers);
        let url = format!("{}{}", self.0.addresses.url(peer), call.path);
        let mut request = self.0.http.request(call.method, url).timeout(patience);
        if let Some(body) = call.body {
            headers
                .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request = request.body(body.encode().map_err(unreadable)?);
        }
        let failed = |error: reqwest::Error| {
            if error.is_timeout() {
                CallError::TimedOut { peer, patience }
            } else {
                CallError::Unreachable { peer, reason: root_cause(&error) }
            }
        };
        let response = request.headers(headers).send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?;
        if status.is_success() {
            return Ok((status, serde_json::from_slice(&body).map_err(unreadable)?));
        }
        let refusal = match serde_json::from_slice::<RefusalBody>(&body) {
            Ok(RefusalBody { error }) => {
                Refusal { status, code: error.code, message: error.message }
            }
            Err(_) => Refusal::new(status, "unknown", String::from_utf8_lossy(&body)),
        };
        Err(CallError::Refused { peer, refusal })
    }
}

/// A client for requests between the shop's processes; proxies of the environment are none of their business.
pub fn http_client(service: Service) -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(format!("trefoil-shop-{service}/{}", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .build()
        .context("cannot set up the HTTP client")
}

/// The innermost reason, without the address that the outer ones repeat.
pub fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
