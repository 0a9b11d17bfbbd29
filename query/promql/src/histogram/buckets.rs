//! Walking over the buckets of a native histogram with their bounds.

use crate::histogram::{Bucket, Histogram};

/// A bucket with bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundedBucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether the lower bound belongs to the bucket.
    pub lower_inclusive: bool,
    /// Whether the upper bound belongs to the bucket.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
}

impl BoundedBucket {
    /// The share of the bucket's width at or below `v`, which must be inside finite bounds. On a
    /// logarithmic scale unless `linear`.
    pub(crate) fn fraction_below(&self, v: f64, linear: bool) -> f64 {
        if linear {
            return (v - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        let v_log = v.abs().log2();
        if v > 0.0 {
            (v_log - lower) / (upper - lower)
        } else {
            1.0 - (v_log - upper) / (lower - upper)
        }
    }
}

/// The upper bound of the exponential bucket at an index: 2^(index · 2^-schema). Bounds beyond the
/// largest float are clipped to it, except that the one after it is +Inf.
pub(crate) fn exponential_bound(index: i32, schema: i32) -> f64 {
    if schema < 0 {
        // Shifted in 64 bits: an index of 32 bits may leave the range of exponents.
        let exponent = i64::from(index) << -schema;
        return match exponent {
            1024 => f64::MAX,
            e => exp2_integer(e),
        };
    }
    let per_power = 1i32 << schema;
    let (whole, part) = (index.div_euclid(per_power), index.rem_euclid(per_power));
    if part == 0 && whole == 1024 {
        return f64::MAX;
    }
    let fraction = if part == 0 { 1.0 } else { (f64::from(part) / f64::from(per_power)).exp2() };
    // The fraction is in [1, 2), so half of it times twice the power can't overflow early.
    (fraction * 0.5) * exp2_integer(i64::from(whole)) * 2.0
}

fn exp2_integer(exponent: i64) -> f64 {
    match exponent {
        1024.. => f64::INFINITY,
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        -1074..-1022 => f64::from_bits(1 << (exponent + 1074)),
        _ => 0.0,
    }
}

impl Histogram {
    /// The upper bound of a bucket on the positive side.
    pub(crate) fn bound(&self, index: i32) -> f64 {
        if self.uses_custom_buckets() {
            let bounds = self.custom_bounds();
            return match usize::try_from(index) {
                Ok(i) => bounds.get(i).copied().unwrap_or(f64::INFINITY),
                Err(_) => f64::NEG_INFINITY,
            };
        }
        exponential_bound(index, self.schema)
    }

    fn positive_bucket(&self, bucket: &Bucket) -> BoundedBucket {
        let (lower, upper) = (self.bound(bucket.index.wrapping_sub(1)), self.bound(bucket.index));
        let custom = self.uses_custom_buckets();
        BoundedBucket {
            lower,
            upper,
            lower_inclusive: if custom { bucket.index == 0 } else { lower < 0.0 },
            upper_inclusive: custom || upper > 0.0,
            count: bucket.count,
        }
    }

    fn negative_bucket(&self, bucket: &Bucket) -> BoundedBucket {
        let (lower, upper) = (-self.bound(bucket.index), -self.bound(bucket.index.wrapping_sub(1)));
        BoundedBucket {
            lower,
            upper,
            lower_inclusive: lower < 0.0,
            upper_inclusive: upper > 0.0,
            count: bucket.count,
        }
    }

    /// Buckets of the positive side in ascending order, those of zero count too.
    pub(crate) fn positive_buckets(&self) -> impl DoubleEndedIterator<Item = BoundedBucket> + '_ {
        self.positive.iter().map(|b| self.positive_bucket(b))
    }

    /// Buckets of the negative side from zero downward, those of zero count too.
    pub(crate) fn negative_buckets(&self) -> impl DoubleEndedIterator<Item = BoundedBucket> + '_ {
        self.negative.iter().map(|b| self.negative_bucket(b))
    }

    /// The zero bucket; meaningless for custom buckets.
    pub(crate) fn zero_bucket(&self) -> BoundedBucket {
        BoundedBucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// All buckets in ascending order. Bounds that reach into the zero bucket are cut at its
    /// threshold.
    pub fn all_buckets(&self) -> impl DoubleEndedIterator<Item = BoundedBucket> + '_ {
        let threshold = self.zero_threshold;
        let custom = self.uses_custom_buckets();
        let negative = self.negative_buckets().rev().map(move |mut b| {
            if b.upper < 0.0 && b.upper > -threshold {
                b.upper = -threshold;
            }
            b
        });
        let zero = (self.zero_count > 0.0 && !custom).then(|| self.zero_bucket());
        let positive = self.positive_buckets().map(move |mut b| {
            if !custom && b.lower > 0.0 && b.lower < threshold {
                b.lower = threshold;
            }
            b
        });
        negative.chain(zero).chain(positive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_every_two_to_the_schema_buckets() {
        assert_eq!(exponential_bound(0, 0), 1.0);
        assert_eq!(exponential_bound(3, 0), 8.0);
        assert_eq!(exponential_bound(-2, 0), 0.25);
        assert_eq!(exponential_bound(1, 1), 2f64.sqrt());
        assert_eq!(exponential_bound(1, -2), 16.0);
        assert_eq!(exponential_bound(1024, 0), f64::MAX);
        assert_eq!(exponential_bound(1025, 0), f64::INFINITY);
        assert_eq!(exponential_bound(i32::MAX, -4), f64::INFINITY);
        assert_eq!(exponential_bound(i32::MIN, 8), 0.0);
    }

    #[test]
    fn custom_buckets_reach_from_minus_to_plus_infinity() {
        let h = Histogram {
            schema: crate::histogram::CUSTOM_BUCKETS_SCHEMA,
            custom_values: Some([5.0, 10.0].into()),
            positive: vec![
                Bucket { index: 0, count: 1.0 },
                Bucket { index: 1, count: 2.0 },
                Bucket { index: 2, count: 3.0 },
            ],
            ..Histogram::default()
        };
        let bounds: Vec<_> = h.all_buckets().map(|b| (b.lower, b.upper)).collect();
        assert_eq!(bounds, [(f64::NEG_INFINITY, 5.0), (5.0, 10.0), (10.0, f64::INFINITY)]);
    }
}
