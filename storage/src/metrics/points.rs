//! Points as Parquet columns and back.
//!
//! A point is one row whatever its kind, sorted by series and time, so that each column changes little from row to
//! row. What compresses well is kept apart from what does not:
//! * doubles that are whole numbers, as most counters are, go as integers to `<column>_whole` and are delta-encoded;
//! * bucket counts have a column per bucket, so that a delta is what came into the bucket since the last export;
//! * times repeat between the series of one sender, so they keep their dictionary when it is small.
//!
//! Kinds that are rare come as JSON text in `detail`.

use super::batch::{HistogramPoint, HistogramTotals, MetricExemplar, MetricKind, PointValue};
use super::native::floats;
use super::segment::SeriesTable;
use super::series::SeriesMeta;
use super::store::StoredPoint;
use crate::attributes;
use crate::columnar::{self, arrow_error};
use crate::spans::records::{hex, unhex};
use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, ListArray, ListBuilder,
    RecordBatch, StringArray, TimestampNanosecondArray, UInt64Builder,
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt64Type};
use parquet::basic::Encoding;
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;

/// Histograms with more buckets than this have them as a list.
const BUCKET_COLUMNS_MAX: usize = 40;

/// Series in file order, each with its points in time order.
pub(super) type Order<'a> = [(&'a Arc<SeriesMeta>, Vec<&'a StoredPoint>)];

/// Series with the points that were read of them.
pub(super) type SeriesPoints = Vec<(Arc<SeriesMeta>, Vec<StoredPoint>)>;

/// What of the points a reader wants. Kinds that are not asked for come as [`PointValue::Missing`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Numbers and their running totals.
    pub numbers: bool,
    /// Counts and sums of explicit histograms.
    pub histograms: bool,
    /// Their buckets.
    pub buckets: bool,
    /// Exponential and native histograms, summaries.
    pub details: bool,
    pub exemplars: bool,
    pub starts: bool,
    /// Least and greatest values.
    pub rest: bool,
}

impl Wanted {
    /// Everything.
    pub(super) const ALL: Self = Self {
        numbers: true,
        histograms: true,
        buckets: true,
        details: true,
        exemplars: true,
        starts: true,
        rest: true,
    };

    /// Names of the columns to read.
    fn columns(self) -> Vec<String> {
        let mut columns = vec!["series", "time", "flags"];
        if self.numbers {
            columns.extend(["value", "value_whole", "value_int", "total", "total_whole"]);
        }
        if self.histograms || self.buckets {
            columns.extend(["count", "sum", "sum_whole", "totals"]);
        }
        if self.buckets {
            columns.extend(["bounds", "bucket_counts"]);
        }
        if self.details {
            columns.push("detail");
        }
        if self.exemplars {
            columns.push("exemplars");
        }
        if self.starts {
            columns.push("start_time");
        }
        if self.rest {
            columns.extend(["min", "max"]);
        }
        let mut columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
        if self.buckets {
            columns.extend((0..BUCKET_COLUMNS_MAX).map(bucket_column));
        }
        columns
    }
}

fn bucket_column(number: usize) -> String {
    format!("bucket_{number}")
}

/// The points of a segment as one batch, and the encodings that suit it.
pub(super) fn encode(
    order: &Order<'_>,
    mut properties: WriterPropertiesBuilder,
) -> io::Result<(RecordBatch, WriterPropertiesBuilder)> {
    let points = || order.iter().flat_map(|(_, points)| points.iter().copied());
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let series: Int32Array = order
        .iter()
        .enumerate()
        .flat_map(|(number, (_, points))| points.iter().map(move |_| number as i32))
        .collect();
    columns.push(("series".into(), Arc::new(series)));
    properties = columnar::delta(properties, "series");
    for (name, time) in [
        ("time", (|p| Some(p.time_ns)) as fn(&StoredPoint) -> Option<u64>),
        ("start_time", |p| (p.start_ns > 0).then_some(p.start_ns)),
    ] {
        let times: TimestampNanosecondArray =
            points().map(|p| time(p).map(|time| time as i64)).collect();
        if repeats(times.iter().flatten().map(|time| time as u64), times.len()) {
            properties = fallback(properties, name, Encoding::DELTA_BINARY_PACKED);
        } else {
            properties = columnar::delta(properties, name);
        }
        columns.push((name.into(), Arc::new(times.with_timezone("UTC"))));
    }
    let flags: Int32Array = points().map(|p| p.flags as i32).collect();
    columns.push(("flags".into(), Arc::new(flags)));

    let mut doubles = |name: &str, whole: bool, value: &dyn Fn(&StoredPoint) -> Option<f64>| {
        let (mut fractions, mut wholes) = (Vec::new(), Vec::new());
        for point in points() {
            let value = value(point);
            let as_whole = if whole { value.and_then(whole_number) } else { None };
            fractions.push(if as_whole.is_some() { None } else { value });
            wholes.push(as_whole);
        }
        let bits = fractions.iter().flatten().map(|value| value.to_bits());
        let mut set = std::mem::take(&mut properties);
        if !repeats(bits, fractions.len()) {
            set = columnar::plain(set, name);
            set = fallback(set, name, Encoding::BYTE_STREAM_SPLIT);
        }
        columns.push((name.to_owned(), Arc::new(Float64Array::from(fractions))));
        if whole {
            let name = format!("{name}_whole");
            set = columnar::delta(set, &name);
            columns.push((name, Arc::new(Int64Array::from(wholes))));
        }
        properties = set;
    };
    doubles("value", true, &|p| match p.value {
        PointValue::Double(value) => Some(value),
        _ => None,
    });
    doubles("total", true, &|p| p.total);
    doubles("sum", true, &|p| histogram(p).and_then(|h| h.sum));
    doubles("min", false, &|p| histogram(p).and_then(|h| h.min));
    doubles("max", false, &|p| histogram(p).and_then(|h| h.max));

    let mut integers = |name: &str, values: Int64Array| {
        properties = columnar::delta(std::mem::take(&mut properties), name);
        columns.push((name.to_owned(), Arc::new(values)));
    };
    integers(
        "value_int",
        points()
            .map(|p| match p.value {
                PointValue::Int(value) => Some(value),
                _ => None,
            })
            .collect(),
    );
    integers("count", points().map(|p| histogram(p).map(|h| h.count as i64)).collect());
    let in_columns = |h: &&HistogramPoint| h.counts.len() <= BUCKET_COLUMNS_MAX;
    let buckets = points()
        .filter_map(histogram)
        .filter(in_columns)
        .map(|h| h.counts.len())
        .max()
        .unwrap_or(0);
    for number in 0..buckets {
        let counts = points().map(|p| {
            let counts = &histogram(p).filter(in_columns)?.counts;
            counts.get(number).map(|count| *count as i64)
        });
        integers(&bucket_column(number), counts.collect());
    }

    let mut lists = ListBuilder::new(UInt64Builder::new());
    for point in points() {
        match histogram(point).filter(|h| !in_columns(h)) {
            Some(h) => {
                lists.values().append_slice(&h.counts);
                lists.append(true);
            }
            None => lists.append(false),
        }
    }
    columns.push(("bucket_counts".into(), Arc::new(lists.finish())));
    let mut texts = |name: &str, texts: Vec<Option<String>>| {
        columns.push((name.to_owned(), Arc::new(StringArray::from(texts))));
    };
    texts("bounds", order.iter().flat_map(|(_, points)| other_bounds(points)).collect());
    texts(
        "totals",
        points().map(|p| histogram(p)?.totals.as_ref().map(|t| totals_text(t))).collect(),
    );
    texts("detail", points().map(detail_text).collect::<io::Result<_>>()?);
    texts("exemplars", points().map(|p| exemplars_text(&p.exemplars)).collect::<io::Result<_>>()?);
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    );
    Ok((batch.map_err(arrow_error)?, properties))
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

/// A double as the integer that gives it back bit by bit, if there is one.
fn whole_number(value: f64) -> Option<i64> {
    let whole = value as i64;
    (value.abs() < 9e15 && (whole as f64).to_bits() == value.to_bits()).then_some(whole)
}

fn histogram(point: &StoredPoint) -> Option<&HistogramPoint> {
    match &point.value {
        PointValue::Histogram(histogram) => Some(histogram),
        _ => None,
    }
}

/// Bounds of a series: those of its first histogram point, JSON text for the series table.
pub(super) fn first_bounds(points: &[&StoredPoint]) -> Option<String> {
    let first = points.iter().find_map(|point| histogram(point))?;
    bounds_text(&first.bounds)
}

/// Bounds of those points that have others than the first of their series.
fn other_bounds<'a>(points: &'a [&'a StoredPoint]) -> impl Iterator<Item = Option<String>> + 'a {
    let first = points.iter().find_map(|point| histogram(point)).map(|h| h.bounds.clone());
    points.iter().map(move |point| {
        let bounds = &histogram(point)?.bounds;
        if first.as_ref().is_some_and(|first| Arc::ptr_eq(first, bounds) || same(first, bounds)) {
            return None;
        }
        bounds_text(bounds)
    })
}

fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Bounds of a histogram as JSON text.
#[derive(Serialize, Deserialize)]
struct Bounds(#[serde(with = "floats")] Vec<f64>);

fn bounds_text(bounds: &[f64]) -> Option<String> {
    serde_json::to_string(&Bounds(bounds.to_vec())).ok()
}

/// The inverse of [`first_bounds`].
pub(super) fn bounds_from(text: &str) -> Arc<[f64]> {
    serde_json::from_str::<Bounds>(text).map_or(Arc::from([]), |bounds| bounds.0.into())
}

/// `count sum-bits count,count,…`.
fn totals_text(totals: &HistogramTotals) -> String {
    let counts: Vec<String> = totals.counts.iter().map(u64::to_string).collect();
    format!("{} {:016x} {}", totals.count, totals.sum.to_bits(), counts.join(","))
}

fn totals_from(text: &str) -> Option<HistogramTotals> {
    let mut parts = text.splitn(3, ' ');
    Some(HistogramTotals {
        count: parts.next()?.parse().ok()?,
        sum: f64::from_bits(u64::from_str_radix(parts.next()?, 16).ok()?),
        counts: parts.next()?.split(',').filter_map(|count| count.parse().ok()).collect(),
    })
}

fn detail_text(point: &StoredPoint) -> io::Result<Option<String>> {
    Ok(match &point.value {
        PointValue::Exponential(value) => Some(serde_json::to_string(value)?),
        PointValue::Summary(value) => Some(serde_json::to_string(value)?),
        PointValue::Native(value) => Some(serde_json::to_string(value)?),
        _ => None,
    })
}

/// Exemplars on disk: IDs as hex, attributes as stored JSON.
#[derive(Serialize, Deserialize)]
struct StoredExemplar {
    time_unix_nano: u64,
    #[serde(with = "super::native::float")]
    value: f64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_int: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    trace_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    span_id: String,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    attributes: serde_json::Map<String, serde_json::Value>,
}

/// Exemplars as a JSON list, `None` when there are none.
pub(super) fn exemplars_text(exemplars: &[MetricExemplar]) -> io::Result<Option<String>> {
    if exemplars.is_empty() {
        return Ok(None);
    }
    let stored: Vec<StoredExemplar> = exemplars
        .iter()
        .map(|e| StoredExemplar {
            time_unix_nano: e.time_ns,
            value: e.value,
            is_int: e.is_int,
            trace_id: hex(&e.trace_id),
            span_id: hex(&e.span_id),
            attributes: match attributes::stored_json_object(&e.attributes) {
                serde_json::Value::Object(object) => object,
                _ => serde_json::Map::new(),
            },
        })
        .collect();
    Ok(Some(serde_json::to_string(&stored)?))
}

fn exemplars_from(text: &str) -> Vec<MetricExemplar> {
    let stored: Vec<StoredExemplar> = serde_json::from_str(text).unwrap_or_default();
    stored
        .into_iter()
        .map(|e| {
            let mut list = Vec::new();
            attributes::put_stored_json_object(&mut list, &e.attributes);
            MetricExemplar {
                time_ns: e.time_unix_nano,
                value: e.value,
                is_int: e.is_int,
                trace_id: unhex(&e.trace_id),
                span_id: unhex(&e.span_id),
                attributes: list,
            }
        })
        .collect()
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Columns of one batch, as far as they were read and the file has them.
struct Columns<'a> {
    series: &'a Int32Array,
    times: &'a TimestampNanosecondArray,
    flags: &'a Int32Array,
    starts: Option<&'a TimestampNanosecondArray>,
    value: Doubles<'a>,
    value_int: Option<&'a Int64Array>,
    total: Doubles<'a>,
    count: Option<&'a Int64Array>,
    sum: Doubles<'a>,
    min: Doubles<'a>,
    max: Doubles<'a>,
    buckets: Vec<&'a Int64Array>,
    bucket_lists: Option<&'a ListArray>,
    bounds: Option<&'a StringArray>,
    totals: Option<&'a StringArray>,
    details: Option<&'a StringArray>,
    exemplars: Option<&'a StringArray>,
}

/// A column of doubles, the whole ones apart.
struct Doubles<'a> {
    fractions: Option<&'a Float64Array>,
    wholes: Option<&'a Int64Array>,
}

impl<'a> Doubles<'a> {
    fn new(batch: &'a RecordBatch, name: &str) -> Self {
        let column = |name: &str| batch.column_by_name(name);
        Self {
            fractions: column(name).and_then(|c| c.as_primitive_opt::<Float64Type>()),
            wholes: column(&format!("{name}_whole"))
                .and_then(|c| c.as_primitive_opt::<Int64Type>()),
        }
    }

    fn get(&self, row: usize) -> Option<f64> {
        if let Some(wholes) = self.wholes.filter(|wholes| wholes.is_valid(row)) {
            return Some(wholes.value(row) as f64);
        }
        self.fractions.filter(|values| values.is_valid(row)).map(|values| values.value(row))
    }
}

impl<'a> Columns<'a> {
    fn new(batch: &'a RecordBatch) -> io::Result<Self> {
        let column = |name: &str| batch.column_by_name(name);
        let missing = || damaged("a point column is missing or of another type");
        let ints = |name: &str| column(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
        let codes = |name: &str| column(name).and_then(|c| c.as_primitive_opt::<Int32Type>());
        let texts = |name: &str| column(name).and_then(|c| c.as_string_opt::<i32>());
        let times =
            |name: &str| column(name).and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>());
        Ok(Self {
            series: codes("series").ok_or_else(missing)?,
            times: times("time").ok_or_else(missing)?,
            flags: codes("flags").ok_or_else(missing)?,
            starts: times("start_time"),
            value: Doubles::new(batch, "value"),
            value_int: ints("value_int"),
            total: Doubles::new(batch, "total"),
            count: ints("count"),
            sum: Doubles::new(batch, "sum"),
            min: Doubles::new(batch, "min"),
            max: Doubles::new(batch, "max"),
            buckets: (0..).map_while(|number| ints(&bucket_column(number))).collect(),
            bucket_lists: column("bucket_counts").and_then(|c| c.as_list_opt::<i32>()),
            bounds: texts("bounds"),
            totals: texts("totals"),
            details: texts("detail"),
            exemplars: texts("exemplars"),
        })
    }

    fn text(column: Option<&'a StringArray>, row: usize) -> Option<&'a str> {
        column.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row))
    }

    fn int(column: Option<&'a Int64Array>, row: usize) -> Option<i64> {
        column.filter(|ints| ints.is_valid(row)).map(|ints| ints.value(row))
    }

    /// * `bounds`: of the series, where the row has none of its own.
    fn value(&self, row: usize, kind: MetricKind, bounds: &Arc<[f64]>) -> io::Result<PointValue> {
        if let Some(value) = self.value.get(row) {
            return Ok(PointValue::Double(value));
        }
        if let Some(value) = Self::int(self.value_int, row) {
            return Ok(PointValue::Int(value));
        }
        if let Some(count) = Self::int(self.count, row) {
            let counts = match self.bucket_lists.filter(|lists| lists.is_valid(row)) {
                Some(lists) => {
                    let list = lists.value(row);
                    let counts = list.as_primitive_opt::<UInt64Type>();
                    counts
                        .ok_or_else(|| damaged("bucket counts are no integers"))?
                        .values()
                        .to_vec()
                }
                None => self
                    .buckets
                    .iter()
                    .map_while(|counts| counts.is_valid(row).then(|| counts.value(row) as u64))
                    .collect(),
            };
            let totals = Self::text(self.totals, row).and_then(totals_from).map(Box::new);
            return Ok(PointValue::Histogram(Box::new(HistogramPoint {
                count: count as u64,
                sum: self.sum.get(row),
                min: self.min.get(row),
                max: self.max.get(row),
                bounds: Self::text(self.bounds, row).map_or_else(|| bounds.clone(), bounds_from),
                counts,
                totals,
            })));
        }
        let Some(text) = Self::text(self.details, row) else { return Ok(PointValue::Missing) };
        Ok(match kind {
            MetricKind::ExponentialHistogram => {
                PointValue::Exponential(Box::new(serde_json::from_str(text)?))
            }
            MetricKind::Summary => PointValue::Summary(Box::new(serde_json::from_str(text)?)),
            _ => PointValue::Native(Box::new(serde_json::from_str(text)?)),
        })
    }
}

/// Names of the columns that `wanted` needs; the file may lack some.
pub(super) fn columns(wanted: Wanted) -> Vec<String> {
    wanted.columns()
}

/// Adds the rows of one batch to their series.
///
/// * `slot_of`: where in `out` a series number goes; rows of other series are left out.
pub(super) fn decode(
    batch: &RecordBatch,
    table: &SeriesTable,
    slot_of: &FxHashMap<i32, usize>,
    out: &mut SeriesPoints,
) -> io::Result<()> {
    let columns = Columns::new(batch)?;
    let mut last: Option<(i32, Option<usize>)> = None;
    for row in 0..batch.num_rows() {
        let number = columns.series.value(row);
        let slot = match last {
            Some((known, slot)) if known == number => slot,
            _ => slot_of.get(&number).copied(),
        };
        last = Some((number, slot));
        let Some(slot) = slot else { continue };
        let sealed = table
            .series
            .get(number as usize)
            .ok_or_else(|| damaged("a point of a series that is not in the table"))?;
        out[slot].1.push(StoredPoint {
            time_ns: columns.times.value(row) as u64,
            start_ns: columns
                .starts
                .filter(|starts| starts.is_valid(row))
                .map_or(0, |starts| starts.value(row) as u64),
            flags: columns.flags.value(row) as u32,
            value: columns.value(row, sealed.meta.metric.kind, &sealed.bounds)?,
            total: columns.total.get(row),
            exemplars: Columns::text(columns.exemplars, row)
                .map(exemplars_from)
                .unwrap_or_default(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_doubles_that_come_back_bit_by_bit_are_whole() {
        for (value, expected) in [
            (0.0, Some(0)),
            (-0.0, None),
            (-7.0, Some(-7)),
            (0.5, None),
            (1e15, Some(1_000_000_000_000_000)),
            (1e300, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ] {
            assert_eq!(whole_number(value), expected, "{value}");
        }
    }

    #[test]
    fn a_dictionary_pays_only_for_few_values() {
        assert!(repeats([5; 100].into_iter(), 100));
        assert!(!repeats(0..100, 100));
        assert!(repeats(std::iter::empty(), 0));
    }
}
