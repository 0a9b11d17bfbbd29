//! Pages of a Parquet file, for reads of few rows from many columns.
//!
//! The page reader of the `parquet` crate sets up a compressor and a decompressor for every column of every read,
//! duplicates the file's descriptor for every page and unpacks dictionaries anew: for a trace of thirty spans that
//! costs several times what its rows do. This one knows where each page is (from the offset index), reads it in one
//! call, keeps a decompressor per thread and remembers dictionaries.
//!
//! Source: parquet-format, `parquet.thrift` (`PageHeader`).

use crate::thrift;
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
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

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
struct Chunk {
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
    fn new(pages: &Pages, group: usize, column: usize) -> Result<Self> {
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

    fn page(&self, offset: u64, len: usize) -> Result<Page> {
        let mut bytes = reserved(len)?;
        bytes.resize(len, 0);
        self.file.read_exact_at(&mut bytes, offset)?;
        let (header, header_len) = thrift::page_header(&bytes)
            .ok_or_else(|| damaged(format!("no page header at byte {offset}")))?;
        let body = Bytes::from(bytes).slice(header_len..);
        let buf = if self.zstd { unpacked(&body, header.bytes)? } else { body };
        let (values, encoding) = (header.values, encoding(header.encoding)?);
        if header.is_dictionary {
            let is_sorted = header.is_sorted;
            return Ok(Page::DictionaryPage { buf, num_values: values, encoding, is_sorted });
        }
        Ok(Page::DataPage {
            buf,
            num_values: values,
            encoding,
            // Levels always are; see `parquet.thrift`.
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })
    }

    fn dictionary(&self, offset: u64, len: usize) -> Result<Page> {
        let key = (self.number, offset);
        if let Some(page) = DICTIONARIES.lock().get(key) {
            return Ok(page);
        }
        let page = self.page(offset, len)?;
        DICTIONARIES.lock().put(key, &page);
        Ok(page)
    }
}

impl PageReader for Chunk {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        if let Some((offset, len)) = self.dictionary.take() {
            return self.dictionary(offset, len).map(Some);
        }
        let Some(location) = self.locations().get(self.next) else { return Ok(None) };
        let offset = u64::try_from(location.offset)?;
        let len = usize::try_from(location.compressed_page_size)?;
        self.next += 1;
        self.page(offset, len).map(Some)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        if self.dictionary.is_some() {
            return Ok(Some(PageMetadata { num_rows: None, num_levels: None, is_dict: true }));
        }
        let first_row = |page: usize| -> Option<usize> {
            self.locations().get(page).map(|location| location.first_row_index as usize)
        };
        let Some(first) = first_row(self.next) else { return Ok(None) };
        let end = first_row(self.next + 1).unwrap_or(self.rows);
        let num_rows = end.checked_sub(first);
        let num_rows = num_rows.ok_or_else(|| damaged("pages are not in order".into()))?;
        Ok(Some(PageMetadata { num_rows: Some(num_rows), num_levels: None, is_dict: false }))
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
    recent: FxHashMap<Key, Page>,
    /// Of `recent`.
    bytes: usize,
    older: FxHashMap<Key, Page>,
}

impl Dictionaries {
    const fn new() -> Self {
        Self {
            recent: FxHashMap::with_hasher(FxBuildHasher),
            bytes: 0,
            older: FxHashMap::with_hasher(FxBuildHasher),
        }
    }

    fn get(&mut self, key: Key) -> Option<Page> {
        if let Some(page) = self.recent.get(&key) {
            return copy_of(page);
        }
        let page = self.older.remove(&key)?;
        self.put(key, &page);
        Some(page)
    }

    fn put(&mut self, key: Key, page: &Page) {
        let bytes = page.buffer().len();
        if bytes > DICTIONARIES_BYTES_MAX / 4 {
            return;
        }
        if self.bytes + bytes > DICTIONARIES_BYTES_MAX / 2 {
            self.older = std::mem::take(&mut self.recent);
            self.bytes = 0;
        }
        if let Some(page) = copy_of(page)
            && self.recent.insert(key, page).is_none()
        {
            self.bytes += bytes;
        }
    }
}

/// The same dictionary page; its bytes are shared.
fn copy_of(page: &Page) -> Option<Page> {
    match page {
        Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
            Some(Page::DictionaryPage {
                buf: buf.clone(),
                num_values: *num_values,
                encoding: *encoding,
                is_sorted: *is_sorted,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionary(bytes: usize) -> Page {
        let buf = Bytes::from(vec![0; bytes]);
        Page::DictionaryPage { buf, num_values: 1, encoding: Encoding::PLAIN, is_sorted: false }
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
            let held: usize = held.map(|page| page.buffer().len()).sum();
            assert!(held <= DICTIONARIES_BYTES_MAX, "{held} bytes after {n}");
        }
        assert!(known.get((1, 1)).is_none());
        known.put((2, 0), &dictionary(DICTIONARIES_BYTES_MAX));
        assert!(known.get((2, 0)).is_none(), "too large to be kept");
    }
}
