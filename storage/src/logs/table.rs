//! Logs as a table: the logical columns of SQL over hot batches and segments alike.

use super::batch::LogBatch;
use super::filter::LogRows;
use super::sealed::{BlockRows, LogSegment, Outline};
use super::snapshot::LogSnapshot;
use crate::attribute_columns::KeyColumn;
use crate::attributes;
use crate::columnar::{
    ATTRIBUTE_PREFIX, AttributeReader, KeyTypes, arrow_error, public_json, resource_json,
};
use crate::resource::{Resource, Scope};
use crate::spans::records::hex;
use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, UInt32Type};
use std::io;
use std::sync::Arc;

/// Columns of the table `logs`: ids are lower-case hex and NULL when there is none, attributes JSON text.
pub fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        Field::new("timestamp", time.clone(), false),
        Field::new("observed_timestamp", time, true),
        text("severity_text", false),
        Field::new("severity_number", DataType::Int64, false),
        text("service_name", false),
        text("body", false),
        text("trace_id", true),
        text("span_id", true),
        text("event_name", true),
        text("scope_name", false),
        text("scope_version", true),
        text("attributes", false),
        text("resource_attributes", false),
        Field::new("flags", DataType::Int64, false),
    ]))
}

type Wanted = Vec<(String, DataType)>;

impl LogSnapshot {
    /// Rows whose time may lie in `min_ns..=max_ns`, as batches of `columns`: names of [`schema`] or attribute keys
    /// (`keys` gives their types). Segments come first, then hot rows; inside a batch rows have no order.
    pub fn record_batches(
        &self,
        columns: Vec<String>,
        keys: KeyTypes,
        min_ns: u64,
        max_ns: u64,
    ) -> impl Iterator<Item = io::Result<RecordBatch>> + Send + use<> {
        let fixed = schema();
        let wanted: Wanted = columns
            .into_iter()
            .map(|name| {
                let data_type = match fixed.field_with_name(&name) {
                    Ok(field) => field.data_type().clone(),
                    Err(_) => keys.column_type(&name).unwrap_or(DataType::Utf8),
                };
                (name, data_type)
            })
            .collect();
        let (for_segments, for_hot) = (Arc::new(wanted.clone()), wanted);
        let meets = move |from_ns: u64, to_ns: u64| from_ns <= max_ns && to_ns >= min_ns;
        let segments: Vec<Arc<LogSegment>> = self
            .segments
            .iter()
            .filter(|segment| meets(segment.meta.min_ns, segment.meta.max_ns))
            .cloned()
            .collect();
        let hot: Vec<Arc<LogBatch>> =
            self.hot.iter().filter(|batch| meets(batch.min_ns, batch.max_ns)).cloned().collect();
        segments
            .into_iter()
            .flat_map(move |segment| {
                SegmentBatches::new(segment, for_segments.clone(), min_ns, max_ns)
            })
            .chain(hot.into_iter().map(move |batch| hot_batch(&batch, &for_hot)))
    }
}

/// Blocks read by one Parquet reader: few enough to stay small, enough to share its cost.
const BLOCKS_PER_READ: usize = 8;

/// The batches of one segment, a few blocks at a time.
struct SegmentBatches {
    segment: Arc<LogSegment>,
    wanted: Arc<Wanted>,
    columns: Vec<String>,
    /// Block numbers still to read; an error instead when footer or outline could not be read.
    blocks: Result<std::collections::VecDeque<usize>, Option<io::Error>>,
    ready: std::vec::IntoIter<RecordBatch>,
}

impl SegmentBatches {
    fn new(segment: Arc<LogSegment>, wanted: Arc<Wanted>, min_ns: u64, max_ns: u64) -> Self {
        let numbers = |outline: &Outline| {
            let blocks = outline.blocks.blocks.iter().enumerate();
            blocks
                .filter(|(_, block)| block.min_ns <= max_ns && block.max_ns >= min_ns)
                .map(|(number, _)| number)
                .collect()
        };
        let read = physical_columns(&segment, &wanted)
            .and_then(|columns| Ok((columns, numbers(&*segment.outline()?))));
        let (columns, blocks) = match read {
            Ok((columns, blocks)) => (columns, Ok(blocks)),
            Err(error) => (Vec::new(), Err(Some(error))),
        };
        Self { segment, wanted, columns, blocks, ready: Vec::new().into_iter() }
    }

    fn read(&self, numbers: &[usize]) -> io::Result<Vec<RecordBatch>> {
        let outline = self.segment.outline()?;
        let texts = GroupTexts::new(&outline);
        self.segment
            .read_blocks(&outline, &self.columns, numbers)?
            .map(|rows| block_batch(&rows?, &texts, &self.wanted))
            .collect()
    }
}

impl Iterator for SegmentBatches {
    type Item = io::Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(batch) = self.ready.next() {
            return Some(Ok(batch));
        }
        let numbers: Vec<usize> = match &mut self.blocks {
            Err(error) => return error.take().map(Err),
            Ok(blocks) => blocks.drain(..blocks.len().min(BLOCKS_PER_READ)).collect(),
        };
        if numbers.is_empty() {
            return None;
        }
        match self.read(&numbers) {
            Ok(batches) => {
                self.ready = batches.into_iter();
                self.ready.next().map(Ok)
            }
            Err(error) => {
                self.blocks = Err(None);
                Some(Err(error))
            }
        }
    }
}

/// Columns of the file from which the wanted ones are made. A whole attribute object needs every typed column, a
/// single key only its own and the rest.
fn physical_columns(segment: &LogSegment, wanted: &Wanted) -> io::Result<Vec<String>> {
    let mut columns = Vec::new();
    for (name, _) in wanted {
        match name.as_str() {
            "observed_timestamp" => {
                columns.extend(["timestamp".into(), "observed_offset_ns".into()]);
            }
            "timestamp" | "body" | "trace_id" | "span_id" | "flags" => columns.push(name.clone()),
            "severity_text"
            | "severity_number"
            | "service_name"
            | "event_name"
            | "scope_name"
            | "scope_version"
            | "resource_attributes" => {}
            "attributes" => {
                columns.push("attributes".into());
                let footer = segment.file.footer()?;
                let keys = footer.attribute_keys();
                columns.extend(keys.map(|(key, _)| format!("{ATTRIBUTE_PREFIX}{key}")));
            }
            key => {
                segment.columns_of_field(&super::filter::Field::Attribute(key.into()), &mut columns)
            }
        }
    }
    // Groups know the number of rows, but a reader needs a column to stream.
    if columns.is_empty() {
        columns.push("flags".into());
    }
    Ok(columns)
}

/// Texts of resources, made once per read.
struct GroupTexts<'a> {
    outline: &'a Outline,
    resources: Vec<String>,
}

impl<'a> GroupTexts<'a> {
    fn new(outline: &'a Outline) -> Self {
        let resources = outline.groups.resources.iter();
        Self { outline, resources: resources.map(|r| public_json(&resource_json(r))).collect() }
    }
}

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Columns that both hot rows and blocks can give by row.
fn shared_column(rows: &dyn LogRows, count: usize, name: &str) -> Option<ArrayRef> {
    fn texts<'a>(count: usize, text: impl Fn(usize) -> Option<&'a str>) -> ArrayRef {
        Arc::new((0..count).map(text).collect::<StringArray>())
    }
    fn ids(count: usize, id: impl Fn(usize) -> Option<String>) -> ArrayRef {
        let mut out = StringBuilder::with_capacity(count, count * 32);
        (0..count).for_each(|row| out.append_option(id(row)));
        Arc::new(out.finish())
    }
    let scope = |row: usize| -> &Scope { rows.scope(row) };
    let resource = |row: usize| -> &Resource { rows.resource(row) };
    Some(match name {
        "severity_text" => texts(count, |row| Some(rows.severity_text(row))),
        "severity_number" => {
            let numbers = (0..count).map(|row| i64::from(rows.severity_number(row)));
            Arc::new(numbers.collect::<Int64Array>())
        }
        "service_name" => texts(count, |row| Some(&resource(row).service_name)),
        "body" => texts(count, |row| Some(rows.body(row))),
        "trace_id" => ids(count, |row| {
            let id = rows.trace_id(row);
            (id != [0; 16]).then(|| hex(&id))
        }),
        "span_id" => ids(count, |row| {
            let id = rows.span_id(row);
            (id != [0; 8]).then(|| hex(&id))
        }),
        "event_name" => texts(count, |row| non_empty(rows.event_name(row))),
        "scope_name" => texts(count, |row| Some(&scope(row).name)),
        "scope_version" => texts(count, |row| non_empty(&scope(row).version)),
        _ => return None,
    })
}

/// One attribute of each row, else of its resource.
fn key_column(rows: &dyn LogRows, count: usize, key: &str, data_type: &DataType) -> ArrayRef {
    let mut column = KeyColumn::new(data_type);
    for row in 0..count {
        let mut found = false;
        rows.attribute(row, key, &mut |value| {
            column.push(Some(value));
            found = true;
        });
        if !found {
            column.push(attributes::get(&rows.resource(row).attributes, key));
        }
    }
    column.finish()
}

fn times(times: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(times.collect::<TimestampNanosecondArray>().with_timezone("UTC"))
}

fn record_batch(arrays: Vec<(String, ArrayRef)>) -> io::Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(
        arrays.into_iter().map(|(name, array)| (name, array, true)),
    )
    .map_err(arrow_error)
}

fn hot_batch(batch: &LogBatch, wanted: &Wanted) -> io::Result<RecordBatch> {
    let count = batch.len();
    let mut arrays: Vec<(String, ArrayRef)> = Vec::new();
    for (name, data_type) in wanted {
        let array = match name.as_str() {
            "timestamp" => times(batch.rows.iter().map(|row| Some(row.time_ns as i64))),
            "observed_timestamp" => times(
                batch
                    .rows
                    .iter()
                    .map(|row| (row.observed_ns != 0).then_some(row.observed_ns as i64)),
            ),
            "flags" => {
                Arc::new(batch.rows.iter().map(|row| i64::from(row.flags)).collect::<Int64Array>())
            }
            "attributes" => {
                let lists = batch.attributes.iter();
                let texts = lists.map(|list| attributes::stored_json_object(list).to_string());
                Arc::new(StringArray::from_iter_values(texts))
            }
            "resource_attributes" => {
                let texts: Vec<String> =
                    batch.resources.iter().map(|r| public_json(&resource_json(r))).collect();
                let texts = batch.rows.iter().map(|row| &texts[row.resource as usize]);
                Arc::new(StringArray::from_iter_values(texts))
            }
            name => match shared_column(batch, count, name) {
                Some(array) => array,
                None => key_column(batch, count, name, data_type),
            },
        };
        arrays.push((name.clone(), array));
    }
    record_batch(arrays)
}

fn block_batch(
    rows: &BlockRows<'_>,
    texts: &GroupTexts<'_>,
    wanted: &Wanted,
) -> io::Result<RecordBatch> {
    let count = rows.block.rows;
    let column = |name: &str| {
        rows.batch.column_by_name(name).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("column {name} is missing"))
        })
    };
    let mut arrays: Vec<(String, ArrayRef)> = Vec::new();
    for (name, data_type) in wanted {
        let array: ArrayRef = match name.as_str() {
            "timestamp" | "body" => column(name)?.clone(),
            "observed_timestamp" => {
                let offsets = column("observed_offset_ns")?.as_primitive::<Int64Type>();
                let from = rows.times()?;
                times((0..count).map(|row| {
                    (!offsets.is_null(row)).then(|| from[row].wrapping_add(offsets.value(row)))
                }))
            }
            "flags" => {
                let flags = column("flags")?.as_primitive::<UInt32Type>().values();
                Arc::new(flags.iter().map(|flags| i64::from(*flags)).collect::<Int64Array>())
            }
            "attributes" => {
                let schema = rows.batch.schema();
                let reader = AttributeReader::new(&rows.batch, &schema);
                Arc::new(StringArray::from_iter_values((0..count).map(|row| reader.json(row))))
            }
            "resource_attributes" => {
                let groups = &texts.outline.groups.groups;
                let text =
                    |row| &texts.resources[groups[rows.group(row) as usize].resource as usize];
                Arc::new(StringArray::from_iter_values((0..count).map(text)))
            }
            name => match shared_column(rows, count, name) {
                Some(array) => array,
                None => typed_column(rows, name, data_type)
                    .unwrap_or_else(|| key_column(rows, count, name, data_type)),
            },
        };
        arrays.push((name.clone(), array));
    }
    record_batch(arrays)
}

/// The file's own column of a key, when every row has it in the asked type.
fn typed_column(rows: &BlockRows<'_>, key: &str, data_type: &DataType) -> Option<ArrayRef> {
    let column = rows.batch.column_by_name(&format!("{ATTRIBUTE_PREFIX}{key}"))?;
    (column.data_type() == data_type && column.null_count() == 0).then(|| column.clone())
}
