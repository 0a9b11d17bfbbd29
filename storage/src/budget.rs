//! Memory of requests on their way from the sender to the hot rows.
//!
//! A request reserves its share before it is decoded and holds it until it is hot or refused, so that a crowd of
//! large requests is turned away while it is still cheap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A request takes this many times its own length: its bytes, its batch (measured 1.1 to 1.6 times) and its frame.
const FACTOR: u64 = 3;

/// What requests in flight and hot rows may take together.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    in_flight: AtomicU64,
}

/// A request's share, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self { limit, in_flight: AtomicU64::new(0) }
    }

    /// Reserves for a request of `body_bytes` beside `hot_bytes` of hot rows; `None` when that is too much. A request
    /// that is alone needs only room in the hot rows, so that a large one does get its turn.
    pub fn reserve(self: &Arc<Self>, body_bytes: u64, hot_bytes: u64) -> Option<Reservation> {
        let bytes = body_bytes.saturating_mul(FACTOR);
        let before = self.in_flight.fetch_add(bytes, Ordering::AcqRel);
        let reservation = Reservation { budget: self.clone(), bytes };
        let own = if before == 0 { 0 } else { bytes };
        let fits = hot_bytes.saturating_add(before).saturating_add(own) <= self.limit;
        fits.then_some(reservation)
    }

    /// Bytes reserved now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Acquire)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.in_flight.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// The longest that a request is held back: with it four senders send less than one core seals.
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// How long a request waits so that sealing keeps up: nothing while hot rows are one and a half times what a seal takes
/// or less, since some come in while one goes on; more with every byte beyond; all of it at three times.
pub fn pause(hot_bytes: u64, seal_hot_bytes: u64) -> Duration {
    let free = seal_hot_bytes + seal_hot_bytes / 2;
    let over = hot_bytes.saturating_sub(free) as f64;
    PAUSE_MAX.mul_f64((over / free.max(1) as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_held_back_the_longer_the_further_sealing_lags() {
        assert_eq!(pause(150, 100), Duration::ZERO);
        assert_eq!(pause(225, 100), PAUSE_MAX / 2);
        assert_eq!(pause(9_000, 100), PAUSE_MAX);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_room_comes_back() {
        let budget = Arc::new(Budget::new(100));
        let first = budget.reserve(20, 0).unwrap();
        let second = budget.reserve(10, 10).unwrap();
        assert!(budget.reserve(1, 10).is_none());
        assert_eq!(budget.in_flight(), 90);
        drop(first);
        assert!(budget.reserve(1, 10).is_some());
        drop(second);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn a_large_request_gets_its_turn_when_it_is_alone() {
        let budget = Arc::new(Budget::new(100));
        let large = budget.reserve(1_000, 0).unwrap();
        assert!(budget.reserve(1, 0).is_none());
        drop(large);
        assert!(budget.reserve(1_000, 101).is_none(), "hot rows are full");
    }
}
