//! The envelope of answers, and the one place here that knows status codes.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use trefoil_promql::{LimitError, QueryError, SourceError};

/// The kinds of errors of the Prometheus API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    BadData,
    Execution,
    Timeout,
    Canceled,
    Internal,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::BadData => "bad_data",
            Kind::Execution => "execution",
            Kind::Timeout => "timeout",
            Kind::Canceled => "canceled",
            Kind::Internal => "internal",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Kind::BadData => StatusCode::BAD_REQUEST,
            Kind::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            // "Client closed request": not standard, but what Prometheus answers.
            Kind::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    pub kind: Kind,
    pub message: String,
}

impl Failure {
    pub(super) fn bad_data(message: impl Into<String>) -> Self {
        Failure { kind: Kind::BadData, message: message.into() }
    }

    /// A parameter that can't be used.
    pub(super) fn parameter(name: &str, problem: impl std::fmt::Display) -> Self {
        Failure::bad_data(format!("invalid parameter \"{name}\": {problem}"))
    }
}

impl From<LimitError> for Failure {
    fn from(error: LimitError) -> Self {
        let kind = match error {
            LimitError::Samples { .. }
            | LimitError::Together { .. }
            | LimitError::Series { .. } => Kind::Execution,
            LimitError::Timeout { .. } => Kind::Timeout,
            LimitError::Canceled { .. } => Kind::Canceled,
        };
        Failure { kind, message: error.to_string() }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Limit(limit) => limit.into(),
            other => {
                tracing::error!(error = %other, "a store failed a query");
                Failure { kind: Kind::Internal, message: other.to_string() }
            }
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Parse(e) => Failure::parameter("query", e),
            QueryError::Invalid(e) => Failure::parameter("query", e),
            QueryError::Execution(message) => Failure { kind: Kind::Execution, message },
            QueryError::Limit(limit) => limit.into(),
            QueryError::Source(e) => e.into(),
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    status: &'static str,
    #[serde(rename = "errorType")]
    kind: &'static str,
    error: &'a str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ErrorBody { status: "error", kind: self.kind.name(), error: &self.message };
        json(self.kind.status(), serde_json::to_vec(&body).unwrap_or_default())
    }
}

/// What a handler gives.
pub(super) type Reply = Result<Response, Failure>;

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Notes that go with an answer.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

impl Notes {
    /// The warning for a list that was cut.
    pub(super) fn truncated(cut: bool) -> Self {
        let mut notes = Notes::default();
        if cut {
            notes.warnings.push("results truncated due to limit".to_owned());
        }
        notes
    }
}

/// A successful answer around data that is JSON already.
pub(super) fn success_raw(data: &[u8], notes: &Notes) -> Response {
    let mut body = Vec::with_capacity(data.len() + 64);
    body.extend_from_slice(br#"{"status":"success","data":"#);
    body.extend_from_slice(data);
    for (name, list) in [("warnings", &notes.warnings), ("infos", &notes.infos)] {
        if !list.is_empty() {
            body.extend_from_slice(format!(",\"{name}\":").as_bytes());
            body.extend_from_slice(&serde_json::to_vec(list).unwrap_or_default());
        }
    }
    body.push(b'}');
    json(StatusCode::OK, body)
}

/// A successful answer.
pub(super) fn success(data: &impl Serialize, notes: &Notes) -> Response {
    success_raw(&serde_json::to_vec(data).unwrap_or_default(), notes)
}
