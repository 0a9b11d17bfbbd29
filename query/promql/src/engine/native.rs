//! Quantiles and fractions of native histograms.

use crate::annotations::Note;
use crate::histogram::{BoundedBucket, Histogram};
use crate::parse::Span;

/// A quantile by interpolation inside the bucket that holds it: linear in the zero bucket and in
/// custom buckets, else exponential. Also gives a note if NaN observations matter.
pub(crate) fn quantile(q: f64, h: &Histogram, name: &str, span: Span) -> (f64, Option<Note>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    let nan_sum = h.sum.is_nan();
    // NaN observations are in the count, but in no bucket: then only the way up is right.
    let upward = nan_sum || q < 0.5;
    let mut rank = if upward { q * h.count } else { (1.0 - q) * h.count };
    let all: Vec<BoundedBucket> =
        if upward { h.all_buckets().collect() } else { h.all_buckets().rev().collect() };
    let mut count = 0.0;
    let mut at = all.len();
    let mut bucket = BoundedBucket {
        lower: 0.0,
        upper: 0.0,
        lower_inclusive: false,
        upper_inclusive: false,
        count: 0.0,
    };
    for (i, b) in all.iter().enumerate() {
        bucket = *b;
        if b.count == 0.0 {
            continue;
        }
        count += b.count;
        if count >= rank {
            at = i;
            break;
        }
    }
    let custom = h.uses_custom_buckets();
    if custom {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, None);
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        one_sided_zero(h, &mut bucket);
    }
    count = count.min(h.count);
    if count < rank {
        if nan_sum {
            return (f64::NAN, Some(Note::quantile_is_nan(name, span)));
        }
        return (bucket.upper, None);
    }
    rank = if upward { rank - (count - bucket.count) } else { count - rank };
    let mut note = None;
    if nan_sum {
        let rest: f64 = all.iter().skip(at + 1).map(|b| b.count).sum();
        if count + rest < h.count {
            note = Some(Note::quantile_is_skewed(name, span));
        }
    }
    let fraction = rank / bucket.count;
    if custom || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return (bucket.lower + (bucket.upper - bucket.lower) * fraction, note);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        ((lower + (upper - lower) * fraction).exp2(), note)
    } else {
        (-(upper + (lower - upper) * (1.0 - fraction)).exp2(), note)
    }
}

/// With observations on one side only, the zero bucket is taken to lie on that side.
fn one_sided_zero(h: &Histogram, bucket: &mut BoundedBucket) {
    match (h.negative.is_empty(), h.positive.is_empty()) {
        (true, false) => bucket.lower = 0.0,
        (false, true) => bucket.upper = 0.0,
        _ => {}
    }
}

/// The fraction of observations between two values, with the same interpolation as [`quantile`].
pub(crate) fn fraction(
    lower: f64,
    upper: f64,
    h: &Histogram,
    name: &str,
    span: Span,
) -> (f64, Option<Note>) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if lower >= upper {
        return (0.0, None);
    }
    let custom = h.uses_custom_buckets();
    let mut rank = 0.0;
    let (mut lower_rank, mut upper_rank): (Option<f64>, Option<f64>) = (None, None);
    for mut b in h.all_buckets() {
        let is_zero = b.lower <= 0.0 && b.upper >= 0.0;
        if is_zero {
            one_sided_zero(h, &mut b);
        }
        let rank_at = |v: f64| {
            if (custom || is_zero) && b.lower == f64::NEG_INFINITY {
                // Nothing is known of the distribution in a bucket without end.
                return b.count;
            }
            rank + b.count * b.fraction_below(v, custom || is_zero)
        };
        for (bound, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && b.lower >= bound {
                *found = Some(rank);
            }
            if found.is_none() && b.lower < bound && b.upper > bound {
                *found = Some(rank_at(bound));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += b.count;
    }
    let mut count = h.count;
    let mut note = None;
    if h.sum.is_nan() {
        count = h.all_buckets().map(|b| b.count).sum();
        if count < h.count {
            note = Some(Note::fraction_without_nans(name, span));
        }
    }
    let rank_or_all = |rank: Option<f64>| rank.map_or(count, |r| if r > count { count } else { r });
    ((rank_or_all(upper_rank) - rank_or_all(lower_rank)) / h.count, note)
}
