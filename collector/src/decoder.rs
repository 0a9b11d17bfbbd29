//! The store's decoder: which kind of frame is read by what.

use crate::decode::{DecodeLimits, logs, metrics, remote_write, spans};
use std::sync::Arc;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::{Decoded, Decoder, FrameKind};

/// Decodes OTLP and remote-write frames, at ingest and at replay.
pub struct FrameDecoder {
    interner: Arc<Interner>,
    limits: DecodeLimits,
}

impl FrameDecoder {
    /// * `interner`: shared with the stores, so that a resource known to one is known to all.
    pub fn new(interner: Arc<Interner>, limits: DecodeLimits) -> Self {
        Self { interner, limits }
    }
}

impl Decoder for FrameDecoder {
    fn decode(&self, kind: FrameKind, body: &[u8], arrival_ns: u64) -> Result<Decoded, String> {
        match kind {
            FrameKind::OtlpTraces => spans::decode(body, arrival_ns, &self.interner, &self.limits),
            FrameKind::OtlpLogs => logs::decode(body, arrival_ns, &self.interner, &self.limits),
            FrameKind::OtlpMetrics => {
                metrics::decode(body, arrival_ns, &self.interner, &self.limits)
            }
            FrameKind::RemoteWrite1 | FrameKind::RemoteWrite2 => {
                remote_write::decode(kind, body, arrival_ns, &self.interner, &self.limits)
            }
        }
    }
}
