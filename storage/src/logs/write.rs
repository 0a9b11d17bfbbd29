//! Writes a log segment: rows sorted by time, cut into blocks, each block sorted by group.
//!
//! `<id>.parquet` (columns in `storage/FORMAT.md`), `<id>.blk` (groups and blocks), `<id>.idx` (full text), `<id>.tid`
//! (trace ids). The order inside a block puts bodies of one pattern next to each other, where zstd finds their common
//! text at once, and makes resource, severity and their like runs; over blocks the order is time.

use super::batch::LogBatch;
use super::blocks::{BLOCK_ROWS, Block, Blocks};
use super::groups::{self, GroupsBuilder, NO_PATTERN, Pattern};
use super::miner::PatternMiner;
use super::textindex::TextIndexWriter;
use super::tokens::PatternToken;
use super::traceindex;
use crate::attribute_columns::AttributeColumns;
use crate::attributes;
use crate::columnar::{self, arrow_error, parquet_error};
use crate::segment::{DurableFile, SegmentDir, SegmentMeta, partition_of};
use crate::signal::Signal;
use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeBinaryBuilder, Int32Array, Int64Builder, RecordBatch,
    StringArray, StringBuilder, TimestampNanosecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::Encoding;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Extensions of the files beside the Parquet file.
pub const BLOCKS: &str = "blk";
pub const TEXT_INDEX: &str = "idx";
pub const TRACE_INDEX: &str = "tid";

/// A row on its way into a segment.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub time_ns: u64,
    /// Index into the batches that are given along.
    pub batch: u32,
    pub row: u32,
    /// Index into the segment's patterns, or [`NO_PATTERN`].
    pub pattern: u32,
}

/// Writes hot batches as segments, one per time partition.
pub fn seal(dir: &SegmentDir, batches: &[Arc<LogBatch>]) -> io::Result<Vec<SegmentMeta>> {
    let mut partitions: BTreeMap<u64, Vec<Place>> = BTreeMap::new();
    for (b, batch) in batches.iter().enumerate() {
        for (r, row) in batch.rows.iter().enumerate() {
            partitions.entry(partition_of(row.time_ns)).or_default().push(Place {
                time_ns: row.time_ns,
                batch: b as u32,
                row: r as u32,
                pattern: NO_PATTERN,
            });
        }
    }
    partitions
        .into_iter()
        .map(|(partition_ns, places)| seal_partition(dir, batches, partition_ns, places))
        .collect()
}

fn seal_partition(
    dir: &SegmentDir,
    batches: &[Arc<LogBatch>],
    partition_ns: u64,
    mut places: Vec<Place>,
) -> io::Result<SegmentMeta> {
    places.sort_by_key(|place| place.time_ns);
    let mut miner = PatternMiner::default();
    for place in &mut places {
        place.pattern = miner.add_body(batches[place.batch as usize].body.text(place.row as usize));
    }
    let (patterns, numbers) = miner.finish();
    for place in &mut places {
        place.pattern = numbers.get(place.pattern as usize).copied().unwrap_or(NO_PATTERN);
    }
    // A sample is enough to know the frequent keys; what it misses is kept in the rest column.
    let step = (places.len() / 8192).max(1);
    let sample = || places.iter().step_by(step);
    let attributes = AttributeColumns::choose(
        sample().count(),
        sample().map(|place| batches[place.batch as usize].attributes.row(place.row as usize)),
    );
    let mut writer = SegmentWriter::new(dir, partition_ns, 0, places.len(), patterns, attributes)?;
    for block in places.chunks_mut(BLOCK_ROWS) {
        writer.push_block(batches, block)?;
    }
    writer.finish(dir)
}

/// Writes one segment block by block.
pub struct SegmentWriter {
    id: u64,
    partition_ns: u64,
    level: u32,
    schema: SchemaRef,
    parquet: ArrowWriter<DurableFile>,
    patterns: Vec<Pattern>,
    groups: GroupsBuilder,
    blocks: Blocks,
    attributes: AttributeColumns,
    text_index: TextIndexWriter,
    /// Traces of the blocks so far.
    traces: Vec<traceindex::Pair>,
    texts: DictionaryTexts,
}

impl SegmentWriter {
    /// * `rows`: about how many rows will come.
    pub fn new(
        dir: &SegmentDir,
        partition_ns: u64,
        level: u32,
        rows: usize,
        patterns: Vec<Pattern>,
        mut attributes: AttributeColumns,
    ) -> io::Result<Self> {
        let mut fields = fixed_fields();
        fields.extend(attributes.finish().into_iter().map(|(field, _)| field));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let id = dir.allocate_id();
        let file = dir.create(Signal::Logs, partition_ns, id, "parquet")?;
        let parquet = ArrowWriter::try_new(file, schema.clone(), Some(properties()))
            .map_err(parquet_error)?;
        Ok(Self {
            id,
            partition_ns,
            level,
            schema,
            parquet,
            patterns,
            groups: GroupsBuilder::default(),
            blocks: Blocks::default(),
            attributes,
            text_index: TextIndexWriter::new(rows)?,
            traces: Vec::new(),
            texts: DictionaryTexts::new(),
        })
    }

    /// Adds the next rows in time; all blocks but the last are full.
    pub fn push_block(&mut self, batches: &[Arc<LogBatch>], block: &[Place]) -> io::Result<()> {
        if block.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<(Place, u32)> = Vec::with_capacity(block.len());
        for place in block {
            let (batch, row) = (&*batches[place.batch as usize], place.row as usize);
            let group = self.groups.group(
                batch.resource(row),
                batch.scope(row),
                batch.rows[row].severity_number,
                batch.severity_text.get(row),
                batch.event_name.get(row),
                place.pattern,
            );
            rows.push((*place, group));
        }
        // Stable, so rows of a group stay in time order.
        rows.sort_by_key(|(place, group)| (place.pattern, *group));
        self.index_block(batches, &rows)?;
        let columns = self.columns(batches, &rows)?;
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(arrow_error)?;
        self.parquet.write(&batch).map_err(parquet_error)?;
        let by_group: Vec<(u32, u64)> =
            rows.iter().map(|(place, group)| (*group, place.time_ns)).collect();
        self.blocks.push_rows(&by_group);
        Ok(())
    }

    fn index_block(&mut self, batches: &[Arc<LogBatch>], rows: &[(Place, u32)]) -> io::Result<()> {
        let number = self.blocks.blocks.len() as u32;
        for run in rows.chunk_by(|a, b| a.0.pattern == b.0.pattern) {
            let bodies =
                run.iter().map(|(p, _)| batches[p.batch as usize].body.text(p.row as usize));
            match self.patterns.get(run[0].0.pattern as usize) {
                None => bodies.for_each(|body| self.text_index.add_text(body)),
                Some(pattern) => {
                    let mut slots = false;
                    for token in &pattern.tokens {
                        match token {
                            PatternToken::Word(word) => self.text_index.add_word(word),
                            PatternToken::Slot => slots = true,
                        }
                    }
                    if slots {
                        bodies.for_each(|body| self.text_index.add_variables(body));
                    }
                }
            }
        }
        self.text_index.end_block()?;
        for (place, _) in rows {
            let trace_id = &batches[place.batch as usize].rows[place.row as usize].trace_id;
            if *trace_id != [0; 16] {
                self.traces.push(traceindex::pair(trace_id, number));
            }
        }
        Ok(())
    }

    fn columns(
        &mut self,
        batches: &[Arc<LogBatch>],
        rows: &[(Place, u32)],
    ) -> io::Result<Vec<ArrayRef>> {
        let at = |place: &Place| (&*batches[place.batch as usize], place.row as usize);
        let fields = |place: &Place| {
            let (batch, row) = at(place);
            &batch.rows[row]
        };
        let count = rows.len();
        let mut observed = Int64Builder::with_capacity(count);
        let mut body = StringBuilder::with_capacity(count, count * 80);
        let mut body_value = StringBuilder::new();
        let mut trace_ids = FixedSizeBinaryBuilder::with_capacity(count, 16);
        let mut span_ids = FixedSizeBinaryBuilder::with_capacity(count, 8);
        for (place, _) in rows {
            let (batch, row) = at(place);
            let log = &batch.rows[row];
            // The offset is small or 0, where a second time would cost as much as the first.
            observed.append_option(
                (log.observed_ns != 0).then(|| log.observed_ns.wrapping_sub(log.time_ns) as i64),
            );
            body.append_value(batch.body.text(row));
            body_value.append_option(batch.body_message(row).map(|message| {
                attributes::stored_json(attributes::any_value(message)).to_string()
            }));
            if log.trace_id == [0; 16] {
                trace_ids.append_null();
            } else {
                trace_ids.append_value(log.trace_id).map_err(arrow_error)?;
            }
            if log.span_id == [0; 8] {
                span_ids.append_null();
            } else {
                span_ids.append_value(log.span_id).map_err(arrow_error)?;
            }
            self.attributes.push(batch.attributes.row(row));
        }
        let times: TimestampNanosecondArray =
            rows.iter().map(|(place, _)| Some(place.time_ns as i64)).collect();
        let severities: Int32Array =
            rows.iter().map(|(place, _)| fields(place).severity_number).collect();
        let flags: UInt32Array = rows.iter().map(|(place, _)| fields(place).flags).collect();
        let dropped: UInt32Array =
            rows.iter().map(|(place, _)| fields(place).dropped_attributes_count).collect();
        let groups = self.groups.groups();
        self.texts.refresh(&self.groups);
        let dictionary = |values: &ArrayRef, key: &dyn Fn(u32) -> Option<i32>| -> ArrayRef {
            let keys: Int32Array = rows.iter().map(|(_, group)| key(*group)).collect();
            Arc::new(DictionaryArray::<Int32Type>::new(keys, values.clone()))
        };
        let of = |group: u32| &groups[group as usize];
        let texts = &self.texts;
        let shown = |list: &[Arc<str>], index: u32| {
            (!list[index as usize].is_empty()).then_some(index as i32)
        };
        let (severity_texts, event_names) = self.groups.texts();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(times.with_timezone("UTC")),
            Arc::new(observed.finish()),
            Arc::new(severities),
            dictionary(&texts.severity_texts, &|g| shown(severity_texts, of(g).severity_text)),
            dictionary(&texts.services, &|g| Some(of(g).resource as i32)),
            Arc::new(body.finish()),
            Arc::new(body_value.finish()),
            Arc::new(trace_ids.finish()),
            Arc::new(span_ids.finish()),
            Arc::new(flags),
            dictionary(&texts.event_names, &|g| shown(event_names, of(g).event_name)),
            Arc::new(dropped),
            dictionary(&texts.resources, &|g| Some(of(g).resource as i32)),
            dictionary(&texts.scopes, &|g| Some(of(g).scope as i32)),
        ];
        columns.extend(self.attributes.finish().into_iter().map(|(_, array)| array));
        Ok(columns)
    }

    /// Makes all files durable.
    pub fn finish(self, dir: &SegmentDir) -> io::Result<SegmentMeta> {
        let create = |extension| dir.create(Signal::Logs, self.partition_ns, self.id, extension);
        let parquet = self.parquet.into_inner().map_err(parquet_error)?.commit()?;
        let groups = self.groups.finish(self.patterns);
        let mut blocks = create(BLOCKS)?;
        groups::write(&mut blocks, &groups, &self.blocks)?;
        let mut text_index = create(TEXT_INDEX)?;
        self.text_index.finish(&mut text_index)?;
        let mut trace_index = create(TRACE_INDEX)?;
        traceindex::write(&mut trace_index, self.traces)?;
        let times = |pick: fn(&Block) -> u64| self.blocks.blocks.iter().map(pick);
        Ok(SegmentMeta {
            signal: Signal::Logs,
            id: self.id,
            partition_ns: self.partition_ns,
            min_ns: times(|block| block.min_ns).min().unwrap_or(self.partition_ns),
            max_ns: times(|block| block.max_ns).max().unwrap_or(self.partition_ns),
            rows: self.blocks.rows() as u64,
            level: self.level,
            files: vec![parquet, blocks.commit()?, text_index.commit()?, trace_index.commit()?],
        })
    }
}

/// Dictionary values of the group columns; made anew only when a value has come in.
struct DictionaryTexts {
    counts: [usize; 4],
    severity_texts: ArrayRef,
    event_names: ArrayRef,
    services: ArrayRef,
    resources: ArrayRef,
    scopes: ArrayRef,
}

impl DictionaryTexts {
    fn new() -> Self {
        let empty: ArrayRef = Arc::new(StringArray::from(Vec::<&str>::new()));
        Self {
            counts: [0; 4],
            severity_texts: empty.clone(),
            event_names: empty.clone(),
            services: empty.clone(),
            resources: empty.clone(),
            scopes: empty,
        }
    }

    fn refresh(&mut self, groups: &GroupsBuilder) {
        let (severity_texts, event_names) = groups.texts();
        let (resources, scopes) = groups.senders();
        let counts = [severity_texts.len(), event_names.len(), resources.len(), scopes.len()];
        if counts == self.counts {
            return;
        }
        fn array<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> ArrayRef {
            Arc::new(StringArray::from_iter_values(texts))
        }
        self.counts = counts;
        self.severity_texts = array(severity_texts.iter());
        self.event_names = array(event_names.iter());
        self.services = array(resources.iter().map(|r| &r.service_name));
        self.resources = array(resources.iter().map(|r| columnar::resource_json(r)));
        self.scopes = array(scopes.iter().map(|s| columnar::scope_json(s)));
    }
}

fn fixed_fields() -> Vec<Field> {
    let dictionary = columnar::dictionary_type;
    vec![
        Field::new(
            "timestamp",
            DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            false,
        ),
        Field::new("observed_offset_ns", DataType::Int64, true),
        Field::new("severity_number", DataType::Int32, false),
        Field::new("severity_text", dictionary(), true),
        Field::new("service_name", dictionary(), false),
        Field::new("body", DataType::Utf8, false),
        Field::new("body_value", DataType::Utf8, true),
        Field::new("trace_id", DataType::FixedSizeBinary(16), true),
        Field::new("span_id", DataType::FixedSizeBinary(8), true),
        Field::new("flags", DataType::UInt32, false),
        Field::new("event_name", dictionary(), true),
        Field::new("dropped_attributes_count", DataType::UInt32, false),
        Field::new("resource", dictionary(), false),
        Field::new("scope", dictionary(), false),
    ]
}

fn properties() -> WriterProperties {
    let mut properties = columnar::properties()
        // A page is a block, however long its bodies are.
        .set_data_page_row_count_limit(BLOCK_ROWS)
        .set_write_batch_size(BLOCK_ROWS)
        .set_data_page_size_limit(64 << 20);
    properties = columnar::delta(properties, "timestamp");
    properties = columnar::plain(properties, "span_id");
    properties = columnar::plain(properties, "body");
    let body = ColumnPath::new(vec!["body".to_owned()]);
    properties.set_column_encoding(body, Encoding::DELTA_LENGTH_BYTE_ARRAY).build()
}
