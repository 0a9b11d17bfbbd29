//! What a query may use: samples, series, time. Shared by the engine and the source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bounds on one query. A query that meets one fails with an error that names the setting.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Samples in memory at once (`promql.samples_max`). A native histogram counts by its size.
    pub samples_max: u64,
    /// Series that the selectors of a query may touch (`promql.series_max`).
    pub series_max: u64,
    /// Evaluation steps of one range query (`promql.steps_max`).
    pub steps_max: u64,
    /// Wall time (`promql.timeout`).
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            samples_max: 50_000_000,
            series_max: 1_000_000,
            steps_max: 11_000,
            timeout: Duration::from_secs(120),
        }
    }
}

/// Why a query had to stop early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Too many samples in memory at once.
    #[error(
        "query processing would load too many samples into memory in query execution: more than {max} (setting promql.samples_max)"
    )]
    Samples { max: u64 },
    /// The selectors touch too many series.
    #[error("query would touch too many series: more than {max} (setting promql.series_max)")]
    Series { max: u64 },
    /// Out of time.
    #[error("query timed out in {during} after {} ms (setting promql.timeout)", timeout.as_millis())]
    Timeout { during: &'static str, timeout: Duration },
    /// The client went away or the server stops.
    #[error("query was canceled in {during}")]
    Canceled { during: &'static str },
}

/// The running account of one query. Clones share the account, so that a source, the engine's
/// threads and whoever may cancel the query all hold one.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limits: Limits,
    started: Instant,
    deadline: Instant,
    canceled: AtomicBool,
    samples_now: AtomicU64,
    samples_peak: AtomicU64,
    samples_read: AtomicU64,
    series: AtomicU64,
}

impl Budget {
    /// Starts the clock.
    pub fn new(limits: Limits) -> Self {
        let started = Instant::now();
        let deadline = started + limits.timeout;
        Budget(Arc::new(Account {
            limits,
            started,
            deadline,
            canceled: AtomicBool::new(false),
            samples_now: AtomicU64::new(0),
            samples_peak: AtomicU64::new(0),
            samples_read: AtomicU64::new(0),
            series: AtomicU64::new(0),
        }))
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Makes every later [`check`](Self::check) fail.
    pub fn cancel(&self) {
        self.0.canceled.store(true, Ordering::Relaxed);
    }

    /// To be called at least every few milliseconds of work.
    ///
    /// # Errors
    /// When the query was canceled or is out of time.
    pub fn check(&self) -> Result<(), LimitError> {
        if self.0.canceled.load(Ordering::Relaxed) {
            return Err(LimitError::Canceled { during: "query execution" });
        }
        if Instant::now() >= self.0.deadline {
            let timeout = self.0.limits.timeout;
            return Err(LimitError::Timeout { during: "query execution", timeout });
        }
        Ok(())
    }

    /// Accounts for samples that a source is about to hand over; also a [`check`](Self::check).
    ///
    /// # Errors
    /// When the samples do not fit, or as `check`.
    pub fn take_read(&self, samples: u64) -> Result<(), LimitError> {
        self.0.samples_read.fetch_add(samples, Ordering::Relaxed);
        self.take(samples)
    }

    /// Accounts for samples that an evaluation step is about to hold; also a `check`.
    ///
    /// # Errors
    /// When the samples do not fit, or as `check`.
    pub fn take(&self, samples: u64) -> Result<(), LimitError> {
        let now = self.0.samples_now.fetch_add(samples, Ordering::Relaxed) + samples;
        self.0.samples_peak.fetch_max(now, Ordering::Relaxed);
        if now > self.0.limits.samples_max {
            return Err(LimitError::Samples { max: self.0.limits.samples_max });
        }
        self.check()
    }

    /// Gives samples back.
    pub fn give_back(&self, samples: u64) {
        self.0.samples_now.fetch_sub(samples, Ordering::Relaxed);
    }

    /// Accounts for series that a selector touches.
    ///
    /// # Errors
    /// When there are too many.
    pub fn take_series(&self, series: u64) -> Result<(), LimitError> {
        let now = self.0.series.fetch_add(series, Ordering::Relaxed) + series;
        if now > self.0.limits.series_max {
            return Err(LimitError::Series { max: self.0.limits.series_max });
        }
        Ok(())
    }

    /// The most samples that were in memory at once so far.
    pub fn samples_peak(&self) -> u64 {
        self.0.samples_peak.load(Ordering::Relaxed)
    }

    /// Samples read from the source so far.
    pub fn samples_read(&self) -> u64 {
        self.0.samples_read.load(Ordering::Relaxed)
    }

    /// When the query began.
    pub fn started(&self) -> Instant {
        self.0.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_given_back_can_be_taken_again() {
        let budget = Budget::new(Limits { samples_max: 10, ..Limits::default() });
        budget.take(8).unwrap();
        budget.give_back(8);
        budget.take(8).unwrap();
        assert_eq!(budget.take(3), Err(LimitError::Samples { max: 10 }));
        assert_eq!(budget.samples_peak(), 11);
    }

    #[test]
    fn a_canceled_query_stops_at_its_next_check() {
        let budget = Budget::new(Limits::default());
        budget.check().unwrap();
        budget.clone().cancel();
        assert!(matches!(budget.check(), Err(LimitError::Canceled { .. })));
    }
}
