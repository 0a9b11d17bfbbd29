//! Writing a span segment, row group by row group: rows that are encoded, or groups copied as they stand.

use super::index::{self, Entry};
use super::names::{NAMES_TEXT, Names};
use super::segment::{INDEX, SpanSegment};
use crate::coded::CodedColumn;
use crate::columnar::{self, KeyTypes, SPAN_PAGE_ROWS, parquet_error};
use crate::segment::{DurableFile, SegmentDir, SegmentMeta};
use crate::signal::Signal;
use arrow::array::{AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::Encoding;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use std::io;

/// Columns with more distinct text than this in a row group are stored plainly from there on: reading a single row
/// must not cost reading all distinct values.
const DICTIONARY_BYTES_MAX: usize = 64 << 10;

/// Resources are long and repeat, a few thousand of them to a row group at most.
const RESOURCES_BYTES_MAX: usize = 4 << 20;

fn dictionary_bytes_max(column: &str) -> usize {
    if column == "resource" { RESOURCES_BYTES_MAX } else { DICTIONARY_BYTES_MAX }
}

/// A segment being written. Holds one column of one row group in memory, and 16 bytes a trace.
pub struct SegmentWriter<'a> {
    dir: &'a SegmentDir,
    id: u64,
    partition_ns: u64,
    schema: SchemaRef,
    file: SerializedFileWriter<DurableFile>,
    groups: ArrowRowGroupWriterFactory,
    entries: Vec<Entry>,
    rows: u32,
    min_ns: u64,
    max_ns: u64,
}

impl<'a> SegmentWriter<'a> {
    /// * `schema`: of all row groups.
    /// * `keys`, `names`: of all rows, for the footer.
    pub fn create(
        dir: &'a SegmentDir,
        partition_ns: u64,
        schema: SchemaRef,
        keys: &KeyTypes,
        names: &Names,
    ) -> io::Result<Self> {
        let id = dir.allocate_id();
        let file = dir.create(Signal::Spans, partition_ns, id, "parquet")?;
        let properties = properties(keys, names);
        let (file, groups) = ArrowWriter::try_new(file, schema.clone(), Some(properties))
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(parquet_error)?;
        Ok(Self {
            dir,
            id,
            partition_ns,
            schema,
            file,
            groups,
            entries: Vec::new(),
            rows: 0,
            min_ns: u64::MAX,
            max_ns: 0,
        })
    }

    /// Adds a row group; its rows are grouped by trace.
    pub fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "column is missing");
        let ids = batch.column_by_name("trace_id").ok_or_else(missing)?.as_fixed_size_binary();
        let ids = ids.iter().map(|id| id.unwrap_or_default().try_into().unwrap_or_default());
        index::entries_of(self.rows, ids, &mut self.entries);
        let starts = batch.column_by_name("start_time").ok_or_else(missing)?;
        for start in starts.as_primitive::<TimestampNanosecondType>().values() {
            self.min_ns = self.min_ns.min(*start as u64);
            self.max_ns = self.max_ns.max(*start as u64);
        }
        self.rows += batch.num_rows() as u32;
        let number = self.file.flushed_row_groups().len();
        let writers = self.groups.create_column_writers(number).map_err(parquet_error)?;
        let columns = self.file.schema_descr().columns().to_vec();
        let mut out = self.file.next_row_group().map_err(parquet_error)?;
        for (((field, array), mut writer), column) in
            self.schema.fields().iter().zip(batch.columns()).zip(writers).zip(columns)
        {
            let encode = || {
                if !field.is_nullable()
                    && let Some(coded) = CodedColumn::of(array)
                    && coded.dictionary_bytes() <= dictionary_bytes_max(field.name())
                {
                    return coded.append(&mut out, &column);
                }
                for leaf in compute_leaves(field, array)? {
                    writer.write(&leaf)?;
                }
                writer.close()?.append_to_row_group(&mut out)
            };
            encode().map_err(parquet_error)?;
        }
        out.close().map(drop).map_err(parquet_error)
    }

    /// Adds a row group of another segment as it stands. Columns that it does not have are null; it has no others
    /// than this file.
    ///
    /// * `entries`: of that segment's trace index, sorted by row.
    pub fn copy(&mut self, from: &SpanSegment, group: usize, entries: &[Entry]) -> io::Result<()> {
        let file = from.file.footer()?;
        let Some(rows) = file.groups().nth(group).map(|group| group.rows) else {
            return Ok(());
        };
        let number = self.file.flushed_row_groups().len();
        let columns: Vec<Option<usize>> = (self.schema.fields().iter())
            .map(|field| file.schema().index_of(field.name()).ok())
            .collect();
        // Writers bring memory of their own.
        let writers = if columns.contains(&None) {
            self.groups.create_column_writers(number).map_err(parquet_error)?
        } else {
            Vec::new()
        };
        let mut writers: Vec<Option<_>> = writers.into_iter().map(Some).collect();
        let mut out = self.file.next_row_group().map_err(parquet_error)?;
        let bytes = file.bytes()?;
        for (at, field) in self.schema.fields().iter().enumerate() {
            if let Some(column) = columns[at] {
                file.copy_chunk(&bytes, group, column, &mut out)?;
            } else if let Some(mut writer) = writers[at].take() {
                let nulls = new_null_array(field.data_type(), rows.len());
                for leaf in compute_leaves(field, &nulls).map_err(parquet_error)? {
                    writer.write(&leaf).map_err(parquet_error)?;
                }
                let chunk = writer.close().map_err(parquet_error)?;
                chunk.append_to_row_group(&mut out).map_err(parquet_error)?;
            }
        }
        out.close().map_err(parquet_error)?;
        let first = entries.partition_point(|e| (e.first_row + e.rows) as usize <= rows.start);
        for entry in entries[first..].iter().take_while(|e| (e.first_row as usize) < rows.end) {
            let start = (entry.first_row as usize).max(rows.start);
            let end = ((entry.first_row + entry.rows) as usize).min(rows.end);
            self.entries.push(Entry {
                hash: entry.hash,
                first_row: self.rows + (start - rows.start) as u32,
                rows: (end - start) as u32,
            });
        }
        let (min_ns, max_ns) = (from.meta.min_ns, from.meta.max_ns);
        self.min_ns = self.min_ns.min(min_ns);
        self.max_ns = self.max_ns.max(max_ns);
        self.rows += rows.len() as u32;
        Ok(())
    }

    /// Writes footer and trace index; both files are durable on return.
    pub fn finish(self, level: u32) -> io::Result<SegmentMeta> {
        let parquet = self.file.into_inner().map_err(parquet_error)?.commit()?;
        let mut file = self.dir.create(Signal::Spans, self.partition_ns, self.id, INDEX)?;
        index::write(&mut file, self.entries, self.rows)?;
        Ok(SegmentMeta {
            signal: Signal::Spans,
            id: self.id,
            partition_ns: self.partition_ns,
            min_ns: self.min_ns.min(self.max_ns),
            max_ns: self.max_ns,
            rows: u64::from(self.rows),
            level,
            files: vec![parquet, file.commit()?],
        })
    }
}

fn properties(keys: &KeyTypes, names: &Names) -> WriterProperties {
    let texts = vec![(columnar::KEYS_TEXT, keys.to_text()), (NAMES_TEXT, names.to_text())];
    let mut properties = columnar::with_text(columnar::properties(), texts);
    for column in ["start_time", "duration_ns"] {
        properties = columnar::by_byte(properties, column);
    }
    for column in ["span_id", "parent_span_id"] {
        properties = columnar::plain(properties, column);
    }
    properties = columnar::uncompressed(properties, "span_id");
    properties = columnar::repetitive(properties, "trace_id");
    let trace_id = ColumnPath::new(vec!["trace_id".to_owned()]);
    let resource = ColumnPath::new(vec!["resource".to_owned()]);
    properties
        .set_data_page_row_count_limit(SPAN_PAGE_ROWS)
        .set_write_batch_size(SPAN_PAGE_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_column_dictionary_page_size_limit(resource, RESOURCES_BYTES_MAX)
        .set_column_dictionary_enabled(trace_id.clone(), false)
        .set_column_encoding(trace_id, Encoding::DELTA_BYTE_ARRAY)
        .build()
}
