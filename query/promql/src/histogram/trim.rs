//! Cutting a native histogram at a value: the operators `</` and `>/`.

use crate::histogram::buckets::BoundedBucket;
use crate::histogram::{Bucket, Histogram};

/// Which side of the cut stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Below,
    Above,
}

impl Histogram {
    /// Keeps the observations on one side of a value. A bucket that holds the value is divided by
    /// interpolation. Count and sum are then estimated anew from the buckets, with the middle of
    /// each bucket as its mean; if nothing was cut, they stay as they are.
    pub(crate) fn trim(&self, at: f64, keep: Keep) -> Histogram {
        let custom = self.uses_custom_buckets();
        let mut out = self.clone();
        let mut total = Total::default();
        let mut cut = false;
        let mut trim_side = |side: &mut Vec<Bucket>, bounded: &[BoundedBucket], positive: bool| {
            for (bucket, b) in side.iter_mut().zip(bounded).filter(|(b, _)| b.count != 0.0) {
                let (all, some) = match keep {
                    Keep::Below => (b.upper <= at, b.lower < at),
                    Keep::Above => (b.lower >= at, b.upper > at),
                };
                if all {
                    total.add(b.count, middle(b.lower, b.upper, positive, custom));
                } else if some {
                    let (kept, mean) = trim_bucket(b, at, keep, positive, custom);
                    total.add(kept, mean);
                    cut |= kept != bucket.count;
                    bucket.count = kept;
                } else {
                    bucket.count = 0.0;
                    cut = true;
                }
            }
        };
        let positive: Vec<BoundedBucket> = self.positive_buckets().collect();
        let negative: Vec<BoundedBucket> = self.negative_buckets().collect();
        trim_side(&mut out.positive, &positive, true);
        trim_side(&mut out.negative, &negative, false);
        if self.zero_count > 0.0 {
            let populated = |side: &[Bucket]| side.iter().any(|b| b.count != 0.0);
            let sides = (populated(&self.negative), populated(&self.positive));
            let (kept, mean) = trim_zero(&self.zero_bucket(), at, keep, sides);
            cut |= kept != self.zero_count;
            out.zero_count = kept;
            total.add(kept, mean);
        }
        if !cut {
            return self.clone();
        }
        out.count = total.count;
        out.sum = total.sum;
        out.drop_empty_buckets();
        out
    }
}

#[derive(Default)]
struct Total {
    count: f64,
    sum: f64,
}

impl Total {
    fn add(&mut self, count: f64, mean: f64) {
        self.count += count;
        self.sum += mean * count;
    }
}

/// What stays of a bucket that holds the cut, and its mean.
fn trim_bucket(b: &BoundedBucket, at: f64, keep: Keep, positive: bool, custom: bool) -> (f64, f64) {
    if b.lower == f64::NEG_INFINITY || b.upper == f64::INFINITY {
        return trim_endless(b, at, keep);
    }
    let below = if at <= b.lower {
        0.0
    } else if at >= b.upper {
        b.count
    } else {
        b.count * b.fraction_below(at, custom)
    };
    match keep {
        Keep::Below => (below, middle(b.lower, at, positive, custom)),
        Keep::Above => (b.count - below, middle(at, b.upper, positive, custom)),
    }
}

/// Nothing is known of the distribution in a bucket without end, so it stays or goes as a whole;
/// except that the first custom bucket counts as starting at zero if it ends above zero.
fn trim_endless(b: &BoundedBucket, at: f64, keep: Keep) -> (f64, f64) {
    let finite = |v: f64| if v.is_infinite() { 0.0 } else { v };
    if b.lower == f64::NEG_INFINITY {
        let ends_above_zero = b.upper > 0.0 && b.upper != f64::INFINITY;
        return match keep {
            Keep::Below if at >= b.upper => (b.count, 0.0),
            Keep::Below if at > 0.0 && ends_above_zero => (b.count * at / b.upper, at / 2.0),
            Keep::Below if b.upper <= 0.0 => (b.count, at),
            Keep::Above if at <= b.lower => (b.count, 0.0),
            Keep::Above if at >= 0.0 && b.upper > at && ends_above_zero => {
                (b.count * (1.0 - at / b.upper), (at + b.upper) / 2.0)
            }
            _ => (0.0, finite(b.upper)),
        };
    }
    match keep {
        Keep::Above if at >= b.lower => (b.count, at),
        _ => (0.0, finite(b.lower)),
    }
}

/// `sides`: whether there are negative and positive observations outside the zero bucket. With one
/// of them only, the zero bucket is taken to reach from zero to that side.
fn trim_zero(zero: &BoundedBucket, at: f64, keep: Keep, sides: (bool, bool)) -> (f64, f64) {
    let (has_negative, has_positive) = sides;
    let upper = if has_negative && !has_positive { 0.0 } else { zero.upper };
    let lower = if has_positive && !has_negative { 0.0 } else { zero.lower };
    let width = upper - lower;
    let (all, none) = match keep {
        Keep::Below => (at >= upper, at <= lower),
        Keep::Above => (at <= lower, at >= upper),
    };
    // At a width of zero both hold; the order is that of Prometheus.
    match keep {
        Keep::Below if none => (0.0, 0.0),
        _ if all => (zero.count, (lower + upper) / 2.0),
        _ if none => (0.0, 0.0),
        Keep::Below => (zero.count * (at - lower) / width, (lower + at) / 2.0),
        Keep::Above => (zero.count * (upper - at) / width, (at + upper) / 2.0),
    }
}

/// The assumed mean of the observations between two bounds.
fn middle(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        _ if linear => (lower + upper) / 2.0,
        _ => {
            let mean = (lower * upper).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
