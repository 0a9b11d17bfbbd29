//! Reading a sealed span segment: rows grouped by trace, groups in order of their first start.
//!
//! `<id>.parquet` and `<id>.tix`; columns in `storage/FORMAT.md`. The order keeps time nearly sorted, so deltas are
//! small, and makes a trace one run of rows, so that reading it touches a page or two per column.

use super::batch::SpanFields;
use super::index::{self, Entry, TraceIndex};
use super::records;
use super::row::Span;
use crate::bloom::Room;
use crate::check::is_damage;
use crate::columnar::{self, AttributeReader, ParquetFile};
use crate::resource::{Interner, Resource, Scope};
use crate::segment::{SegmentDir, SegmentMeta};
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType, UInt32Type};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

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

/// An open segment.
#[derive(Debug)]
pub struct SpanSegment {
    pub meta: SegmentMeta,
    pub file: Arc<ParquetFile>,
    /// Replaced when it turns out to be damaged.
    index: RwLock<Arc<TraceIndex>>,
}

/// The Parquet file, if it holds as many rows as the manifest says.
fn open_rows_file(dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Arc<ParquetFile>> {
    let file = Arc::new(ParquetFile::open(&dir.file_path(meta, "parquet"))?);
    if file.rows() as u64 != meta.rows {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} rows, the manifest says {}", file.rows(), meta.rows),
        ));
    }
    Ok(file)
}

impl SpanSegment {
    /// Opens a segment; fails when the Parquet file is missing, damaged at its footer, or holds another number of
    /// rows. A missing or damaged trace index is made anew, in memory.
    ///
    /// * `room`: for what trace indexes keep in memory.
    pub fn open(dir: &SegmentDir, meta: &SegmentMeta, room: &Arc<Room>) -> io::Result<Self> {
        let file = open_rows_file(dir, meta)?;
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

    /// Opens the rows alone; what lies beside them as an index is not looked at, but made anew in memory.
    pub fn open_rows(dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Self> {
        let file = open_rows_file(dir, meta)?;
        let index = index_of(&file)?;
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

    /// All entries of the trace index, sorted by row.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let index = self.index.read().clone();
        let mut entries = match index.entries() {
            Err(error) if is_damage(&error) => index_of(&self.file)?.entries()?,
            outcome => outcome?,
        };
        entries.sort_unstable_by_key(|entry| entry.first_row);
        Ok(entries)
    }

    /// Where the trace index on disk or the manifest say something else than the rows; one line each.
    pub fn examine(&self, dir: &SegmentDir) -> io::Result<Vec<String>> {
        let mut faults = Vec::new();
        let on_disk =
            TraceIndex::open(&dir.file_path(&self.meta, INDEX), self.meta.rows, &Arc::default())
                .and_then(|index| index.entries());
        match on_disk {
            // Merged rows of one trace may come in several runs, and the index may cut one where a row group ends.
            Ok(entries) if joined(entries.clone()) == joined(index_of(&self.file)?.entries()?) => {}
            Ok(_) => faults.push("the trace index does not lead to the rows".to_owned()),
            Err(error) => faults.push(error.to_string()),
        }
        let (mut min_ns, mut max_ns) = (u64::MAX, 0);
        for batch in self.file.read(&["start_time"], None)? {
            let batch = batch.map_err(columnar::arrow_error)?;
            for start in batch.column(0).as_primitive::<TimestampNanosecondType>().values() {
                min_ns = min_ns.min(*start as u64);
                max_ns = max_ns.max(*start as u64);
            }
        }
        if min_ns < self.meta.min_ns || max_ns > self.meta.max_ns {
            faults.push(format!(
                "starts from {min_ns} to {max_ns}, the manifest says {} to {}",
                self.meta.min_ns, self.meta.max_ns
            ));
        }
        Ok(faults)
    }

    /// Full rows; `rows` as for [`ParquetFile::read`].
    pub fn spans(
        &self,
        rows: Option<&[Range<usize>]>,
        interner: &Interner,
        texts: &ParsedTexts,
    ) -> io::Result<Vec<Span>> {
        let footer = self.file.footer()?;
        let typed = footer.attribute_keys();
        let columns: Vec<String> = (ROW_COLUMNS.into_iter().chain(["attributes"]))
            .map(str::to_owned)
            .chain(typed.map(|(key, _)| format!("{}{key}", columnar::ATTRIBUTE_PREFIX)))
            .collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut spans = Vec::new();
        if let Some(rows) = rows {
            for batch in footer.read_few(&columns, rows)? {
                read_rows(&batch, interner, texts, &mut spans)?;
            }
            return Ok(spans);
        }
        for batch in footer.read(&columns, None)? {
            read_rows(&batch.map_err(columnar::arrow_error)?, interner, texts, &mut spans)?;
        }
        Ok(spans)
    }
}

/// Entries by row, those of one trace that touch as one.
fn joined(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_unstable_by_key(|entry| entry.first_row);
    entries.dedup_by(|next, entry| {
        let touch = next.hash == entry.hash && next.first_row == entry.first_row + entry.rows;
        entry.rows += if touch { next.rows } else { 0 };
        touch
    });
    entries
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

/// Resources and scopes by the text that segments hold: parsing twenty attributes takes longer than reading a span.
#[derive(Debug, Default)]
pub struct ParsedTexts {
    resources: Mutex<FxHashMap<u128, Arc<Resource>>>,
    scopes: Mutex<FxHashMap<u128, Arc<Scope>>>,
}

/// Texts remembered; with 20 attributes each about 8 MiB.
const PARSED_MAX: usize = 4096;

impl ParsedTexts {
    fn resource(&self, text: &str, interner: &Interner) -> Arc<Resource> {
        parsed(&self.resources, text, || columnar::resource_from_json(text, interner))
    }

    fn scope(&self, text: &str, interner: &Interner) -> Arc<Scope> {
        parsed(&self.scopes, text, || columnar::scope_from_json(text, interner))
    }
}

fn parsed<T>(
    known: &Mutex<FxHashMap<u128, Arc<T>>>,
    text: &str,
    parse: impl FnOnce() -> Arc<T>,
) -> Arc<T> {
    let hash = xxh3_128(text.as_bytes());
    if let Some(known) = known.lock().get(&hash) {
        return known.clone();
    }
    let fresh = parse();
    let mut known = known.lock();
    if known.len() >= PARSED_MAX {
        known.clear();
    }
    known.insert(hash, fresh.clone());
    fresh
}

/// Names, resources and scopes by their codes in a batch.
type ByCode = (FxHashMap<i32, Arc<str>>, FxHashMap<i32, Arc<Resource>>, FxHashMap<i32, Arc<Scope>>);

fn read_rows(
    batch: &RecordBatch,
    interner: &Interner,
    texts: &ParsedTexts,
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
    let mut by_code: ByCode = Default::default();
    for row in 0..batch.num_rows() {
        let start_ns = starts.value(row) as u64;
        let name =
            (by_code.0.entry(names.code(row))).or_insert_with(|| names.get(row).into()).clone();
        let resource = (by_code.1.entry(resources.code(row)))
            .or_insert_with(|| texts.resource(resources.get(row), interner))
            .clone();
        let scope = (by_code.2.entry(scopes.code(row)))
            .or_insert_with(|| texts.scope(scopes.get(row), interner))
            .clone();
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
