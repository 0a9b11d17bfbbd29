//! The corpus: an hour of a web shop as encoded OTLP requests, and what is true of it.
//!
//! Everything follows from the seed, the scale and the start. Spans, logs and exemplars share trace IDs; each request
//! holds 800 records grouped by instance, as a collector's batches do.

pub mod logs;
pub mod metrics;
pub mod random;
pub mod shop;
pub mod traces;
mod wire;

use bytes::Bytes;
use random::mix;
use shop::Pod;
use traces::Trace;

/// Records per request.
pub const PER_REQUEST: usize = 800;

/// Length of the corpus, ns.
pub const HOUR_NS: u64 = 3_600_000_000_000;

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub seed: u64,
    /// Tells apart what happens in one shop: traces, logs and values, but not the instances and their series.
    pub traffic: u64,
    /// 1 is 64,000 traces, 1,024,000 logs, 84 instances with metrics.
    pub scale: f64,
    /// Start of the hour, Unix ns.
    pub start_ns: u64,
}

impl Settings {
    pub fn of(&self, at_full_scale: usize) -> usize {
        ((at_full_scale as f64 * self.scale).round() as usize).max(1)
    }

    pub fn traffic_seed(&self) -> u64 {
        self.seed ^ self.traffic << 40
    }
}

/// Encoded requests of one signal.
pub struct Requests {
    pub path: &'static str,
    pub bodies: Vec<Bytes>,
    pub records: u64,
}

impl Requests {
    pub fn bytes(&self) -> u64 {
        self.bodies.iter().map(|body| body.len() as u64).sum()
    }
}

/// What all signals share, and the facts of traces.
pub struct Shop {
    pub settings: Settings,
    pub pods: Vec<Pod>,
    pub traces: Vec<Trace>,
    pub spans: Vec<traces::Span>,
}

impl Shop {
    pub fn new(settings: Settings) -> Self {
        let per_service =
            (shop::PODS_PER_SERVICE as f64 * settings.scale.max(1.0)).round() as usize;
        let pods = shop::pods(settings.seed, per_service);
        let (traces, spans) = traces::plan(&settings, per_service);
        Self { settings, pods, traces, spans }
    }

    pub fn trace_id(&self, trace: u32) -> [u8; 16] {
        let seed = self.settings.traffic_seed() ^ 0x7472_6163_6500_0000;
        let (high, low) = (mix(seed ^ u64::from(trace)), mix(!seed ^ u64::from(trace)));
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }

    pub fn span_id(&self, span: u32) -> [u8; 8] {
        mix(self.settings.traffic_seed() ^ 0x7370_616e_0000_0000 ^ u64::from(span)).to_be_bytes()
    }
}

/// Cuts records, in the order in which they are exported, into requests.
///
/// * `pod_of`: the instance of a record; records of one instance stand together in a request.
/// * `encode`: the request of one chunk.
fn requests<T: Copy>(
    path: &'static str,
    records: &[T],
    pod_of: impl Fn(T) -> usize,
    encode: impl Fn(&[T], &mut Vec<u8>),
) -> Requests {
    let mut body = Vec::new();
    let mut bodies = Vec::with_capacity(records.len() / PER_REQUEST + 1);
    let mut chunk: Vec<T> = Vec::with_capacity(PER_REQUEST);
    for of_request in records.chunks(PER_REQUEST) {
        chunk.clear();
        chunk.extend_from_slice(of_request);
        chunk.sort_by_key(|record| pod_of(*record));
        body.clear();
        encode(&chunk, &mut body);
        bodies.push(Bytes::copy_from_slice(&body));
    }
    Requests { path, bodies, records: records.len() as u64 }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use prost::Message;

    fn small() -> Shop {
        Shop::new(Settings { seed: 42, traffic: 0, scale: 0.01, start_ns: 500_000 * HOUR_NS })
    }

    #[test]
    fn requests_are_what_they_say() {
        let shop = small();
        let requests = traces::encode(&shop);
        let mut spans = 0;
        for body in &requests.bodies {
            let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
            for scope in request.resource_spans.iter().flat_map(|r| &r.scope_spans) {
                spans += scope.spans.len();
                assert!(scope.spans.iter().all(|s| s.end_time_unix_nano > s.start_time_unix_nano));
            }
        }
        assert_eq!(spans as u64, requests.records);
        assert_eq!(spans, shop.spans.len());

        let (requests, facts) = logs::encode(&shop);
        let mut logs = 0;
        for body in &requests.bodies {
            let request = ExportLogsServiceRequest::decode(&body[..]).unwrap();
            let scopes = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
            logs += scopes.map(|scope| scope.log_records.len()).sum::<usize>();
        }
        assert_eq!(logs as u64, requests.records);
        assert_eq!(logs, facts.logs.len());

        let (requests, _) = metrics::encode(&shop);
        let mut points = 0;
        for body in &requests.bodies {
            let request = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
            let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
            for metric in scopes.flat_map(|scope| &scope.metrics) {
                points += match metric.data.as_ref().unwrap() {
                    Data::Gauge(g) => g.data_points.len(),
                    Data::Sum(s) => s.data_points.len(),
                    Data::Histogram(h) => {
                        assert!(h.data_points.iter().all(|p| {
                            p.bucket_counts.iter().sum::<u64>() == p.count
                                && p.bucket_counts.len() == p.explicit_bounds.len() + 1
                        }));
                        h.data_points.len()
                    }
                    _ => panic!("a kind that is not made"),
                };
            }
        }
        assert_eq!(points as u64, requests.records);
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let (a, b) = (small(), small());
        assert_eq!(traces::encode(&a).bodies, traces::encode(&b).bodies);
        assert_eq!(logs::encode(&a).0.bodies, logs::encode(&b).0.bodies);
        assert_eq!(metrics::encode(&a).0.bodies, metrics::encode(&b).0.bodies);
    }
}
