//! `ExportTraceServiceRequest` → [`SpanBatch`].

use super::{DecodeLimits, Reason, Refusal, Rejections, lenient, malformed, push_attribute, walk};
use std::cell::Cell;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::{Batch, Decoded};
use trefoil_storage::spans::{SpanBatch, SpanFields};
use trefoil_storage::wire::{self, Field, Fields, WireError};

thread_local! {
    static LAST_SHARE: Cell<Share> = const { Cell::new(Share { spans: 0.0, attributes: 0.0 }) };
}

/// What a batch holds for each byte of its request. The next one gets room by what the last one took: a buffer that
/// grows step by step, and is cut to size at the end, is written three times.
#[derive(Debug, Clone, Copy)]
struct Share {
    spans: f32,
    /// Bytes.
    attributes: f32,
}

impl Share {
    fn of(batch: &SpanBatch, request_bytes: usize) -> Self {
        let share = |part: usize| part as f32 / request_bytes.max(1) as f32;
        Self { spans: share(batch.len()), attributes: share(batch.attributes.bytes()) }
    }

    /// A batch with room for a little more than the share of a request; its bytes bound what is taken.
    fn batch_for(self, request_bytes: usize) -> SpanBatch {
        let room = |share: f32| (request_bytes as f32 * share.min(1.0) * 1.06) as usize;
        SpanBatch::with_room(room(self.spans), room(self.attributes))
    }
}

/// Decodes one trace export, keeping what is valid.
///
/// * `body`: resources × scopes × n spans, as sent; nothing in it is trusted.
/// * returns the accepted spans in request order; accepted + rejected is always n.
///
/// Times are Unix nanoseconds. An end before its start is kept as sent and shown as duration 0.
///
/// # Errors
/// A message for the sender when the bytes are not such a request; nothing is kept.
///
/// Source: opentelemetry-proto `trace/v1/trace.proto`; OTLP specification, "Partial Success".
pub fn decode(
    body: &[u8],
    arrival_ns: u64,
    interner: &Interner,
    limits: &DecodeLimits,
) -> Result<Decoded, String> {
    let mut batch = LAST_SHARE.get().batch_for(body.len());
    let mut rejections = Rejections::default();
    let latest_ns = arrival_ns.saturating_add(limits.future_ns);
    walk(body, interner, limits, |resource, scope, span| {
        let (resource, scope) = (batch.resource_index(resource), batch.scope_index(scope));
        match span_row(&mut batch, span, resource, scope, latest_ns, limits) {
            Ok(()) => Ok(()),
            Err(Refusal::Wire(error)) => Err(error),
            Err(Refusal::Record(reason)) => {
                batch.abandon_row();
                rejections.add(reason, 1);
                Ok(())
            }
        }
    })
    .map_err(|error| malformed("ExportTraceServiceRequest", error))?;
    LAST_SHARE.set(Share::of(&batch, body.len()));
    batch.finish();
    Ok(Decoded {
        accepted: batch.len() as u64,
        rejected: rejections.total(),
        reason: rejections.message(),
        batch: Batch::Spans(batch),
    })
}

fn span_row(
    batch: &mut SpanBatch,
    span: &[u8],
    resource: u32,
    scope: u32,
    latest_ns: u64,
    limits: &DecodeLimits,
) -> Result<(), Refusal> {
    let mut row = SpanFields { resource, scope, ..SpanFields::default() };
    let (mut trace_id, mut span_id) = (&b""[..], &b""[..]);
    let (mut name, mut trace_state, mut message) = (&b""[..], &b""[..], &b""[..]);
    for field in Fields::new(span) {
        match field? {
            (1, field) => trace_id = field.bytes(1)?,
            (2, field) => span_id = field.bytes(2)?,
            (3, field) => trace_state = field.bytes(3)?,
            // A parent of another length can't be an id: the span is a root then.
            (4, field) => row.parent_span_id = field.bytes(4)?.try_into().unwrap_or_default(),
            (5, field) => name = field.bytes(5)?,
            (6, field) => row.kind = field.varint(6)? as i32,
            (7, field) => row.start_ns = field.fixed64(7)?,
            (8, field) => row.end_ns = field.fixed64(8)?,
            (9, field) => push_attribute(batch.open_attributes(), field.bytes(9)?, limits)?,
            (10, field) => row.dropped[0] = field.varint(10)? as u32,
            (11, field) => push_event(batch.open_events(), field.bytes(11)?, limits)?,
            (12, field) => row.dropped[1] = field.varint(12)? as u32,
            (13, field) => push_link(batch.open_links(), field.bytes(13)?, limits)?,
            (14, field) => row.dropped[2] = field.varint(14)? as u32,
            (15, field) => {
                for field in Fields::new(field.bytes(15)?) {
                    match field? {
                        (2, field) => message = field.bytes(2)?,
                        (3, field) => row.status_code = field.varint(3)? as i32,
                        _ => {}
                    }
                }
            }
            (16, field) => row.flags = field.fixed32(16)?,
            _ => {}
        }
    }
    row.trace_id = id(trace_id).ok_or(Refusal::Record(Reason::TraceId))?;
    row.span_id = id(span_id).ok_or(Refusal::Record(Reason::SpanId))?;
    if row.start_ns > latest_ns || row.end_ns > latest_ns {
        return Err(Refusal::Record(Reason::Future));
    }
    batch.push_row(&row, &lenient(name), &lenient(trace_state), &lenient(message));
    Ok(())
}

/// An id of exactly `N` bytes that is not all zero.
fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let id: [u8; N] = bytes.try_into().ok()?;
    (id != [0; N]).then_some(id)
}

/// Appends a `Span.Event`, text mended where needed. Fields: 1 time, 2 name, 3 attributes, 4 dropped.
fn push_event(out: &mut Vec<u8>, event: &[u8], limits: &DecodeLimits) -> Result<(), Refusal> {
    push_record(out, event, 2, 3, limits)
}

/// Appends a `Span.Link`. Fields: 1 trace id, 2 span id, 3 trace state, 4 attributes, 5 dropped, 6 flags.
fn push_link(out: &mut Vec<u8>, link: &[u8], limits: &DecodeLimits) -> Result<(), Refusal> {
    push_record(out, link, 3, 4, limits)
}

/// Copies a message whose field `text` is text and whose fields `attributes` are `KeyValue`s, as field 1.
fn push_record(
    out: &mut Vec<u8>,
    record: &[u8],
    text: u32,
    attributes: u32,
    limits: &DecodeLimits,
) -> Result<(), Refusal> {
    let mut valid = true;
    for field in Fields::new(record) {
        match field? {
            (number, field) if number == text => {
                valid &= std::str::from_utf8(field.bytes(number)?).is_ok();
            }
            (number, field) if number == attributes => {
                valid &= super::check_key_value(field.bytes(number)?, limits.depth_max)?;
            }
            _ => {}
        }
    }
    if valid {
        wire::put_bytes(out, 1, record);
        return Ok(());
    }
    let mut mended = Vec::with_capacity(record.len() + 16);
    mend_record(&mut mended, record, text, attributes)?;
    wire::put_bytes(out, 1, &mended);
    Ok(())
}

fn mend_record(
    out: &mut Vec<u8>,
    record: &[u8],
    text: u32,
    attributes: u32,
) -> Result<(), WireError> {
    for field in Fields::new(record) {
        match field? {
            (number, Field::Bytes(bytes)) if number == text => {
                wire::put_bytes(out, number, lenient(bytes).as_bytes());
            }
            (number, Field::Bytes(pair)) if number == attributes => {
                let mut mended = Vec::with_capacity(pair.len() + 8);
                // Checked before, so only bad text is left to mend.
                let _ = super::mend_key_value(&mut mended, pair);
                wire::put_bytes(out, number, &mended);
            }
            (number, Field::Varint(v)) => wire::put_uint(out, number, v),
            (number, Field::Fixed64(v)) => wire::put_fixed64(out, number, v),
            (number, Field::Fixed32(v)) => wire::put_fixed32(out, number, v),
            (number, Field::Bytes(v)) => wire::put_bytes(out, number, v),
        }
    }
    Ok(())
}
