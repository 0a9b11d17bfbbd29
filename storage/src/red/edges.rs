//! Calls between services: pairs of a client span and the server span below it.
//!
//! The two come from two senders, in any order and seconds apart, so each waits for the other for a while. Pairs
//! become cells like those of spans, under kinds that no span has.

use super::store::Exemplar;
use crate::spans::{STATUS_ERROR, SpanBatch, SpanFields};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Kind of cells that count calls by the span of the caller; `service` is the caller, `operation` the callee.
pub const EDGE_CLIENT: i32 = -2;

/// The same calls by the span of the callee.
pub const EDGE_SERVER: i32 = -1;

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// Spans of each side that wait at most. Spans of one trace come within seconds; 65,536 spans a side are at least
/// one second at the highest rate a machine takes in, and about 8 MiB.
const WAITING_MAX: usize = 1 << 16;

/// Hash of the trace ID and the ID of the client span: half as large as the two, and with as many as wait, less than
/// one in a hundred million would be taken for another.
type CallId = u64;

fn call_id(trace_id: &[u8; 16], span_id: &[u8; 8]) -> CallId {
    let mut id = [0; 24];
    id[..16].copy_from_slice(trace_id);
    id[16..].copy_from_slice(span_id);
    xxh3_64(&id)
}

/// One end of a call.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub service: Arc<str>,
    pub exemplar: Exemplar,
    pub status: i32,
}

/// A call whose two ends are known.
#[derive(Debug)]
pub(super) struct Call {
    pub client: End,
    pub server: End,
}

/// Ends of calls that wait for the other end.
#[derive(Debug, Default)]
pub(super) struct Pairing {
    clients: FxHashMap<CallId, End>,
    servers: FxHashMap<CallId, Vec<End>>,
    /// In order of arrival, to let go of the oldest.
    clients_order: VecDeque<CallId>,
    servers_order: VecDeque<CallId>,
}

impl Pairing {
    /// Takes one span in; returns the calls that it completes. A client span may have several servers below it
    /// (retries by a proxy), so it goes on waiting.
    pub(super) fn observe(&mut self, batch: &SpanBatch, span: &SpanFields) -> Vec<Call> {
        let end = || End {
            service: batch.resources[span.resource as usize].service_name.clone(),
            exemplar: Exemplar {
                trace_id: span.trace_id,
                span_id: span.span_id,
                time_ns: span.start_ns,
                duration_ns: span.duration_ns(),
            },
            status: span.status_code,
        };
        match span.kind {
            CLIENT | PRODUCER => {
                let id = call_id(&span.trace_id, &span.span_id);
                let client = end();
                let servers = self.servers.remove(&id).unwrap_or_default();
                let calls = servers
                    .into_iter()
                    .filter(|server| server.service != client.service)
                    .map(|server| Call { client: client.clone(), server })
                    .collect();
                if self.clients.insert(id, client).is_none() {
                    self.clients_order.push_back(id);
                }
                if self.clients_order.len() > WAITING_MAX
                    && let Some(oldest) = self.clients_order.pop_front()
                {
                    self.clients.remove(&oldest);
                }
                calls
            }
            SERVER | CONSUMER if span.parent_span_id != [0; 8] => {
                let id = call_id(&span.trace_id, &span.parent_span_id);
                if let Some(client) = self.clients.get(&id) {
                    let server = end();
                    return if server.service == client.service {
                        Vec::new()
                    } else {
                        vec![Call { client: client.clone(), server }]
                    };
                }
                self.servers.entry(id).or_default().push(end());
                self.servers_order.push_back(id);
                if self.servers_order.len() > WAITING_MAX
                    && let Some(oldest) = self.servers_order.pop_front()
                {
                    self.servers.remove(&oldest);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

impl Call {
    /// Error when either end saw one.
    pub(super) fn status(&self) -> i32 {
        if self.client.status == STATUS_ERROR { STATUS_ERROR } else { self.server.status }
    }
}
