//! Points as Parquet columns and back.
//!
//! A point is one row whatever its kind, sorted by series and time, so that each column changes little from row to
//! row. What compresses well is kept apart from what does not:
//! * doubles that are whole numbers, as most counters are, go as integers to `<column>_whole` and are delta-encoded;
//! * bucket counts have a column per bucket, so that a delta is what came into the bucket since the last export;
//! * times repeat between the series of one sender, so they keep their dictionary when it is small.
//!
//! Kinds that are rare come as JSON text in `detail`.

mod read;
mod write;

pub(super) use read::{Columns, decode};
pub(super) use write::{Layout, Rows};

use super::batch::{HistogramPoint, HistogramTotals, MetricExemplar, PointValue};
use super::native::floats;
use super::series::SeriesMeta;
use super::store::StoredPoint;
use crate::attributes;
use crate::spans::records::{hex, unhex};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;

/// Histograms with more buckets than this have them as a list.
const BUCKET_COLUMNS_MAX: usize = 40;

/// Series with the points that were read of them.
pub(super) type SeriesPoints = Vec<(Arc<SeriesMeta>, Vec<StoredPoint>)>;

/// What of the points a reader wants. Kinds that are not asked for come as [`PointValue::Missing`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// Numbers and their running totals.
    pub numbers: bool,
    /// Of numbers only those that are no integers, staleness markers among them.
    pub fractions: bool,
    /// Counts of explicit histograms.
    pub counts: bool,
    /// Their sums.
    pub sums: bool,
    /// Their buckets.
    pub buckets: bool,
    /// Their bounds, where these are others than those of the series.
    pub bounds: bool,
    /// Exponential and native histograms, summaries.
    pub details: bool,
    pub exemplars: bool,
    pub starts: bool,
    /// Least and greatest values.
    pub rest: bool,
    /// Numbers of the series, which who reads rows in order knows.
    pub numbered: bool,
}

impl Wanted {
    /// Everything.
    pub(super) const ALL: Self = Self {
        numbers: true,
        fractions: true,
        counts: true,
        sums: true,
        buckets: true,
        bounds: true,
        details: true,
        exemplars: true,
        starts: true,
        rest: true,
        numbered: true,
    };

    /// Names of the columns to read.
    fn columns(self) -> Vec<String> {
        let mut columns = vec!["time", "flags"];
        if self.numbered {
            columns.push(SERIES_COLUMN);
        }
        if self.numbers {
            columns.extend(["value_whole", "value_int", "total", "total_whole"]);
        }
        if self.numbers || self.fractions {
            columns.push("value");
        }
        if self.counts || self.sums || self.buckets {
            columns.extend(["count", "totals"]);
        }
        if self.sums {
            columns.extend(["sum", "sum_whole"]);
        }
        if self.buckets {
            columns.push("bucket_counts");
        }
        if self.buckets || self.bounds {
            columns.push("bounds");
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

/// Column of the number of the series.
pub(super) const SERIES_COLUMN: &str = "series";

/// Bounds of a series: those of its first histogram point, JSON text for the series table.
pub(super) fn first_bounds(points: &[&StoredPoint]) -> Option<String> {
    let first = points.iter().find_map(|point| histogram(point))?;
    bounds_text(&first.bounds)
}

/// Bounds of a histogram as JSON text.
#[derive(Serialize, Deserialize)]
struct Bounds(#[serde(with = "floats")] Vec<f64>);

pub(super) fn bounds_text(bounds: &[f64]) -> Option<String> {
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

/// Names of the columns that `wanted` needs; the file may lack some.
pub(super) fn columns(wanted: Wanted) -> Vec<String> {
    wanted.columns()
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
}
