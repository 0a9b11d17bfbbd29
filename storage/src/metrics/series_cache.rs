//! Series of sealed segments, kept for the next query: dashboards ask again and again, for a time that moves on.

use super::gather::Gathered;
use super::recent::Recent;
use crate::meter::Meter;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Labels, times and the list entry of a series, bytes: an estimate.
const SERIES_BYTES: u64 = 400;

/// A sample's value, and its share of times that several series have in common, bytes.
const SAMPLE_BYTES: u64 = 9;

/// Series by who asked, whatever the time, up to a number of bytes; at first none.
#[derive(Debug, Default)]
pub(super) struct SeriesCache {
    kept: Mutex<Recent<Asker, Option<Arc<Gathered>>>>,
    /// Held while series are gathered to be kept: one query at a time takes memory for that.
    gathering: Mutex<()>,
}

/// Segments never change, so neither does what a selector finds in them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asker {
    /// Numbers of the segments, in the order in which they are read.
    pub segments: Vec<u64>,
    /// The selector as text.
    pub selector: String,
}

impl SeriesCache {
    /// Keeps so many bytes at most.
    pub(super) fn limit(&self, bytes: usize) {
        self.kept.lock().limit(bytes);
    }

    /// The series of all times, from those kept or from `gather`; `None` when they are too many, or depend on the time
    /// that is asked for, or another query gathers right now.
    ///
    /// * `gather`: `None` when it can't be done; an error of the meter that it is given must end it.
    ///
    /// # Errors
    /// Of `gather` and `meter`.
    pub(super) fn series(
        &self,
        asker: Asker,
        meter: &dyn Meter,
        gather: impl FnOnce(&Room<'_>) -> io::Result<Option<Gathered>>,
    ) -> io::Result<Option<Arc<Gathered>>> {
        let bytes_max = {
            let mut kept = self.kept.lock();
            if let Some(known) = kept.find(&asker) {
                return Ok(known);
            }
            kept.bytes_max() as u64
        };
        let Some(_gathering) = self.gathering.try_lock().filter(|_| bytes_max > 0) else {
            return Ok(None);
        };
        let room = Room { meter, bytes: AtomicU64::new(0), bytes_max };
        let gathered = match gather(&room) {
            Err(error) if !error.get_ref().is_some_and(|inner| inner.is::<Full>()) => {
                return Err(error);
            }
            gathered => gathered.ok().flatten().filter(Gathered::is_plain).map(Arc::new),
        };
        // That it can't be kept is worth knowing, too.
        let own = size_of::<Asker>() + asker.segments.len() * 8 + asker.selector.len();
        let bytes = own as u64 + gathered.as_ref().map_or(0, |_| room.bytes.into_inner());
        self.kept.lock().insert(asker, gathered.clone(), bytes as usize);
        Ok(gathered)
    }

    /// Forgets what was read from segments that are gone.
    pub(super) fn forget(&self, gone: impl Fn(u64) -> bool) {
        self.kept.lock().forget(|asker| asker.segments.iter().any(|id| gone(*id)));
    }
}

/// Bounds what is gathered to be kept. The query is charged when it takes its part.
pub(super) struct Room<'a> {
    meter: &'a dyn Meter,
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Room<'_> {
    fn take(&self, bytes: u64) -> io::Result<()> {
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > self.bytes_max { Err(io::Error::other(Full)) } else { Ok(()) }
    }
}

impl Meter for Room<'_> {
    fn check(&self) -> io::Result<()> {
        self.meter.check()
    }

    fn series(&self, more: u64) -> io::Result<()> {
        self.take(more * SERIES_BYTES)
    }

    fn samples(&self, more: u64) -> io::Result<()> {
        self.take(more * SAMPLE_BYTES)?;
        self.meter.check()
    }
}

/// There is no room to keep the series.
#[derive(Debug, thiserror::Error)]
#[error("more series than may be kept")]
struct Full;
