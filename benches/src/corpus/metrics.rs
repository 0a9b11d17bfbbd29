//! Metrics: each instance exports 54 OTLP streams every 15 s, 17 of them histograms, as 326 Prometheus series.

use super::random::Random;
use super::shop::SERVICES;
use super::traces::route;
use super::wire::Message;
use super::{HOUR_NS, PER_REQUEST, Requests, Shop};
use bytes::Bytes;

/// Time between two exports, ns.
pub const STEP_NS: u64 = 15_000_000_000;
pub const STEPS: usize = (HOUR_NS / STEP_NS) as usize;

/// Bounds of `http.server.request.duration` as the semantic conventions advise.
pub const BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const BUCKETS: usize = BOUNDS.len() + 1;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Gauge,
    UpDown,
    Counter,
    Histogram,
}

struct Metric {
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    kind: Kind,
    double: bool,
    /// Values of the attribute `key`, one stream each.
    key: &'static str,
    values: &'static [&'static str],
}

const fn metric(
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    double: bool,
    key: &'static str,
    values: &'static [&'static str],
    description: &'static str,
) -> Metric {
    Metric { name, unit, description, kind, double, key, values }
}

const METRICS: [Metric; 22] = [
    metric(
        "http.server.request.duration",
        "s",
        Kind::Histogram,
        true,
        "",
        &[""; 10],
        "Duration of HTTP server requests.",
    ),
    metric(
        "http.client.request.duration",
        "s",
        Kind::Histogram,
        true,
        "server.address",
        &["a", "b", "c", "d"],
        "Duration of HTTP client requests.",
    ),
    metric(
        "db.client.operation.duration",
        "s",
        Kind::Histogram,
        true,
        "db.operation.name",
        &["SELECT", "INSERT", "UPDATE"],
        "Duration of database client operations.",
    ),
    metric(
        "process.cpu.time",
        "s",
        Kind::Counter,
        true,
        "cpu.mode",
        &["user", "system"],
        "Total CPU seconds broken down by different states.",
    ),
    metric(
        "process.memory.usage",
        "By",
        Kind::UpDown,
        false,
        "",
        &[""],
        "The amount of physical memory in use.",
    ),
    metric(
        "process.memory.virtual",
        "By",
        Kind::UpDown,
        false,
        "",
        &[""],
        "The amount of committed virtual memory.",
    ),
    metric(
        "process.thread.count",
        "{thread}",
        Kind::UpDown,
        false,
        "",
        &[""],
        "Process threads count.",
    ),
    metric(
        "process.unix.file_descriptor.count",
        "{file_descriptor}",
        Kind::UpDown,
        false,
        "",
        &[""],
        "Number of unix file descriptors in use by the process.",
    ),
    metric(
        "process.context_switches",
        "{context_switch}",
        Kind::Counter,
        false,
        "process.context_switch_type",
        &["voluntary", "involuntary"],
        "Number of times the process has been context switched.",
    ),
    metric(
        "process.paging.faults",
        "{fault}",
        Kind::Counter,
        false,
        "process.paging.fault_type",
        &["major", "minor"],
        "Number of page faults the process has made.",
    ),
    metric(
        "http.server.active_requests",
        "{request}",
        Kind::UpDown,
        false,
        "http.request.method",
        &["GET", "POST"],
        "Number of active HTTP server requests.",
    ),
    metric(
        "db.client.connection.count",
        "{connection}",
        Kind::UpDown,
        false,
        "db.client.connection.state",
        &["idle", "used"],
        "The number of connections in the state described by the attribute.",
    ),
    metric(
        "db.client.connection.pending_requests",
        "{request}",
        Kind::UpDown,
        false,
        "",
        &[""],
        "The number of current pending requests for an open connection.",
    ),
    metric(
        "db.client.connection.max",
        "{connection}",
        Kind::UpDown,
        false,
        "",
        &[""],
        "The maximum number of open connections allowed.",
    ),
    metric(
        "runtime.gc.collections",
        "{gc}",
        Kind::Counter,
        false,
        "gc.generation",
        &["young", "old"],
        "Garbage collections.",
    ),
    metric(
        "runtime.gc.pause.time",
        "s",
        Kind::Counter,
        true,
        "",
        &[""],
        "Time in which collection stopped the program.",
    ),
    metric(
        "runtime.heap.used",
        "By",
        Kind::Gauge,
        false,
        "heap.pool",
        &["eden", "survivor", "old", "meta", "code"],
        "Heap in use.",
    ),
    metric(
        "system.network.io",
        "By",
        Kind::Counter,
        false,
        "network.io.direction",
        &["receive", "transmit", "receive-lo", "transmit-lo"],
        "Bytes moved over the network.",
    ),
    metric(
        "system.disk.io",
        "By",
        Kind::Counter,
        false,
        "disk.io.direction",
        &["read", "write"],
        "Bytes moved to and from disks.",
    ),
    metric(
        "system.cpu.utilization",
        "1",
        Kind::Gauge,
        true,
        "cpu.logical_number",
        &["0", "1"],
        "Share of CPU time not spent idle.",
    ),
    metric(
        "shop.queue.length",
        "{request}",
        Kind::Gauge,
        false,
        "",
        &[""],
        "Requests that wait for a worker.",
    ),
    metric(
        "shop.events",
        "{event}",
        Kind::Counter,
        false,
        "shop.event.name",
        &["viewed", "added", "ordered", "paid"],
        "What customers did.",
    ),
];

/// Every metric of [`METRICS`] under its Prometheus name begins with one of these.
pub const NAME_PATTERN: &str = "(http|db|process|runtime|system|shop)_.+";

/// Prometheus series of one instance: a histogram shows as its buckets, +Inf among them, count and sum.
pub const SERIES_PER_POD: usize = 37 + 17 * (BUCKETS + 2);

/// What is known of the points: the histograms of server requests and memory in use.
pub struct Facts {
    /// Places of the instances that export.
    pub pods: Vec<usize>,
    /// By instance and step: when, Unix ns.
    pub times_ns: Vec<Vec<u64>>,
    /// By instance, stream and step: cumulative bucket counts of server request durations.
    pub durations: Vec<Vec<Vec<[u64; BUCKETS]>>>,
    /// By instance and step.
    pub memory_bytes: Vec<Vec<i64>>,
}

/// A stream of one instance while the hour goes by.
struct Stream {
    metric: usize,
    /// Encoded attributes, as fields of the point's message.
    attributes: Vec<u8>,
    /// Mean of what is added per step, or level of a gauge.
    pace: f64,
    value: f64,
    counts: [u64; BUCKETS],
    sum: f64,
    least: f64,
    most: f64,
    exemplar: Option<Exemplar>,
}

#[derive(Clone, Copy)]
struct Exemplar {
    time_ns: u64,
    value: f64,
    trace: u32,
    span: u32,
}

/// A point on its way into a request.
struct Row {
    pod: usize,
    metric: usize,
    point: Vec<u8>,
}

/// The requests in time order.
pub fn encode(shop: &Shop) -> (Requests, Facts) {
    let mut random = Random::new(shop.settings.traffic_seed() ^ 0x6d65_7472);
    let count = if shop.settings.scale >= 1.0 {
        shop.pods.len()
    } else {
        shop.settings.of(shop.pods.len())
    };
    let pods: Vec<usize> = (0..count).map(|number| number * shop.pods.len() / count).collect();
    let mut streams: Vec<Vec<Stream>> =
        pods.iter().map(|pod| streams_of(shop.pods[*pod].service, &mut random)).collect();
    let mut facts = Facts {
        times_ns: vec![Vec::with_capacity(STEPS); count],
        durations: vec![vec![Vec::with_capacity(STEPS); 10]; count],
        memory_bytes: vec![Vec::with_capacity(STEPS); count],
        pods,
    };
    let mut bodies = Vec::new();
    let mut rows: Vec<Row> = Vec::with_capacity(PER_REQUEST);
    let mut records = 0;
    for step in 0..STEPS {
        for (number, streams) in streams.iter_mut().enumerate() {
            let due = shop.settings.start_ns
                + step as u64 * STEP_NS
                + STEP_NS * number as u64 / count as u64;
            let time_ns = due + random.below(4_000_000) as u64;
            facts.times_ns[number].push(time_ns);
            for (place, stream) in streams.iter_mut().enumerate() {
                advance(shop, stream, time_ns, &mut random);
                let metric = &METRICS[stream.metric];
                if stream.metric == 0 {
                    facts.durations[number][place].push(stream.counts);
                } else if metric.name == "process.memory.usage" {
                    facts.memory_bytes[number].push(stream.value as i64);
                }
                let mut point = Vec::with_capacity(400);
                write(shop, stream, time_ns, &mut Message(&mut point));
                rows.push(Row { pod: facts.pods[number], metric: stream.metric, point });
                if rows.len() == PER_REQUEST {
                    records += rows.len() as u64;
                    bodies.push(request(shop, &rows));
                    rows.clear();
                }
            }
        }
    }
    if !rows.is_empty() {
        records += rows.len() as u64;
        bodies.push(request(shop, &rows));
    }
    (Requests { path: "/v1/metrics", bodies, records }, facts)
}

fn streams_of(service: usize, random: &mut Random) -> Vec<Stream> {
    let mut streams = Vec::new();
    for (number, metric) in METRICS.iter().enumerate() {
        for (place, value) in metric.values.iter().enumerate() {
            let mut attributes = Vec::new();
            let mut message = Message(&mut attributes);
            let histogram = metric.kind == Kind::Histogram;
            let key = if histogram { 9 } else { 7 };
            let mut pace = match (metric.kind, metric.unit) {
                (Kind::Histogram, _) => 4.0 + 8.0 * random.unit(),
                (_, "By") => 4e6 + 6e7 * random.unit(),
                (Kind::Counter, "s") => 0.2 + 2.0 * random.unit(),
                (Kind::Gauge, "1") => 0.2 + 0.5 * random.unit(),
                _ => 3.0 + 60.0 * random.unit(),
            };
            match metric.name {
                "http.server.request.duration" => {
                    let routes = SERVICES[service].routes.len();
                    let status = [200, 500, 404, 503, 429][place / routes];
                    let (method, path) = route(service, (place % routes) as u8);
                    message.attribute(key, "http.request.method", method);
                    message.attribute(key, "http.route", path);
                    message.attribute_int(key, "http.response.status_code", status);
                    if status != 200 {
                        pace = 0.05 + 0.1 * random.unit();
                    }
                }
                "http.client.request.duration" => {
                    let called = SERVICES[(service + place + 1) % SERVICES.len()].name;
                    message.attribute(key, metric.key, called);
                    message.attribute(key, "http.request.method", "GET");
                }
                "db.client.operation.duration" => {
                    let system =
                        SERVICES[service].database.map_or("other_sql", |database| database.0);
                    message.attribute(key, "db.system.name", system);
                    message.attribute(key, metric.key, value);
                }
                _ if metric.key.is_empty() => {}
                _ => message.attribute(key, metric.key, value),
            }
            streams.push(Stream {
                metric: number,
                attributes,
                pace,
                value: if metric.kind == Kind::Counter { 0.0 } else { pace },
                counts: [0; BUCKETS],
                sum: 0.0,
                least: f64::INFINITY,
                most: 0.0,
                exemplar: None,
            });
        }
    }
    streams
}

/// Lets one step go by.
fn advance(shop: &Shop, stream: &mut Stream, time_ns: u64, random: &mut Random) {
    let metric = &METRICS[stream.metric];
    match metric.kind {
        Kind::Histogram => {
            stream.exemplar = None;
            for _ in 0..random.poisson(stream.pace) {
                // Microseconds, as clocks in use give them.
                let value = (random.log_normal(0.06, 0.9) * 1e6).round() / 1e6;
                stream.counts[BOUNDS.partition_point(|bound| *bound < value)] += 1;
                stream.sum += value;
                stream.least = stream.least.min(value);
                stream.most = stream.most.max(value);
                if stream.metric == 0 && random.unit() < 0.05 {
                    stream.exemplar = exemplar(shop, time_ns, value, random);
                }
            }
        }
        Kind::Counter if metric.double => stream.value += stream.pace * random.unit(),
        Kind::Counter => stream.value += random.poisson(stream.pace) as f64,
        Kind::Gauge if metric.double => {
            stream.value = (stream.pace * (0.7 + 0.6 * random.unit())).min(1.0);
        }
        _ if metric.name == "db.client.connection.max" => stream.value = 50.0,
        // Levels move in steps and now and then.
        _ if random.unit() < 0.7 => {
            stream.value = (stream.pace * (0.8 + 0.4 * random.unit())).round();
            if metric.unit == "By" {
                stream.value -= stream.value % 4096.0;
            }
        }
        _ => {}
    }
}

/// The root of a trace that began shortly before.
fn exemplar(shop: &Shop, time_ns: u64, value: f64, random: &mut Random) -> Option<Exemplar> {
    let at = time_ns - random.below(STEP_NS as usize) as u64;
    let after = shop.traces.partition_point(|trace| trace.start_ns <= at);
    let trace = after.checked_sub(1)?;
    let span = shop.traces[trace].first_span;
    Some(Exemplar { time_ns: at, value, trace: trace as u32, span })
}

fn write(shop: &Shop, stream: &Stream, time_ns: u64, message: &mut Message<'_>) {
    let metric = &METRICS[stream.metric];
    let started_ns = shop.settings.start_ns - 7_200_000_000_000;
    if metric.kind != Kind::Gauge {
        message.fixed64(2, started_ns);
    }
    message.fixed64(3, time_ns);
    message.0.extend_from_slice(&stream.attributes);
    if metric.kind != Kind::Histogram {
        if metric.double {
            message.double(4, stream.value);
        } else {
            message.fixed64(6, stream.value as i64 as u64);
        }
        return;
    }
    let count: u64 = stream.counts.iter().sum();
    message.fixed64(4, count);
    message.double(5, stream.sum);
    message.packed(6, stream.counts.iter().copied());
    message.packed(7, BOUNDS.iter().map(|bound| bound.to_bits()));
    if let Some(exemplar) = stream.exemplar {
        message.message(8, |out| {
            out.fixed64(2, exemplar.time_ns);
            out.double(3, exemplar.value);
            out.bytes(4, &shop.span_id(exemplar.span));
            out.bytes(5, &shop.trace_id(exemplar.trace));
        });
    }
    if count > 0 {
        message.double(11, stream.least);
        message.double(12, stream.most);
    }
}

fn request(shop: &Shop, rows: &[Row]) -> Bytes {
    let mut body = Vec::new();
    let mut request = Message(&mut body);
    for of_pod in rows.chunk_by(|a, b| a.pod == b.pod) {
        request.message(1, |resource_metrics| {
            resource_metrics.bytes(1, &shop.pods[of_pod[0].pod].resource);
            resource_metrics.message(2, |scope_metrics| {
                scope_metrics.message(1, |scope| scope.text(1, "shop.metrics"));
                for points in of_pod.chunk_by(|a, b| a.metric == b.metric) {
                    scope_metrics.message(2, |message| {
                        write_metric(&METRICS[points[0].metric], points, message);
                    });
                }
            });
        });
    }
    body.into()
}

fn write_metric(metric: &Metric, points: &[Row], message: &mut Message<'_>) {
    message.text(1, metric.name);
    message.text(2, metric.description);
    message.text(3, metric.unit);
    let field = match metric.kind {
        Kind::Gauge => 5,
        Kind::UpDown | Kind::Counter => 7,
        Kind::Histogram => 9,
    };
    message.message(field, |data| {
        for row in points {
            data.bytes(1, &row.point);
        }
        if metric.kind != Kind::Gauge {
            // Cumulative.
            data.varint(2, 2);
        }
        if metric.kind == Kind::Counter {
            data.varint(3, 1);
        }
    });
}
