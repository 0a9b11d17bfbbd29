//! A sealed Parquet file: what its footer says, and rows on demand.

use crate::columnar::{
    ATTRIBUTE_PREFIX, KEYS_TEXT, KeyTypes, ScalarType, arrow_error, parquet_error,
};
use crate::kept::{HeapBytes, Kept};
use crate::pages::{Offsets, Pages};
use crate::points::{self, GroupRows};
use arrow::array::{Array, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedRowGroupWriter;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Rows of a batch as it is read.
const BATCH_ROWS: usize = 8192;

/// Up to so many rows are looked up one by one.
const FEW_ROWS: usize = 1024;

/// Number of the next file that is opened.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Judges the rows of a batch.
pub type Passes = Box<dyn FnMut(&RecordBatch) -> io::Result<BooleanArray> + Send>;

/// A condition on rows, see [`ParquetFile::read_if`].
pub struct Test {
    /// Columns it looks at; those that the file does not have are missing from its batches.
    pub columns: Vec<String>,
    /// Which rows of a batch pass.
    pub passes: Passes,
}

/// A sealed Parquet file. Its footer is in memory while it is asked for.
#[derive(Debug)]
pub struct ParquetFile {
    path: PathBuf,
    /// Tells it from other files.
    number: u64,
    rows: usize,
    footer: Kept<Footer>,
}

impl ParquetFile {
    /// Reads the footer.
    pub fn open(path: &Path) -> io::Result<Self> {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let footer = Kept::new();
        let rows = footer.get_or_read(|| Footer::read_from(path, number))?.rows();
        Ok(Self { path: path.to_owned(), number, rows, footer })
    }

    /// What the footer says, and rows by it.
    pub fn footer(&self) -> io::Result<Arc<Footer>> {
        self.footer.get_or_read(|| Footer::read_from(&self.path, self.number))
    }

    /// Does not keep the footer until it is asked for again.
    pub fn forget_footer(&self) {
        self.footer.forget();
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// See [`Footer::read`].
    pub fn read(&self, columns: &[&str], rows: Option<&[Range<usize>]>) -> io::Result<Rows> {
        self.footer()?.read(columns, rows)
    }
}

impl HeapBytes for Footer {
    /// Where its pages lie, which is read later, is taken for as much as the rest.
    fn heap_bytes(&self) -> usize {
        self.metadata.metadata().memory_size() * 2
    }
}

/// A file as its footer describes it; where its pages lie is read when rows are first asked for.
#[derive(Debug)]
pub struct Footer {
    path: PathBuf,
    /// Tells it from other files, see [`Pages`].
    number: u64,
    metadata: ArrowReaderMetadata,
    offsets: OnceLock<Arc<Offsets>>,
}

impl Footer {
    /// Reads the footer of a file that is used once.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::read_from(path, NEXT_NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    fn read_from(path: &Path, number: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        // A flipped bit in the schema makes the `arrow-ipc` crate panic, which must not keep a server from starting.
        let loaded = catch_unwind(|| ArrowReaderMetadata::load(&file, options));
        let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "the footer is damaged");
        let metadata = loaded.map_err(damaged)?.map_err(parquet_error)?;
        Ok(Self { path: path.to_owned(), number, metadata, offsets: OnceLock::new() })
    }

    /// Where pages lie.
    fn offsets(&self, file: &File) -> io::Result<&Arc<Offsets>> {
        if let Some(offsets) = self.offsets.get() {
            return Ok(offsets);
        }
        let metadata = self.metadata.metadata();
        let offsets = if metadata.num_row_groups() == 0 {
            Offsets::new()
        } else {
            let mut reader = ParquetMetaDataReader::new_with_metadata((**metadata).clone())
                .with_column_index_policy(PageIndexPolicy::Skip)
                .with_offset_index_policy(PageIndexPolicy::Required);
            reader.read_page_indexes(file).map_err(parquet_error)?;
            let mut read = reader.finish().map_err(parquet_error)?.into_builder();
            read.take_offset_index().ok_or_else(|| self.damaged("holds no offset index"))?
        };
        // Of two threads that read it at once one copy is kept.
        Ok(self.offsets.get_or_init(|| Arc::new(offsets)))
    }

    fn damaged(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} {what}", self.path.display()))
    }

    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    pub fn rows(&self) -> usize {
        self.metadata.metadata().file_metadata().num_rows().max(0) as usize
    }

    /// The row groups in row order.
    pub fn groups(&self) -> impl Iterator<Item = RowGroup<'_>> {
        let mut start = 0;
        self.metadata.metadata().row_groups().iter().map(move |metadata| {
            let rows = start..start + metadata.num_rows().max(0) as usize;
            start = rows.end;
            RowGroup { rows, metadata }
        })
    }

    /// Text that the writer left in the footer under `key`, see [`with_text`].
    pub fn text(&self, key: &str) -> Option<&str> {
        let pairs = self.metadata.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }

    /// All attribute keys of the rows, with their types.
    pub fn key_types(&self) -> KeyTypes {
        match self.text(KEYS_TEXT) {
            Some(text) => KeyTypes::from_text(text),
            None => {
                let mut keys = KeyTypes::default();
                self.attribute_keys().for_each(|(key, scalar)| keys.add(key, Some(scalar)));
                keys
            }
        }
    }

    /// Typed attribute columns of this file.
    pub fn attribute_keys(&self) -> impl Iterator<Item = (&str, ScalarType)> {
        self.schema().fields().iter().filter_map(|field| {
            let key = field.name().strip_prefix(ATTRIBUTE_PREFIX)?;
            Some((key, ScalarType::from_arrow(field.data_type())?))
        })
    }

    /// Streams the named columns (those the file has) of all or the selected rows.
    ///
    /// * `rows`: row ranges in ascending order, none into another; `None` is all.
    ///
    /// # Errors
    /// `InvalidData` for ranges that are not so or leave the file, as a damaged index would give them.
    pub fn read(&self, columns: &[&str], rows: Option<&[Range<usize>]>) -> io::Result<Rows> {
        self.read_by(columns, rows, BATCH_ROWS)
    }

    /// Like [`read`](Self::read), in batches of exactly `batch_rows` rows but for the last.
    pub fn read_by(
        &self,
        columns: &[&str],
        rows: Option<&[Range<usize>]>,
        batch_rows: usize,
    ) -> io::Result<Rows> {
        let (groups, selection) = self.select(rows)?;
        let file = Arc::new(File::open(&self.path)?);
        self.rows_of(&file, self.numbers_of(columns), &groups, selection, batch_rows)
    }

    /// Like [`read`](Self::read), for few rows of many columns; up to [`FEW_ROWS`] come as one batch.
    pub fn read_few(
        &self,
        columns: &[&str],
        rows: &[Range<usize>],
    ) -> io::Result<Vec<RecordBatch>> {
        let places = self.places(rows)?;
        let count = places.iter().flat_map(|place| &place.rows).map(Range::len).sum();
        if count == 0 || count > FEW_ROWS {
            let batches = self.read(columns, Some(rows))?;
            return batches.map(|batch| batch.map_err(arrow_error)).collect();
        }
        let groups: Vec<usize> = places.iter().map(|place| place.group).collect();
        let file = Arc::new(File::open(&self.path)?);
        let pages = self.pages(&file, &groups)?;
        let schema = self.schema();
        let columns = self.numbers_of(columns);
        let look_up = |column: &usize| {
            let data_type = schema.field(*column).data_type();
            if self.has_values(*column, &groups) {
                points::read(&pages, *column, data_type, &places)
            } else {
                Some(new_null_array(data_type, count))
            }
        };
        let arrays: Vec<_> = columns.iter().map(look_up).collect();
        let missing = columns.iter().zip(&arrays).filter(|(_, array)| array.is_none());
        let missing: Vec<usize> = missing.map(|(column, _)| *column).collect();
        let mut others = Vec::new().into_iter();
        if !missing.is_empty() {
            let selection = Some(self.selection(&places));
            let mut rest = self.rows_of(&file, missing, &groups, selection, count)?;
            let batch = rest.next().ok_or_else(|| self.damaged("ends too early"))?;
            others = batch.map_err(arrow_error)?.columns().to_vec().into_iter();
        }
        let arrays = arrays.into_iter().filter_map(|array| array.or_else(|| others.next()));
        let fields = Arc::new(schema.project(&columns).map_err(arrow_error)?);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(fields, arrays.collect(), &options);
        Ok(vec![batch.map_err(arrow_error)?])
    }

    /// Like [`read`](Self::read), but only those rows that pass all tests. A test reads its columns only of rows that
    /// passed the ones before, so the cheapest and strictest comes first.
    pub fn read_if(
        &self,
        columns: &[&str],
        rows: Option<&[Range<usize>]>,
        tests: Vec<Test>,
    ) -> io::Result<Rows> {
        let (groups, mut selection) = self.select(rows)?;
        let file = Arc::new(File::open(&self.path)?);
        for Test { columns, mut passes } in tests {
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            let mut passed = Vec::new();
            let tested = self.numbers_of(&columns);
            for batch in self.rows_of(&file, tested, &groups, selection.clone(), BATCH_ROWS)? {
                let outcome = passes(&batch.map_err(arrow_error)?)?;
                // What is not known does not pass.
                passed.push(match outcome.null_count() {
                    0 => outcome,
                    _ => prep_null_mask_filter(&outcome),
                });
            }
            let passed = RowSelection::from_filters(&passed);
            if !passed.selects_any() {
                return Ok(Rows::none());
            }
            selection = Some(match selection {
                Some(selection) => selection.and_then(&passed),
                None => passed,
            });
        }
        self.rows_of(&file, self.numbers_of(columns), &groups, selection, BATCH_ROWS)
    }

    /// Rows of a column that [`points`] can read.
    #[cfg(test)]
    pub fn points(
        &self,
        name: &str,
        rows: &[Range<usize>],
    ) -> io::Result<Option<arrow::array::ArrayRef>> {
        let places = self.places(rows)?;
        let groups: Vec<usize> = places.iter().map(|place| place.group).collect();
        let pages = self.pages(&Arc::new(File::open(&self.path)?), &groups)?;
        let found = self.schema().fields().find(name);
        Ok(found
            .and_then(|(column, field)| points::read(&pages, column, field.data_type(), &places)))
    }

    fn pages(&self, file: &Arc<File>, groups: &[usize]) -> io::Result<Pages> {
        Ok(Pages {
            file: file.clone(),
            number: self.number,
            metadata: self.metadata.metadata().clone(),
            offsets: self.offsets(file)?.clone(),
            groups: groups.to_vec(),
        })
    }

    /// Numbers of the columns of these names that the file has, ascending.
    fn numbers_of(&self, names: &[&str]) -> Vec<usize> {
        let fields = self.schema().fields();
        let mut numbers: Vec<usize> =
            names.iter().filter_map(|name| Some(fields.find(name)?.0)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Rows of some row groups.
    ///
    /// * `all`: numbers of columns, ascending.
    fn rows_of(
        &self,
        file: &Arc<File>,
        all: Vec<usize>,
        groups: &[usize],
        selection: Option<RowSelection>,
        batch_rows: usize,
    ) -> io::Result<Rows> {
        let schema = self.schema();
        // Columns without a value in these groups need not be read; but one gives the number of rows.
        let mut read: Vec<usize> =
            all.iter().copied().filter(|column| self.has_values(*column, groups)).collect();
        if read.is_empty() {
            read = all.clone();
        }
        let leaves = self.metadata.parquet_schema();
        let mask = ProjectionMask::roots(leaves, read.iter().copied());
        let levels = parquet_to_arrow_field_levels(leaves, mask, Some(schema.fields()))
            .map_err(parquet_error)?;
        // Readers make room for a whole batch in every column.
        let rows = selection.as_ref().map_or(batch_rows, RowSelection::row_count);
        let pages = self.pages(file, groups)?;
        let reader = ParquetRecordBatchReader::try_new_with_row_groups(
            &levels,
            &pages,
            batch_rows.min(rows.max(1)),
            selection,
        );
        let reader = reader.map_err(parquet_error)?;
        let whole = (all.len() > read.len())
            .then(|| schema.project(&all).map(Arc::new))
            .transpose()
            .map_err(arrow_error)?;
        Ok(Rows { reader: Some(reader), whole })
    }

    /// Row groups that hold some of the rows, and which rows of them.
    fn select(
        &self,
        rows: Option<&[Range<usize>]>,
    ) -> io::Result<(Vec<usize>, Option<RowSelection>)> {
        let Some(ranges) = rows else {
            return Ok(((0..self.metadata.metadata().num_row_groups()).collect(), None));
        };
        // Leaving out whole row groups spares their dictionary pages.
        let places = self.places(ranges)?;
        let selection = self.selection(&places);
        Ok((places.into_iter().map(|place| place.group).collect(), Some(selection)))
    }

    /// Row groups that hold some of the rows, and these.
    fn places(&self, ranges: &[Range<usize>]) -> io::Result<Vec<GroupRows>> {
        self.check_ranges(ranges)?;
        let (mut places, mut next) = (Vec::new(), 0);
        for (number, group) in self.groups().enumerate() {
            next += ranges[next..].iter().take_while(|r| r.end <= group.rows.start).count();
            let rows: Vec<Range<usize>> = ranges[next..]
                .iter()
                .take_while(|r| r.start < group.rows.end)
                .map(|r| r.start.max(group.rows.start)..r.end.min(group.rows.end))
                .filter(|r| !r.is_empty())
                .map(|r| r.start - group.rows.start..r.end - group.rows.start)
                .collect();
            if !rows.is_empty() {
                places.push(GroupRows { group: number, rows });
            }
        }
        Ok(places)
    }

    /// The same for the `parquet` crate, which counts through the groups that are read.
    fn selection(&self, places: &[GroupRows]) -> RowSelection {
        let (mut base, mut ranges) = (0, Vec::new());
        for place in places {
            ranges.extend(place.rows.iter().map(|r| base + r.start..base + r.end));
            base += self.metadata.metadata().row_group(place.group).num_rows().max(0) as usize;
        }
        RowSelection::from_consecutive_ranges(ranges.into_iter(), base)
    }

    /// Whether a column has a dictionary wherever it has values.
    pub fn has_dictionary(&self, column: &str) -> bool {
        self.groups().filter(|group| group.values(column) != Some(0)).all(|group| {
            group.chunk(column).is_none_or(|chunk| chunk.dictionary_page_offset().is_some())
        })
    }

    /// Whether a column may have a value in one of the row groups.
    fn has_values(&self, column: usize, groups: &[usize]) -> bool {
        let leaves = self.metadata.parquet_schema();
        let leaf =
            (0..leaves.num_columns()).find(|leaf| leaves.get_column_root_idx(*leaf) == column);
        let Some(leaf) = leaf.filter(|leaf| leaves.column(*leaf).path().parts().len() == 1) else {
            return true;
        };
        groups.iter().any(|group| {
            let metadata = self.metadata.metadata().row_group(*group);
            let statistics = metadata.column(leaf).statistics();
            let nulls = statistics.and_then(|statistics| statistics.null_count_opt());
            nulls != Some(metadata.num_rows() as u64)
        })
    }

    /// Opens the file for [`copy_chunk`](Self::copy_chunk).
    pub fn bytes(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Writes a column of a row group as it stands to another file.
    ///
    /// * `column`: by its number among the columns.
    pub fn copy_chunk<W: Write + Send>(
        &self,
        bytes: &File,
        group: usize,
        column: usize,
        out: &mut SerializedRowGroupWriter<'_, W>,
    ) -> io::Result<()> {
        let metadata = self.metadata.metadata();
        let chunk = metadata.row_group(group).column(column);
        let offsets = self.offsets(bytes)?.get(group).and_then(|columns| columns.get(column));
        let close = ColumnCloseResult {
            bytes_written: chunk.compressed_size() as u64,
            rows_written: metadata.row_group(group).num_rows() as u64,
            metadata: chunk.clone(),
            bloom_filter: None,
            column_index: None,
            offset_index: offsets.cloned(),
        };
        out.append_column(bytes, close).map_err(parquet_error)
    }

    fn check_ranges(&self, ranges: &[Range<usize>]) -> io::Result<()> {
        let mut end = 0;
        for range in ranges {
            if range.start < end || range.end < range.start || range.end > self.rows() {
                let path = self.path.display();
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("rows {range:?} can't be read from {path}, which has {}", self.rows()),
                ));
            }
            end = range.end;
        }
        Ok(())
    }
}

/// Batches of rows as they are read.
pub struct Rows {
    reader: Option<ParquetRecordBatchReader>,
    /// Columns to be, when some of them are not read because no row has a value.
    whole: Option<SchemaRef>,
}

impl Rows {
    fn none() -> Self {
        Self { reader: None, whole: None }
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.as_mut()?.next()?;
        Some(match &self.whole {
            None => batch,
            Some(schema) => batch.and_then(|batch| with_nulls(&batch, schema)),
        })
    }
}

/// The batch with all columns of `schema`; those that it does not have are null.
fn with_nulls(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => column.clone(),
        None => new_null_array(field.data_type(), batch.num_rows()),
    });
    RecordBatch::try_new(schema.clone(), columns.collect())
}

/// A slice of a file that is read on its own.
#[derive(Debug)]
pub struct RowGroup<'a> {
    /// Its rows within the file.
    pub rows: Range<usize>,
    metadata: &'a RowGroupMetaData,
}

impl RowGroup<'_> {
    fn chunk(&self, column: &str) -> Option<&ColumnChunkMetaData> {
        let named = |chunk: &&ColumnChunkMetaData| *chunk.column_path().parts() == [column];
        self.metadata.columns().iter().find(named)
    }

    /// Rows that have a value in a column; `None` when the footer does not say.
    pub fn values(&self, column: &str) -> Option<u64> {
        let chunk = self.chunk(column)?;
        Some(self.metadata.num_rows() as u64 - chunk.statistics()?.null_count_opt()?)
    }

    /// Smallest and largest value of a 64-bit integer or time column, from the footer.
    pub fn bounds(&self, column: &str) -> Option<(u64, u64)> {
        match self.chunk(column)?.statistics()? {
            Statistics::Int64(s) => Some((*s.min_opt()? as u64, *s.max_opt()? as u64)),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "rows are given as ranges")]
pub mod tests {
    use super::*;
    use crate::columnar::{self, dictionary};
    use crate::segment::SegmentDir;
    use crate::signal::Signal;
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::Int64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    const ROWS: usize = 20_000;
    const GROUP: usize = 9_000;

    /// Three row groups; `late` has values in the last one only, `never` in none.
    pub fn file(folder: &Path) -> PathBuf {
        let dir = SegmentDir::new(folder.join("segments"), 1).unwrap();
        let rows = 0..ROWS as i64;
        let code = |row: i64| (row % 7 != 0).then_some((row % 40) as i32);
        let late = |row: i64| (row as usize >= 2 * GROUP).then_some(row * 3);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("number", Arc::new(rows.clone().map(|row| row * row).collect::<Int64Array>())),
            ("late", Arc::new(rows.clone().map(late).collect::<Int64Array>())),
            ("never", Arc::new(StringArray::new_null(ROWS))),
            (
                "text",
                Arc::new(
                    rows.clone().map(|row| Some(format!("row {row}"))).collect::<StringArray>(),
                ),
            ),
            (
                "code",
                dictionary(rows.map(code).collect(), (0..40).map(|n| n.to_string()).collect()),
            ),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = columnar::delta(columnar::properties(), "number")
            .set_max_row_group_row_count(Some(GROUP))
            .build();
        let out = dir.create(Signal::Spans, 0, 1, "parquet").unwrap();
        columnar::write(out, &[batch], properties).unwrap();
        dir.path(Signal::Spans, 0, 1, "parquet")
    }

    #[test]
    fn rows_are_those_that_the_parquet_crate_reads_whatever_is_selected() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        let all: Vec<RecordBatch> = reader.build().unwrap().collect::<Result<_, _>>().unwrap();
        let all = concat_batches(&all[0].schema(), &all).unwrap();
        let file = Footer::open(&path).unwrap();
        let names = ["text", "number", "late", "never", "code"];
        let selections: [&[Range<usize>]; 6] = [
            &[0..ROWS],
            &[5..6],
            &[4_095..4_097, 8_999..9_001, 12_000..12_000, 17_999..18_002],
            &[0..3, 3..4, 19_999..20_000],
            &[18_000..20_000],
            &[],
        ];
        // Twice, the second time with dictionaries that are remembered.
        for ranges in selections.into_iter().chain(selections) {
            let batches = file.read(&names, Some(ranges)).unwrap();
            let batches: Vec<RecordBatch> = batches.collect::<Result<_, _>>().unwrap();
            let few = file.read_few(&names, ranges).unwrap();
            let parts: Vec<RecordBatch> =
                ranges.iter().map(|range| all.slice(range.start, range.len())).collect();
            let want = concat_batches(&all.schema(), &parts).unwrap();
            for batches in [batches, few] {
                let got = match batches.first() {
                    Some(first) => concat_batches(&first.schema(), &batches).unwrap(),
                    None => RecordBatch::new_empty(all.schema()),
                };
                assert_eq!(got.num_rows(), want.num_rows(), "{ranges:?}");
                for row in 0..want.num_rows() {
                    assert_eq!(shown(&got, row), shown(&want, row), "row {row} of {ranges:?}");
                }
            }
        }
        let whole: usize =
            file.read_by(&["never"], None, 4_096).unwrap().map(|b| b.unwrap().num_rows()).sum();
        assert_eq!(whole, ROWS);
    }

    #[test]
    fn a_flipped_bit_in_the_footer_is_an_error_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let sound = std::fs::read(&path).unwrap();
        let footer = u32::from_le_bytes(*sound[..sound.len() - 4].last_chunk().unwrap()) as usize;
        let broken = folder.path().join("broken.parquet");
        let mut failed = 0;
        for at in (sound.len() - 8 - footer..sound.len()).step_by(3) {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&broken, bytes).unwrap();
            failed += u32::from(Footer::open(&broken).is_err());
        }
        assert!(failed > 0);
    }

    fn shown(batch: &RecordBatch, row: usize) -> Vec<String> {
        let options = arrow::util::display::FormatOptions::default();
        let shown = |column: &ArrayRef| {
            let formatter =
                arrow::util::display::ArrayFormatter::try_new(column, &options).unwrap();
            formatter.value(row).to_string()
        };
        ["number", "late", "never", "text", "code"]
            .into_iter()
            .map(|name| shown(batch.column_by_name(name).unwrap()))
            .collect()
    }

    #[test]
    fn a_footer_that_was_forgotten_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let file = ParquetFile::open(&path).unwrap();
        let first = file.footer().unwrap();
        assert!(Arc::ptr_eq(&first, &file.footer().unwrap()));
        drop(first);
        file.forget_footer();
        std::fs::remove_file(&path).unwrap();
        assert!(file.footer().is_err(), "it is read again");
    }

    #[test]
    fn tests_see_only_the_rows_that_passed_the_ones_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = Footer::open(&file(folder.path())).unwrap();
        let number = |batch: &RecordBatch| -> Vec<i64> {
            let column = batch.column_by_name("number").unwrap();
            column.as_primitive::<Int64Type>().values().to_vec()
        };
        let test = |passes: fn(i64) -> bool| Test {
            columns: vec!["number".into()],
            passes: Box::new(move |batch| {
                let numbers = number(batch);
                Ok(numbers.into_iter().map(|n| Some(passes(n))).collect())
            }),
        };
        let ranges = [8_000..19_000];
        let tests = vec![test(|n| n % 2 == 0), test(|n| n % 2 == 0 && n % 3 == 0)];
        let read = file.read_if(&["number"], Some(&ranges), tests).unwrap();
        let got: Vec<i64> = read.flat_map(|batch| number(&batch.unwrap())).collect();
        let want: Vec<i64> = (8_000..19_000).filter(|n| n % 6 == 0).map(|n| n * n).collect();
        assert_eq!(got, want);
        let none = file.read_if(&["number"], Some(&ranges), vec![test(|_| false)]).unwrap();
        assert_eq!(none.count(), 0);
    }
}
