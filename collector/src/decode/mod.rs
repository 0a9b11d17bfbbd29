//! From the wire into columns: OTLP protobuf walked in place, in one pass, keeping what is valid.
//!
//! Rules that all signals share: a message that is not protobuf is refused as a whole; a record that breaks a rule
//! is rejected alone, with a reason; text that is not UTF-8 is kept with U+FFFD in place of the bad bytes; values may
//! nest 64 deep.

pub mod logs;
pub mod metrics;
pub mod remote_write;
pub mod spans;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use trefoil_storage::attributes;
use trefoil_storage::resource::{Interner, Resource, Scope, sent_id};
use trefoil_storage::wire::{self, Field, Fields, WireError};

/// What a decoder accepts.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Records later than arrival plus this are rejected, ns.
    pub future_ns: u64,
    /// Levels of lists and maps inside one value (`AttributeValueDepthLimit` of the SDK specification is 64).
    pub depth_max: u32,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { future_ns: 86_400_000_000_000, depth_max: 64 }
    }
}

/// Why a record is rejected; the texts go to the sender in `partial_success`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    TraceId,
    SpanId,
    Future,
    NoTime,
    Nesting,
    Histogram,
    Name,
    Label,
    Past,
}

impl Reason {
    const ALL: [Reason; 9] = [
        Reason::TraceId,
        Reason::SpanId,
        Reason::Future,
        Reason::NoTime,
        Reason::Nesting,
        Reason::Histogram,
        Reason::Name,
        Reason::Label,
        Reason::Past,
    ];

    fn text(self) -> &'static str {
        match self {
            Reason::TraceId => "trace_id is not 16 bytes or all zero",
            Reason::SpanId => "span_id is not 8 bytes or all zero",
            Reason::Future => "time lies more than a day in the future",
            Reason::NoTime => "time_unix_nano is 0",
            Reason::Nesting => "a value nests deeper than 64 levels",
            Reason::Histogram => "histogram bounds and counts do not fit together",
            Reason::Name => "the metric has no name",
            Reason::Label => "a label of the series is repeated, nameless or not UTF-8",
            Reason::Past => "timestamp lies before 1970",
        }
    }
}

/// Counts rejected records by reason.
#[derive(Debug, Default)]
pub struct Rejections {
    counts: [u64; Reason::ALL.len()],
}

impl Rejections {
    pub fn add(&mut self, reason: Reason, records: u64) {
        self.counts[reason as usize] += records;
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// `3 × trace_id is …; 1 × …`, or `None` when nothing was rejected.
    pub fn message(&self) -> Option<String> {
        let mut out = String::new();
        for reason in Reason::ALL {
            let count = self.counts[reason as usize];
            if count > 0 {
                let gap = if out.is_empty() { "" } else { "; " };
                let _ = write!(out, "{gap}{count} × {}", reason.text());
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

/// Why a record, or the whole request, can't be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not protobuf: the request is malformed.
    Wire(WireError),
    /// This record only.
    Record(Reason),
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// A request's error for its sender.
pub(crate) fn malformed(message: &str, error: WireError) -> String {
    format!(
        "malformed protobuf in {message}: {error}; is the endpoint's signal and encoding the right one?"
    )
}

/// Text as sent, or with U+FFFD where it is not UTF-8.
pub(crate) fn lenient(bytes: &[u8]) -> Cow<'_, str> {
    // The lossy reader goes byte by byte; nearly all text is valid.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Appends one `KeyValue` message to a canonical attribute list.
///
/// Valid messages, nearly all, are copied as they are; others are written anew with U+FFFD.
pub(crate) fn push_attribute(
    out: &mut Vec<u8>,
    pair: &[u8],
    limits: &DecodeLimits,
) -> Result<(), Refusal> {
    if check_key_value(pair, limits.depth_max)? {
        wire::put_bytes(out, 1, pair);
    } else {
        let mut mended = Vec::with_capacity(pair.len() + 8);
        mend_key_value(&mut mended, pair)?;
        wire::put_bytes(out, 1, &mended);
    }
    Ok(())
}

/// Whether all text in a `KeyValue` is UTF-8.
pub(crate) fn check_key_value(pair: &[u8], depth: u32) -> Result<bool, Refusal> {
    if let Some((key, value)) = attributes::short_pair(pair) {
        let text = attributes::short_text(value);
        // One look at all bytes tells most often that both texts are valid.
        if text.is_some() && pair.is_ascii() {
            return Ok(true);
        }
        let valid = std::str::from_utf8(key).is_ok();
        return match text {
            Some(text) => Ok(valid && std::str::from_utf8(text).is_ok()),
            None => Ok(check_any_value(value, depth)? && valid),
        };
    }
    let mut valid = true;
    for field in Fields::new(pair) {
        match field? {
            (1, Field::Bytes(key)) => valid &= std::str::from_utf8(key).is_ok(),
            (2, Field::Bytes(value)) => valid &= check_any_value(value, depth)?,
            (number @ (1 | 2), other) => {
                other.bytes(number)?;
            }
            _ => {}
        }
    }
    Ok(valid)
}

/// Whether all text in an `AnyValue` is UTF-8; `depth` levels may still follow.
pub(crate) fn check_any_value(value: &[u8], depth: u32) -> Result<bool, Refusal> {
    let mut valid = true;
    for field in Fields::new(value) {
        match field? {
            (1, Field::Bytes(text)) => valid &= std::str::from_utf8(text).is_ok(),
            (number @ (5 | 6), Field::Bytes(items)) => {
                let depth = depth.checked_sub(1).ok_or(Refusal::Record(Reason::Nesting))?;
                for item in Fields::new(items) {
                    if let (1, Field::Bytes(item)) = item? {
                        valid &= if number == 5 {
                            check_any_value(item, depth)?
                        } else {
                            check_key_value(item, depth)?
                        };
                    }
                }
            }
            (number @ (1 | 5 | 6 | 7), other) => {
                other.bytes(number)?;
            }
            (number @ (2 | 3), other) => {
                other.varint(number)?;
            }
            (4, other) => {
                other.fixed64(4)?;
            }
            _ => {}
        }
    }
    Ok(valid)
}

/// Writes a checked `KeyValue` anew with U+FFFD for bad text.
fn mend_key_value(out: &mut Vec<u8>, pair: &[u8]) -> Result<(), Refusal> {
    for field in Fields::new(pair) {
        match field? {
            (1, Field::Bytes(key)) => wire::put_bytes(out, 1, lenient(key).as_bytes()),
            (2, Field::Bytes(value)) => {
                let mut mended = Vec::with_capacity(value.len() + 8);
                mend_any_value(&mut mended, value)?;
                wire::put_bytes(out, 2, &mended);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes a checked `AnyValue` anew with U+FFFD for bad text.
pub(crate) fn mend_any_value(out: &mut Vec<u8>, value: &[u8]) -> Result<(), Refusal> {
    for field in Fields::new(value) {
        match field? {
            (1, Field::Bytes(text)) => wire::put_bytes(out, 1, lenient(text).as_bytes()),
            (number @ (5 | 6), Field::Bytes(items)) => {
                let mut list = Vec::with_capacity(items.len() + 8);
                for item in Fields::new(items) {
                    if let (1, Field::Bytes(item)) = item? {
                        let mut mended = Vec::with_capacity(item.len() + 8);
                        if number == 5 {
                            mend_any_value(&mut mended, item)?;
                        } else {
                            mend_key_value(&mut mended, item)?;
                        }
                        wire::put_bytes(&mut list, 1, &mended);
                    }
                }
                wire::put_bytes(out, number, &list);
            }
            (number, Field::Varint(v)) => wire::put_uint(out, number, v),
            (number, Field::Fixed64(v)) => wire::put_fixed64(out, number, v),
            (number, Field::Fixed32(v)) => wire::put_fixed32(out, number, v),
            (number, Field::Bytes(v)) => wire::put_bytes(out, number, v),
        }
    }
    Ok(())
}

/// A `Resource` message as an interned resource. A resource whose values nest too deep loses those attributes: it
/// stands for many records, which are kept.
pub(crate) fn resource(
    message: &[u8],
    schema_url: &[u8],
    interner: &Interner,
    limits: &DecodeLimits,
) -> Result<Arc<Resource>, WireError> {
    interner.sent_resource(sent_id(message, schema_url), || {
        let mut attributes = Vec::with_capacity(message.len());
        let mut dropped = 0;
        for field in Fields::new(message) {
            match field? {
                (1, field) => match push_attribute(&mut attributes, field.bytes(1)?, limits) {
                    Ok(()) => {}
                    Err(Refusal::Wire(error)) => return Err(error),
                    Err(Refusal::Record(_)) => dropped += 1,
                },
                (2, field) => dropped += field.varint(2)? as u32,
                _ => {}
            }
        }
        Ok(Resource::new(&attributes, &lenient(schema_url), dropped))
    })
}

/// An `InstrumentationScope` message as an interned scope.
pub(crate) fn scope(
    message: &[u8],
    schema_url: &[u8],
    interner: &Interner,
    limits: &DecodeLimits,
) -> Result<Arc<Scope>, WireError> {
    interner.sent_scope(sent_id(message, schema_url), || {
        let (mut name, mut version) = (&b""[..], &b""[..]);
        let mut attributes = Vec::new();
        let mut dropped = 0;
        for field in Fields::new(message) {
            match field? {
                (1, field) => name = field.bytes(1)?,
                (2, field) => version = field.bytes(2)?,
                (3, field) => match push_attribute(&mut attributes, field.bytes(3)?, limits) {
                    Ok(()) => {}
                    Err(Refusal::Wire(error)) => return Err(error),
                    Err(Refusal::Record(_)) => dropped += 1,
                },
                (4, field) => dropped += field.varint(4)? as u32,
                _ => {}
            }
        }
        let (name, version) = (lenient(name), lenient(version));
        Ok(Scope::new(&name, &version, &attributes, &lenient(schema_url), dropped))
    })
}

/// Walks `resource × scope × record`, the shape of all OTLP requests; calls `visit(resource, scope, record bytes)`.
///
/// Resource and scope are read first wherever they stand, since protobuf gives fields no order.
pub(crate) fn walk(
    request: &[u8],
    interner: &Interner,
    limits: &DecodeLimits,
    mut visit: impl FnMut(&Arc<Resource>, &Arc<Scope>, &[u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    for field in Fields::new(request) {
        let (1, field) = field? else { continue };
        let group = field.bytes(1)?;
        let (message, schema_url) = header(group)?;
        let resource = resource(message, schema_url, interner, limits)?;
        for field in Fields::new(group) {
            let (2, field) = field? else { continue };
            let scope_group = field.bytes(2)?;
            let (message, schema_url) = header(scope_group)?;
            let scope = scope(message, schema_url, interner, limits)?;
            for field in Fields::new(scope_group) {
                if let (2, field) = field? {
                    visit(&resource, &scope, field.bytes(2)?)?;
                }
            }
        }
    }
    Ok(())
}

/// Fields 1 (resource or scope) and 3 (schema URL) of a group.
fn header(group: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut message, mut schema_url) = (&b""[..], &b""[..]);
    for field in Fields::new(group) {
        match field? {
            (1, field) => message = field.bytes(1)?,
            (3, field) => schema_url = field.bytes(3)?,
            _ => {}
        }
    }
    Ok((message, schema_url))
}
