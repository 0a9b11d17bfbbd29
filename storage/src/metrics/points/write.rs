//! Points → columns.
//!
//! Rows become columns a block at a time: a point is fetched from memory once, not once per column, and the columns
//! of the whole segment never stand in memory beside its points.

use super::super::batch::{HistogramPoint, PointValue};
use super::super::series::SeriesMeta;
use super::super::store::StoredPoint;
use super::{
    BUCKET_COLUMNS_MAX, SERIES_COLUMN, bounds_text, bucket_column, detail_text, exemplars_text,
    histogram, totals_text, whole_number,
};
use crate::columnar::{self, Footer, arrow_error};
use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt64Builder,
};
use arrow::datatypes::SchemaRef;
use parquet::basic::Encoding;
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;
use rustc_hash::FxHashSet;
use std::io;
use std::sync::Arc;

/// Series in file order, each with its points in time order.
pub(in crate::metrics) type Order<'a> = [(&'a Arc<SeriesMeta>, Vec<&'a StoredPoint>)];

/// Rows that are made columns of at once: about a megabyte of points, which a core's cache holds.
const BLOCK_ROWS: usize = 4096;

type Doubles = fn(&StoredPoint) -> Option<f64>;

/// Columns of doubles, and whether whole numbers have a column of their own.
const DOUBLES: [(&str, bool, Doubles); 5] = [
    ("value", true, |p| match p.value {
        PointValue::Double(value) => Some(value),
        _ => None,
    }),
    ("total", true, |p| p.total),
    ("sum", true, |p| histogram(p).and_then(|h| h.sum)),
    ("min", false, |p| histogram(p).and_then(|h| h.min)),
    ("max", false, |p| histogram(p).and_then(|h| h.max)),
];

type TimeColumn = (&'static str, fn(&StoredPoint) -> u64);

/// Columns of times; 0 is none.
const TIMES: [TimeColumn; 2] = [("time", |p| p.time_ns), ("start_time", |p| p.start_ns)];

/// The points of a segment, or of some of its series, on their way to columns.
pub(in crate::metrics) struct Rows<'a> {
    rows: Vec<Row<'a>>,
    /// Bucket columns that the histograms need.
    buckets: usize,
}

/// How the points of a segment become columns.
pub(in crate::metrics) struct Layout {
    /// Bucket columns.
    buckets: usize,
    /// Columns whose values repeat so much that a dictionary pays.
    repeating: Vec<&'static str>,
}

impl Layout {
    /// The one that suits these points, all of a segment.
    pub fn of(rows: &Rows<'_>) -> Self {
        let all = &rows.rows;
        let mut repeating = Vec::new();
        for (name, time) in TIMES {
            let times = all.iter().map(|row| time(row.point)).filter(|time| *time > 0);
            if repeats(times, all.len()) {
                repeating.push(name);
            }
        }
        for (name, whole, value) in DOUBLES {
            let fractions = all
                .iter()
                .filter_map(|row| value(row.point))
                .filter(|value| !whole || whole_number(*value).is_none());
            if repeats(fractions.map(f64::to_bits), all.len()) {
                repeating.push(name);
            }
        }
        Self { buckets: rows.buckets, repeating }
    }

    /// The one for the points of several segments: what repeats in each of them does in all.
    pub fn of_files<'f>(files: impl Iterator<Item = &'f Footer> + Clone) -> Self {
        let has = |file: &Footer, number: usize| {
            file.schema().column_with_name(&bucket_column(number)).is_some()
        };
        let buckets = |file: &Footer| (0..).take_while(|number| has(file, *number)).count();
        let names = TIMES.iter().map(|(name, _)| *name).chain(DOUBLES.iter().map(|(n, ..)| *n));
        let repeats = |name: &&str| files.clone().all(|file| file.has_dictionary(name));
        Self {
            buckets: files.clone().map(buckets).max().unwrap_or(0),
            repeating: names.filter(repeats).collect(),
        }
    }

    /// Adds the encodings.
    pub fn properties(&self, mut properties: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
        let repeats = |name: &str| self.repeating.contains(&name);
        for (name, _) in TIMES {
            properties = if repeats(name) {
                fallback(properties, name, Encoding::DELTA_BINARY_PACKED)
            } else {
                columnar::delta(properties, name)
            };
        }
        for (name, whole, _) in DOUBLES {
            if !repeats(name) {
                properties = columnar::plain(properties, name);
                properties = fallback(properties, name, Encoding::BYTE_STREAM_SPLIT);
            }
            if whole {
                properties = columnar::delta(properties, &format!("{name}_whole"));
            }
        }
        for name in [SERIES_COLUMN, "value_int", "count"] {
            properties = columnar::delta(properties, name);
        }
        (0..self.buckets).fold(properties, |properties, number| {
            columnar::delta(properties, &bucket_column(number))
        })
    }
}

#[derive(Clone, Copy)]
struct Row<'a> {
    series: i32,
    point: &'a StoredPoint,
    /// Bounds of the first histogram point of the series.
    bounds: Option<&'a Arc<[f64]>>,
}

impl<'a> Rows<'a> {
    /// * `first`: number of the first series.
    pub fn new(order: &'a Order<'a>, first: usize) -> Self {
        let mut rows = Vec::with_capacity(order.iter().map(|(_, points)| points.len()).sum());
        let mut buckets = 0;
        for (at, (_, points)) in order.iter().enumerate() {
            let number = (first + at) as i32;
            let histograms = || points.iter().filter_map(|point| histogram(point));
            let bounds = histograms().next().map(|first| &first.bounds);
            let most = histograms().filter(in_columns).map(|h| h.counts.len()).max();
            buckets = buckets.max(most.unwrap_or(0));
            rows.extend(points.iter().map(|point| Row { series: number, point, bounds }));
        }
        Self { rows, buckets }
    }

    /// The rows as batches, in order.
    pub fn batches(&self, layout: &Layout) -> impl Iterator<Item = io::Result<RecordBatch>> {
        self.rows.chunks(BLOCK_ROWS).map(|block| layout.batch(block))
    }
}

impl Layout {
    /// The columns.
    pub fn schema(&self) -> io::Result<SchemaRef> {
        Ok(self.batch(&[])?.schema())
    }

    fn batch(&self, block: &[Row<'_>]) -> io::Result<RecordBatch> {
        let points = || block.iter().map(|row| row.point);
        let mut columns: Vec<(String, ArrayRef)> = Vec::with_capacity(20 + self.buckets);
        let mut add = |name: &str, array: ArrayRef| columns.push((name.to_owned(), array));
        add(SERIES_COLUMN, Arc::new(block.iter().map(|row| row.series).collect::<Int32Array>()));
        for (name, time) in TIMES {
            let some = |time: u64| (time > 0 || name == "time").then_some(time as i64);
            let times: TimestampNanosecondArray = points().map(|point| some(time(point))).collect();
            add(name, Arc::new(times.with_timezone("UTC")));
        }
        add("flags", Arc::new(points().map(|p| p.flags as i32).collect::<Int32Array>()));
        for (name, whole, value) in DOUBLES {
            let (mut fractions, mut wholes) = (Vec::with_capacity(block.len()), Vec::new());
            for point in points() {
                let value = value(point);
                let as_whole = if whole { value.and_then(whole_number) } else { None };
                fractions.push(if as_whole.is_some() { None } else { value });
                wholes.push(as_whole);
            }
            add(name, Arc::new(Float64Array::from(fractions)));
            if whole {
                add(&format!("{name}_whole"), Arc::new(Int64Array::from(wholes)));
            }
        }
        let integers = points().map(|point| match point.value {
            PointValue::Int(value) => Some(value),
            _ => None,
        });
        add("value_int", Arc::new(integers.collect::<Int64Array>()));
        let counts = points().map(|point| histogram(point).map(|h| h.count as i64));
        add("count", Arc::new(counts.collect::<Int64Array>()));
        for number in 0..self.buckets {
            let counts = points().map(|point| {
                let counts = &histogram(point).filter(in_columns)?.counts;
                counts.get(number).map(|count| *count as i64)
            });
            add(&bucket_column(number), Arc::new(counts.collect::<Int64Array>()));
        }
        add("bucket_counts", bucket_lists(block));
        let mut texts = |name: &str, texts: Vec<Option<String>>| {
            add(name, Arc::new(StringArray::from(texts)));
        };
        texts("bounds", block.iter().map(other_bounds).collect());
        let totals =
            points().map(|point| histogram(point)?.totals.as_ref().map(|t| totals_text(t)));
        texts("totals", totals.collect());
        texts("detail", points().map(detail_text).collect::<io::Result<_>>()?);
        let exemplars = points().map(|point| exemplars_text(&point.exemplars));
        texts("exemplars", exemplars.collect::<io::Result<_>>()?);
        let columns = columns.into_iter().map(|(name, array)| (name, array, true));
        RecordBatch::try_from_iter_with_nullable(columns).map_err(arrow_error)
    }
}

/// Whether a histogram's counts go to a column per bucket.
fn in_columns(histogram: &&HistogramPoint) -> bool {
    histogram.counts.len() <= BUCKET_COLUMNS_MAX
}

/// Counts of the histograms with too many buckets.
fn bucket_lists(block: &[Row<'_>]) -> ArrayRef {
    let mut lists = ListBuilder::new(UInt64Builder::new());
    for row in block {
        match histogram(row.point).filter(|h| !in_columns(h)) {
            Some(h) => {
                lists.values().append_slice(&h.counts);
                lists.append(true);
            }
            None => lists.append(false),
        }
    }
    Arc::new(lists.finish())
}

/// Bounds of a point that has others than the first of its series.
fn other_bounds(row: &Row<'_>) -> Option<String> {
    let bounds = &histogram(row.point)?.bounds;
    if row.bounds.is_some_and(|first| Arc::ptr_eq(first, bounds) || same(first, bounds)) {
        return None;
    }
    bounds_text(bounds)
}

fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Encoding of a column whose dictionary grows too large or is switched off.
fn fallback(
    properties: WriterPropertiesBuilder,
    column: &str,
    encoding: Encoding,
) -> WriterPropertiesBuilder {
    properties.set_column_encoding(ColumnPath::new(vec![column.to_owned()]), encoding)
}

/// Whether values repeat so much that a dictionary pays.
fn repeats(values: impl Iterator<Item = u64>, rows: usize) -> bool {
    let most = rows / 8;
    let mut seen = FxHashSet::default();
    for value in values {
        seen.insert(value);
        if seen.len() > most {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_pays_only_for_few_values() {
        assert!(repeats([5; 100].into_iter(), 100));
        assert!(!repeats(0..100, 100));
        assert!(repeats(std::iter::empty(), 0));
    }
}
