//! Spans as a table: the logical columns of SQL over hot batches and segments alike.

use super::batch::SpanBatch;
use super::hot::HotBatch;
use super::records::{events_json, hex, links_json};
use super::segment::{DictText, SpanSegment};
use super::store::SpanSnapshot;
use crate::attribute_columns::KeyColumn;
use crate::attributes;
use crate::columnar::{
    ATTRIBUTE_PREFIX, AttributeReader, KeyTypes, RowGroup, arrow_error, public_json, resource_json,
    scalar_at,
};
use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder,
    TimestampNanosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, UInt32Type,
};
use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// Columns of the table `spans`, see `docs/sql.md`: IDs are lower-case hex, attributes JSON text.
pub fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("trace_id", false),
        text("span_id", false),
        text("parent_span_id", true),
        Field::new("start_time", time.clone(), false),
        Field::new("end_time", time, false),
        Field::new("duration_ns", DataType::Int64, false),
        text("service_name", false),
        text("name", false),
        text("kind", false),
        text("status_code", false),
        text("status_message", true),
        text("scope_name", false),
        text("scope_version", true),
        text("attributes", false),
        text("resource_attributes", false),
        text("events", true),
        text("links", true),
        text("trace_state", true),
        Field::new("flags", DataType::Int64, false),
    ]))
}

/// Whether a name is a column of the table rather than an attribute key: segments have columns of their own that
/// are named neither.
fn is_fixed(name: &str) -> bool {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(schema);
    SCHEMA.field_with_name(name).is_ok()
}

/// `SpanKind` without its prefix; unknown numbers as they are.
pub fn kind_name(kind: i32) -> String {
    match kind {
        0 => "UNSPECIFIED".into(),
        1 => "INTERNAL".into(),
        2 => "SERVER".into(),
        3 => "CLIENT".into(),
        4 => "PRODUCER".into(),
        5 => "CONSUMER".into(),
        other => other.to_string(),
    }
}

/// `StatusCode` without its prefix; unknown numbers as they are.
pub fn status_name(status: i32) -> String {
    match status {
        0 => "UNSET".into(),
        1 => "OK".into(),
        2 => "ERROR".into(),
        other => other.to_string(),
    }
}

impl SpanSnapshot {
    /// Rows whose start may lie in `min_ns..=max_ns`, as batches of `columns`: names of [`schema`] or attribute keys
    /// (`keys` gives their types).
    pub fn record_batches(
        &self,
        columns: Vec<String>,
        keys: KeyTypes,
        min_ns: u64,
        max_ns: u64,
    ) -> impl Iterator<Item = io::Result<RecordBatch>> + Send + use<> {
        let wanted: Arc<Vec<(String, DataType)>> = {
            let fixed = schema();
            Arc::new(
                columns
                    .into_iter()
                    .map(|name| {
                        let data_type = match fixed.field_with_name(&name) {
                            Ok(field) => field.data_type().clone(),
                            Err(_) => keys.column_type(&name).unwrap_or(DataType::Utf8),
                        };
                        (name, data_type)
                    })
                    .collect(),
            )
        };
        let segments: Vec<Arc<SpanSegment>> = self
            .segments
            .iter()
            .filter(|s| s.meta.min_ns <= max_ns && s.meta.max_ns >= min_ns)
            .cloned()
            .collect();
        let hot: Vec<Arc<HotBatch>> =
            self.hot.iter().filter(|b| b.min_ns <= max_ns && b.max_ns >= min_ns).cloned().collect();
        let for_hot = wanted.clone();
        segments
            .into_iter()
            .flat_map(move |segment| segment_batches(&segment, wanted.clone(), min_ns, max_ns))
            .chain(hot.into_iter().map(move |batch| hot_batch(&batch, &for_hot)))
    }
}

fn hot_batch(batch: &SpanBatch, wanted: &[(String, DataType)]) -> io::Result<RecordBatch> {
    let rows = || 0..batch.len();
    let texts = |value: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
        Arc::new(rows().map(value).collect::<StringArray>())
    };
    let ints = |value: &dyn Fn(usize) -> i64| -> ArrayRef {
        Arc::new(rows().map(value).collect::<Int64Array>())
    };
    let times = |value: &dyn Fn(usize) -> u64| -> ArrayRef {
        let array: TimestampNanosecondArray = rows().map(|row| Some(value(row) as i64)).collect();
        Arc::new(array.with_timezone("UTC"))
    };
    let non_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let resources: Vec<String> =
        batch.resources.iter().map(|r| public_json(&resource_json(r))).collect();
    let arrays: Vec<(String, ArrayRef)> = wanted
        .iter()
        .map(|(name, data_type)| {
            let span = |row: usize| &batch.rows[row];
            let array = match name.as_str() {
                "trace_id" => texts(&|row| Some(hex(&span(row).trace_id))),
                "span_id" => texts(&|row| Some(hex(&span(row).span_id))),
                "parent_span_id" => texts(&|row| {
                    let parent = span(row).parent_span_id;
                    (parent != [0; 8]).then(|| hex(&parent))
                }),
                "start_time" => times(&|row| span(row).start_ns),
                "end_time" => times(&|row| span(row).end_ns),
                "duration_ns" => ints(&|row| span(row).duration_ns() as i64),
                "service_name" => texts(&|row| Some(batch.resource(row).service_name.to_string())),
                "name" => texts(&|row| Some(batch.name.get(row).to_string())),
                "kind" => texts(&|row| Some(kind_name(span(row).kind))),
                "status_code" => texts(&|row| Some(status_name(span(row).status_code))),
                "status_message" => texts(&|row| non_empty(batch.status_message.text(row))),
                "scope_name" => texts(&|row| Some(batch.scope(row).name.to_string())),
                "scope_version" => texts(&|row| non_empty(&batch.scope(row).version)),
                "attributes" => texts(&|row| {
                    Some(attributes::stored_json_object(batch.attributes.get(row)).to_string())
                }),
                "resource_attributes" => {
                    texts(&|row| Some(resources[span(row).resource as usize].clone()))
                }
                "events" => texts(&|row| events_json(batch.events.get(row))),
                "links" => texts(&|row| links_json(batch.links.get(row))),
                "trace_state" => texts(&|row| non_empty(batch.trace_state.text(row))),
                "flags" => ints(&|row| i64::from(span(row).flags)),
                key => {
                    let mut column = KeyColumn::new(data_type);
                    for row in rows() {
                        column.push(
                            attributes::get(batch.attributes.get(row), key)
                                .or_else(|| attributes::get(&batch.resource(row).attributes, key)),
                        );
                    }
                    column.finish()
                }
            };
            (name.clone(), array)
        })
        .collect();
    RecordBatch::try_from_iter_with_nullable(arrays.into_iter().map(|(n, a)| (n, a, true)))
        .map_err(arrow_error)
}

type BoxedBatches = Box<dyn Iterator<Item = io::Result<RecordBatch>> + Send>;

fn segment_batches(
    segment: &SpanSegment,
    wanted: Arc<Vec<(String, DataType)>>,
    min_ns: u64,
    max_ns: u64,
) -> BoxedBatches {
    let footer = match segment.file.footer() {
        Ok(footer) => footer,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    // A whole attribute object needs every typed column; a single key only its own and the rest.
    let mut physical: Vec<String> = Vec::new();
    for (name, _) in wanted.iter() {
        match name.as_str() {
            "end_time" => physical.extend(["start_time".into(), "duration_ns".into()]),
            "scope_name" | "scope_version" => physical.push("scope".into()),
            "resource_attributes" => physical.push("resource".into()),
            "attributes" => {
                physical.push("attributes".into());
                physical.extend(
                    footer.attribute_keys().map(|(key, _)| format!("{ATTRIBUTE_PREFIX}{key}")),
                );
            }
            fixed if is_fixed(fixed) => physical.push(fixed.to_owned()),
            key => physical.extend([
                format!("{ATTRIBUTE_PREFIX}{key}"),
                "attributes".into(),
                "resource".into(),
            ]),
        }
    }
    physical.sort_unstable();
    physical.dedup();
    let columns: Vec<&str> = physical.iter().map(String::as_str).collect();
    let within = |group: &RowGroup<'_>| match group.bounds("start_time") {
        Some((first_ns, last_ns)) => first_ns <= max_ns && last_ns >= min_ns,
        None => true,
    };
    let rows: Vec<Range<usize>> = footer.groups().filter(within).map(|group| group.rows).collect();
    match footer.read(&columns, Some(&rows)) {
        Err(error) => Box::new(std::iter::once(Err(error))),
        Ok(reader) => {
            Box::new(reader.map(move |batch| logical_batch(&batch.map_err(arrow_error)?, &wanted)))
        }
    }
}

fn logical_batch(batch: &RecordBatch, wanted: &[(String, DataType)]) -> io::Result<RecordBatch> {
    let schema = batch.schema();
    let attributes_of = AttributeReader::new(batch, &schema);
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("column {name} is missing"))
        })
    };
    let rows = || 0..batch.num_rows();
    let mut arrays: Vec<(String, ArrayRef)> = Vec::new();
    for (name, data_type) in wanted {
        let array: ArrayRef = match name.as_str() {
            "trace_id" | "span_id" | "parent_span_id" => {
                let ids = column(name)?.as_fixed_size_binary();
                let mut out = StringBuilder::with_capacity(ids.len(), ids.len() * 32);
                for row in rows() {
                    out.append_option((!ids.is_null(row)).then(|| hex(ids.value(row))));
                }
                Arc::new(out.finish())
            }
            "end_time" => {
                let starts = cast(column("start_time")?, &DataType::Int64).map_err(arrow_error)?;
                let starts = starts.as_primitive::<Int64Type>();
                let durations = column("duration_ns")?.as_primitive::<Int64Type>();
                let ends: TimestampNanosecondArray = rows()
                    .map(|row| Some(starts.value(row).wrapping_add(durations.value(row))))
                    .collect();
                Arc::new(ends.with_timezone("UTC"))
            }
            "duration_ns" => {
                let durations = column(name)?.as_primitive::<Int64Type>();
                Arc::new(rows().map(|row| durations.value(row).max(0)).collect::<Int64Array>())
            }
            "kind" | "status_code" => {
                let codes = column(name)?.as_primitive::<Int32Type>();
                let named = if name == "kind" { kind_name } else { status_name };
                Arc::new(rows().map(|row| Some(named(codes.value(row)))).collect::<StringArray>())
            }
            "flags" => {
                let flags = column(name)?.as_primitive::<UInt32Type>();
                Arc::new(rows().map(|row| i64::from(flags.value(row))).collect::<Int64Array>())
            }
            "scope_name" | "scope_version" => {
                let key = if name == "scope_name" { "$name" } else { "$version" };
                per_code(column("scope")?, |text| {
                    let object: serde_json::Map<String, serde_json::Value> =
                        serde_json::from_str(text).unwrap_or_default();
                    let word = object.get(key).and_then(|v| v.as_str()).map(str::to_owned);
                    if key == "$name" { Some(word.unwrap_or_default()) } else { word }
                })?
            }
            "resource_attributes" => per_code(column("resource")?, |text| Some(public_json(text)))?,
            "attributes" => {
                Arc::new(rows().map(|row| Some(attributes_of.json(row))).collect::<StringArray>())
            }
            fixed if is_fixed(fixed) => {
                let array = column(fixed)?;
                if array.data_type() == data_type {
                    array.clone()
                } else {
                    cast(array, data_type).map_err(arrow_error)?
                }
            }
            key => key_column(batch, &attributes_of, key, data_type)?,
        };
        arrays.push((name.clone(), array));
    }
    RecordBatch::try_from_iter_with_nullable(arrays.into_iter().map(|(n, a)| (n, a, true)))
        .map_err(arrow_error)
}

/// One attribute of each row: from its typed column, else from the rest, else from the resource.
fn key_column(
    batch: &RecordBatch,
    attributes_of: &AttributeReader<'_>,
    key: &str,
    data_type: &DataType,
) -> io::Result<ArrayRef> {
    let typed = batch.column_by_name(&format!("{ATTRIBUTE_PREFIX}{key}"));
    if let Some(typed) = typed
        && typed.data_type() == data_type
        && typed.null_count() == 0
    {
        return Ok(typed.clone());
    }
    let resource = batch.column_by_name("resource").map(|column| (column, DictText::new(column)));
    let mut lists: rustc_hash::FxHashMap<i32, Vec<u8>> = rustc_hash::FxHashMap::default();
    let mut out = KeyColumn::new(data_type);
    for row in 0..batch.num_rows() {
        if let Some(value) = typed.and_then(|column| scalar_at(column, row)) {
            out.push(Some(value));
            continue;
        }
        let mut list = Vec::new();
        attributes_of.put_rest(row, &mut list);
        if let Some(value) = attributes::get(&list, key) {
            out.push(Some(value));
            continue;
        }
        let Some((_, Ok(texts))) = &resource else {
            out.push(None);
            continue;
        };
        let list = lists.entry(texts.code(row)).or_insert_with(|| {
            let object = serde_json::from_str(texts.get(row)).unwrap_or_default();
            let mut list = Vec::new();
            attributes::put_stored_json_object(&mut list, &object);
            list
        });
        out.push(attributes::get(list, key));
    }
    Ok(out.finish())
}

/// Text made once per distinct value of a dictionary column.
fn per_code(column: &ArrayRef, make: impl Fn(&str) -> Option<String>) -> io::Result<ArrayRef> {
    let texts = DictText::new(column)?;
    let mut made: rustc_hash::FxHashMap<i32, Option<String>> = rustc_hash::FxHashMap::default();
    let mut out = StringBuilder::new();
    for row in 0..column.len() {
        let text = made.entry(texts.code(row)).or_insert_with(|| make(texts.get(row)));
        out.append_option(text.as_deref());
    }
    Ok(Arc::new(out.finish()))
}
