//! Types of the native JSON API, shared by the server and the UI (also compiled to WebAssembly).
//!
//! Times are integer Unix nanoseconds unless a field says otherwise, durations nanoseconds, rates per second. IDs are
//! lower-case hex: 32 digits for traces, 16 for spans.

pub mod admin;
pub mod logs;
pub mod metrics;
pub mod otlp;
pub mod services;
pub mod sql;
pub mod status;
pub mod traces;

use serde::{Deserialize, Serialize};

/// Body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// One word for programs: `bad_request`, `not_found`, `limit`, `timeout`, `unavailable`.
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
}
