//! The trace index beside a log segment: trace id → blocks of rows, found with two reads and no memory.
//!
//! `<id>.tid`: `TREFTID1`, the number of leading hash bits that choose a slot (u32), then for each slot and once more
//! the number of entries before it (u32), then the entries by slot: 16 further bits of the hash (u16) and the block
//! (u32). All little-endian. Two traces may share an entry: readers check the rows' own ids.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 8] = *b"TREFTID1";
const HEADER_BYTES: u64 = 12;
const ENTRY_BYTES: usize = 6;

/// Entries per slot on average, as a power of two: one read of some 200 bytes.
const SLOT_BITS: u32 = 5;

/// Collects `(trace, block)` pairs while a segment is written.
#[derive(Debug, Default)]
pub struct TraceIndexWriter {
    pairs: Vec<(u64, u32)>,
}

impl TraceIndexWriter {
    pub fn add(&mut self, trace_id: &[u8; 16], block: u32) {
        self.pairs.push((xxh3_64(trace_id), block));
    }

    pub fn finish(mut self, out: &mut impl Write) -> io::Result<()> {
        self.pairs.sort_unstable();
        self.pairs.dedup();
        let bits = (usize::BITS - self.pairs.len().leading_zeros()).saturating_sub(SLOT_BITS);
        out.write_all(&MAGIC)?;
        out.write_all(&bits.to_le_bytes())?;
        let mut before = 0;
        for slot in 0..=1u64 << bits {
            while before < self.pairs.len() && slot_of(self.pairs[before].0, bits) < slot {
                before += 1;
            }
            out.write_all(&(before as u32).to_le_bytes())?;
        }
        for (hash, block) in &self.pairs {
            out.write_all(&rest_of(*hash, bits).to_le_bytes())?;
            out.write_all(&block.to_le_bytes())?;
        }
        Ok(())
    }
}

fn slot_of(hash: u64, bits: u32) -> u64 {
    hash.checked_shr(64 - bits).unwrap_or(0)
}

fn rest_of(hash: u64, bits: u32) -> u16 {
    (hash << bits >> 48) as u16
}

/// Blocks that may hold rows of the trace, ascending.
pub fn lookup(path: &Path, trace_id: &[u8; 16]) -> io::Result<Vec<u32>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "not a trace index");
    let file = File::open(path)?;
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut header, 0)?;
    let bits = u32::from_le_bytes(header[8..].try_into().expect("4 bytes"));
    if header[..8] != MAGIC || bits > 32 {
        return Err(damaged());
    }
    let hash = xxh3_64(trace_id);
    let mut bounds = [0; 8];
    file.read_exact_at(&mut bounds, HEADER_BYTES + 4 * slot_of(hash, bits))?;
    let start = u32::from_le_bytes(bounds[..4].try_into().expect("4 bytes"));
    let end = u32::from_le_bytes(bounds[4..].try_into().expect("4 bytes"));
    let count = end.checked_sub(start).ok_or_else(damaged)? as usize;
    let entries_at = HEADER_BYTES + 4 * ((1u64 << bits) + 1);
    if entries_at + u64::from(end) * ENTRY_BYTES as u64 > file.metadata()?.len() {
        return Err(damaged());
    }
    let mut entries = vec![0; count * ENTRY_BYTES];
    file.read_exact_at(&mut entries, entries_at + u64::from(start) * ENTRY_BYTES as u64)?;
    let wanted = rest_of(hash, bits).to_le_bytes();
    let mut blocks: Vec<u32> = entries
        .chunks_exact(ENTRY_BYTES)
        .filter(|entry| entry[..2] == wanted)
        .map(|entry| u32::from_le_bytes(entry[2..].try_into().expect("4 bytes")))
        .collect();
    blocks.sort_unstable();
    blocks.dedup();
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trace_is_found_in_its_blocks_and_hardly_any_other() {
        for count in [0u32, 1, 40, 5_000] {
            let id = |i: u32| xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes()).to_le_bytes();
            let mut writer = TraceIndexWriter::default();
            for i in 0..count {
                writer.add(&id(i), i / 7);
                writer.add(&id(i), i / 7);
                writer.add(&id(i), i / 7 + 1);
            }
            let mut bytes = Vec::new();
            writer.finish(&mut bytes).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.tid");
            std::fs::write(&path, &bytes).unwrap();
            for i in 0..count {
                let found = lookup(&path, &id(i)).unwrap();
                assert!(found.contains(&(i / 7)) && found.contains(&(i / 7 + 1)), "{i}: {found:?}");
            }
            let strangers: usize =
                (count..count + 1000).map(|i| lookup(&path, &id(i)).unwrap().len()).sum();
            assert!(strangers < 20, "{strangers}");
        }
    }
}
