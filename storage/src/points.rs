//! Few rows of a column, straight from its pages.
//!
//! A trace wants some thirty rows of forty columns, all from one page of each. The reader of the `parquet` crate is made
//! for long runs of rows: for thirty it spends most of its time on building itself, on copying dictionaries and on
//! passing over values. Here levels are counted, fixed widths and indices are looked up where they stand, and where the
//! texts of a dictionary end is remembered with it. What this does not know (other encodings and types, anything
//! nested, damage) the crate reads, and tells of.
//!
//! Source: parquet-format, `Encodings.md`.

use crate::pages::{Chunk, Dictionary, Pages};
use arrow::array::{
    ArrayRef, BooleanBuilder, FixedSizeBinaryBuilder, Float64Builder, Int32Builder, Int64Builder,
    StringBuilder, StringDictionaryBuilder, UInt32Builder,
};
use arrow::datatypes::{DataType, Int32Type, TimeUnit, TimestampNanosecondType};
use parquet::basic::Encoding;
use parquet::column::page::Page;
use std::ops::Range;
use std::str::from_utf8;
use std::sync::Arc;

/// Rows of one row group, by their numbers within it: ascending, none into another.
pub struct GroupRows {
    pub group: usize,
    pub rows: Vec<Range<usize>>,
}

/// Reads the rows of a column; `None` when they have to be read by the `parquet` crate.
///
/// * `column`: by its number among the columns, which are not nested.
pub fn read(
    pages: &Pages,
    column: usize,
    data_type: &DataType,
    rows: &[GroupRows],
) -> Option<ArrayRef> {
    let described = pages.metadata.file_metadata().schema_descr().column(column);
    if described.max_rep_level() > 0 || described.max_def_level() > 1 {
        return None;
    }
    let is_optional = described.max_def_level() == 1;
    let mut out =
        Out::new(data_type, rows.iter().flat_map(|group| &group.rows).map(Range::len).sum())?;
    for group in rows {
        // Before a page is read in vain.
        let mut encodings = pages.metadata.row_group(group.group).column(column).encodings();
        if !encodings.all(is_known) {
            return None;
        }
        let chunk = Chunk::new(pages, group.group, column).ok()?;
        let mut dictionary = None;
        let mut wanted = group.rows.iter().filter(|range| !range.is_empty()).cloned().peekable();
        for number in 0..chunk.pages() {
            let place = chunk.rows_of(number)?;
            let mut within: Vec<Range<usize>> = Vec::new();
            while let Some(range) = wanted.peek_mut()
                && range.start < place.end
            {
                let end = range.end.min(place.end);
                within.push(range.start.checked_sub(place.start)?..end - place.start);
                if range.end > end {
                    range.start = end;
                    break;
                }
                wanted.next();
            }
            if !within.is_empty() {
                page(&chunk, number, &mut dictionary, is_optional, &within, &mut out)?;
            }
        }
        if wanted.peek().is_some() {
            return None;
        }
    }
    out.finish(data_type)
}

fn is_known(encoding: Encoding) -> bool {
    use Encoding::{BYTE_STREAM_SPLIT, PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY};
    matches!(encoding, PLAIN | RLE_DICTIONARY | PLAIN_DICTIONARY | BYTE_STREAM_SPLIT | RLE)
}

/// Puts rows of one page into `out`.
///
/// * `dictionary`: the column's, once a page of it was read that wants it.
fn page(
    chunk: &Chunk,
    number: usize,
    dictionary: &mut Option<Arc<Dictionary>>,
    is_optional: bool,
    rows: &[Range<usize>],
    out: &mut Out,
) -> Option<()> {
    let Ok(Page::DataPage { buf, encoding, .. }) = chunk.data_page(number) else { return None };
    let (mut levels, bytes) = if is_optional {
        let (len, rest) = buf.split_first_chunk()?;
        let (levels, bytes) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        (Some(Hybrid::new(levels, 1)), bytes)
    } else {
        (None, &buf[..])
    };
    let width = out.width();
    let mut values = match encoding {
        Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => {
            if dictionary.is_none() {
                *dictionary = chunk.known_dictionary().ok()?;
            }
            let dictionary = dictionary.as_deref()?;
            let (code_width, codes) = bytes.split_first()?;
            let codes = Hybrid::new(codes, usize::from(*code_width));
            Values::Coded { codes, dictionary, width }
        }
        Encoding::PLAIN => match width {
            Width::Bytes(width) => Values::Fixed { bytes, width, next: 0 },
            Width::Bit => Values::Bits(Hybrid::packed(bytes, 1)),
            Width::Text => Values::Texts(bytes),
        },
        Encoding::BYTE_STREAM_SPLIT => match width {
            Width::Bytes(width @ 4..=8) => Values::Split { bytes, width, next: 0 },
            _ => return None,
        },
        _ => return None,
    };
    let mut at = 0;
    let mut gathered = [0; 8];
    for range in rows {
        let passed = range.start - at;
        values.skip(match &mut levels {
            Some(levels) => levels.ones(passed)?,
            None => passed,
        })?;
        for _ in range.clone() {
            let is_there = match &mut levels {
                Some(levels) => levels.next()? == 1,
                None => true,
            };
            out.push(if is_there { Some(values.next(&mut gathered)?) } else { None })?;
        }
        at = range.end;
    }
    Some(())
}

/// How a type's values stand when they are written one after the other.
#[derive(Clone, Copy)]
enum Width {
    Bytes(usize),
    Bit,
    /// Four bytes of length, then the text.
    Text,
}

/// The values of a page that are there, in their order.
enum Values<'a> {
    Fixed {
        bytes: &'a [u8],
        width: usize,
        next: usize,
    },
    /// First bytes of all values, second bytes of all values, and so on.
    Split {
        bytes: &'a [u8],
        width: usize,
        next: usize,
    },
    Texts(&'a [u8]),
    Bits(Hybrid<'a>),
    Coded {
        codes: Hybrid<'a>,
        dictionary: &'a Dictionary,
        width: Width,
    },
}

impl<'a> Values<'a> {
    fn skip(&mut self, count: usize) -> Option<()> {
        match self {
            Self::Fixed { next, .. } | Self::Split { next, .. } => *next += count,
            Self::Texts(rest) => {
                for _ in 0..count {
                    take_text(rest)?;
                }
            }
            Self::Bits(codes) | Self::Coded { codes, .. } => codes.skip(count)?,
        }
        Some(())
    }

    /// * `gathered`: room for a value whose bytes do not stand together.
    fn next<'b>(&mut self, gathered: &'b mut [u8; 8]) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        match self {
            Self::Fixed { bytes, width, next } => {
                let value = bytes.get(*next * *width..)?.get(..*width);
                *next += 1;
                value
            }
            Self::Split { bytes, width, next } => {
                let (bytes, count) = (*bytes, bytes.len() / *width);
                for (byte, to) in gathered[..*width].iter_mut().enumerate() {
                    *to = *bytes[byte * count..].get(*next).filter(|_| *next < count)?;
                }
                *next += 1;
                Some(&gathered[..*width])
            }
            Self::Texts(rest) => take_text(rest),
            Self::Bits(bits) => {
                gathered[0] = bits.next()? as u8;
                Some(&gathered[..1])
            }
            Self::Coded { codes, dictionary, width } => {
                let code = codes.next()? as usize;
                let dictionary: &'a Dictionary = dictionary;
                match *width {
                    Width::Bytes(width) => dictionary.bytes().get(code * width..)?.get(..width),
                    Width::Text => dictionary.text(code),
                    Width::Bit => None,
                }
            }
        }
    }
}

/// Takes four bytes of length and so many bytes off `rest`.
pub fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk()?;
    let (text, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    Some(text)
}

/// Numbers in runs of one value and runs packed bit by bit ("RLE / bit-packing hybrid").
struct Hybrid<'a> {
    rest: &'a [u8],
    /// Bits of a number.
    width: usize,
    run: Run<'a>,
    /// Numbers left in the run.
    left: usize,
}

enum Run<'a> {
    Same(u32),
    /// And the next number's first bit.
    Packed(&'a [u8], usize),
}

impl<'a> Hybrid<'a> {
    fn new(bytes: &'a [u8], width: usize) -> Self {
        Self { rest: bytes, width, run: Run::Same(0), left: 0 }
    }

    /// Packed numbers only, without a run's header.
    fn packed(bytes: &'a [u8], width: usize) -> Self {
        Self { rest: &[], width, run: Run::Packed(bytes, 0), left: bytes.len() * 8 / width }
    }

    /// Makes sure that the run has a number left.
    fn fill(&mut self) -> Option<()> {
        while self.left == 0 {
            let mut header = 0u64;
            for shift in (0..35).step_by(7) {
                let (byte, rest) = self.rest.split_first()?;
                self.rest = rest;
                header |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let count = (header >> 1) as usize;
            if header & 1 == 0 {
                let (value, rest) = self.rest.split_at_checked(self.width.div_ceil(8))?;
                self.rest = rest;
                self.left = count;
                self.run = Run::Same(bits(value, 0, self.width)?);
            } else {
                let (packed, rest) = self.rest.split_at_checked(count.checked_mul(self.width)?)?;
                self.rest = rest;
                self.left = count * 8;
                self.run = Run::Packed(packed, 0);
            }
        }
        Some(())
    }

    fn next(&mut self) -> Option<u32> {
        self.fill()?;
        self.left -= 1;
        match &mut self.run {
            Run::Same(value) => Some(*value),
            Run::Packed(packed, at) => {
                let value = bits(packed, *at, self.width);
                *at += self.width;
                value
            }
        }
    }

    fn skip(&mut self, mut count: usize) -> Option<()> {
        while count > 0 {
            self.fill()?;
            let now = count.min(self.left);
            if let Run::Packed(_, at) = &mut self.run {
                *at += now * self.width;
            }
            self.left -= now;
            count -= now;
        }
        Some(())
    }

    /// Passes over numbers of one bit; how many of them are 1.
    fn ones(&mut self, mut count: usize) -> Option<usize> {
        let mut ones = 0;
        while count > 0 {
            self.fill()?;
            let now = count.min(self.left);
            ones += match self.run {
                Run::Same(value) => now * value as usize,
                Run::Packed(packed, at) => count_ones(packed, at..at + now)?,
            };
            self.skip(now)?;
            count -= now;
        }
        Some(ones)
    }
}

/// The number of `width` bits, at most 32, that begins at a bit.
fn bits(packed: &[u8], at: usize, width: usize) -> Option<u32> {
    if width == 0 {
        return Some(0);
    }
    let bytes = packed.get(at / 8..(at + width).div_ceil(8)).filter(|bytes| bytes.len() <= 5)?;
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let mask = (1u64 << width) - 1;
    u32::try_from(u64::from_le_bytes(word) >> (at % 8) & mask).ok()
}

fn count_ones(packed: &[u8], range: Range<usize>) -> Option<usize> {
    let bytes = packed.get(range.start / 8..range.end.div_ceil(8))?;
    let all: usize = bytes.iter().map(|byte| byte.count_ones() as usize).sum();
    let before = bytes.first().map_or(0, |byte| byte & !(0xff << (range.start % 8)));
    let after =
        if range.end.is_multiple_of(8) { 0 } else { bytes.last()? & (0xff << (range.end % 8)) };
    Some(all - (before.count_ones() + after.count_ones()) as usize)
}

/// The array that comes to be.
enum Out {
    Text(StringBuilder),
    /// And the bytes of its texts, at most.
    Coded(StringDictionaryBuilder<Int32Type>, usize),
    Int64(Int64Builder),
    Int32(Int32Builder),
    UInt32(UInt32Builder),
    Float64(Float64Builder),
    Bool(BooleanBuilder),
    Fixed(FixedSizeBinaryBuilder, usize),
}

impl Out {
    fn new(data_type: &DataType, rows: usize) -> Option<Self> {
        Some(match data_type {
            DataType::Utf8 => Self::Text(StringBuilder::with_capacity(rows, rows * 16)),
            DataType::Dictionary(key, value)
                if **key == DataType::Int32 && **value == DataType::Utf8 =>
            {
                Self::Coded(StringDictionaryBuilder::with_capacity(rows, rows, rows * 16), 0)
            }
            DataType::Int64 | DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Self::Int64(Int64Builder::with_capacity(rows))
            }
            DataType::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            DataType::UInt32 => Self::UInt32(UInt32Builder::with_capacity(rows)),
            DataType::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            DataType::Boolean => Self::Bool(BooleanBuilder::with_capacity(rows)),
            DataType::FixedSizeBinary(width) => Self::Fixed(
                FixedSizeBinaryBuilder::with_capacity(rows, *width),
                usize::try_from(*width).ok()?,
            ),
            _ => return None,
        })
    }

    fn width(&self) -> Width {
        match self {
            Self::Text(_) | Self::Coded(..) => Width::Text,
            Self::Int64(_) | Self::Float64(_) => Width::Bytes(8),
            Self::Int32(_) | Self::UInt32(_) => Width::Bytes(4),
            Self::Bool(_) => Width::Bit,
            Self::Fixed(_, width) => Width::Bytes(*width),
        }
    }

    /// A value as it is written, or none.
    fn push(&mut self, value: Option<&[u8]>) -> Option<()> {
        let Some(value) = value else {
            match self {
                Self::Text(out) => out.append_null(),
                Self::Coded(out, _) => out.append_null(),
                Self::Int64(out) => out.append_null(),
                Self::Int32(out) => out.append_null(),
                Self::UInt32(out) => out.append_null(),
                Self::Float64(out) => out.append_null(),
                Self::Bool(out) => out.append_null(),
                Self::Fixed(out, _) => out.append_null(),
            }
            return Some(());
        };
        match self {
            Self::Text(out) => {
                addressable(out.values_slice().len() + value.len())?;
                out.append_value(from_utf8(value).ok()?);
            }
            Self::Coded(out, bytes) => {
                *bytes += value.len();
                addressable(*bytes)?;
                out.append(from_utf8(value).ok()?).ok()?;
            }
            Self::Int64(out) => out.append_value(i64::from_le_bytes(value.try_into().ok()?)),
            Self::Int32(out) => out.append_value(i32::from_le_bytes(value.try_into().ok()?)),
            Self::UInt32(out) => out.append_value(u32::from_le_bytes(value.try_into().ok()?)),
            Self::Float64(out) => out.append_value(f64::from_le_bytes(value.try_into().ok()?)),
            Self::Bool(out) => out.append_value(*value.first()? != 0),
            Self::Fixed(out, _) => out.append_value(value).ok()?,
        }
        Some(())
    }

    fn finish(self, data_type: &DataType) -> Option<ArrayRef> {
        Some(match self {
            Self::Text(mut out) => Arc::new(out.finish()),
            Self::Coded(mut out, _) => Arc::new(out.finish()),
            Self::Int64(mut out) => match data_type {
                DataType::Timestamp(_, zone) => {
                    let times = out.finish().reinterpret_cast::<TimestampNanosecondType>();
                    Arc::new(times.with_timezone_opt(zone.clone()))
                }
                _ => Arc::new(out.finish()),
            },
            Self::Int32(mut out) => Arc::new(out.finish()),
            Self::UInt32(mut out) => Arc::new(out.finish()),
            Self::Float64(mut out) => Arc::new(out.finish()),
            Self::Bool(mut out) => Arc::new(out.finish()),
            Self::Fixed(mut out, _) => Arc::new(out.finish()),
        })
    }
}

/// Whether an array of texts can hold so many bytes.
fn addressable(bytes: usize) -> Option<i32> {
    i32::try_from(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "rows are given as ranges")]
mod tests {
    use super::*;
    use crate::columnar::{self, dictionary};
    use crate::parquet_file::Footer;
    use crate::segment::SegmentDir;
    use crate::signal::Signal;
    use arrow::array::{
        Array as _, AsArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array,
        Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt32Array,
    };
    use arrow::compute::{cast, concat_batches};
    use parquet::basic::Encoding;
    use parquet::file::properties::WriterPropertiesBuilder;
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use std::path::{Path, PathBuf};

    const ROWS: usize = 20_000;

    fn batch(seed: u64) -> RecordBatch {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut there = |one_in: u32, row: usize| (rng.random_ratio(1, one_in)).then_some(row);
        // None missing, half of them, nearly all, and long runs of both.
        let rows = 0..ROWS;
        let few: Vec<Option<usize>> = rows.clone().map(|row| there(50, row)).collect();
        let half: Vec<Option<usize>> = rows.clone().map(|row| there(2, row)).collect();
        let runs: Vec<Option<usize>> =
            rows.clone().map(|row| ((row / 1_000) & 1 == 0).then_some(row)).collect();
        let ids = rows.clone().map(|row| (row as u64 * 0x9e37_79b9).to_be_bytes());
        let some_ids = half.iter().map(|row| row.map(|row| (row as u64).to_be_bytes()));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(FixedSizeBinaryArray::try_from_iter(ids).unwrap())),
            (
                "some_id",
                Arc::new(
                    FixedSizeBinaryArray::try_from_sparse_iter_with_size(some_ids, 8).unwrap(),
                ),
            ),
            (
                "time",
                Arc::new(
                    rows.clone()
                        .map(|row| Some(row as i64 * 1_000_003))
                        .collect::<TimestampNanosecondArray>()
                        .with_timezone("UTC"),
                ),
            ),
            (
                "duration",
                Arc::new(half.iter().map(|r| r.map(|r| r as i64)).collect::<Int64Array>()),
            ),
            ("code", Arc::new(few.iter().map(|r| r.map(|r| r as i64 % 7)).collect::<Int64Array>())),
            ("kind", Arc::new(rows.clone().map(|row| row as i32 % 5).collect::<Int32Array>())),
            ("flags", Arc::new(runs.iter().map(|r| r.map(|r| r as u32)).collect::<UInt32Array>())),
            ("share", Arc::new(half.iter().map(|r| r.map(|r| r as f64)).collect::<Float64Array>())),
            ("ok", Arc::new(half.iter().map(|r| r.map(|r| r % 3 == 0)).collect::<BooleanArray>())),
            (
                "text",
                Arc::new(runs.iter().map(|r| r.map(|r| format!("t{r}"))).collect::<StringArray>()),
            ),
            (
                "route",
                Arc::new(
                    half.iter()
                        .map(|r| r.map(|r| format!("/{}", r % 300)))
                        .collect::<StringArray>(),
                ),
            ),
            (
                "name",
                dictionary(
                    few.iter().map(|r| r.map(|r| r as i32 % 40)).collect(),
                    (0..40).map(|n| "n".repeat(n)).collect(),
                ),
            ),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn file(folder: &Path, properties: WriterPropertiesBuilder, batch: &RecordBatch) -> PathBuf {
        let dir = SegmentDir::new(folder.join("segments"), 1).unwrap();
        let out = dir.create(Signal::Spans, 0, 1, "parquet").unwrap();
        let properties = properties
            .set_max_row_group_row_count(Some(9_000))
            .set_data_page_row_count_limit(1_000)
            .set_write_batch_size(500);
        columnar::write(out, std::slice::from_ref(batch), properties.build()).unwrap();
        dir.path(Signal::Spans, 0, 1, "parquet")
    }

    fn split() -> WriterPropertiesBuilder {
        let split = |properties: WriterPropertiesBuilder, column: &str| {
            properties
                .set_column_dictionary_enabled(column.into(), false)
                .set_column_encoding(column.into(), Encoding::BYTE_STREAM_SPLIT)
        };
        ["time", "duration", "share", "kind"].into_iter().fold(columnar::properties(), split)
    }

    fn some_rows(rng: &mut StdRng) -> Vec<Range<usize>> {
        let mut cuts: Vec<usize> =
            (0..2 * rng.random_range(1..4)).map(|_| rng.random_range(0..ROWS)).collect();
        cuts.sort_unstable();
        cuts.chunks(2).map(|cut| cut[0]..cut[1].min(cut[0] + 60)).collect()
    }

    #[test]
    fn every_type_and_encoding_is_read_as_the_parquet_crate_reads_it() {
        let all = batch(1);
        let plain = columnar::properties().set_dictionary_enabled(false);
        let small = columnar::properties().set_dictionary_page_size_limit(1_000);
        for (number, properties) in
            [columnar::properties(), plain, small, split()].into_iter().enumerate()
        {
            let folder = tempfile::tempdir().unwrap();
            let file = Footer::open(&file(folder.path(), properties, &all)).unwrap();
            let schema = all.schema();
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            let mut rng = StdRng::seed_from_u64(2);
            let across = vec![8_990..9_010, 9_500..9_500, 9_999..10_001, 19_999..20_000];
            for ranges in std::iter::once(across).chain((0..100).map(|_| some_rows(&mut rng))) {
                let count: usize = ranges.iter().map(Range::len).sum();
                if count == 0 {
                    continue;
                }
                let got = &file.read_few(&names, &ranges).unwrap()[0];
                let parts: Vec<RecordBatch> =
                    ranges.iter().map(|r| all.slice(r.start, r.len())).collect();
                let want = concat_batches(&schema, &parts).unwrap();
                for name in &names {
                    let read = file.points(name, &ranges).unwrap();
                    assert!(read.is_some(), "{name} with properties {number}");
                    for column in [read.as_ref(), got.column_by_name(name)] {
                        let flat = |array: &ArrayRef| match array.data_type() {
                            DataType::Dictionary(_, value) => cast(array, value).unwrap(),
                            _ => array.clone(),
                        };
                        let want = flat(want.column_by_name(name).unwrap());
                        assert_eq!(&flat(column.unwrap()), &want, "{name} of {ranges:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_known_is_left_to_the_parquet_crate() {
        let all = batch(1);
        let folder = tempfile::tempdir().unwrap();
        let delta = columnar::delta(columnar::properties(), "duration");
        let file = Footer::open(&file(folder.path(), delta, &all)).unwrap();
        assert!(file.points("duration", &[3..5]).unwrap().is_none());
        let read = file.read_few(&["duration", "route"], &[3..5]).unwrap();
        let got = read[0].column_by_name("duration").unwrap();
        assert_eq!(got, &all.column_by_name("duration").unwrap().slice(3, 2));
        assert_eq!(read[0].column_by_name("route").unwrap().as_string::<i32>().len(), 2);
    }

    #[test]
    fn damaged_pages_are_an_error_or_other_rows_and_never_a_panic() {
        let all = batch(1);
        let folder = tempfile::tempdir().unwrap();
        let plain = split().set_compression(parquet::basic::Compression::UNCOMPRESSED);
        let path = file(folder.path(), plain, &all);
        let sound = std::fs::read(&path).unwrap();
        let mut rng = StdRng::seed_from_u64(3);
        for _ in 0..300 {
            let mut bytes = sound.clone();
            for _ in 0..200 {
                // Not the footer, which has a test of its own.
                let at = rng.random_range(4..bytes.len() * 3 / 4);
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            std::fs::write(&path, bytes).unwrap();
            let file = Footer::open(&path).unwrap();
            let rows = some_rows(&mut rng);
            for field in all.schema().fields() {
                let _ = file.points(field.name(), &rows);
            }
        }
    }
}
