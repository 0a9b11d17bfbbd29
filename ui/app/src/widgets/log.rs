//! A log record's severity and text.

use trefoil_api::logs::LogRow;

/// The class that colours a severity.
pub fn severity_class(log: &LogRow) -> &'static str {
    match log.severity_number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => "unset",
    }
}

pub fn severity_name(log: &LogRow) -> String {
    if log.severity_text.is_empty() {
        severity_class(log).to_uppercase()
    } else {
        log.severity_text.to_uppercase()
    }
}

pub fn body_text(log: &LogRow) -> String {
    match &log.body {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}
