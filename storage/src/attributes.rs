//! Attributes as canonical bytes.
//!
//! From the wire to the seal, the attributes of a span, a log record, a point, a scope or a resource are kept as
//! one byte string: the protobuf encoding of an OTLP `KeyValueList` (`common/v1/common.proto`), that is, `KeyValue`
//! messages each under field 1. OTLP types stay exact and a row costs one copy. Decoders guarantee valid UTF-8 and
//! bounded depth; readers here still never panic on other bytes, they stop.

use crate::wire::{self, Field, Fields};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Number, Value as Json, json};

/// One OTLP `AnyValue`, borrowed from its canonical bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Empty,
    Str(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    /// `ArrayValue` message; read with [`array_items`].
    Array(&'a [u8]),
    /// `KeyValueList` message; read with [`iter`].
    Map(&'a [u8]),
}

/// Reads an `AnyValue` message. Unknown or damaged content reads as [`Value::Empty`].
pub fn any_value(message: &[u8]) -> Value<'_> {
    let mut value = Value::Empty;
    for field in Fields::new(message) {
        value = match field {
            Ok((1, Field::Bytes(b))) => Value::Str(text(b)),
            Ok((2, Field::Varint(v))) => Value::Bool(v != 0),
            Ok((3, Field::Varint(v))) => Value::Int(v as i64),
            Ok((4, Field::Fixed64(v))) => Value::Double(f64::from_bits(v)),
            Ok((5, Field::Bytes(b))) => Value::Array(b),
            Ok((6, Field::Bytes(b))) => Value::Map(b),
            Ok((7, Field::Bytes(b))) => Value::Bytes(b),
            Ok(_) => value,
            Err(_) => return value,
        };
    }
    value
}

/// Appends `value` as an `AnyValue` message body.
pub fn put_any_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Empty => {}
        Value::Str(v) => wire::put_bytes(out, 1, v.as_bytes()),
        Value::Bool(v) => wire::put_uint(out, 2, u64::from(v)),
        Value::Int(v) => wire::put_uint(out, 3, v as u64),
        Value::Double(v) => wire::put_fixed64(out, 4, v.to_bits()),
        Value::Array(v) => wire::put_bytes(out, 5, v),
        Value::Map(v) => wire::put_bytes(out, 6, v),
        Value::Bytes(v) => wire::put_bytes(out, 7, v),
    }
}

/// Appends one `KeyValue` to a canonical attribute list.
pub fn put_attribute(out: &mut Vec<u8>, key: &str, value: Value<'_>) {
    let mut any = Vec::new();
    put_any_value(&mut any, value);
    let mut pair = Vec::with_capacity(key.len() + any.len() + 8);
    wire::put_bytes(&mut pair, 1, key.as_bytes());
    wire::put_bytes(&mut pair, 2, &any);
    wire::put_bytes(out, 1, &pair);
}

/// The attributes of a canonical list in the order sent, duplicates included.
pub fn iter(list: &[u8]) -> impl Iterator<Item = (&str, Value<'_>)> {
    Fields::new(list).map_while(Result::ok).filter_map(|(number, field)| match (number, field) {
        (1, Field::Bytes(pair)) => Some(key_value(pair)),
        _ => None,
    })
}

/// A value as it stands on the wire: what only copies it need not look at its text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Raw<'a> {
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// The `AnyValue` message of anything else.
    Other(&'a [u8]),
}

impl<'a> Raw<'a> {
    fn of(message: &'a [u8]) -> Self {
        if let Some(text) = short_text(message) {
            return Self::Text(text);
        }
        match message {
            [0x10, v @ 0..0x80] => return Self::Bool(*v != 0),
            [0x18, v @ 0..0x80] => return Self::Int((*v).into()),
            _ => {}
        }
        let mut fields = Fields::new(message);
        let raw = match fields.next() {
            Some(Ok((1, Field::Bytes(b)))) => Self::Text(b),
            Some(Ok((2, Field::Varint(v)))) => Self::Bool(v != 0),
            Some(Ok((3, Field::Varint(v)))) => Self::Int(v as i64),
            Some(Ok((4, Field::Fixed64(v)))) => Self::Double(f64::from_bits(v)),
            _ => return Self::Other(message),
        };
        // Of several fields the last one counts.
        if fields.rest().is_empty() { raw } else { Self::Other(message) }
    }

    pub fn value(self) -> Value<'a> {
        match self {
            Self::Text(b) => Value::Str(text(b)),
            Self::Bool(v) => Value::Bool(v),
            Self::Int(v) => Value::Int(v),
            Self::Double(v) => Value::Double(v),
            Self::Other(message) => any_value(message),
        }
    }
}

/// Like [`iter`], with keys and values as bytes that are not looked at yet.
pub fn raw_iter(list: &[u8]) -> RawIter<'_> {
    RawIter { fields: Fields::new(list) }
}

/// See [`raw_iter`]. Every row goes through it twice before it is sealed: pairs shorter than 128 bytes take a short way.
#[derive(Debug, Clone)]
pub struct RawIter<'a> {
    fields: Fields<'a>,
}

impl<'a> Iterator for RawIter<'a> {
    type Item = (&'a [u8], Raw<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let [0x0a, bytes @ 0..0x80, rest @ ..] = self.fields.rest()
            && let Some((pair, rest)) = rest.split_at_checked(usize::from(*bytes))
            && let Some((key, value)) = short_pair(pair)
        {
            self.fields = Fields::new(rest);
            return Some((key, Raw::of(value)));
        }
        self.next_of_any_form()
    }
}

impl<'a> RawIter<'a> {
    fn next_of_any_form(&mut self) -> Option<(&'a [u8], Raw<'a>)> {
        loop {
            let (1, Field::Bytes(pair)) = self.fields.next()?.ok()? else { continue };
            let (mut key, mut value) = (b"".as_slice(), b"".as_slice());
            for field in Fields::new(pair).map_while(Result::ok) {
                match field {
                    (1, Field::Bytes(b)) => key = b,
                    (2, Field::Bytes(b)) => value = b,
                    _ => {}
                }
            }
            return Some((key, Raw::of(value)));
        }
    }
}

/// Key and `AnyValue` message of a `KeyValue` that holds these in this order, each shorter than 128 bytes, as nearly
/// all do; `None` for others.
#[inline]
pub fn short_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, key_bytes @ 0..0x80, rest @ ..] = pair else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*key_bytes))?;
    let [0x12, value_bytes @ 0..0x80, value @ ..] = rest else { return None };
    (value.len() == usize::from(*value_bytes)).then_some((key, value))
}

/// The text of an `AnyValue` message that is one shorter than 128 bytes.
#[inline]
pub fn short_text(message: &[u8]) -> Option<&[u8]> {
    let [0x0a, bytes @ 0..0x80, text @ ..] = message else { return None };
    (text.len() == usize::from(*bytes)).then_some(text)
}

/// Reads one `KeyValue` message.
pub fn key_value(pair: &[u8]) -> (&str, Value<'_>) {
    let (mut key, mut value) = ("", Value::Empty);
    for field in Fields::new(pair).map_while(Result::ok) {
        match field {
            (1, Field::Bytes(b)) => key = text(b),
            (2, Field::Bytes(b)) => value = any_value(b),
            _ => {}
        }
    }
    (key, value)
}

/// The value under `key`; of duplicates the last one, as the JSON form has it.
pub fn get<'a>(list: &'a [u8], key: &str) -> Option<Value<'a>> {
    let mut found = None;
    for (number, field) in Fields::new(list).map_while(Result::ok) {
        if let (1, Field::Bytes(pair)) = (number, field) {
            // The key comes first in every encoder we know: compare it before the value is looked at.
            let (k, v) = key_value(pair);
            if k == key {
                found = Some(v);
            }
        }
    }
    found
}

/// The elements of an `ArrayValue` message.
pub fn array_items(array: &[u8]) -> impl Iterator<Item = Value<'_>> {
    Fields::new(array).map_while(Result::ok).filter_map(|(number, field)| match (number, field) {
        (1, Field::Bytes(item)) => Some(any_value(item)),
        _ => None,
    })
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("\u{fffd}")
}

impl<'a> Value<'a> {
    /// Text as search, Prometheus labels and Jaeger tags show it: strings as they are, numbers shortest, bytes
    /// base64, lists and maps as JSON.
    pub fn to_text(self) -> std::borrow::Cow<'a, str> {
        match self {
            Value::Empty => "".into(),
            Value::Str(v) => v.into(),
            Value::Bool(v) => (if v { "true" } else { "false" }).into(),
            Value::Int(v) => v.to_string().into(),
            Value::Double(v) => v.to_string().into(),
            Value::Bytes(v) => BASE64_STANDARD.encode(v).into(),
            Value::Array(_) | Value::Map(_) => plain_json(self).to_string().into(),
        }
    }

    /// Numeric value of ints and doubles.
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Value::Int(v) => Some(v as f64),
            Value::Double(v) => Some(v),
            _ => None,
        }
    }
}

/// An attribute list as a plain JSON object, for people: bytes as base64 text, non-finite doubles as text.
pub fn plain_json_object(list: &[u8]) -> Map<String, Json> {
    iter(list).map(|(key, value)| (key.to_owned(), plain_json(value))).collect()
}

/// A value as plain JSON, see [`plain_json_object`].
pub fn plain_json(value: Value<'_>) -> Json {
    match value {
        Value::Empty => Json::Null,
        Value::Str(v) => v.into(),
        Value::Bool(v) => v.into(),
        Value::Int(v) => v.into(),
        Value::Double(v) => Number::from_f64(v).map_or_else(|| double_name(v).into(), Json::Number),
        Value::Bytes(v) => BASE64_STANDARD.encode(v).into(),
        Value::Array(v) => array_items(v).map(plain_json).collect(),
        Value::Map(v) => Json::Object(plain_json_object(v)),
    }
}

/// Protobuf JSON's names for doubles that JSON numbers can't hold.
fn double_name(v: f64) -> &'static str {
    if v.is_nan() {
        "NaN"
    } else if v > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// An attribute list as *stored JSON*: an object that loses nothing and still reads naturally.
///
/// Strings, booleans, integers and finite doubles (always with a point or exponent) are plain JSON. What JSON lacks
/// is an object with one `$` key: `{"$bytes":"base64"}`, `{"$double":"NaN"}`, `{"$empty":true}`; maps whose keys
/// start with `$` have it doubled. Of duplicate keys the last is kept.
pub fn stored_json_object(list: &[u8]) -> Json {
    let mut object = Map::new();
    for (key, value) in iter(list) {
        object.insert(escape_key(key), stored_json(value));
    }
    Json::Object(object)
}

/// A value as stored JSON, see [`stored_json_object`].
pub fn stored_json(value: Value<'_>) -> Json {
    match value {
        Value::Empty => json!({"$empty": true}),
        Value::Bytes(v) => json!({"$bytes": BASE64_STANDARD.encode(v)}),
        Value::Double(v) if !v.is_finite() => json!({"$double": double_name(v)}),
        Value::Array(v) => array_items(v).map(stored_json).collect(),
        Value::Map(v) => stored_json_object(v),
        plain => plain_json(plain),
    }
}

/// Appends the attributes of a stored-JSON object to a canonical list (the inverse of [`stored_json_object`]).
pub fn put_stored_json_object(out: &mut Vec<u8>, object: &Map<String, Json>) {
    for (key, value) in object {
        let mut any = Vec::new();
        put_stored_json(&mut any, value);
        let mut pair = Vec::with_capacity(key.len() + any.len() + 8);
        wire::put_bytes(&mut pair, 1, unescape_key(key).as_bytes());
        wire::put_bytes(&mut pair, 2, &any);
        wire::put_bytes(out, 1, &pair);
    }
}

/// Appends a stored-JSON value as an `AnyValue` message body.
pub fn put_stored_json(out: &mut Vec<u8>, value: &Json) {
    match value {
        Json::Null => {}
        Json::Bool(v) => put_any_value(out, Value::Bool(*v)),
        Json::Number(n) => put_any_value(
            out,
            n.as_i64().map_or_else(|| Value::Double(n.as_f64().unwrap_or(f64::NAN)), Value::Int),
        ),
        Json::String(v) => put_any_value(out, Value::Str(v)),
        Json::Array(items) => {
            let mut array = Vec::new();
            for item in items {
                let mut any = Vec::new();
                put_stored_json(&mut any, item);
                wire::put_bytes(&mut array, 1, &any);
            }
            put_any_value(out, Value::Array(&array));
        }
        Json::Object(object) => {
            if object.len() == 1
                && let Some((key, inner)) = object.iter().next()
            {
                match (key.as_str(), inner) {
                    ("$empty", _) => return,
                    ("$bytes", Json::String(b)) => {
                        let bytes = BASE64_STANDARD.decode(b).unwrap_or_default();
                        return put_any_value(out, Value::Bytes(&bytes));
                    }
                    ("$double", Json::String(name)) => {
                        let v = match name.as_str() {
                            "Infinity" => f64::INFINITY,
                            "-Infinity" => f64::NEG_INFINITY,
                            _ => f64::NAN,
                        };
                        return put_any_value(out, Value::Double(v));
                    }
                    _ => {}
                }
            }
            let mut list = Vec::new();
            put_stored_json_object(&mut list, object);
            put_any_value(out, Value::Map(&list));
        }
    }
}

/// A key as stored JSON writes it.
pub fn escape_key(key: &str) -> String {
    if key.starts_with('$') { format!("${key}") } else { key.to_owned() }
}

fn unescape_key(key: &str) -> &str {
    if key.starts_with("$$") { &key[1..] } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut array = Vec::new();
        for item in [Value::Int(1), Value::Empty, Value::Str("x")] {
            let mut any = Vec::new();
            put_any_value(&mut any, item);
            wire::put_bytes(&mut array, 1, &any);
        }
        let mut map = Vec::new();
        put_attribute(&mut map, "$bytes", Value::Str("not bytes"));
        let mut list = Vec::new();
        put_attribute(&mut list, "s", Value::Str("text"));
        put_attribute(&mut list, "i", Value::Int(-5));
        put_attribute(&mut list, "d", Value::Double(2.0));
        put_attribute(&mut list, "nan", Value::Double(f64::INFINITY));
        put_attribute(&mut list, "raw", Value::Bytes(&[0, 255]));
        put_attribute(&mut list, "list", Value::Array(&array));
        put_attribute(&mut list, "$map", Value::Map(&map));
        put_attribute(&mut list, "none", Value::Empty);
        put_attribute(&mut list, "yes", Value::Bool(true));
        list
    }

    #[test]
    fn the_short_way_and_the_long_one_read_the_same() {
        let mut list = sample();
        put_attribute(&mut list, "long", Value::Str(&"x".repeat(300)));
        // An unknown field, a value before its key, a value of two fields, a large and a long-winded integer.
        wire::put_bytes(&mut list, 2, b"skipped");
        wire::put_bytes(&mut list, 1, b"\x12\x03\x0a\x01v\x0a\x01k");
        wire::put_bytes(&mut list, 1, b"\x0a\x01k\x12\x05\x0a\x01v\x18\x02");
        put_attribute(&mut list, "large", Value::Int(i64::MAX));
        wire::put_bytes(&mut list, 1, b"\x0a\x01w\x12\x03\x18\x85\x00");
        let read: Vec<_> = raw_iter(&list)
            .map(|(key, raw)| (std::str::from_utf8(key).unwrap(), raw.value()))
            .collect();
        let want: Vec<_> = iter(&list).collect();
        assert_eq!(format!("{read:?}"), format!("{want:?}"));
        assert_eq!(read.len(), 14);
        for cut in 0..list.len() {
            assert_eq!(raw_iter(&list[..cut]).count(), iter(&list[..cut]).count(), "cut at {cut}");
        }
    }

    #[test]
    fn stored_json_gives_every_type_back() {
        let list = sample();
        let text = stored_json_object(&list).to_string();
        let json: Json = serde_json::from_str(&text).unwrap();
        let mut back = Vec::new();
        put_stored_json_object(&mut back, json.as_object().unwrap());
        for (key, value) in iter(&list) {
            assert_eq!(get(&back, key), Some(value), "{key}");
        }
    }

    #[test]
    fn the_last_of_duplicate_keys_wins() {
        let mut list = Vec::new();
        put_attribute(&mut list, "k", Value::Int(1));
        put_attribute(&mut list, "k", Value::Int(2));
        assert_eq!(get(&list, "k"), Some(Value::Int(2)));
        assert_eq!(stored_json_object(&list).to_string(), r#"{"k":2}"#);
    }

    #[test]
    fn integers_and_whole_doubles_stay_apart() {
        let mut list = Vec::new();
        put_attribute(&mut list, "d", Value::Double(2.0));
        put_attribute(&mut list, "i", Value::Int(2));
        assert_eq!(stored_json_object(&list).to_string(), r#"{"d":2.0,"i":2}"#);
    }
}
