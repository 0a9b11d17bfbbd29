//! What a query may use: samples, series, time. Shared by the engine and the source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bounds on one query. A query that meets one fails with an error that names the setting.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Samples in memory at once (`promql-samples-max`), 16 bytes each. A native histogram counts by its size.
    pub samples_max: u64,
    /// Series that the selectors of a query may touch (`promql-series-max`).
    pub series_max: u64,
    /// Evaluation steps of one range query (`promql-steps-max`).
    pub steps_max: u64,
    /// Wall time (`promql-timeout`).
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
        "query processing would load too many samples into memory in query execution: more than {max} (setting promql-samples-max)"
    )]
    Samples { max: u64 },
    /// Too many samples in memory of all queries together.
    #[error(
        "the queries that run now would hold too many samples in memory: more than {max} together (setting memory-limit); ask for less, or when fewer run"
    )]
    Together { max: u64 },
    /// The selectors touch too many series.
    #[error("query would touch too many series: more than {max} (setting promql-series-max)")]
    Series { max: u64 },
    /// Out of time.
    #[error("query timed out in {during} after {} ms (setting promql-timeout)", timeout.as_millis())]
    Timeout { during: &'static str, timeout: Duration },
    /// The client went away or the server stops.
    #[error("query was canceled in {during}")]
    Canceled { during: &'static str },
}

/// Samples that the queries of a server hold together. Clones share it.
///
/// Each query has a share of its own, so that small queries are answered whatever large ones do; beyond it, all draw
/// from what is common.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Common>);

#[derive(Debug)]
struct Common {
    samples_max: u64,
    share: u64,
    samples: AtomicU64,
}

impl Pool {
    /// * `samples_max`: in memory at once of all queries, beyond their shares.
    /// * `share`: samples that each query may hold at any rate.
    pub fn new(samples_max: u64, share: u64) -> Self {
        Pool(Arc::new(Common { samples_max, share, samples: AtomicU64::new(0) }))
    }

    /// What a query that holds `samples` has drawn.
    fn drawn(&self, samples: u64) -> u64 {
        samples.saturating_sub(self.0.share)
    }

    /// A query grew: whether that is too much.
    fn take(&self, before: u64, after: u64) -> Result<(), LimitError> {
        let more = self.drawn(after) - self.drawn(before);
        let now = self.0.samples.fetch_add(more, Ordering::Relaxed) + more;
        let max = self.0.samples_max;
        if more > 0 && now > max { Err(LimitError::Together { max }) } else { Ok(()) }
    }

    fn give_back(&self, before: u64, after: u64) {
        self.0.samples.fetch_sub(self.drawn(before) - self.drawn(after), Ordering::Relaxed);
    }
}

/// The running account of one query. Clones share the account, so that a source, the engine's
/// threads and whoever may cancel the query all hold one.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limits: Limits,
    pool: Option<Pool>,
    started: Instant,
    deadline: Instant,
    canceled: AtomicBool,
    samples_now: AtomicU64,
    samples_peak: AtomicU64,
    samples_read: AtomicU64,
    series: AtomicU64,
}

impl Drop for Account {
    /// A query that failed may not have given everything back.
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back(*self.samples_now.get_mut(), 0);
        }
    }
}

impl Budget {
    /// Starts the clock.
    pub fn new(limits: Limits) -> Self {
        Self::start(limits, None)
    }

    /// The same for one of the queries that share a pool.
    pub fn of_pool(limits: Limits, pool: Pool) -> Self {
        Self::start(limits, Some(pool))
    }

    fn start(limits: Limits, pool: Option<Pool>) -> Self {
        let started = Instant::now();
        let deadline = started + limits.timeout;
        Budget(Arc::new(Account {
            limits,
            pool,
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
        let before = self.0.samples_now.fetch_add(samples, Ordering::Relaxed);
        let now = before + samples;
        self.0.samples_peak.fetch_max(now, Ordering::Relaxed);
        let together = self.0.pool.as_ref().map_or(Ok(()), |pool| pool.take(before, now));
        if now > self.0.limits.samples_max {
            return Err(LimitError::Samples { max: self.0.limits.samples_max });
        }
        together?;
        self.check()
    }

    /// Gives samples back.
    pub fn give_back(&self, samples: u64) {
        let before = self.0.samples_now.fetch_sub(samples, Ordering::Relaxed);
        if let Some(pool) = &self.0.pool {
            pool.give_back(before, before - samples);
        }
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
    fn queries_of_a_pool_have_a_share_each_and_the_rest_in_common() {
        let pool = Pool::new(10, 5);
        let query = || Budget::of_pool(Limits::default(), pool.clone());
        let (large, other) = (query(), query());
        large.take(15).unwrap();
        assert_eq!(large.take(1), Err(LimitError::Together { max: 10 }));
        // The share is there all the same, but no more than that.
        other.take(5).unwrap();
        assert_eq!(other.take(1), Err(LimitError::Together { max: 10 }));
        drop(large);
        other.take(9).unwrap();
        other.give_back(10);
        drop(other);
        query().take(15).unwrap();
    }

    #[test]
    fn a_canceled_query_stops_at_its_next_check() {
        let budget = Budget::new(Limits::default());
        budget.check().unwrap();
        budget.clone().cancel();
        assert!(matches!(budget.check(), Err(LimitError::Canceled { .. })));
    }
}
