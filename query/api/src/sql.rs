//! `POST /api/sql`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SqlRequest {
    pub query: String,
}

/// Numbers as JSON numbers, times as RFC 3339, lists as arrays, NULL as null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SqlResponse {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}
