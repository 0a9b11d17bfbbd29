//! Shapes of rows: the keys and types of their attributes, in the order sent.
//!
//! Rows made by one line of a program have the same shape. What there is to know of a key (its column, its type) is
//! worked out once for each shape; a row then costs one hash over its keys and a comparison.

use crate::attributes::{self, Value};
use crate::columnar::ScalarType;
use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::Hasher as _;
use std::sync::Arc;

/// Shapes remembered: senders that put IDs into keys must not fill memory.
const SHAPES_MAX: usize = 4096;

/// One attribute of a row.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    pub key: &'a [u8],
    pub value: Value<'a>,
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
        Self { keys: pairs.iter().map(|p| (p.key().into(), ScalarType::of(p.value))).collect() }
    }

    fn is_of(&self, pairs: &[Pair<'_>]) -> bool {
        self.keys.len() == pairs.len()
            && self.keys.iter().zip(pairs).all(|((key, scalar), pair)| {
                key.as_bytes() == pair.key && *scalar == ScalarType::of(pair.value)
            })
    }
}

/// The shapes seen so far, numbered from 0.
#[derive(Debug, Default)]
pub struct Shapes {
    shapes: Vec<Shape>,
    /// Hash and number of each.
    table: HashTable<(u64, u32)>,
}

impl Shapes {
    /// Number of a row's shape, a new one if need be; `None` when too many are known already.
    pub fn number(&mut self, pairs: &[Pair<'_>]) -> Option<usize> {
        let hash = hash_of(pairs);
        if let Some(number) = self.find(hash, pairs) {
            return Some(number);
        }
        if self.shapes.len() >= SHAPES_MAX {
            return None;
        }
        self.shapes.push(Shape::of(pairs));
        let number = self.shapes.len() - 1;
        self.table.insert_unique(hash, (hash, number as u32), |(hash, _)| *hash);
        Some(number)
    }

    /// Whether the shape of a row has been seen.
    pub fn knows(&self, pairs: &[Pair<'_>]) -> bool {
        self.find(hash_of(pairs), pairs).is_some()
    }

    fn find(&self, hash: u64, pairs: &[Pair<'_>]) -> Option<usize> {
        let is = |(known, number): &(u64, u32)| {
            *known == hash && self.shapes[*number as usize].is_of(pairs)
        };
        self.table.find(hash, is).map(|(_, number)| *number as usize)
    }

    pub fn get(&self, number: usize) -> &Shape {
        &self.shapes[number]
    }

    pub fn len(&self) -> usize {
        self.shapes.len()
    }
}

fn hash_of(pairs: &[Pair<'_>]) -> u64 {
    let mut hasher = FxHasher::default();
    for pair in pairs {
        hasher.write(pair.key);
        hasher.write_u8(ScalarType::of(pair.value).map_or(0, |scalar| 1 + scalar as u8));
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::put_attribute;

    fn list(items: &[(&str, Value<'_>)]) -> Vec<u8> {
        let mut list = Vec::new();
        items.iter().for_each(|(key, value)| put_attribute(&mut list, key, *value));
        list
    }

    #[test]
    fn keys_their_order_and_types_make_a_shape_and_values_do_not() {
        let lists = [
            list(&[("a", Value::Int(1)), ("b", Value::Str("x"))]),
            list(&[("a", Value::Int(2)), ("b", Value::Str("y"))]),
            list(&[("b", Value::Str("x")), ("a", Value::Int(1))]),
            list(&[("a", Value::Double(1.0)), ("b", Value::Str("x"))]),
            list(&[("a", Value::Int(1))]),
            list(&[("a", Value::Int(1)), ("a", Value::Int(1))]),
            list(&[]),
        ];
        let mut shapes = Shapes::default();
        let numbers: Vec<_> =
            lists.iter().map(|list| shapes.number(&pairs(list)).unwrap()).collect();
        assert_eq!(numbers, [0, 0, 1, 2, 3, 4, 5]);
        assert!(shapes.knows(&pairs(&lists[1])));
        assert_eq!(shapes.get(0).keys[1], ("b".into(), Some(ScalarType::Text)));
    }

    #[test]
    fn beyond_the_limit_no_shape_is_kept() {
        let mut shapes = Shapes::default();
        for n in 0..SHAPES_MAX + 10 {
            let list = list(&[(&format!("key-{n}"), Value::Bool(true))]);
            assert_eq!(shapes.number(&pairs(&list)).is_some(), n < SHAPES_MAX);
        }
        assert_eq!(shapes.len(), SHAPES_MAX);
    }
}
