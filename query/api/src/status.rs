//! `GET /api/status`: what the store holds and how the books stand.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub ready: bool,
    pub uptime_seconds: f64,
    pub retention: String,
    pub memory_limit_bytes: u64,
    /// By signal: `spans`, `logs`, `metrics`.
    pub ledger: BTreeMap<String, Account>,
    /// By signal, histograms of spans as `red`.
    pub segments: BTreeMap<String, SegmentTotals>,
    pub hot_bytes: u64,
    pub wal_bytes: u64,
    /// Data are being sealed or merged, or will be though nothing comes in.
    pub working: bool,
    pub free_disk_bytes: u64,
    /// The log can't be written: ingest is refused.
    pub wal_failing: bool,
    /// Files set aside as damaged: name, reason, time range, rows.
    pub quarantined: Vec<Value>,
}

/// `received = stored + duplicate + rejected`, `stored = live + expired + deleted + quarantined`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub received: u64,
    pub stored: u64,
    pub duplicate: u64,
    pub rejected: u64,
    /// Counted in the stores, not computed from the others.
    pub live: u64,
    pub expired: u64,
    pub deleted: u64,
    pub quarantined: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentTotals {
    pub segments: u64,
    pub rows: u64,
    pub bytes: u64,
}
