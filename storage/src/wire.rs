//! Protobuf wire format, read in place.
//!
//! The decoders of the collector and the attribute reader both walk messages with [`Fields`]: no allocation,
//! no recursion, bounds checked on every step. Source: protobuf.dev, "Encoding".

/// Why a message could not be walked. Carries no position: the caller names the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("message ends inside a field")]
    Truncated,
    #[error("varint is longer than 10 bytes")]
    Varint,
    #[error("unknown wire type {0}")]
    WireType(u8),
    #[error("field number 0 is not allowed")]
    FieldNumber,
    #[error("field {field} has wire type {found}, not the type its definition gives")]
    Mismatch { field: u32, found: &'static str },
}

/// One field's value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Field<'a> {
    fn kind(self) -> &'static str {
        match self {
            Field::Varint(_) => "varint",
            Field::Fixed64(_) => "fixed64",
            Field::Bytes(_) => "length-delimited",
            Field::Fixed32(_) => "fixed32",
        }
    }

    /// The payload of a length-delimited field; `field` is only for the message.
    #[inline]
    pub fn bytes(self, field: u32) -> Result<&'a [u8], WireError> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            other => Err(WireError::Mismatch { field, found: other.kind() }),
        }
    }

    #[inline]
    pub fn varint(self, field: u32) -> Result<u64, WireError> {
        match self {
            Field::Varint(value) => Ok(value),
            other => Err(WireError::Mismatch { field, found: other.kind() }),
        }
    }

    #[inline]
    pub fn fixed64(self, field: u32) -> Result<u64, WireError> {
        match self {
            Field::Fixed64(value) => Ok(value),
            other => Err(WireError::Mismatch { field, found: other.kind() }),
        }
    }

    #[inline]
    pub fn fixed32(self, field: u32) -> Result<u32, WireError> {
        match self {
            Field::Fixed32(value) => Ok(value),
            other => Err(WireError::Mismatch { field, found: other.kind() }),
        }
    }
}

/// Iterates over the fields of one message as `(field number, value)`; ends after the first error.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Bytes not yet read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn step(&mut self) -> Result<(u32, Field<'a>), WireError> {
        let tag = take_varint(&mut self.rest)?;
        let number = (tag >> 3) as u32;
        if number == 0 {
            return Err(WireError::FieldNumber);
        }
        let field = match (tag & 7) as u8 {
            0 => Field::Varint(take_varint(&mut self.rest)?),
            1 => Field::Fixed64(u64::from_le_bytes(take_array(&mut self.rest)?)),
            2 => {
                let len = take_varint(&mut self.rest)?;
                if len > self.rest.len() as u64 {
                    return Err(WireError::Truncated);
                }
                let (bytes, rest) = self.rest.split_at(len as usize);
                self.rest = rest;
                Field::Bytes(bytes)
            }
            5 => Field::Fixed32(u32::from_le_bytes(take_array(&mut self.rest)?)),
            other => return Err(WireError::WireType(other)),
        };
        Ok((number, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Field<'a>), WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.rest = &[];
        }
        Some(step)
    }
}

/// Takes a varint off the front.
#[inline]
pub fn take_varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    // One-byte varints are nearly all tags and lengths.
    if let [first, tail @ ..] = *rest
        && *first < 0x80
    {
        *rest = tail;
        return Ok(u64::from(*first));
    }
    let mut value = 0u64;
    for (i, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Ok(value);
        }
    }
    Err(if rest.len() < 10 { WireError::Truncated } else { WireError::Varint })
}

#[inline]
fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

/// Appends a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited field.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a varint field.
pub fn put_uint(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

/// Appends a fixed64 field (also doubles, by their bits).
pub fn put_fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a fixed32 field.
pub fn put_fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    put_varint(out, u64::from(field) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_put() {
        let mut message = Vec::new();
        put_uint(&mut message, 1, u64::MAX);
        put_bytes(&mut message, 2, b"abc");
        put_fixed64(&mut message, 300, 7);
        put_fixed32(&mut message, 4, 9);
        let fields: Result<Vec<_>, _> = Fields::new(&message).collect();
        assert_eq!(
            fields.unwrap(),
            vec![
                (1, Field::Varint(u64::MAX)),
                (2, Field::Bytes(b"abc")),
                (300, Field::Fixed64(7)),
                (4, Field::Fixed32(9)),
            ]
        );
    }

    #[test]
    fn every_cut_of_a_message_is_an_error_or_a_shorter_message() {
        let mut message = Vec::new();
        put_bytes(&mut message, 2, b"abc");
        put_fixed64(&mut message, 3, 7);
        for cut in 0..message.len() {
            let fields: Result<Vec<_>, _> = Fields::new(&message[..cut]).collect();
            assert!(fields.is_err() || fields.unwrap().len() < 2, "cut at {cut}");
        }
    }

    #[test]
    fn a_length_beyond_the_message_is_truncated_not_a_panic() {
        let message = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Fields::new(&message).next(), Some(Err(WireError::Truncated)));
    }
}
