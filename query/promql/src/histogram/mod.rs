//! Native histograms: exponential buckets (schema -4 to 8) and custom buckets (schema -53).

mod buckets;
mod compare;
mod sum;
mod trim;

use std::fmt;
use std::sync::Arc;

pub use buckets::BoundedBucket;
pub(crate) use compare::detect_resets;
pub use compare::mark_reset;
pub(crate) use sum::{HistogramSum, Incompatible, Remarks};
pub(crate) use trim::Keep;

use crate::text::format_short;

/// The schema of histograms whose bucket bounds are given one by one.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;
/// The coarsest exponential schema: bucket bounds grow by 2^16.
pub const EXPONENTIAL_SCHEMA_MIN: i32 = -4;
/// The finest exponential schema: bucket bounds grow by 2^(1/256).
pub const EXPONENTIAL_SCHEMA_MAX: i32 = 8;

/// What the sender said about counter resets between this sample and the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterResetHint {
    /// Nothing is known: the reader has to compare.
    #[default]
    Unknown,
    /// The counter was reset before this sample.
    CounterReset,
    /// The counter was not reset before this sample.
    NotCounterReset,
    /// Not a counter: resets have no meaning.
    Gauge,
}

/// One populated bucket.
///
/// For exponential schemas the bucket with index i reaches from base^(i-1), exclusive, to base^i,
/// inclusive, with base = 2^(2^-schema). For custom buckets index i reaches from
/// `custom_values[i-1]` (or -Inf) to `custom_values[i]` (or +Inf).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Position of the bucket.
    pub index: i32,
    /// Observations in this bucket alone (not cumulative).
    pub count: f64,
}

/// A native histogram sample with absolute float counts.
///
/// Buckets are sparse: sorted by index, each index at most once; a missing bucket holds zero.
/// `count` is what the sender said and need not equal the sum of the buckets (NaN observations are
/// in `count` alone).
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Resolution: [`EXPONENTIAL_SCHEMA_MIN`] to [`EXPONENTIAL_SCHEMA_MAX`], or
    /// [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Observations with |v| ≤ this are in the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Buckets of positive observations (of all observations for custom buckets).
    pub positive: Vec<Bucket>,
    /// Buckets of negative observations, by absolute value. Empty for custom buckets.
    pub negative: Vec<Bucket>,
    /// Upper bounds of custom buckets, ascending, without +Inf; empty for exponential schemas.
    pub custom_values: Option<Arc<[f64]>>,
    /// The sender's word on counter resets.
    pub reset_hint: CounterResetHint,
}

impl Histogram {
    /// Whether the bounds are given one by one.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// The custom bounds; empty for exponential schemas.
    pub fn custom_bounds(&self) -> &[f64] {
        self.custom_values.as_deref().unwrap_or(&[])
    }

    /// Whether this is the staleness marker of a histogram series (its sum holds the marker).
    pub fn is_stale(&self) -> bool {
        crate::series::is_stale(self.sum)
    }

    /// What the histogram counts in a [`Budget`](crate::Budget), in float samples of 16 bytes.
    pub fn cost(&self) -> u64 {
        let buckets = self.positive.len() + self.negative.len();
        ((size_of::<Histogram>() + buckets * size_of::<Bucket>()) / 16) as u64
    }

    /// The populated buckets in ascending order with their bounds.
    pub fn populated_buckets(&self) -> impl Iterator<Item = BoundedBucket> + '_ {
        let negative = self.negative_buckets().rev();
        let zero =
            (self.zero_count != 0.0 && !self.uses_custom_buckets()).then(|| self.zero_bucket());
        negative.chain(zero).chain(self.positive_buckets()).filter(|b| b.count != 0.0)
    }

    /// Removes buckets that hold nothing.
    pub fn drop_empty_buckets(&mut self) {
        self.positive.retain(|b| b.count != 0.0);
        self.negative.retain(|b| b.count != 0.0);
    }

    /// Multiplies all counts and the sum. A negative factor makes a gauge of it.
    pub(crate) fn multiply(&mut self, factor: f64) {
        self.zero_count *= factor;
        self.count *= factor;
        self.sum *= factor;
        for b in self.positive.iter_mut().chain(&mut self.negative) {
            b.count *= factor;
        }
        if factor < 0.0 {
            self.reset_hint = CounterResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum. Division by zero leaves no buckets.
    pub(crate) fn divide(&mut self, divisor: f64) {
        self.zero_count /= divisor;
        self.count /= divisor;
        self.sum /= divisor;
        if divisor == 0.0 {
            self.positive.clear();
            self.negative.clear();
            return;
        }
        for b in self.positive.iter_mut().chain(&mut self.negative) {
            b.count /= divisor;
        }
        if divisor < 0.0 {
            self.reset_hint = CounterResetHint::Gauge;
        }
    }

    /// The difference to another histogram.
    pub(crate) fn minus(&self, other: &Histogram) -> Result<(Histogram, Remarks), Incompatible> {
        let mut sum = HistogramSum::new(self);
        let remarks = sum.sub(other)?;
        Ok((sum.finish(), remarks))
    }

    /// The sum with another histogram.
    pub(crate) fn plus(&self, other: &Histogram) -> Result<(Histogram, Remarks), Incompatible> {
        let mut sum = HistogramSum::new(self);
        let remarks = sum.add(other)?;
        Ok((sum.finish(), remarks))
    }
}

/// As Prometheus prints a histogram: `{count:3, sum:5, [-1,1]:1, (1,2]:2}`.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", format_short(self.count), format_short(self.sum))?;
        for b in self.populated_buckets() {
            let open = if b.lower_inclusive { '[' } else { '(' };
            let close = if b.upper_inclusive { ']' } else { ')' };
            let (lower, upper) = (format_short(b.lower), format_short(b.upper));
            write!(f, ", {open}{lower},{upper}{close}:{}", format_short(b.count))?;
        }
        f.write_str("}")
    }
}
