//! SQL over a table source: columns, attribute columns, pruning bounds, refusals.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::{Arc, Mutex};
use trefoil_query::exec::sql::{SqlEngine, SqlError, SqlLimits};
use trefoil_query::exec::table::{Batches, TableSource, TimeBounds};

#[derive(Default)]
struct Rows {
    seen: Mutex<Vec<TimeBounds>>,
}

impl TableSource for Rows {
    fn schema(&self) -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            Field::new("start_time", time, false),
            Field::new("name", DataType::Utf8, false),
            Field::new("attributes", DataType::Utf8, false),
        ]))
    }

    fn attribute_type(&self, key: &str) -> Option<DataType> {
        (key == "http.status").then_some(DataType::Int64)
    }

    fn time_column(&self) -> &'static str {
        "start_time"
    }

    fn scan(&self, columns: &[String], bounds: TimeBounds) -> Batches {
        self.seen.lock().unwrap().push(bounds);
        let arrays: Vec<(String, ArrayRef)> = columns
            .iter()
            .map(|column| {
                let array: ArrayRef = match column.as_str() {
                    "start_time" => {
                        Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3]).with_timezone("UTC"))
                    }
                    "name" => Arc::new(StringArray::from(vec!["a", "b", "a"])),
                    "attributes" => Arc::new(StringArray::from(vec![r#"{"k":"v"}"#, "{}", "{}"])),
                    _ => Arc::new(Int64Array::from(vec![Some(200), None, Some(500)])),
                };
                (column.clone(), array)
            })
            .collect();
        Box::new(std::iter::once(Ok(RecordBatch::try_from_iter_with_nullable(
            arrays.into_iter().map(|(name, array)| (name, array, true)),
        )
        .unwrap())))
    }
}

async fn one(sql: &str) -> Result<String, SqlError> {
    let engine =
        SqlEngine::new(vec![("spans", Arc::new(Rows::default()))], SqlLimits::default()).unwrap();
    let (_, batches) = engine.collect(sql, 100).await?;
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    Ok((0..batch.num_rows())
        .map(|row| {
            batch
                .columns()
                .iter()
                .map(|c| arrow::util::display::array_value_to_string(c, row).unwrap())
                .collect::<Vec<_>>()
                .join(",")
        })
        .collect::<Vec<_>>()
        .join(" "))
}

#[tokio::test]
async fn counting_needs_no_column() {
    assert_eq!(one("select count(*) from spans").await.unwrap(), "3");
}

#[tokio::test]
async fn an_attribute_key_is_a_quoted_column_and_star_leaves_it_out() {
    assert_eq!(
        one(r#"select name, "http.status" from spans where "http.status" >= 500"#).await.unwrap(),
        "a,500"
    );
    assert_eq!(one("select * from spans limit 1").await.unwrap().matches(',').count(), 3 - 1);
}

#[tokio::test]
async fn attr_reads_the_json_column_and_substr_works() {
    assert_eq!(
        one("select attr(attributes, 'k'), substr(name, 1, 1) from spans order by start_time limit 1")
            .await
            .unwrap(),
        "v,a"
    );
}

#[tokio::test]
async fn a_time_filter_reaches_the_scan_as_bounds() {
    let rows = Arc::new(Rows::default());
    let engine = SqlEngine::new(vec![("spans", rows.clone())], SqlLimits::default()).unwrap();
    engine
        .collect(
            "select name from spans where start_time >= '1970-01-01T00:00:01Z' and start_time < '1970-01-01T00:00:02Z'",
            10,
        )
        .await
        .unwrap();
    assert_eq!(
        rows.seen.lock().unwrap().as_slice(),
        [TimeBounds { min_ns: 1_000_000_000, max_ns: 2_000_000_000 }]
    );
}

#[tokio::test]
async fn only_reading_is_allowed_and_errors_name_the_fault() {
    for sql in [
        "create table t as select 1",
        "insert into spans values (1)",
        "copy spans to '/tmp/x.parquet'",
        "set datafusion.execution.batch_size = 1",
        "select nothing_like_it from spans",
        "select * from '/etc/passwd'",
        "selec 1",
    ] {
        match one(sql).await {
            Err(SqlError::Invalid(message)) => assert!(!message.is_empty(), "{sql}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    let words = async |sql| one(sql).await.unwrap_err().to_string();
    assert_eq!(
        words("select 1 from span").await,
        "there is no table \"span\"; the tables are spans"
    );
    assert_eq!(
        words("drop table spans").await,
        "DDL not supported: DropTable; SQL can read here, and nothing else: use SELECT"
    );
}
