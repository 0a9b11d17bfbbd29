//! Decoded metric points.

use super::native::{NativeHistogram, float, floats, maybe_float};
use crate::columns::BytesColumn;
use crate::resource::{Resource, Scope};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// `DataPointFlags`: the point says that there is no value any more.
pub const NO_RECORDED_VALUE: u32 = 1;

/// Kinds of metrics; `Prometheus` series came by remote write and carry labels instead of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
    Prometheus,
}

impl MetricKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Sum => "sum",
            Self::Histogram => "histogram",
            Self::ExponentialHistogram => "exponential_histogram",
            Self::Summary => "summary",
            Self::Prometheus => "prometheus",
        }
    }
}

/// What all points of one OTLP metric share.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricDesc {
    pub name: Arc<str>,
    pub description: Arc<str>,
    /// UCUM, as sent.
    pub unit: Arc<str>,
    pub kind: MetricKind,
    /// `AggregationTemporality`: 0 unspecified, 1 delta, 2 cumulative.
    pub temporality: u8,
    pub monotonic: bool,
    pub resource: Arc<Resource>,
    pub scope: Arc<Scope>,
}

/// `AGGREGATION_TEMPORALITY_DELTA`.
pub const DELTA: u8 = 1;

impl MetricDesc {
    /// Identity over everything but the description, which may change without starting new series.
    pub fn id(&self) -> u128 {
        let mut bytes = Vec::with_capacity(self.name.len() + self.unit.len() + 48);
        bytes.extend_from_slice(&self.resource.id.to_le_bytes());
        bytes.extend_from_slice(&self.scope.id.to_le_bytes());
        bytes.extend_from_slice(&[self.kind as u8, self.temporality, u8::from(self.monotonic)]);
        bytes.extend_from_slice(&(self.name.len() as u64).to_le_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.extend_from_slice(self.unit.as_bytes());
        xxh3_128(&bytes)
    }

    pub fn is_delta(&self) -> bool {
        self.temporality == DELTA
    }
}

/// One decoded request of metrics.
#[derive(Debug, Default)]
pub struct MetricBatch {
    pub metrics: Vec<Arc<MetricDesc>>,
    pub points: Vec<Point>,
    /// Canonical attribute list per point; labels for `Prometheus` series.
    pub attributes: BytesColumn,
    /// What a Prometheus sender says of its families. No records: they come again and again.
    pub families: Vec<FamilyMetadata>,
}

/// Metadata of a Prometheus metric family from remote write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyMetadata {
    /// Name without `_bucket`, `_sum`, `_count`.
    pub family: Arc<str>,
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or `unknown`.
    pub kind: Arc<str>,
    pub unit: Arc<str>,
    pub help: Arc<str>,
}

impl MetricBatch {
    pub fn len(&self) -> usize {
        self.points.len()
    }

    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

/// Identity of the series of a point: its metric and its attributes in the order sent.
pub fn series_id(metric_id: u128, attributes: &[u8]) -> u128 {
    xxh3_128_with_seed(attributes, metric_id as u64) ^ metric_id.rotate_left(17)
}

/// One point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Index into the batch's metrics.
    pub metric: u32,
    pub series_id: u128,
    /// Unix ns.
    pub time_ns: u64,
    /// Unix ns, 0 = not known.
    pub start_ns: u64,
    pub flags: u32,
    pub value: PointValue,
    pub exemplars: Vec<MetricExemplar>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum PointValue {
    Double(f64),
    Int(i64),
    Histogram(Box<HistogramPoint>),
    Exponential(Box<ExponentialPoint>),
    Summary(Box<SummaryPoint>),
    /// A Prometheus native histogram from remote write.
    Native(Box<NativeHistogram>),
    /// No value: the point only carries exemplars, which remote write may send apart from samples.
    Missing,
}

/// `HistogramDataPoint`.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramPoint {
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// Upper bounds, ascending, +Inf left out.
    pub bounds: Arc<[f64]>,
    /// One more than bounds, or empty when the sender keeps no buckets.
    pub counts: Vec<u64>,
    /// Running totals of a delta series up to this point.
    pub totals: Option<Box<HistogramTotals>>,
}

/// Sums over the delta points of a series so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramTotals {
    pub count: u64,
    pub sum: f64,
    pub counts: Vec<u64>,
}

/// `ExponentialHistogramDataPoint`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExponentialPoint {
    pub count: u64,
    #[serde(with = "maybe_float", default)]
    pub sum: Option<f64>,
    #[serde(with = "maybe_float", default)]
    pub min: Option<f64>,
    #[serde(with = "maybe_float", default)]
    pub max: Option<f64>,
    pub scale: i32,
    pub zero_count: u64,
    #[serde(with = "float", default)]
    pub zero_threshold: f64,
    pub positive_offset: i32,
    pub positive: Vec<u64>,
    pub negative_offset: i32,
    pub negative: Vec<u64>,
    /// Running total of a delta series up to this point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Box<NativeHistogram>>,
}

/// `SummaryDataPoint`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SummaryPoint {
    pub count: u64,
    #[serde(with = "float")]
    pub sum: f64,
    pub quantiles: Vec<Quantile>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    #[serde(with = "float")]
    pub quantile: f64,
    #[serde(with = "float")]
    pub value: f64,
}

/// `Exemplar`: a measurement with the trace in which it was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricExemplar {
    pub time_ns: u64,
    #[serde(with = "float")]
    pub value: f64,
    /// The value was sent as an integer.
    #[serde(default)]
    pub is_int: bool,
    /// Empty when there is none.
    #[serde(default)]
    pub trace_id: Vec<u8>,
    #[serde(default)]
    pub span_id: Vec<u8>,
    /// Canonical attribute list.
    #[serde(default)]
    pub attributes: Vec<u8>,
}

impl PointValue {
    /// Heap bytes held.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Double(_) | Self::Int(_) | Self::Missing => 0,
            Self::Histogram(p) => size_of::<HistogramPoint>() + p.counts.len() * 8,
            Self::Exponential(p) => {
                size_of::<ExponentialPoint>() + (p.positive.len() + p.negative.len()) * 8
            }
            Self::Summary(p) => size_of::<SummaryPoint>() + p.quantiles.len() * 16,
            Self::Native(h) => {
                size_of::<NativeHistogram>() + (h.positive.len() + h.negative.len()) * 16
            }
        }
    }
}

/// Used by tables that show lists of numbers as text.
pub(super) fn json_floats(values: &[f64]) -> String {
    #[derive(Serialize)]
    struct List<'a>(#[serde(serialize_with = "floats::serialize")] &'a [f64]);
    serde_json::to_string(&List(values)).unwrap_or_default()
}
