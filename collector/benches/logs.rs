//! Where the time and the bytes of a log record go: decode, hot insert, seal, merge, queries.
//!
//! `cargo bench -p trefoil-collector --bench logs [-- RECORDS]`. The corpus is a web shop's hour: 12 services with two
//! instances each, 204 body templates, half of the records inside a trace, four attributes, 800 records a request.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trefoil_collector::decode::{DecodeLimits, logs::decode};
use trefoil_storage::logs::{By, Field, LogFilter, LogQuery, LogRange, LogStore, Order};
use trefoil_storage::resource::Interner;
use trefoil_storage::segment::{PARTITION_NS, SegmentDir, SegmentMeta};
use trefoil_storage::signal::{Batch, SignalStore};

const START_NS: u64 = 400_000 * PARTITION_NS;
const PER_REQUEST: usize = 800;
const TEMPLATES: usize = 204;

const VERBS: [&str; 17] = [
    "received",
    "rejected",
    "loaded",
    "stored",
    "priced",
    "reserved",
    "declined",
    "shipped",
    "queued",
    "retried",
    "cancelled",
    "validated",
    "rendered",
    "expired",
    "refreshed",
    "matched",
    "routed",
];
const NOUNS: [&str; 12] = [
    "order",
    "cart",
    "payment",
    "invoice",
    "session",
    "product",
    "review",
    "voucher",
    "shipment",
    "customer",
    "warehouse",
    "notification",
];
const TAILS: [&str; 4] = [
    "for customer {a} in {b} ms",
    "with id {a} after {b} attempts, total {c} EUR",
    "from 10.{b}.{c}.7:{a} via gateway",
    "because upstream answered {b} ({a})",
];

fn body(template: usize, rng: &mut StdRng) -> String {
    let text = format!(
        "{} {} {}",
        NOUNS[template % NOUNS.len()],
        VERBS[template / NOUNS.len() % VERBS.len()],
        TAILS[template % TAILS.len()]
    );
    text.replace("{a}", &rng.random_range(10_000..99_999_999u32).to_string())
        .replace("{b}", &rng.random_range(1..250u32).to_string())
        .replace("{c}", &rng.random_range(1..250u32).to_string())
}

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(Any::StringValue(value.to_owned())) }
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn resource(service: usize, instance: usize) -> Resource {
    let mut attributes = vec![
        pair("service.name", text(NOUNS[service])),
        pair("service.instance.id", text(&format!("{}-{instance}", NOUNS[service]))),
    ];
    for i in 0..18 {
        attributes.push(pair(&format!("k8s.attribute.{i}"), text(&format!("value-{service}-{i}"))));
    }
    Resource { attributes, ..Resource::default() }
}

/// The hour as encoded requests.
fn corpus(records: usize) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(42);
    let step_ns = PARTITION_NS / records as u64;
    let traces: Vec<[u8; 16]> = (0..records / 16).map(|_| rng.random()).collect();
    let requests = records.div_ceil(PER_REQUEST);
    (0..requests)
        .map(|request| {
            let service = request % NOUNS.len();
            let log_records = (0..PER_REQUEST)
                .map(|i| {
                    // A request holds what one instance logged while all others did too.
                    let at = (request / 24 * 24 * PER_REQUEST + i * 24 + request % 24) as u64;
                    let time = START_NS + (at * step_ns).min(PARTITION_NS - 1);
                    // Each service has its own templates.
                    let template =
                        service + NOUNS.len() * rng.random_range(0..TEMPLATES / NOUNS.len());
                    let error = rng.random_bool(0.02);
                    let traced = rng.random_bool(0.5);
                    let near = at as usize / 16 + rng.random_range(0..50usize);
                    LogRecord {
                        time_unix_nano: time + rng.random_range(0..step_ns),
                        observed_time_unix_nano: time,
                        severity_number: if error { 17 } else { 9 },
                        severity_text: if error { "ERROR".into() } else { "INFO".into() },
                        body: Some(text(&body(template, &mut rng))),
                        attributes: vec![
                            pair(
                                "thread.name",
                                text(&format!("worker-{}", rng.random_range(0..8))),
                            ),
                            pair(
                                "code.function",
                                text(VERBS[template / NOUNS.len() % VERBS.len()]),
                            ),
                            pair(
                                "http.response.status_code",
                                AnyValue {
                                    value: Some(Any::IntValue(if error { 500 } else { 200 })),
                                },
                            ),
                        ],
                        trace_id: if traced {
                            traces[near % traces.len()].to_vec()
                        } else {
                            vec![]
                        },
                        span_id: if traced { rng.random::<[u8; 8]>().to_vec() } else { vec![] },
                        flags: u32::from(traced),
                        ..LogRecord::default()
                    }
                })
                .collect();
            ExportLogsServiceRequest {
                resource_logs: vec![ResourceLogs {
                    resource: Some(resource(service, request / NOUNS.len() % 2)),
                    scope_logs: vec![ScopeLogs {
                        scope: Some(InstrumentationScope {
                            name: "shop".into(),
                            ..Default::default()
                        }),
                        log_records,
                        ..ScopeLogs::default()
                    }],
                    ..ResourceLogs::default()
                }],
            }
            .encode_to_vec()
        })
        .collect()
}

/// CPU seconds of this process, user and system.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn report(name: &str, records: usize, from: (Instant, f64)) {
    let (wall, used) = (from.0.elapsed().as_secs_f64(), cpu() - from.1);
    println!(
        "{name:24} {:6.2} µs CPU/record  {:6.2} s wall  {:9.0} records/CPU-s",
        used * 1e6 / records as f64,
        wall,
        records as f64 / used.max(1e-3)
    );
}

fn now() -> (Instant, f64) {
    (Instant::now(), cpu())
}

fn sizes(metas: &[SegmentMeta], records: usize) {
    for extension in ["parquet", "blk", "idx", "tid"] {
        let bytes: u64 = metas
            .iter()
            .flat_map(|meta| &meta.files)
            .filter(|file| file.extension == extension)
            .map(|file| file.bytes)
            .sum();
        println!("  {extension:8} {:6.2} B/record", bytes as f64 / records as f64);
    }
    let total: u64 = metas.iter().map(SegmentMeta::bytes).sum();
    println!(
        "  {:8} {:6.2} B/record in {} segments",
        "all",
        total as f64 / records as f64,
        metas.len()
    );
}

fn timed(name: &str, rounds: usize, mut run: impl FnMut(usize) -> usize) {
    let mut times: Vec<Duration> = Vec::new();
    let mut hits = 0;
    for round in 0..rounds {
        let from = Instant::now();
        hits += run(round);
        times.push(from.elapsed());
    }
    times.sort_unstable();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    println!("{name:40} p50 {:7.2} ms  p95 {:7.2} ms  ({hits} hits)", at(0.5), at(0.95));
}

fn queries(store: &LogStore, traces: &[[u8; 16]]) {
    let snapshot = store.snapshot();
    let all = LogRange::ALL;
    let count = |filter: &LogFilter| snapshot.count(filter, &all).expect("count") as usize;
    let newest = |filter: LogFilter| {
        let query =
            LogQuery { filter, range: LogRange::ALL, limit: 100, order: Order::NewestFirst };
        snapshot.search(&query).expect("search").len()
    };
    let word = |i: usize| LogFilter::words(Field::Body, VERBS[i % VERBS.len()]);
    timed("count of a word", 17, |i| count(&word(i)));
    timed("count of a phrase", 17, |i| {
        count(&LogFilter::words(Field::Body, &format!("{} for customer", VERBS[i % VERBS.len()])))
    });
    timed("count of a number", 17, |i| {
        count(&LogFilter::words(Field::Body, &(20_000 + i * 7).to_string()))
    });
    timed("newest 100 with a word", 17, |i| newest(word(i)));
    timed("newest 100 with a rare pair", 17, |i| {
        newest(LogFilter::and(vec![word(i), LogFilter::equals(Field::Severity, "error")]))
    });
    timed("logs by trace id", 100.min(traces.len()), |i| newest(LogFilter::TraceId(traces[i])));
    timed("errors of a service", 12, |i| {
        count(&LogFilter::and(vec![
            LogFilter::equals(Field::Service, NOUNS[i]),
            LogFilter::equals(Field::Severity, "error"),
        ]))
    });
    timed("severity per minute", 10, |_| {
        snapshot
            .histogram(&LogFilter::All, &all, 60_000_000_000, &By::Severity)
            .expect("histogram")
            .len()
    });
    timed("count by attribute", 10, |_| {
        count(&LogFilter::equals(Field::named("http.response.status_code"), "500"))
    });
    timed("patterns", 5, |_| snapshot.patterns(&LogFilter::All, &all, 50).expect("patterns").len());
}

fn main() {
    let records: usize =
        std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(500_000);
    let requests = corpus(records);
    let records = requests.len() * PER_REQUEST;
    let bytes: usize = requests.iter().map(Vec::len).sum();
    println!("{records} records, {} B each as OTLP", bytes / records);

    let interner = Arc::new(Interner::default());
    let limits = DecodeLimits::default();
    let arrival_ns = START_NS + PARTITION_NS;
    let from = now();
    let decoded: Vec<_> = requests
        .iter()
        .map(|request| decode(request, arrival_ns, &interner, &limits).expect("a valid request"))
        .collect();
    report("decode", records, from);
    let mut some_traces = Vec::new();
    let store = LogStore::new(interner.clone());
    let folder = tempfile::tempdir().expect("a folder");
    let dir = SegmentDir::new(folder.path().join("segments"), 1).expect("a folder");
    let mut metas = Vec::new();
    let quarter = decoded.len().div_ceil(4);
    let (mut insert, mut seal) = ((Duration::ZERO, 0.0), (Duration::ZERO, 0.0));
    let mut decoded = decoded.into_iter();
    for part in 0..4 {
        let from = now();
        for decoded in decoded.by_ref().take(quarter) {
            if let Batch::Logs(batch) = decoded.batch {
                if let Some(row) = batch.rows.iter().find(|row| row.trace_id != [0; 16]) {
                    some_traces.push(row.trace_id);
                }
                store.insert(batch);
            }
        }
        insert = (insert.0 + from.0.elapsed(), insert.1 + cpu() - from.1);
        if part == 3 {
            println!("hot: {} B/record", store.hot_bytes() * 4 / records);
        }
        let from = now();
        store.freeze();
        let sealed = store.seal(&dir).expect("seal");
        store.publish(&dir, &sealed, &[], true).expect("publish");
        metas.extend(sealed);
        seal = (seal.0 + from.0.elapsed(), seal.1 + cpu() - from.1);
    }
    println!("insert {:.2} µs CPU/record", insert.1 * 1e6 / records as f64);
    println!(
        "seal {:.2} µs CPU/record, {:.2} s wall",
        seal.1 * 1e6 / records as f64,
        seal.0.as_secs_f64()
    );
    sizes(&metas, records);
    queries(&store, &some_traces);
    let from = now();
    let merged = store.compact(&dir, &metas).expect("compact");
    store.publish(&dir, &merged, &metas, false).expect("publish");
    report("compact", records, from);
    sizes(&merged, records);
    queries(&store, &some_traces);
    if let Some(path) = std::env::var_os("KEEP_SEGMENTS") {
        let kept = std::path::PathBuf::from(path);
        std::fs::create_dir_all(&kept).expect("a folder");
        for file in &merged[0].files {
            let from = dir.file_path(&merged[0], &file.extension);
            std::fs::copy(from, kept.join(format!("logs.{}", file.extension))).expect("a copy");
        }
    }
}
