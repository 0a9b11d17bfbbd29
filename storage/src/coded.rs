//! Writing text columns whose values are numbered already.
//!
//! The Parquet writer looks the text of every row up in a hash table. Where rows come with numbers of few distinct
//! texts, the dictionary page and the pages of numbers can be written straight from those.
//!
//! Source: parquet-format, `Encodings.md` ("Dictionary Encoding", "Run Length Encoding / Bit-Packing Hybrid").

use crate::columnar::SPAN_PAGE_ROWS;
use crate::wire::put_varint;
use arrow::array::{Array, AsArray, DictionaryArray, StringArray};
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use rustc_hash::FxHashMap;
use std::io::Write;
use zstd::bulk::Compressor;

/// Longer texts are no bounds for statistics.
const BOUND_BYTES_MAX: usize = 64;

/// A column of texts by number, none of them null.
pub struct CodedColumn<'a> {
    texts: &'a StringArray,
    /// Numbers of the texts that occur, in order of their first row.
    used: Vec<u32>,
    /// By row, an index into `used`.
    codes: Vec<u32>,
    /// Of the dictionary page.
    bytes: usize,
}

impl<'a> CodedColumn<'a> {
    /// The column, if it is one: codes into texts, without nulls.
    pub fn of(array: &'a dyn Array) -> Option<Self> {
        let array: &DictionaryArray<Int32Type> = array.as_dictionary_opt()?;
        let texts: &StringArray = array.values().as_string_opt()?;
        if array.null_count() > 0 || texts.null_count() > 0 || array.is_empty() {
            return None;
        }
        let mut places = vec![u32::MAX; texts.len()];
        // Two numbers may stand for equal texts (resources of one service); readers take a dictionary's for distinct.
        let mut by_text: FxHashMap<&str, u32> = FxHashMap::default();
        let (mut used, mut bytes) = (Vec::new(), 0);
        let codes = array.keys().values().iter().map(|code| {
            let place = &mut places[*code as usize];
            if *place == u32::MAX {
                let text = texts.value(*code as usize);
                *place = *by_text.entry(text).or_insert_with(|| {
                    used.push(*code as u32);
                    bytes += size_of::<u32>() + text.len();
                    used.len() as u32 - 1
                });
            }
            *place
        });
        let codes = codes.collect();
        Some(Self { texts, used, codes, bytes })
    }

    /// Bytes of all distinct texts: what reading a single row costs.
    pub fn dictionary_bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the column as the next one of a row group, zstd-compressed.
    ///
    /// * `column`: the column's description, a required text.
    pub fn append<W: Write + Send>(
        &self,
        out: &mut SerializedRowGroupWriter<'_, W>,
        column: &ColumnDescPtr,
    ) -> Result<()> {
        let mut chunk = TrackedWrite::new(Vec::new());
        let mut pages = Pages::new(&mut chunk)?;
        pages.write(Page::DictionaryPage {
            buf: self.dictionary().into(),
            num_values: self.used.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        })?;
        let data_start = pages.compressed_bytes;
        let width = (u32::BITS - (self.used.len() as u32 - 1).leading_zeros()) as u8;
        let mut offsets = OffsetIndexBuilder::new();
        for codes in self.codes.chunks(SPAN_PAGE_ROWS) {
            let mut buf = vec![width];
            put_codes(&mut buf, codes, width);
            let written = pages.write(Page::DataPage {
                buf: buf.into(),
                num_values: codes.len() as u32,
                encoding: Encoding::RLE_DICTIONARY,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            })?;
            offsets.append_offset_and_size(written.offset as i64, written.compressed_size as i32);
            offsets.append_row_count(codes.len() as i64);
        }
        let (compressed, uncompressed) = (pages.compressed_bytes, pages.uncompressed_bytes);
        let metadata = ColumnChunkMetaData::builder(column.clone())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_num_values(self.codes.len() as i64)
            .set_total_compressed_size(compressed as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_dictionary_page_offset(Some(0))
            .set_data_page_offset(data_start as i64)
            .set_statistics(self.statistics())
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: compressed as u64,
            rows_written: self.codes.len() as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(offsets.build()),
        };
        out.append_column(&Bytes::from(chunk.into_inner()?), close)
    }

    fn used_texts(&self) -> impl Iterator<Item = &str> {
        self.used.iter().map(|number| self.texts.value(*number as usize))
    }

    /// All distinct texts, each after its length.
    fn dictionary(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(self.bytes);
        for text in self.used_texts() {
            page.extend_from_slice(&(text.len() as u32).to_le_bytes());
            page.extend_from_slice(text.as_bytes());
        }
        page
    }

    fn statistics(&self) -> Statistics {
        let bound = |text: Option<&str>| {
            let text = text.filter(|text| text.len() <= BOUND_BYTES_MAX);
            text.map(|text| ByteArray::from(text.as_bytes().to_vec()))
        };
        let (min, max) = (bound(self.used_texts().min()), bound(self.used_texts().max()));
        Statistics::from(ValueStatistics::new(min, max, None, Some(0), false))
    }
}

/// Pages of one column on their way to a buffer.
struct Pages<'a> {
    writer: SerializedPageWriter<'a, Vec<u8>>,
    compressor: Compressor<'static>,
    compressed_bytes: usize,
    uncompressed_bytes: usize,
}

impl<'a> Pages<'a> {
    fn new(out: &'a mut TrackedWrite<Vec<u8>>) -> Result<Self> {
        Ok(Self {
            writer: SerializedPageWriter::new(out),
            compressor: Compressor::new(1).map_err(external)?,
            compressed_bytes: 0,
            uncompressed_bytes: 0,
        })
    }

    fn write(&mut self, page: Page) -> Result<PageWriteSpec> {
        let uncompressed_bytes = page.buffer().len();
        let compressed = self.compressor.compress(page.buffer()).map_err(external)?;
        let page = match page {
            Page::DataPage {
                num_values, encoding, def_level_encoding, rep_level_encoding, ..
            } => Page::DataPage {
                buf: compressed.into(),
                num_values,
                encoding,
                def_level_encoding,
                rep_level_encoding,
                statistics: None,
            },
            Page::DictionaryPage { num_values, encoding, is_sorted, .. } => {
                Page::DictionaryPage { buf: compressed.into(), num_values, encoding, is_sorted }
            }
            other => other,
        };
        let written = self.writer.write_page(CompressedPage::new(page, uncompressed_bytes))?;
        self.compressed_bytes += written.compressed_size;
        self.uncompressed_bytes += written.uncompressed_size;
        Ok(written)
    }
}

fn external(error: std::io::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// Runs of eight and more equal codes as such, what is between them bit-packed in groups of eight.
fn put_codes(out: &mut Vec<u8>, codes: &[u32], width: u8) {
    let (mut at, mut packed_from) = (0, 0);
    while at < codes.len() {
        let run = codes[at..].iter().take_while(|code| **code == codes[at]).count();
        // Where all codes are 0, there is nothing to pack.
        if run < 8 && width > 0 {
            at = (at + 8).min(codes.len());
            continue;
        }
        put_packed(out, &codes[packed_from..at], width);
        put_varint(out, (run as u64) << 1);
        out.extend_from_slice(&codes[at].to_le_bytes()[..usize::from(width).div_ceil(8)]);
        at += run;
        packed_from = at;
    }
    put_packed(out, &codes[packed_from..], width);
}

fn put_packed(out: &mut Vec<u8>, codes: &[u32], width: u8) {
    let groups = codes.len().div_ceil(8);
    if groups == 0 {
        return;
    }
    put_varint(out, (groups as u64) << 1 | 1);
    let end = out.len() + groups * usize::from(width);
    let (mut waiting, mut bits) = (0u64, 0);
    for code in codes {
        waiting |= u64::from(*code) << bits;
        bits += u32::from(width);
        while bits >= 8 {
            out.push(waiting as u8);
            waiting >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(waiting as u8);
    }
    // The last group may be short.
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::RecordBatch;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use std::sync::Arc;

    /// Writes rows through this and through the Parquet writer, and reads both.
    fn check(texts: usize, code_of: impl Fn(usize) -> usize, rows: usize) {
        let values = StringArray::from_iter_values((0..texts).map(|n| format!("text {n}")));
        let codes: Vec<i32> = (0..rows).map(|row| code_of(row) as i32).collect();
        let array = DictionaryArray::<Int32Type>::try_new(codes.into(), Arc::new(values)).unwrap();
        let batch = RecordBatch::try_from_iter([("t", Arc::new(array) as Arc<dyn Array>)]).unwrap();
        let writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        let (mut file, _) = writer.into_serialized_writer().unwrap();
        let column = file.schema_descr().column(0);
        let coded = CodedColumn::of(batch.column(0)).unwrap();
        let mut group = file.next_row_group().unwrap();
        coded.append(&mut group, &column).unwrap();
        group.close().unwrap();
        let bytes = Bytes::from(file.into_inner().unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let mut row = 0;
        for read in reader.with_batch_size(1000).build().unwrap() {
            let read =
                arrow::compute::cast(read.unwrap().column(0), &arrow::datatypes::DataType::Utf8);
            for text in read.unwrap().as_string::<i32>() {
                assert_eq!(text.unwrap(), format!("text {}", code_of(row)), "row {row} of {rows}");
                row += 1;
            }
        }
        assert_eq!(row, rows);
    }

    #[test]
    fn every_row_reads_back_its_text() {
        for rows in [1, 7, 8, 9, 4096, 10_001] {
            check(1, |_| 0, rows);
            check(3, |row| row % 3, rows);
            check(700, |row| (row * 7919) % 700, rows);
            check(300, |row| row / 37 % 300, rows);
            // Runs of all lengths that begin anywhere.
            check(5, |row| (row as f64).sqrt() as usize % 5, rows);
        }
    }

    #[test]
    fn equal_texts_of_two_numbers_are_one_entry() {
        let values = StringArray::from(vec!["cart", "shop", "cart"]);
        let array =
            DictionaryArray::<Int32Type>::try_new(vec![2, 1, 0, 2].into(), Arc::new(values));
        let array = array.unwrap();
        let coded = CodedColumn::of(&array).unwrap();
        assert_eq!(coded.used_texts().collect::<Vec<_>>(), ["cart", "shop"]);
        assert_eq!(coded.codes, [0, 1, 0, 0]);
    }

    #[test]
    fn what_is_null_or_no_code_is_left_to_the_parquet_writer() {
        let nulls: DictionaryArray<Int32Type> = vec![Some("a"), None].into_iter().collect();
        assert!(CodedColumn::of(&nulls).is_none());
        assert!(CodedColumn::of(&StringArray::from(vec!["a"])).is_none());
    }
}
