//! Pages of a Parquet file, for reads of few rows from many columns.
//!
//! The page reader of the `parquet` crate sets up a compressor and a decompressor for every column of every read,
//! duplicates the file's descriptor for every page and unpacks dictionaries anew: for a trace of thirty spans that
//! costs several times what its rows do. This one knows where each page is (from the offset index), reads it in one
//! call, keeps a decompressor per thread and remembers dictionaries. `points.rs` decodes its pages without the crate.
//!
//! Source: parquet-format, `parquet.thrift` (`PageHeader`).

use crate::points::take_text;
use crate::thrift::{self, PageHeader};
use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::offset_index::{OffsetIndexMetaData, PageLocation};
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};

/// Where the pages of each column of each row group lie.
pub type Offsets = Vec<Vec<OffsetIndexMetaData>>;

/// Unpacked dictionaries that are remembered, all files together.
const DICTIONARIES_BYTES_MAX: usize = 8 << 20;

/// Row groups of an open file, read page by page.
pub struct Pages {
    pub file: Arc<File>,
    /// Tells files apart, for as long as the process lives.
    pub number: u64,
    pub metadata: Arc<ParquetMetaData>,
    pub offsets: Arc<Offsets>,
    /// Numbers of the row groups, ascending.
    pub groups: Vec<usize>,
}

impl RowGroups for Pages {
    fn num_rows(&self) -> usize {
        self.row_groups().map(|group| group.num_rows() as usize).sum()
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        let chunks = self.groups.iter().map(|group| Chunk::new(self, *group, column));
        Ok(Box::new(Chunks(chunks.collect::<Result<Vec<_>>>()?.into_iter())))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.groups.iter().map(|group| self.metadata.row_group(*group)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// A column over row groups.
struct Chunks(std::vec::IntoIter<Chunk>);

impl Iterator for Chunks {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|chunk| Ok(Box::new(chunk) as Box<dyn PageReader>))
    }
}

impl PageIterator for Chunks {}

/// A column of one row group.
pub struct Chunk {
    file: Arc<File>,
    number: u64,
    offsets: Arc<Offsets>,
    group: usize,
    column: usize,
    rows: usize,
    zstd: bool,
    /// First byte and length of the dictionary, until it was read.
    dictionary: Option<(u64, usize)>,
    /// The next data page.
    next: usize,
}

impl Chunk {
    pub fn new(pages: &Pages, group: usize, column: usize) -> Result<Self> {
        let metadata = pages.metadata.row_group(group);
        let chunk = metadata.column(column);
        let zstd = match chunk.compression() {
            Compression::ZSTD(_) => true,
            Compression::UNCOMPRESSED => false,
            other => return Err(damaged(format!("a column is compressed by {other}"))),
        };
        let offsets = pages.offsets.get(group).and_then(|columns| columns.get(column));
        let first_page = offsets
            .ok_or_else(|| damaged("a column is not in the offset index".into()))?
            .page_locations()
            .first()
            .map_or(0, |page| page.offset);
        let dictionary = match chunk.dictionary_page_offset() {
            Some(at) if at < first_page => {
                let len = usize::try_from(first_page - at)?;
                Some((u64::try_from(at)?, len))
            }
            _ => None,
        };
        Ok(Self {
            file: pages.file.clone(),
            number: pages.number,
            offsets: pages.offsets.clone(),
            group,
            column,
            rows: metadata.num_rows() as usize,
            zstd,
            dictionary,
            next: 0,
        })
    }

    fn locations(&self) -> &[PageLocation] {
        self.offsets[self.group][self.column].page_locations()
    }

    /// Data pages.
    pub fn pages(&self) -> usize {
        self.locations().len()
    }

    /// Rows of a data page, by their numbers within the row group; `None` when pages are not in order.
    pub fn rows_of(&self, page: usize) -> Option<Range<usize>> {
        let first_row = |page: usize| -> Option<usize> {
            self.locations().get(page).map(|location| location.first_row_index as usize)
        };
        let (start, end) = (first_row(page)?, first_row(page + 1).unwrap_or(self.rows));
        (start <= end).then_some(start..end)
    }

    /// A data page by its number.
    pub fn data_page(&self, number: usize) -> Result<Page> {
        let location = &self.locations()[number];
        let offset = u64::try_from(location.offset)?;
        let (buf, header) =
            self.unpacked(offset, usize::try_from(location.compressed_page_size)?)?;
        if header.is_dictionary {
            return Err(damaged(format!("a dictionary at byte {offset}, where values should be")));
        }
        Ok(Page::DataPage {
            buf,
            num_values: header.values,
            encoding: encoding(header.encoding)?,
            // Levels always are; see `parquet.thrift`.
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })
    }

    /// The column's dictionary, if it has one that was not passed over yet.
    pub fn known_dictionary(&self) -> Result<Option<Arc<Dictionary>>> {
        let Some((offset, len)) = self.dictionary else { return Ok(None) };
        let key = (self.number, offset);
        if let Some(known) = DICTIONARIES.lock().get(key) {
            return Ok(Some(known));
        }
        let (buf, header) = self.unpacked(offset, len)?;
        if !header.is_dictionary {
            return Err(damaged(format!("no dictionary at byte {offset}")));
        }
        let known = Arc::new(Dictionary {
            buf,
            values: header.values,
            encoding: encoding(header.encoding)?,
            is_sorted: header.is_sorted,
            ends: OnceLock::new(),
        });
        DICTIONARIES.lock().put(key, &known);
        Ok(Some(known))
    }

    /// A page's content and header.
    fn unpacked(&self, offset: u64, len: usize) -> Result<(Bytes, PageHeader)> {
        let mut bytes = reserved(len)?;
        bytes.resize(len, 0);
        self.file.read_exact_at(&mut bytes, offset)?;
        let (header, header_len) = thrift::page_header(&bytes)
            .ok_or_else(|| damaged(format!("no page header at byte {offset}")))?;
        let body = Bytes::from(bytes).slice(header_len..);
        let buf = if self.zstd { unpacked(&body, header.bytes)? } else { body };
        Ok((buf, header))
    }
}

/// An unpacked dictionary page.
#[derive(Debug)]
pub struct Dictionary {
    buf: Bytes,
    values: u32,
    encoding: Encoding,
    is_sorted: bool,
    /// Where each text ends, once one was asked for.
    ends: OnceLock<Vec<u32>>,
}

impl Dictionary {
    fn page(&self) -> Page {
        Page::DictionaryPage {
            buf: self.buf.clone(),
            num_values: self.values,
            encoding: self.encoding,
            is_sorted: self.is_sorted,
        }
    }

    /// The values, one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// A text by its number.
    pub fn text(&self, number: usize) -> Option<&[u8]> {
        let ends = self.ends.get_or_init(|| {
            let mut rest = self.bytes();
            let ends = (0..self.values).map_while(|_| {
                take_text(&mut rest)?;
                u32::try_from(self.buf.len() - rest.len()).ok()
            });
            ends.collect()
        });
        let start = number.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied())?;
        let text = self.bytes().get(start as usize..*ends.get(number)? as usize)?;
        // Its length stands before it.
        text.get(4..)
    }

    /// Bytes it takes in memory.
    fn held(&self) -> usize {
        self.buf.len() + self.values as usize * size_of::<u32>()
    }
}

impl PageReader for Chunk {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        if let Some(known) = self.known_dictionary()? {
            self.dictionary = None;
            return Ok(Some(known.page()));
        }
        let page = self.next;
        if page >= self.pages() {
            return Ok(None);
        }
        self.next += 1;
        self.data_page(page).map(Some)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        if self.dictionary.is_some() {
            return Ok(Some(PageMetadata { num_rows: None, num_levels: None, is_dict: true }));
        }
        if self.next >= self.pages() {
            return Ok(None);
        }
        let rows = self.rows_of(self.next);
        let num_rows = Some(rows.ok_or_else(|| damaged("pages are not in order".into()))?.len());
        Ok(Some(PageMetadata { num_rows, num_levels: None, is_dict: false }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if self.dictionary.take().is_none() {
            self.next += 1;
        }
        Ok(())
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        // Pages in an offset index begin with a row.
        Ok(true)
    }
}

impl Iterator for Chunk {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

fn damaged(what: String) -> ParquetError {
    ParquetError::General(what)
}

/// Room for so many bytes; a damaged length must not end the process.
fn reserved(bytes: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    let outcome = room.try_reserve_exact(bytes);
    outcome.map_err(|_| damaged(format!("a page of {bytes} bytes does not fit into memory")))?;
    Ok(room)
}

thread_local! {
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn unpacked(packed: &[u8], bytes: usize) -> Result<Bytes> {
    let mut out = reserved(bytes)?;
    // A page without any value may be empty.
    if bytes > 0 {
        ZSTD.with_borrow_mut(|zstd| {
            let zstd = match zstd {
                Some(zstd) => zstd,
                None => zstd.insert(zstd::bulk::Decompressor::new()?),
            };
            zstd.decompress_to_buffer(packed, &mut out)
        })?;
    }
    if out.len() != bytes {
        return Err(damaged(format!("a page has {} bytes, its header says {bytes}", out.len())));
    }
    Ok(out.into())
}

/// By its number in `parquet.thrift`.
fn encoding(number: i32) -> Result<Encoding> {
    Ok(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return Err(damaged(format!("a page has the unknown encoding {number}"))),
    })
}

static DICTIONARIES: Mutex<Dictionaries> = Mutex::new(Dictionaries::new());

/// Number of a file and offset in it.
type Key = (u64, u64);

/// Unpacked dictionary pages. What was not asked for while half of the room filled up is forgotten.
struct Dictionaries {
    recent: FxHashMap<Key, Arc<Dictionary>>,
    /// Of `recent`.
    bytes: usize,
    older: FxHashMap<Key, Arc<Dictionary>>,
}

impl Dictionaries {
    const fn new() -> Self {
        Self {
            recent: FxHashMap::with_hasher(FxBuildHasher),
            bytes: 0,
            older: FxHashMap::with_hasher(FxBuildHasher),
        }
    }

    fn get(&mut self, key: Key) -> Option<Arc<Dictionary>> {
        if let Some(known) = self.recent.get(&key) {
            return Some(known.clone());
        }
        let known = self.older.remove(&key)?;
        self.put(key, &known);
        Some(known)
    }

    fn put(&mut self, key: Key, dictionary: &Arc<Dictionary>) {
        let bytes = dictionary.held();
        if bytes > DICTIONARIES_BYTES_MAX / 4 {
            return;
        }
        if self.bytes + bytes > DICTIONARIES_BYTES_MAX / 2 {
            self.older = std::mem::take(&mut self.recent);
            self.bytes = 0;
        }
        if self.recent.insert(key, dictionary.clone()).is_none() {
            self.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionary(bytes: usize) -> Arc<Dictionary> {
        Arc::new(Dictionary {
            buf: Bytes::from(vec![0; bytes - size_of::<u32>()]),
            values: 1,
            encoding: Encoding::PLAIN,
            is_sorted: false,
            ends: OnceLock::new(),
        })
    }

    #[test]
    fn dictionaries_that_are_asked_for_stay_and_the_room_is_kept() {
        let mut known = Dictionaries::new();
        let size = DICTIONARIES_BYTES_MAX / 16;
        known.put((0, 0), &dictionary(size));
        for n in 1..100 {
            known.put((1, n), &dictionary(size));
            assert!(known.get((0, 0)).is_some(), "after {n} others");
            let held = known.recent.values().chain(known.older.values());
            let held: usize = held.map(|known| known.held()).sum();
            assert!(held <= DICTIONARIES_BYTES_MAX, "{held} bytes after {n}");
        }
        assert!(known.get((1, 1)).is_none());
        known.put((2, 0), &dictionary(DICTIONARIES_BYTES_MAX));
        assert!(known.get((2, 0)).is_none(), "too large to be kept");
    }
}
