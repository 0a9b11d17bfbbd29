//! The trace index beside a span segment: trace ID → rows.
//!
//! Entries are sorted by a hash of the whole trace ID and lie in pages. In memory stay the first hash and the checksum
//! of each page, 12 bytes for 256 traces, and, as long as there is room, a Bloom filter. So a segment without the
//! trace costs a look into the filter, and one with it costs reading one page, however many traces there are.
//!
//! The layout is in `storage/FORMAT.md`. An index can always be made anew from the rows.

use crate::bloom::{Filter, Room};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 8] = *b"TREFTIX2";

/// Magic, checksum, traces, rows, bytes of the filter.
const HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 16;
/// First hash, checksum.
const FENCE_BYTES: usize = 12;

/// Entries of a page: 4 KiB, what the disk reads anyway.
const PAGE_ENTRIES: usize = 256;

/// Rows of one trace that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Of the trace ID, see [`hash_of`].
    pub hash: u64,
    pub first_row: u32,
    /// At least one.
    pub rows: u32,
}

/// What entries are sorted and found by. Two traces may share a hash: readers check the rows' own IDs.
pub fn hash_of(trace_id: &[u8; 16]) -> u64 {
    xxh3_64(trace_id)
}

/// Entries of rows that are grouped by trace.
///
/// * `first_row`: number of the first row within the segment.
pub fn entries_of(
    first_row: u32,
    trace_ids: impl IntoIterator<Item = [u8; 16]>,
    out: &mut Vec<Entry>,
) {
    let mut last: Option<[u8; 16]> = None;
    for (row, id) in (first_row..).zip(trace_ids) {
        match out.last_mut() {
            Some(entry) if last == Some(id) => entry.rows += 1,
            _ => out.push(Entry { hash: hash_of(&id), first_row: row, rows: 1 }),
        }
        last = Some(id);
    }
}

/// Writes an index.
///
/// * `rows`: rows of the segment; no entry reaches beyond.
pub fn write(out: &mut impl Write, mut entries: Vec<Entry>, rows: u32) -> io::Result<()> {
    entries.sort_unstable();
    let pages: Vec<Vec<u8>> = entries.chunks(PAGE_ENTRIES).map(page_bytes).collect();
    let filter = Filter::of(entries.iter().map(|entry| entry.hash)).to_bytes();
    let mut head = Vec::new();
    for number in [entries.len() as u32, rows, filter.len() as u32] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&filter);
    for (page, entries) in pages.iter().zip(entries.chunks(PAGE_ENTRIES)) {
        head.extend_from_slice(&entries[0].hash.to_le_bytes());
        head.extend_from_slice(&crc32fast::hash(page).to_le_bytes());
    }
    out.write_all(&MAGIC)?;
    out.write_all(&crc32fast::hash(&head).to_le_bytes())?;
    out.write_all(&head)?;
    pages.iter().try_for_each(|page| out.write_all(page))
}

fn page_bytes(entries: &[Entry]) -> Vec<u8> {
    let mut page = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        page.extend_from_slice(&entry.hash.to_le_bytes());
        page.extend_from_slice(&entry.first_row.to_le_bytes());
        page.extend_from_slice(&entry.rows.to_le_bytes());
    }
    page
}

/// An open index.
#[derive(Debug)]
pub struct TraceIndex {
    pages: Pages,
    traces: usize,
    rows: u32,
    fences: Vec<Fence>,
    /// `None` when there was no room for it.
    filter: Option<Filter>,
}

#[derive(Debug)]
enum Pages {
    File {
        path: PathBuf,
        /// Where the first page begins.
        start: u64,
    },
    /// Sorted; of an index that was made anew.
    Memory(Vec<Entry>),
}

#[derive(Debug, Clone, Copy)]
struct Fence {
    first_hash: u64,
    crc32: u32,
}

impl TraceIndex {
    /// Reads all but the pages.
    ///
    /// * `rows`: rows of the segment.
    /// * `room`: for filters of all indexes together.
    ///
    /// # Errors
    /// `InvalidData` for another format, a damaged file, or one that belongs to another number of rows.
    pub fn open(path: &Path, rows: u64, room: &Arc<Room>) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)
            .map_err(|_| damaged(path, "ends inside its header".into()))?;
        if header[..8] != MAGIC {
            let magic = String::from_utf8_lossy(&header[..8]).into_owned();
            return Err(damaged(path, format!("is of another format ({magic:?})")));
        }
        let number = |at: usize| u32_at(&header, at);
        let (crc32, traces, filter_bytes) = (number(8), number(12) as usize, number(20) as usize);
        if u64::from(number(16)) != rows {
            return Err(damaged(path, format!("is for {} rows, not {rows}", number(16))));
        }
        let fence_bytes = traces.div_ceil(PAGE_ENTRIES) * FENCE_BYTES;
        let start = (HEADER_BYTES + filter_bytes + fence_bytes) as u64;
        if start + (traces * ENTRY_BYTES) as u64 != bytes {
            return Err(damaged(path, format!("has {bytes} bytes, not what its header says")));
        }
        let mut head = vec![0; start as usize - 12];
        file.read_exact_at(&mut head, 12)?;
        if crc32fast::hash(&head) != crc32 {
            return Err(damaged(path, "does not match its checksum".into()));
        }
        let (filter, fences) = head[HEADER_BYTES - 12..].split_at(filter_bytes);
        let fences = fences
            .chunks_exact(FENCE_BYTES)
            .map(|fence| Fence { first_hash: u64_at(fence, 0), crc32: u32_at(fence, 8) })
            .collect();
        let filter = Filter::from_bytes(filter, room);
        let pages = Pages::File { path: path.to_owned(), start };
        Ok(Self { pages, traces, rows: rows as u32, fences, filter })
    }

    /// An index in memory, 16 bytes a trace.
    pub fn in_memory(mut entries: Vec<Entry>, rows: u32) -> Self {
        entries.sort_unstable();
        let fences = entries
            .chunks(PAGE_ENTRIES)
            .map(|page| Fence { first_hash: page[0].hash, crc32: 0 })
            .collect();
        let traces = entries.len();
        Self { pages: Pages::Memory(entries), traces, rows, fences, filter: None }
    }

    /// Row ranges that may hold one of the traces, ascending and apart from each other.
    ///
    /// # Errors
    /// `InvalidData` when a page is damaged.
    pub fn lookup(&self, trace_ids: &[[u8; 16]]) -> io::Result<Vec<Range<usize>>> {
        let mut found: Vec<Entry> = Vec::new();
        let mut file: Option<File> = None;
        for id in trace_ids {
            self.find(hash_of(id), &mut file, &mut found)?;
        }
        self.ranges(found)
    }

    fn find(&self, hash: u64, file: &mut Option<File>, found: &mut Vec<Entry>) -> io::Result<()> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_hold(hash)) {
            return Ok(());
        }
        // The first page that begins at or after the hash, and the one before it, which may reach up to it.
        let after = self.fences.partition_point(|fence| fence.first_hash < hash);
        for page in after.saturating_sub(1)..self.fences.len() {
            if self.fences[page].first_hash > hash {
                break;
            }
            let entries = self.page(page, file)?;
            let first = entries.partition_point(|entry| entry.hash < hash);
            found.extend(entries[first..].iter().take_while(|entry| entry.hash == hash));
        }
        Ok(())
    }

    /// All entries, sorted by hash.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut file: Option<File> = None;
        let mut all = Vec::with_capacity(self.traces);
        for page in 0..self.fences.len() {
            all.extend(self.page(page, &mut file)?);
        }
        Ok(all)
    }

    fn page(&self, page: usize, file: &mut Option<File>) -> io::Result<Vec<Entry>> {
        let first = page * PAGE_ENTRIES;
        let count = PAGE_ENTRIES.min(self.traces - first);
        let (path, start) = match &self.pages {
            Pages::Memory(entries) => return Ok(entries[first..first + count].to_vec()),
            Pages::File { path, start } => (path, start),
        };
        let file = match file {
            Some(file) => file,
            None => file.insert(File::open(path)?),
        };
        let mut bytes = vec![0; count * ENTRY_BYTES];
        file.read_exact_at(&mut bytes, start + (first * ENTRY_BYTES) as u64)?;
        if crc32fast::hash(&bytes) != self.fences[page].crc32 {
            return Err(damaged(path, format!("is damaged in page {page}")));
        }
        let entries = bytes.chunks_exact(ENTRY_BYTES).map(|entry| Entry {
            hash: u64_at(entry, 0),
            first_row: u32_at(entry, 8),
            rows: u32_at(entry, 12),
        });
        Ok(entries.collect())
    }

    fn ranges(&self, mut found: Vec<Entry>) -> io::Result<Vec<Range<usize>>> {
        found.sort_unstable_by_key(|entry| entry.first_row);
        found.dedup();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for entry in found {
            let range = entry.first_row as usize..entry.first_row as usize + entry.rows as usize;
            let apart = ranges.last().is_none_or(|last| last.end <= range.start);
            if range.is_empty() || range.end > self.rows as usize || !apart {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("trace index points to rows {range:?} of {}", self.rows),
                ));
            }
            ranges.push(range);
        }
        Ok(ranges)
    }
}

fn damaged(path: &Path, what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("trace index {} {what}", path.display()))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Traces of one to four rows, their IDs 64-bit ones behind zeros, as old senders have them.
    fn short_ids(traces: u64) -> Vec<[u8; 16]> {
        let id = |n: u64| {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&n.to_be_bytes());
            id
        };
        (0..traces).flat_map(|n| std::iter::repeat_n(id(n), n as usize % 4 + 1)).collect()
    }

    fn written(ids: &[[u8; 16]]) -> Vec<u8> {
        let mut entries = Vec::new();
        entries_of(0, ids.iter().copied(), &mut entries);
        let mut bytes = Vec::new();
        write(&mut bytes, entries, ids.len() as u32).unwrap();
        bytes
    }

    struct OnDisk {
        path: PathBuf,
        rows: u64,
        _dir: tempfile::TempDir,
    }

    impl OnDisk {
        fn new(bytes: &[u8], rows: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.tix");
            std::fs::write(&path, bytes).unwrap();
            Self { path, rows: rows as u64, _dir: dir }
        }

        fn open(&self, room_bytes: usize) -> io::Result<TraceIndex> {
            TraceIndex::open(&self.path, self.rows, &Arc::new(Room::new(room_bytes)))
        }
    }

    #[test]
    fn every_trace_is_found_alone_also_when_only_the_low_half_of_the_id_is_set() {
        let ids = short_ids(2_000);
        let file = OnDisk::new(&written(&ids), ids.len());
        for index in [file.open(1 << 20).unwrap(), file.open(0).unwrap()] {
            let mut row = 0;
            for trace in ids.chunk_by(|a, b| a == b) {
                let rows = row..row + trace.len();
                assert_eq!(index.lookup(&trace[..1]).unwrap(), std::slice::from_ref(&rows));
                row = rows.end;
            }
            assert!(index.lookup(&[[7; 16]]).unwrap().is_empty());
            let several = [ids[0], [7; 16], ids[ids.len() - 1], ids[0]];
            assert_eq!(index.lookup(&several).unwrap().len(), 2);
            assert_eq!(index.entries().unwrap().len(), 2_000);
        }
    }

    #[test]
    fn an_index_of_no_rows_finds_nothing() {
        let index = OnDisk::new(&written(&[]), 0).open(1 << 20).unwrap();
        assert!(index.lookup(&[[1; 16]]).unwrap().is_empty());
    }

    #[test]
    fn a_hash_shared_by_many_entries_is_found_across_pages() {
        let of = |hash, rows: Range<u32>| rows.map(move |row| (hash, row));
        let entries = of(4, 0..300).chain(of(5, 300..900)).chain(of(6, 900..1_000));
        let entries = entries.map(|(hash, first_row)| Entry { hash, first_row, rows: 1 }).collect();
        let index = TraceIndex::in_memory(entries, 1_000);
        for (hash, count) in [(3, 0), (4, 300), (5, 600), (6, 100), (7, 0)] {
            let mut found = Vec::new();
            index.find(hash, &mut None, &mut found).unwrap();
            assert_eq!(found.len(), count, "hash {hash}");
        }
    }

    #[test]
    fn every_flip_and_cut_is_an_error_or_an_answer_within_the_rows() {
        let ids = short_ids(40);
        let good = written(&ids);
        let wanted: Vec<[u8; 16]> = ids.iter().step_by(3).copied().collect();
        let sound = OnDisk::new(&good, ids.len()).open(1 << 20).unwrap().lookup(&wanted).unwrap();
        let mut refused = 0;
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            let answer = OnDisk::new(&bytes, ids.len())
                .open(1 << 20)
                .and_then(|index| index.lookup(&wanted));
            match answer {
                Ok(rows) => assert_eq!(rows, sound, "flip at {at}"),
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "flip at {at}: {error}");
                }
            }
        }
        assert_eq!(refused, good.len(), "no flip goes unnoticed when all pages are read");
        for cut in 0..good.len() {
            assert!(OnDisk::new(&good[..cut], ids.len()).open(1 << 20).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_index_of_the_first_format_is_refused_by_name() {
        let old = [b"TREFTIX1".as_slice(), &[0; 16]].concat();
        let error = OnDisk::new(&old, 1).open(0).unwrap_err();
        assert!(error.to_string().contains("TREFTIX1"), "{error}");
    }

    #[test]
    fn entries_that_leave_the_rows_or_overlap_are_an_error() {
        let id = [3; 16];
        let hash = hash_of(&id);
        for (a, b) in [((0, 4), (3, 1)), ((0, 1), (9, 2)), ((0, 0), (1, 1))] {
            let entry = |(first_row, rows)| Entry { hash, first_row, rows };
            let index = TraceIndex::in_memory(vec![entry(a), entry(b)], 10);
            assert_eq!(index.lookup(&[id]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
