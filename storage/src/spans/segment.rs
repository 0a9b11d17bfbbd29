//! A sealed span segment: rows grouped by trace, groups in order of their first start.
//!
//! `<id>.parquet` and `<id>.tix`; columns in `storage/FORMAT.md`. The order keeps time nearly sorted, so deltas are
//! small, and makes a trace one run of rows, so that reading it touches a page or two per column.

use super::batch::{SpanBatch, SpanFields};
use super::filter::Room;
use super::index::{self, TraceIndex};
use super::names::{NAMES_TEXT, Names};
use super::records;
use super::row::Span;
use crate::columnar::{self, AttributeColumns, AttributeReader, KeyTypes, ParquetFile};
use crate::resource::{Interner, Resource, Scope};
use crate::segment::{SegmentDir, SegmentMeta, partition_of};
use crate::signal::Signal;
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, Int32Array, Int64Array, RecordBatch,
    StringBuilder, TimestampNanosecondArray, UInt32Array,
};
use arrow::datatypes::{Field, Int32Type, Int64Type, Schema, TimestampNanosecondType, UInt32Type};
use parquet::basic::Encoding;
use parking_lot::RwLock;
use parquet::schema::types::ColumnPath;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Extension of the trace index.
pub const INDEX: &str = "tix";

/// Columns that a full row is read from; the attribute columns come on top.
const ROW_COLUMNS: [&str; 16] = [
    "trace_id",
    "span_id",
    "parent_span_id",
    "start_time",
    "duration_ns",
    "name",
    "kind",
    "status_code",
    "status_message",
    "trace_state",
    "flags",
    "dropped",
    "resource",
    "scope",
    "events",
    "links",
];

/// Writes batches as segments, one per time partition of the spans' starts.
pub fn write(
    dir: &SegmentDir,
    batches: &[Arc<SpanBatch>],
    level: u32,
) -> io::Result<Vec<SegmentMeta>> {
    let mut partitions: BTreeMap<u64, Vec<(u32, u32)>> = BTreeMap::new();
    for (b, batch) in batches.iter().enumerate() {
        for (r, row) in batch.rows.iter().enumerate() {
            partitions.entry(partition_of(row.start_ns)).or_default().push((b as u32, r as u32));
        }
    }
    partitions
        .into_iter()
        .map(|(partition_ns, rows)| write_partition(dir, batches, partition_ns, rows, level))
        .collect()
}

fn write_partition(
    dir: &SegmentDir,
    batches: &[Arc<SpanBatch>],
    partition_ns: u64,
    mut rows: Vec<(u32, u32)>,
    level: u32,
) -> io::Result<SegmentMeta> {
    let at = |(b, r): (u32, u32)| (&*batches[b as usize], r as usize);
    let fields = |place: (u32, u32)| {
        let (batch, row) = at(place);
        &batch.rows[row]
    };
    let mut first: FxHashMap<[u8; 16], u64> = FxHashMap::default();
    for place in &rows {
        let span = fields(*place);
        let start = first.entry(span.trace_id).or_insert(span.start_ns);
        *start = span.start_ns.min(*start);
    }
    rows.sort_by_cached_key(|place| {
        let span = fields(*place);
        (first[&span.trace_id], span.trace_id, span.start_ns)
    });

    let spans = || rows.iter().map(|place| at(*place));
    let mut trace_ids = FixedSizeBinaryBuilder::with_capacity(rows.len(), 16);
    let mut span_ids = FixedSizeBinaryBuilder::with_capacity(rows.len(), 8);
    let mut parents = FixedSizeBinaryBuilder::with_capacity(rows.len(), 8);
    let [mut message, mut trace_state, mut dropped, mut events, mut links] =
        [(); 5].map(|()| StringBuilder::new());
    let mut attributes =
        AttributeColumns::choose(rows.len(), spans().map(|(batch, row)| batch.attributes.get(row)));
    let mut resources = Texts::default();
    let mut scopes = Texts::default();
    let mut services = Texts::default();
    let mut names = Texts::default();
    for (batch, row) in spans() {
        let span = &batch.rows[row];
        trace_ids.append_value(span.trace_id).map_err(columnar::arrow_error)?;
        span_ids.append_value(span.span_id).map_err(columnar::arrow_error)?;
        if span.parent_span_id == [0; 8] {
            parents.append_null();
        } else {
            parents.append_value(span.parent_span_id).map_err(columnar::arrow_error)?;
        }
        append_text(&mut message, batch.status_message.text(row));
        append_text(&mut trace_state, batch.trace_state.text(row));
        dropped.append_option(
            (span.dropped != [0; 3])
                .then(|| format!("[{},{},{}]", span.dropped[0], span.dropped[1], span.dropped[2])),
        );
        events.append_option(records::events_json(batch.events.get(row)));
        links.append_option(records::links_json(batch.links.get(row)));
        attributes.push(batch.attributes.get(row));
        let resource = batch.resource(row);
        resources.push(Arc::as_ptr(resource) as usize, || columnar::resource_json(resource));
        services.push(Arc::as_ptr(resource) as usize, || resource.service_name.to_string());
        let scope = batch.scope(row);
        scopes.push(Arc::as_ptr(scope) as usize, || columnar::scope_json(scope));
        let name = batch.name.get(row);
        names.push(Arc::as_ptr(name).cast::<u8>() as usize, || name.to_string());
    }
    let each = |value: fn(&SpanFields) -> i64| -> Int64Array {
        spans().map(|(batch, row)| value(&batch.rows[row])).collect()
    };
    let int32 = |value: fn(&SpanFields) -> i32| -> Int32Array {
        spans().map(|(batch, row)| value(&batch.rows[row])).collect()
    };
    let starts: TimestampNanosecondArray =
        spans().map(|(batch, row)| Some(batch.rows[row].start_ns as i64)).collect();
    let flags: UInt32Array = spans().map(|(batch, row)| batch.rows[row].flags).collect();
    let text = |mut builder: StringBuilder| -> ArrayRef { Arc::new(builder.finish()) };
    let fixed: Vec<(&str, ArrayRef, bool)> = vec![
        ("trace_id", Arc::new(trace_ids.finish()), false),
        ("span_id", Arc::new(span_ids.finish()), false),
        ("parent_span_id", Arc::new(parents.finish()), true),
        ("start_time", Arc::new(starts.with_timezone("UTC")), false),
        // As sent, so negative when the end lies before the start.
        ("duration_ns", Arc::new(each(|s| s.end_ns.wrapping_sub(s.start_ns) as i64)), false),
        ("service_name", services.finish(), false),
        ("name", names.finish(), false),
        ("kind", Arc::new(int32(|s| s.kind)), false),
        ("status_code", Arc::new(int32(|s| s.status_code)), false),
        ("status_message", text(message), true),
        ("trace_state", text(trace_state), true),
        ("flags", Arc::new(flags), false),
        ("dropped", text(dropped), true),
        ("resource", resources.finish(), false),
        ("scope", scopes.finish(), false),
        ("events", text(events), true),
        ("links", text(links), true),
    ];
    let mut schema = Vec::new();
    let mut columns = Vec::new();
    for (name, array, nullable) in fixed {
        schema.push(Field::new(name, array.data_type().clone(), nullable));
        columns.push(array);
    }
    for (field, array) in attributes.finish() {
        schema.push(field);
        columns.push(array);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(schema)), columns)
        .map_err(columnar::arrow_error)?;

    let mut keys = KeyTypes::default();
    let mut names = Names::default();
    for batch in batches {
        batch.attributes.iter().for_each(|list| keys.add_list(list));
        batch.resources.iter().for_each(|resource| keys.add_list(&resource.attributes));
        names.merge(&Names::of(batch));
    }
    let texts = vec![(columnar::KEYS_TEXT, keys.to_text()), (NAMES_TEXT, names.to_text())];
    let mut properties = columnar::with_text(columnar::properties(), texts);
    properties = columnar::delta(properties, "start_time");
    properties = columnar::delta(properties, "duration_ns");
    properties = columnar::plain(properties, "span_id");
    properties = columnar::plain(properties, "parent_span_id");
    let trace_id = ColumnPath::new(vec!["trace_id".to_owned()]);
    properties = properties
        .set_column_dictionary_enabled(trace_id.clone(), false)
        .set_column_encoding(trace_id, Encoding::DELTA_BYTE_ARRAY);
    let id = dir.allocate_id();
    let parquet = columnar::write(
        dir.create(Signal::Spans, partition_ns, id, "parquet")?,
        &[batch],
        properties.build(),
    )?;
    let mut file = dir.create(Signal::Spans, partition_ns, id, INDEX)?;
    let mut entries = Vec::new();
    index::entries_of(0, rows.iter().map(|place| fields(*place).trace_id), &mut entries);
    index::write(&mut file, entries, rows.len() as u32)?;
    let index = file.commit()?;
    let starts = || rows.iter().map(|place| fields(*place).start_ns);
    Ok(SegmentMeta {
        signal: Signal::Spans,
        id,
        partition_ns,
        min_ns: starts().min().unwrap_or(partition_ns),
        max_ns: starts().max().unwrap_or(partition_ns),
        rows: rows.len() as u64,
        level,
        files: vec![parquet, index],
    })
}

fn append_text(builder: &mut StringBuilder, text: &str) {
    builder.append_option((!text.is_empty()).then_some(text));
}

/// Builds a dictionary column from values that are known by address.
#[derive(Default)]
pub(crate) struct Texts {
    by_address: FxHashMap<usize, i32>,
    by_text: FxHashMap<String, i32>,
    values: Vec<String>,
    codes: Vec<Option<i32>>,
}

impl Texts {
    pub(crate) fn push(&mut self, address: usize, text: impl FnOnce() -> String) {
        let code = match self.by_address.get(&address) {
            Some(&code) => code,
            None => {
                let text = text();
                let code = *self.by_text.entry(text.clone()).or_insert_with(|| {
                    self.values.push(text);
                    (self.values.len() - 1) as i32
                });
                self.by_address.insert(address, code);
                code
            }
        };
        self.codes.push(Some(code));
    }

    pub(crate) fn finish(self) -> ArrayRef {
        columnar::dictionary(self.codes, self.values)
    }
}

/// An open segment.
#[derive(Debug)]
pub struct SpanSegment {
    pub meta: SegmentMeta,
    pub file: ParquetFile,
    /// Replaced when it turns out to be damaged.
    index: RwLock<Arc<TraceIndex>>,
}

impl SpanSegment {
    /// Opens a segment; fails when the Parquet file is missing, damaged at its footer, or holds another number of
    /// rows. A missing or damaged trace index is made anew, in memory.
    ///
    /// * `room`: for what trace indexes keep in memory.
    pub fn open(dir: &SegmentDir, meta: &SegmentMeta, room: &Arc<Room>) -> io::Result<Self> {
        let file = ParquetFile::open(&dir.file_path(meta, "parquet"))?;
        if file.rows() as u64 != meta.rows {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} rows, the manifest says {}", file.rows(), meta.rows),
            ));
        }
        let path = dir.file_path(meta, INDEX);
        let index = match TraceIndex::open(&path, meta.rows, room) {
            Ok(index) => index,
            Err(error) if is_damage(&error) => {
                tracing::error!(file = %path.display(), %error, "trace index made anew from the rows");
                index_of(&file)?
            }
            Err(error) => return Err(error),
        };
        Ok(Self { meta: meta.clone(), file, index: RwLock::new(Arc::new(index)) })
    }

    /// Row ranges that may hold one of the traces, ascending and apart from each other.
    pub fn rows_of(&self, trace_ids: &[[u8; 16]]) -> io::Result<Vec<Range<usize>>> {
        let index = self.index.read().clone();
        match index.lookup(trace_ids) {
            Err(error) if is_damage(&error) => {
                tracing::error!(segment = self.meta.id, %error, "trace index made anew from the rows");
                let index = Arc::new(index_of(&self.file)?);
                *self.index.write() = index.clone();
                index.lookup(trace_ids)
            }
            outcome => outcome,
        }
    }

    /// Full rows; `rows` as for [`ParquetFile::read`].
    pub fn spans(
        &self,
        rows: Option<&[Range<usize>]>,
        interner: &Interner,
    ) -> io::Result<Vec<Span>> {
        let mut columns: Vec<&str> = ROW_COLUMNS.to_vec();
        columns.push("attributes");
        let keys: Vec<String> = self
            .file
            .attribute_keys()
            .map(|(key, _)| format!("{}{key}", columnar::ATTRIBUTE_PREFIX))
            .collect();
        columns.extend(keys.iter().map(String::as_str));
        let mut spans = Vec::new();
        let mut cache = RowCache::default();
        for batch in self.file.read(&columns, rows)? {
            let batch = batch.map_err(columnar::arrow_error)?;
            read_rows(&batch, interner, &mut cache, &mut spans)?;
        }
        Ok(spans)
    }
}

/// Whether an error says that the file is not what was written, rather than that it can't be read now.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
}

/// A trace index from the rows themselves.
fn index_of(file: &ParquetFile) -> io::Result<TraceIndex> {
    let mut entries = Vec::new();
    let mut row = 0;
    for batch in file.read(&["trace_id"], None)? {
        let batch = batch.map_err(columnar::arrow_error)?;
        let ids = batch.column_by_name("trace_id").and_then(|c| c.as_fixed_size_binary_opt());
        let ids = ids.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "column trace_id is missing")
        })?;
        let ids = (0..ids.len()).map(|i| ids.value(i).try_into().unwrap_or_default());
        index::entries_of(row, ids, &mut entries);
        row += batch.num_rows() as u32;
    }
    Ok(TraceIndex::in_memory(entries, row))
}

/// Resources and scopes by their text, so that each is parsed once per read.
#[derive(Default)]
struct RowCache {
    resources: FxHashMap<String, Arc<Resource>>,
    scopes: FxHashMap<String, Arc<Scope>>,
    names: FxHashMap<String, Arc<str>>,
}

fn read_rows(
    batch: &RecordBatch,
    interner: &Interner,
    cache: &mut RowCache,
    out: &mut Vec<Span>,
) -> io::Result<()> {
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("column {name} is missing"))
        })
    };
    let (trace_ids, span_ids, parents) =
        (column("trace_id")?, column("span_id")?, column("parent_span_id")?);
    let (trace_ids, span_ids, parents) = (
        trace_ids.as_fixed_size_binary(),
        span_ids.as_fixed_size_binary(),
        parents.as_fixed_size_binary(),
    );
    let starts = column("start_time")?.as_primitive::<TimestampNanosecondType>();
    let durations = column("duration_ns")?.as_primitive::<Int64Type>();
    let kinds = column("kind")?.as_primitive::<Int32Type>();
    let statuses = column("status_code")?.as_primitive::<Int32Type>();
    let flags = column("flags")?.as_primitive::<UInt32Type>();
    let names = DictText::new(column("name")?)?;
    let resources = DictText::new(column("resource")?)?;
    let scopes = DictText::new(column("scope")?)?;
    let messages = column("status_message")?.as_string::<i32>();
    let trace_states = column("trace_state")?.as_string::<i32>();
    let dropped = column("dropped")?.as_string::<i32>();
    let events = column("events")?.as_string::<i32>();
    let links = column("links")?.as_string::<i32>();
    let schema = batch.schema();
    let attributes = AttributeReader::new(batch, &schema);
    let text = |array: &arrow::array::StringArray, row: usize| {
        if array.is_null(row) { String::new() } else { array.value(row).to_owned() }
    };
    for row in 0..batch.num_rows() {
        let start_ns = starts.value(row) as u64;
        let (name, resource, scope) = (names.get(row), resources.get(row), scopes.get(row));
        let name = match cache.names.get(name) {
            Some(known) => known.clone(),
            None => cache.names.entry(name.to_owned()).or_insert(name.into()).clone(),
        };
        let resource = match cache.resources.get(resource) {
            Some(known) => known.clone(),
            None => {
                let parsed = columnar::resource_from_json(resource, interner);
                cache.resources.insert(resource.to_owned(), parsed.clone());
                parsed
            }
        };
        let scope = match cache.scopes.get(scope) {
            Some(known) => known.clone(),
            None => {
                let parsed = columnar::scope_from_json(scope, interner);
                cache.scopes.insert(scope.to_owned(), parsed.clone());
                parsed
            }
        };
        let mut list = Vec::new();
        attributes.put(row, &mut list);
        out.push(Span {
            fields: SpanFields {
                trace_id: trace_ids.value(row).try_into().unwrap_or_default(),
                span_id: span_ids.value(row).try_into().unwrap_or_default(),
                parent_span_id: if parents.is_null(row) {
                    [0; 8]
                } else {
                    parents.value(row).try_into().unwrap_or_default()
                },
                start_ns,
                end_ns: start_ns.wrapping_add(durations.value(row) as u64),
                kind: kinds.value(row),
                status_code: statuses.value(row),
                flags: flags.value(row),
                dropped: if dropped.is_null(row) {
                    [0; 3]
                } else {
                    serde_json::from_str(dropped.value(row)).unwrap_or_default()
                },
                resource: 0,
                scope: 0,
            },
            name,
            resource,
            scope,
            attributes: list,
            events: if events.is_null(row) {
                Vec::new()
            } else {
                records::events_from_json(events.value(row))
            },
            links: if links.is_null(row) {
                Vec::new()
            } else {
                records::links_from_json(links.value(row))
            },
            trace_state: text(trace_states, row),
            status_message: text(messages, row),
        });
    }
    Ok(())
}

/// Reads a dictionary text column.
pub(crate) struct DictText<'a> {
    keys: &'a Int32Array,
    values: &'a arrow::array::StringArray,
}

impl<'a> DictText<'a> {
    pub(crate) fn new(column: &'a ArrayRef) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a dictionary text column");
        let array = column.as_dictionary_opt::<Int32Type>().ok_or_else(wrong)?;
        let values = array.values().as_string_opt::<i32>().ok_or_else(wrong)?;
        Ok(Self { keys: array.keys(), values })
    }

    pub(crate) fn get(&self, row: usize) -> &'a str {
        if self.keys.is_null(row) { "" } else { self.values.value(self.keys.value(row) as usize) }
    }

    /// Code of a value, if the dictionary has it.
    pub(crate) fn code_of(&self, text: &str) -> Option<i32> {
        (0..self.values.len()).find(|i| self.values.value(*i) == text).map(|i| i as i32)
    }

    pub(crate) fn code(&self, row: usize) -> i32 {
        if self.keys.is_null(row) { -1 } else { self.keys.value(row) }
    }
}
