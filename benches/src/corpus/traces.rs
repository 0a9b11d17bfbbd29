//! Traces: 8 to 60 spans each, exported within about two seconds of their end, as collectors do.

use super::random::{Random, mix};
use super::shop::{CONSUMER, ENTRY, SERVICES, STEPS};
use super::wire::Message;
use super::{HOUR_NS, Requests, Settings, Shop, requests};

/// What a span is, and with it its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Server,
    Client,
    Database,
    Internal,
    Producer,
    Consumer,
}

/// One span; its ID follows from its place.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub trace: u32,
    /// Place of the parent, `u32::MAX` for the root.
    pub parent: u32,
    pub pod: u16,
    pub shape: Shape,
    /// Which route, table or step.
    pub operation: u8,
    /// The service called, for clients.
    pub peer: u8,
    pub error: bool,
    pub start_ns: u64,
    pub duration_ns: u64,
    exported_ns: u64,
}

impl Span {
    pub fn end_ns(&self) -> u64 {
        self.start_ns + self.duration_ns
    }
}

/// One trace; its ID follows from its place.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    pub start_ns: u64,
    /// Place of its first span, the root; the others follow.
    pub first_span: u32,
    pub spans: u32,
}

const TRACES: usize = 64_000;

/// All traces, oldest first, and their spans, trace by trace.
pub fn plan(settings: &Settings, pods_per_service: usize) -> (Vec<Trace>, Vec<Span>) {
    let count = settings.of(TRACES);
    let mut random = Random::new(settings.traffic_seed() ^ 0x706c_616e);
    let mut starts: Vec<u64> = (0..count)
        .map(|_| settings.start_ns + (random.unit() * (HOUR_NS - 10_000_000_000) as f64) as u64)
        .collect();
    starts.sort_unstable();
    let mut spans = Vec::with_capacity(count * 25);
    let traces = starts
        .iter()
        .enumerate()
        .map(|(number, start_ns)| {
            let first_span = spans.len() as u32;
            plant(&mut spans, number as u32, *start_ns, pods_per_service, &mut random);
            Trace { start_ns: *start_ns, first_span, spans: spans.len() as u32 - first_span }
        })
        .collect();
    (traces, spans)
}

/// Grows one trace from its root.
fn plant(spans: &mut Vec<Span>, trace: u32, start_ns: u64, pods: usize, random: &mut Random) {
    let first = spans.len();
    // Many small ones, few of 60; 24 on average.
    let wanted = 8 + (53.0 * random.unit().powf(2.25)) as usize;
    let pod_of = |service: usize, random: &mut Random| (service * pods + random.below(pods)) as u16;
    let root = Span {
        trace,
        parent: u32::MAX,
        pod: pod_of(ENTRY, random),
        shape: Shape::Server,
        operation: random.below(SERVICES[ENTRY].routes.len()) as u8,
        peer: 0,
        error: false,
        start_ns,
        duration_ns: (random.log_normal(160e6, 0.6) as u64).clamp(5_000_000, 8_000_000_000),
        exported_ns: 0,
    };
    spans.push(root);
    let mut open = vec![first];
    while spans.len() - first < wanted {
        // The newest have most children: chains, not stars.
        let at = open.len() - 1 - (open.len() as f64 * random.unit().powi(2)) as usize;
        let parent = open[at];
        let of = spans[parent];
        let (service, left) = (usize::from(of.pod) / pods, wanted - (spans.len() - first));
        let served = &SERVICES[service];
        let share = 0.08 + 0.5 * random.unit();
        let offset = random.unit() * (1.0 - share) * 0.9;
        let mut child = Span {
            parent: parent as u32,
            start_ns: of.start_ns
                + (of.duration_ns as f64 * offset) as u64
                + random.below(9_000) as u64,
            duration_ns: ((of.duration_ns as f64 * share) as u64).max(20_000)
                + random.below(999) as u64,
            ..of
        };
        let dice = random.unit();
        if dice < 0.5 && left >= 2 && !served.calls.is_empty() {
            let peer = *random.pick(served.calls);
            child.shape = Shape::Client;
            child.peer = peer as u8;
            child.operation = random.below(SERVICES[peer].routes.len()) as u8;
            spans.push(child);
            open.push(spans.len());
            spans.push(Span {
                parent: spans.len() as u32 - 1,
                pod: pod_of(peer, random),
                shape: Shape::Server,
                start_ns: child.start_ns + child.duration_ns / 20,
                duration_ns: child.duration_ns * 9 / 10,
                ..child
            });
        } else if dice < 0.56 && left >= 2 && served.topic.is_some() {
            child.shape = Shape::Producer;
            child.peer = service as u8;
            spans.push(child);
            open.push(spans.len());
            spans.push(Span {
                parent: spans.len() as u32 - 1,
                pod: pod_of(CONSUMER, random),
                shape: Shape::Consumer,
                start_ns: child.end_ns() + 2_000_000 + random.below(30_000_000) as u64,
                ..child
            });
        } else if dice < 0.85
            && let Some((_, tables)) = served.database
        {
            child.shape = Shape::Database;
            child.operation = random.below(tables.len()) as u8;
            spans.push(child);
        } else {
            child.shape = Shape::Internal;
            child.operation = random.below(STEPS.len()) as u8;
            open.push(spans.len());
            spans.push(child);
        }
    }
    for span in &mut spans[first..] {
        span.error = random.unit() < 0.02;
        span.exported_ns = span.end_ns() + (random.unit() * 2e9) as u64;
    }
}

/// The requests in the order in which they are exported.
pub fn encode(shop: &Shop) -> Requests {
    let mut order: Vec<u32> = (0..shop.spans.len() as u32).collect();
    order.sort_by_key(|span| shop.spans[*span as usize].exported_ns);
    let pod_of = |span: u32| usize::from(shop.spans[span as usize].pod);
    requests("/v1/traces", &order, pod_of, |chunk, body| {
        let mut request = Message(body);
        for of_pod in chunk.chunk_by(|a, b| pod_of(*a) == pod_of(*b)) {
            let pod = &shop.pods[pod_of(of_pod[0])];
            request.message(1, |resource_spans| {
                resource_spans.bytes(1, &pod.resource);
                resource_spans.message(2, |scope_spans| {
                    scope_spans.message(1, |scope| {
                        scope.text(1, "shop.instrumentation");
                        scope.text(2, "0.61.0");
                    });
                    for span in of_pod {
                        scope_spans.message(2, |message| write(shop, *span, message));
                    }
                });
                resource_spans.text(3, "https://opentelemetry.io/schemas/1.37.0");
            });
        }
    })
}

/// Method and route of a server or client span.
pub fn route(service: usize, operation: u8) -> (&'static str, &'static str) {
    SERVICES[service].routes[usize::from(operation)]
}

fn write(shop: &Shop, place: u32, message: &mut Message<'_>) {
    let span = &shop.spans[place as usize];
    let pod = &shop.pods[usize::from(span.pod)];
    message.bytes(1, &shop.trace_id(span.trace));
    message.bytes(2, &shop.span_id(place));
    if span.parent != u32::MAX {
        message.bytes(4, &shop.span_id(span.parent));
    }
    let hash = mix(shop.settings.traffic_seed() ^ u64::from(place));
    let (name, kind) = match span.shape {
        Shape::Server => {
            let (method, path) = route(pod.service, span.operation);
            (format!("{method} {path}"), 2)
        }
        Shape::Client => (route(usize::from(span.peer), span.operation).0.to_owned(), 3),
        Shape::Database => (format!("{} {}", verb(hash), table(pod.service, span.operation).1), 3),
        Shape::Internal => (STEPS[usize::from(span.operation)].to_owned(), 1),
        Shape::Producer => (format!("send {}", topic(span)), 4),
        Shape::Consumer => (format!("process {}", topic(span)), 5),
    };
    message.text(5, &name);
    message.varint(6, kind);
    message.fixed64(7, span.start_ns);
    message.fixed64(8, span.end_ns());
    match span.shape {
        Shape::Server | Shape::Client => http(shop, span, hash, message),
        Shape::Database => database(span, pod.service, hash, message),
        Shape::Internal => internal(span, hash, message),
        Shape::Producer | Shape::Consumer => messaging(span, hash, message),
    }
    if span.error {
        message.message(11, |event| {
            event.fixed64(1, span.end_ns());
            event.text(2, "exception");
            event.attribute(3, "exception.type", "UpstreamError");
            event.attribute(3, "exception.message", "upstream did not answer in time");
        });
        message.message(15, |status| {
            status.text(2, "upstream did not answer in time");
            status.varint(3, 2);
        });
    }
    message.fixed32(16, 0x101);
}

fn http(shop: &Shop, span: &Span, hash: u64, message: &mut Message<'_>) {
    let server = span.shape == Shape::Server;
    let pod = &shop.pods[usize::from(span.pod)];
    let service = if server { pod.service } else { usize::from(span.peer) };
    let (method, path) = route(service, span.operation);
    message.attribute(9, "http.request.method", method);
    message.attribute_int(9, "http.response.status_code", if span.error { 503 } else { 200 });
    message.attribute_int(9, "server.port", 8080);
    if server {
        message.attribute(9, "http.route", path);
        message.attribute(9, "url.path", &filled(path, hash));
        message.attribute(9, "url.scheme", "http");
        message.attribute(
            9,
            "client.address",
            &format!("10.4.{}.{}", hash % 3, 100 + hash / 3 % 84),
        );
        message.attribute_int(9, "thread.id", 20 + hash / 256 % 16);
    } else {
        message.attribute(9, "server.address", SERVICES[service].name);
        let url = format!("http://{}{}", SERVICES[service].name, filled(path, hash));
        message.attribute(9, "url.full", &url);
        message.attribute(9, "network.peer.address", &pod.address);
        message.attribute_int(9, "http.request.resend_count", u64::from(hash.is_multiple_of(50)));
        message.attribute_int(9, "thread.id", 20 + hash / 256 % 16);
    }
}

/// A route with its variables filled in.
fn filled(route: &str, hash: u64) -> String {
    match route.find('{') {
        None => route.to_owned(),
        Some(at) => {
            let rest = route[at..].find('}').map_or("", |end| &route[at + end + 1..]);
            format!("{}{}{}", &route[..at], 10_000 + hash % 40_000, rest.replace("{item}", "3"))
        }
    }
}

const VERBS: [&str; 4] = ["SELECT", "SELECT", "INSERT", "UPDATE"];

fn verb(hash: u64) -> &'static str {
    VERBS[hash as usize % VERBS.len()]
}

fn table(service: usize, operation: u8) -> (&'static str, &'static str) {
    let (system, tables) = SERVICES[service].database.unwrap_or(("other_sql", &["rows"]));
    (system, tables[usize::from(operation) % tables.len()])
}

fn topic(span: &Span) -> &'static str {
    SERVICES[usize::from(span.peer)].topic.unwrap_or("events")
}

fn database(span: &Span, service: usize, hash: u64, message: &mut Message<'_>) {
    let (system, table) = table(service, span.operation);
    let verb = verb(hash);
    message.attribute(9, "db.system.name", system);
    message.attribute(9, "db.namespace", "shop");
    message.attribute(9, "db.operation.name", verb);
    message.attribute(9, "db.collection.name", table);
    let text = match verb {
        "SELECT" => format!("SELECT * FROM {table} WHERE id = $1"),
        "INSERT" => format!("INSERT INTO {table} VALUES ($1, $2, $3)"),
        _ => format!("UPDATE {table} SET v = $1 WHERE id = $2"),
    };
    message.attribute(9, "db.query.text", &text);
    message.attribute(9, "server.address", "db-1");
    message.attribute_int(9, "server.port", 5432);
    message.attribute_int(9, "db.response.returned_rows", hash / 4 % 25);
    message.attribute_int(9, "thread.id", 20 + hash / 256 % 16);
}

fn internal(span: &Span, hash: u64, message: &mut Message<'_>) {
    let step = STEPS[usize::from(span.operation)];
    message.attribute(9, "code.function.name", &step.replace(' ', "_"));
    message.attribute_int(9, "code.line.number", 40 + u64::from(span.operation) * 31);
    message.attribute_int(9, "thread.id", 20 + hash / 256 % 16);
    message.attribute(9, "thread.name", &format!("worker-{}", hash / 256 % 16));
    message.attribute(9, "shop.customer.tier", ["basic", "silver", "gold"][hash as usize % 3]);
    message.attribute(9, "enduser.id", &format!("c-{}", 10_000 + hash / 8 % 50_000));
    message.attribute_int(9, "shop.cart.items", hash / 16 % 12);
    message.attribute(9, "feature_flag.result.variant", if hash & 1 == 0 { "on" } else { "off" });
}

fn messaging(span: &Span, hash: u64, message: &mut Message<'_>) {
    let sends = span.shape == Shape::Producer;
    message.attribute(9, "messaging.system", "kafka");
    message.attribute(9, "messaging.destination.name", topic(span));
    message.attribute(9, "messaging.operation.type", if sends { "send" } else { "process" });
    message.attribute(9, "messaging.destination.partition.id", &(hash % 12).to_string());
    message.attribute_int(9, "messaging.kafka.offset", 1_000_000 + u64::from(span.trace));
    message.attribute(9, "messaging.client.id", if sends { "producer-1" } else { "consumer-1" });
    message.attribute_int(9, "messaging.message.body.size", 200 + hash / 16 % 900);
    message.attribute(9, "server.address", "kafka-1");
    message.attribute_int(9, "thread.id", 20 + hash / 256 % 16);
}
