//! Evaluation: a query over all its steps at once.
//!
//! 1. The tree is evaluated bottom up. A selector loads its series once for all steps.
//! 2. Every operation works on whole columns, series by series: a series' values at all steps are
//!    one vector of floats, with histograms beside it where there are any.
//! 3. Parts that do not depend on the evaluation time are evaluated once and repeated.
//! 4. What is in memory is accounted for in a [`Budget`], which also carries cancellation and the
//!    deadline.

mod aggregate;
mod aggregate_k;
mod binary;
mod call;
mod classic;
mod element;
mod eval;
mod extended;
mod finish;
mod histograms;
mod info;
mod instant;
mod label_functions;
mod matching;
mod native;
mod over_time;
mod range_call;
mod rates;
mod select;
mod sets;
mod slides;
mod sort;
mod subquery;
mod value;

use std::time::{Duration, Instant};

use crate::annotations::Annotations;
use crate::budget::{Budget, LimitError};
use crate::labels::Labels;
use crate::parse::{Expr, ParseError, ParseOptions, ValueType, parse};
use crate::series::{SampleValue, Series};
use crate::source::{SeriesSource, SourceError};

/// How queries are evaluated.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How far back an instant selector looks for a sample.
    pub lookback: Duration,
    /// Distance of a subquery's points where the query does not say.
    pub subquery_step: Duration,
    /// Which parts of the language are on.
    pub parse: ParseOptions,
    /// Names are dropped when the query is done instead of at once, so that they can still be used
    /// for matching and grouping in between.
    pub delayed_name_removal: bool,
    /// Tell counters by the `__type__` label instead of the name.
    pub type_and_unit_labels: bool,
    /// Let the start times of samples tell counter resets.
    pub start_timestamps: bool,
    /// Threads that may work on one query.
    pub threads: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            lookback: Duration::from_secs(300),
            subquery_step: Duration::from_secs(60),
            parse: ParseOptions::default(),
            delayed_name_removal: false,
            type_and_unit_labels: false,
            start_timestamps: false,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl EngineOptions {
    /// Everything on that Prometheus keeps behind feature flags, except that counters are still told
    /// by name unless their type is known.
    pub fn experimental() -> Self {
        EngineOptions {
            parse: ParseOptions::ALL,
            delayed_name_removal: true,
            start_timestamps: true,
            ..EngineOptions::default()
        }
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is no query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The query does not fit how it was asked, as a range vector in a range query.
    #[error("{0}")]
    Invalid(String),
    /// The query failed on the data.
    #[error("{0}")]
    Execution(String),
    /// A limit was met, or the query was canceled.
    #[error(transparent)]
    Limit(LimitError),
    /// The store failed.
    #[error("expanding series: {0}")]
    Source(SourceError),
}

impl From<LimitError> for QueryError {
    fn from(error: LimitError) -> Self {
        QueryError::Limit(error)
    }
}

impl From<SourceError> for QueryError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Limit(limit) => QueryError::Limit(limit),
            other => QueryError::Source(other),
        }
    }
}

/// The times at which a range query is evaluated: from start to end, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryRange {
    /// First evaluation time, Unix milliseconds.
    pub start_ms: i64,
    /// Last possible evaluation time, Unix milliseconds.
    pub end_ms: i64,
    /// Distance between evaluations in milliseconds, above 0.
    pub step_ms: i64,
}

impl QueryRange {
    /// Number of evaluation times.
    pub fn steps(&self) -> u64 {
        if self.step_ms <= 0 || self.end_ms < self.start_ms {
            return 0;
        }
        (self.end_ms.abs_diff(self.start_ms) / self.step_ms.unsigned_abs()).saturating_add(1)
    }
}

/// A sample of an instant vector.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The series.
    pub labels: Labels,
    /// Its value.
    pub value: SampleValue,
}

/// The value of a query.
#[derive(Clone, Debug)]
pub enum Value {
    /// A number.
    Scalar(f64),
    /// A text.
    Text(String),
    /// An instant vector, in the order of the query's result.
    Vector(Vec<Sample>),
    /// Series over time, sorted by labels.
    Matrix(Vec<Series>),
}

/// What a query gives: its value, notes for the user, and what it took.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The value.
    pub value: Value,
    /// Warnings and infos.
    pub annotations: Annotations,
    /// Time spent on loading and evaluating.
    pub evaluation: Duration,
    /// Time spent on sorting the result.
    pub sorting: Duration,
    /// For each evaluation time (Unix milliseconds) the samples that were looked at.
    pub samples: Vec<(i64, u64)>,
}

/// Evaluates queries.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    options: EngineOptions,
}

impl Engine {
    /// An engine.
    pub fn new(options: EngineOptions) -> Self {
        Engine { options }
    }

    /// The options.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates a query at one time.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn instant(
        &self,
        source: &dyn SeriesSource,
        query: &str,
        time_ms: i64,
        budget: &Budget,
    ) -> Result<Outcome, QueryError> {
        let expr = parse(query, self.options.parse)?;
        let range = QueryRange { start_ms: time_ms, end_ms: time_ms, step_ms: 0 };
        self.run(source, &expr, range, budget)
    }

    /// Evaluates a query at many times; the value is a matrix.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn range(
        &self,
        source: &dyn SeriesSource,
        query: &str,
        range: QueryRange,
        budget: &Budget,
    ) -> Result<Outcome, QueryError> {
        let expr = parse(query, self.options.parse)?;
        if range.step_ms <= 0 {
            return Err(QueryError::Invalid("the step must be above zero".to_owned()));
        }
        if range.end_ms < range.start_ms {
            return Err(QueryError::Invalid("the end is before the start".to_owned()));
        }
        let kind = expr.value_type();
        if !matches!(kind, ValueType::Vector | ValueType::Scalar) {
            return Err(QueryError::Invalid(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                kind.documented()
            )));
        }
        let max = budget.limits().steps_max;
        if range.steps() > max {
            return Err(QueryError::Execution(format!(
                "query has {} steps, more than {max} (setting promql-steps-max)",
                range.steps()
            )));
        }
        self.run(source, &expr, range, budget)
    }

    fn run(
        &self,
        source: &dyn SeriesSource,
        expr: &Expr,
        range: QueryRange,
        budget: &Budget,
    ) -> Result<Outcome, QueryError> {
        let started = Instant::now();
        budget.check()?;
        // Each level of the tree takes stack, and callers may run on small stacks.
        let (evaluated, annotations, samples) = std::thread::scope(|scope| {
            let work = || eval::evaluate(&self.options, source, expr, range, budget);
            let thread = std::thread::Builder::new()
                .name("promql".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, work)
                .map_err(|e| QueryError::Execution(format!("starting a thread: {e}")))?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let evaluation = started.elapsed();
        let sorting = Instant::now();
        let value = finish::value(evaluated, expr.value_type(), range)?;
        Ok(Outcome { value, annotations, evaluation, sorting: sorting.elapsed(), samples })
    }
}

/// Enough for the deepest tree that the parser lets through; only touched pages take memory.
const STACK_BYTES: usize = 64 << 20;
