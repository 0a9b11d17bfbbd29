//! A sealed log segment, open for reading.

use super::batch::{LogBatch, LogFields};
use super::blocks::{BLOCK_ROWS, Block, Blocks};
use super::filter::{Field, LogFilter, LogRows};
use super::groups::{self, Groups};
use super::textindex::TextIndex;
use super::traceindex::{self, TraceIndex};
use super::write::{BLOCKS, TEXT_INDEX, TRACE_INDEX};
use crate::attributes::{self, Value};
use crate::bloom::Room;
use crate::check::is_damage;
use crate::columnar::{ATTRIBUTE_PREFIX, AttributeReader, ParquetFile, arrow_error, scalar_at};
use crate::kept::{HeapBytes, Kept};
use crate::resource::{Interner, Resource, Scope};
use crate::segment::{SegmentDir, SegmentMeta};
use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, TimestampNanosecondType, UInt32Type};
use roaring::RoaringBitmap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Columns that a whole row is read from; the attribute columns come on top, the rest is in the groups.
pub(super) const ROW_COLUMNS: [&str; 9] = [
    "timestamp",
    "observed_offset_ns",
    "body",
    "body_value",
    "trace_id",
    "span_id",
    "flags",
    "dropped_attributes_count",
    "attributes",
];

/// An open segment. Its groups and indexes are read when a query first needs them.
#[derive(Debug)]
pub struct LogSegment {
    pub meta: SegmentMeta,
    pub file: ParquetFile,
    interner: Arc<Interner>,
    blocks: PathBuf,
    text_index: PathBuf,
    trace_index: TraceIndex,
    outline: Kept<Outline>,
    text: Kept<TextIndex>,
}

/// What is known of a segment's rows without reading them.
#[derive(Debug)]
pub struct Outline {
    pub groups: Groups,
    pub blocks: Blocks,
    /// Rows of each group.
    pub group_rows: Vec<u64>,
}

impl LogSegment {
    /// Opens a segment; fails when a file is missing or has another size, or the Parquet footer is damaged or holds
    /// another number of rows.
    ///
    /// * `room`: for what trace indexes keep in memory.
    pub fn open(
        dir: &SegmentDir,
        meta: &SegmentMeta,
        interner: &Arc<Interner>,
        room: &Arc<Room>,
    ) -> io::Result<Self> {
        let damaged = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        for file in &meta.files {
            let bytes = std::fs::metadata(dir.file_path(meta, &file.extension))?.len();
            if bytes != file.bytes {
                let reason =
                    format!("{} is {bytes} bytes, should be {}", file.extension, file.bytes);
                return Err(damaged(reason));
            }
        }
        let file = ParquetFile::open(&dir.file_path(meta, "parquet"))?;
        if file.rows() as u64 != meta.rows {
            return Err(damaged(format!("{} rows, the manifest says {}", file.rows(), meta.rows)));
        }
        Ok(Self {
            meta: meta.clone(),
            file,
            interner: interner.clone(),
            blocks: dir.file_path(meta, BLOCKS),
            text_index: dir.file_path(meta, TEXT_INDEX),
            trace_index: TraceIndex::new(dir.file_path(meta, TRACE_INDEX), room.clone()),
            outline: Kept::new(),
            text: Kept::new(),
        })
    }

    /// Groups and blocks.
    pub fn outline(&self) -> io::Result<Arc<Outline>> {
        self.outline.get_or_read(|| {
            let (groups, blocks) = groups::read(File::open(&self.blocks)?, &self.interner)?;
            if blocks.rows() as u64 != self.meta.rows {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("block index of segment {} does not fit its rows", self.meta.id),
                ));
            }
            Ok(Outline::new(groups, blocks))
        })
    }

    fn text(&self) -> io::Result<Arc<TextIndex>> {
        self.text.get_or_read(|| TextIndex::open(&self.text_index))
    }

    /// Blocks that can hold rows of the trace that a filter asks for; `None` when it asks for none.
    pub fn blocks_with_trace(&self, filter: &LogFilter) -> io::Result<Option<RoaringBitmap>> {
        let Some(trace_id) = filter.required_trace() else { return Ok(None) };
        let found = match self.trace_index.lookup(&trace_id) {
            Err(error) if is_damage(&error) => {
                tracing::error!(segment = self.meta.id, %error, "trace index made anew from the rows");
                self.trace_index.replace(self.traces()?);
                self.trace_index.lookup(&trace_id)?
            }
            outcome => outcome?,
        };
        Ok(Some(found.into_iter().collect()))
    }

    /// Traces of all blocks, from the rows themselves.
    fn traces(&self) -> io::Result<Vec<traceindex::Pair>> {
        let mut pairs = Vec::new();
        for (block, batch) in
            (0..).zip(self.file.footer()?.read_by(&["trace_id"], None, BLOCK_ROWS)?)
        {
            let batch = batch.map_err(arrow_error)?;
            let ids = column(&batch, "trace_id")?.as_fixed_size_binary();
            let sent = (0..ids.len()).filter(|row| !ids.is_null(*row));
            pairs.extend(sent.map(|row| traceindex::pair(&id_at(ids, row), block)));
        }
        Ok(pairs)
    }

    /// Blocks that can hold rows which fit the filter but whose group does not decide it; `None` = all.
    ///
    /// * `with_trace`: see [`blocks_with_trace`](Self::blocks_with_trace).
    pub fn candidates(
        &self,
        filter: &LogFilter,
        with_trace: Option<RoaringBitmap>,
    ) -> io::Result<Option<RoaringBitmap>> {
        // A trace has so few blocks that their words need not be asked for.
        match with_trace {
            Some(blocks) => Ok(Some(blocks)),
            None => self.text()?.candidates(filter),
        }
    }

    /// Parquet columns that hold what a filter or a label looks at, beyond the group.
    pub fn columns_of(&self, filter: &LogFilter, columns: &mut Vec<String>) {
        filter.visit_fields(&mut |field| self.columns_of_field(field, columns));
    }

    pub fn columns_of_field(&self, field: &Field, columns: &mut Vec<String>) {
        match field {
            Field::Body => columns.push("body".into()),
            Field::TraceId => columns.push("trace_id".into()),
            Field::SpanId => columns.push("span_id".into()),
            Field::Attribute(key) => {
                columns.push(format!("{ATTRIBUTE_PREFIX}{key}"));
                columns.push("attributes".into());
            }
            _ => {}
        }
    }

    /// Streams blocks one by one.
    ///
    /// * `blocks`: ascending.
    pub fn read_blocks<'a>(
        &'a self,
        outline: &'a Outline,
        columns: &[String],
        blocks: &'a [usize],
    ) -> io::Result<impl Iterator<Item = io::Result<BlockRows<'a>>> + use<'a>> {
        let mut names: Vec<&str> = columns.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let ranges: Vec<Range<usize>> =
            blocks.iter().map(|block| outline.blocks.blocks[*block].row_range()).collect();
        // Only the last block is shorter, so each batch is a block.
        let reader = self.file.footer()?.read_by(&names, Some(&ranges), BLOCK_ROWS)?;
        Ok(reader.zip(blocks).map(move |(batch, block)| {
            BlockRows::new(outline, &outline.blocks.blocks[*block], batch.map_err(arrow_error)?)
        }))
    }

    /// Whole rows of a block.
    pub fn block(&self, block: &Block) -> io::Result<LogBatch> {
        let groups = self.outline()?.group_of_rows(block);
        self.whole_rows(&[block.row_range()], &groups)
    }

    /// Whole rows.
    ///
    /// * `wanted`: blocks by their number, ascending, with the positions of rows inside of each, ascending.
    pub fn rows(&self, wanted: &[(usize, Vec<u32>)]) -> io::Result<LogBatch> {
        let outline = self.outline()?;
        let (mut ranges, mut groups) = (Vec::new(), Vec::new());
        for (number, rows) in wanted {
            let block = &outline.blocks.blocks[*number];
            let of_rows = outline.group_of_rows(block);
            for row in rows {
                let at = block.first_row + *row as usize;
                ranges.push(at..at + 1);
                groups.push(of_rows[*row as usize]);
            }
        }
        self.whole_rows(&ranges, &groups)
    }

    /// * `groups`: of each row of the ranges.
    fn whole_rows(&self, ranges: &[Range<usize>], groups: &[u32]) -> io::Result<LogBatch> {
        let outline = self.outline()?;
        let footer = self.file.footer()?;
        let keys: Vec<String> =
            footer.attribute_keys().map(|(key, _)| format!("{ATTRIBUTE_PREFIX}{key}")).collect();
        let mut columns: Vec<&str> = ROW_COLUMNS.to_vec();
        columns.extend(keys.iter().map(String::as_str));
        let mut batch = LogBatch::default();
        let mut from = 0;
        for read in footer.read_by(&columns, Some(ranges), BLOCK_ROWS)? {
            let read = read.map_err(arrow_error)?;
            let to = from + read.num_rows();
            let groups = groups.get(from..to).ok_or_else(|| too_many_rows(self.meta.id))?;
            push_rows(&read, &outline.groups, groups, &mut batch)?;
            from = to;
        }
        batch.finish();
        Ok(batch)
    }
}

fn too_many_rows(id: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("segment {id} holds more rows than it says"))
}

impl HeapBytes for Outline {
    /// Resources and scopes are shared with other segments.
    fn heap_bytes(&self) -> usize {
        self.blocks.heap_bytes()
            + self.groups.heap_bytes()
            + self.group_rows.capacity() * size_of::<u64>()
    }
}

impl Outline {
    fn new(groups: Groups, blocks: Blocks) -> Self {
        let mut group_rows = vec![0; groups.groups.len()];
        for block in &blocks.blocks {
            for (group, rows) in blocks.runs(block) {
                group_rows[*group as usize] += u64::from(*rows);
            }
        }
        Self { groups, blocks, group_rows }
    }

    /// The group of each row of a block.
    pub fn group_of_rows(&self, block: &Block) -> Vec<u32> {
        let runs = self.blocks.runs(block).iter();
        let mut groups = Vec::with_capacity(block.rows);
        runs.for_each(|(group, rows)| groups.extend(std::iter::repeat_n(*group, *rows as usize)));
        groups
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> io::Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("column {name} is missing"))
    })
}

/// Appends rows as they were when they came in.
pub(super) fn push_rows(
    read: &RecordBatch,
    groups: &Groups,
    group_of_rows: &[u32],
    batch: &mut LogBatch,
) -> io::Result<()> {
    let times = column(read, "timestamp")?.as_primitive::<TimestampNanosecondType>();
    let offsets = column(read, "observed_offset_ns")?.as_primitive::<Int64Type>();
    let bodies = column(read, "body")?.as_string::<i32>();
    let body_values = column(read, "body_value")?.as_string::<i32>();
    let trace_ids = column(read, "trace_id")?.as_fixed_size_binary();
    let span_ids = column(read, "span_id")?.as_fixed_size_binary();
    let flags = column(read, "flags")?.as_primitive::<UInt32Type>();
    let dropped = column(read, "dropped_attributes_count")?.as_primitive::<UInt32Type>();
    let schema = read.schema();
    let attributes_of = AttributeReader::new(read, &schema);
    let mut message = Vec::new();
    for (row, group) in group_of_rows.iter().enumerate() {
        let group = &groups.groups[*group as usize];
        let time_ns = times.value(row) as u64;
        let fields = LogFields {
            time_ns,
            observed_ns: if offsets.is_null(row) {
                0
            } else {
                time_ns.wrapping_add(offsets.value(row) as u64)
            },
            trace_id: id_at(trace_ids, row),
            span_id: id_at(span_ids, row),
            severity_number: group.severity_number,
            flags: flags.value(row),
            dropped_attributes_count: dropped.value(row),
            resource: batch.resource_index(&groups.resources[group.resource as usize]),
            scope: batch.scope_index(&groups.scopes[group.scope as usize]),
        };
        attributes_of.put(row, batch.open_attributes());
        let body = if body_values.is_null(row) {
            Value::Str(bodies.value(row))
        } else {
            message.clear();
            let json = serde_json::from_str(body_values.value(row))?;
            attributes::put_stored_json(&mut message, &json);
            attributes::any_value(&message)
        };
        batch.push_row(
            &fields,
            body,
            &groups.severity_texts[group.severity_text as usize],
            &groups.event_names[group.event_name as usize],
        );
    }
    Ok(())
}

fn id_at<const N: usize>(ids: &FixedSizeBinaryArray, row: usize) -> [u8; N] {
    if ids.is_null(row) { [0; N] } else { ids.value(row).try_into().unwrap_or([0; N]) }
}

/// Rows of one block with the columns a query asked for. Fields whose column was not asked for read as absent.
pub struct BlockRows<'a> {
    pub block: &'a Block,
    /// The columns as read.
    pub batch: RecordBatch,
    groups: &'a Groups,
    group_of_rows: Vec<u32>,
    times: Option<ArrayRef>,
    body: Option<StringArray>,
    trace_ids: Option<FixedSizeBinaryArray>,
    span_ids: Option<FixedSizeBinaryArray>,
    rest: Option<StringArray>,
    typed: Vec<(String, ArrayRef)>,
}

impl<'a> BlockRows<'a> {
    fn new(outline: &'a Outline, block: &'a Block, batch: RecordBatch) -> io::Result<Self> {
        if batch.num_rows() != block.rows {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a block of {} rows reads as {}", block.rows, batch.num_rows()),
            ));
        }
        let named = |name: &str| batch.column_by_name(name);
        let typed = batch
            .schema()
            .fields()
            .iter()
            .zip(batch.columns())
            .filter_map(|(field, column)| {
                Some((field.name().strip_prefix(ATTRIBUTE_PREFIX)?.to_owned(), column.clone()))
            })
            .collect();
        Ok(Self {
            block,
            batch: batch.clone(),
            groups: &outline.groups,
            group_of_rows: outline.group_of_rows(block),
            times: named("timestamp").cloned(),
            body: named("body").and_then(|c| c.as_string_opt::<i32>()).cloned(),
            trace_ids: named("trace_id").and_then(|c| c.as_fixed_size_binary_opt()).cloned(),
            span_ids: named("span_id").and_then(|c| c.as_fixed_size_binary_opt()).cloned(),
            rest: named("attributes").and_then(|c| c.as_string_opt::<i32>()).cloned(),
            typed,
        })
    }

    /// Unix ns; the column must have been asked for.
    pub fn times(&self) -> io::Result<&[i64]> {
        let times = self
            .times
            .as_ref()
            .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>())
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "column timestamp is missing")
            })?;
        Ok(times.values())
    }

    pub fn group(&self, row: usize) -> u32 {
        self.group_of_rows[row]
    }
}

impl LogRows for BlockRows<'_> {
    fn severity_number(&self, row: usize) -> i32 {
        self.groups.groups[self.group_of_rows[row] as usize].severity_number
    }

    fn severity_text(&self, row: usize) -> &str {
        let group = &self.groups.groups[self.group_of_rows[row] as usize];
        &self.groups.severity_texts[group.severity_text as usize]
    }

    fn body(&self, row: usize) -> &str {
        self.body.as_ref().map_or("", |bodies| bodies.value(row))
    }

    fn trace_id(&self, row: usize) -> [u8; 16] {
        self.trace_ids.as_ref().map_or([0; 16], |ids| id_at(ids, row))
    }

    fn span_id(&self, row: usize) -> [u8; 8] {
        self.span_ids.as_ref().map_or([0; 8], |ids| id_at(ids, row))
    }

    fn event_name(&self, row: usize) -> &str {
        let group = &self.groups.groups[self.group_of_rows[row] as usize];
        &self.groups.event_names[group.event_name as usize]
    }

    fn resource(&self, row: usize) -> &Resource {
        let group = &self.groups.groups[self.group_of_rows[row] as usize];
        &self.groups.resources[group.resource as usize]
    }

    fn scope(&self, row: usize) -> &Scope {
        let group = &self.groups.groups[self.group_of_rows[row] as usize];
        &self.groups.scopes[group.scope as usize]
    }

    fn attribute(&self, row: usize, key: &str, visit: &mut dyn FnMut(Value<'_>)) {
        let typed = self.typed.iter().find(|(name, _)| name == key);
        if let Some(value) = typed.and_then(|(_, column)| scalar_at(column, row)) {
            return visit(value);
        }
        let Some(rest) = self.rest.as_ref().filter(|rest| !rest.is_null(row)) else { return };
        let text = rest.value(row);
        // JSON writes most keys as they are: text without the key can't hold it.
        let plain = !key.chars().any(|c| c == '"' || c == '\\' || c.is_control());
        if plain && memchr::memmem::find(text.as_bytes(), key.as_bytes()).is_none() {
            return;
        }
        let Ok(object) = serde_json::from_str(text) else { return };
        let mut list = Vec::new();
        attributes::put_stored_json_object(&mut list, &object);
        if let Some(value) = attributes::get(&list, key) {
            visit(value);
        }
    }
}
