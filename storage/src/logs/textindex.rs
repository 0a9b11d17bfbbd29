//! The full-text index of a segment: tantivy, a document per block of rows.
//!
//! A document per row costs more than everything else in a segment together; a document per block tells which blocks
//! can hold a word, and their rows are then looked at. Two fields, postings only: `word` holds the folded words,
//! `number` holds each variable word (see [`super::tokens`]) as a hash in a few bits, so that ids, of which nearly
//! every row brings a new one, cost a bit or two each instead of a dictionary entry.
//!
//! `<id>.idx` holds tantivy's files end to end, then a JSON list of their names and places, its length (u32,
//! little-endian) and `TREFIDX1`: one file to sync, rename and check.

use super::filter::{Field, LogFilter};
use super::tokens::{self, Needle};
use crate::kept::HeapBytes;
use roaring::RoaringBitmap;
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    Directory, DirectoryLock, FileHandle, FileSlice, Lock, OwnedBytes, RamDirectory, WatchCallback,
    WatchHandle, WritePtr,
};
use tantivy::indexer::SingleSegmentIndexWriter;
use tantivy::schema::{INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::{
    DocSet as _, HasLen, Index, IndexSettings, SegmentReader, TERMINATED, TantivyDocument, Term,
};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 8] = *b"TREFIDX1";

/// tantivy's own lower bound for its arena is 15 MB; a segment's index stays far below.
const WRITER_BYTES: usize = 16_000_000;

/// What follows tantivy's files.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    /// Number of values of the `number` field.
    buckets: u64,
    /// Name, first byte, length.
    files: Vec<(String, u64, u64)>,
}

fn schema() -> Schema {
    let mut schema = Schema::builder();
    let words = TextFieldIndexing::default()
        .set_tokenizer("whitespace")
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic);
    schema.add_text_field("word", TextOptions::default().set_indexing_options(words));
    schema.add_u64_field("number", INDEXED);
    schema.build()
}

/// Builds the index of one segment, block by block.
pub struct TextIndexWriter {
    writer: SingleSegmentIndexWriter,
    directory: RamDirectory,
    word: tantivy::schema::Field,
    number: tantivy::schema::Field,
    buckets: u64,
    /// Words of the open block, folded, each once, with a space after each.
    words: String,
    seen: FxHashSet<Box<str>>,
    /// Buckets of the open block: a bit for each, and a list.
    bits: Vec<u64>,
    numbers: Vec<u64>,
}

impl TextIndexWriter {
    /// * `rows`: about how many the segment will have; decides how finely variable words are told apart.
    pub fn new(rows: usize) -> io::Result<Self> {
        let schema = schema();
        let directory = RamDirectory::create();
        let (word, number) = fields(&schema)?;
        let writer = Index::builder()
            .schema(schema)
            .settings(IndexSettings {
                docstore_compress_dedicated_thread: false,
                ..IndexSettings::default()
            })
            .single_segment_index_writer(directory.clone(), WRITER_BYTES)
            .map_err(tantivy_error)?;
        // 8,192 values already halve a block of 4,096 rows; beyond 262,144 their own dictionary would weigh more.
        let buckets = (rows as u64 / 8).next_power_of_two().clamp(1 << 13, 1 << 18);
        Ok(Self {
            writer,
            directory,
            word,
            number,
            buckets,
            words: String::new(),
            seen: FxHashSet::default(),
            bits: vec![0; (buckets / 64) as usize],
            numbers: Vec::new(),
        })
    }

    /// Adds a folded word that is not variable.
    pub fn add_word(&mut self, word: &str) {
        if !self.seen.contains(word) {
            self.seen.insert(word.into());
            self.words.push_str(word);
            self.words.push(' ');
        }
    }

    /// Adds a variable word, folded.
    pub fn add_variable(&mut self, word: &str) {
        let bucket = bucket_of(word, self.buckets);
        let (at, bit) = ((bucket / 64) as usize, 1 << (bucket % 64));
        if self.bits[at] & bit == 0 {
            self.bits[at] |= bit;
            self.numbers.push(bucket);
        }
    }

    /// Adds all words of a text.
    pub fn add_text(&mut self, text: &str) {
        for word in tokens::words(text) {
            let variable = tokens::is_variable(word);
            let word = tokens::fold(word);
            if variable { self.add_variable(&word) } else { self.add_word(&word) }
        }
    }

    /// Adds the variable words of a text only.
    pub fn add_variables(&mut self, text: &str) {
        for word in tokens::variable_words(text) {
            self.add_variable(&tokens::fold(word));
        }
    }

    /// Closes the open block; blocks are numbered from 0.
    pub fn end_block(&mut self) -> io::Result<()> {
        let mut document = TantivyDocument::new();
        document.add_text(self.word, &self.words);
        for number in self.numbers.drain(..) {
            document.add_u64(self.number, number);
        }
        self.words.clear();
        self.seen.clear();
        self.bits.fill(0);
        self.writer.add_document(document).map_err(tantivy_error)
    }

    /// Writes the bundle.
    pub fn finish(self, out: &mut impl Write) -> io::Result<()> {
        let index = self.writer.finalize().map_err(tantivy_error)?;
        let mut names: Vec<PathBuf> = index.directory().list_managed_files().into_iter().collect();
        names.sort_unstable();
        let mut contents = Contents { buckets: self.buckets, files: Vec::new() };
        let mut offset = 0;
        for name in names {
            // tantivy reads only these two outside of its segment files whole.
            let bytes = match self.directory.get_file_handle(&name) {
                Ok(handle) => handle.read_bytes(0..handle.len())?,
                Err(OpenReadError::FileDoesNotExist(_)) => continue,
                Err(error) => return Err(io::Error::other(error)),
            };
            out.write_all(&bytes)?;
            let len = bytes.len() as u64;
            contents.files.push((name.to_string_lossy().into_owned(), offset, len));
            offset += len;
        }
        let list = serde_json::to_vec(&contents)?;
        out.write_all(&list)?;
        out.write_all(&(list.len() as u32).to_le_bytes())?;
        out.write_all(&MAGIC)
    }
}

fn fields(schema: &Schema) -> io::Result<(tantivy::schema::Field, tantivy::schema::Field)> {
    Ok((
        schema.get_field("word").map_err(tantivy_error)?,
        schema.get_field("number").map_err(tantivy_error)?,
    ))
}

fn bucket_of(word: &str, buckets: u64) -> u64 {
    xxh3_64(word.as_bytes()) & (buckets - 1)
}

fn tantivy_error(error: tantivy::TantivyError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("text index: {reason}"))
}

/// An open index. Its dictionaries are in memory, its postings are read when they are asked for.
pub struct TextIndex {
    reader: SegmentReader,
    dictionary_bytes: u64,
    word: tantivy::schema::Field,
    number: tantivy::schema::Field,
    buckets: u64,
}

impl std::fmt::Debug for TextIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextIndex").field("blocks", &self.reader.max_doc()).finish()
    }
}

impl HeapBytes for TextIndex {
    fn heap_bytes(&self) -> usize {
        self.dictionary_bytes as usize + (16 << 10)
    }
}

impl TextIndex {
    pub fn open(path: &Path) -> io::Result<Self> {
        let (bundle, buckets) = Bundle::open(path)?;
        let dictionary_bytes = bundle.dictionary_bytes();
        let index = Index::open(bundle).map_err(tantivy_error)?;
        let (word, number) = fields(&index.schema())?;
        let segments = index.searchable_segments().map_err(tantivy_error)?;
        let segment = segments.first().ok_or_else(|| damaged("holds no segment"))?;
        let reader = SegmentReader::open(segment).map_err(tantivy_error)?;
        Ok(Self { reader, dictionary_bytes, word, number, buckets })
    }

    /// Blocks that can hold a matching row; `None` when the index can't tell.
    pub fn candidates(&self, filter: &LogFilter) -> io::Result<Option<RoaringBitmap>> {
        match filter {
            LogFilter::And(all) => {
                let mut kept: Option<RoaringBitmap> = None;
                for filter in all {
                    if let Some(blocks) = self.candidates(filter)? {
                        kept = Some(match kept {
                            Some(kept) => kept & blocks,
                            None => blocks,
                        });
                    }
                }
                Ok(kept)
            }
            LogFilter::Or(any) => {
                let mut all = RoaringBitmap::new();
                for filter in any {
                    match self.candidates(filter)? {
                        Some(blocks) => all |= blocks,
                        None => return Ok(None),
                    }
                }
                Ok(Some(all))
            }
            LogFilter::Words(Field::Body, needle) => self.blocks_with(needle),
            LogFilter::Nothing => Ok(Some(RoaringBitmap::new())),
            _ => Ok(None),
        }
    }

    fn blocks_with(&self, needle: &Needle) -> io::Result<Option<RoaringBitmap>> {
        let mut words = needle.words();
        // Which words a prefix stands for is not indexed for variable words.
        if needle.is_prefix() {
            words = &words[..words.len() - 1];
        }
        let mut kept: Option<RoaringBitmap> = None;
        for word in words {
            let (field, term) = if tokens::is_variable(word) {
                let bucket = bucket_of(word, self.buckets);
                (self.number, Term::from_field_u64(self.number, bucket))
            } else {
                (self.word, Term::from_field_text(self.word, word))
            };
            let mut blocks = RoaringBitmap::new();
            let inverted = self.reader.inverted_index(field).map_err(tantivy_error)?;
            if let Some(mut postings) = inverted.read_postings(&term, IndexRecordOption::Basic)? {
                while postings.doc() != TERMINATED {
                    blocks.insert(postings.doc());
                    postings.advance();
                }
            }
            kept = Some(match kept {
                Some(kept) => kept & blocks,
                None => blocks,
            });
        }
        Ok(kept)
    }
}

/// tantivy's files inside one file, read in place.
#[derive(Debug, Clone)]
struct Bundle {
    file: Arc<File>,
    files: Arc<Vec<(PathBuf, Range<u64>)>>,
}

impl Bundle {
    fn open(path: &Path) -> io::Result<(Self, u64)> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut tail = [0; 12];
        let tail_at = bytes.checked_sub(12).ok_or_else(|| damaged("too short"))?;
        file.read_exact_at(&mut tail, tail_at)?;
        if tail[4..] != MAGIC {
            return Err(damaged("not a text index"));
        }
        let list_bytes = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        let list_at = tail_at.checked_sub(list_bytes).ok_or_else(|| damaged("list too long"))?;
        let mut list = vec![0; list_bytes as usize];
        file.read_exact_at(&mut list, list_at)?;
        let contents: Contents = serde_json::from_slice(&list)?;
        if !contents.buckets.is_power_of_two() {
            return Err(damaged("bucket count is not a power of two"));
        }
        let mut files = Vec::new();
        for (name, offset, len) in contents.files {
            let end = offset.checked_add(len).filter(|end| *end <= list_at);
            files.push((name.into(), offset..end.ok_or_else(|| damaged("file lies outside"))?));
        }
        Ok((Self { file: Arc::new(file), files: Arc::new(files) }, contents.buckets))
    }

    fn dictionary_bytes(&self) -> u64 {
        let is_dictionary = |path: &Path| path.extension().is_some_and(|name| name == "term");
        let dictionaries = self.files.iter().filter(|(path, _)| is_dictionary(path));
        dictionaries.map(|(_, place)| place.end - place.start).sum()
    }

    fn find(&self, path: &Path) -> Option<BundledFile> {
        let (_, place) = self.files.iter().find(|(name, _)| name == path)?;
        Some(BundledFile { file: self.file.clone(), place: place.clone() })
    }
}

#[derive(Debug)]
struct BundledFile {
    file: Arc<File>,
    place: Range<u64>,
}

impl HasLen for BundledFile {
    fn len(&self) -> usize {
        (self.place.end - self.place.start) as usize
    }
}

impl FileHandle for BundledFile {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        if range.start > range.end || range.end > self.len() {
            return Err(damaged("read outside of a file"));
        }
        let mut bytes = vec![0; range.len()];
        self.file.read_exact_at(&mut bytes, self.place.start + range.start as u64)?;
        Ok(OwnedBytes::new(bytes))
    }
}

fn read_only<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a sealed text index can't be written")
}

impl Directory for Bundle {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        match self.find(path) {
            Some(file) => Ok(Arc::new(file)),
            None => Err(OpenReadError::FileDoesNotExist(path.to_owned())),
        }
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        let error = Arc::new(read_only(path));
        Err(DeleteError::IoError { io_error: error, filepath: path.to_owned() })
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        Ok(self.find(path).is_some())
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let error = Arc::new(read_only(path));
        Err(OpenWriteError::IoError { io_error: error, filepath: path.to_owned() })
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let file =
            self.find(path).ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))?;
        let bytes = FileSlice::new(Arc::new(file)).read_bytes();
        let bytes = bytes.map_err(|error| OpenReadError::wrap_io_error(error, path.to_owned()))?;
        Ok(bytes.as_slice().to_vec())
    }

    fn atomic_write(&self, path: &Path, _data: &[u8]) -> io::Result<()> {
        Err(read_only(path))
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn acquire_lock(&self, _lock: &Lock) -> Result<DirectoryLock, LockError> {
        // Nothing is ever written, so there is nothing to guard.
        Ok(DirectoryLock::from(Box::new(())))
    }

    fn watch(&self, _callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}
