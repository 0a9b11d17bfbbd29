//! The metrics half of the store.

/// One decoded request of metrics, columnar.
#[derive(Debug, Default)]
pub struct MetricBatch {}
