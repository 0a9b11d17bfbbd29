//! Aggregations that choose some of their series: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use crate::annotations::Note;
use crate::engine::aggregate::group;
use crate::engine::eval::{Evaluator, Result};
use crate::engine::value::{Points, StepSeries, Steps, Vector, is_absent};
use crate::labels::Labels;
use crate::parse::{Aggregate, AggregateOp, Span};

impl Evaluator<'_> {
    /// * `param`: per step the number of series, or the ratio.
    pub(crate) fn choose(
        &self,
        a: &Aggregate,
        param: &[f64],
        param_span: Span,
        mut vector: Vector,
        steps: &Steps,
    ) -> Result<Vector> {
        let series = std::mem::take(&mut vector.series);
        if !self.check_choice(a, param, param_span)? {
            return Ok(vector);
        }
        let groups = group(&series, a);
        let mut kept: Vec<Points> = series.iter().map(|_| Points::absent(steps.count)).collect();
        // For an instant query the order of the result is part of it.
        let mut order = Vec::new();
        for g in &groups {
            self.budget.check()?;
            for (step, p) in param.iter().enumerate() {
                for i in self.chosen(a, *p, &series, &g.members, step) {
                    kept[i].copy(step, &series[i].points);
                    if steps.count == 1 {
                        order.push(i);
                    }
                }
            }
        }
        let mut out: Vec<StepSeries> =
            series.into_iter().zip(kept).map(|(s, points)| StepSeries { points, ..s }).collect();
        if steps.count == 1 {
            let mut taken: Vec<Option<StepSeries>> = out.into_iter().map(Some).collect();
            out = order.into_iter().filter_map(|i| taken[i].take()).collect();
        }
        Ok(vector.with_series(out))
    }

    /// Whether anything is to be chosen at all; errors and notes for bad parameters.
    fn check_choice(&self, a: &Aggregate, param: &[f64], span: Span) -> Result<bool> {
        let numbers = || param.iter().copied().filter(|p| !p.is_nan());
        let max = numbers().fold(f64::NEG_INFINITY, f64::max);
        let min = numbers().fold(f64::INFINITY, f64::min);
        let any_nan = param.iter().any(|p| p.is_nan());
        if a.op == AggregateOp::LimitRatio {
            if max == 0.0 && min == 0.0 {
                return Ok(false);
            }
            if any_nan {
                return self.fail("Ratio value is NaN");
            }
            if max > 1.0 {
                self.note(Note::invalid_ratio(max, 1.0, span));
            }
            if min < -1.0 {
                self.note(Note::invalid_ratio(min, -1.0, span));
            }
            return Ok(true);
        }
        if max < 1.0 && !(any_nan && max == f64::NEG_INFINITY) {
            return Ok(false);
        }
        if any_nan {
            return self.fail("Parameter value is NaN");
        }
        let show = crate::text::format_short;
        if min <= i64::MIN as f64 {
            return self.fail(format!("Scalar value {} underflows int64", show(min)));
        }
        if max >= i64::MAX as f64 {
            return self.fail(format!("Scalar value {} overflows int64", show(max)));
        }
        Ok(true)
    }

    /// The members chosen at a step, best first.
    fn chosen(
        &self,
        a: &Aggregate,
        param: f64,
        series: &[StepSeries],
        members: &[usize],
        step: usize,
    ) -> Vec<usize> {
        let present = || members.iter().copied().filter(|i| series[*i].points.is_present(step));
        match a.op {
            AggregateOp::LimitRatio => {
                let ratio = param.clamp(-1.0, 1.0);
                present().filter(|i| in_ratio(&series[*i].labels, ratio)).collect()
            }
            AggregateOp::Limitk => present().take(count(param)).collect(),
            _ => {
                let k = count(param);
                if k == 0 {
                    return Vec::new();
                }
                let ignores = |i: usize| series[i].points.histogram(step).is_some();
                if present().any(ignores) {
                    self.note(Note::ignored_in_aggregation(a.op.name(), a.span));
                }
                let values = members.iter().map(|i| (*i, series[*i].points.floats[step]));
                best(values.filter(|(_, v)| !is_absent(*v)), k, a.op == AggregateOp::Topk)
            }
        }
    }
}

fn count(param: f64) -> usize {
    if param < 1.0 { 0 } else { param as usize }
}

/// The k best values' indices, best first. NaN is worse than any number; of equal values the earlier
/// is better.
fn best(values: impl Iterator<Item = (usize, f64)>, k: usize, largest: bool) -> Vec<usize> {
    // The smaller key is the better one.
    let key = |v: f64| match (v.is_nan(), largest) {
        (true, _) => (true, 0.0),
        (false, true) => (false, -v),
        (false, false) => (false, v),
    };
    let compare = |a: f64, b: f64| {
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then_with(|| a.1.total_cmp(&b.1))
    };
    let mut best: Vec<(usize, f64)> = Vec::new();
    for (i, v) in values {
        if best.len() < k {
            best.push((i, v));
            if best.len() == k {
                best.sort_by(|a, b| compare(a.1, b.1));
            }
            continue;
        }
        let Some(worst) = best.last() else { break };
        if compare(v, worst.1).is_lt() {
            best.pop();
            let at = best.partition_point(|b| compare(b.1, v).is_le());
            best.insert(at, (i, v));
        }
    }
    if best.len() < k {
        best.sort_by(|a, b| compare(a.1, b.1));
    }
    best.into_iter().map(|(i, _)| i).collect()
}

/// Whether a series belongs to a share of all series, decided by a hash of its labels. A negative
/// ratio gives the complement of the positive one.
fn in_ratio(labels: &Labels, ratio: f64) -> bool {
    let offset = label_hash(labels) as f64 / u64::MAX as f64;
    if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}

/// XXH64 over the labels as Prometheus lays them out in memory, so that the same series are chosen.
fn label_hash(labels: &Labels) -> u64 {
    let mut data = Vec::with_capacity(128);
    for text in labels.iter().flat_map(|(n, v)| [n, v]) {
        let len = text.len();
        if len < 255 {
            data.push(len as u8);
        } else {
            data.push(255);
            data.extend_from_slice(&(len as u32).to_le_bytes()[..3]);
        }
        data.extend_from_slice(text.as_bytes());
    }
    xxhash_rust::xxh64::xxh64(&data, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_nan_last() {
        let values = [3.0, f64::NAN, 5.0, 1.0, 5.0];
        let of = |k, largest| best(values.iter().copied().enumerate(), k, largest);
        assert_eq!(of(3, true), [2, 4, 0]);
        assert_eq!(of(2, false), [3, 0]);
        assert_eq!(of(9, true), [2, 4, 0, 3, 1]);
    }
}
