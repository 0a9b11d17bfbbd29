//! Trace exports as a web shop's collectors would send them: 12 services with 3 instances each, 20 resource
//! attributes, about 10 attributes a span, 8 to 60 spans a trace, 800 spans a request, the spans of a trace spread
//! over two seconds of requests.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;

const SPANS_PER_REQUEST: usize = 800;
const INSTANCES: usize = 3;
const TRACES_PER_SECOND: f64 = 18.0;

pub const SERVICES: [&str; 12] = [
    "gateway",
    "catalog",
    "reviews",
    "recommendations",
    "cart",
    "inventory",
    "checkout",
    "payment",
    "notifications",
    "search",
    "accounts",
    "shipping",
];
/// A service deals with three of them, from the one of its own number on.
pub const NOUNS: [&str; 8] =
    ["product", "cart", "order", "review", "user", "stock", "invoice", "session"];

/// Makes requests one after the other; the same seed makes the same ones.
pub struct Corpus {
    random: StdRng,
    /// Start of the next trace, Unix ns.
    clock_ns: u64,
    resources: Vec<Resource>,
    /// Spans on their way, by the time at which they are sent; the number keeps equal times apart.
    sending: BTreeMap<(u64, u64), (usize, Span)>,
    made: u64,
    pub trace_ids: Vec<[u8; 16]>,
}

impl Corpus {
    pub fn new(seed: u64, start_ns: u64) -> Self {
        let resources = (0..SERVICES.len() * INSTANCES).map(resource).collect();
        Self {
            random: StdRng::seed_from_u64(seed),
            clock_ns: start_ns,
            resources,
            sending: BTreeMap::new(),
            made: 0,
            trace_ids: Vec::new(),
        }
    }

    /// The next request, with the Unix ns at which it comes in.
    pub fn request(&mut self) -> (Bytes, u64) {
        // Everything that may be sent before the clock has been made once the clock is past it.
        while self.sending.len() < SPANS_PER_REQUEST
            || self.sending.keys().nth(SPANS_PER_REQUEST - 1).is_some_and(|k| k.0 >= self.clock_ns)
        {
            self.trace();
        }
        let mut of_resource: BTreeMap<usize, Vec<Span>> = BTreeMap::new();
        let mut arrival_ns = 0;
        for _ in 0..SPANS_PER_REQUEST {
            let Some(((sent_ns, _), (resource, span))) = self.sending.pop_first() else { break };
            arrival_ns = sent_ns;
            of_resource.entry(resource).or_default().push(span);
        }
        let resource_spans = of_resource
            .into_iter()
            .map(|(resource, spans)| ResourceSpans {
                resource: Some(self.resources[resource].clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "io.opentelemetry.shop".into(),
                        version: "2.7.0".into(),
                        ..Default::default()
                    }),
                    spans,
                    schema_url: String::new(),
                }],
                schema_url: "https://opentelemetry.io/schemas/1.30.0".into(),
            })
            .collect();
        (ExportTraceServiceRequest { resource_spans }.encode_to_vec().into(), arrival_ns)
    }

    fn trace(&mut self) {
        let gap = -self.random.random::<f64>().ln() / TRACES_PER_SECOND;
        self.clock_ns += (gap * 1e9) as u64;
        let trace_id: [u8; 16] = self.random.random();
        self.trace_ids.push(trace_id);
        let count = self.random.random_range(8..=40).max(self.random.random_range(8..=60));
        let count = count.min(self.random.random_range(8..=60));
        let failed = self.random.random_bool(0.2);
        let mut spans: Vec<(usize, Span)> = Vec::with_capacity(count);
        for i in 0..count {
            let parent = (i > 0).then(|| self.random.random_range(i.saturating_sub(6)..i));
            let span = self.span(&trace_id, parent.map(|at| &spans[at]), failed && i + 1 == count);
            spans.push(span);
        }
        for (resource, span) in spans {
            let sent_ns = span.end_time_unix_nano + self.random.random_range(0..2_000_000_000);
            self.made += 1;
            self.sending.insert((sent_ns, self.made), (resource, span));
        }
    }

    fn span(
        &mut self,
        trace_id: &[u8; 16],
        parent: Option<&(usize, Span)>,
        failed: bool,
    ) -> (usize, Span) {
        let random = &mut self.random;
        // A client span of the parent's service, the server span below it, or work inside the service.
        let (kind, resource) = match parent {
            None => (2, random.random_range(0..INSTANCES)),
            Some((_, span)) if span.kind == 3 && !span.name.contains(' ') => {
                (2, random.random_range(0..self.resources.len()))
            }
            Some((resource, _)) => {
                (*[1, 3, 3].get(random.random_range(0..3)).unwrap_or(&1), *resource)
            }
        };
        let noun = NOUNS[(resource / INSTANCES + random.random_range(0..3)) % NOUNS.len()];
        let id = random.random_range(1..50_000u32);
        let database = kind == 3 && random.random_bool(0.5);
        let (name, attributes) = match kind {
            2 => server(random, noun, id, failed),
            3 if database => query(random, noun),
            3 => client(random, noun, id),
            _ => inside(random, noun, id),
        };
        let (start, end) = match parent {
            None => {
                let ms = 20.0 * (random.random::<f64>() * 2.5).exp();
                (self.clock_ns, self.clock_ns + (ms * 1e6) as u64)
            }
            Some((_, span)) => {
                let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
                let length = (end - start).max(1_000);
                let from = start + (length as f64 * random.random::<f64>() * 0.4) as u64;
                (from, from + (length as f64 * (0.1 + 0.5 * random.random::<f64>())) as u64)
            }
        };
        let events = if failed {
            vec![Event {
                time_unix_nano: end,
                name: "exception".into(),
                attributes: vec![
                    text("exception.type", "TimeoutError"),
                    text("exception.message", &format!("no answer about {noun} {id}")),
                ],
                dropped_attributes_count: 0,
            }]
        } else {
            Vec::new()
        };
        let span = Span {
            trace_id: trace_id.to_vec(),
            span_id: random.random::<[u8; 8]>().to_vec(),
            parent_span_id: parent.map(|(_, span)| span.span_id.clone()).unwrap_or_default(),
            flags: 0x101,
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes,
            events,
            status: failed.then(|| Status { code: 2, message: "timed out".into() }),
            ..Default::default()
        };
        (resource, span)
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Any::StringValue(value.to_owned()))
}

fn int(key: &str, value: i64) -> KeyValue {
    pair(key, Any::IntValue(value))
}

fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

fn server(random: &mut StdRng, noun: &str, id: u32, failed: bool) -> (String, Vec<KeyValue>) {
    let method =
        *["GET", "GET", "GET", "POST", "PUT"].get(random.random_range(0..5)).unwrap_or(&"GET");
    let status = if failed { 504 } else { 200 };
    let attributes = vec![
        text("http.request.method", method),
        text("url.path", &format!("/api/{noun}/{id}")),
        text("url.scheme", "http"),
        text("http.route", &format!("/api/{noun}/{{id}}")),
        int("http.response.status_code", status),
        text("server.address", "shop.example"),
        int("server.port", 8080),
        text("network.protocol.version", "1.1"),
        text("client.address", &format!("10.{}.{}.{}", id % 4, id % 250, id % 199)),
        text(
            "user_agent.original",
            &format!("Mozilla/5.0 (X11; Linux x86_64) Chrome/{}.0", 120 + id % 12),
        ),
        text("user.id", &format!("user-{}", random.random_range(0..10_000))),
    ];
    (format!("{method} /api/{noun}/{{id}}"), attributes)
}

fn client(random: &mut StdRng, noun: &str, id: u32) -> (String, Vec<KeyValue>) {
    let peer = SERVICES[random.random_range(0..SERVICES.len())];
    let attributes = vec![
        text("http.request.method", "GET"),
        text("url.full", &format!("http://{peer}:8080/api/{noun}/{id}")),
        int("http.response.status_code", 200),
        text("server.address", peer),
        int("server.port", 8080),
        text("network.protocol.name", "http"),
        text("network.protocol.version", "1.1"),
        text("network.peer.address", &format!("10.1.0.{}", id % 36)),
        int("http.response.body.size", i64::from(id % 9_000)),
        int("http.request.resend_count", 0),
    ];
    ("GET".into(), attributes)
}

fn query(random: &mut StdRng, noun: &str) -> (String, Vec<KeyValue>) {
    let attributes = vec![
        text("db.system.name", "postgresql"),
        text("db.namespace", "shop"),
        text("db.operation.name", "SELECT"),
        text("db.collection.name", noun),
        text("db.query.text", &format!("SELECT * FROM {noun} WHERE id = $1 ORDER BY created_at")),
        text("db.query.summary", &format!("SELECT {noun}")),
        text("server.address", "postgres-primary.shop.svc"),
        int("server.port", 5432),
        text("network.transport", "tcp"),
        int("db.response.returned_rows", random.random_range(0..40)),
    ];
    (format!("SELECT {noun}"), attributes)
}

fn inside(random: &mut StdRng, noun: &str, id: u32) -> (String, Vec<KeyValue>) {
    let attributes = vec![
        text("code.function.name", &format!("shop::{noun}::load")),
        int("code.line.number", 120),
        text("app.cache", if random.random_bool(0.8) { "hit" } else { "miss" }),
        text("app.key", &format!("{noun}:{id}")),
        int("thread.id", random.random_range(1..17)),
        text("thread.name", &format!("worker-{}", random.random_range(1..17))),
        pair("app.sampled", Any::BoolValue(true)),
        pair("app.score", Any::DoubleValue(f64::from(id % 1_000) / 1_000.0)),
    ];
    (format!("load {noun}"), attributes)
}

fn resource(number: usize) -> Resource {
    let (service, instance) = (SERVICES[number / INSTANCES], number % INSTANCES);
    let attributes = vec![
        text("service.name", service),
        text("service.namespace", "shop"),
        text("service.version", "1.42.0"),
        text("service.instance.id", &format!("{service}-{instance}-6f9c8d7b5-x{number:02}k")),
        text("deployment.environment.name", "production"),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.language", "rust"),
        text("telemetry.sdk.version", "0.32.0"),
        text("host.name", &format!("node-{}", number % 5)),
        text("host.arch", "amd64"),
        text("os.type", "linux"),
        text("k8s.cluster.name", "shop-eu"),
        text("k8s.namespace.name", "shop"),
        text("k8s.deployment.name", service),
        text("k8s.pod.name", &format!("{service}-6f9c8d7b5-x{number:02}k")),
        text("k8s.pod.uid", &format!("0b5c6d7e-1f2a-4b3c-8d9e-{number:012x}")),
        text("k8s.node.name", &format!("node-{}", number % 5)),
        text("container.image.name", &format!("registry.example/shop/{service}")),
        int("process.pid", 1),
        text("process.runtime.name", "rustc"),
    ];
    Resource { attributes, ..Default::default() }
}
