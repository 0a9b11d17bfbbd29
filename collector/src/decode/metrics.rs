//! `ExportMetricsServiceRequest` → [`MetricBatch`].

use super::{DecodeLimits, Reason, Refusal, Rejections, lenient, malformed, push_attribute, walk};
use std::sync::Arc;
use trefoil_storage::metrics::{
    ExponentialPoint, HistogramPoint, MetricBatch, MetricDesc, MetricExemplar, MetricKind,
    NO_RECORDED_VALUE, Point, PointValue, Quantile, STALE_BITS, SummaryPoint, series_id,
};
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::{Batch, Decoded};
use trefoil_storage::wire::{self, Field, Fields, WireError};

/// Decodes one metrics export, keeping what is valid.
///
/// * `body`: resources × scopes × metrics × n points, as sent; nothing in it is trusted.
/// * returns the accepted points in request order; accepted + rejected is always n.
///
/// # Errors
/// A message for the sender when the bytes are not such a request; nothing is kept.
///
/// Source: opentelemetry-proto `metrics/v1/metrics.proto`.
pub fn decode(
    body: &[u8],
    arrival_ns: u64,
    interner: &Interner,
    limits: &DecodeLimits,
) -> Result<Decoded, String> {
    let mut out = Decoding {
        batch: MetricBatch::default(),
        rejections: Rejections::default(),
        latest_ns: arrival_ns.saturating_add(limits.future_ns),
        limits,
        bounds: Arc::from([]),
    };
    walk(body, interner, limits, |resource, scope, metric| {
        let mut desc = MetricDesc {
            name: "".into(),
            description: "".into(),
            unit: "".into(),
            kind: MetricKind::Gauge,
            temporality: 0,
            monotonic: false,
            resource: resource.clone(),
            scope: scope.clone(),
        };
        let mut data = &b""[..];
        let mut some = false;
        for field in Fields::new(metric) {
            match field? {
                (1, field) => desc.name = lenient(field.bytes(1)?).into(),
                (2, field) => desc.description = lenient(field.bytes(2)?).into(),
                (3, field) => desc.unit = lenient(field.bytes(3)?).into(),
                (number @ (5 | 7 | 9 | 10 | 11), field) => {
                    data = field.bytes(number)?;
                    some = true;
                    desc.kind = match number {
                        5 => MetricKind::Gauge,
                        7 => MetricKind::Sum,
                        9 => MetricKind::Histogram,
                        10 => MetricKind::ExponentialHistogram,
                        _ => MetricKind::Summary,
                    };
                }
                _ => {}
            }
        }
        if some { out.metric(desc, data) } else { Ok(()) }
    })
    .map_err(|error| malformed("ExportMetricsServiceRequest", error))?;
    Ok(Decoded {
        accepted: out.batch.len() as u64,
        rejected: out.rejections.total(),
        reason: out.rejections.message(),
        batch: Batch::Metrics(out.batch),
    })
}

struct Decoding<'a> {
    batch: MetricBatch,
    rejections: Rejections,
    latest_ns: u64,
    limits: &'a DecodeLimits,
    /// Bounds of the last histogram point: the next one nearly always has the same.
    bounds: Arc<[f64]>,
}

impl Decoding<'_> {
    /// The message inside `Metric.data`: field 1 points, 2 temporality, 3 monotonic.
    fn metric(&mut self, mut desc: MetricDesc, data: &[u8]) -> Result<(), WireError> {
        let mut points = 0;
        for field in Fields::new(data) {
            match field? {
                (1, _) => points += 1,
                (2, field) => desc.temporality = field.varint(2)? as u8,
                (3, field) => desc.monotonic = field.varint(3)? != 0,
                _ => {}
            }
        }
        if desc.name.is_empty() {
            self.rejections.add(Reason::Name, points);
            return Ok(());
        }
        let (kind, id) = (desc.kind, desc.id());
        let number = self.batch.metrics.len() as u32;
        self.batch.metrics.push(Arc::new(desc));
        for field in Fields::new(data) {
            let (1, field) = field? else { continue };
            let point = field.bytes(1)?;
            let decoded = match kind {
                MetricKind::Histogram => self.histogram(point),
                MetricKind::ExponentialHistogram => self.exponential(point),
                MetricKind::Summary => self.summary(point),
                _ => self.number(point),
            };
            match decoded.and_then(|point| self.check(point)) {
                Ok(mut point) => {
                    self.batch.attributes.end_row();
                    let row = self.batch.points.len();
                    point.metric = number;
                    point.series_id = series_id(id, self.batch.attributes.get(row));
                    self.batch.points.push(point);
                }
                Err(Refusal::Wire(error)) => return Err(error),
                Err(Refusal::Record(reason)) => {
                    self.batch.attributes.abandon_row();
                    self.rejections.add(reason, 1);
                }
            }
        }
        Ok(())
    }

    fn check(&self, point: Point) -> Result<Point, Refusal> {
        if point.time_ns == 0 {
            return Err(Refusal::Record(Reason::NoTime));
        }
        if point.time_ns > self.latest_ns {
            return Err(Refusal::Record(Reason::Future));
        }
        Ok(point)
    }

    fn attribute(&mut self, pair: &[u8]) -> Result<(), Refusal> {
        push_attribute(self.batch.attributes.open_row(), pair, self.limits)
    }

    /// `NumberDataPoint`.
    fn number(&mut self, message: &[u8]) -> Result<Point, Refusal> {
        let mut point = empty();
        let mut value = None;
        for field in Fields::new(message) {
            match field? {
                (2, field) => point.start_ns = field.fixed64(2)?,
                (3, field) => point.time_ns = field.fixed64(3)?,
                (4, field) => value = Some(PointValue::Double(f64::from_bits(field.fixed64(4)?))),
                (5, field) => point.exemplars.push(self.exemplar(field.bytes(5)?)?),
                (6, field) => value = Some(PointValue::Int(field.fixed64(6)? as i64)),
                (7, field) => self.attribute(field.bytes(7)?)?,
                (8, field) => point.flags = field.varint(8)? as u32,
                _ => {}
            }
        }
        point.value = match value {
            Some(value) => value,
            None if point.flags & NO_RECORDED_VALUE != 0 => {
                PointValue::Double(f64::from_bits(STALE_BITS))
            }
            None => PointValue::Double(0.0),
        };
        Ok(point)
    }

    /// `HistogramDataPoint`.
    fn histogram(&mut self, message: &[u8]) -> Result<Point, Refusal> {
        let mut point = empty();
        let (mut count, mut sum, mut min, mut max) = (0, None, None, None);
        let mut counts = Vec::new();
        let mut bounds = Vec::new();
        for field in Fields::new(message) {
            match field? {
                (2, field) => point.start_ns = field.fixed64(2)?,
                (3, field) => point.time_ns = field.fixed64(3)?,
                (4, field) => count = field.fixed64(4)?,
                (5, field) => sum = Some(f64::from_bits(field.fixed64(5)?)),
                (6, field) => fixed64_list(field, 6, |v| counts.push(v))?,
                (7, field) => fixed64_list(field, 7, |v| bounds.push(f64::from_bits(v)))?,
                (8, field) => point.exemplars.push(self.exemplar(field.bytes(8)?)?),
                (9, field) => self.attribute(field.bytes(9)?)?,
                (10, field) => point.flags = field.varint(10)? as u32,
                (11, field) => min = Some(f64::from_bits(field.fixed64(11)?)),
                (12, field) => max = Some(f64::from_bits(field.fixed64(12)?)),
                _ => {}
            }
        }
        // No buckets at all is allowed; else there is one more count than bounds, and bounds ascend.
        let fits = (counts.is_empty() && bounds.is_empty()) || counts.len() == bounds.len() + 1;
        let total: u128 = counts.iter().map(|c| u128::from(*c)).sum();
        let gone = point.flags & NO_RECORDED_VALUE != 0;
        if !gone
            && (!fits
                || !bounds.windows(2).all(|pair| pair[0] < pair[1])
                || (!counts.is_empty() && total != u128::from(count)))
        {
            return Err(Refusal::Record(Reason::Histogram));
        }
        if *self.bounds != *bounds {
            self.bounds = bounds.into();
        }
        point.value = PointValue::Histogram(Box::new(HistogramPoint {
            count,
            sum,
            min,
            max,
            bounds: self.bounds.clone(),
            counts,
            totals: None,
        }));
        Ok(point)
    }

    /// `ExponentialHistogramDataPoint`.
    fn exponential(&mut self, message: &[u8]) -> Result<Point, Refusal> {
        let mut point = empty();
        let mut value = ExponentialPoint::default();
        for field in Fields::new(message) {
            match field? {
                (1, field) => self.attribute(field.bytes(1)?)?,
                (2, field) => point.start_ns = field.fixed64(2)?,
                (3, field) => point.time_ns = field.fixed64(3)?,
                (4, field) => value.count = field.fixed64(4)?,
                (5, field) => value.sum = Some(f64::from_bits(field.fixed64(5)?)),
                (6, field) => value.scale = zigzag(field.varint(6)?),
                (7, field) => value.zero_count = field.fixed64(7)?,
                (8, field) => {
                    (value.positive_offset, value.positive) = exponential_buckets(field.bytes(8)?)?;
                }
                (9, field) => {
                    (value.negative_offset, value.negative) = exponential_buckets(field.bytes(9)?)?;
                }
                (10, field) => point.flags = field.varint(10)? as u32,
                (11, field) => point.exemplars.push(self.exemplar(field.bytes(11)?)?),
                (12, field) => value.min = Some(f64::from_bits(field.fixed64(12)?)),
                (13, field) => value.max = Some(f64::from_bits(field.fixed64(13)?)),
                (14, field) => value.zero_threshold = f64::from_bits(field.fixed64(14)?),
                _ => {}
            }
        }
        let buckets = value.positive.iter().chain(&value.negative).map(|c| u128::from(*c));
        let total = buckets.sum::<u128>() + u128::from(value.zero_count);
        if point.flags & NO_RECORDED_VALUE == 0 && total != u128::from(value.count) {
            return Err(Refusal::Record(Reason::Histogram));
        }
        point.value = PointValue::Exponential(Box::new(value));
        Ok(point)
    }

    /// `SummaryDataPoint`.
    fn summary(&mut self, message: &[u8]) -> Result<Point, Refusal> {
        let mut point = empty();
        let mut value = SummaryPoint::default();
        for field in Fields::new(message) {
            match field? {
                (2, field) => point.start_ns = field.fixed64(2)?,
                (3, field) => point.time_ns = field.fixed64(3)?,
                (4, field) => value.count = field.fixed64(4)?,
                (5, field) => value.sum = f64::from_bits(field.fixed64(5)?),
                (6, field) => {
                    let mut quantile = Quantile::default();
                    for field in Fields::new(field.bytes(6)?) {
                        match field? {
                            (1, field) => quantile.quantile = f64::from_bits(field.fixed64(1)?),
                            (2, field) => quantile.value = f64::from_bits(field.fixed64(2)?),
                            _ => {}
                        }
                    }
                    value.quantiles.push(quantile);
                }
                (7, field) => self.attribute(field.bytes(7)?)?,
                (8, field) => point.flags = field.varint(8)? as u32,
                _ => {}
            }
        }
        point.value = PointValue::Summary(Box::new(value));
        Ok(point)
    }

    /// `Exemplar`. Wrong-length IDs mean that there is none.
    fn exemplar(&self, message: &[u8]) -> Result<MetricExemplar, Refusal> {
        let mut exemplar = MetricExemplar::default();
        for field in Fields::new(message) {
            match field? {
                (2, field) => exemplar.time_ns = field.fixed64(2)?,
                (3, field) => exemplar.value = f64::from_bits(field.fixed64(3)?),
                (4, field) => exemplar.span_id = exact(field.bytes(4)?, 8),
                (5, field) => exemplar.trace_id = exact(field.bytes(5)?, 16),
                (6, field) => {
                    exemplar.value = field.fixed64(6)? as i64 as f64;
                    exemplar.is_int = true;
                }
                (7, field) => {
                    push_attribute(&mut exemplar.attributes, field.bytes(7)?, self.limits)?;
                }
                _ => {}
            }
        }
        Ok(exemplar)
    }
}

fn empty() -> Point {
    Point {
        metric: 0,
        series_id: 0,
        time_ns: 0,
        start_ns: 0,
        flags: 0,
        value: PointValue::Int(0),
        exemplars: Vec::new(),
    }
}

/// An ID of the right length that is not all zero, else nothing.
fn exact(id: &[u8], len: usize) -> Vec<u8> {
    if id.len() == len && id.iter().any(|b| *b != 0) { id.to_vec() } else { Vec::new() }
}

/// `Buckets`: 1 offset (sint32), 2 counts (packed varints).
fn exponential_buckets(message: &[u8]) -> Result<(i32, Vec<u64>), WireError> {
    let (mut offset, mut counts) = (0, Vec::new());
    for field in Fields::new(message) {
        match field? {
            (1, field) => offset = zigzag(field.varint(1)?),
            (2, Field::Varint(count)) => counts.push(count),
            (2, field) => {
                let mut packed = field.bytes(2)?;
                while !packed.is_empty() {
                    counts.push(wire::take_varint(&mut packed)?);
                }
            }
            _ => {}
        }
    }
    Ok((offset, counts))
}

/// A repeated fixed64 field, packed or one by one.
fn fixed64_list(field: Field<'_>, number: u32, mut each: impl FnMut(u64)) -> Result<(), WireError> {
    if let Field::Fixed64(value) = field {
        each(value);
        return Ok(());
    }
    let (chunks, rest) = field.bytes(number)?.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(WireError::Truncated);
    }
    chunks.iter().for_each(|chunk| each(u64::from_le_bytes(*chunk)));
    Ok(())
}

/// sint32.
fn zigzag(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}
