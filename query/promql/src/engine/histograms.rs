//! Sums and means of histograms, and functions of single ones.

use crate::histogram::{Histogram, HistogramSum, Incompatible, Remarks};
use crate::kahan::Kahan;

/// A running sum or mean of histograms. The mean goes over to updating itself when the sum would
/// overflow.
#[derive(Clone, Debug)]
pub(crate) struct HistogramMean {
    total: HistogramSum,
    mean: bool,
    count: f64,
    incremental: bool,
}

impl HistogramMean {
    pub(crate) fn new(first: &Histogram, mean: bool) -> Self {
        HistogramMean { total: HistogramSum::new(first), mean, count: 1.0, incremental: false }
    }

    pub(crate) fn add(&mut self, h: &Histogram) -> Result<Remarks, Incompatible> {
        self.count += 1.0;
        if !self.mean {
            return self.total.add(h);
        }
        if !self.incremental {
            if !self.total.may_overflow(h) {
                return self.total.add(h);
            }
            let mut next = self.total.clone();
            let remarks = next.add(h)?;
            if !next.has_overflow() {
                self.total = next;
                return Ok(remarks);
            }
            self.incremental = true;
            self.total.divide(self.count - 1.0);
        }
        self.total.scale((self.count - 1.0) / self.count);
        let mut share = h.clone();
        share.divide(self.count);
        self.total.add(&share)
    }

    pub(crate) fn finish(mut self) -> Histogram {
        if self.mean && !self.incremental {
            self.total.divide(self.count);
        }
        self.total.finish()
    }
}

/// Variance of the observations, estimated from the buckets: each bucket stands for its geometric
/// mean, or for its middle if it is a custom or the zero bucket.
pub(crate) fn variance(h: &Histogram) -> f64 {
    let mean = h.sum / h.count;
    let mut total = Kahan::default();
    for b in h.all_buckets().filter(|b| b.count != 0.0) {
        let value = if h.uses_custom_buckets() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            let geometric = (b.upper * b.lower).sqrt();
            if b.upper < 0.0 { -geometric } else { geometric }
        };
        let delta = value - mean;
        total.add(b.count * delta * delta);
    }
    total.value() / h.count
}
