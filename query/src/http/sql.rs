//! `POST /api/sql`: JSON whole, or NDJSON, CSV and Arrow IPC as a stream.

use super::error::ApiError;
use super::state::QueryState;
use crate::exec::sql::SqlError;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    UInt64Array,
};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::Value;
use std::sync::Arc;
use trefoil_api::sql::{SqlRequest, SqlResponse};

/// Rows of a JSON answer at most; streams have no such limit.
const ROWS_MAX: usize = 100_000;

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";
const ARROW: &str = "application/vnd.apache.arrow.stream";

/// Runs one reading query over `spans`, `logs` and `metrics`.
#[utoipa::path(
    post, path = "/api/sql", tag = "sql",
    request_body(content = serde_json::Value, description = "`{\"query\":\"select …\"}`"),
    responses(
        (status = 200, description = "`{\"columns\":[],\"rows\":[[]]}`, or a stream by `Accept`: application/x-ndjson, text/csv, application/vnd.apache.arrow.stream"),
        (status = 400, description = "not a reading query, or it names what does not exist"),
        (status = 422, description = "beyond a limit"),
        (status = 504, description = "took too long"),
    )
)]
pub async fn sql(
    State(state): State<Arc<QueryState>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request: SqlRequest = serde_json::from_slice(&body).map_err(|error| {
        ApiError::bad_request(format!(
            "the body must be JSON like {{\"query\":\"select 1\"}}: {error}"
        ))
    })?;
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    for (kind, encode) in [
        (NDJSON, encode_ndjson as Encode),
        (CSV, encode_csv as Encode),
        (ARROW, encode_arrow as Encode),
    ] {
        if accept.contains(kind) {
            return stream(&state, &request.query, kind, encode).await;
        }
    }
    let (schema, batches) = state.sql.collect(&request.query, ROWS_MAX).await?;
    Ok(Json(json_answer(&schema, &batches)?).into_response())
}

fn json_answer(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<SqlResponse, ApiError> {
    let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut rows = Vec::new();
    for batch in batches {
        let first = rows.len();
        rows.resize_with(first + batch.num_rows(), || Vec::with_capacity(batch.num_columns()));
        for column in batch.columns() {
            let cells = cells(column).map_err(|e| ApiError::limit(e.to_string()))?;
            for (row, cell) in rows[first..].iter_mut().zip(cells) {
                row.push(cell);
            }
        }
    }
    Ok(SqlResponse { columns, rows })
}

/// A column as JSON values: numbers as numbers (non-finite ones as text), lists as arrays, the rest as text.
fn cells(column: &ArrayRef) -> Result<Vec<Value>, arrow::error::ArrowError> {
    let any = column.as_any();
    let rows = 0..column.len();
    let nullable = |row: usize, value: &dyn Fn(usize) -> Value| {
        if column.is_null(row) { Value::Null } else { value(row) }
    };
    if let Some(texts) = any.downcast_ref::<StringArray>() {
        return Ok(rows.map(|row| nullable(row, &|row| texts.value(row).into())).collect());
    }
    if let Some(ints) = any.downcast_ref::<Int64Array>() {
        return Ok(rows.map(|row| nullable(row, &|row| ints.value(row).into())).collect());
    }
    if let Some(ints) = any.downcast_ref::<UInt64Array>() {
        return Ok(rows.map(|row| nullable(row, &|row| ints.value(row).into())).collect());
    }
    if let Some(floats) = any.downcast_ref::<Float64Array>() {
        return Ok(rows.map(|row| nullable(row, &|row| float(floats.value(row)))).collect());
    }
    if let Some(flags) = any.downcast_ref::<BooleanArray>() {
        return Ok(rows.map(|row| nullable(row, &|row| flags.value(row).into())).collect());
    }
    match column.data_type() {
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            rows.map(|row| {
                if lists.is_null(row) {
                    Ok(Value::Null)
                } else {
                    cells(&lists.value(row)).map(Value::Array)
                }
            })
            .collect()
        }
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32 => cells(&arrow::compute::cast(column, &DataType::Int64)?),
        DataType::Float16 | DataType::Float32 | DataType::Decimal128(..) => {
            cells(&arrow::compute::cast(column, &DataType::Float64)?)
        }
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            cells(&arrow::compute::cast(column, &DataType::Utf8)?)
        }
        _ => {
            let format = FormatOptions::default().with_null("");
            let texts = ArrayFormatter::try_new(column, &format)?;
            Ok(rows.map(|row| nullable(row, &|row| texts.value(row).to_string().into())).collect())
        }
    }
}

fn float(value: f64) -> Value {
    if value.is_finite() {
        value.into()
    } else if value.is_nan() {
        "NaN".into()
    } else if value > 0.0 {
        "Infinity".into()
    } else {
        "-Infinity".into()
    }
}

/// Encodes one batch; `first` and `last` tell where in the stream it stands.
type Encode = fn(Part<'_>) -> Result<Vec<u8>, arrow::error::ArrowError>;

enum Part<'a> {
    Start(&'a SchemaRef),
    Batch(&'a RecordBatch),
    End,
}

async fn stream(
    state: &Arc<QueryState>,
    query: &str,
    content_type: &'static str,
    encode: Encode,
) -> Result<Response, ApiError> {
    let (schema, batches) = state.sql.execute(query).await?;
    let engine = state.clone();
    let deadline = tokio::time::Instant::now() + state.sql.limits().time;
    let body = async_stream::stream! {
        let mut batches = batches;
        yield encode(Part::Start(&schema)).map_err(std::io::Error::other);
        loop {
            match tokio::time::timeout_at(deadline, batches.next()).await {
                Err(_) => {
                    // The status is out already: an aborted body is the only sign that is left.
                    let limit = engine.sql.limits().time;
                    yield Err(std::io::Error::other(SqlError::Timeout { limit }));
                    return;
                }
                Ok(None) => break,
                Ok(Some(Ok(batch))) => yield encode(Part::Batch(&batch)).map_err(std::io::Error::other),
                Ok(Some(Err(error))) => {
                    yield Err(std::io::Error::other(engine.sql.explain(error)));
                    return;
                }
            }
        }
        yield encode(Part::End).map_err(std::io::Error::other);
    };
    Ok(([(header::CONTENT_TYPE, content_type)], Body::from_stream(body)).into_response())
}

fn encode_ndjson(part: Part<'_>) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let Part::Batch(batch) = part else { return Ok(Vec::new()) };
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

fn encode_csv(part: Part<'_>) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let mut out = Vec::new();
    let (batch, header) = match part {
        Part::Start(schema) => (RecordBatch::new_empty(schema.clone()), true),
        Part::Batch(batch) => (batch.clone(), false),
        Part::End => return Ok(out),
    };
    // Nested columns have no CSV form: as text.
    let columns: Vec<(String, ArrayRef)> = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| {
            let column = if column.data_type().is_nested() {
                let texts: StringArray = cells(column)?
                    .into_iter()
                    .map(|cell| (!cell.is_null()).then(|| cell.to_string()))
                    .collect();
                Arc::new(texts) as ArrayRef
            } else {
                column.clone()
            };
            Ok((field.name().clone(), column))
        })
        .collect::<Result<_, arrow::error::ArrowError>>()?;
    let fields: Vec<arrow::datatypes::Field> = columns
        .iter()
        .map(|(name, column)| arrow::datatypes::Field::new(name, column.data_type().clone(), true))
        .collect();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    let flat = RecordBatch::try_new(schema, arrays)?;
    arrow::csv::WriterBuilder::new().with_header(header).build(&mut out).write(&flat)?;
    Ok(out)
}

/// Each part is written by a writer of its own; only the first keeps the schema message.
fn encode_arrow(part: Part<'_>) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let schema_bytes = |schema: &SchemaRef| -> Result<Vec<u8>, arrow::error::ArrowError> {
        let mut out = Vec::new();
        arrow::ipc::writer::StreamWriter::try_new(&mut out, schema)?.flush()?;
        Ok(out)
    };
    match part {
        Part::Start(schema) => schema_bytes(schema),
        Part::Batch(batch) => {
            let mut out = Vec::new();
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut out, &batch.schema())?;
            writer.write(batch)?;
            writer.flush()?;
            drop(writer);
            Ok(out.split_off(schema_bytes(&batch.schema())?.len()))
        }
        // End-of-stream marker: continuation and a zero length.
        Part::End => Ok(vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
    }
}
