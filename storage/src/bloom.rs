//! A Bloom filter over hashes, a look into one cache line, and the memory that all filters share.
//!
//! Split blocks as in Parquet ("Parquet Bloom Filter", parquet-format): eight 32-bit words a block, one bit set in
//! each. With ten bits a hash about one answer in eighty is a false "maybe".

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const BITS_PER_HASH: usize = 10;

/// Odd numbers that spread one 32-bit value over eight words, from the Parquet specification.
const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

type Block = [u32; 8];
const BLOCK_BYTES: usize = size_of::<Block>();

/// Bytes that filters may take together; none by default.
#[derive(Debug, Default)]
pub struct Room {
    left: AtomicUsize,
}

impl Room {
    pub fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// Takes a share; given back when dropped. `None` when less is left.
    fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        self.left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes))
            .ok()
            .map(|_| Share { room: self.clone(), bytes })
    }
}

#[derive(Debug)]
struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.left.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[derive(Debug)]
pub struct Filter {
    blocks: Vec<Block>,
    _share: Option<Share>,
}

impl Filter {
    /// An empty filter for so many hashes.
    pub fn with_room_for(hashes: usize) -> Self {
        let blocks = (hashes * BITS_PER_HASH).div_ceil(BLOCK_BYTES * 8).max(1);
        Self { blocks: vec![[0; 8]; blocks], _share: None }
    }

    pub fn insert(&mut self, hash: u64) {
        let block = self.block_of(hash);
        for (word, mask) in self.blocks[block].iter_mut().zip(masks(hash)) {
            *word |= mask;
        }
    }

    /// A filter that holds the hashes.
    pub fn of(hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        let mut filter = Self::with_room_for(hashes.len());
        hashes.for_each(|hash| filter.insert(hash));
        filter
    }

    /// Whether the hash may be in it; never false for one that is.
    pub fn may_hold(&self, hash: u64) -> bool {
        self.blocks[self.block_of(hash)]
            .iter()
            .zip(masks(hash))
            .all(|(word, mask)| word & mask != 0)
    }

    fn block_of(&self, hash: u64) -> usize {
        // The upper half chooses the block, the lower half the bits in it.
        (((hash >> 32) * self.blocks.len() as u64) >> 32) as usize
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The inverse of [`to_bytes`](Self::to_bytes); `None` for bytes that are none, or when there is no room for it.
    pub fn from_bytes(bytes: &[u8], room: &Arc<Room>) -> Option<Self> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(BLOCK_BYTES) {
            return None;
        }
        let share = room.take(bytes.len())?;
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
        let blocks = bytes
            .chunks_exact(BLOCK_BYTES)
            .map(|block| std::array::from_fn(|i| word(&block[i * 4..i * 4 + 4])))
            .collect();
        Some(Self { blocks, _share: Some(share) })
    }
}

fn masks(hash: u64) -> Block {
    SALTS.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn hashes(range: std::ops::Range<u64>) -> impl ExactSizeIterator<Item = u64> {
        range.map(|n| xxh3_64(&n.to_le_bytes())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn what_is_in_it_is_held_and_little_else_also_after_writing_and_reading() {
        let filter = Filter::of(hashes(0..10_000));
        let room = Arc::new(Room::new(1 << 20));
        let read = Filter::from_bytes(&filter.to_bytes(), &room).unwrap();
        assert!(hashes(0..10_000).all(|hash| read.may_hold(hash)));
        let wrong = hashes(10_000..110_000).filter(|hash| read.may_hold(*hash)).count();
        assert!(wrong < 3_000, "{wrong} of 100,000");
    }

    #[test]
    fn room_is_shared_and_given_back() {
        let room = Arc::new(Room::new(100));
        let bytes = vec![0; 64];
        let first = Filter::from_bytes(&bytes, &room).unwrap();
        assert!(Filter::from_bytes(&bytes, &room).is_none());
        drop(first);
        assert!(Filter::from_bytes(&bytes, &room).is_some());
        assert!(Filter::from_bytes(&[0; 31], &room).is_none(), "no whole block");
    }
}
