//! Log records as the API shows them.

use super::traces::{plain_object, rfc3339};
use trefoil_storage::attributes::{self, Value};
use trefoil_storage::logs::LogRow;
use trefoil_storage::spans::records::hex;

/// A record with plain JSON values.
pub fn log_row(row: &LogRow) -> trefoil_api::logs::LogRow {
    let some_hex = |id: &[u8]| if id.iter().all(|b| *b == 0) { String::new() } else { hex(id) };
    trefoil_api::logs::LogRow {
        timestamp: rfc3339(row.time_ns),
        time_unix_nano: row.time_ns,
        severity_text: row.severity_text.to_string(),
        severity_number: row.severity_number,
        service: row.service().to_string(),
        body: match row.body_value() {
            Value::Str(text) => text.into(),
            other => attributes::plain_json(other),
        },
        trace_id: some_hex(&row.trace_id),
        span_id: some_hex(&row.span_id),
        event_name: row.event_name.to_string(),
        scope: row.scope.name.to_string(),
        attributes: plain_object(&row.attributes),
        resource: plain_object(&row.resource.attributes),
    }
}

/// Severity numbers of a class name (logs data model, "SeverityNumber").
pub fn severity_range(name: &str) -> Option<(i32, i32)> {
    let classes = ["trace", "debug", "info", "warn", "error", "fatal"];
    let at = classes.iter().position(|class| class.eq_ignore_ascii_case(name))? as i32;
    Some((at * 4 + 1, at * 4 + 4))
}
