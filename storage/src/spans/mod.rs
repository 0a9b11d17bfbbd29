//! The spans half of the store.

/// One decoded request of spans, columnar.
#[derive(Debug, Default)]
pub struct SpanBatch {}
