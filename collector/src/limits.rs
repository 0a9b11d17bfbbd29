//! What one request, one connection and all of them together may take.
//!
//! Memory for a body is reserved here before the body is read, and the reservation is held until the request is
//! answered. A request that finds no room is refused at once, with a delay, instead of waiting in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds on what senders may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one request body, counted after decompression.
    pub body_bytes_max: usize,
    /// Bytes that all requests being read, decoded or written may hold together.
    pub in_flight_bytes_max: u64,
    /// Open connections per listener; one more waits in the kernel's queue.
    pub connections_max: usize,
    /// From the connection, or from the last answer, to the end of a request's headers.
    pub header_time_max: Duration,
    /// Between two pieces of a body.
    pub body_pause_max: Duration,
    /// A connection without bytes in either direction for this long is closed.
    pub idle_time_max: Duration,
}

/// A body slower than this on average, after `body_pause_max`, is given up: a sender that drips bytes would
/// otherwise hold its reservation for hours.
pub(crate) const BODY_BYTES_PER_SECOND_MIN: u64 = 4096;

/// A byte of body costs about this many bytes until the answer: itself, and the columns decoded from it (or, while it
/// is inflated, the decoder's window).
const COST_PER_BODY_BYTE: u64 = 2;

impl Limits {
    /// Limits for a process that may use `memory_bytes` in all: a quarter of it for requests in flight, and never so
    /// little that the largest legal body could not pass alone.
    pub fn for_memory(memory_bytes: u64) -> Self {
        let body_bytes_max = 64 << 20;
        Self {
            body_bytes_max,
            in_flight_bytes_max: (memory_bytes / 4).max(COST_PER_BODY_BYTE * body_bytes_max as u64),
            connections_max: 4096,
            header_time_max: Duration::from_secs(10),
            body_pause_max: Duration::from_secs(10),
            idle_time_max: Duration::from_secs(120),
        }
    }
}

/// The bytes that requests hold at the moment, against their common bound.
#[derive(Debug)]
pub struct InFlight {
    max: u64,
    used: AtomicU64,
}

impl InFlight {
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicU64::new(0) })
    }

    /// Bytes reserved now.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn max_bytes(&self) -> u64 {
        self.max
    }

    /// A reservation of nothing, to be grown.
    pub fn reservation(self: &Arc<Self>) -> Reservation {
        Reservation { owner: self.clone(), held: 0 }
    }

    fn take(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.max)
            })
            .is_ok()
    }
}

/// Bytes taken from [`InFlight`] by one request; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    owner: Arc<InFlight>,
    held: u64,
}

impl Reservation {
    /// Makes room for a body of `body_bytes` in all. Never shrinks.
    ///
    /// # Errors
    /// [`NoRoom`] when other requests hold the memory; what was held before stays held.
    pub fn cover(&mut self, body_bytes: usize) -> Result<(), NoRoom> {
        let wanted = (body_bytes as u64).saturating_mul(COST_PER_BODY_BYTE);
        if wanted > self.held {
            if !self.owner.take(wanted - self.held) {
                return Err(NoRoom);
            }
            self.held = wanted;
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.owner.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// Requests in flight hold all the memory there is for them.
#[derive(Debug, PartialEq, Eq)]
pub struct NoRoom;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_pass_the_bound_and_come_back() {
        let all = InFlight::new(100);
        let mut a = all.reservation();
        let mut b = all.reservation();
        assert_eq!(a.cover(30), Ok(()));
        assert_eq!(b.cover(20), Ok(()));
        assert_eq!(b.cover(21), Err(NoRoom));
        assert_eq!(all.used_bytes(), 100);
        drop(a);
        assert_eq!(all.used_bytes(), 40);
        assert_eq!(b.cover(50), Ok(()));
        assert_eq!(b.cover(10), Ok(()), "a smaller need keeps what is held");
        drop(b);
        assert_eq!(all.used_bytes(), 0);
    }

    #[test]
    fn the_largest_body_fits_even_into_the_smallest_budget() {
        let limits = Limits::for_memory(64 << 20);
        let all = InFlight::new(limits.in_flight_bytes_max);
        assert_eq!(all.reservation().cover(limits.body_bytes_max), Ok(()));
    }
}
