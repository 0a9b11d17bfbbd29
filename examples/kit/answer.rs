//! How services answer when something is wrong: a status and `{"error":{"code","message"}}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// An answer that is not a success.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub status: StatusCode,
    /// A word for programs, such as `card_declined`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// The body of a refusal on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub struct RefusalBody {
    pub error: RefusalDetail,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RefusalDetail {
    pub code: String,
    pub message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let detail = RefusalDetail { code: self.code.clone(), message: self.message.clone() };
        let mut response = (self.status, Json(RefusalBody { error: detail })).into_response();
        // For the server's span, which sees the response and not this value.
        response.extensions_mut().insert(self);
        response
    }
}
