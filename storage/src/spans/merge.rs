//! Compaction: segments of one partition become one, row group by row group.
//!
//! Row groups that are large enough are copied as they stand, without being decoded; small ones are read, put together
//! and encoded anew. So a merge costs little more than the copying, and holds no more than one row group in memory.
//! Attribute columns are those of all inputs; where inputs disagree on a key's type, the values of the rarer type go
//! to the rest.

use super::file::SegmentWriter;
use super::index::Entry;
use super::names::{NAMES_TEXT, Names};
use super::segment::SpanSegment;
use crate::attributes;
use crate::columnar::{
    ATTRIBUTE_PREFIX, COLUMNS_MAX, Footer, GROUP_ROWS, KeyTypes, arrow_error, scalar_at,
};
use crate::segment::{SegmentDir, SegmentMeta};
use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder, UInt32Array, new_null_array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Sizes of row groups that a merge works with.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Groups of at least so many rows are copied.
    pub copied_rows: usize,
    /// Smaller ones are put together until they have so many.
    pub group_rows: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { copied_rows: GROUP_ROWS / 2, group_rows: GROUP_ROWS }
    }
}

/// A row group of an input.
struct Piece {
    input: usize,
    group: usize,
    rows: Range<usize>,
    first_ns: u64,
}

/// Merges segments of one partition.
pub fn merge(
    dir: &SegmentDir,
    inputs: &[Arc<SpanSegment>],
    level: u32,
    sizes: Sizes,
) -> io::Result<SegmentMeta> {
    let first = inputs.first().ok_or_else(|| io::Error::other("nothing to merge"))?;
    let files: Vec<Arc<Footer>> =
        inputs.iter().map(|input| input.file.footer()).collect::<io::Result<_>>()?;
    let schema = schema_of(inputs, &files)?;
    let (mut keys, mut names) = (KeyTypes::default(), Names::default());
    for file in &files {
        keys.merge(&file.key_types());
        names.merge(&Names::from_text(file.text(NAMES_TEXT).unwrap_or_default()));
    }
    let partition_ns = first.meta.partition_ns;
    let mut writer = SegmentWriter::create(dir, partition_ns, schema.clone(), &keys, &names)?;
    let mut entries: Vec<Option<Vec<Entry>>> = vec![None; inputs.len()];
    let mut small: Vec<Piece> = Vec::new();
    for piece in pieces(inputs, &files) {
        let input = &inputs[piece.input];
        if piece.rows.len() >= sizes.copied_rows && fits(files[piece.input].schema(), &schema) {
            let entries = match &entries[piece.input] {
                Some(entries) => entries,
                None => entries[piece.input].insert(input.entries()?),
            };
            writer.copy(input, piece.group, entries)?;
            continue;
        }
        small.push(piece);
        if small.iter().map(|piece| piece.rows.len()).sum::<usize>() >= sizes.group_rows {
            writer.write(&together(&files, &schema, &small)?)?;
            small.clear();
        }
    }
    if !small.is_empty() {
        writer.write(&together(&files, &schema, &small)?)?;
    }
    writer.finish(level)
}

/// All row groups in order of time.
fn pieces(inputs: &[Arc<SpanSegment>], files: &[Arc<Footer>]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (input, (segment, file)) in inputs.iter().zip(files).enumerate() {
        for (group, slice) in file.groups().enumerate() {
            let bounds = slice.bounds("start_time");
            let first_ns = bounds.map_or(segment.meta.min_ns, |(first_ns, _)| first_ns);
            pieces.push(Piece { input, group, rows: slice.rows, first_ns });
        }
    }
    pieces.sort_by_key(|piece| (piece.first_ns, piece.input, piece.group));
    pieces
}

/// The columns of the merged segment: the fixed ones, then for each key the type that most values have.
fn schema_of(inputs: &[Arc<SpanSegment>], files: &[Arc<Footer>]) -> io::Result<SchemaRef> {
    let fixed = |schema: &Schema| -> Vec<Arc<Field>> {
        let fields = schema.fields().iter();
        fields.filter(|field| !field.name().starts_with(ATTRIBUTE_PREFIX)).cloned().collect()
    };
    let mut fields = fixed(files[0].schema());
    // Values by key, then by type.
    let mut values: BTreeMap<&str, Vec<(DataType, u64)>> = BTreeMap::new();
    for (input, file) in inputs.iter().zip(files) {
        if fixed(file.schema()) != fields {
            let what = format!("segment {} has other columns than the others", input.meta.id);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        for (key, scalar) in file.attribute_keys() {
            let name = format!("{ATTRIBUTE_PREFIX}{key}");
            let count: u64 = (file.groups())
                .map(|group| group.values(&name).unwrap_or(group.rows.len() as u64))
                .sum();
            let types = values.entry(key).or_default();
            match types.iter_mut().find(|(data_type, _)| *data_type == scalar.arrow()) {
                Some((_, known)) => *known += count,
                None => types.push((scalar.arrow(), count)),
            }
        }
    }
    let mut chosen: Vec<(&str, DataType, u64)> = values
        .into_iter()
        .filter_map(|(key, types)| {
            let (data_type, count) = types.into_iter().max_by_key(|(_, count)| *count)?;
            Some((key, data_type, count))
        })
        .collect();
    chosen.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    chosen.truncate(COLUMNS_MAX);
    chosen.sort_by_key(|(key, _, _)| *key);
    fields.extend(chosen.into_iter().map(|(key, data_type, _)| {
        Arc::new(Field::new(format!("{ATTRIBUTE_PREFIX}{key}"), data_type, true))
    }));
    Ok(Arc::new(Schema::new(fields)))
}

/// Whether all columns of a file are columns of the merged one.
fn fits(file: &Schema, merged: &Schema) -> bool {
    file.fields().iter().all(|field| {
        merged.field_with_name(field.name()).is_ok_and(|m| m.data_type() == field.data_type())
    })
}

/// Rows of several groups as one, in order.
fn together(
    files: &[Arc<Footer>],
    schema: &SchemaRef,
    pieces: &[Piece],
) -> io::Result<RecordBatch> {
    let mut batches: Vec<RecordBatch> = Vec::new();
    for piece in pieces {
        let file = &files[piece.input];
        let columns: Vec<&str> =
            file.schema().fields().iter().map(|field| field.name().as_str()).collect();
        for batch in file.read(&columns, Some(std::slice::from_ref(&piece.rows)))? {
            batches.push(conform(&batch.map_err(arrow_error)?, schema)?);
        }
    }
    let batch = concat_batches(schema, &batches).map_err(arrow_error)?;
    drop(batches);
    let order = UInt32Array::from(order_of(&batch)?);
    take_record_batch(&batch, &order).map_err(arrow_error)
}

/// Row numbers grouped by trace, traces in order of their first start.
fn order_of(batch: &RecordBatch) -> io::Result<Vec<u32>> {
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "column is missing");
    let ids = batch.column_by_name("trace_id").ok_or_else(missing)?.as_fixed_size_binary();
    let starts = batch.column_by_name("start_time").ok_or_else(missing)?;
    let starts = starts.as_primitive::<TimestampNanosecondType>().values();
    let mut first: FxHashMap<&[u8], i64> = FxHashMap::default();
    for (row, start) in starts.iter().enumerate() {
        let known = first.entry(ids.value(row)).or_insert(*start);
        *known = (*known).min(*start);
    }
    let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
    order.sort_by_cached_key(|row| {
        let (id, start) = (ids.value(*row as usize), starts[*row as usize]);
        (first[id], id, start)
    });
    Ok(order)
}

/// The same rows with the columns of the merged segment.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> io::Result<RecordBatch> {
    let file = batch.schema();
    // Columns whose values go to the rest.
    let demoted: Vec<(&str, &ArrayRef)> = (file.fields().iter().zip(batch.columns()))
        .filter(|(field, _)| {
            let merged = schema.field_with_name(field.name());
            merged.map_or(true, |merged| merged.data_type() != field.data_type())
        })
        .filter_map(|(field, column)| Some((field.name().strip_prefix(ATTRIBUTE_PREFIX)?, column)))
        .collect();
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if field.name() == "attributes" && !demoted.is_empty() => {
            demote(column, &demoted)
        }
        Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
        _ => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    let columns = columns.collect::<io::Result<Vec<ArrayRef>>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(arrow_error)
}

/// Adds the values of columns to the stored-JSON objects of the rest.
fn demote(rest: &ArrayRef, columns: &[(&str, &ArrayRef)]) -> io::Result<ArrayRef> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let rest: &StringArray =
        rest.as_string_opt().ok_or_else(|| wrong("column attributes is no text"))?;
    let mut out = StringBuilder::new();
    for row in 0..rest.len() {
        let text = (!rest.is_null(row)).then(|| rest.value(row));
        if columns.iter().all(|(_, column)| column.is_null(row)) {
            out.append_option(text);
            continue;
        }
        let mut object: Map<String, Json> = match text {
            Some(text) => serde_json::from_str(text)?,
            None => Map::new(),
        };
        for (key, column) in columns {
            if let Some(value) = scalar_at(column, row) {
                object.insert(attributes::escape_key(key), attributes::stored_json(value));
            }
        }
        out.append_value(Json::Object(object).to_string());
    }
    Ok(Arc::new(out.finish()))
}
