//! Events and links of a span: protobuf records in memory, stored-JSON text in segments and SQL.

use crate::attributes;
use crate::wire::{self, Field, Fields};
use serde_json::{Map, Value as Json, json};

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}

/// The inverse of [`hex`]; bad digits end the result.
pub fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks_exact(2)
        .map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// One `Span.Event`, see `trace/v1/trace.proto`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    pub time_ns: u64,
    pub name: String,
    /// Canonical attribute list.
    pub attributes: Vec<u8>,
    pub dropped_attributes_count: u32,
}

/// One `Span.Link`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Link {
    pub trace_id: Vec<u8>,
    pub span_id: Vec<u8>,
    pub trace_state: String,
    /// Canonical attribute list.
    pub attributes: Vec<u8>,
    pub dropped_attributes_count: u32,
    pub flags: u32,
}

/// Reads the `Event` messages of a span.
pub fn events(list: &[u8]) -> Vec<Event> {
    records(list)
        .map(|record| {
            let mut event = Event::default();
            for field in Fields::new(record).map_while(Result::ok) {
                match field {
                    (1, Field::Fixed64(v)) => event.time_ns = v,
                    (2, Field::Bytes(v)) => event.name = String::from_utf8_lossy(v).into_owned(),
                    (3, Field::Bytes(v)) => wire::put_bytes(&mut event.attributes, 1, v),
                    (4, Field::Varint(v)) => event.dropped_attributes_count = v as u32,
                    _ => {}
                }
            }
            event
        })
        .collect()
}

/// Reads the `Link` messages of a span.
pub fn links(list: &[u8]) -> Vec<Link> {
    records(list)
        .map(|record| {
            let mut link = Link::default();
            for field in Fields::new(record).map_while(Result::ok) {
                match field {
                    (1, Field::Bytes(v)) => link.trace_id = v.to_vec(),
                    (2, Field::Bytes(v)) => link.span_id = v.to_vec(),
                    (3, Field::Bytes(v)) => {
                        link.trace_state = String::from_utf8_lossy(v).into_owned()
                    }
                    (4, Field::Bytes(v)) => wire::put_bytes(&mut link.attributes, 1, v),
                    (5, Field::Varint(v)) => link.dropped_attributes_count = v as u32,
                    (6, Field::Fixed32(v)) => link.flags = v,
                    _ => {}
                }
            }
            link
        })
        .collect()
}

/// Events as a stored-JSON list, `None` when there are none.
pub fn events_json(list: &[u8]) -> Option<String> {
    let items: Vec<Json> = events(list)
        .into_iter()
        .map(|event| {
            let mut object = json!({
                "time_unix_nano": event.time_ns,
                "name": event.name,
                "attributes": attributes::stored_json_object(&event.attributes),
            });
            put_count(&mut object, event.dropped_attributes_count);
            object
        })
        .collect();
    (!items.is_empty()).then(|| Json::Array(items).to_string())
}

/// Links as a stored-JSON list, `None` when there are none.
pub fn links_json(list: &[u8]) -> Option<String> {
    let items: Vec<Json> = links(list)
        .into_iter()
        .map(|link| {
            let mut object = json!({
                "trace_id": hex(&link.trace_id),
                "span_id": hex(&link.span_id),
                "attributes": attributes::stored_json_object(&link.attributes),
            });
            if !link.trace_state.is_empty() {
                object["trace_state"] = link.trace_state.into();
            }
            if link.flags != 0 {
                object["flags"] = link.flags.into();
            }
            put_count(&mut object, link.dropped_attributes_count);
            object
        })
        .collect();
    (!items.is_empty()).then(|| Json::Array(items).to_string())
}

fn put_count(object: &mut Json, dropped: u32) {
    if dropped > 0 {
        object["dropped_attributes_count"] = dropped.into();
    }
}

/// The inverse of [`events_json`]: `Event` messages, each under field 1.
pub fn events_from_json(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for object in objects(text) {
        let mut record = Vec::new();
        wire::put_fixed64(&mut record, 1, number(&object, "time_unix_nano"));
        wire::put_bytes(&mut record, 2, word(&object, "name").as_bytes());
        put_attributes(&mut record, 3, &object);
        wire::put_uint(&mut record, 4, number(&object, "dropped_attributes_count"));
        wire::put_bytes(&mut out, 1, &record);
    }
    out
}

/// The inverse of [`links_json`]: `Link` messages, each under field 1.
pub fn links_from_json(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for object in objects(text) {
        let mut record = Vec::new();
        wire::put_bytes(&mut record, 1, &unhex(word(&object, "trace_id")));
        wire::put_bytes(&mut record, 2, &unhex(word(&object, "span_id")));
        wire::put_bytes(&mut record, 3, word(&object, "trace_state").as_bytes());
        put_attributes(&mut record, 4, &object);
        wire::put_uint(&mut record, 5, number(&object, "dropped_attributes_count"));
        wire::put_fixed32(&mut record, 6, number(&object, "flags") as u32);
        wire::put_bytes(&mut out, 1, &record);
    }
    out
}

fn objects(text: &str) -> Vec<Map<String, Json>> {
    serde_json::from_str(text).unwrap_or_default()
}

fn number(object: &Map<String, Json>, key: &str) -> u64 {
    object.get(key).and_then(Json::as_u64).unwrap_or(0)
}

fn word<'a>(object: &'a Map<String, Json>, key: &str) -> &'a str {
    object.get(key).and_then(Json::as_str).unwrap_or_default()
}

/// Appends the object's attributes as `KeyValue`s under `field`.
fn put_attributes(record: &mut Vec<u8>, field: u32, object: &Map<String, Json>) {
    if let Some(Json::Object(stored)) = object.get("attributes") {
        let mut list = Vec::new();
        attributes::put_stored_json_object(&mut list, stored);
        for pair in records(&list) {
            wire::put_bytes(record, field, pair);
        }
    }
}

/// The messages under field 1.
fn records(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    Fields::new(list).map_while(Result::ok).filter_map(|(number, field)| match (number, field) {
        (1, Field::Bytes(record)) => Some(record),
        _ => None,
    })
}
