//! Samples of one series, as a source hands them to the engine.

use std::ops::{Deref, Range};
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

/// A list of which clones and parts share the memory: a source may keep what it hands out, and the buckets of a
/// histogram have the same times, so that windows over these need to be found only once.
#[derive(Clone, Debug)]
pub struct Shared<T> {
    /// `None` if it is empty, which many are.
    all: Option<Arc<Vec<T>>>,
    part: Range<usize>,
}

/// Sample times, Unix milliseconds.
pub type Times = Shared<i64>;

impl<T> Shared<T> {
    /// A part of a list.
    ///
    /// # Panics
    /// When the list has no such part.
    pub fn part(all: Arc<Vec<T>>, part: Range<usize>) -> Self {
        assert!(part.start <= part.end && part.end <= all.len(), "{part:?} of {}", all.len());
        Shared { all: Some(all), part }
    }

    /// Whether both are the same elements in memory.
    pub fn shares(&self, other: &Shared<T>) -> bool {
        let same = match (&self.all, &other.all) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same && self.part == other.part
    }
}

impl<T: Clone> Shared<T> {
    /// Calls `change` with the elements, which are copied first if others share them.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut Vec<T>) -> R) -> R {
        let all = match self.all.take() {
            Some(all) if self.part == (0..all.len()) => all,
            Some(all) => Arc::new(all[self.part.clone()].to_vec()),
            None => Arc::default(),
        };
        let all = self.all.insert(all);
        let changed = change(Arc::make_mut(all));
        self.part = 0..all.len();
        changed
    }

    /// Appends an element.
    pub fn push(&mut self, element: T) {
        self.change(|all| all.push(element));
    }

    /// Keeps the elements that pass.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.change(|all| all.retain(keep));
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared { all: None, part: 0..0 }
    }
}

impl<T> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.all.as_ref().map_or(&[], |all| &all[self.part.clone()])
    }
}

impl<T> From<Vec<T>> for Shared<T> {
    fn from(all: Vec<T>) -> Self {
        let part = 0..all.len();
        Shared { all: Some(Arc::new(all)), part }
    }
}

impl<T> FromIterator<T> for Shared<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Vec::from_iter(elements).into()
    }
}

impl<T: Clone> Extend<T> for Shared<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, elements: I) {
        self.change(|all| all.extend(elements));
    }
}

/// Samples of one kind, by column.
#[derive(Clone, Debug)]
pub struct Column<T> {
    /// Sample times, Unix milliseconds, strictly ascending.
    pub times: Times,
    /// One value per time.
    pub values: Shared<T>,
    /// When the counter behind each sample began, Unix milliseconds; 0 = not known. Empty if the
    /// source has none, else one per time.
    pub starts: Vec<i64>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Column { times: Times::default(), values: Shared::default(), starts: Vec::new() }
    }
}

impl<T: Clone> Column<T> {
    /// Appends a sample that must be newer than the last one.
    pub fn push(&mut self, time_ms: i64, value: T) {
        self.times.push(time_ms);
        self.values.push(value);
    }
}

impl<T> Column<T> {
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
