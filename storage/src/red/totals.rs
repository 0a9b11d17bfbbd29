//! What the cells before a moment add up to: the base of cumulative counters, so that a query reads the cells of its
//! own window only.
//!
//! Sums are remembered for a few sets of segments. A set that only grew is read only where it grew; what a compaction
//! replaced is read again.

use super::segment::RedSegment;
use super::sketch::Sketch;
use super::store::{RedCell, RedKey};
use crate::meter::Meter;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// All cells of a key up to some moment, added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RedTotal {
    pub count: u64,
    pub sum_ns: u128,
    /// Durations; empty when they were not asked for.
    pub sketch: Sketch,
    /// Where the last cell ends, Unix ns, and its width.
    pub end_ns: u64,
    pub width_ns: u64,
}

impl RedTotal {
    pub(super) fn add(&mut self, cell: &RedCell, sketch: bool) {
        self.count += cell.count();
        self.sum_ns += cell.sum_ns;
        if sketch {
            self.sketch.merge(&cell.sketch);
        }
        self.ends(cell.time_ns.saturating_add(cell.width_ns), cell.width_ns);
    }

    /// Adds the total of another key or time.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.sketch.merge(&other.sketch);
        self.ends(other.end_ns, other.width_ns);
    }

    fn ends(&mut self, end_ns: u64, width_ns: u64) {
        if end_ns > self.end_ns {
            (self.end_ns, self.width_ns) = (end_ns, width_ns);
        }
    }

    /// Memory it takes, in samples of 16 bytes.
    pub(super) fn samples(&self) -> u64 {
        ((size_of::<Self>() + self.sketch.heap_bytes()) / 16) as u64
    }
}

/// A total as it is remembered: a sketch takes a fifth of its memory when it is encoded.
#[derive(Debug)]
pub(super) struct Packed {
    total: RedTotal,
    sketch: Box<[u8]>,
}

impl Packed {
    fn new(mut total: RedTotal) -> Self {
        let sketch = total.sketch.encode().into();
        total.sketch = Sketch::default();
        Self { total, sketch }
    }

    pub(super) fn decode(&self, sketch: bool) -> io::Result<RedTotal> {
        let mut total = self.total.clone();
        if sketch {
            total.sketch = Sketch::decode(&self.sketch)
                .ok_or_else(|| io::Error::other("a remembered histogram can't be read"))?;
        }
        Ok(total)
    }
}

/// Totals by key.
pub(super) type ByKey = FxHashMap<Arc<RedKey>, Arc<Packed>>;

/// Sums over sets of segments.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// The last used last.
    known: Mutex<Vec<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    segments: Arc<BTreeSet<u64>>,
    sums: Arc<ByKey>,
}

/// Sets that are remembered: windows of a few lengths, each with a sum of its older part.
const KNOWN_MAX: usize = 6;

/// Segments of the newest partitions are replaced by compaction every few minutes; a sum without them lasts.
const UNSTEADY_PARTITIONS: usize = 3;

impl Sums {
    /// The totals of all cells in some segments.
    pub(super) fn of(
        &self,
        mut segments: Vec<Arc<RedSegment>>,
        meter: &dyn Meter,
    ) -> io::Result<Arc<ByKey>> {
        segments.sort_by_key(|segment| (segment.meta.partition_ns, segment.meta.id));
        let partitions: BTreeSet<u64> = segments.iter().map(|s| s.meta.partition_ns).collect();
        let unsteady = partitions.iter().rev().nth(UNSTEADY_PARTITIONS - 1).copied().unwrap_or(0);
        let steady = segments.partition_point(|s| s.meta.partition_ns < unsteady);
        if steady > 0 {
            self.sum(&segments[..steady], meter)?;
        }
        self.sum(&segments, meter)
    }

    /// The same, from the largest known part of the set on.
    fn sum(&self, segments: &[Arc<RedSegment>], meter: &dyn Meter) -> io::Result<Arc<ByKey>> {
        let ids: BTreeSet<u64> = segments.iter().map(|segment| segment.meta.id).collect();
        let part = {
            let mut known = self.known.lock();
            let parts = known.iter().enumerate().filter(|(_, k)| k.segments.is_subset(&ids));
            let largest = parts.max_by_key(|(_, k)| k.segments.len()).map(|(at, _)| at);
            largest.map(|at| {
                let part = known.remove(at);
                known.push(part.clone());
                part
            })
        };
        let (done, mut sums) = match part {
            Some(part) if part.segments.len() == ids.len() => return Ok(part.sums),
            Some(part) => (part.segments, ByKey::clone(&part.sums)),
            None => (Arc::default(), ByKey::default()),
        };
        for segment in segments.iter().filter(|segment| !done.contains(&segment.meta.id)) {
            meter.check()?;
            let mut of_segment: FxHashMap<Arc<RedKey>, RedTotal> = FxHashMap::default();
            segment.visit(|_| true, &mut |cell| {
                let total: &mut RedTotal = of_segment.entry(cell.key.clone()).or_default();
                total.add(&cell, true);
                Ok(())
            })?;
            for (key, mut total) in of_segment {
                if let Some(before) = sums.get(&key) {
                    total.merge(&before.decode(true)?);
                }
                sums.insert(key, Arc::new(Packed::new(total)));
            }
        }
        let sums = Arc::new(sums);
        let mut known = self.known.lock();
        known.push(Known { segments: Arc::new(ids), sums: sums.clone() });
        if known.len() > KNOWN_MAX {
            known.remove(0);
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RedFilter, RedStore, segment};
    use super::*;
    use crate::meter::Unmetered;
    use crate::segment::{PARTITION_NS, SegmentDir, SegmentMeta};
    use crate::signal::SignalStore;

    const SLOT_NS: u64 = 10_000_000_000;

    /// Some cells of two keys in an hour, different in each.
    fn cells(hour: u64) -> Vec<RedCell> {
        let cell = |slot: u64| {
            let operation = if slot.is_multiple_of(3) { "a" } else { "b" };
            let key =
                RedKey { service: "s".into(), operation: operation.into(), kind: 2, status: 0 };
            let mut sketch = Sketch::default();
            (0..=hour + slot).for_each(|i| sketch.record((i + 1) * 1_000_000));
            RedCell {
                time_ns: hour * PARTITION_NS + slot * SLOT_NS,
                width_ns: SLOT_NS,
                key: Arc::new(key),
                sum_ns: u128::from(hour * 100 + slot),
                sketch,
                exemplars: Vec::new(),
            }
        };
        (0..20).map(cell).collect()
    }

    /// Totals before each hour must be what the cells before it add up to.
    fn check(store: &RedStore, hours: u64) {
        for operation in [None, Some("a".to_owned())] {
            let filter = RedFilter { operation, ..RedFilter::default() };
            for hour in (0..=hours).rev() {
                let boundary_ns = hour * PARTITION_NS;
                let mut want: FxHashMap<Arc<RedKey>, RedTotal> = FxHashMap::default();
                let mut cells = store.cells(&filter, 0, u64::MAX).unwrap();
                cells.retain(|cell| cell.time_ns < boundary_ns);
                for cell in &cells {
                    want.entry(cell.key.clone()).or_default().add(cell, true);
                }
                let got = store.totals(&filter, boundary_ns, true, &Unmetered).unwrap();
                assert_eq!(got, want, "before hour {hour}");
                let counts = store.totals(&filter, boundary_ns, false, &Unmetered).unwrap();
                assert!(
                    counts.iter().all(|(key, t)| t.sketch.is_empty() && t.count == want[key].count)
                );
            }
        }
    }

    #[test]
    fn totals_are_the_sum_of_the_cells_whatever_becomes_of_the_segments() {
        let dir = tempfile::tempdir().unwrap();
        let dir = SegmentDir::new(dir.path().to_owned(), 1).unwrap();
        let store = RedStore::new();
        let mut metas: Vec<SegmentMeta> = Vec::new();
        // The store grows hour by hour.
        for hour in 0..7 {
            let added = segment::write(&dir, cells(hour), 0).unwrap();
            store.publish(&dir, &added, &[], false).unwrap();
            metas.extend(added);
            check(&store, hour + 2);
        }
        // Late cells come to an early hour, and are merged with what was there.
        let late = segment::write(&dir, cells(2), 0).unwrap();
        store.publish(&dir, &late, &[], false).unwrap();
        check(&store, 8);
        let inputs = [metas[2].clone(), late[0].clone()];
        let merged = store.compact(&dir, &inputs).unwrap();
        store.publish(&dir, &merged, &inputs, false).unwrap();
        check(&store, 8);
        // The oldest go.
        store.publish(&dir, &[], &metas[..2], false).unwrap();
        check(&store, 8);
    }
}
