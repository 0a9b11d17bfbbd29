//! `and`, `or`, `unless`.

use crate::engine::eval::{Evaluator, Result};
use crate::engine::matching::groups;
use crate::engine::value::{Points, StepSeries, Steps, Vector};
use crate::parse::{BinaryOp, Matching};

/// At which steps one of the series has a value.
fn presence(series: &[StepSeries], members: &[usize], steps: usize) -> Vec<bool> {
    let mut out = vec![false; steps];
    for &i in members {
        for (step, seen) in out.iter_mut().enumerate() {
            *seen |= series[i].points.is_present(step);
        }
    }
    out
}

/// Keeps the values at steps where `mask` is `keep`.
fn masked(points: &mut Points, mask: &[bool], keep: bool) {
    for (step, m) in mask.iter().enumerate() {
        if *m != keep {
            points.clear(step);
        }
    }
}

impl Evaluator<'_> {
    pub(crate) fn set_operation(
        &self,
        op: BinaryOp,
        mut left: Vector,
        mut right: Vector,
        m: &Matching,
        steps: &Steps,
    ) -> Result<Vector> {
        let mut left_series = std::mem::take(&mut left.series);
        let mut right_series = std::mem::take(&mut right.series);
        for group in groups(&left_series, &right_series, m) {
            if op == BinaryOp::Or {
                let mask = presence(&left_series, &group.left, steps.count);
                for &i in &group.right {
                    masked(&mut right_series[i].points, &mask, false);
                }
            } else {
                let mask = presence(&right_series, &group.right, steps.count);
                for &i in &group.left {
                    masked(&mut left_series[i].points, &mask, op == BinaryOp::And);
                }
            }
        }
        if op != BinaryOp::Or {
            return Ok(left.with_series(left_series));
        }
        right_series.retain(|s| !s.points.is_empty());
        left_series.retain(|s| !s.points.is_empty());
        left_series.extend(right_series);
        let series =
            if steps.count > 1 { self.merge_same_labels(left_series)? } else { left_series };
        let series = if steps.count == 1 { self.merge_now(series)? } else { series };
        drop((left, right));
        Ok(Vector::new(series, steps, self.budget)?)
    }
}
