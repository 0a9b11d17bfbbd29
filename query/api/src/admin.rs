//! `POST /api/admin/delete`: all data of a service.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    pub service: String,
}

/// Rows taken out, by signal: `spans`, `logs`, `metrics`, and `red`, the histograms of spans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteResponse {
    pub deleted: BTreeMap<String, u64>,
}
