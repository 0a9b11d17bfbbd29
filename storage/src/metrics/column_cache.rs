//! Decoded columns of sealed points, kept for the next query that reads the same rows: dashboards ask again and again.

use super::points::Wanted;
use super::segment::MetricSegment;
use crate::columnar::arrow_error;
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use xxhash_rust::xxh3::Xxh3;

/// Keeps what was used last, up to a number of bytes; at first none.
#[derive(Debug, Default)]
pub(super) struct ColumnCache {
    limit: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: FxHashMap<Key, Entry>,
    bytes: usize,
    /// Counts uses.
    clock: u64,
}

/// Some columns of some rows of a segment; segments never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    segment: u64,
    wanted: Wanted,
    /// Hash of the row ranges.
    rows: u128,
}

#[derive(Debug)]
struct Entry {
    batches: Arc<[RecordBatch]>,
    bytes: usize,
    used: u64,
}

impl ColumnCache {
    /// Keeps so many bytes at most.
    pub(super) fn limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.kept.lock().shrink(bytes);
    }

    /// Calls `visit` with the columns of rows, batch by batch.
    ///
    /// * `rows`: ascending ranges.
    ///
    /// # Errors
    /// Of reading, or those of `visit`.
    pub(super) fn read(
        &self,
        segment: &MetricSegment,
        wanted: Wanted,
        rows: &[Range<usize>],
        mut visit: impl FnMut(&RecordBatch) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut hash = Xxh3::new();
        rows.iter().flat_map(|range| [range.start, range.end]).for_each(|row| {
            hash.update(&(row as u64).to_le_bytes());
        });
        let key = Key { segment: segment.meta.id, wanted, rows: hash.digest128() };
        if let Some(batches) = self.find(&key) {
            return batches.iter().try_for_each(visit);
        }
        let limit = self.limit.load(Ordering::Relaxed);
        // Large reads would drive out all others and come again seldom.
        let most = limit / 4;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for batch in segment.columns(wanted, rows)? {
            let batch = batch.map_err(arrow_error)?;
            visit(&batch)?;
            bytes += batch.get_array_memory_size();
            if bytes <= most {
                batches.push(batch);
            } else {
                batches = Vec::new();
            }
        }
        if bytes <= most {
            self.kept.lock().insert(key, batches.into(), bytes, limit);
        }
        Ok(())
    }

    /// Forgets segments that are gone.
    pub(super) fn forget(&self, gone: impl Fn(u64) -> bool) {
        let mut kept = self.kept.lock();
        let keys: Vec<Key> = kept.entries.keys().filter(|key| gone(key.segment)).copied().collect();
        keys.iter().for_each(|key| kept.remove(key));
    }

    fn find(&self, key: &Key) -> Option<Arc<[RecordBatch]>> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let now = kept.clock;
        let entry = kept.entries.get_mut(key)?;
        entry.used = now;
        Some(entry.batches.clone())
    }
}

impl Kept {
    fn insert(&mut self, key: Key, batches: Arc<[RecordBatch]>, bytes: usize, limit: usize) {
        self.remove(&key);
        self.bytes += bytes;
        let used = self.clock;
        self.entries.insert(key, Entry { batches, bytes, used });
        self.shrink(limit);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(gone) = self.entries.remove(key) {
            self.bytes -= gone.bytes;
        }
    }

    /// Lets go what was not used for longest. Entries are few: each is a part of a large read.
    fn shrink(&mut self, limit: usize) {
        while self.bytes > limit {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { return };
            self.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(segment: u64) -> Key {
        Key { segment, wanted: Wanted::default(), rows: 0 }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let cache = ColumnCache::default();
        for segment in 0..3 {
            cache.kept.lock().insert(key(segment), Arc::from([]), 10, 30);
            cache.find(&key(0));
        }
        cache.limit(20);
        let known = |segment| cache.find(&key(segment)).is_some();
        assert!(known(0) && !known(1) && known(2));
        cache.forget(|segment| segment == 2);
        assert!(known(0) && !known(2));
        assert_eq!(cache.kept.lock().bytes, 10);
    }
}
