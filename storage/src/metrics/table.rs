//! Points as a table, the way OTLP sent them: one row per point, histograms in columns of their own.

use super::batch::{ExponentialPoint, HistogramPoint, PointValue, SummaryPoint, json_floats};
use super::points::SeriesPoints;
use super::points::exemplars_text;
use super::segment::count_list;
use super::series::SeriesMeta;
use super::store::{MetricSnapshot, StoredPoint};
use crate::attribute_columns::KeyColumn;
use crate::attributes;
use crate::columnar::{KeyTypes, arrow_error, public_json, resource_json};
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::io;
use std::sync::Arc;

/// Columns of the table `metrics`, see `docs/sql.md`.
pub fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let float = |name: &str| Field::new(name, DataType::Float64, true);
    let int = |name: &str| Field::new(name, DataType::Int64, true);
    let counts = DataType::List(Arc::new(Field::new_list_field(DataType::UInt64, true)));
    Arc::new(Schema::new(vec![
        Field::new("time", time.clone(), false),
        Field::new("start_time", time, true),
        text("metric_name"),
        text("service_name"),
        text("type"),
        text("unit"),
        text("description"),
        text("temporality"),
        Field::new("is_monotonic", DataType::Boolean, true),
        float("value"),
        int("value_int"),
        int("count"),
        float("sum"),
        float("min"),
        float("max"),
        text("bounds"),
        Field::new("bucket_counts", counts.clone(), true),
        int("scale"),
        int("zero_count"),
        float("zero_threshold"),
        int("positive_offset"),
        Field::new("positive_counts", counts.clone(), true),
        int("negative_offset"),
        Field::new("negative_counts", counts, true),
        text("quantiles"),
        int("flags"),
        text("exemplars"),
        text("scope_name"),
        text("attributes"),
        text("resource_attributes"),
    ]))
}

/// Rows of one batch at most.
const BATCH_ROWS: usize = 8192;

type Rows = Vec<(Arc<SeriesMeta>, StoredPoint)>;

impl MetricSnapshot {
    /// Points whose time may lie in `min_ns..=max_ns`, as batches of `columns`: names of [`schema`] or attribute
    /// keys (`keys` gives their types).
    pub fn record_batches(
        &self,
        columns: Vec<String>,
        keys: KeyTypes,
        min_ns: u64,
        max_ns: u64,
    ) -> impl Iterator<Item = io::Result<RecordBatch>> + Send + use<> {
        let wanted: Vec<(String, DataType)> = {
            let fixed = schema();
            columns
                .into_iter()
                .map(|name| {
                    let data_type = match fixed.field_with_name(&name) {
                        Ok(field) => field.data_type().clone(),
                        Err(_) => keys.column_type(&name).unwrap_or(DataType::Utf8),
                    };
                    (name, data_type)
                })
                .collect()
        };
        let segments: Vec<_> = self
            .segments
            .iter()
            .filter(|s| s.meta.min_ns <= max_ns && s.meta.max_ns >= min_ns)
            .cloned()
            .collect();
        let (hot, frozen) = (self.hot.clone(), self.frozen.clone());
        let sealed = segments.into_iter().flat_map(|segment| {
            let (parts, failed) = match segment.read_all() {
                Ok(parts) => (Some(parts), None),
                Err(error) => (None, Some(Err(error))),
            };
            parts.into_iter().flatten().chain(failed)
        });
        let in_memory = std::iter::once_with(move || {
            let frozen = frozen.iter().flat_map(|table| table.series.iter());
            let all = frozen.chain(hot.iter()).map(|s| (s.meta.clone(), s.points.to_vec()));
            Ok(all.collect())
        });
        sealed.chain(in_memory).flat_map(move |read: io::Result<SeriesPoints>| {
            let batches: Vec<io::Result<RecordBatch>> = match read {
                Err(error) => vec![Err(error)],
                Ok(series) => {
                    let rows: Rows = series
                        .into_iter()
                        .flat_map(|(meta, points)| {
                            points.into_iter().map(move |point| (meta.clone(), point))
                        })
                        // Carries exemplars only: no point that anybody measured.
                        .filter(|(_, point)| point.value != PointValue::Missing)
                        .collect();
                    rows.chunks(BATCH_ROWS).map(|rows| batch(rows, &wanted)).collect()
                }
            };
            batches
        })
    }
}

fn batch(
    rows: &[(Arc<SeriesMeta>, StoredPoint)],
    wanted: &[(String, DataType)],
) -> io::Result<RecordBatch> {
    let texts = |value: &dyn Fn(&SeriesMeta, &StoredPoint) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|(meta, point)| value(meta, point)).collect::<StringArray>())
    };
    let floats = |value: &dyn Fn(&PointValue) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, point)| value(&point.value)).collect::<Float64Array>())
    };
    let ints = |value: &dyn Fn(&PointValue) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, point)| value(&point.value)).collect::<Int64Array>())
    };
    let times = |value: &dyn Fn(&StoredPoint) -> Option<u64>| -> ArrayRef {
        let array: TimestampNanosecondArray =
            rows.iter().map(|(_, point)| value(point).map(|v| v as i64)).collect();
        Arc::new(array.with_timezone("UTC"))
    };
    let lists = |value: &dyn Fn(&PointValue) -> Option<Vec<u64>>| -> ArrayRef {
        count_list(rows.iter().map(|(_, point)| value(&point.value)))
    };
    let mut arrays: Vec<(String, ArrayRef)> = Vec::new();
    for (name, data_type) in wanted {
        let array = match name.as_str() {
            "time" => times(&|p| Some(p.time_ns)),
            "start_time" => times(&|p| (p.start_ns > 0).then_some(p.start_ns)),
            "metric_name" => texts(&|m, _| Some(m.metric.name.to_string())),
            "service_name" => texts(&|m, _| Some(m.metric.resource.service_name.to_string())),
            "type" => texts(&|m, _| Some(m.metric.kind.name().to_owned())),
            "unit" => texts(&|m, _| Some(m.metric.unit.to_string())),
            "description" => texts(&|m, _| Some(m.metric.description.to_string())),
            "temporality" => texts(&|m, _| {
                Some(
                    match m.metric.temporality {
                        1 => "delta",
                        2 => "cumulative",
                        _ => "unspecified",
                    }
                    .to_owned(),
                )
            }),
            "is_monotonic" => {
                let flags: Vec<bool> = rows.iter().map(|(m, _)| m.metric.monotonic).collect();
                Arc::new(BooleanArray::from(flags)) as ArrayRef
            }
            "value" => floats(&|v| match v {
                PointValue::Double(v) => Some(*v),
                PointValue::Int(v) => Some(*v as f64),
                _ => None,
            }),
            "value_int" => ints(&|v| match v {
                PointValue::Int(v) => Some(*v),
                _ => None,
            }),
            "count" => ints(&|v| match v {
                PointValue::Histogram(h) => Some(h.count as i64),
                PointValue::Exponential(h) => Some(h.count as i64),
                PointValue::Summary(s) => Some(s.count as i64),
                PointValue::Native(h) => Some(h.count as i64),
                _ => None,
            }),
            "sum" => floats(&|v| match v {
                PointValue::Histogram(h) => h.sum,
                PointValue::Exponential(h) => h.sum,
                PointValue::Summary(s) => Some(s.sum),
                PointValue::Native(h) => Some(h.sum),
                _ => None,
            }),
            "min" => floats(&|v| extreme(v, |h| h.min, |h| h.min)),
            "max" => floats(&|v| extreme(v, |h| h.max, |h| h.max)),
            "bounds" => texts(&|_, p| match &p.value {
                PointValue::Histogram(h) => Some(json_floats(&h.bounds)),
                _ => None,
            }),
            "bucket_counts" => lists(&|v| match v {
                PointValue::Histogram(h) => Some(h.counts.clone()),
                _ => None,
            }),
            "scale" => ints(&|v| exponential(v).map(|h| i64::from(h.scale))),
            "zero_count" => ints(&|v| exponential(v).map(|h| h.zero_count as i64)),
            "zero_threshold" => floats(&|v| exponential(v).map(|h| h.zero_threshold)),
            "positive_offset" => ints(&|v| exponential(v).map(|h| i64::from(h.positive_offset))),
            "positive_counts" => lists(&|v| exponential(v).map(|h| h.positive.clone())),
            "negative_offset" => ints(&|v| exponential(v).map(|h| i64::from(h.negative_offset))),
            "negative_counts" => lists(&|v| exponential(v).map(|h| h.negative.clone())),
            "quantiles" => texts(&|_, p| match &p.value {
                PointValue::Summary(s) => Some(quantiles_json(s)),
                _ => None,
            }),
            "flags" => {
                let flags = rows.iter().map(|(_, point)| i64::from(point.flags));
                Arc::new(flags.collect::<Int64Array>()) as ArrayRef
            }
            "exemplars" => texts(&|_, p| exemplars_text(&p.exemplars).ok().flatten()),
            "scope_name" => texts(&|m, _| Some(m.metric.scope.name.to_string())),
            "attributes" => {
                texts(&|m, _| Some(attributes::stored_json_object(&m.attributes).to_string()))
            }
            "resource_attributes" => {
                texts(&|m, _| Some(public_json(&resource_json(&m.metric.resource))))
            }
            key => {
                let mut column = KeyColumn::new(data_type);
                for (meta, _) in rows {
                    column.push(
                        attributes::get(&meta.attributes, key)
                            .or_else(|| attributes::get(&meta.metric.resource.attributes, key)),
                    );
                }
                column.finish()
            }
        };
        arrays.push((name.clone(), array));
    }
    RecordBatch::try_from_iter_with_nullable(arrays.into_iter().map(|(n, a)| (n, a, true)))
        .map_err(arrow_error)
}

fn exponential(value: &PointValue) -> Option<&ExponentialPoint> {
    match value {
        PointValue::Exponential(h) => Some(h),
        _ => None,
    }
}

fn extreme(
    value: &PointValue,
    explicit: fn(&HistogramPoint) -> Option<f64>,
    exponential: fn(&ExponentialPoint) -> Option<f64>,
) -> Option<f64> {
    match value {
        PointValue::Histogram(h) => explicit(h),
        PointValue::Exponential(h) => exponential(h),
        _ => None,
    }
}

fn quantiles_json(summary: &SummaryPoint) -> String {
    serde_json::to_string(&summary.quantiles).unwrap_or_default()
}
