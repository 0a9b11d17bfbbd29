//! Sums that keep the low digits (Kahan's summation with Neumaier's improvement).

/// A running sum and its compensation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kahan {
    /// The sum so far.
    pub sum: f64,
    /// What rounding has cut off so far.
    pub low: f64,
}

impl Kahan {
    /// A sum that starts at a value.
    pub(crate) fn new(sum: f64) -> Self {
        Kahan { sum, low: 0.0 }
    }

    /// Adds a value.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.low = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.low += (self.sum - total) + value;
        } else {
            self.low += (value - total) + self.sum;
        }
        self.sum = total;
    }

    /// Scales sum and compensation.
    pub(crate) fn scale(&mut self, factor: f64) {
        self.sum *= factor;
        self.low *= factor;
    }

    /// The sum with its compensation.
    pub(crate) fn value(self) -> f64 {
        self.sum + self.low
    }
}

/// A running mean that survives sums beyond the largest float: it sums up as long as that works, and
/// goes over to updating the mean when the sum would overflow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean {
    total: Kahan,
    count: f64,
    incremental: bool,
}

impl Mean {
    /// The mean of one value.
    pub(crate) fn new(value: f64) -> Self {
        Mean { total: Kahan::new(value), count: 1.0, incremental: false }
    }

    /// Takes a value in.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.incremental {
            let mut next = self.total;
            next.add(value);
            if !next.sum.is_infinite() {
                self.total = next;
                return;
            }
            self.incremental = true;
            self.total.sum /= self.count - 1.0;
            self.total.low /= self.count - 1.0;
        }
        self.total.scale((self.count - 1.0) / self.count);
        self.total.add(value / self.count);
    }

    /// The mean.
    pub(crate) fn value(self) -> f64 {
        if self.incremental {
            self.total.value()
        } else {
            self.total.sum / self.count + self.total.low / self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_survive_beside_large_ones() {
        let mut sum = Kahan::default();
        for value in [1e100, 1.0, -1e100, 1.0] {
            sum.add(value);
        }
        assert_eq!(sum.value(), 2.0);
    }

    #[test]
    fn the_mean_of_huge_values_does_not_overflow() {
        let mut mean = Mean::new(1.7e308);
        mean.add(1.7e308);
        mean.add(1.7e308);
        assert!((mean.value() / 1.7e308 - 1.0).abs() < 1e-12);
    }
}
