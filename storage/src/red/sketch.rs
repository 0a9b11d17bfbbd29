//! A sparse HDR histogram: the buckets of [`hdrhistogram`] with three significant digits from 1 ns up, kept as the
//! few that are not empty.
//!
//! A dense histogram up to an hour takes 280 KB; a cell of ten seconds holds a handful of values. Bucket borders are
//! the library's, so counts pass between both without loss ([`Sketch::to_hdr`]), and merging is adding.

use crate::wire;
use hdrhistogram::Histogram;

/// log2 of the sub-buckets per doubling: 2048 give three significant digits.
const SUB_BITS: u32 = 11;
const HALF: u32 = 1 << (SUB_BITS - 1);

/// Counts of durations, ns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch {
    /// (bucket, count), ascending, no zero counts.
    counts: Vec<(u32, u64)>,
}

/// A quantile with the bucket in which the exact one lies, ns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    /// Middle of the bucket.
    pub value_ns: f64,
    /// Lowest and highest value of the bucket, inclusive.
    pub low_ns: u64,
    pub high_ns: u64,
}

/// Bucket of a value.
pub fn bucket_of(value_ns: u64) -> u32 {
    let shift = (u64::BITS - (value_ns | u64::from(2 * HALF - 1)).leading_zeros()) - SUB_BITS;
    let sub = (value_ns >> shift) as u32;
    // Below the first doubling buckets are single values; above, each doubling has `HALF` buckets.
    shift * HALF + sub
}

/// Lowest and highest value of a bucket, inclusive.
pub fn bounds_of(bucket: u32) -> (u64, u64) {
    if bucket < 2 * HALF {
        return (u64::from(bucket), u64::from(bucket));
    }
    let shift = bucket / HALF - 1;
    let sub = u64::from(bucket - shift * HALF);
    let low = sub << shift;
    (low, low + ((1u64 << shift) - 1))
}

impl Sketch {
    pub fn record(&mut self, value_ns: u64) {
        self.add(bucket_of(value_ns), 1);
    }

    pub fn add(&mut self, bucket: u32, count: u64) {
        match self.counts.binary_search_by_key(&bucket, |(b, _)| *b) {
            Ok(at) => self.counts[at].1 += count,
            Err(at) => self.counts.insert(at, (bucket, count)),
        }
    }

    /// Adds all counts of another sketch.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        let mut merged = Vec::with_capacity(self.counts.len() + other.counts.len());
        let (mut a, mut b) = (self.counts.iter().peekable(), other.counts.iter().peekable());
        while let (Some(&&(x, n)), Some(&&(y, m))) = (a.peek(), b.peek()) {
            match x.cmp(&y) {
                std::cmp::Ordering::Less => {
                    merged.push((x, n));
                    a.next();
                }
                std::cmp::Ordering::Greater => {
                    merged.push((y, m));
                    b.next();
                }
                std::cmp::Ordering::Equal => {
                    merged.push((x, n + m));
                    a.next();
                    b.next();
                }
            }
        }
        merged.extend(a);
        merged.extend(b);
        self.counts = merged;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, n)| n).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// (bucket, count), ascending; borders by [`bounds_of`].
    pub fn buckets(&self) -> &[(u32, u64)] {
        &self.counts
    }

    /// The value below or at which a share `q` (0 to 1) of all lies; `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<Quantile> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let wanted = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
        let mut below = 0;
        for (bucket, count) in &self.counts {
            below += count;
            if below >= wanted {
                let (low_ns, high_ns) = bounds_of(*bucket);
                let value_ns = low_ns as f64 + (high_ns - low_ns) as f64 / 2.0;
                return Some(Quantile { value_ns, low_ns, high_ns });
            }
        }
        None
    }

    /// The same counts as the library's histogram.
    pub fn to_hdr(&self) -> Histogram<u64> {
        let mut hdr = Histogram::new_with_bounds(1, u64::MAX / 2, 3).expect("3 digits are allowed");
        for (bucket, count) in &self.counts {
            hdr.saturating_record_n(bounds_of(*bucket).0, *count);
        }
        hdr
    }

    /// For each bucket a varint of its distance from the one before, doubled, and 1 more when a varint of its count
    /// follows; most buckets of a cell count one.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.counts.len() * 3);
        let mut last = 0;
        for (bucket, count) in &self.counts {
            let many = *count != 1;
            wire::put_varint(&mut out, u64::from(bucket - last) << 1 | u64::from(many));
            if many {
                wire::put_varint(&mut out, *count);
            }
            last = *bucket;
        }
        out
    }

    /// The inverse of [`encode`](Self::encode); `None` for bytes that are no sketch.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut counts = Vec::with_capacity(bytes.len() / 2);
        let mut bucket = 0u32;
        while !bytes.is_empty() {
            let head = wire::take_varint(&mut bytes).ok()?;
            let count = if head & 1 == 1 { wire::take_varint(&mut bytes).ok()? } else { 1 };
            bucket = bucket.checked_add(u32::try_from(head >> 1).ok()?)?;
            counts.push((bucket, count));
        }
        Some(Self { counts })
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<(u32, u64)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn buckets_and_quantiles_are_the_librarys(values in prop::collection::vec(0u64..1 << 45, 1..200), q in 0.0f64..1.0) {
            let mut sketch = Sketch::default();
            let mut hdr = Histogram::<u64>::new_with_bounds(1, u64::MAX / 2, 3).unwrap();
            for value in &values {
                sketch.record(*value);
                hdr.record(*value).unwrap();
                let (low, high) = bounds_of(bucket_of(*value));
                prop_assert_eq!(low, hdr.lowest_equivalent(*value));
                prop_assert_eq!(high, hdr.highest_equivalent(*value));
            }
            prop_assert_eq!(&sketch.to_hdr(), &hdr);
            let found = sketch.quantile(q).unwrap();
            prop_assert_eq!(found.high_ns, hdr.highest_equivalent(hdr.value_at_quantile(q)));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let exact = sorted[((q * values.len() as f64).ceil() as usize).max(1) - 1];
            prop_assert!(found.low_ns <= exact && exact <= found.high_ns);
        }

        #[test]
        fn merging_is_recording_everything_in_one_and_bytes_come_back(
            a in prop::collection::vec(any::<u64>(), 0..50),
            b in prop::collection::vec(any::<u64>(), 0..50),
        ) {
            let of = |values: &[u64]| {
                let mut sketch = Sketch::default();
                values.iter().for_each(|v| sketch.record(*v));
                sketch
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(&merged, &of(&[a, b].concat()));
            prop_assert_eq!(Sketch::decode(&merged.encode()), Some(merged));
        }
    }
}
