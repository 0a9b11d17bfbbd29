//! The walk over the tree.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use rustc_hash::FxBuildHasher;

use crate::annotations::{Annotations, Note};
use crate::budget::Budget;
use crate::engine::value::{Evaluated, Held, StepSeries, Steps, Vector, is_absent};
use crate::engine::{EngineOptions, QueryError, QueryRange};
use crate::labels::{Labels, METRIC_NAME, METRIC_TYPE, METRIC_UNIT};
use crate::parse::{
    AggregateOp, At, BinaryOp, DurationValue, Expr, Unary, ValueType, VectorSelector, resolve,
};
use crate::source::{SelectHints, SeriesSource};

/// What evaluation needs everywhere.
pub(crate) struct Evaluator<'a> {
    pub options: &'a EngineOptions,
    pub source: &'a dyn SeriesSource,
    pub budget: &'a Budget,
    /// The times of the whole query: what `start()`, `end()`, `range()` and `step()` mean.
    pub query: QueryRange,
    /// Start positions of the selectors of which only counts and sums are used.
    pub counts_only: HashSet<usize>,
    /// Start positions of the selectors whose series are only sorted into groups by labels other than metadata: their
    /// order does not matter, nor the name if it is one.
    pub grouped: HashSet<usize>,
    /// The samples that each step of the query looks at.
    counts: RefCell<Vec<u64>>,
    notes: RefCell<Annotations>,
}

pub(crate) type Result<T> = std::result::Result<T, QueryError>;

/// Whether a label describes the metric itself, so that it goes when the meaning changes.
pub(crate) fn is_metadata_label(name: &str) -> bool {
    name == METRIC_NAME || name == METRIC_TYPE || name == METRIC_UNIT
}

/// A label set without name, type and unit.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    labels.retain(|name| !is_metadata_label(name))
}

/// How many samples were looked at for each evaluation time, Unix ms.
pub(crate) type SamplesByTime = Vec<(i64, u64)>;

/// Evaluates a query. Gives the value, the notes, and the samples looked at by time.
pub(crate) fn evaluate(
    options: &EngineOptions,
    source: &dyn SeriesSource,
    expr: &Expr,
    query: QueryRange,
    budget: &Budget,
) -> Result<(Evaluated, Annotations, SamplesByTime)> {
    let mut counts_only = HashSet::new();
    find_counts_only(expr, false, &mut counts_only);
    let mut grouped = HashSet::new();
    find_grouped(expr, &mut grouped);
    let notes = RefCell::default();
    let counts = RefCell::default();
    let evaluator =
        Evaluator { options, source, budget, query, counts_only, grouped, counts, notes };
    evaluator.check_durations(expr)?;
    let steps = if query.step_ms == 0 {
        Steps::single(query.start_ms)
    } else {
        let count = usize::try_from(query.steps()).unwrap_or(usize::MAX);
        Steps { start_ms: query.start_ms, step_ms: query.step_ms, count }
    };
    let _scalars = evaluator.hold_scalars(expr, &steps)?;
    *evaluator.counts.borrow_mut() = vec![0; steps.count];
    let mut value = evaluator.eval(expr, &steps)?;
    if options.delayed_name_removal {
        value = evaluator.remove_names(value)?;
    }
    let counts = evaluator.counts.into_inner().into_iter().enumerate();
    let counts = counts.map(|(step, n)| (steps.time(step), n)).collect();
    Ok((value, evaluator.notes.into_inner(), counts))
}

impl Evaluator<'_> {
    /// Adds a note to the result.
    pub(crate) fn note(&self, note: Note) {
        self.notes.borrow_mut().add(note);
    }

    /// Adds notes to the result.
    pub(crate) fn add_notes(&self, notes: Annotations) {
        if !notes.is_empty() {
            self.notes.borrow_mut().merge(notes);
        }
    }

    /// Counts samples that steps look at. Inside subqueries nothing is counted: the outer steps look
    /// at the subquery's own points.
    pub(crate) fn count_samples(&self, steps: &Steps, counts: &[u64]) {
        let mut total = self.counts.borrow_mut();
        let same_start = steps.start_ms == self.query.start_ms;
        if same_start && total.len() == counts.len() {
            total.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        } else if let (true, [n]) = (same_start, counts) {
            // Evaluated once for all steps.
            total.iter_mut().for_each(|sum| *sum += n);
        }
    }

    pub(crate) fn lookback_ms(&self) -> i64 {
        self.options.lookback.as_millis() as i64
    }

    /// An error of the query on the data.
    pub(crate) fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(QueryError::Execution(message.into()))
    }

    /// Milliseconds of a duration in the query.
    pub(crate) fn duration(&self, value: &DurationValue, negative: bool) -> Result<i64> {
        resolve(value, self.query.step_ms, self.query.end_ms - self.query.start_ms, negative)
            .map_err(QueryError::Invalid)
    }

    /// The fixed time of an `@` modifier.
    pub(crate) fn at(&self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Time(ms) => ms,
            At::Start => self.query.start_ms,
            At::End => self.query.end_ms,
        })
    }

    /// Bad durations are errors of the query, whatever the data.
    fn check_durations(&self, expr: &Expr) -> Result<()> {
        let check_selector = |v: &VectorSelector| self.duration(&v.timing.offset, true).map(drop);
        match expr {
            Expr::Vector(v) => check_selector(v)?,
            Expr::Matrix(m) => {
                check_selector(&m.selector)?;
                self.duration(&m.range, false)?;
            }
            Expr::Subquery(s) => {
                self.duration(&s.timing.offset, true)?;
                if let Some(step) = &s.step {
                    self.duration(step, false)?;
                }
                self.duration(&s.range, false)?;
            }
            _ => {}
        }
        expr.children().into_iter().try_for_each(|child| self.check_durations(child))
    }

    /// Accounts for the columns of all numbers that an expression computes with at these steps; subqueries account
    /// for theirs.
    pub(crate) fn hold_scalars(&self, expr: &Expr, steps: &Steps) -> Result<Held> {
        Ok(Held::new(self.budget, scalars(expr) * steps.count as u64)?)
    }

    /// Evaluates an expression at all steps.
    pub(crate) fn eval(&self, expr: &Expr, steps: &Steps) -> Result<Evaluated> {
        self.budget.check()?;
        if steps.count > 1 && is_step_invariant(expr) {
            let once = self.eval_varying(expr, &Steps::single(steps.start_ms))?;
            return Ok(once.repeat(steps)?);
        }
        self.eval_varying(expr, steps)
    }

    fn eval_varying(&self, expr: &Expr, steps: &Steps) -> Result<Evaluated> {
        match expr {
            Expr::Number(n) => Ok(Evaluated::Scalar(vec![n.value; steps.count])),
            Expr::String(s) => Ok(Evaluated::Text(s.value.clone())),
            Expr::Paren(p) => self.eval(&p.expr, steps),
            Expr::Unary(u) => self.eval_unary(u, steps),
            Expr::Vector(v) => {
                Ok(Evaluated::Vector(self.instant_vector(v, steps, SelectHints::default())?))
            }
            Expr::Matrix(m) => Ok(Evaluated::Matrix(self.matrix_result(m, steps)?)),
            Expr::Subquery(s) => Ok(Evaluated::Matrix(self.subquery_result(s, steps)?)),
            Expr::Call(c) => self.eval_call(c, steps),
            Expr::Aggregate(a) => Ok(Evaluated::Vector(self.eval_aggregate(a, steps)?)),
            Expr::Binary(b) => self.eval_binary(b, expr.span(), steps),
        }
    }

    /// Evaluates an expression that the checker knows to be a vector.
    pub(crate) fn eval_vector(&self, expr: &Expr, steps: &Steps) -> Result<Vector> {
        match self.eval(expr, steps)? {
            Evaluated::Vector(v) => Ok(v),
            _ => self.fail("expected an instant vector"),
        }
    }

    /// Evaluates an expression that the checker knows to be a scalar.
    pub(crate) fn eval_scalar(&self, expr: &Expr, steps: &Steps) -> Result<Vec<f64>> {
        match self.eval(expr, steps)? {
            Evaluated::Scalar(v) => Ok(v),
            _ => self.fail("expected a scalar"),
        }
    }

    fn eval_unary(&self, u: &Unary, steps: &Steps) -> Result<Evaluated> {
        let value = self.eval(&u.expr, steps)?;
        if !u.negative {
            return Ok(value);
        }
        Ok(match value {
            Evaluated::Scalar(mut v) => {
                v.iter_mut().for_each(|f| *f = -*f);
                Evaluated::Scalar(v)
            }
            Evaluated::Vector(mut v) => {
                let mut series = std::mem::take(&mut v.series);
                for s in &mut series {
                    self.drop_name(s);
                    for f in s.points.floats.iter_mut().filter(|f| !is_absent(**f)) {
                        *f = -*f;
                    }
                    for h in s.points.histograms.iter_mut().flatten().flatten() {
                        let mut negated = (**h).clone();
                        negated.multiply(-1.0);
                        *h = negated.into();
                    }
                }
                Evaluated::Vector(v.with_series(self.merge_now(series)?))
            }
            other => other,
        })
    }

    /// Takes the name off a series: at once, or when the query is done.
    pub(crate) fn drop_name(&self, series: &mut StepSeries) {
        if self.options.delayed_name_removal {
            series.drop_name = true;
        } else {
            series.labels = without_metadata(&series.labels);
        }
    }

    /// After names were dropped: merges series that have the same labels now. With delayed removal
    /// the names are still there, and nothing is done.
    pub(crate) fn merge_now(&self, series: Vec<StepSeries>) -> Result<Vec<StepSeries>> {
        if self.options.delayed_name_removal { Ok(series) } else { self.merge_same_labels(series) }
    }

    /// Merges series of the same labels that have no values at the same step.
    ///
    /// # Errors
    /// When they have.
    pub(crate) fn merge_same_labels(&self, series: Vec<StepSeries>) -> Result<Vec<StepSeries>> {
        let mut at: HashMap<Labels, usize, FxBuildHasher> =
            HashMap::with_capacity_and_hasher(series.len(), FxBuildHasher);
        let mut out: Vec<StepSeries> = Vec::with_capacity(series.len());
        for s in series {
            match at.get(&s.labels) {
                Some(&i) => {
                    if out[i].points.absorb(s.points).is_err() {
                        return self.fail("vector cannot contain metrics with the same labelset");
                    }
                }
                None => {
                    at.insert(s.labels.clone(), out.len());
                    out.push(s);
                }
            }
        }
        Ok(out)
    }

    /// The end of delayed name removal.
    fn remove_names(&self, value: Evaluated) -> Result<Evaluated> {
        Ok(match value {
            Evaluated::Vector(mut v) => {
                let mut series = std::mem::take(&mut v.series);
                for s in series.iter_mut().filter(|s| s.drop_name) {
                    s.labels = without_metadata(&s.labels);
                }
                Evaluated::Vector(v.with_series(self.merge_same_labels(series)?))
            }
            Evaluated::Matrix(mut series) => {
                for s in series.iter_mut().filter(|s| s.drop_name) {
                    s.series.labels = without_metadata(&s.series.labels);
                }
                Evaluated::Matrix(self.merge_ranges(series)?)
            }
            other => other,
        })
    }
}

/// Finds the selectors whose histograms are only counted or summed. For these Prometheus detects
/// counter resets while it reads, which shows in the notes; a subquery, quantile or trim on the way
/// up needs the buckets.
fn find_counts_only(expr: &Expr, counts: bool, found: &mut HashSet<usize>) {
    let counts = match expr {
        Expr::Vector(v) => {
            if counts {
                found.insert(v.span.start);
            }
            return;
        }
        Expr::Matrix(m) => {
            if counts {
                found.insert(m.selector.span.start);
            }
            return;
        }
        Expr::Subquery(_) => false,
        Expr::Call(c) => match c.function.name {
            "histogram_count" | "histogram_sum" | "histogram_avg" => true,
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => false,
            _ => counts,
        },
        Expr::Binary(b) => counts && !matches!(b.op, BinaryOp::TrimLower | BinaryOp::TrimUpper),
        _ => counts,
    };
    for child in expr.children() {
        find_counts_only(child, counts, found);
    }
}

/// Finds the selectors of rates that are only grouped `by` labels other than metadata.
fn find_grouped(expr: &Expr, found: &mut HashSet<usize>) {
    if let Expr::Aggregate(a) = expr
        && !a.without
        && !matches!(a.op, AggregateOp::CountValues)
        && !a.op.chooses()
        && !a.grouping.iter().any(|name| is_metadata_label(name))
        && let Expr::Call(c) = a.expr.unparenthesized()
        && matches!(c.function.name, "rate" | "increase" | "delta" | "irate" | "idelta")
        && let Some(Expr::Matrix(m)) = c.args.first().map(Expr::unparenthesized)
    {
        found.insert(m.selector.span.start);
    }
    expr.children().into_iter().for_each(|child| find_grouped(child, found));
}

/// How many numbers an expression computes with, outside of subqueries.
fn scalars(expr: &Expr) -> u64 {
    if matches!(expr, Expr::Subquery(_)) {
        return 0;
    }
    let own = u64::from(expr.value_type() == ValueType::Scalar);
    own + expr.children().into_iter().map(scalars).sum::<u64>()
}

/// Whether the value is the same at all steps.
pub(crate) fn is_step_invariant(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::Vector(v) => v.timing.at.is_some(),
        Expr::Matrix(m) => m.selector.timing.at.is_some(),
        Expr::Subquery(s) => s.timing.at.is_some(),
        Expr::Paren(p) => is_step_invariant(&p.expr),
        Expr::Unary(u) => is_step_invariant(&u.expr),
        Expr::Aggregate(a) => {
            is_step_invariant(&a.expr) && a.param.as_ref().is_none_or(is_step_invariant)
        }
        Expr::Binary(b) => is_step_invariant(&b.left) && is_step_invariant(&b.right),
        Expr::Call(c) => match c.function.name {
            "time" | "predict_linear" | "days_in_month" | "day_of_month" | "day_of_week"
            | "day_of_year" | "hour" | "minute" | "month" | "year" => false,
            // The time of a fixed sample is fixed, that of any other vector is the step's.
            "timestamp" => {
                let arg = c.args.first().map(Expr::unparenthesized);
                matches!(arg, Some(Expr::Vector(v)) if v.timing.at.is_some())
            }
            _ => c.args.iter().all(is_step_invariant),
        },
    }
}
