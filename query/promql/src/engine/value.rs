//! What expressions evaluate to: columns over all steps.

use std::sync::Arc;

use crate::budget::{Budget, LimitError};
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::series::{SampleValue, Series};

/// The bits of the NaN that means "no sample at this step". Sample values with these bits are turned
/// into an ordinary NaN when they are loaded, and arithmetic never sees them.
const ABSENT_BITS: u64 = 0x7ff8_dead_ab5e_0001;

/// "No sample at this step."
pub(crate) const ABSENT: f64 = f64::from_bits(ABSENT_BITS);

/// Whether a column cell is empty.
#[inline]
pub(crate) fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT_BITS
}

/// A sample value as a column cell.
#[inline]
pub(crate) fn cell(value: f64) -> f64 {
    if is_absent(value) { f64::NAN } else { value }
}

/// Evaluation times, evenly spaced, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    pub start_ms: i64,
    pub step_ms: i64,
    pub count: usize,
}

impl Steps {
    pub(crate) fn single(time_ms: i64) -> Self {
        Steps { start_ms: time_ms, step_ms: 1, count: 1 }
    }

    #[inline]
    pub(crate) fn time(&self, step: usize) -> i64 {
        self.start_ms + step as i64 * self.step_ms
    }

    pub(crate) fn last_ms(&self) -> i64 {
        self.time(self.count - 1)
    }
}

/// The values of one series at all steps. A step holds a float, a histogram or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    /// One cell per step; [`ABSENT`] where there is no float.
    pub floats: Vec<f64>,
    /// One cell per step, if the series has a histogram anywhere.
    pub histograms: Option<Vec<Option<Arc<Histogram>>>>,
}

/// A view of one cell.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Float(f64),
    Histogram(&'a Arc<Histogram>),
}

impl Points {
    pub(crate) fn absent(steps: usize) -> Self {
        Points { floats: vec![ABSENT; steps], histograms: None }
    }

    #[inline]
    pub(crate) fn get(&self, step: usize) -> Option<Cell<'_>> {
        let float = self.floats[step];
        if !is_absent(float) {
            return Some(Cell::Float(float));
        }
        self.histogram(step).map(Cell::Histogram)
    }

    #[inline]
    pub(crate) fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        self.histograms.as_ref()?[step].as_ref()
    }

    #[inline]
    pub(crate) fn is_present(&self, step: usize) -> bool {
        !is_absent(self.floats[step]) || self.histogram(step).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.floats.iter().all(|f| is_absent(*f))
            && self.histograms.as_ref().is_none_or(|h| h.iter().all(Option::is_none))
    }

    pub(crate) fn set(&mut self, step: usize, value: SampleValue) {
        match value {
            SampleValue::Float(f) => self.floats[step] = cell(f),
            SampleValue::Histogram(h) => self.set_histogram(step, h),
        }
    }

    pub(crate) fn set_histogram(&mut self, step: usize, h: Arc<Histogram>) {
        let steps = self.floats.len();
        self.histograms.get_or_insert_with(|| vec![None; steps])[step] = Some(h);
    }

    pub(crate) fn clear(&mut self, step: usize) {
        self.floats[step] = ABSENT;
        if let Some(h) = &mut self.histograms {
            h[step] = None;
        }
    }

    /// Copies one cell from another series.
    pub(crate) fn copy(&mut self, step: usize, from: &Points) {
        match from.get(step) {
            Some(Cell::Float(f)) => self.floats[step] = f,
            Some(Cell::Histogram(h)) => self.set_histogram(step, h.clone()),
            None => {}
        }
    }

    /// Repeats the single cell for a number of steps.
    fn repeat(&mut self, steps: usize) {
        self.floats = vec![self.floats[0]; steps];
        if let Some(h) = &mut self.histograms {
            *h = vec![h[0].clone(); steps];
        }
    }

    /// Takes over the cells of another series. Fails if both have a value at a step.
    pub(crate) fn absorb(&mut self, other: Points) -> Result<(), Overlap> {
        for step in 0..self.floats.len() {
            if other.is_present(step) {
                if self.is_present(step) {
                    return Err(Overlap);
                }
                self.copy(step, &other);
            }
        }
        Ok(())
    }

    /// Memory beyond the float column, in samples.
    fn histogram_cost(&self) -> u64 {
        let all = self.histograms.iter().flatten().flatten();
        all.map(|h| h.cost()).sum()
    }
}

/// Two series of one label set have values at the same step.
pub(crate) struct Overlap;

/// A series evaluated at all steps.
#[derive(Clone, Debug)]
pub(crate) struct StepSeries {
    pub labels: Labels,
    /// With delayed name removal: the name goes when the query is done.
    pub drop_name: bool,
    pub points: Points,
}

/// Samples accounted for in a budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Budget,
    samples: u64,
}

impl Held {
    pub(crate) fn new(budget: &Budget, samples: u64) -> Result<Self, LimitError> {
        // Taken first: an error still counts what it tried to take, and drop gives that back.
        let held = Held { budget: budget.clone(), samples };
        budget.take(samples)?;
        Ok(held)
    }

    /// Accounts for more.
    pub(crate) fn grow(&mut self, samples: u64) -> Result<(), LimitError> {
        self.samples += samples;
        self.budget.take(samples)
    }

    /// Accounts for exactly so many from now on.
    fn set(&mut self, samples: u64) -> Result<(), LimitError> {
        match samples.checked_sub(self.samples) {
            Some(more) => self.grow(more),
            None => {
                self.budget.give_back(self.samples - samples);
                self.samples = samples;
                Ok(())
            }
        }
    }

    /// For samples that a source has accounted for already.
    pub(crate) fn adopt(budget: &Budget, samples: u64) -> Self {
        Held { budget: budget.clone(), samples }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(self.samples);
    }
}

/// An instant vector at all steps.
#[derive(Debug)]
pub(crate) struct Vector {
    pub series: Vec<StepSeries>,
    held: Held,
}

impl Vector {
    /// Accounts for the series and drops those without any value. For results that are about as large as what they
    /// were made from, which is accounted for; others take a [`Held`] before they grow.
    pub(crate) fn new(
        series: Vec<StepSeries>,
        steps: &Steps,
        budget: &Budget,
    ) -> Result<Self, LimitError> {
        Self::held(series, steps, Held::new(budget, 0)?)
    }

    /// As [`new`](Self::new), for columns that were accounted for when they were made.
    pub(crate) fn held(
        mut series: Vec<StepSeries>,
        steps: &Steps,
        mut held: Held,
    ) -> Result<Self, LimitError> {
        series.retain(|s| !s.points.is_empty());
        let cells = (series.len() * steps.count) as u64;
        let histograms: u64 = series.iter().map(|s| s.points.histogram_cost()).sum();
        held.set(cells + histograms)?;
        Ok(Vector { series, held })
    }

    /// Replaces the series of a vector by others of about the same size.
    pub(crate) fn with_series(mut self, mut series: Vec<StepSeries>) -> Self {
        series.retain(|s| !s.points.is_empty());
        self.series = series;
        self
    }
}

/// A series with raw samples in a range.
#[derive(Clone, Debug)]
pub(crate) struct RangeSeries {
    pub series: Series,
    pub drop_name: bool,
}

/// What an expression evaluates to.
#[derive(Debug)]
pub(crate) enum Evaluated {
    /// One number per step.
    Scalar(Vec<f64>),
    Vector(Vector),
    Text(String),
    Matrix(Vec<RangeSeries>),
}

impl Evaluated {
    /// Repeats the value at a single step for all steps.
    pub(crate) fn repeat(self, steps: &Steps) -> Result<Self, LimitError> {
        Ok(match self {
            Evaluated::Scalar(v) => Evaluated::Scalar(vec![v[0]; steps.count]),
            Evaluated::Vector(Vector { mut series, mut held }) => {
                held.grow((series.len() * steps.count) as u64)?;
                for s in &mut series {
                    s.points.repeat(steps.count);
                }
                Evaluated::Vector(Vector::held(series, steps, held)?)
            }
            other => other,
        })
    }
}
