//! Adding and subtracting native histograms, with compensated sums in every bucket.

use std::sync::Arc;

use crate::histogram::buckets::exponential_bound;
use crate::histogram::{Bucket, CounterResetHint, Histogram};
use crate::kahan::Kahan;

/// One histogram has exponential buckets, the other custom ones: they have no common layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// What a caller may want to tell the user about a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remarks {
    /// One side said "reset", the other "no reset".
    pub reset_collision: bool,
    /// Custom bounds differed; the result has the bounds both share.
    pub bounds_reconciled: bool,
}

/// A running sum of histograms.
#[derive(Clone, Debug)]
pub(crate) struct HistogramSum {
    schema: i32,
    zero_threshold: f64,
    zero: Kahan,
    count: Kahan,
    sum: Kahan,
    positive: Side,
    negative: Side,
    custom_values: Option<Arc<[f64]>>,
    pub(crate) reset_hint: CounterResetHint,
}

/// Buckets by ascending index.
type Side = Vec<(i32, Kahan)>;

fn side(buckets: &[Bucket]) -> Side {
    buckets.iter().map(|b| (b.index, Kahan::new(b.count))).collect()
}

/// The index that a bucket has at a lower resolution.
pub(crate) fn reduced_index(index: i32, from_schema: i32, to_schema: i32) -> i32 {
    (((i64::from(index) - 1) >> (from_schema - to_schema)) + 1) as i32
}

fn reduce(buckets: &mut Side, from_schema: i32, to_schema: i32) {
    let mut out: Side = Vec::with_capacity(buckets.len());
    for &(index, count) in buckets.iter() {
        let index = reduced_index(index, from_schema, to_schema);
        match out.last_mut() {
            Some((last, total)) if *last == index => {
                total.add(count.sum);
                total.low += count.low;
            }
            _ => out.push((index, count)),
        }
    }
    *buckets = out;
}

fn merge(into: &mut Side, other: &Side, sign: f64) {
    let mut out: Side = Vec::with_capacity(into.len().max(other.len()));
    let mut theirs = other.iter().peekable();
    for &(index, mut count) in into.iter() {
        while let Some((i, c)) = theirs.next_if(|(i, _)| *i < index) {
            out.push((*i, Kahan::new(sign * c.value())));
        }
        if let Some((_, c)) = theirs.next_if(|(i, _)| *i == index) {
            count.add(sign * c.value());
        }
        out.push((index, count));
    }
    out.extend(theirs.map(|(i, c)| (*i, Kahan::new(sign * c.value()))));
    *into = out;
}

impl HistogramSum {
    /// A sum that starts with a histogram.
    pub(crate) fn new(h: &Histogram) -> Self {
        HistogramSum {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero: Kahan::new(h.zero_count),
            count: Kahan::new(h.count),
            sum: Kahan::new(h.sum),
            positive: side(&h.positive),
            negative: side(&h.negative),
            custom_values: h.custom_values.clone(),
            reset_hint: h.reset_hint,
        }
    }

    /// Adds a histogram.
    pub(crate) fn add(&mut self, other: &Histogram) -> Result<Remarks, Incompatible> {
        self.combine(other, 1.0)
    }

    /// Subtracts a histogram.
    pub(crate) fn sub(&mut self, other: &Histogram) -> Result<Remarks, Incompatible> {
        self.combine(other, -1.0)
    }

    /// Adds a multiple of a histogram; the sign decides what happens to the hint.
    fn combine(&mut self, other: &Histogram, sign: f64) -> Result<Remarks, Incompatible> {
        let custom = self.custom_layout();
        if custom != other.uses_custom_buckets() {
            return Err(Incompatible);
        }
        let mut remarks =
            Remarks { reset_collision: self.combine_hint(other.reset_hint), ..Remarks::default() };
        let mut other = HistogramSum::new(other);
        if !custom {
            self.reconcile_zero(&mut other);
            self.zero.add(sign * other.zero.value());
        }
        self.count.add(sign * other.count.sum);
        self.sum.add(sign * other.sum.sum);
        if custom {
            let (ours, theirs) = (self.bounds(), other.bounds());
            if ours != theirs {
                remarks.bounds_reconciled = true;
                let shared = intersect(ours, theirs);
                map_to_bounds(&mut self.positive, self.custom_values.as_deref(), &shared);
                map_to_bounds(&mut other.positive, other.custom_values.as_deref(), &shared);
                self.custom_values = Some(shared.into());
            }
            merge(&mut self.positive, &other.positive, sign);
            return Ok(remarks);
        }
        self.lower_to(other.schema);
        other.lower_to(self.schema);
        let (schema, threshold) = (self.schema, self.zero_threshold);
        for side in [&mut other.positive, &mut other.negative] {
            // What lies inside the zero bucket is counted there.
            side.retain(|(index, _)| exponential_bound(*index, schema) > threshold);
        }
        merge(&mut self.positive, &other.positive, sign);
        merge(&mut self.negative, &other.negative, sign);
        Ok(remarks)
    }

    fn custom_layout(&self) -> bool {
        self.schema == crate::histogram::CUSTOM_BUCKETS_SCHEMA
    }

    fn bounds(&self) -> &[f64] {
        self.custom_values.as_deref().unwrap_or(&[])
    }

    /// Lowers the resolution; does nothing if it is that low already.
    fn lower_to(&mut self, schema: i32) {
        if schema < self.schema {
            reduce(&mut self.positive, self.schema, schema);
            reduce(&mut self.negative, self.schema, schema);
            self.schema = schema;
        }
    }

    /// Hints are about counters; sums are mostly made of gauges, so this only keeps what is still
    /// certain. Returns whether the hints contradict each other.
    fn combine_hint(&mut self, other: CounterResetHint) -> bool {
        use CounterResetHint::{Gauge, Unknown};
        let ours = self.reset_hint;
        if ours == other || ours == Gauge {
            return false;
        }
        if other == Gauge {
            self.reset_hint = Gauge;
            return false;
        }
        self.reset_hint = Unknown;
        ours != Unknown && other != Unknown
    }

    /// Widens the zero buckets of both until they are the same and end at no populated bucket.
    fn reconcile_zero(&mut self, other: &mut HistogramSum) {
        while self.zero_threshold != other.zero_threshold {
            if self.zero_threshold.is_nan() || other.zero_threshold.is_nan() {
                return;
            }
            if self.zero_threshold > other.zero_threshold {
                other.widen_zero(self.zero_threshold);
            }
            if other.zero_threshold > self.zero_threshold {
                self.widen_zero(other.zero_threshold);
            }
        }
    }

    /// Moves buckets into the zero bucket until it reaches the threshold, or further, to the end of a
    /// populated bucket that the threshold falls into.
    pub(crate) fn widen_zero(&mut self, mut threshold: f64) {
        let schema = self.schema;
        let zero = 'retry: loop {
            let mut zero = self.zero;
            for (is_negative, side) in [(false, &self.positive), (true, &self.negative)] {
                for (index, count) in side {
                    if exponential_bound(index - 1, schema) >= threshold {
                        break;
                    }
                    let upper = exponential_bound(*index, schema);
                    let populated = count.sum != 0.0;
                    if upper > threshold && populated {
                        threshold = upper;
                        if is_negative {
                            // The positive side has to be looked at again.
                            continue 'retry;
                        }
                        zero.add(count.value());
                        break;
                    }
                    if upper > threshold {
                        break;
                    }
                    zero.add(count.value());
                }
            }
            break zero;
        };
        self.zero = zero;
        self.zero_threshold = threshold;
        for side in [&mut self.positive, &mut self.negative] {
            side.retain(|(index, _)| exponential_bound(index - 1, schema) >= threshold);
        }
    }

    /// Multiplies everything.
    pub(crate) fn scale(&mut self, factor: f64) {
        for k in [&mut self.zero, &mut self.count, &mut self.sum] {
            k.scale(factor);
        }
        for (_, k) in self.positive.iter_mut().chain(&mut self.negative) {
            k.scale(factor);
        }
    }

    /// Divides everything by a number other than zero.
    pub(crate) fn divide(&mut self, divisor: f64) {
        let divide = |k: &mut Kahan| {
            k.sum /= divisor;
            k.low /= divisor;
        };
        for k in [&mut self.zero, &mut self.count, &mut self.sum] {
            divide(k);
        }
        self.positive.iter_mut().chain(&mut self.negative).for_each(|(_, k)| divide(k));
    }

    /// Whether adding a histogram may leave the range of floats.
    pub(crate) fn may_overflow(&self, other: &Histogram) -> bool {
        let large = |v: f64| v.is_nan() || v.abs() >= f64::MAX / 4.0;
        let buckets = self.positive.iter().chain(&self.negative).map(|(_, k)| k.sum);
        let theirs = other.positive.iter().chain(&other.negative).map(|b| b.count);
        [self.zero.sum, self.count.sum, self.sum.sum, other.zero_count, other.count, other.sum]
            .into_iter()
            .chain(buckets)
            .chain(theirs)
            .any(large)
    }

    /// Whether a value has left the range of floats.
    pub(crate) fn has_overflow(&self) -> bool {
        let buckets = self.positive.iter().chain(&self.negative).map(|(_, k)| k.sum);
        [self.zero.sum, self.count.sum, self.sum.sum]
            .into_iter()
            .chain(buckets)
            .any(f64::is_infinite)
    }

    /// The sum as a histogram, without empty buckets.
    pub(crate) fn finish(self) -> Histogram {
        let buckets = |side: Side| {
            side.into_iter()
                .map(|(index, k)| Bucket { index, count: k.value() })
                .filter(|b| b.count != 0.0)
                .collect()
        };
        Histogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero.value(),
            count: self.count.value(),
            sum: self.sum.value(),
            positive: buckets(self.positive),
            negative: buckets(self.negative),
            custom_values: self.custom_values,
            reset_hint: self.reset_hint,
        }
    }
}

/// The bounds that two ascending lists share.
fn intersect(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut out = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x == y {
            out.push(*x);
        }
        if x <= y {
            i += 1;
        }
        if y <= x {
            j += 1;
        }
    }
    out
}

/// Moves each bucket to the one of the coarser bounds that holds it.
fn map_to_bounds(buckets: &mut Side, from: Option<&[f64]>, to: &[f64]) {
    let from = from.unwrap_or(&[]);
    let mut out: Side = Vec::with_capacity(buckets.len());
    for &(index, count) in buckets.iter() {
        let upper = usize::try_from(index).ok().and_then(|i| from.get(i));
        let target = match upper {
            Some(upper) => to.partition_point(|bound| bound < upper),
            None => to.len(),
        };
        match out.last_mut() {
            Some((last, total)) if *last == target as i32 => total.add(count.value()),
            _ => out.push((target as i32, count)),
        }
    }
    *buckets = out;
}
