//! Decoded columns of sealed points, kept for the next query that reads the same rows: dashboards ask again and again.

use super::points::Wanted;
use super::recent::Recent;
use super::segment::MetricSegment;
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Keeps what was used last, up to a number of bytes; at first none.
#[derive(Debug, Default)]
pub(super) struct ColumnCache {
    kept: Mutex<Recent<Key, Arc<[RecordBatch]>>>,
}

/// Some columns of some rows of a segment; segments never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    segment: u64,
    wanted: Wanted,
    /// Hash of the row ranges.
    rows: u128,
}

impl ColumnCache {
    /// Keeps so many bytes at most.
    pub(super) fn limit(&self, bytes: usize) {
        self.kept.lock().limit(bytes);
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
        let (known, most) = {
            let mut kept = self.kept.lock();
            // Large reads would drive out all others and come again seldom.
            (kept.find(&key), kept.bytes_max() / 4)
        };
        if let Some(batches) = known {
            return batches.iter().try_for_each(visit);
        }
        let (mut batches, mut bytes) = (Vec::new(), 0);
        segment.visit_columns(wanted, rows, |batch| {
            visit(batch)?;
            bytes += batch.get_array_memory_size();
            if bytes <= most {
                batches.push(batch.clone());
            } else {
                batches = Vec::new();
            }
            Ok(())
        })?;
        if bytes <= most {
            self.kept.lock().insert(key, batches.into(), bytes);
        }
        Ok(())
    }

    /// Forgets segments that are gone.
    pub(super) fn forget(&self, gone: impl Fn(u64) -> bool) {
        self.kept.lock().forget(|key| gone(key.segment));
    }
}
