//! Questions to a log snapshot, and their answers.

use super::filter::{Field, LogFilter};
use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

/// Which end of the time range comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// Which records to look at.
#[derive(Debug, Clone)]
pub struct LogRange {
    /// Unix ns, both inclusive.
    pub start_ns: u64,
    pub end_ns: u64,
    /// After this moment a query ends with [`io::ErrorKind::TimedOut`].
    pub deadline: Option<Instant>,
}

impl LogRange {
    pub const ALL: Self = Self { start_ns: 0, end_ns: u64::MAX, deadline: None };

    pub fn new(start_ns: u64, end_ns: u64) -> Self {
        Self { start_ns, end_ns, deadline: None }
    }

    pub(super) fn contains(&self, time_ns: u64) -> bool {
        (self.start_ns..=self.end_ns).contains(&time_ns)
    }

    /// Whether any time from..=to is in the range.
    pub(super) fn meets(&self, from_ns: u64, to_ns: u64) -> bool {
        self.start_ns <= to_ns && from_ns <= self.end_ns
    }

    /// Whether all times from..=to are in the range.
    pub(super) fn covers(&self, from_ns: u64, to_ns: u64) -> bool {
        self.start_ns <= from_ns && to_ns <= self.end_ns
    }

    pub(super) fn check_deadline(&self) -> io::Result<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the log query ran too long; narrow the time range or add a filter",
            )),
            _ => Ok(()),
        }
    }
}

/// Which records to return.
#[derive(Debug, Clone)]
pub struct LogQuery {
    pub filter: LogFilter,
    pub range: LogRange,
    pub limit: usize,
    pub order: Order,
}

/// What a histogram counts by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// One count per bucket, under the empty name.
    Nothing,
    /// Severity class: `TRACE` … `FATAL`, `UNSET`.
    Severity,
    /// The field's text; the empty name for records without it.
    Field(Field),
}

/// Counts of one step of a histogram; steps without a match are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Unix ns, a multiple of the step.
    pub start_ns: u64,
    pub counts: BTreeMap<String, u64>,
}

/// A field of the matching records.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldSummary {
    pub name: String,
    /// `text`, `int`, `double`, `bool`, `list`, `map`, `bytes` or `mixed`.
    pub kind: &'static str,
    /// Records that have it.
    pub count: u64,
    /// Most frequent values first, as text.
    pub values: Vec<(String, u64)>,
}

/// Bodies that differ only in their variable words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternSummary {
    /// The body with `<*>` for its variable parts.
    pub pattern: String,
    pub count: u64,
    /// One body of the pattern.
    pub sample: String,
}
