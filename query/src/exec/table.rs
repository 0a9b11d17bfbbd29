//! The stores as DataFusion tables: one leaf plan that streams record batches from a snapshot.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use std::fmt::{self, Debug};
use std::io;
use std::sync::Arc;

/// Batches of a scan, in no particular order; each has the asked columns in the asked order.
pub type Batches = Box<dyn Iterator<Item = io::Result<RecordBatch>> + Send>;

/// Times a scan may be limited to, Unix ns, both inclusive. A wider answer is allowed, a narrower one is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeBounds {
    pub min_ns: u64,
    pub max_ns: u64,
}

impl TimeBounds {
    pub const ALL: Self = Self { min_ns: 0, max_ns: u64::MAX };
}

/// One store's rows as a table: what SQL needs to know of a signal.
pub trait TableSource: Send + Sync + 'static {
    /// Columns that every row has, in the order `SELECT *` shows them.
    fn schema(&self) -> SchemaRef;

    /// The type under which an attribute key can be read as a column; `None` for a key never seen.
    fn attribute_type(&self, key: &str) -> Option<DataType>;

    /// The column that time bounds are read from.
    fn time_column(&self) -> &'static str;

    /// Rows in `bounds` (or more) as batches of `columns`. Called on a blocking thread.
    fn scan(&self, columns: &[String], bounds: TimeBounds) -> Batches;
}

/// A table for one query: the fixed columns and those attribute keys that the query names.
pub struct SourceTable {
    source: Arc<dyn TableSource>,
    schema: SchemaRef,
}

impl SourceTable {
    /// * `named`: identifiers of the query text; those that are attribute keys become columns, so that
    ///   `"http.route"` works while `SELECT *` stays readable.
    pub fn new(source: Arc<dyn TableSource>, named: &[String]) -> Self {
        let fixed = source.schema();
        let mut fields: Vec<Arc<Field>> = fixed.fields().to_vec();
        for key in named {
            if fields.iter().any(|field| field.name() == key) {
                continue;
            }
            if let Some(data_type) = source.attribute_type(key) {
                fields.push(Arc::new(Field::new(key, data_type, true)));
            }
        }
        Self { source, schema: Arc::new(Schema::new(fields)) }
    }
}

impl Debug for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceTable").field("columns", &self.schema.fields().len()).finish()
    }
}

#[async_trait::async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projected = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let mut bounds = TimeBounds::ALL;
        for filter in filters {
            narrow(&mut bounds, filter, self.source.time_column());
        }
        let partition =
            ScanPartition { source: self.source.clone(), schema: projected.clone(), bounds };
        // The partition streams only the projected columns, so the plan itself projects nothing.
        let plan = StreamingTableExec::try_new(
            projected,
            vec![Arc::new(partition)],
            None,
            [],
            false,
            limit,
        )?;
        Ok(Arc::new(plan))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let time_column = self.source.time_column();
        Ok(filters
            .iter()
            .map(|filter| {
                let mut bounds = TimeBounds::ALL;
                narrow(&mut bounds, filter, time_column);
                if bounds == TimeBounds::ALL {
                    TableProviderFilterPushDown::Unsupported
                } else {
                    TableProviderFilterPushDown::Inexact
                }
            })
            .collect())
    }
}

/// Narrows `bounds` by a filter that compares the time column with a literal; others leave it alone.
fn narrow(bounds: &mut TimeBounds, filter: &Expr, time_column: &str) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            narrow(bounds, left, time_column);
            narrow(bounds, right, time_column);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, literal) = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) if column.name == time_column => {
                    (*op, value)
                }
                (Expr::Literal(value, _), Expr::Column(column)) if column.name == time_column => {
                    let Some(swapped) = op.swap() else { return };
                    (swapped, value)
                }
                _ => return,
            };
            let Some(time_ns) = literal_ns(literal) else { return };
            match op {
                Operator::Gt | Operator::GtEq => bounds.min_ns = bounds.min_ns.max(time_ns),
                Operator::Lt | Operator::LtEq => bounds.max_ns = bounds.max_ns.min(time_ns),
                Operator::Eq => {
                    bounds.min_ns = bounds.min_ns.max(time_ns);
                    bounds.max_ns = bounds.max_ns.min(time_ns);
                }
                _ => {}
            }
        }
        Expr::Between(between) if !between.negated => {
            if let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                (between.expr.as_ref(), between.low.as_ref(), between.high.as_ref())
                && column.name == time_column
                && let (Some(low), Some(high)) = (literal_ns(low), literal_ns(high))
            {
                bounds.min_ns = bounds.min_ns.max(low);
                bounds.max_ns = bounds.max_ns.min(high);
            }
        }
        _ => {}
    }
}

/// A timestamp literal as Unix ns; times before 1970 clamp to 0.
fn literal_ns(value: &ScalarValue) -> Option<u64> {
    let ns = match value {
        ScalarValue::TimestampNanosecond(Some(v), _) => *v,
        ScalarValue::TimestampMicrosecond(Some(v), _) => v.checked_mul(1_000)?,
        ScalarValue::TimestampMillisecond(Some(v), _) => v.checked_mul(1_000_000)?,
        ScalarValue::TimestampSecond(Some(v), _) => v.checked_mul(1_000_000_000)?,
        _ => return None,
    };
    Some(ns.max(0) as u64)
}

struct ScanPartition {
    source: Arc<dyn TableSource>,
    schema: SchemaRef,
    bounds: TimeBounds,
}

impl Debug for ScanPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanPartition").field("bounds", &self.bounds).finish()
    }
}

impl PartitionStream for ScanPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema.clone(), 2);
        let tx = builder.tx();
        let source = self.source.clone();
        let schema = self.schema.clone();
        let bounds = self.bounds;
        builder.spawn_blocking(move || {
            let mut columns: Vec<String> =
                schema.fields().iter().map(|field| field.name().clone()).collect();
            // `count(*)` asks for no column: read the cheapest one for its length.
            if columns.is_empty() {
                columns.push(source.time_column().to_owned());
            }
            for batch in source.scan(&columns, bounds) {
                let batch =
                    batch.map_err(DataFusionError::from).and_then(|batch| conform(batch, &schema));
                let failed = batch.is_err();
                // A closed channel means that the query has ended or its client has left.
                if tx.blocking_send(batch).is_err() || failed {
                    break;
                }
            }
            Ok(())
        });
        builder.build()
    }
}

/// Gives a batch exactly the table's types: an attribute may have another type in some segments.
fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (i, field) in schema.fields().iter().enumerate() {
        let Some(column) = batch.columns().get(i) else {
            return exec_err!("scan left out column {}", field.name());
        };
        columns.push(if column.data_type() == field.data_type() {
            column.clone()
        } else if column.data_type() == &DataType::Null {
            new_null_array(field.data_type(), rows)
        } else {
            cast(column, field.data_type())?
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
