//! Plain column builders that batches are made of: decoded data sits in these until it is sealed.

use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Variable-length byte strings, end to end in one buffer: row `i` is `data[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone)]
pub struct BytesColumn {
    offsets: Vec<u32>,
    data: Vec<u8>,
}

impl Default for BytesColumn {
    fn default() -> Self {
        Self { offsets: vec![0], data: Vec::new() }
    }
}

impl BytesColumn {
    /// An empty column with room for so many rows and their bytes.
    pub fn with_room(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, data: Vec::with_capacity(bytes) }
    }

    pub fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.end_row();
    }

    /// The buffer of the row being written; close the row with [`end_row`](Self::end_row).
    pub fn open_row(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    pub fn end_row(&mut self) {
        self.offsets.push(u32::try_from(self.data.len()).expect("a batch is under 4 GiB"));
    }

    /// Drops what was written to the open row.
    pub fn abandon_row(&mut self) {
        self.data.truncate(self.offsets[self.offsets.len() - 1] as usize);
    }

    pub fn get(&self, row: usize) -> &[u8] {
        // Many columns hold nothing at all: their offsets need not be fetched.
        if self.data.is_empty() {
            return &[];
        }
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// Row as text; batches hold only valid UTF-8 in text columns, so the fallback is never seen.
    pub fn text(&self, row: usize) -> &str {
        std::str::from_utf8(self.get(row)).unwrap_or("\u{fffd}")
    }

    /// Adds all rows of another column.
    pub fn append(&mut self, other: &Self) {
        let base = self.data.len() as u32;
        self.data.extend_from_slice(&other.data);
        self.offsets.extend(other.offsets[1..].iter().map(|offset| base + offset));
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.offsets.capacity() * 4 + self.data.capacity()
    }

    pub fn shrink_to_fit(&mut self) {
        fit(&mut self.offsets);
        fit(&mut self.data);
    }
}

/// Moves items to a block of their size. `shrink_to_fit` leaves them where they are while they fill half of the block,
/// and what is hot would take a third more than is counted.
pub fn fit<T: Copy>(items: &mut Vec<T>) {
    if items.capacity() - items.len() > items.len() / 8 {
        *items = items.as_slice().to_vec();
    }
}

/// Repeating text: row `i` is `values[codes[i]]`.
#[derive(Debug, Clone, Default)]
pub struct DictColumn {
    codes: Vec<u32>,
    values: Vec<Arc<str>>,
    lookup: FxHashMap<Arc<str>, u32>,
}

impl DictColumn {
    pub fn push(&mut self, value: &str) {
        // Neighbouring rows mostly agree: a comparison is cheaper than a hash.
        let code = match self.codes.last() {
            Some(&last) if *self.values[last as usize] == *value => last,
            _ => self.code(value),
        };
        self.codes.push(code);
    }

    fn code(&mut self, value: &str) -> u32 {
        match self.lookup.get(value) {
            Some(&code) => code,
            None => {
                let code = self.values.len() as u32;
                let value: Arc<str> = value.into();
                self.values.push(value.clone());
                self.lookup.insert(value, code);
                code
            }
        }
    }

    /// Adds all rows of another column.
    pub fn append(&mut self, other: &Self) {
        let codes: Vec<u32> = other.values.iter().map(|value| self.code(value)).collect();
        self.codes.extend(other.codes.iter().map(|code| codes[*code as usize]));
    }

    pub fn get(&self, row: usize) -> &Arc<str> {
        &self.values[self.codes[row] as usize]
    }

    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// Distinct values, in order of first appearance.
    pub fn values(&self) -> &[Arc<str>] {
        &self.values
    }

    pub fn code_of(&self, value: &str) -> Option<u32> {
        self.lookup.get(value).copied()
    }

    pub fn len(&self) -> usize {
        self.codes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// Heap bytes held, dictionary included (estimate for the hash table).
    pub fn heap_bytes(&self) -> usize {
        let text: usize = self.values.iter().map(|v| v.len() + 16).sum();
        self.codes.capacity() * 4 + text + self.values.capacity() * 40
    }
}
