//! What senders are told: the one place of the collector that knows status codes.
//!
//! Exporters decide by the code alone whether to send a batch again. Whatever may pass (overload, start, stop, disk
//! trouble, a fault of ours) therefore answers UNAVAILABLE or 503 with a delay of a few seconds; only what can never
//! succeed answers a code that makes them drop it. A 500 or INTERNAL would lose data.
//!
//! Source: OTLP specification, "Failures" and "OTLP/HTTP Response"; google/rpc/status.proto, error_details.proto.

use crate::body::{BodyError, ENCODINGS};
use crate::ingest::Outcome;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use trefoil_storage::signal::{FrameKind, Signal};
use trefoil_storage::store::AppendError;
use trefoil_storage::wire;

/// Kinds of refusal. Also the `outcome` label of our own counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The body can't be read as what it claims to be.
    Malformed,
    Unauthenticated,
    TooLarge,
    MethodNotAllowed,
    UnsupportedType,
    UnsupportedEncoding,
    /// No such path or gRPC method.
    NotFound,
    /// A gRPC service we know of and don't offer.
    Unimplemented,
    /// Memory or disk for new data is used up for the moment.
    Full,
    /// The sender was too slow, or went away.
    Slow,
    /// The sender's own deadline (`grpc-timeout`) passed.
    Deadline,
    Starting,
    Stopping,
    /// The write-ahead log could not be written.
    Disk,
    /// A fault of ours: the request panicked.
    Fault,
}

impl Reason {
    pub(crate) const ALL: [Self; 15] = [
        Self::Malformed,
        Self::Unauthenticated,
        Self::TooLarge,
        Self::MethodNotAllowed,
        Self::UnsupportedType,
        Self::UnsupportedEncoding,
        Self::NotFound,
        Self::Unimplemented,
        Self::Full,
        Self::Slow,
        Self::Deadline,
        Self::Starting,
        Self::Stopping,
        Self::Disk,
        Self::Fault,
    ];

    /// (name, gRPC code, HTTP status, whether the sender should try again)
    fn row(self) -> (&'static str, Code, StatusCode, bool) {
        match self {
            Self::Malformed => ("malformed", Code::InvalidArgument, StatusCode::BAD_REQUEST, false),
            Self::Unauthenticated => {
                ("unauthenticated", Code::Unauthenticated, StatusCode::UNAUTHORIZED, false)
            }
            // gRPC clients send RESOURCE_EXHAUSTED again only when RetryInfo comes with it.
            Self::TooLarge => {
                ("too_large", Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, false)
            }
            Self::MethodNotAllowed => {
                ("method_not_allowed", Code::InvalidArgument, StatusCode::METHOD_NOT_ALLOWED, false)
            }
            Self::UnsupportedType => (
                "unsupported_type",
                Code::InvalidArgument,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                false,
            ),
            Self::UnsupportedEncoding => (
                "unsupported_encoding",
                Code::Unimplemented,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                false,
            ),
            Self::NotFound => ("not_found", Code::NotFound, StatusCode::NOT_FOUND, false),
            Self::Unimplemented => {
                ("unimplemented", Code::Unimplemented, StatusCode::NOT_FOUND, false)
            }
            Self::Full => ("full", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, true),
            Self::Slow => ("slow", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, true),
            Self::Deadline => {
                ("deadline", Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT, false)
            }
            Self::Starting => {
                ("starting", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, true)
            }
            Self::Stopping => {
                ("stopping", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, true)
            }
            Self::Disk => ("disk", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, true),
            Self::Fault => ("fault", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, true),
        }
    }

    pub fn name(self) -> &'static str {
        self.row().0
    }
}

/// Why nothing of a request was kept, in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

impl Refusal {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// For a request that panicked.
    pub(crate) fn fault() -> Self {
        Self::new(Reason::Fault, "the request hit a fault of the server, which is in its log")
    }

    /// Seconds until the sender should try again, spread so that senders do not come back all at once. Above about
    /// 5 s exporters give the batch up instead of waiting.
    fn retry_seconds(&self) -> Option<u64> {
        match self.reason {
            Reason::Starting => Some(1),
            reason if reason.row().3 => Some(rand::random_range(1..=4)),
            _ => None,
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let reason = match error {
            BodyError::TooLarge { .. } => Reason::TooLarge,
            BodyError::NoRoom => Reason::Full,
            BodyError::Slow { .. } | BodyError::Broken(_) => Reason::Slow,
            BodyError::Inflate { .. } => Reason::Malformed,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        let reason = match error {
            AppendError::Malformed(_) => Reason::Malformed,
            AppendError::Busy { .. } | AppendError::Full { .. } => Reason::Full,
            AppendError::Closed => Reason::Stopping,
            AppendError::Disk(_) | AppendError::Unsealed(_) => Reason::Disk,
        };
        Self::new(reason, error.to_string())
    }
}

/// The encoding of a request's body, which its answer shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Protobuf,
    Json,
}

impl Format {
    /// By media type; parameters such as `charset` are ignored.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let media_type = value.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/x-protobuf") {
            Some(Self::Protobuf)
        } else if media_type.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }
}

/// `Export…ServiceResponse` over HTTP: `partial_success` is set only if something was rejected.
pub fn http_ok(kind: FrameKind, format: Format, outcome: &Outcome) -> Response<Full<Bytes>> {
    let body = match format {
        Format::Protobuf => export_response(outcome),
        Format::Json if outcome.rejected == 0 => Bytes::from_static(b"{}"),
        Format::Json => {
            let counted = match kind.signal() {
                Signal::Spans | Signal::Red => "rejectedSpans",
                Signal::Logs => "rejectedLogRecords",
                Signal::Metrics => "rejectedDataPoints",
            };
            // 64-bit integers are strings in protobuf JSON.
            let partial = json!({
                counted: outcome.rejected.to_string(),
                "errorMessage": outcome.reason.as_deref().unwrap_or_default(),
            });
            json!({ "partialSuccess": partial }).to_string().into()
        }
    };
    answer(StatusCode::OK, format.content_type(), body)
}

/// A refusal over HTTP: `google.rpc.Status` in the request's encoding, or plain text when that is not known.
pub fn http_refusal(refusal: &Refusal, format: Option<Format>) -> Response<Full<Bytes>> {
    let (_, code, status, _) = refusal.reason.row();
    let retry = refusal.retry_seconds();
    let mut response = match format {
        Some(format @ Format::Protobuf) => {
            answer(status, format.content_type(), rpc_status(code, &refusal.message, retry).into())
        }
        Some(format @ Format::Json) => {
            let body = json!({"code": code as i32, "message": refusal.message});
            answer(status, format.content_type(), body.to_string().into())
        }
        None => {
            let text = format!("{}\n", refusal.message);
            answer(status, HeaderValue::from_static("text/plain; charset=utf-8"), text.into())
        }
    };
    let headers = response.headers_mut();
    if let Some(seconds) = retry {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    match refusal.reason {
        Reason::MethodNotAllowed => {
            headers.insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        }
        Reason::UnsupportedEncoding => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS));
        }
        Reason::Unauthenticated => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}

/// Remote write over HTTP has text bodies and 204 for success.
pub fn remote_write_refusal(refusal: &Refusal) -> Response<Full<Bytes>> {
    http_refusal(refusal, None)
}

fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// `Export…ServiceResponse` over gRPC, with its trailers.
pub fn grpc_ok(outcome: &Outcome) -> Response<tonic::body::Body> {
    grpc_message(&export_response(outcome))
}

/// A gRPC answer of one message.
pub(crate) fn grpc_message(message: &[u8]) -> Response<tonic::body::Body> {
    let mut framed = Vec::with_capacity(5 + message.len());
    framed.push(0);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(tonic::body::Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A refusal over gRPC. Status and delay go into the headers ("Trailers-Only"): some clients look nowhere else. The
/// delay is sent twice because clients read it in two places: in the status details, and under its own name.
pub fn grpc_refusal(refusal: &Refusal) -> Response<tonic::body::Body> {
    let (_, code, _, _) = refusal.reason.row();
    let mut metadata = MetadataMap::new();
    let retry = refusal.retry_seconds();
    let mut details = Bytes::new();
    if let Some(seconds) = retry {
        let delay = MetadataValue::from_bytes(&retry_info(seconds));
        metadata.insert_bin("google.rpc.retryinfo-bin", delay);
        details = rpc_status(code, &refusal.message, retry).into();
    }
    Status::with_details_and_metadata(code, &refusal.message, details, metadata).into_http()
}

/// `Export{Trace,Metrics,Logs}ServiceResponse`: the three have the same field numbers.
fn export_response(outcome: &Outcome) -> Bytes {
    let mut response = Vec::new();
    if outcome.rejected > 0 {
        let mut partial = Vec::new();
        wire::put_uint(&mut partial, 1, outcome.rejected);
        wire::put_bytes(&mut partial, 2, outcome.reason.as_deref().unwrap_or_default().as_bytes());
        wire::put_bytes(&mut response, 1, &partial);
    }
    response.into()
}

/// `google.rpc.Status`.
fn rpc_status(code: Code, message: &str, retry_seconds: Option<u64>) -> Vec<u8> {
    let mut status = Vec::new();
    wire::put_uint(&mut status, 1, code as u64);
    wire::put_bytes(&mut status, 2, message.as_bytes());
    if let Some(seconds) = retry_seconds {
        let mut any = Vec::new();
        wire::put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
        wire::put_bytes(&mut any, 2, &retry_info(seconds));
        wire::put_bytes(&mut status, 3, &any);
    }
    status
}

/// `google.rpc.RetryInfo`.
fn retry_info(seconds: u64) -> Vec<u8> {
    let mut duration = Vec::new();
    wire::put_uint(&mut duration, 1, seconds);
    let mut info = Vec::new();
    wire::put_bytes(&mut info, 1, &duration);
    info
}
