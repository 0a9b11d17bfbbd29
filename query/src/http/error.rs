//! The native API's errors: the one place in this crate's own API that knows status codes.

use crate::exec::sql::SqlError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::io;

/// An error answer: `{"error":{"code","message"}}`. The message says what to do.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    /// 400: a parameter or query that can't be read; `message` names it.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "bad_request", message: message.into() }
    }

    /// 404: nothing is known under that name or ID.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "not_found", message: message.into() }
    }

    /// 422: understood, but beyond a limit.
    pub fn limit(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, code: "limit", message: message.into() }
    }

    /// 504: took longer than a query may.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self { status: StatusCode::GATEWAY_TIMEOUT, code: "timeout", message: message.into() }
    }

    /// 503: the store could not be read just now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "unavailable",
            message: message.into(),
        }
    }
}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        tracing::error!(%error, "a query could not read the store");
        Self::unavailable(format!("the store could not be read: {error}"))
    }
}

impl From<SqlError> for ApiError {
    fn from(error: SqlError) -> Self {
        let message = error.to_string();
        match error {
            SqlError::Invalid(_) => Self::bad_request(message),
            SqlError::Memory { .. } => Self::limit(message),
            SqlError::Timeout { .. } => Self::timeout(message),
            SqlError::Failed(_) => Self::limit(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        (self.status, Json(body)).into_response()
    }
}
