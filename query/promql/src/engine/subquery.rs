//! Subqueries: an expression evaluated at many times becomes a range vector.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::eval::{Evaluator, Result};
use crate::engine::finish::over_time;
use crate::engine::value::{RangeSeries, Steps};
use crate::histogram::{CounterResetHint, Histogram};
use crate::labels::Labels;
use crate::parse::Subquery;
use crate::series::{Column, Series};

impl Evaluator<'_> {
    /// Evaluates the inner expression at all times that the steps may need: multiples of the
    /// subquery's step, from just after the first range's start to the last range's end.
    pub(crate) fn subquery_result(&self, s: &Subquery, steps: &Steps) -> Result<Vec<RangeSeries>> {
        let range = self.duration(&s.range, false)?;
        let offset = self.duration(&s.timing.offset, true)?;
        let interval = match &s.step {
            Some(step) => self.duration(step, false)?,
            None => self.options.subquery_step.as_millis() as i64,
        }
        .max(1);
        let at = self.at(s.timing.at);
        let first = at.unwrap_or(steps.start_ms).saturating_sub(offset);
        let last = at.unwrap_or(steps.last_ms()).saturating_sub(offset);
        let open = first.saturating_sub(range);
        let start = (open.div_euclid(interval) + 1) * interval;
        if start > last {
            return Ok(Vec::new());
        }
        let count = last.saturating_sub(start) / interval + 1;
        let max = self.budget.limits().samples_max;
        if count as u64 > max {
            return Err(crate::budget::LimitError::Samples { max }.into());
        }
        let inner = Steps { start_ms: start, step_ms: interval, count: count as usize };
        let _scalars = self.hold_scalars(&s.expr, &inner)?;
        let vector = self.eval_vector(&s.expr, &inner)?;
        Ok(vector
            .series
            .iter()
            .map(|s| RangeSeries { series: over_time(s, &inner), drop_name: s.drop_name })
            .collect())
    }

    /// As [`subquery_result`](Self::subquery_result), for a range function: hints on counter resets
    /// are forgotten, because the subquery may leave out samples or repeat them.
    pub(crate) fn subquery_ranges(&self, s: &Subquery, steps: &Steps) -> Result<Vec<RangeSeries>> {
        let mut out = self.subquery_result(s, steps)?;
        let forget = |h: &mut Arc<Histogram>| {
            use CounterResetHint::{CounterReset, NotCounterReset};
            if matches!(h.reset_hint, CounterReset | NotCounterReset) {
                Arc::make_mut(h).reset_hint = CounterResetHint::Unknown;
            }
        };
        for s in &mut out {
            s.series.histograms.values.change(|all| all.iter_mut().for_each(forget));
        }
        Ok(out)
    }

    /// Merges range series of the same labels that have no samples at the same time.
    pub(crate) fn merge_ranges(&self, series: Vec<RangeSeries>) -> Result<Vec<RangeSeries>> {
        let mut at: HashMap<Labels, usize> = HashMap::with_capacity(series.len());
        let mut out: Vec<RangeSeries> = Vec::with_capacity(series.len());
        for s in series {
            let Some(&i) = at.get(&s.series.labels) else {
                at.insert(s.series.labels.clone(), out.len());
                out.push(s);
                continue;
            };
            let Series { floats, histograms, .. } = s.series;
            let into = &mut out[i].series;
            if interleave(&mut into.floats, floats) || interleave(&mut into.histograms, histograms)
            {
                return self.fail("vector cannot contain metrics with the same labelset");
            }
        }
        Ok(out)
    }
}

/// Merges two columns by time; whether a time occurs in both.
fn interleave<T: Clone>(into: &mut Column<T>, other: Column<T>) -> bool {
    into.starts.clear();
    let times = into.times.iter().chain(other.times.iter()).copied();
    let values = into.values.iter().chain(other.values.iter()).cloned();
    let mut both: Vec<(i64, T)> = times.zip(values).collect();
    both.sort_by_key(|(t, _)| *t);
    let clash = both.windows(2).any(|w| w[0].0 == w[1].0);
    (into.times, into.values) = both.into_iter().unzip();
    clash
}
