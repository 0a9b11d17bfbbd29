//! Spans in memory: a batch with a filter of its traces, so that a look-up goes through few of them.

use super::batch::SpanBatch;
use super::index::hash_of;
use crate::bloom::Filter;
use std::ops::Deref;

/// Small requests share one hot batch up to this many rows.
const SHARED_ROWS: usize = 4096;

/// Requests of fewer rows are small; others stay as they were decoded.
const SMALL_ROWS: usize = 512;

/// A batch and which traces are in it.
#[derive(Debug)]
pub struct HotBatch {
    batch: SpanBatch,
    traces: Filter,
    rows_max: usize,
}

impl HotBatch {
    pub fn new(batch: SpanBatch) -> Self {
        let rows_max = if batch.len() < SMALL_ROWS { SHARED_ROWS } else { batch.len() };
        let mut traces = Filter::with_room_for(rows_max);
        add(&mut traces, &batch);
        Self { batch, traces, rows_max }
    }

    /// Whether another batch may be [appended](Self::append).
    pub fn has_room_for(&self, other: &SpanBatch) -> bool {
        self.batch.len() + other.len() <= self.rows_max
    }

    /// Adds all rows of another batch.
    pub fn append(&mut self, other: &SpanBatch) {
        add(&mut self.traces, other);
        self.batch.append(other);
    }

    /// Whether rows of the trace may be in it; never false when there are.
    pub fn may_hold(&self, trace_id: &[u8; 16]) -> bool {
        self.traces.may_hold(hash_of(trace_id))
    }
}

fn add(traces: &mut Filter, batch: &SpanBatch) {
    let mut last = None;
    for row in &batch.rows {
        if last != Some(row.trace_id) {
            traces.insert(hash_of(&row.trace_id));
            last = Some(row.trace_id);
        }
    }
}

impl Deref for HotBatch {
    type Target = SpanBatch;

    fn deref(&self) -> &SpanBatch {
        &self.batch
    }
}
