//! Binary operators: scalars, a vector with a scalar, and two vectors.
//!
//! Two vectors are joined group by group: the series that agree in the matching labels. A group of
//! one series on each side, by far the most common, is computed column by column; other groups step
//! by step, because which series are present may differ from step to step.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use crate::annotations::Note;
use crate::budget::Budget;
use crate::engine::QueryError;
use crate::engine::element::{arithmetic, compare, elements, scalars};
use crate::engine::eval::{Evaluator, Result};
use crate::engine::matching::{MatchGroup, group_labels, groups, result_labels};
use crate::engine::value::{
    ABSENT, Cell, Evaluated, Held, Points, StepSeries, Steps, Vector, cell, is_absent,
};
use crate::labels::Labels;
use crate::parse::{Binary, BinaryOp, Cardinality, Matching, Span};
use crate::series::SampleValue;

/// The last note of each step: Prometheus reports one per step and operation.
#[derive(Default)]
struct LastNotes(Vec<Option<(usize, Note)>>);

impl LastNotes {
    fn set(&mut self, step: usize, order: usize, note: Note) {
        if self.0.len() <= step {
            self.0.resize(step + 1, None);
        }
        let slot = &mut self.0[step];
        if slot.as_ref().is_none_or(|(o, _)| *o <= order) {
            *slot = Some((order, note));
        }
    }
}

/// Two vectors being joined. `many` and `one` are the operands so that only `many` may have several
/// series in a group.
struct Join<'a> {
    op: BinaryOp,
    returns_bool: bool,
    m: &'a Matching,
    /// `many` is the right operand.
    swapped: bool,
    many: &'a [StepSeries],
    one: &'a [StepSeries],
    steps: &'a Steps,
    budget: &'a Budget,
    span: Span,
    drop_name: bool,
    any_many: OnceCell<Vec<bool>>,
    any_one: OnceCell<Vec<bool>>,
}

impl Evaluator<'_> {
    pub(crate) fn eval_binary(&self, b: &Binary, span: Span, steps: &Steps) -> Result<Evaluated> {
        let left = self.eval(&b.left, steps)?;
        let right = self.eval(&b.right, steps)?;
        Ok(match (left, right) {
            (Evaluated::Scalar(mut x), Evaluated::Scalar(y)) => {
                x.iter_mut().zip(y).for_each(|(x, y)| *x = scalars(b.op, *x, y));
                Evaluated::Scalar(x)
            }
            (Evaluated::Vector(v), Evaluated::Scalar(s)) => {
                Evaluated::Vector(self.vector_scalar(b, v, &s, false, span)?)
            }
            (Evaluated::Scalar(s), Evaluated::Vector(v)) => {
                Evaluated::Vector(self.vector_scalar(b, v, &s, true, span)?)
            }
            (Evaluated::Vector(left), Evaluated::Vector(right)) => {
                let Some(m) = &b.matching else {
                    return self.fail("a binary operation of vectors needs matching");
                };
                Evaluated::Vector(if b.op.is_set() {
                    self.set_operation(b.op, left, right, m, steps)?
                } else {
                    self.join(b, m, left, right, span, steps)?
                })
            }
            _ => return self.fail("binary expression must contain only scalars and vectors"),
        })
    }

    /// `swapped`: the scalar is on the left.
    fn vector_scalar(
        &self,
        b: &Binary,
        mut vector: Vector,
        scalar: &[f64],
        swapped: bool,
        span: Span,
    ) -> Result<Vector> {
        let mut series = std::mem::take(&mut vector.series);
        let mut notes = LastNotes::default();
        for (order, s) in series.iter_mut().enumerate() {
            if s.points.histograms.is_none() {
                floats_with_scalar(
                    b,
                    &mut s.points.floats,
                    scalar,
                    swapped,
                    |step, note| {
                        notes.set(step, order, note);
                    },
                    span,
                );
            } else {
                let old = std::mem::replace(&mut s.points, Points::absent(scalar.len()));
                for (step, &number) in scalar.iter().enumerate() {
                    let Some(value) = old.get(step) else { continue };
                    let number = Cell::Float(number);
                    let element = if swapped {
                        elements(b.op, number, value, span)
                    } else {
                        elements(b.op, value, number, span)
                    };
                    if let Some(note) = element.note {
                        notes.set(step, order, note);
                    }
                    let Some(mut result) = element.value else { continue };
                    if b.returns_bool {
                        result = SampleValue::Float(f64::from(u8::from(element.keep)));
                    } else if !element.keep {
                        continue;
                    } else if b.op.is_comparison() {
                        s.points.copy(step, &old);
                        continue;
                    }
                    s.points.set(step, result);
                }
            }
            if b.op.changes_meaning() || b.returns_bool {
                self.drop_name(s);
            }
        }
        self.add_last(notes);
        series.retain(|s| !s.points.is_empty());
        Ok(vector.with_series(self.merge_now(series)?))
    }

    fn add_last(&self, notes: LastNotes) {
        notes.0.into_iter().flatten().for_each(|(_, note)| self.note(note));
    }

    fn join(
        &self,
        b: &Binary,
        m: &Matching,
        left: Vector,
        right: Vector,
        span: Span,
        steps: &Steps,
    ) -> Result<Vector> {
        let swapped = m.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (&right, &left) } else { (&left, &right) };
        let join = Join {
            op: b.op,
            returns_bool: b.returns_bool,
            m,
            swapped,
            many: &many.series,
            one: &one.series,
            steps,
            budget: self.budget,
            span,
            drop_name: b.returns_bool && !self.options.delayed_name_removal,
            any_many: OnceCell::new(),
            any_one: OnceCell::new(),
        };
        let mut out = Vec::with_capacity(many.series.len());
        let mut notes = LastNotes::default();
        let mut held = Held::new(self.budget, 0)?;
        for group in &groups(&many.series, &one.series, m) {
            match (&group.left[..], &group.right[..]) {
                ([many], [one]) if m.fill_left.is_none() && m.fill_right.is_none() => {
                    held.grow(steps.count as u64)?;
                    join.pair(*many, *one, &mut out, &mut notes);
                }
                ([], _) if m.fill_left.is_none() && group.right.len() < 2 => {}
                (_, []) if m.fill_right.is_none() => {}
                _ => {
                    join.group(group, &mut out, &mut held, &mut notes)?;
                }
            }
        }
        self.add_last(notes);
        let series = self.merge_same_labels(out)?;
        Ok(Vector::held(series, steps, held)?)
    }
}

/// The common case: floats only, without going through [`elements`].
fn floats_with_scalar(
    b: &Binary,
    floats: &mut [f64],
    scalar: &[f64],
    swapped: bool,
    mut note: impl FnMut(usize, Note),
    span: Span,
) {
    let op = b.op;
    for (step, (v, &s)) in floats.iter_mut().zip(scalar).enumerate() {
        if is_absent(*v) {
            continue;
        }
        let (x, y) = if swapped { (s, *v) } else { (*v, s) };
        if op.is_comparison() {
            let keep = compare(op, x, y);
            if b.returns_bool {
                *v = f64::from(u8::from(keep));
            } else if !keep {
                *v = ABSENT;
            }
        } else if let Some(result) = arithmetic(op, x, y) {
            *v = cell(result);
        } else {
            note(step, Note::incompatible_types("float", op.as_str(), "float", span));
            *v = ABSENT;
        }
    }
}

fn owned(cell: Cell<'_>) -> Option<SampleValue> {
    Some(match cell {
        Cell::Float(f) => SampleValue::Float(f),
        Cell::Histogram(h) => SampleValue::Histogram(h.clone()),
    })
}

fn view(value: &SampleValue) -> Cell<'_> {
    match value {
        SampleValue::Float(f) => Cell::Float(*f),
        SampleValue::Histogram(h) => Cell::Histogram(h),
    }
}

/// The results of one match group.
struct Results<'a> {
    out: &'a mut Vec<StepSeries>,
    held: &'a mut Held,
    /// Where each label set of the group stands in `out`.
    at: HashMap<Labels, usize>,
    /// Labels of the results of pairs, made once for all steps.
    labels_of: HashMap<(Option<usize>, Option<usize>), Labels>,
}

impl Results<'_> {
    fn set(
        &mut self,
        join: &Join<'_>,
        labels: Labels,
        step: usize,
        value: Option<SampleValue>,
    ) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let at = match self.at.get(&labels) {
            Some(at) => *at,
            None => {
                self.held.grow(join.steps.count as u64)?;
                self.at.insert(labels.clone(), self.out.len());
                let points = Points::absent(join.steps.count);
                self.out.push(StepSeries { labels, drop_name: join.returns_bool, points });
                self.out.len() - 1
            }
        };
        self.out[at].points.set(step, value);
        Ok(())
    }
}

impl Join<'_> {
    /// One series on each side.
    fn pair(&self, many: usize, one: usize, out: &mut Vec<StepSeries>, notes: &mut LastNotes) {
        let (a, b) = (&self.many[many], &self.one[one]);
        let labels = result_labels(&a.labels, &b.labels, self.op, self.m, self.drop_name);
        let mut points = Points::absent(self.steps.count);
        let (left, right) = if self.swapped { (b, a) } else { (a, b) };
        let plain = left.points.histograms.is_none() && right.points.histograms.is_none();
        if plain && self.op.changes_meaning() {
            let pairs = left.points.floats.iter().zip(&right.points.floats);
            for (v, (x, y)) in points.floats.iter_mut().zip(pairs) {
                if !is_absent(*x) && !is_absent(*y) {
                    *v = arithmetic(self.op, *x, *y).map_or(ABSENT, cell);
                }
            }
        } else {
            for step in 0..self.steps.count {
                if let (Some(x), Some(y)) = (left.points.get(step), right.points.get(step))
                    && let Some(value) = self.element(x, y, step, many, notes).flatten()
                {
                    points.set(step, value);
                }
            }
        }
        if !points.is_empty() {
            out.push(StepSeries { labels, drop_name: self.returns_bool, points });
        }
    }

    /// The result for two values: `None` if the operator does not apply, `Some(None)` if a
    /// comparison does not hold.
    fn element(
        &self,
        left: Cell<'_>,
        right: Cell<'_>,
        step: usize,
        order: usize,
        notes: &mut LastNotes,
    ) -> Option<Option<SampleValue>> {
        let element = elements(self.op, left, right, self.span);
        if let Some(note) = element.note {
            notes.set(step, order, note);
        }
        let value = element.value?;
        Some(if self.returns_bool {
            Some(SampleValue::Float(f64::from(u8::from(element.keep))))
        } else {
            element.keep.then_some(value)
        })
    }

    fn any(cache: &OnceCell<Vec<bool>>, side: &[StepSeries], steps: usize, step: usize) -> bool {
        cache.get_or_init(|| {
            (0..steps).map(|step| side.iter().any(|s| s.points.is_present(step))).collect()
        })[step]
    }

    /// Any number of series on each side, step by step.
    fn group(
        &self,
        group: &MatchGroup,
        out: &mut Vec<StepSeries>,
        held: &mut Held,
        notes: &mut LastNotes,
    ) -> Result<()> {
        let steps = self.steps.count;
        let mut results = Results { out, held, at: HashMap::new(), labels_of: HashMap::new() };
        let filled = self.m.fill_left.is_some() || self.m.fill_right.is_some();
        let one_to_one = self.m.cardinality == Cardinality::OneToOne;
        for step in 0..steps {
            // An operand that is empty as a whole matches nothing, and so clashes with nothing.
            let any_many = Self::any(&self.any_many, self.many, steps, step);
            let any_one = Self::any(&self.any_one, self.one, steps, step);
            if !(any_many || any_one) || !(filled || (any_many && any_one)) {
                continue;
            }
            let present = |side: &[StepSeries], members: &[usize]| -> Vec<usize> {
                members.iter().copied().filter(|i| side[*i].points.is_present(step)).collect()
            };
            let ones = present(self.one, &group.right);
            if let [a, b, ..] = ones[..] {
                return Err(QueryError::Execution(self.duplicate_one(a, b)));
            }
            self.budget.check()?;
            let mut matched: HashSet<Labels> = HashSet::new();
            let manys = present(self.many, &group.left);
            let mut pairs: Vec<(Option<usize>, Option<usize>)> = Vec::new();
            for &many in &manys {
                if !ones.is_empty() || self.m.fill_right.is_some() {
                    pairs.push((Some(many), ones.first().copied()));
                }
            }
            let mut any = false;
            for pair in pairs {
                let Some((labels, value)) = self.at_step(pair, step, &mut results, notes) else {
                    continue;
                };
                if one_to_one && any {
                    return self.fail(
                        "multiple matches for labels: many-to-one matching must be explicit \
                         (group_left/group_right)",
                    );
                }
                if !one_to_one && !matched.insert(labels.clone()) {
                    return self.fail(
                        "multiple matches for labels: grouping labels must ensure unique matches",
                    );
                }
                any = true;
                results.set(self, labels, step, value)?;
            }
            if let (Some(&one), Some(_), false) = (ones.first(), self.m.fill_left, any)
                && let Some((labels, value)) =
                    self.at_step((None, Some(one)), step, &mut results, notes)
            {
                results.set(self, labels, step, value)?;
            }
        }
        Ok(())
    }

    fn fail<T>(&self, message: &str) -> Result<T> {
        Err(QueryError::Execution(message.to_owned()))
    }

    /// The result for a pair of series at a step, and its labels: `None` if they do not match there, no value if a
    /// comparison does not hold.
    fn at_step(
        &self,
        (many, one): (Option<usize>, Option<usize>),
        step: usize,
        results: &mut Results<'_>,
        notes: &mut LastNotes,
    ) -> Option<(Labels, Option<SampleValue>)> {
        let operand = |side: &[StepSeries], i: Option<usize>, fill: Option<f64>| match i {
            Some(i) => owned(side[i].points.get(step)?),
            None => Some(SampleValue::Float(fill?)),
        };
        let many_value = operand(self.many, many, self.m.fill_left);
        let one_value = operand(self.one, one, self.m.fill_right);
        let (Some(a), Some(b)) = (&many_value, &one_value) else { return None };
        let (a, b) = (view(a), view(b));
        let (left, right) = if self.swapped { (b, a) } else { (a, b) };
        let order = many.map_or(self.many.len(), |i| i);
        let value = self.element(left, right, step, order, notes)?;
        let make = || {
            let many_labels = match (many, one) {
                (Some(i), _) => self.many[i].labels.clone(),
                (None, i) => group_labels(&self.one[i?].labels, self.m),
            };
            let one_labels = match one {
                Some(i) => self.one[i].labels.clone(),
                None => group_labels(&many_labels, self.m),
            };
            Some(result_labels(&many_labels, &one_labels, self.op, self.m, self.drop_name))
        };
        let labels = match results.labels_of.get(&(many, one)) {
            Some(labels) => labels.clone(),
            None => {
                let labels = make()?;
                results.labels_of.insert((many, one), labels.clone());
                labels
            }
        };
        Some((labels, value))
    }

    fn duplicate_one(&self, a: usize, b: usize) -> String {
        let group = group_labels(&self.one[b].labels, self.m);
        let side = if self.swapped { "left" } else { "right" };
        let mut series = [self.one[a].labels.to_string(), self.one[b].labels.to_string()];
        series.sort();
        format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            series[0], series[1]
        )
    }
}
