//! Spans in memory: a batch with a filter of its traces, so that a look-up goes through few of them.

use super::batch::SpanBatch;
use super::filter::Filter;
use super::index::hash_of;
use std::ops::Deref;

/// Small requests share one hot batch up to this many rows.
pub const BATCH_ROWS: usize = 4096;

/// A batch and which traces are in it.
#[derive(Debug)]
pub struct HotBatch {
    batch: SpanBatch,
    traces: Filter,
}

impl HotBatch {
    pub fn new(batch: SpanBatch) -> Self {
        let mut traces = Filter::with_room_for(batch.len().max(BATCH_ROWS));
        add(&mut traces, &batch);
        Self { batch, traces }
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
