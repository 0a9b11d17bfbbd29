//! Aggregations that give one series per group.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use crate::annotations::{HistogramOperation, Note};
use crate::engine::eval::{Evaluator, Result};
use crate::engine::histograms::HistogramMean;
use crate::engine::over_time::quantile_of;
use crate::engine::value::{
    ABSENT, Cell, Held, Points, StepSeries, Steps, Vector, cell, is_absent,
};
use crate::histogram::{CounterResetHint, Histogram};
use crate::kahan::{Kahan, Mean};
use crate::labels::{Labels, METRIC_NAME, hash_of, is_label_name};
use crate::parse::{Aggregate, AggregateOp, Expr, Extend, Span};
use crate::source::SelectHints;
use crate::text::{format_plain, quote_bytes};

/// The series that share the grouping labels, by index.
pub(crate) struct Group {
    pub labels: Labels,
    pub members: Vec<usize>,
}

impl Evaluator<'_> {
    pub(crate) fn eval_aggregate(&self, a: &Aggregate, steps: &Steps) -> Result<Vector> {
        if a.op == AggregateOp::CountValues {
            return self.count_values(a, steps);
        }
        let param = match &a.param {
            Some(param) => Some(self.eval_scalar(param.unparenthesized(), steps)?),
            None => None,
        };
        let mut vector = match a.expr.unparenthesized() {
            // Counting does not look at values.
            Expr::Vector(v)
                if matches!(a.op, AggregateOp::Count | AggregateOp::Group)
                    && v.extend == Extend::No
                    && v.timing.at.is_none() =>
            {
                let hints = SelectHints { presence_only: true, ..SelectHints::default() };
                self.instant_vector(v, steps, hints)?
            }
            expr => self.eval_vector(expr, steps)?,
        };
        let param_span = a.param.as_ref().map(|p| p.unparenthesized().span()).unwrap_or_default();
        if let (AggregateOp::Quantile, Some(q)) = (a.op, &param) {
            self.note_quantiles(q, param_span);
        }
        let param = param.unwrap_or_default();
        if a.op.chooses() {
            return self.choose(a, &param, param_span, vector, steps);
        }
        let groups = group(&vector.series, a);
        let span = a.expr.unparenthesized().span();
        let mut out = Vec::with_capacity(groups.len());
        for g in groups {
            self.budget.check()?;
            let members: Vec<&StepSeries> = g.members.iter().map(|i| &vector.series[*i]).collect();
            let points = self.fold(a.op, &members, &param, span, steps);
            let drop_name = members.iter().any(|s| s.drop_name);
            out.push(StepSeries { labels: g.labels, drop_name, points });
        }
        vector.series.clear();
        drop(vector);
        // Series that were not sorted come in any order.
        out.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Vector::new(out, steps, self.budget)?)
    }

    /// One note for NaN, the largest value above 1 and the smallest below 0.
    fn note_quantiles(&self, q: &[f64], span: Span) {
        if q.iter().any(|q| q.is_nan()) {
            self.note(Note::invalid_quantile(f64::NAN, span));
        }
        let max = q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = q.iter().copied().fold(f64::INFINITY, f64::min);
        if max > 1.0 {
            self.note(Note::invalid_quantile(max, span));
        }
        if min < 0.0 && min != f64::INFINITY {
            self.note(Note::invalid_quantile(min, span));
        }
    }

    fn fold(
        &self,
        op: AggregateOp,
        members: &[&StepSeries],
        param: &[f64],
        span: Span,
        steps: &Steps,
    ) -> Points {
        if matches!(op, AggregateOp::Sum | AggregateOp::Avg)
            && members.iter().any(|s| s.points.histograms.is_some())
        {
            return self.fold_histograms(op == AggregateOp::Avg, members, span, steps);
        }
        if !matches!(op, AggregateOp::Count | AggregateOp::Group)
            && members.iter().any(|s| s.points.histograms.iter().flatten().any(Option::is_some))
        {
            self.note(Note::ignored_in_aggregation(op.name(), span));
        }
        let count = steps.count;
        let columns = || members.iter().map(|s| &s.points.floats);
        let floats = match op {
            AggregateOp::Sum => {
                let mut sums = vec![Kahan::default(); count];
                let mut seen = vec![false; count];
                each(columns(), |step, v| {
                    if seen[step] {
                        sums[step].add(v)
                    } else {
                        sums[step] = Kahan::new(v)
                    }
                    seen[step] = true;
                });
                let value =
                    |(sum, seen): (Kahan, bool)| if seen { cell(sum.value()) } else { ABSENT };
                sums.into_iter().zip(seen).map(value).collect()
            }
            AggregateOp::Avg => {
                let mut means: Vec<Option<Mean>> = vec![None; count];
                each(columns(), |step, v| match &mut means[step] {
                    Some(mean) => mean.add(v),
                    none => *none = Some(Mean::new(v)),
                });
                means.into_iter().map(|m| m.map_or(ABSENT, |m| cell(m.value()))).collect()
            }
            AggregateOp::Min | AggregateOp::Max => {
                let max = op == AggregateOp::Max;
                let mut best = vec![ABSENT; count];
                each(columns(), |step, v| {
                    let b = &mut best[step];
                    // An empty cell is a NaN, too.
                    if b.is_nan() || (if max { *b < v } else { *b > v }) {
                        *b = v;
                    }
                });
                best
            }
            AggregateOp::Count | AggregateOp::Group => {
                let mut counts = vec![0.0; count];
                for s in members {
                    for (step, n) in counts.iter_mut().enumerate() {
                        *n += f64::from(u8::from(s.points.is_present(step)));
                    }
                }
                let group = op == AggregateOp::Group;
                let value = |n: f64| match n {
                    0.0 => ABSENT,
                    _ if group => 1.0,
                    n => n,
                };
                counts.into_iter().map(value).collect()
            }
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                deviations(columns(), count, op == AggregateOp::Stddev)
            }
            _ => {
                let mut values = Vec::with_capacity(members.len());
                (0..count)
                    .map(|step| {
                        values.clear();
                        values.extend(columns().map(|c| c[step]).filter(|v| !is_absent(*v)));
                        if values.is_empty() {
                            ABSENT
                        } else {
                            cell(quantile_of(param[step], &mut values))
                        }
                    })
                    .collect()
            }
        };
        Points { floats, histograms: None }
    }

    /// Sum or mean where histograms take part. A step with both kinds has no result.
    fn fold_histograms(
        &self,
        mean: bool,
        members: &[&StepSeries],
        span: Span,
        steps: &Steps,
    ) -> Points {
        let mut points = Points::absent(steps.count);
        for step in 0..steps.count {
            let mut state = Mixed::default();
            for s in members {
                match s.points.get(step) {
                    Some(Cell::Float(f)) => state.add_float(f, mean),
                    Some(Cell::Histogram(h)) => {
                        state.add_histogram(h, mean, s.labels.name(), span, self);
                    }
                    None => {}
                }
            }
            if state.has_float && state.has_histogram {
                self.note(Note::mixed_in_aggregation(span));
                continue;
            }
            if state.incompatible {
                continue;
            }
            if state.resets == (true, true) {
                self.note(Note::reset_collision(HistogramOperation::Aggregation, span));
            }
            if let Some(total) = state.histogram {
                points.set_histogram(step, Arc::new(total.finish()));
            } else if let Some(total) = state.float {
                points.floats[step] = cell(total.value(mean));
            }
        }
        points
    }

    fn count_values(&self, a: &Aggregate, steps: &Steps) -> Result<Vector> {
        let label = match a.param.as_ref().map(Expr::unparenthesized) {
            Some(Expr::String(s)) if is_label_name(&s.value) => s.value.as_str(),
            Some(Expr::String(s)) => {
                return self.fail(format!("invalid label name {}", quote_bytes(&s.bytes)));
            }
            _ => return self.fail("invalid label name \"\""),
        };
        let vector = self.eval_vector(a.expr.unparenthesized(), steps)?;
        let mut grouping = a.grouping.clone();
        if !a.without {
            grouping.push(label.to_owned());
        }
        let mut at: HashMap<Labels, usize> = HashMap::new();
        let mut out: Vec<StepSeries> = Vec::new();
        // As many columns as there are different values: far more, perhaps, than there were before.
        let mut held = Held::new(self.budget, 0)?;
        for s in &vector.series {
            let mut by_text: HashMap<String, usize> = HashMap::new();
            for step in 0..steps.count {
                let text = match s.points.get(step) {
                    Some(Cell::Float(f)) => format_plain(f),
                    Some(Cell::Histogram(h)) => h.to_string(),
                    None => continue,
                };
                let i = match by_text.get(&text) {
                    Some(i) => *i,
                    None => {
                        held.grow(steps.count as u64)?;
                        let mut labels = s.labels.to_builder();
                        labels.set(label, text.as_str());
                        let labels = grouping_labels(&labels.build(), &grouping, a.without);
                        let i = *at.entry(labels.clone()).or_insert_with(|| {
                            let points = Points::absent(steps.count);
                            out.push(StepSeries { labels, drop_name: false, points });
                            out.len() - 1
                        });
                        by_text.insert(text, i);
                        i
                    }
                };
                let n = &mut out[i].points.floats[step];
                *n = if is_absent(*n) { 1.0 } else { *n + 1.0 };
            }
        }
        drop(vector);
        Ok(Vector::held(out, steps, held)?)
    }
}

/// Calls `f` with every float of the columns.
fn each<'a>(columns: impl Iterator<Item = &'a Vec<f64>>, mut f: impl FnMut(usize, f64)) {
    for column in columns {
        for (step, v) in column.iter().enumerate() {
            if !is_absent(*v) {
                f(step, *v);
            }
        }
    }
}

/// Variance or standard deviation by Welford's method.
fn deviations<'a>(
    columns: impl Iterator<Item = &'a Vec<f64>>,
    steps: usize,
    root: bool,
) -> Vec<f64> {
    #[derive(Clone, Copy, Default)]
    struct State {
        count: f64,
        mean: f64,
        squares: f64,
    }
    let mut states = vec![State::default(); steps];
    each(columns, |step, v| {
        let s = &mut states[step];
        s.count += 1.0;
        if s.count == 1.0 {
            s.mean = v;
            s.squares = if v.is_finite() { 0.0 } else { f64::NAN };
            return;
        }
        let delta = v - s.mean;
        s.mean += delta / s.count;
        s.squares += delta * (v - s.mean);
    });
    let value = |s: State| match s.count {
        0.0 => ABSENT,
        n if root => cell((s.squares / n).sqrt()),
        n => cell(s.squares / n),
    };
    states.into_iter().map(value).collect()
}

/// A sum or mean of floats.
#[derive(Clone, Copy)]
struct FloatTotal {
    sum: Kahan,
    mean: Mean,
}

impl FloatTotal {
    fn value(&self, mean: bool) -> f64 {
        if mean { self.mean.value() } else { self.sum.value() }
    }
}

/// One group at one step where histograms take part.
#[derive(Default)]
struct Mixed {
    has_float: bool,
    has_histogram: bool,
    incompatible: bool,
    /// Whether "reset" and "not reset" were seen.
    resets: (bool, bool),
    float: Option<FloatTotal>,
    histogram: Option<HistogramMean>,
}

impl Mixed {
    fn add_float(&mut self, value: f64, mean: bool) {
        if self.incompatible {
            return;
        }
        self.has_float = true;
        match &mut self.float {
            Some(total) if mean => total.mean.add(value),
            Some(total) => total.sum.add(value),
            none => *none = Some(FloatTotal { sum: Kahan::new(value), mean: Mean::new(value) }),
        }
    }

    fn add_histogram(
        &mut self,
        h: &Histogram,
        mean: bool,
        name: &str,
        span: Span,
        evaluator: &Evaluator<'_>,
    ) {
        if self.incompatible {
            return;
        }
        let first = !self.has_histogram && !self.has_float;
        self.has_histogram = true;
        if !first && self.histogram.is_none() {
            // Floats came first: there will be no result.
            return;
        }
        match h.reset_hint {
            CounterResetHint::CounterReset => self.resets.0 = true,
            CounterResetHint::NotCounterReset => self.resets.1 = true,
            _ => {}
        }
        let Some(total) = &mut self.histogram else {
            self.histogram = Some(HistogramMean::new(h, mean));
            return;
        };
        match total.add(h) {
            Ok(remarks) if remarks.bounds_reconciled => {
                evaluator.note(Note::bounds_reconciled(HistogramOperation::Aggregation, span));
            }
            Ok(_) => {}
            Err(_) => {
                evaluator.note(Note::mixed_exponential_custom(name, span));
                self.incompatible = true;
            }
        }
    }
}

/// The labels of the group that a label set belongs to.
fn grouping_labels(labels: &Labels, grouping: &[String], without: bool) -> Labels {
    if without {
        labels.retain(|n| n != METRIC_NAME && !grouping.iter().any(|g| g == n))
    } else if grouping.is_empty() {
        Labels::empty()
    } else {
        labels.retain(|n| grouping.iter().any(|g| g == n))
    }
}

/// Sorts series into groups, in order of first occurrence.
pub(crate) fn group(series: &[StepSeries], a: &Aggregate) -> Vec<Group> {
    let keep = |name: &str| {
        let named = a.grouping.iter().any(|g| g == name);
        if a.without { !named && name != METRIC_NAME } else { named }
    };
    // A label set is made for each group, not for each series: most series belong to a group that is known.
    let mut at: HashMap<u64, Vec<usize>, FxBuildHasher> = HashMap::default();
    let mut groups: Vec<Group> = Vec::new();
    for (i, s) in series.iter().enumerate() {
        let kept = || s.labels.iter().filter(|(name, _)| keep(name));
        let alike = at.entry(hash_of(kept())).or_default();
        let known = alike.iter().find(|g| groups[**g].labels.iter().eq(kept()));
        let g = known.copied().unwrap_or_else(|| {
            let labels = grouping_labels(&s.labels, &a.grouping, a.without);
            groups.push(Group { labels, members: Vec::new() });
            alike.push(groups.len() - 1);
            groups.len() - 1
        });
        groups[g].members.push(i);
    }
    groups
}
