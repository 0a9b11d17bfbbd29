//! Native histograms: exponential buckets (schema -4 to 8) and custom buckets (schema -53).

use std::sync::Arc;

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
}
