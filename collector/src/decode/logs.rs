//! `ExportLogsServiceRequest` → [`LogBatch`].

use super::{DecodeLimits, Reason, Refusal, Rejections, lenient, malformed, push_attribute, walk};
use trefoil_storage::attributes::{self, Value};
use trefoil_storage::logs::{LogBatch, LogFields};
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::{Batch, Decoded};
use trefoil_storage::wire::{Field, Fields};

/// Decodes one log export, keeping what is valid.
///
/// * `body`: resources × scopes × n records, as sent; nothing in it is trusted.
/// * `arrival_ns`: Unix ns; the time of records that carry neither a time nor an observed time.
/// * returns the accepted records in request order; accepted + rejected is always n.
///
/// Ids of a wrong length mean "no id": the record is kept. A time more than a day ahead rejects the record.
///
/// # Errors
/// A message for the sender when the bytes are not such a request; nothing is kept.
///
/// Source: opentelemetry-proto `logs/v1/logs.proto`; OTLP specification, "Partial Success".
pub fn decode(
    body: &[u8],
    arrival_ns: u64,
    interner: &Interner,
    limits: &DecodeLimits,
) -> Result<Decoded, String> {
    let mut batch = LogBatch::default();
    let mut rejections = Rejections::default();
    walk(body, interner, limits, |resource, scope, record| {
        let row = LogFields {
            resource: batch.resource_index(resource),
            scope: batch.scope_index(scope),
            ..LogFields::default()
        };
        match log_row(&mut batch, record, row, arrival_ns, limits) {
            Ok(()) => Ok(()),
            Err(Refusal::Wire(error)) => Err(error),
            Err(Refusal::Record(reason)) => {
                batch.abandon_row();
                rejections.add(reason, 1);
                Ok(())
            }
        }
    })
    .map_err(|error| malformed("ExportLogsServiceRequest", error))?;
    batch.finish();
    Ok(Decoded {
        accepted: batch.len() as u64,
        rejected: rejections.total(),
        reason: rejections.message(),
        batch: Batch::Logs(batch),
    })
}

fn log_row(
    batch: &mut LogBatch,
    record: &[u8],
    mut row: LogFields,
    arrival_ns: u64,
    limits: &DecodeLimits,
) -> Result<(), Refusal> {
    let (mut severity_text, mut event_name, mut body) = (&b""[..], &b""[..], &b""[..]);
    for field in Fields::new(record) {
        match field? {
            (1, field) => row.time_ns = field.fixed64(1)?,
            (2, field) => row.severity_number = field.varint(2)? as i32,
            (3, field) => severity_text = field.bytes(3)?,
            (5, field) => body = field.bytes(5)?,
            (6, field) => push_attribute(batch.open_attributes(), field.bytes(6)?, limits)?,
            (7, field) => row.dropped_attributes_count = field.varint(7)? as u32,
            (8, field) => row.flags = field.fixed32(8)?,
            (9, field) => row.trace_id = field.bytes(9)?.try_into().unwrap_or_default(),
            (10, field) => row.span_id = field.bytes(10)?.try_into().unwrap_or_default(),
            (11, field) => row.observed_ns = field.fixed64(11)?,
            (12, field) => event_name = field.bytes(12)?,
            _ => {}
        }
    }
    if row.time_ns == 0 {
        row.time_ns = if row.observed_ns == 0 { arrival_ns } else { row.observed_ns };
    }
    if row.time_ns > arrival_ns.saturating_add(limits.future_ns) {
        return Err(Refusal::Record(Reason::Future));
    }
    let (severity_text, event_name) = (lenient(severity_text), lenient(event_name));
    // Nearly every body is one string field that spans the message: no second walk for those.
    let mut fields = Fields::new(body);
    if let Some(Ok((1, Field::Bytes(text)))) = fields.next()
        && fields.rest().is_empty()
    {
        batch.push_row(&row, Value::Str(&lenient(text)), &severity_text, &event_name);
        return Ok(());
    }
    if super::check_any_value(body, limits.depth_max)? {
        batch.push_row(&row, attributes::any_value(body), &severity_text, &event_name);
    } else {
        let mut mended = Vec::with_capacity(body.len() + 8);
        super::mend_any_value(&mut mended, body)?;
        batch.push_row(&row, attributes::any_value(&mended), &severity_text, &event_name);
    }
    Ok(())
}
