//! What the engine asks of a store.

use std::collections::BTreeMap;

use crate::budget::{Budget, LimitError};
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::series::Series;

/// What a selector is about to be used for. Hints let a source read less; a source that ignores
/// them is still correct.
#[derive(Clone, Debug, Default)]
pub struct SelectHints {
    /// Distance between evaluation steps in milliseconds; 0 for an instant query.
    pub step_ms: i64,
    /// Range of a matrix selector in milliseconds; 0 for an instant vector.
    pub range_ms: i64,
    /// The function or aggregation directly around the selector, or empty.
    pub function: String,
    /// Labels of the `by` or `without` clause directly around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` is a `by` clause.
    pub by: bool,
    /// Only the labels of the series are needed, no samples.
    pub labels_only: bool,
    /// The start times of counters are needed.
    pub starts: bool,
    /// Samples only need to be there: floats may have any value, as long as staleness markers stay.
    pub presence_only: bool,
}

/// Why a source could not answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The query's budget is used up, or the query was canceled.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The store failed.
    #[error("reading series: {message}")]
    Store {
        /// What was being read.
        message: String,
        /// What went wrong.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// A time range in Unix milliseconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First millisecond.
    pub start_ms: i64,
    /// Last millisecond.
    pub end_ms: i64,
}

impl TimeRange {
    /// All of time.
    pub const ALL: TimeRange = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
}

/// Type, unit and help text of a metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset`, `unknown`.
    pub kind: String,
    /// Unit as it stands in the name, or empty.
    pub unit: String,
    /// Description, or empty.
    pub help: String,
}

/// One exemplar.
#[derive(Clone, Debug)]
pub struct Exemplar {
    /// `trace_id`, `span_id` and what else the sender attached.
    pub labels: Labels,
    /// The measured value.
    pub value: f64,
    /// Unix milliseconds.
    pub time_ms: i64,
}

/// The exemplars of one series, oldest first.
#[derive(Clone, Debug)]
pub struct ExemplarSeries {
    /// The series they were attached to.
    pub labels: Labels,
    /// At least one.
    pub exemplars: Vec<Exemplar>,
}

/// Figures about the store for `status/tsdb`.
#[derive(Clone, Debug, Default)]
pub struct SourceStats {
    /// Number of series.
    pub series: u64,
    /// Number of different label names and values.
    pub label_pairs: u64,
    /// Time of the oldest and of the newest sample, if there is any.
    pub times_ms: Option<(i64, i64)>,
    /// Series by metric name, largest first, at most the asked number.
    pub series_by_metric: Vec<(String, u64)>,
    /// Number of values by label name, largest first, at most the asked number.
    pub values_by_label: Vec<(String, u64)>,
}

/// A store of series. Implementations answer from a fixed view per call and may be called from many
/// threads.
///
/// A selector is a conjunction of matchers; a list of selectors is their union, and the empty list
/// means every series. A missing label counts as the empty string.
pub trait SeriesSource: Send + Sync {
    /// Reads the series that pass all matchers and have a sample in the range, with all their
    /// samples in the range, staleness markers included.
    ///
    /// The order of the series is free; a label set occurs once. Implementations call
    /// [`Budget::take_series`] once per call and [`Budget::take_read`] before they hold samples (the
    /// engine gives these back), and [`Budget::check`] during long work.
    ///
    /// # Errors
    /// When the budget is used up or the store fails.
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        hints: &SelectHints,
        budget: &Budget,
    ) -> Result<Vec<Series>, SourceError>;

    /// The label sets of the series that pass one of the selectors and may have a sample in the
    /// range, in any order, each once. At most `limit` of them unless it is 0.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    fn series(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<Labels>, SourceError>;

    /// The label names that occur in those series, sorted. At most `limit` unless it is 0.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    fn label_names(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError>;

    /// The values that a label has in those series, sorted. At most `limit` unless it is 0.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    fn label_values(
        &self,
        name: &str,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError>;

    /// Metadata by metric family, or of the one named family.
    ///
    /// # Errors
    /// When the store fails.
    fn metadata(
        &self,
        family: Option<&str>,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError>;

    /// Exemplars in the range of the series that pass one of the selectors.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        budget: &Budget,
    ) -> Result<Vec<ExemplarSeries>, SourceError>;

    /// Figures about the store; lists hold at most `limit` entries.
    ///
    /// # Errors
    /// When the store fails.
    fn stats(&self, limit: usize) -> Result<SourceStats, SourceError>;
}
