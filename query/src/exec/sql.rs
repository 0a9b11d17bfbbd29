//! SQL over the stores: DataFusion, read-only, with bounded memory and time.

use super::table::{SourceTable, TableSource};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// What went wrong with a query, in the words of its sender.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The text is not SQL, names what does not exist, or asks for more than reading.
    #[error("{0}")]
    Invalid(String),
    #[error(
        "the query needs more memory than it may use ({limit_bytes} bytes); narrow the time range or aggregate more"
    )]
    Memory { limit_bytes: usize },
    #[error(
        "the query ran longer than {} s; narrow the time range or add a filter",
        limit.as_secs()
    )]
    Timeout { limit: Duration },
    #[error("query failed: {0}")]
    Failed(String),
}

/// Bounds of one query.
#[derive(Debug, Clone, Copy)]
pub struct SqlLimits {
    pub memory_bytes: usize,
    pub time: Duration,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, time: Duration::from_secs(9) }
    }
}

/// Runs queries over a fixed set of tables.
pub struct SqlEngine {
    tables: Vec<(&'static str, Arc<dyn TableSource>)>,
    runtime: Arc<RuntimeEnv>,
    limits: SqlLimits,
}

impl SqlEngine {
    pub fn new(
        tables: Vec<(&'static str, Arc<dyn TableSource>)>,
        limits: SqlLimits,
    ) -> Result<Self, DataFusionError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
            .build_arc()?;
        Ok(Self { tables, runtime, limits })
    }

    pub fn limits(&self) -> SqlLimits {
        self.limits
    }

    /// Plans `sql` and starts it; batches come as they are made. Dropping the stream ends the query.
    ///
    /// Only reading statements are allowed: no DDL, DML, COPY or SET.
    pub async fn execute(
        &self,
        sql: &str,
    ) -> Result<(SchemaRef, SendableRecordBatchStream), SqlError> {
        let named = identifiers(sql)?;
        let config = SessionConfig::new()
            .with_target_partitions(2)
            .with_information_schema(true)
            .set_str("datafusion.sql_parser.dialect", "PostgreSQL");
        let context = SessionContext::new_with_config_rt(config, self.runtime.clone());
        context.register_udf(attr_function());
        for (name, source) in &self.tables {
            let table = SourceTable::new(source.clone(), &named);
            context.register_table(*name, Arc::new(table)).map_err(|e| self.explain(e))?;
        }
        let options = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        let frame =
            context.sql_with_options(sql, options).await.map_err(|e| match self.explain(e) {
                SqlError::Failed(message) | SqlError::Invalid(message) => {
                    SqlError::Invalid(advised(message, self.tables.iter().map(|(name, _)| *name)))
                }
                other => other,
            })?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let stream = frame.execute_stream().await.map_err(|e| self.explain(e))?;
        Ok((schema, stream))
    }

    /// Runs `sql` to its end, within the time limit.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] also when the answer has more than `rows_max` rows.
    pub async fn collect(
        &self,
        sql: &str,
        rows_max: usize,
    ) -> Result<(SchemaRef, Vec<RecordBatch>), SqlError> {
        let run = async {
            let (schema, mut stream) = self.execute(sql).await?;
            let mut batches = Vec::new();
            let mut rows = 0;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|e| self.explain(e))?;
                rows += batch.num_rows();
                if rows > rows_max {
                    return Err(SqlError::Invalid(format!(
                        "the answer has more than {rows_max} rows; add LIMIT, aggregate, or ask for \
                         application/x-ndjson, text/csv or application/vnd.apache.arrow.stream, which are streamed"
                    )));
                }
                batches.push(batch);
            }
            Ok((schema, batches))
        };
        match tokio::time::timeout(self.limits.time, run).await {
            Ok(done) => done,
            Err(_) => Err(SqlError::Timeout { limit: self.limits.time }),
        }
    }

    /// Sorts DataFusion's errors into ours and strips its wrappings.
    pub fn explain(&self, error: DataFusionError) -> SqlError {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => {
                SqlError::Memory { limit_bytes: self.limits.memory_bytes }
            }
            DataFusionError::SQL(inner, _) => SqlError::Invalid(inner.to_string()),
            DataFusionError::Plan(message) => SqlError::Invalid(message.clone()),
            DataFusionError::SchemaError(inner, _) => SqlError::Invalid(inner.to_string()),
            DataFusionError::NotImplemented(message) => {
                SqlError::Invalid(format!("not supported: {message}"))
            }
            root => SqlError::Failed(root.to_string()),
        }
    }
}

/// What to do is added to messages that only say what is wrong.
fn advised(message: String, tables: impl Iterator<Item = &'static str>) -> String {
    let unknown = message.strip_prefix("table 'datafusion.public.");
    if let Some(name) = unknown.and_then(|rest| rest.strip_suffix("' not found")) {
        let tables: Vec<&str> = tables.collect();
        return format!("there is no table {name:?}; the tables are {}", tables.join(", "));
    }
    let writes = ["DDL not supported", "DML not supported", "Statement not supported"];
    if writes.iter().any(|start| message.starts_with(start)) {
        return format!("{message}; SQL can read here, and nothing else: use SELECT");
    }
    message
}

/// Words and quoted identifiers of a query: candidates for attribute columns.
fn identifiers(sql: &str) -> Result<Vec<String>, SqlError> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize()
        .map_err(|e| SqlError::Invalid(e.to_string()))?;
    let mut words: Vec<String> = tokens
        .into_iter()
        .filter_map(|token| match token {
            Token::Word(word) => Some(word.value),
            _ => None,
        })
        .collect();
    words.sort_unstable();
    words.dedup();
    Ok(words)
}

/// `attr(attributes, 'key')`: one attribute of a JSON attribute column as text, NULL when absent.
fn attr_function() -> ScalarUDF {
    create_udf(
        "attr",
        vec![DataType::Utf8, DataType::Utf8],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(|args: &[ColumnarValue]| {
            let arrays = ColumnarValue::values_to_arrays(args)?;
            let (objects, keys) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
            let mut out = StringBuilder::new();
            for row in 0..objects.len() {
                out.append_option(
                    (!objects.is_null(row) && !keys.is_null(row))
                        .then(|| json_text(objects.value(row), keys.value(row)))
                        .flatten(),
                );
            }
            Ok(ColumnarValue::Array(Arc::new(out.finish()) as ArrayRef))
        }),
    )
}

fn json_text(object: &str, key: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(object).ok()?;
    Some(match object.get(key)? {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}
