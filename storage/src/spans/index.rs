//! The trace index beside a span segment: trace ID → rows, found with a few reads and no memory.
//!
//! `TREFTIX1`, then 16-byte entries sorted by key: the first 8 bytes of the trace ID (big-endian number), first row
//! (u32), row count (u32), little-endian. Two traces may share a key: readers check the rows' own IDs.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const MAGIC: [u8; 8] = *b"TREFTIX1";
const ENTRY_BYTES: u64 = 16;

/// Writes the index of rows that are grouped by trace.
pub fn write(out: &mut impl Write, trace_ids: &[[u8; 16]]) -> io::Result<()> {
    let mut entries: Vec<(u64, u32, u32)> = Vec::new();
    let mut row = 0;
    for group in trace_ids.chunk_by(|a, b| a == b) {
        entries.push((key(&group[0]), row, group.len() as u32));
        row += group.len() as u32;
    }
    entries.sort_unstable();
    out.write_all(&MAGIC)?;
    for (key, row, count) in entries {
        out.write_all(&key.to_le_bytes())?;
        out.write_all(&row.to_le_bytes())?;
        out.write_all(&count.to_le_bytes())?;
    }
    Ok(())
}

/// Row ranges that may hold the trace, in row order.
pub fn lookup(path: &Path, trace_id: &[u8; 16]) -> io::Result<Vec<Range<usize>>> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0)?;
    if magic != MAGIC || (bytes - 8) % ENTRY_BYTES != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a trace index"));
    }
    let wanted = key(trace_id);
    let entry = |at: u64| -> io::Result<(u64, Range<usize>)> {
        let mut buffer = [0; ENTRY_BYTES as usize];
        file.read_exact_at(&mut buffer, 8 + at * ENTRY_BYTES)?;
        let key = u64::from_le_bytes(buffer[..8].try_into().expect("8 bytes"));
        let row = u32::from_le_bytes(buffer[8..12].try_into().expect("4 bytes")) as usize;
        let count = u32::from_le_bytes(buffer[12..].try_into().expect("4 bytes")) as usize;
        Ok((key, row..row + count))
    };
    let count = (bytes - 8) / ENTRY_BYTES;
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle)?.0 < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut found = Vec::new();
    while low < count {
        let (key, rows) = entry(low)?;
        if key != wanted {
            break;
        }
        found.push(rows);
        low += 1;
    }
    found.sort_by_key(|rows| rows.start);
    Ok(found)
}

fn key(trace_id: &[u8; 16]) -> u64 {
    u64::from_be_bytes(trace_id[..8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trace_is_found_and_no_other() {
        let ids: Vec<[u8; 16]> = [[3; 16], [3; 16], [1; 16], [9; 16], [9; 16], [9; 16]].into();
        let mut bytes = Vec::new();
        write(&mut bytes, &ids).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tix");
        std::fs::write(&path, &bytes).unwrap();
        let found = |id: u8| lookup(&path, &[id; 16]).unwrap();
        let (two, one, three) = (0..2usize, 2..3usize, 3..6usize);
        assert_eq!(found(3), vec![two]);
        assert_eq!(found(1), vec![one]);
        assert_eq!(found(9), vec![three]);
        assert!(found(2).is_empty());
    }
}
