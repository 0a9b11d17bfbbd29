//! Equality and counter resets of native histograms.

use std::sync::Arc;

use crate::histogram::buckets::exponential_bound;
use crate::histogram::sum::{HistogramSum, reduced_index};
use crate::histogram::{Bucket, CounterResetHint, Histogram};

impl Histogram {
    /// Whether two histograms hold the same data: layout and, bit by bit, all counts. Hints do not
    /// matter, nor do empty buckets.
    pub fn same_data(&self, other: &Histogram) -> bool {
        let bits = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let populated = |side: &[Bucket]| -> Vec<(i32, u64)> {
            let full = side.iter().filter(|b| b.count != 0.0);
            full.map(|b| (b.index, b.count.to_bits())).collect()
        };
        self.schema == other.schema
            && bits(self.count, other.count)
            && bits(self.sum, other.sum)
            && self.custom_bounds() == other.custom_bounds()
            && self.zero_threshold == other.zero_threshold
            && bits(self.zero_count, other.zero_count)
            && populated(&self.positive) == populated(&other.positive)
            && populated(&self.negative) == populated(&other.negative)
    }

    /// Whether the counter was reset between the previous sample and this one: because the hint says
    /// so, or because some count went down or some populated bucket vanished. A finer resolution or
    /// a narrower zero bucket can only come with a reset, too.
    pub fn is_reset_after(&self, previous: &Histogram) -> bool {
        match self.reset_hint {
            CounterResetHint::CounterReset => return true,
            CounterResetHint::NotCounterReset => return false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() != previous.uses_custom_buckets() {
            return self.uses_custom_buckets() || self.schema > previous.schema;
        }
        if self.uses_custom_buckets() {
            return if self.custom_bounds() == previous.custom_bounds() {
                any_less(&self.positive, previous.positive.iter().copied())
            } else {
                self.is_reset_on_shared_bounds(previous)
            };
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let mut widened;
        let mut before = previous;
        if self.zero_threshold > previous.zero_threshold {
            let mut sum = HistogramSum::new(previous);
            sum.widen_zero(self.zero_threshold);
            widened = sum.finish();
            widened.reset_hint = previous.reset_hint;
            if widened.zero_threshold != self.zero_threshold {
                return true;
            }
            before = &widened;
        }
        if self.zero_count < before.zero_count {
            return true;
        }
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let outside_zero = move |b: &Bucket| exponential_bound(b.index, schema) > threshold;
        let lowered = |side: &[Bucket]| {
            let mut out: Vec<Bucket> = Vec::with_capacity(side.len());
            for b in side {
                let index = reduced_index(b.index, before.schema, schema);
                match out.last_mut() {
                    Some(last) if last.index == index => last.count += b.count,
                    _ => out.push(Bucket { index, count: b.count }),
                }
            }
            out
        };
        [(&self.positive, &before.positive), (&self.negative, &before.negative)]
            .into_iter()
            .any(|(now, then)| any_less(now, lowered(then).into_iter().filter(outside_zero)))
    }

    /// For different custom bounds: compares the counts between bounds that both have.
    fn is_reset_on_shared_bounds(&self, previous: &Histogram) -> bool {
        let (ours, theirs) = (self.custom_bounds(), previous.custom_bounds());
        let shared = ours.iter().copied().filter(|b| theirs.contains(b));
        let mut from = f64::NEG_INFINITY;
        for to in shared.chain([f64::INFINITY]) {
            let between = |h: &Histogram| -> f64 {
                h.positive_buckets()
                    .filter(|b| b.upper > from && b.upper <= to)
                    .map(|b| b.count)
                    .sum()
            };
            if between(self) < between(previous) {
                return true;
            }
            from = to;
        }
        false
    }
}

/// Whether a bucket that was populated before is smaller now, or gone.
fn any_less(now: &[Bucket], then: impl Iterator<Item = Bucket>) -> bool {
    let mut now = now.iter().peekable();
    for before in then {
        while now.next_if(|b| b.index < before.index).is_some() {}
        match now.peek() {
            Some(b) if b.index == before.index && b.count >= before.count => {}
            Some(b) if b.index == before.index => return true,
            _ if before.count != 0.0 => return true,
            _ => {}
        }
    }
    false
}

/// Sets the hint of a histogram that follows `previous` in its series to what a reader of Prometheus'
/// storage would see. Stores call this in order of time, for each series on its own.
///
/// Explicit hints (gauge, reset) stay. A histogram that goes on without a reset becomes "not reset";
/// the first of a run, one after a reset, and one of another layout are "unknown", so that the
/// engine compares them itself.
pub fn mark_reset(previous: Option<&Histogram>, current: &mut Histogram) {
    use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
    if matches!(current.reset_hint, Gauge | CounterReset) || current.is_stale() {
        return;
    }
    current.reset_hint = Unknown;
    let Some(previous) = previous.filter(|p| p.reset_hint != Gauge && !p.is_stale()) else {
        return;
    };
    if current.schema == previous.schema
        && current.zero_threshold == previous.zero_threshold
        && current.custom_bounds() == previous.custom_bounds()
        && !current.is_reset_after(previous)
    {
        current.reset_hint = NotCounterReset;
    }
}

/// Replaces unknown hints of a run of histograms by comparing each with the one before.
pub(crate) fn detect_resets(histograms: &mut [Arc<Histogram>]) {
    use CounterResetHint::{CounterReset, NotCounterReset, Unknown};
    let mut previous: Option<Arc<Histogram>> = None;
    for h in histograms.iter_mut().filter(|h| !h.is_stale()) {
        if let Some(before) = previous.filter(|_| h.reset_hint == Unknown) {
            let reset = h.is_reset_after(&before);
            Arc::make_mut(h).reset_hint = if reset { CounterReset } else { NotCounterReset };
        }
        previous = Some(h.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h(schema: i32, count: f64, buckets: &[(i32, f64)]) -> Histogram {
        Histogram {
            schema,
            count,
            positive: buckets.iter().map(|&(index, count)| Bucket { index, count }).collect(),
            ..Histogram::default()
        }
    }

    #[test]
    fn a_smaller_or_missing_bucket_is_a_reset() {
        let before = h(0, 3.0, &[(1, 1.0), (2, 2.0)]);
        assert!(!h(0, 4.0, &[(1, 1.0), (2, 2.0), (3, 1.0)]).is_reset_after(&before));
        assert!(h(0, 4.0, &[(1, 0.5), (2, 3.5)]).is_reset_after(&before));
        assert!(h(0, 4.0, &[(2, 4.0)]).is_reset_after(&before));
        assert!(h(0, 2.0, &[(1, 1.0), (2, 2.0)]).is_reset_after(&before));
    }

    #[test]
    fn a_coarser_resolution_is_no_reset() {
        let before = h(1, 3.0, &[(1, 1.0), (2, 2.0)]);
        assert!(!h(0, 3.0, &[(1, 3.0)]).is_reset_after(&before));
        assert!(h(0, 3.0, &[(1, 2.0)]).is_reset_after(&before));
        assert!(before.is_reset_after(&h(0, 3.0, &[(1, 3.0)])));
    }

    #[test]
    fn hints_are_set_from_one_sample_to_the_next() {
        let first = h(0, 3.0, &[(1, 3.0)]);
        let mut second = h(0, 4.0, &[(1, 4.0)]);
        mark_reset(Some(&first), &mut second);
        assert_eq!(second.reset_hint, CounterResetHint::NotCounterReset);
        let mut third = h(0, 1.0, &[(1, 1.0)]);
        mark_reset(Some(&second), &mut third);
        assert_eq!(third.reset_hint, CounterResetHint::Unknown);
        let mut run = [first, second, third].map(Arc::new);
        detect_resets(&mut run);
        assert_eq!(run[2].reset_hint, CounterResetHint::CounterReset);
    }
}
