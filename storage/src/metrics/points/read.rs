//! Columns → points.

use super::super::batch::{HistogramPoint, MetricKind, PointValue};
use super::super::segment::{SealedSeries, SeriesTable};
use super::super::store::StoredPoint;
use super::{SeriesPoints, bounds_from, bucket_column, exemplars_from, totals_from};
use arrow::array::{
    Array, AsArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt64Type};
use rustc_hash::FxHashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Columns of one batch, as far as they were read and the file has them.
pub(in crate::metrics) struct Columns<'a> {
    series: Option<&'a Int32Array>,
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
    pub(in crate::metrics) fn new(batch: &'a RecordBatch) -> io::Result<Self> {
        let column = |name: &str| batch.column_by_name(name);
        let missing = || damaged("a point column is missing or of another type");
        let ints = |name: &str| column(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
        let codes = |name: &str| column(name).and_then(|c| c.as_primitive_opt::<Int32Type>());
        let texts = |name: &str| column(name).and_then(|c| c.as_string_opt::<i32>());
        let times =
            |name: &str| column(name).and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>());
        Ok(Self {
            series: codes("series"),
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

    /// Times, Unix ns.
    pub(in crate::metrics) fn times_ns(&self) -> &'a [i64] {
        self.times.values()
    }

    /// When the counter behind a row began, Unix ns; 0 if that is not known or was not read.
    pub(in crate::metrics) fn start_ns(&self, row: usize) -> u64 {
        let starts = self.starts.filter(|starts| starts.is_valid(row));
        starts.map_or(0, |starts| starts.value(row) as u64)
    }

    /// `DataPointFlags`
    pub(in crate::metrics) fn flags(&self) -> &'a [i32] {
        self.flags.values()
    }

    /// The value of a number that has no running total.
    pub(in crate::metrics) fn number(&self, row: usize) -> Option<f64> {
        self.value.get(row).or_else(|| Self::int(self.value_int, row).map(|value| value as f64))
    }

    /// Count of a histogram.
    pub(in crate::metrics) fn count(&self, row: usize) -> Option<u64> {
        Self::int(self.count, row).map(|count| count as u64)
    }

    /// Sum of a histogram.
    pub(in crate::metrics) fn sum(&self, row: usize) -> Option<f64> {
        self.sum.get(row)
    }

    /// Adds the counts of a bucket, one per row; a histogram without it adds none.
    pub(in crate::metrics) fn add_bucket(
        &self,
        number: usize,
        rows: Range<usize>,
        sums: &mut [u64],
    ) {
        let Some(counts) = self.buckets.get(number).copied() else { return };
        let counts = Int64Array::slice(counts, rows.start, rows.len());
        match counts.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => {
                let counts = counts.values().iter();
                sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum = sum.wrapping_add(*n as u64));
            }
            Some(nulls) => {
                for row in nulls.valid_indices() {
                    sums[row] = sums[row].wrapping_add(counts.value(row) as u64);
                }
            }
        }
    }

    /// Whether the histograms of these rows have the bounds of their series, their buckets in columns and no running
    /// totals.
    pub(in crate::metrics) fn are_plain(&self, rows: &Range<usize>) -> bool {
        fn none<A: Array>(column: Option<&A>, rows: &Range<usize>) -> bool {
            column.is_none_or(|column| {
                column.null_count() == column.len() || rows.clone().all(|row| column.is_null(row))
            })
        }
        none(self.bounds, rows) && none(self.totals, rows) && none(self.bucket_lists, rows)
    }

    /// A row as a point of its series.
    pub(in crate::metrics) fn point(
        &self,
        row: usize,
        sealed: &SealedSeries,
    ) -> io::Result<StoredPoint> {
        Ok(StoredPoint {
            time_ns: self.times.value(row) as u64,
            start_ns: self.start_ns(row),
            flags: self.flags.value(row) as u32,
            value: self.value(row, sealed.meta.metric.kind, &sealed.bounds)?,
            total: self.total.get(row),
            exemplars: Self::text(self.exemplars, row).map(exemplars_from).unwrap_or_default(),
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

/// Adds the rows of one batch to their series.
///
/// * `slot_of`: where in `out` a series number goes; rows of other series are left out.
pub(in crate::metrics) fn decode(
    batch: &RecordBatch,
    table: &SeriesTable,
    slot_of: &FxHashMap<i32, usize>,
    out: &mut SeriesPoints,
) -> io::Result<()> {
    let columns = Columns::new(batch)?;
    let numbers = columns.series.ok_or_else(|| damaged("the column of series is missing"))?;
    let mut last: Option<(i32, Option<usize>)> = None;
    for row in 0..batch.num_rows() {
        let number = numbers.value(row);
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
        out[slot].1.push(columns.point(row, sealed)?);
    }
    Ok(())
}
