//! Prometheus remote write, 1.0 and 2.0: `POST /prometheus/api/v1/write`.
//!
//! Source: Prometheus Remote-Write 1.0 and 2.0 specifications; snappy's format_description.txt.

use crate::body::Encoding;
use crate::ingest::{Receiver, Request, Transport};
use crate::reply::{self, Format, Reason, Refusal};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use trefoil_storage::signal::FrameKind;

/// Answers one remote-write request. Mount it for all methods: it refuses the wrong ones itself.
pub async fn write(State(receiver): State<Receiver>, request: http::Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    // What the type does not say is taken for 1.0 in our own counters.
    let kind = kind_of(&parts.headers).unwrap_or(FrameKind::RemoteWrite1);
    let result = match checked(&parts.method, &parts.headers) {
        Ok(()) => {
            let request = Request {
                kind,
                transport: Transport::Http,
                format: Format::Protobuf,
                encoding: Encoding::SnappyBlock,
                headers: parts.headers,
                body,
            };
            receiver.export(request).await
        }
        Err(refusal) => {
            receiver.count(kind, Transport::Http, &Err(refusal.clone()));
            Err(refusal)
        }
    };
    let mut response = match &result {
        Ok(outcome) if outcome.rejected == 0 => StatusCode::NO_CONTENT.into_response(),
        // Prometheus wants a 400 for what was wrong although the rest is stored; it does not send again.
        Ok(outcome) => {
            let reason = outcome.reason.clone().unwrap_or_default();
            let message = format!("{} samples were rejected: {reason}", outcome.rejected);
            reply::remote_write_refusal(&Refusal::new(Reason::Malformed, message)).into_response()
        }
        Err(refusal) => reply::remote_write_refusal(refusal).into_response(),
    };
    if kind == FrameKind::RemoteWrite2 && !response.status().is_server_error() {
        let written = result.ok().and_then(|outcome| outcome.written).unwrap_or_default();
        let counts = [written.samples, written.histograms, written.exemplars];
        for (name, count) in WRITTEN.into_iter().zip(counts) {
            response.headers_mut().insert(name, count.into());
        }
    }
    response
}

/// Headers that tell a 2.0 sender what was kept, on 2xx and 4xx answers.
const WRITTEN: [HeaderName; 3] = [
    HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

fn checked(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if method != Method::POST {
        return Err(Refusal::new(Reason::MethodNotAllowed, "remote write takes POST only"));
    }
    if kind_of(headers).is_none() {
        let message = "the Content-Type must be application/x-protobuf, with proto=prometheus.WriteRequest or \
                       proto=io.prometheus.write.v2.Request if it has a parameter";
        return Err(Refusal::new(Reason::UnsupportedType, message));
    }
    match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
        // 1.0 senders exist that leave the header out; the body is snappy all the same.
        None => Ok(()),
        Some(name) if name.eq_ignore_ascii_case(b"snappy") => Ok(()),
        Some(_) => {
            let message = "remote write is compressed with snappy (block format) only";
            Err(Refusal::new(Reason::UnsupportedType, message))
        }
    }
}

/// Which message the body holds, by its content type; without a parameter it is 1.0.
fn kind_of(headers: &HeaderMap) -> Option<FrameKind> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("application/x-protobuf") {
        return None;
    }
    let proto = parts.find_map(|part| part.strip_prefix("proto="));
    match proto.map(|name| name.trim_matches('"')) {
        None | Some("prometheus.WriteRequest") => Some(FrameKind::RemoteWrite1),
        Some("io.prometheus.write.v2.Request") => Some(FrameKind::RemoteWrite2),
        Some(_) => None,
    }
}
