//! The trace index beside a log segment: trace ID → blocks of rows.
//!
//! Entries lie in slots chosen by the first bits of a hash of the trace ID, some 200 bytes each. In memory stays, as long
//! as there is room, a Bloom filter, read when a trace is first asked for. So a segment without the trace costs a look
//! into the filter, and one with it two small reads, however many traces there are.
//!
//! The layout is in `storage/FORMAT.md`. An index can always be made anew from the rows.

use crate::bloom::{Filter, Room};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 8] = *b"TREFTID2";

/// Magic, checksum, number of leading hash bits that choose a slot, bytes of the filter.
const HEADER_BYTES: usize = 20;
/// Entries before the slot, checksum.
const SLOT_BYTES: usize = 8;
/// Further hash bits, block.
const ENTRY_BYTES: usize = 6;

/// Entries per slot on average, as a power of two.
const SLOT_BITS: u32 = 5;

/// Hash of a trace ID, and a block that holds rows of the trace.
pub type Pair = (u64, u32);

/// A pair for a row.
pub fn pair(trace_id: &[u8; 16], block: u32) -> Pair {
    (xxh3_64(trace_id), block)
}

/// Writes an index.
///
/// * `pairs`: in any order, also several times.
pub fn write(out: &mut impl Write, mut pairs: Vec<Pair>) -> io::Result<()> {
    pairs.sort_unstable();
    pairs.dedup();
    let bits = (usize::BITS - pairs.len().leading_zeros()).saturating_sub(SLOT_BITS);
    let mut hashes: Vec<u64> = pairs.iter().map(|(hash, _)| *hash).collect();
    hashes.dedup();
    let filter = Filter::of(hashes.into_iter()).to_bytes();
    let head = [&bits.to_le_bytes(), &(filter.len() as u32).to_le_bytes(), &filter[..]].concat();
    out.write_all(&MAGIC)?;
    out.write_all(&crc32fast::hash(&head).to_le_bytes())?;
    out.write_all(&head)?;
    let mut entries = Vec::with_capacity(pairs.len() * ENTRY_BYTES);
    for (hash, block) in &pairs {
        entries.extend_from_slice(&rest_of(*hash, bits).to_le_bytes());
        entries.extend_from_slice(&block.to_le_bytes());
    }
    let mut before = 0;
    for slot in 0..=1u64 << bits {
        let count = pairs[before..].iter().take_while(|(hash, _)| slot_of(*hash, bits) == slot);
        let end = before + count.count();
        let bounds = [before as u32, end as u32];
        let check = checksum(bounds, &entries[before * ENTRY_BYTES..end * ENTRY_BYTES]);
        out.write_all(&bounds[0].to_le_bytes())?;
        out.write_all(&check.to_le_bytes())?;
        before = end;
    }
    out.write_all(&entries)
}

/// * `bounds`: entries before the slot and before the next one.
fn checksum(bounds: [u32; 2], entries: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    bounds.iter().for_each(|bound| crc.update(&bound.to_le_bytes()));
    crc.update(entries);
    crc.finalize()
}

fn slot_of(hash: u64, bits: u32) -> u64 {
    hash.checked_shr(64 - bits).unwrap_or(0)
}

fn rest_of(hash: u64, bits: u32) -> u16 {
    (hash << bits >> 48) as u16
}

/// An index. Nothing of it is read before a trace is asked for.
#[derive(Debug)]
pub struct TraceIndex {
    path: PathBuf,
    /// For filters of all indexes together.
    room: Arc<Room>,
    head: OnceLock<Head>,
    /// All pairs in order, once the file turned out to be damaged.
    anew: OnceLock<Vec<Pair>>,
}

#[derive(Debug)]
struct Head {
    bits: u32,
    /// Where the first slot begins.
    slots_at: u64,
    /// `None` when there was no room for it.
    filter: Option<Filter>,
}

impl TraceIndex {
    pub fn new(path: PathBuf, room: Arc<Room>) -> Self {
        Self { path, room, head: OnceLock::new(), anew: OnceLock::new() }
    }

    /// Blocks that may hold rows of the trace, ascending.
    ///
    /// # Errors
    /// `InvalidData` for another format or a damaged file, until [`replace`](Self::replace) is called.
    pub fn lookup(&self, trace_id: &[u8; 16]) -> io::Result<Vec<u32>> {
        let hash = xxh3_64(trace_id);
        if let Some(pairs) = self.anew.get() {
            let first = pairs.partition_point(|pair| pair.0 < hash);
            let found = pairs[first..].iter().take_while(|pair| pair.0 == hash);
            return Ok(found.map(|pair| pair.1).collect());
        }
        let mut file = None;
        let head = match self.head.get() {
            Some(head) => head,
            None => {
                let read = Head::read(file.insert(File::open(&self.path)?), &self.room);
                // Of two threads that read it at once one copy is kept.
                let read = read.map_err(|error| named(&self.path, error))?;
                self.head.get_or_init(|| read)
            }
        };
        if head.filter.as_ref().is_some_and(|filter| !filter.may_hold(hash)) {
            return Ok(Vec::new());
        }
        let file = match file {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        head.blocks(&file, hash).map_err(|error| named(&self.path, error))
    }

    /// From now on the pairs are looked up in, and the file no more.
    pub fn replace(&self, mut pairs: Vec<Pair>) {
        pairs.sort_unstable();
        pairs.dedup();
        self.anew.get_or_init(|| pairs);
    }
}

impl Head {
    fn read(file: &File, room: &Arc<Room>) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let number =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let (crc32, bits, filter_bytes) = (number(8), number(12), number(16) as usize);
        if header[..8] != MAGIC {
            return Err(damaged("is no trace index of this format"));
        }
        let slots_at = (HEADER_BYTES + filter_bytes) as u64;
        if slots_at > file.metadata()?.len() || bits > 32 {
            return Err(damaged("is not what its header says"));
        }
        let mut filter = vec![0; filter_bytes];
        file.read_exact_at(&mut filter, HEADER_BYTES as u64)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[12..]);
        crc.update(&filter);
        if crc.finalize() != crc32 {
            return Err(damaged("does not match its checksum"));
        }
        Ok(Self { bits, slots_at, filter: Filter::from_bytes(&filter, room) })
    }

    fn blocks(&self, file: &File, hash: u64) -> io::Result<Vec<u32>> {
        let mut slots = [0; 2 * SLOT_BYTES];
        let slot = slot_of(hash, self.bits);
        file.read_exact_at(&mut slots, self.slots_at + SLOT_BYTES as u64 * slot)?;
        let bound = |at: usize| u32::from_le_bytes(slots[at..at + 4].try_into().expect("4 bytes"));
        let (start, end) = (bound(0), bound(SLOT_BYTES));
        let entries_at = self.slots_at + SLOT_BYTES as u64 * ((1 << self.bits) + 1);
        if start > end || entries_at + u64::from(end) * ENTRY_BYTES as u64 > file.metadata()?.len()
        {
            return Err(damaged("is damaged in its slots"));
        }
        let mut entries = vec![0; (end - start) as usize * ENTRY_BYTES];
        file.read_exact_at(&mut entries, entries_at + u64::from(start) * ENTRY_BYTES as u64)?;
        if checksum([start, end], &entries).to_le_bytes() != slots[4..SLOT_BYTES] {
            return Err(damaged("is damaged in a slot"));
        }
        let wanted = rest_of(hash, self.bits).to_le_bytes();
        let mut blocks: Vec<u32> = entries
            .chunks_exact(ENTRY_BYTES)
            .filter(|entry| entry[..2] == wanted)
            .map(|entry| u32::from_le_bytes(entry[2..].try_into().expect("4 bytes")))
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        Ok(blocks)
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(i: u32) -> [u8; 16] {
        xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes()).to_le_bytes()
    }

    /// Each trace in two blocks.
    fn pairs(count: u32) -> Vec<Pair> {
        (0..count)
            .flat_map(|i| [i / 7, i / 7, i / 7 + 1].map(|block| pair(&id(i), block)))
            .collect()
    }

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn with(pairs: Vec<Pair>) -> Self {
            let disk = Self(tempfile::tempdir().unwrap());
            write(&mut File::create(disk.path()).unwrap(), pairs).unwrap();
            disk
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("x.tid")
        }

        fn open(&self, room_bytes: usize) -> TraceIndex {
            TraceIndex::new(self.path(), Arc::new(Room::new(room_bytes)))
        }
    }

    #[test]
    fn every_trace_is_found_in_its_blocks_and_hardly_any_other_with_a_filter_and_without() {
        for count in [0u32, 1, 40, 5_000] {
            let disk = Disk::with(pairs(count));
            let anew = disk.open(0);
            anew.replace(pairs(count));
            for index in [disk.open(1 << 20), disk.open(0), anew] {
                for i in 0..count {
                    let found = index.lookup(&id(i)).unwrap();
                    let both = found.contains(&(i / 7)) && found.contains(&(i / 7 + 1));
                    assert!(both, "{i}: {found:?}");
                }
                let strangers: usize =
                    (count..count + 1000).map(|i| index.lookup(&id(i)).unwrap().len()).sum();
                assert!(strangers < 20, "{strangers}");
            }
        }
    }

    #[test]
    fn a_segment_without_the_trace_is_passed_over_without_its_file() {
        let disk = Disk::with(pairs(500));
        let index = disk.open(1 << 20);
        index.lookup(&id(0)).unwrap();
        std::fs::remove_file(disk.path()).unwrap();
        let asked = (1_000..2_000).filter(|i| index.lookup(&id(*i)).is_err()).count();
        assert!(asked < 60, "{asked} of 1,000 strangers were looked for in the file");
        assert!(index.lookup(&id(0)).is_err());
    }

    #[test]
    fn a_flipped_bit_never_hides_a_row() {
        let count = 200;
        let disk = Disk::with(pairs(count));
        let sound = std::fs::read(disk.path()).unwrap();
        let mut refused = 0;
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(disk.path(), bytes).unwrap();
            let index = disk.open(1 << 20);
            for i in (0..count).step_by(1 + at % 5) {
                match index.lookup(&id(i)) {
                    Ok(found) => assert!(found.contains(&(i / 7)) && found.contains(&(i / 7 + 1))),
                    Err(error) => {
                        assert!(crate::check::is_damage(&error), "{error}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 0);
    }
}
