//! Native histograms as both remote-write messages carry them: fields 1 to 16 are the same in both.

use super::super::{Reason, Refusal};
use super::zigzag;
use trefoil_storage::metrics::NativeHistogram;
use trefoil_storage::wire::{Field, Fields, WireError};

/// The schema of buckets whose bounds are given one by one.
const CUSTOM: i32 = -53;
/// Resolutions that PromQL computes with.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;
/// Finest resolution that the protocol reserves; anything from 9 up is merged down to 8.
const SCHEMA_RESERVED_MAX: i32 = 52;
/// Populated and named empty buckets of one side; 2^16 is far beyond what any client library keeps.
const BUCKETS_MAX: usize = 1 << 16;

/// A histogram sample.
pub(super) struct Sample {
    pub histogram: NativeHistogram,
    /// Unix ms.
    pub time_ms: i64,
    /// Unix ms, 0 = not known.
    pub start_ms: i64,
}

/// One side of a histogram as it stands on the wire: runs of buckets, and counts as deltas or as floats.
#[derive(Default)]
struct Side {
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// Reads a `Histogram` message.
///
/// Source: prometheus/prometheus `prompb/types.proto` and `prompb/io/prometheus/write/v2/types.proto`.
pub(super) fn decode(message: &[u8]) -> Result<Sample, Refusal> {
    let mut histogram = NativeHistogram::default();
    let (mut positive, mut negative) = (Side::default(), Side::default());
    let (mut time_ms, mut start_ms) = (0, 0);
    for field in Fields::new(message) {
        match field? {
            (1, field) => histogram.count = field.varint(1)? as f64,
            (2, field) => histogram.count = f64::from_bits(field.fixed64(2)?),
            (3, field) => histogram.sum = f64::from_bits(field.fixed64(3)?),
            (4, field) => histogram.schema = zigzag(field.varint(4)?) as i32,
            (5, field) => histogram.zero_threshold = f64::from_bits(field.fixed64(5)?),
            (6, field) => histogram.zero_count = field.varint(6)? as f64,
            (7, field) => histogram.zero_count = f64::from_bits(field.fixed64(7)?),
            (8, field) => negative.spans.push(span(field.bytes(8)?)?),
            (9, field) => signed(field, 9, &mut negative.deltas)?,
            (10, field) => doubles(field, 10, &mut negative.counts)?,
            (11, field) => positive.spans.push(span(field.bytes(11)?)?),
            (12, field) => signed(field, 12, &mut positive.deltas)?,
            (13, field) => doubles(field, 13, &mut positive.counts)?,
            (14, field) => histogram.reset_hint = field.varint(14)? as i32,
            (15, field) => time_ms = field.varint(15)? as i64,
            (16, field) => doubles(field, 16, &mut histogram.custom_bounds)?,
            (17, field) => start_ms = field.varint(17)? as i64,
            _ => {}
        }
    }
    histogram.positive = positive.buckets()?;
    histogram.negative = negative.buckets()?;
    check(&mut histogram)?;
    Ok(Sample { histogram, time_ms, start_ms })
}

/// Refuses what has no meaning. A count that differs from the sum of the buckets is fine: NaN observations are in
/// the count alone.
fn check(histogram: &mut NativeHistogram) -> Result<(), Refusal> {
    let bad = Err(Refusal::Record(Reason::Histogram));
    if histogram.schema == CUSTOM {
        let bounds = &histogram.custom_bounds;
        let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        // A last bound of +Inf says nothing, but a NaN or an infinite bound elsewhere is a mistake.
        let finite = bounds.iter().all(|bound| bound.is_finite());
        let within = histogram
            .positive
            .iter()
            .all(|(index, _)| usize::try_from(*index).is_ok_and(|index| index <= bounds.len()));
        let only_positive = histogram.negative.is_empty() && histogram.zero_count == 0.0;
        if !(ascending && finite && within && only_positive) {
            return bad;
        }
        histogram.zero_threshold = 0.0;
        return Ok(());
    }
    if !histogram.custom_bounds.is_empty() {
        return bad;
    }
    if SCHEMAS.contains(&histogram.schema) {
        return Ok(());
    }
    if (*SCHEMAS.end()..=SCHEMA_RESERVED_MAX).contains(&histogram.schema) {
        let steps = histogram.schema - SCHEMAS.end();
        for side in [&mut histogram.positive, &mut histogram.negative] {
            *side = coarser(side, steps);
        }
        histogram.schema = *SCHEMAS.end();
        return Ok(());
    }
    bad
}

/// Buckets at a resolution halved `steps` times. Bucket `i` ends at `base^i`, so `2i - 1` and `2i` become `i`.
fn coarser(buckets: &[(i32, f64)], steps: i32) -> Vec<(i32, f64)> {
    let mut merged: Vec<(i32, f64)> = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        let index = ((i64::from(*index) - 1) >> steps.clamp(0, 31)) as i32 + 1;
        match merged.last_mut() {
            Some((last, sum)) if *last == index => *sum += count,
            _ => merged.push((index, *count)),
        }
    }
    merged
}

impl Side {
    /// (index, count) of the buckets that are not empty, ascending.
    fn buckets(self) -> Result<Vec<(i32, f64)>, Refusal> {
        let bad = Refusal::Record(Reason::Histogram);
        let floats = !self.counts.is_empty();
        let len = if floats { self.counts.len() } else { self.deltas.len() };
        let named: u64 = self.spans.iter().map(|(_, length)| u64::from(*length)).sum();
        if named != len as u64 || len > BUCKETS_MAX || (floats && !self.deltas.is_empty()) {
            return Err(bad);
        }
        let mut buckets = Vec::with_capacity(len);
        let (mut at, mut index, mut running) = (0, 0i32, 0i64);
        for (number, (offset, length)) in self.spans.iter().enumerate() {
            // Only the first span may begin left of the place before it.
            if number > 0 && *offset < 0 {
                return Err(bad);
            }
            index = index.checked_add(*offset).ok_or(bad)?;
            for _ in 0..*length {
                let count = if floats {
                    self.counts[at]
                } else {
                    running = running.checked_add(self.deltas[at]).ok_or(bad)?;
                    running as f64
                };
                if count < 0.0 {
                    return Err(bad);
                }
                if count != 0.0 {
                    buckets.push((index, count));
                }
                at += 1;
                index = index.checked_add(1).ok_or(bad)?;
            }
        }
        Ok(buckets)
    }
}

/// `BucketSpan`: gap before it, and length.
fn span(message: &[u8]) -> Result<(i32, u32), WireError> {
    let (mut offset, mut length) = (0, 0);
    for field in Fields::new(message) {
        match field? {
            (1, field) => offset = zigzag(field.varint(1)?) as i32,
            (2, field) => length = field.varint(2)? as u32,
            _ => {}
        }
    }
    Ok((offset, length))
}

/// A repeated `sint64`, packed or not.
fn signed(field: Field<'_>, number: u32, out: &mut Vec<i64>) -> Result<(), WireError> {
    super::varints(field, number, |value| out.push(zigzag(value)))
}

/// A repeated `double`, packed or not.
fn doubles(field: Field<'_>, number: u32, out: &mut Vec<f64>) -> Result<(), WireError> {
    match field {
        Field::Bytes(packed) => {
            let (values, rest) = packed.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(WireError::Truncated);
            }
            out.extend(values.iter().map(|bits| f64::from_le_bytes(*bits)));
        }
        other => out.push(f64::from_bits(other.fixed64(number)?)),
    }
    Ok(())
}
