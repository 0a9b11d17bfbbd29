//! Writes protobuf by hand: the corpus is a gigabyte, and message types would take a minute to fill.

use std::cell::RefCell;

/// Appends fields of one message.
pub struct Message<'a>(pub &'a mut Vec<u8>);

thread_local! {
    /// Buffers of nested messages, taken again and again.
    static SCRATCH: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Message<'_> {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.raw_varint(u64::from(field << 3 | wire_type));
    }

    pub fn varint(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn fixed32(&mut self, field: u32, value: u32) {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A nested message.
    pub fn message(&mut self, field: u32, fill: impl FnOnce(&mut Message<'_>)) {
        let mut inner = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
        inner.clear();
        fill(&mut Message(&mut inner));
        self.bytes(field, &inner);
        SCRATCH.with_borrow_mut(|pool| pool.push(inner));
    }

    /// Packed fixed64s.
    pub fn packed(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        self.key(field, 2);
        self.raw_varint(values.len() as u64 * 8);
        for value in values {
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A `KeyValue` with text.
    pub fn attribute(&mut self, field: u32, key: &str, value: &str) {
        self.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, |any| any.text(1, value));
        });
    }

    /// A `KeyValue` with an integer.
    pub fn attribute_int(&mut self, field: u32, key: &str, value: u64) {
        self.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, |any| any.varint(3, value));
        });
    }
}
