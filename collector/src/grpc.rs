//! OTLP over gRPC: the three `Export` methods and the health check.
//!
//! Every method here is unary, so a call is one framed message in and one out. The frame is read by `body.rs`, like
//! any other body, and not by tonic's codec: that one would inflate on the network's thread, reserve nothing, and
//! answer an oversized message with OUT_OF_RANGE and a broken gzip stream with INTERNAL, where exporters then send
//! again what can never succeed, or drop what could. tonic gives the status and its encoding.
//!
//! Source: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md), compression.md, health/v1/health.proto.

use crate::body::Encoding;
use crate::ingest::{Receiver, Request, Transport};
use crate::reply::{self, Format, Reason, Refusal};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Version};
use std::time::Duration;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::wire::{self, Field, Fields};

/// Serves what arrives on the gRPC port, HTTP/1 included: a misconfigured exporter is told the right port.
pub fn router(receiver: Receiver) -> Router {
    Router::new().fallback(call).with_state(receiver)
}

async fn call(State(receiver): State<Receiver>, request: http::Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    if parts.version < Version::HTTP_2 || !is_grpc(&parts.headers) {
        return not_grpc();
    }
    let mut response = match timeout_of(&parts.headers) {
        None => dispatch(&receiver, parts.uri.path(), parts.headers, body).await,
        Some(timeout) => {
            let answer = dispatch(&receiver, parts.uri.path(), parts.headers, body);
            tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
                refuse(&Refusal::new(Reason::Deadline, "the call's own deadline has passed"))
            })
        }
    };
    let accepted = HeaderValue::from_static("gzip,zstd,deflate,identity");
    response.headers_mut().insert("grpc-accept-encoding", accepted);
    response
}

async fn dispatch(receiver: &Receiver, path: &str, headers: HeaderMap, body: Body) -> Response {
    let kind = match path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => FrameKind::OtlpTraces,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => FrameKind::OtlpLogs,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => FrameKind::OtlpMetrics,
        "/grpc.health.v1.Health/Check" => return check_health(receiver, body).await,
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export" => {
            return refuse(&Refusal::new(Reason::Unimplemented, "profiles are not supported"));
        }
        _ => {
            let message = format!("there is no method {path}");
            return refuse(&Refusal::new(Reason::Unimplemented, message));
        }
    };
    match export(receiver, kind, headers, body).await {
        Ok(outcome) => reply::grpc_ok(&outcome).map(Body::new),
        Err(refusal) => refuse(&refusal),
    }
}

async fn export(
    receiver: &Receiver,
    kind: FrameKind,
    headers: HeaderMap,
    body: Body,
) -> Result<crate::ingest::Outcome, Refusal> {
    let name = headers.get("grpc-encoding").map_or("identity", |v| v.to_str().unwrap_or("?"));
    let Some(encoding) = Encoding::named(name) else {
        let message = format!("grpc-encoding {name:?} is not supported; use gzip or zstd");
        let refusal = Err(Refusal::new(Reason::UnsupportedEncoding, message));
        receiver.count(kind, Transport::Grpc, &refusal);
        return refusal;
    };
    let transport = Transport::Grpc;
    let format = Format::Protobuf;
    receiver.export(Request { kind, transport, format, encoding, headers, body }).await
}

fn refuse(refusal: &Refusal) -> Response {
    reply::grpc_refusal(refusal).map(Body::new)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    // application/grpc, application/grpc+proto, application/grpc;…, but not application/grpc-web.
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}

fn not_grpc() -> Response {
    let message = "this port speaks OTLP over gRPC (HTTP/2); for OTLP over HTTP use the HTTP port, \
                   by default 4318 (OTEL_EXPORTER_OTLP_ENDPOINT=http://HOST:4318)";
    let refusal = Refusal::new(Reason::UnsupportedType, message);
    reply::http_refusal(&refusal, None).into_response()
}

/// `grpc-timeout`: up to eight digits and a unit. A malformed one is no timeout.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// `grpc.health.v1.Health/Check` for the server as a whole (empty name) or one of the three services.
async fn check_health(receiver: &Receiver, body: Body) -> Response {
    const SERVING: u64 = 1;
    const NOT_SERVING: u64 = 2;
    // The request is a service's name: a body longer than this is none.
    let Ok(framed) = axum::body::to_bytes(body, 4096).await else {
        return refuse(&Refusal::new(
            Reason::Malformed,
            "the health check's message can't be read",
        ));
    };
    let service = service_name(framed.get(5..).unwrap_or_default());
    let known = [
        "",
        "opentelemetry.proto.collector.trace.v1.TraceService",
        "opentelemetry.proto.collector.logs.v1.LogsService",
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
    ];
    if !known.contains(&service) {
        return refuse(&Refusal::new(Reason::NotFound, format!("there is no service {service:?}")));
    }
    let mut message = Vec::new();
    let status = if receiver.store().is_ok() { SERVING } else { NOT_SERVING };
    wire::put_uint(&mut message, 1, status);
    reply::grpc_message(&message).map(Body::new)
}

/// Field 1 of `HealthCheckRequest`.
fn service_name(message: &[u8]) -> &str {
    let mut name = "";
    for field in Fields::new(message) {
        if let Ok((1, Field::Bytes(bytes))) = field {
            name = std::str::from_utf8(bytes).unwrap_or("\u{fffd}");
        }
    }
    name
}
