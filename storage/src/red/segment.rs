//! Cells on disk: `<id>.parquet`, one row a cell, sorted by service, operation, kind, status, time.

use super::sketch::Sketch;
use super::store::{Exemplar, RedCell, RedKey, SLOT_NS};
use crate::columnar::{self, ParquetFile};
use crate::kept::{HeapBytes, Kept};
use crate::segment::{PARTITION_NS, SegmentDir, SegmentMeta, partition_of};
use crate::signal::Signal;
use crate::wire;
use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

const MINUTE_NS: u64 = 60_000_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;

/// Cells older than this are merged into minutes, and older than a day into hours.
const MINUTES_AFTER_NS: u64 = 2 * HOUR_NS;
const HOURS_AFTER_NS: u64 = 24 * HOUR_NS;

/// Writes cells as segments, one per time partition.
pub fn write(dir: &SegmentDir, cells: Vec<RedCell>, level: u32) -> io::Result<Vec<SegmentMeta>> {
    let mut partitions: BTreeMap<u64, Vec<RedCell>> = BTreeMap::new();
    for cell in cells {
        partitions.entry(partition_of(cell.time_ns)).or_default().push(cell);
    }
    partitions
        .into_iter()
        .map(|(partition_ns, mut cells)| {
            sort(&mut cells);
            write_pieces(dir, partition_ns, level, std::iter::once(Ok(cells)))
        })
        .collect()
}

/// Merges segments of one partition, at least one, into slots as wide as their age at `now_ns` allows. The cells of one
/// service after the other are held in memory.
pub fn merge(
    dir: &SegmentDir,
    segments: &[Arc<RedSegment>],
    level: u32,
    now_ns: u64,
) -> io::Result<SegmentMeta> {
    let mut services: BTreeSet<Arc<str>> = BTreeSet::new();
    for segment in segments {
        services.extend(segment.keys()?.iter().map(|key| key.key.service.clone()));
    }
    let of_service = |service: Arc<str>| {
        let mut cells = Vec::new();
        for segment in segments {
            segment.read(|key| key.service == service, &mut cells)?;
        }
        Ok(roll_up(cells, now_ns))
    };
    let partition_ns = segments[0].meta.partition_ns;
    write_pieces(dir, partition_ns, level, services.into_iter().map(of_service))
}

/// Writes the cells of a partition.
///
/// * `pieces`: sorted, as their cells are; no key is in two of them.
fn write_pieces(
    dir: &SegmentDir,
    partition_ns: u64,
    level: u32,
    pieces: impl Iterator<Item = io::Result<Vec<RedCell>>>,
) -> io::Result<SegmentMeta> {
    let id = dir.allocate_id();
    let (mut rows, mut min_ns, mut max_ns) = (0, u64::MAX, partition_ns);
    let batches = pieces.map(|cells| {
        let mut cells = cells?;
        thin_exemplars(&mut cells);
        for cell in &cells {
            rows += 1;
            min_ns = min_ns.min(cell.time_ns);
            // The last moment a cell covers: retention must not drop it before.
            max_ns = max_ns.max(cell.time_ns + cell.width_ns - 1);
        }
        batch_of(&cells)
    });
    let mut properties = columnar::delta(columnar::properties(), "time");
    for column in ["histogram", "exemplars"] {
        properties = columnar::repetitive(properties, column);
    }
    let file = dir.create(Signal::Red, partition_ns, id, "parquet")?;
    let parquet = columnar::write_each(file, batches, properties.build())?;
    Ok(SegmentMeta {
        signal: Signal::Red,
        id,
        partition_ns,
        min_ns: min_ns.min(max_ns),
        max_ns,
        rows,
        level,
        files: vec![parquet],
    })
}

/// Cells as columns, see `storage/FORMAT.md`.
fn batch_of(cells: &[RedCell]) -> io::Result<RecordBatch> {
    let texts = |value: &dyn Fn(&RedCell) -> Option<String>| -> ArrayRef {
        Arc::new(cells.iter().map(value).collect::<StringArray>())
    };
    let ints = |value: &dyn Fn(&RedCell) -> i64| -> ArrayRef {
        Arc::new(cells.iter().map(value).collect::<Int64Array>())
    };
    let codes = |value: &dyn Fn(&RedCell) -> i32| -> ArrayRef {
        Arc::new(cells.iter().map(value).collect::<Int32Array>())
    };
    let times: TimestampNanosecondArray =
        cells.iter().map(|cell| Some(cell.time_ns as i64)).collect();
    let sketches: BinaryArray = cells.iter().map(|cell| Some(cell.sketch.encode())).collect();
    let exemplars: BinaryArray =
        (cells.iter()).map(|c| (!c.exemplars.is_empty()).then(|| exemplars_bytes(c))).collect();
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("time", Arc::new(times.with_timezone("UTC")), false),
        ("width_ns", ints(&|cell| cell.width_ns as i64), false),
        ("service_name", texts(&|cell| Some(cell.key.service.to_string())), false),
        ("operation", texts(&|cell| Some(cell.key.operation.to_string())), false),
        ("kind", codes(&|cell| cell.key.kind), false),
        ("status_code", codes(&|cell| cell.key.status), false),
        ("count", ints(&|cell| cell.count() as i64), false),
        ("sum_ns", texts(&|cell| Some(cell.sum_ns.to_string())), false),
        ("histogram", Arc::new(sketches), false),
        ("exemplars", Arc::new(exemplars), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).map_err(columnar::arrow_error)
}

/// Exemplars that the sealed cells of one key and minute keep together: two thirds of a cell's bytes would else be
/// IDs, and no chart shows as many. Calls are seen from both of their ends, and keep one from each.
fn exemplars_of_a_minute(key: &RedKey) -> usize {
    if key.kind < 0 { 1 } else { 2 }
}

/// Keeps the slowest exemplars of each key and minute.
///
/// * `cells`: sorted by key and time.
fn thin_exemplars(cells: &mut [RedCell]) {
    let same_minute =
        |a: &RedCell, b: &RedCell| a.key == b.key && a.time_ns / MINUTE_NS == b.time_ns / MINUTE_NS;
    for minute in cells.chunk_by_mut(same_minute) {
        let mut found: Vec<Exemplar> =
            minute.iter_mut().flat_map(|cell| std::mem::take(&mut cell.exemplars)).collect();
        found.sort_by_key(|exemplar| std::cmp::Reverse(exemplar.duration_ns));
        found.truncate(exemplars_of_a_minute(&minute[0].key));
        for exemplar in found {
            let own = |cell: &&mut RedCell| {
                (cell.time_ns..cell.time_ns + cell.width_ns).contains(&exemplar.time_ns)
            };
            if let Some(cell) = minute.iter_mut().find(own) {
                cell.exemplars.push(exemplar);
            }
        }
    }
}

/// Trace ID, span ID, varint of the time since the cell's start, varint of the duration; one after the other.
fn exemplars_bytes(cell: &RedCell) -> Vec<u8> {
    let mut out = Vec::with_capacity(cell.exemplars.len() * 36);
    for exemplar in &cell.exemplars {
        out.extend_from_slice(&exemplar.trace_id);
        out.extend_from_slice(&exemplar.span_id);
        wire::put_varint(&mut out, exemplar.time_ns.wrapping_sub(cell.time_ns));
        wire::put_varint(&mut out, exemplar.duration_ns);
    }
    out
}

/// The inverse of [`exemplars_bytes`]; `None` for bytes that are none.
fn exemplars_from(mut bytes: &[u8], cell_ns: u64) -> Option<Vec<Exemplar>> {
    let mut exemplars = Vec::new();
    while !bytes.is_empty() {
        let (trace_id, rest) = bytes.split_first_chunk()?;
        let (span_id, rest) = rest.split_first_chunk()?;
        bytes = rest;
        exemplars.push(Exemplar {
            trace_id: *trace_id,
            span_id: *span_id,
            time_ns: cell_ns.wrapping_add(wire::take_varint(&mut bytes).ok()?),
            duration_ns: wire::take_varint(&mut bytes).ok()?,
        });
    }
    Some(exemplars)
}

/// Width of the slots that cells of a segment have at a time.
///
/// * `max_ns`: last moment that the segment covers; a partition's cells are widened together.
pub fn width_at(max_ns: u64, now_ns: u64) -> u64 {
    let age_ns = now_ns.saturating_sub(partition_of(max_ns) + PARTITION_NS);
    if age_ns > HOURS_AFTER_NS {
        HOUR_NS
    } else if age_ns > MINUTES_AFTER_NS {
        MINUTE_NS
    } else {
        SLOT_NS
    }
}

/// Merges cells of one key and slot, in slots as wide as their age allows.
fn roll_up(mut cells: Vec<RedCell>, now_ns: u64) -> Vec<RedCell> {
    for cell in &mut cells {
        cell.width_ns = cell.width_ns.max(width_at(cell.time_ns, now_ns));
        cell.time_ns -= cell.time_ns % cell.width_ns;
    }
    sort(&mut cells);
    let mut merged: Vec<RedCell> = Vec::with_capacity(cells.len());
    for cell in cells {
        let slot = |cell: &RedCell| (cell.time_ns, cell.width_ns);
        match merged.last_mut() {
            Some(last) if slot(last) == slot(&cell) && last.key == cell.key => last.merge(&cell),
            _ => merged.push(cell),
        }
    }
    merged
}

/// Sorts cells by key, time and width. Keys are few: their texts are compared once, not for every two cells.
fn sort(cells: &mut [RedCell]) {
    let mut ranks: FxHashMap<*const RedKey, u32> = FxHashMap::default();
    let mut keys: Vec<Arc<RedKey>> = Vec::new();
    for cell in cells.iter() {
        ranks.entry(Arc::as_ptr(&cell.key)).or_insert_with(|| {
            keys.push(cell.key.clone());
            0
        });
    }
    keys.sort();
    for (rank, same) in keys.chunk_by(|a, b| a == b).enumerate() {
        ranks.extend(same.iter().map(|key| (Arc::as_ptr(key), rank as u32)));
    }
    cells.sort_by_key(|cell| (ranks[&Arc::as_ptr(&cell.key)], cell.time_ns, cell.width_ns));
}

/// An open segment.
#[derive(Debug)]
pub struct RedSegment {
    pub meta: SegmentMeta,
    file: ParquetFile,
    /// Width of its narrowest slots, ns.
    pub width_ns: u64,
    keys: Kept<Vec<KeyRows>>,
}

/// A key and where its cells are.
#[derive(Debug)]
pub struct KeyRows {
    pub key: Arc<RedKey>,
    pub rows: Range<usize>,
}

impl HeapBytes for Vec<KeyRows> {
    fn heap_bytes(&self) -> usize {
        let texts = |k: &KeyRows| k.key.service.len() + k.key.operation.len() + 32;
        let key_bytes = |k: &KeyRows| size_of::<KeyRows>() + size_of::<RedKey>() + 16 + texts(k);
        self.iter().map(key_bytes).sum()
    }
}

impl RedSegment {
    pub fn open(dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Self> {
        let file = ParquetFile::open(&dir.file_path(meta, "parquet"))?;
        let footer = file.footer()?;
        file.forget_footer();
        let widths = footer.groups().filter_map(|group| Some(group.bounds("width_ns")?.0));
        let width_ns = widths.min().unwrap_or(HOUR_NS);
        Ok(Self { meta: meta.clone(), file, width_ns, keys: Kept::new() })
    }

    /// Its keys in the order of their rows.
    pub fn keys(&self) -> io::Result<Arc<Vec<KeyRows>>> {
        self.keys.get_or_read(|| self.read_keys())
    }

    fn read_keys(&self) -> io::Result<Vec<KeyRows>> {
        let mut keys: Vec<KeyRows> = Vec::new();
        let mut at = 0;
        for batch in self.file.read(&["service_name", "operation", "kind", "status_code"], None)? {
            let batch = batch.map_err(columnar::arrow_error)?;
            let services = column(&batch, "service_name")?.as_string::<i32>();
            let operations = column(&batch, "operation")?.as_string::<i32>();
            let kinds = column(&batch, "kind")?.as_primitive::<Int32Type>();
            let statuses = column(&batch, "status_code")?.as_primitive::<Int32Type>();
            for row in 0..batch.num_rows() {
                let (service, operation) = (services.value(row), operations.value(row));
                let (kind, status) = (kinds.value(row), statuses.value(row));
                match keys.last_mut() {
                    Some(KeyRows { key, rows })
                        if *key.service == *service
                            && *key.operation == *operation
                            && key.kind == kind
                            && key.status == status =>
                    {
                        rows.end += 1;
                    }
                    _ => {
                        let (service, operation) = (service.into(), operation.into());
                        let key = Arc::new(RedKey { service, operation, kind, status });
                        keys.push(KeyRows { key, rows: at..at + 1 });
                    }
                }
                at += 1;
            }
        }
        Ok(keys)
    }

    /// Adds the cells that fit.
    pub fn read(&self, fits: impl Fn(&RedKey) -> bool, out: &mut Vec<RedCell>) -> io::Result<()> {
        self.visit(fits, &mut |cell| {
            out.push(cell);
            Ok(())
        })
    }

    /// Hands over the cells that fit, one by one.
    ///
    /// # Errors
    /// Of reading, or those of `visit`.
    pub fn visit(
        &self,
        fits: impl Fn(&RedKey) -> bool,
        visit: &mut dyn FnMut(RedCell) -> io::Result<()>,
    ) -> io::Result<()> {
        const COLUMNS: [&str; 5] = ["time", "width_ns", "sum_ns", "histogram", "exemplars"];
        let keys = self.keys()?;
        let wanted: Vec<&KeyRows> = keys.iter().filter(|k| fits(&k.key)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for key in &wanted {
            match ranges.last_mut() {
                Some(last) if last.end == key.rows.start => last.end = key.rows.end,
                _ => ranges.push(key.rows.clone()),
            }
        }
        // Rows come in the order of the keys.
        let mut keys = wanted.iter().flat_map(|k| k.rows.clone().map(|_| &k.key));
        for batch in self.file.read(&COLUMNS, Some(&ranges))? {
            let batch = batch.map_err(columnar::arrow_error)?;
            let times = column(&batch, "time")?.as_primitive::<TimestampNanosecondType>();
            let widths = column(&batch, "width_ns")?.as_primitive::<Int64Type>();
            let sums = column(&batch, "sum_ns")?.as_string::<i32>();
            let sketches = column(&batch, "histogram")?.as_binary::<i32>();
            let exemplars = column(&batch, "exemplars")?.as_binary_opt::<i32>();
            let exemplars = exemplars.ok_or_else(|| damaged("exemplars are no bytes"))?;
            for row in 0..batch.num_rows() {
                let time_ns = times.value(row) as u64;
                visit(RedCell {
                    time_ns,
                    width_ns: widths.value(row) as u64,
                    key: keys.next().ok_or_else(|| damaged("more rows than keys"))?.clone(),
                    sum_ns: sums.value(row).parse().map_err(|_| damaged("sum is no number"))?,
                    sketch: Sketch::decode(sketches.value(row))
                        .ok_or_else(|| damaged("histogram can't be read"))?,
                    exemplars: exemplars_from(exemplars.value(row), time_ns)
                        .ok_or_else(|| damaged("exemplars can't be read"))?,
                })?;
            }
        }
        Ok(())
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> io::Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| damaged("column missing"))
}
