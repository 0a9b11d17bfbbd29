//! Shapes of rows: the keys and types of their attributes, in the order sent.
//!
//! Rows made by one line of a program have the same shape. What there is to know of a key (its column, its type) is
//! worked out once for each shape; a row's shape is hashed once, when it comes in.

use crate::attributes::{self, Raw};
use crate::columnar::{KeyTypes, ScalarType};
use crate::columns::{BytesColumn, fit};
use crate::resource::Resource;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::hash::Hasher as _;
use std::sync::Arc;

/// Shapes remembered: senders that put IDs into keys must not fill memory.
const SHAPES_MAX: usize = 4096;

/// The attributes of rows: a canonical list each, and the hash of its shape.
#[derive(Debug, Clone, Default)]
pub struct AttributeLists {
    lists: BytesColumn,
    shapes: Vec<u64>,
}

/// The attributes of one row.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Canonical attribute list.
    pub list: &'a [u8],
    /// Hash of its shape. Two shapes may share one: whoever relies on it looks at the keys, too.
    pub shape: u64,
}

impl AttributeLists {
    /// Empty lists with room for so many rows and their bytes.
    pub fn with_room(rows: usize, bytes: usize) -> Self {
        Self { lists: BytesColumn::with_room(rows, bytes), shapes: Vec::with_capacity(rows) }
    }

    /// The list of the row being written; close the row with [`end_row`](Self::end_row).
    pub fn open_row(&mut self) -> &mut Vec<u8> {
        self.lists.open_row()
    }

    pub fn end_row(&mut self) {
        self.lists.end_row();
        self.shapes.push(hash_of(self.lists.get(self.lists.len() - 1)));
    }

    /// Drops what was written to the open row.
    pub fn abandon_row(&mut self) {
        self.lists.abandon_row();
    }

    pub fn get(&self, row: usize) -> &[u8] {
        self.lists.get(row)
    }

    pub fn row(&self, row: usize) -> Attributes<'_> {
        Attributes { list: self.lists.get(row), shape: self.shapes[row] }
    }

    pub fn rows(&self) -> impl Iterator<Item = Attributes<'_>> {
        (0..self.shapes.len()).map(|row| self.row(row))
    }

    /// The lists alone.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.lists.iter()
    }

    /// Adds all rows of another column.
    pub fn append(&mut self, other: &Self) {
        self.lists.append(&other.lists);
        self.shapes.extend_from_slice(&other.shapes);
    }

    /// Bytes of all lists.
    pub fn bytes(&self) -> usize {
        self.lists.bytes()
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.lists.heap_bytes() + self.shapes.capacity() * size_of::<u64>()
    }

    pub fn shrink_to_fit(&mut self) {
        self.lists.shrink_to_fit();
        fit(&mut self.shapes);
    }
}

fn hash_of(list: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    for (key, value) in attributes::raw_iter(list) {
        hasher.write(key);
        hasher.write_u8(ScalarType::of_raw(value).map_or(0, |scalar| 1 + scalar as u8));
    }
    hasher.finish()
}

/// One attribute of a row.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    pub key: &'a [u8],
    pub value: Raw<'a>,
}

impl Pair<'_> {
    pub fn key(&self) -> &str {
        std::str::from_utf8(self.key).unwrap_or("\u{fffd}")
    }
}

/// The attributes of a canonical list in the order sent, duplicates included.
pub fn pairs(list: &[u8]) -> Vec<Pair<'_>> {
    let mut pairs = Vec::with_capacity(if list.is_empty() { 0 } else { 16 });
    pairs.extend(attributes::raw_iter(list).map(|(key, value)| Pair { key, value }));
    pairs
}

/// Keys with their types; `None` is a type that no column has.
#[derive(Debug)]
pub struct Shape {
    pub keys: Vec<(Arc<str>, Option<ScalarType>)>,
}

impl Shape {
    pub fn of(pairs: &[Pair<'_>]) -> Self {
        Self { keys: pairs.iter().map(|p| (p.key().into(), ScalarType::of_raw(p.value))).collect() }
    }

    /// Whether a row has this shape.
    pub fn is_of(&self, pairs: &[Pair<'_>]) -> bool {
        self.keys.len() == pairs.len()
            && self.keys.iter().zip(pairs).all(|((key, scalar), pair)| {
                key.as_bytes() == pair.key && *scalar == ScalarType::of_raw(pair.value)
            })
    }
}

/// Which shapes and resources a store has seen, so that the keys in them are looked at once.
#[derive(Debug, Default)]
pub struct Noted {
    shapes: Shapes,
    resources: FxHashSet<u128>,
}

/// Resources remembered; beyond it all are looked at again.
const RESOURCES_MAX: usize = 16_384;

impl Noted {
    /// Adds the keys that may be new in a batch.
    pub fn note(
        &mut self,
        rows: &AttributeLists,
        resources: &[Arc<Resource>],
        keys: &mut KeyTypes,
    ) {
        for row in rows.rows() {
            if !self.shapes.numbers.contains_key(&row.shape) {
                for pair in pairs(row.list) {
                    keys.add(pair.key(), ScalarType::of_raw(pair.value));
                }
                self.shapes.number(row);
            }
        }
        if self.resources.len() > RESOURCES_MAX {
            self.resources.clear();
        }
        for resource in resources {
            if self.resources.insert(resource.id) {
                keys.add_list(&resource.attributes);
            }
        }
    }
}

/// The shapes seen so far, numbered from 0.
#[derive(Debug, Default)]
pub struct Shapes {
    shapes: Vec<Shape>,
    /// By hash.
    numbers: FxHashMap<u64, u32>,
}

impl Shapes {
    /// Number of the first shape seen that has a row's hash, the row's own if need be; `None` when too many are known
    /// already.
    pub fn number(&mut self, row: Attributes<'_>) -> Option<usize> {
        if let Some(number) = self.numbers.get(&row.shape) {
            return Some(*number as usize);
        }
        if self.shapes.len() >= SHAPES_MAX {
            return None;
        }
        let number = self.shapes.len();
        self.shapes.push(Shape::of(&pairs(row.list)));
        self.numbers.insert(row.shape, number as u32);
        Some(number)
    }

    pub fn get(&self, number: usize) -> &Shape {
        &self.shapes[number]
    }

    pub fn len(&self) -> usize {
        self.shapes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{Value, put_attribute};

    fn push(lists: &mut AttributeLists, items: &[(&str, Value<'_>)]) {
        items.iter().for_each(|(key, value)| put_attribute(lists.open_row(), key, *value));
        lists.end_row();
    }

    #[test]
    fn keys_their_order_and_types_make_a_shape_and_values_do_not() {
        let mut lists = AttributeLists::default();
        for items in [
            &[("a", Value::Int(1)), ("b", Value::Str("x"))][..],
            &[("a", Value::Int(2)), ("b", Value::Str("y"))],
            &[("b", Value::Str("x")), ("a", Value::Int(1))],
            &[("a", Value::Double(1.0)), ("b", Value::Str("x"))],
            &[("a", Value::Int(1))],
            &[("a", Value::Int(1)), ("a", Value::Int(1))],
            &[],
        ] {
            push(&mut lists, items);
        }
        let mut shapes = Shapes::default();
        let numbers: Vec<_> = lists.rows().map(|row| shapes.number(row).unwrap()).collect();
        assert_eq!(numbers, [0, 0, 1, 2, 3, 4, 5]);
        assert_eq!(shapes.get(0).keys[1], ("b".into(), Some(ScalarType::Text)));
        assert!(shapes.get(0).is_of(&pairs(lists.get(1))));
        assert!(!shapes.get(0).is_of(&pairs(lists.get(3))));
    }

    #[test]
    fn beyond_the_limit_no_shape_is_kept() {
        let mut shapes = Shapes::default();
        for n in 0..SHAPES_MAX + 10 {
            let mut lists = AttributeLists::default();
            push(&mut lists, &[(&format!("key-{n}"), Value::Bool(true))]);
            assert_eq!(shapes.number(lists.row(0)).is_some(), n < SHAPES_MAX);
        }
        assert_eq!(shapes.len(), SHAPES_MAX);
    }
}
