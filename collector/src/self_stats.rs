//! The collector's own numbers, for `/metrics`. "Metrics" without "self" are always the user's.

use crate::ingest::Transport;
use crate::reply::Reason;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use trefoil_storage::signal::FrameKind;

const KINDS: [FrameKind; 5] = [
    FrameKind::OtlpTraces,
    FrameKind::OtlpLogs,
    FrameKind::OtlpMetrics,
    FrameKind::RemoteWrite1,
    FrameKind::RemoteWrite2,
];

/// `ok`, `partial`, then the refusals in the order of [`Reason::ALL`].
const OUTCOMES: usize = 2 + Reason::ALL.len();

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct SelfStats {
    requests: [[[AtomicU64; OUTCOMES]; Transport::ALL.len()]; KINDS.len()],
    body_bytes: [AtomicU64; KINDS.len()],
    unreadable_records: [AtomicU64; KINDS.len()],
    connections_open: AtomicU64,
    connections_total: AtomicU64,
    connections_idle_closed: AtomicU64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    Ok,
    /// Taken, with some records rejected.
    Partial,
    Refused(Reason),
}

impl SelfStats {
    pub(crate) fn request(&self, kind: FrameKind, transport: Transport, ending: Ending) {
        let outcome = match ending {
            Ending::Ok => 0,
            Ending::Partial => 1,
            Ending::Refused(reason) => 2 + reason as usize,
        };
        self.requests[place(kind)][transport as usize][outcome].fetch_add(1, Relaxed);
    }

    pub(crate) fn body(&self, kind: FrameKind, bytes: usize) {
        self.body_bytes[place(kind)].fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn unreadable(&self, kind: FrameKind, records: u64) {
        self.unreadable_records[place(kind)].fetch_add(records, Relaxed);
    }

    pub(crate) fn connection_opened(&self) {
        self.connections_total.fetch_add(1, Relaxed);
        self.connections_open.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_closed(&self, idle: bool) {
        self.connections_open.fetch_sub(1, Relaxed);
        self.connections_idle_closed.fetch_add(u64::from(idle), Relaxed);
    }

    /// Appends all counters in Prometheus' text format.
    pub fn write_prometheus(&self, out: &mut String) {
        family(
            out,
            "trefoil_ingest_requests_total",
            "counter",
            "Export requests by how they ended.",
        );
        for (kind, transports) in KINDS.iter().zip(&self.requests) {
            for (transport, outcomes) in Transport::ALL.iter().zip(transports) {
                for (index, count) in outcomes.iter().enumerate() {
                    let count = count.load(Relaxed);
                    if count > 0 {
                        let _ = writeln!(
                            out,
                            "trefoil_ingest_requests_total{{kind=\"{}\",transport=\"{}\",outcome=\"{}\"}} {count}",
                            kind_name(*kind),
                            transport.name(),
                            outcome_name(index),
                        );
                    }
                }
            }
        }
        family(
            out,
            "trefoil_ingest_body_bytes_total",
            "counter",
            "Request bodies after decompression.",
        );
        per_kind(out, "trefoil_ingest_body_bytes_total", &self.body_bytes);
        family(
            out,
            "trefoil_ingest_unreadable_records_total",
            "counter",
            "Records of JSON requests that were rejected before decoding.",
        );
        per_kind(out, "trefoil_ingest_unreadable_records_total", &self.unreadable_records);
        for (name, kind, help, value) in [
            ("trefoil_connections_open", "gauge", "Open connections.", &self.connections_open),
            ("trefoil_connections_total", "counter", "Connections taken.", &self.connections_total),
            (
                "trefoil_connections_idle_closed_total",
                "counter",
                "Connections closed because nothing moved on them.",
                &self.connections_idle_closed,
            ),
        ] {
            family(out, name, kind, help);
            let _ = writeln!(out, "{name} {}", value.load(Relaxed));
        }
    }
}

fn per_kind(out: &mut String, name: &str, values: &[AtomicU64; KINDS.len()]) {
    for (kind, value) in KINDS.iter().zip(values) {
        let _ = writeln!(out, "{name}{{kind=\"{}\"}} {}", kind_name(*kind), value.load(Relaxed));
    }
}

/// Appends a family's `# HELP` and `# TYPE` lines.
pub fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn place(kind: FrameKind) -> usize {
    kind as usize - 1
}

fn kind_name(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::OtlpTraces => "otlp_traces",
        FrameKind::OtlpLogs => "otlp_logs",
        FrameKind::OtlpMetrics => "otlp_metrics",
        FrameKind::RemoteWrite1 => "remote_write_1",
        FrameKind::RemoteWrite2 => "remote_write_2",
    }
}

fn outcome_name(index: usize) -> &'static str {
    match index {
        0 => "ok",
        1 => "partial",
        refused => Reason::ALL[refused - 2].name(),
    }
}
