//! Samples of one series, as a source hands them to the engine.

use std::ops::Deref;
use std::sync::Arc;

use crate::histogram::Histogram;
use crate::labels::Labels;

/// The bits of the NaN that marks a series as gone. Sources must keep these bits.
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker as a value.
pub fn stale_marker() -> f64 {
    f64::from_bits(STALE_BITS)
}

/// Whether a value is the staleness marker (and not some other NaN).
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_BITS
}

/// One sample value.
#[derive(Clone, Debug)]
pub enum SampleValue {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// One series with its samples in a time range.
///
/// Floats and histograms are two columns, because a series nearly always holds only one kind. All
/// times are Unix milliseconds in strictly ascending order; no time occurs in both columns.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Identity.
    pub labels: Labels,
    /// Float samples.
    pub floats: Column<f64>,
    /// Native-histogram samples. A stale marker is a histogram whose sum has the marker's bits.
    pub histograms: Column<Arc<Histogram>>,
}

/// Sample times, Unix milliseconds. Clones share them: the buckets of a histogram have the same
/// times, and windows over these need to be found only once.
#[derive(Clone, Debug, Default)]
pub struct Times(Arc<Vec<i64>>);

impl Times {
    /// Appends a time.
    pub fn push(&mut self, time_ms: i64) {
        Arc::make_mut(&mut self.0).push(time_ms);
    }

    /// Keeps the times that pass.
    pub fn retain(&mut self, keep: impl FnMut(&i64) -> bool) {
        Arc::make_mut(&mut self.0).retain(keep);
    }

    /// Whether both are the same times in memory.
    pub fn shares(&self, other: &Times) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for Times {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        &self.0
    }
}

impl From<Arc<Vec<i64>>> for Times {
    fn from(times: Arc<Vec<i64>>) -> Self {
        Times(times)
    }
}

impl From<Vec<i64>> for Times {
    fn from(times: Vec<i64>) -> Self {
        Times(Arc::new(times))
    }
}

impl FromIterator<i64> for Times {
    fn from_iter<I: IntoIterator<Item = i64>>(times: I) -> Self {
        Times::from(Vec::from_iter(times))
    }
}

impl Extend<i64> for Times {
    fn extend<I: IntoIterator<Item = i64>>(&mut self, times: I) {
        Arc::make_mut(&mut self.0).extend(times);
    }
}

/// Samples of one kind, by column.
#[derive(Clone, Debug)]
pub struct Column<T> {
    /// Sample times, Unix milliseconds, strictly ascending.
    pub times: Times,
    /// One value per time.
    pub values: Vec<T>,
    /// When the counter behind each sample began, Unix milliseconds; 0 = not known. Empty if the
    /// source has none, else one per time.
    pub starts: Vec<i64>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Column { times: Times::default(), values: Vec::new(), starts: Vec::new() }
    }
}

impl<T> Column<T> {
    /// Appends a sample that must be newer than the last one.
    pub fn push(&mut self, time_ms: i64, value: T) {
        self.times.push(time_ms);
        self.values.push(value);
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

impl Series {
    /// A series without samples.
    pub fn new(labels: Labels) -> Self {
        Series { labels, ..Series::default() }
    }

    /// Number of samples of both kinds.
    pub fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    /// What the samples count in a [`Budget`](crate::Budget): a float is one, a native histogram
    /// one per two words of memory, as in Prometheus.
    pub fn sample_cost(&self) -> u64 {
        self.floats.len() as u64 + self.histograms.values.iter().map(|h| h.cost()).sum::<u64>()
    }
}
