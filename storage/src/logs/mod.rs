//! The logs half of the store.

/// One decoded request of logs, columnar.
#[derive(Debug, Default)]
pub struct LogBatch {}
