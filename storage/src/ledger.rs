//! The ledger: what became of every record, per signal.
//!
//! Two laws hold at all times: `received = stored + duplicate + rejected` and
//! `stored = live + expired + deleted + quarantined`, where live is what hot rows and segments hold.

use crate::signal::Signal;
use serde::{Deserialize, Serialize};

/// Counts of records (spans, log records, data points) of one signal since the data directory was made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub stored: u64,
    /// Records of requests that had been stored already.
    pub duplicate: u64,
    /// Records refused one by one, named in `partial_success`.
    pub rejected: u64,
    /// Dropped by retention.
    pub expired: u64,
    /// Dropped on request, or in a merge that found the same sample twice.
    pub deleted: u64,
    /// In files set aside as damaged.
    pub quarantined: u64,
}

impl Account {
    pub fn received(&self) -> u64 {
        self.stored + self.duplicate + self.rejected
    }

    pub fn live(&self) -> u64 {
        self.stored.saturating_sub(self.expired + self.deleted + self.quarantined)
    }
}

/// The accounts of the three signals that come in from outside.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub spans: Account,
    pub logs: Account,
    pub metrics: Account,
}

impl Ledger {
    /// The account of `signal`; `None` for `Red`, which is derived from spans and counts nothing of its own.
    pub fn account_mut(&mut self, signal: Signal) -> Option<&mut Account> {
        match signal {
            Signal::Spans => Some(&mut self.spans),
            Signal::Logs => Some(&mut self.logs),
            Signal::Metrics => Some(&mut self.metrics),
            Signal::Red => None,
        }
    }

    pub fn accounts(&self) -> [(Signal, Account); 3] {
        [(Signal::Spans, self.spans), (Signal::Logs, self.logs), (Signal::Metrics, self.metrics)]
    }
}
