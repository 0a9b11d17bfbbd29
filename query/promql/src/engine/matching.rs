//! Which series of two vectors belong together, and what labels their result has.

use std::collections::HashMap;

use crate::engine::eval::is_metadata_label;
use crate::engine::value::StepSeries;
use crate::labels::{Labels, METRIC_NAME};
use crate::parse::{BinaryOp, Cardinality, Matching};

/// Series of both sides that agree in the matching labels, by index.
#[derive(Debug, Default)]
pub(crate) struct MatchGroup {
    pub left: Vec<usize>,
    pub right: Vec<usize>,
}

/// The labels that decide whether two series match.
pub(crate) fn signature(labels: &Labels, m: &Matching) -> Labels {
    if m.on {
        labels.retain(|n| m.labels.iter().any(|l| l == n))
    } else {
        labels.retain(|n| n != METRIC_NAME && !m.labels.iter().any(|l| l == n))
    }
}

/// The labels that stand for the match group in messages and for a filled-in series.
pub(crate) fn group_labels(labels: &Labels, m: &Matching) -> Labels {
    signature(labels, m)
}

/// Groups the series of two vectors, in order of first occurrence.
pub(crate) fn groups(left: &[StepSeries], right: &[StepSeries], m: &Matching) -> Vec<MatchGroup> {
    let mut at: HashMap<Labels, usize> = HashMap::with_capacity(left.len());
    let mut out: Vec<MatchGroup> = Vec::new();
    for (is_right, side) in [(false, left), (true, right)] {
        for (i, s) in side.iter().enumerate() {
            let group = *at.entry(signature(&s.labels, m)).or_insert_with(|| {
                out.push(MatchGroup::default());
                out.len() - 1
            });
            let group = &mut out[group];
            if is_right { group.right.push(i) } else { group.left.push(i) }
        }
    }
    out
}

/// The labels of a result.
///
/// * `many`, `one`: the operands; for one-to-one matching the left and the right.
pub(crate) fn result_labels(
    many: &Labels,
    one: &Labels,
    op: BinaryOp,
    m: &Matching,
    drop_name: bool,
) -> Labels {
    let mut labels = many.to_builder();
    if drop_name || op.changes_meaning() {
        labels.retain(|n| !is_metadata_label(n));
    }
    if m.cardinality == Cardinality::OneToOne {
        let named = |n: &str| m.labels.iter().any(|l| l == n);
        labels.retain(|n| named(n) == m.on);
    }
    for name in &m.include {
        match one.get_shared(name) {
            Some(value) => labels.set(name.as_str(), value.clone()),
            None => labels.remove(name),
        };
    }
    labels.build()
}
