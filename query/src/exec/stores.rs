//! The stores as SQL tables.

use super::table::{Batches, TableSource, TimeBounds};
use arrow::datatypes::{DataType, SchemaRef};
use std::sync::Arc;
use trefoil_storage::logs::{self, LogStore};
use trefoil_storage::metrics::{self, MetricStore};
use trefoil_storage::spans::{self, SpanStore};

/// Table `spans`.
pub struct SpansTable(pub Arc<SpanStore>);

impl TableSource for SpansTable {
    fn schema(&self) -> SchemaRef {
        spans::table::schema()
    }

    fn attribute_type(&self, key: &str) -> Option<DataType> {
        self.0.key_types().column_type(key)
    }

    fn time_column(&self) -> &'static str {
        "start_time"
    }

    fn scan(&self, columns: &[String], bounds: TimeBounds) -> Batches {
        let keys = self.0.key_types();
        Box::new(self.0.snapshot().record_batches(
            columns.to_vec(),
            keys,
            bounds.min_ns,
            bounds.max_ns,
        ))
    }
}

/// Table `metrics`.
pub struct MetricsTable(pub Arc<MetricStore>);

impl TableSource for MetricsTable {
    fn schema(&self) -> SchemaRef {
        metrics::table::schema()
    }

    fn attribute_type(&self, key: &str) -> Option<DataType> {
        self.0.key_types().column_type(key)
    }

    fn time_column(&self) -> &'static str {
        "time"
    }

    fn scan(&self, columns: &[String], bounds: TimeBounds) -> Batches {
        let keys = self.0.key_types();
        Box::new(self.0.snapshot().record_batches(
            columns.to_vec(),
            keys,
            bounds.min_ns,
            bounds.max_ns,
        ))
    }
}

/// Table `logs`.
pub struct LogsTable(pub Arc<LogStore>);

impl TableSource for LogsTable {
    fn schema(&self) -> SchemaRef {
        logs::table::schema()
    }

    fn attribute_type(&self, key: &str) -> Option<DataType> {
        self.0.key_types().column_type(key)
    }

    fn time_column(&self) -> &'static str {
        "timestamp"
    }

    fn scan(&self, columns: &[String], bounds: TimeBounds) -> Batches {
        let keys = self.0.key_types();
        Box::new(self.0.snapshot().record_batches(
            columns.to_vec(),
            keys,
            bounds.min_ns,
            bounds.max_ns,
        ))
    }
}
