//! Cells on disk: `<id>.parquet`, one row a cell, sorted by service, operation, kind, status, time.

use super::sketch::Sketch;
use super::store::{Exemplar, RedCell, RedKey, SLOT_NS};
use crate::columnar::{self, ParquetFile};
use crate::segment::{PARTITION_NS, SegmentDir, SegmentMeta, partition_of};
use crate::signal::Signal;
use crate::spans::records::{hex, unhex};
use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

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
            cells.sort_by(|a, b| (&a.key, a.time_ns).cmp(&(&b.key, b.time_ns)));
            write_partition(dir, partition_ns, &cells, level)
        })
        .collect()
}

fn write_partition(
    dir: &SegmentDir,
    partition_ns: u64,
    cells: &[RedCell],
    level: u32,
) -> io::Result<SegmentMeta> {
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
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("time", Arc::new(times.with_timezone("UTC"))),
        ("width_ns", ints(&|cell| cell.width_ns as i64)),
        ("service_name", texts(&|cell| Some(cell.key.service.to_string()))),
        ("operation", texts(&|cell| Some(cell.key.operation.to_string()))),
        ("kind", codes(&|cell| cell.key.kind)),
        ("status_code", codes(&|cell| cell.key.status)),
        ("count", ints(&|cell| cell.count() as i64)),
        ("sum_ns", texts(&|cell| Some(cell.sum_ns.to_string()))),
        ("histogram", Arc::new(sketches)),
        ("exemplars", texts(&|cell| Some(exemplars_text(&cell.exemplars)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).map_err(columnar::arrow_error)?;
    let id = dir.allocate_id();
    let properties = columnar::delta(columnar::properties(), "time").build();
    let file = dir.create(Signal::Red, partition_ns, id, "parquet")?;
    let parquet = columnar::write(file, &[batch], properties)?;
    let times = || cells.iter().map(|cell| cell.time_ns);
    Ok(SegmentMeta {
        signal: Signal::Red,
        id,
        partition_ns,
        min_ns: times().min().unwrap_or(partition_ns),
        // The last moment a cell covers: retention must not drop it before.
        max_ns: cells.iter().map(|c| c.time_ns + c.width_ns - 1).max().unwrap_or(partition_ns),
        rows: cells.len() as u64,
        level,
        files: vec![parquet],
    })
}

/// `trace:span:time:duration` joined by spaces.
fn exemplars_text(exemplars: &[Exemplar]) -> String {
    exemplars
        .iter()
        .map(|e| {
            format!("{}:{}:{}:{}", hex(&e.trace_id), hex(&e.span_id), e.time_ns, e.duration_ns)
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn exemplars_from(text: &str) -> Vec<Exemplar> {
    text.split_ascii_whitespace()
        .filter_map(|one| {
            let mut parts = one.split(':');
            Some(Exemplar {
                trace_id: unhex(parts.next()?).try_into().ok()?,
                span_id: unhex(parts.next()?).try_into().ok()?,
                time_ns: parts.next()?.parse().ok()?,
                duration_ns: parts.next()?.parse().ok()?,
            })
        })
        .collect()
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
pub fn roll_up(cells: Vec<RedCell>, now_ns: u64) -> Vec<RedCell> {
    let mut merged: BTreeMap<(Arc<RedKey>, u64, u64), RedCell> = BTreeMap::new();
    for mut cell in cells {
        cell.width_ns = cell.width_ns.max(width_at(cell.time_ns, now_ns));
        cell.time_ns -= cell.time_ns % cell.width_ns;
        match merged.entry((cell.key.clone(), cell.width_ns, cell.time_ns)) {
            Entry::Vacant(entry) => {
                entry.insert(cell);
            }
            Entry::Occupied(mut entry) => entry.get_mut().merge(&cell),
        }
    }
    merged.into_values().collect()
}

/// An open segment.
#[derive(Debug)]
pub struct RedSegment {
    pub meta: SegmentMeta,
    file: ParquetFile,
    keys: OnceLock<Vec<KeyRows>>,
}

/// A key and where its cells are.
#[derive(Debug)]
pub struct KeyRows {
    pub key: Arc<RedKey>,
    pub rows: Range<usize>,
}

impl RedSegment {
    pub fn open(dir: &SegmentDir, meta: &SegmentMeta) -> io::Result<Self> {
        let file = ParquetFile::open(&dir.file_path(meta, "parquet"))?;
        Ok(Self { meta: meta.clone(), file, keys: OnceLock::new() })
    }

    /// Width of its narrowest slots, ns.
    pub fn width_ns(&self) -> u64 {
        let widths = self.file.groups().filter_map(|group| Some(group.bounds("width_ns")?.0));
        widths.min().unwrap_or(HOUR_NS)
    }

    /// Its keys in the order of their rows, read at first use.
    pub fn keys(&self) -> io::Result<&[KeyRows]> {
        if let Some(keys) = self.keys.get() {
            return Ok(keys);
        }
        let keys = self.read_keys()?;
        Ok(self.keys.get_or_init(|| keys))
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
        let wanted: Vec<&KeyRows> = self.keys()?.iter().filter(|k| fits(&k.key)).collect();
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
            let exemplars = column(&batch, "exemplars")?.as_string::<i32>();
            for row in 0..batch.num_rows() {
                visit(RedCell {
                    time_ns: times.value(row) as u64,
                    width_ns: widths.value(row) as u64,
                    key: keys.next().ok_or_else(|| damaged("more rows than keys"))?.clone(),
                    sum_ns: sums.value(row).parse().map_err(|_| damaged("sum is no number"))?,
                    sketch: Sketch::decode(sketches.value(row))
                        .ok_or_else(|| damaged("histogram can't be read"))?,
                    exemplars: exemplars_from(exemplars.value(row)),
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
