//! OTLP over HTTP: `POST /v1/{traces,metrics,logs}`, protobuf or JSON.

use crate::body::Encoding;
use crate::ingest::{Receiver, Request, Transport};
use crate::reply::{self, Format, Reason, Refusal};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, CONTENT_ENCODING, EXPECT, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body_util::BodyExt;
use std::time::Duration;
use trefoil_storage::signal::FrameKind;

/// Serves the OTLP/HTTP port.
pub fn router(receiver: Receiver) -> Router {
    Router::new()
        .route("/v1/traces", any(traces))
        .route("/v1/logs", any(logs))
        .route("/v1/metrics", any(metrics))
        .route("/v1development/profiles", any(profiles))
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(receiver.clone(), cors))
        .with_state(receiver)
}

/// The same endpoints under the paths where Prometheus and Loki have them, for the query port.
pub fn aliases(receiver: Receiver) -> Router {
    Router::new()
        .route("/prometheus/api/v1/otlp/v1/metrics", any(metrics))
        .route("/loki/otlp/v1/logs", any(logs))
        .with_state(receiver)
}

async fn traces(State(receiver): State<Receiver>, request: http::Request<Body>) -> Response {
    export(&receiver, FrameKind::OtlpTraces, request).await
}

async fn logs(State(receiver): State<Receiver>, request: http::Request<Body>) -> Response {
    export(&receiver, FrameKind::OtlpLogs, request).await
}

async fn metrics(State(receiver): State<Receiver>, request: http::Request<Body>) -> Response {
    export(&receiver, FrameKind::OtlpMetrics, request).await
}

async fn profiles(request: http::Request<Body>) -> Response {
    let refusal = Refusal::new(Reason::NotFound, "profiles are not supported");
    refuse(&refusal, request).await
}

async fn export(receiver: &Receiver, kind: FrameKind, request: http::Request<Body>) -> Response {
    let transport = Transport::Http;
    let (format, encoding) = match described(&request) {
        Ok(described) => described,
        Err(refusal) => {
            receiver.count(kind, transport, &Err(refusal.clone()));
            return refuse(&refusal, request).await;
        }
    };
    let version = request.version();
    let (parts, mut body) = request.into_parts();
    let headers = parts.headers.clone();
    let request = Request { kind, transport, format, encoding, headers, body: &mut body };
    match receiver.export(request).await {
        Ok(outcome) => reply::http_ok(kind, format, &outcome).into_response(),
        Err(refusal) => {
            if refusal.reason != Reason::Slow {
                linger(version, &parts.headers, body).await;
            }
            reply::http_refusal(&refusal, Some(format)).into_response()
        }
    }
}

/// What a request says about its body.
fn described(request: &http::Request<Body>) -> Result<(Format, Encoding), Refusal> {
    let path = request.uri().path();
    if request.method() != Method::POST {
        let message = format!("{path} takes POST only");
        return Err(Refusal::new(Reason::MethodNotAllowed, message));
    }
    let Some(format) = Format::of(request.headers()) else {
        let message = "the Content-Type must be application/x-protobuf or application/json";
        return Err(Refusal::new(Reason::UnsupportedType, message));
    };
    let encodings = request.headers().get_all(CONTENT_ENCODING);
    let mut encoding = Encoding::Identity;
    for (index, name) in encodings.iter().enumerate() {
        match name.to_str().ok().and_then(Encoding::named) {
            Some(named) if index == 0 => encoding = named,
            _ => {
                let message = format!(
                    "Content-Encoding {} is not supported; use gzip, zstd, deflate or none",
                    String::from_utf8_lossy(name.as_bytes())
                );
                return Err(Refusal::new(Reason::UnsupportedEncoding, message));
            }
        }
    }
    Ok((format, encoding))
}

async fn unknown_path(request: http::Request<Body>) -> Response {
    let path = request.uri().path();
    let message = format!(
        "there is nothing at {path}; OTLP goes to /v1/traces, /v1/metrics and /v1/logs (an endpoint set per \
         signal, such as OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, is used as it is: it must end in that path)"
    );
    refuse(&Refusal::new(Reason::NotFound, message), request).await
}

async fn refuse(refusal: &Refusal, request: http::Request<Body>) -> Response {
    // 405 and 415 say that the request's own type is no guide.
    let format = match refusal.reason {
        Reason::MethodNotAllowed | Reason::UnsupportedType => None,
        Reason::NotFound => Some(Format::of(request.headers()).unwrap_or(Format::Json)),
        _ => Format::of(request.headers()),
    };
    let (parts, body) = request.into_parts();
    linger(parts.version, &parts.headers, body).await;
    reply::http_refusal(refusal, format).into_response()
}

/// Lets a sender finish before it is refused. On HTTP/1 an answer given while a body is still on its way mostly ends
/// in a reset connection, and the sender never reads it. Bounded in bytes and time, and not for senders that asked
/// first (`Expect: 100-continue`).
async fn linger(version: Version, headers: &HeaderMap, mut body: Body) {
    const LINGER_BYTES_MAX: usize = 128 << 20;
    const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
    if version >= Version::HTTP_2 || headers.contains_key(EXPECT) {
        return;
    }
    let drain = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len());
            if bytes > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    // Whether it came to an end or not, the answer is due now.
    let _ = tokio::time::timeout(LINGER_TIME_MAX, drain).await;
}

/// CORS for browser exporters from configured origins: answers preflights, and marks every answer, errors included,
/// so that the page may read it. The origin is echoed, not `*`: `sendBeacon` carries credentials.
async fn cors(
    State(receiver): State<Receiver>,
    request: http::Request<Body>,
    next: Next,
) -> Response {
    let Some(origin) = request.headers().get(ORIGIN).cloned() else {
        return next.run(request).await;
    };
    if !receiver.cors_origins().iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
        return next.run(request).await;
    }
    let preflight = request.method() == Method::OPTIONS;
    let mut response = match preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.append(VARY, HeaderValue::from_static("origin"));
    if preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "content-type, content-encoding, authorization, traceparent, tracestate, baggage",
            ),
        );
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    }
    response
}
