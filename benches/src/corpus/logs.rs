//! Logs: 204 templates, half of the records inside a span.

use super::random::Random;
use super::wire::Message;
use super::{HOUR_NS, Requests, Shop, requests};

const LOGS: usize = 1_024_000;

/// Severity number and text, pattern. `{s}` subject, `{u}` customer, `{o}` an ID, `{n}` a number, `{d}` a small one,
/// `{ms}` milliseconds.
const PATTERNS: [(u8, &str); 17] = [
    (9, "{s} accepted for customer {u} through channel {d} in {ms} ms, basket of {n}"),
    (13, "{s} rejected: the limit of {n} per hour is reached for customer {u}"),
    (5, "loaded {n} {s} rows from replica db-{d} in {ms} ms, cursor {o}"),
    (5, "cache miss for {s} key {o}, reading through to the primary in {ms} ms"),
    (9, "{s} {o} reserved at warehouse {d}, {n} left on the shelf"),
    (13, "retrying {s} {o} after {ms} ms, attempt {d} of 12, backoff doubled"),
    (17, "timed out waiting for the {s} service after {ms} ms, request {o}"),
    (9, "{s} {o} handed to carrier {d} with weight {n} g and label printed"),
    (9, "published {s} event {o} to partition {d} at offset {n}"),
    (9, "consumed {s} event {o} from partition {d}, lag is now {n} messages"),
    (17, "connection pool for {s} exhausted, {n} callers waiting since {ms} ms"),
    (9, "user {u} changed {s} preferences from address 10.8.{d}.{d}"),
    (9, "feature flag new-{s}-flow evaluated to variant {d} for {u}, rule {n}"),
    (9, "{s} {o} priced at {n}.{d} EUR with a discount of {d} percent"),
    (13, "slow query on {s} took {ms} ms and examined {n} rows for {o}"),
    (17, "{s} {o} declined by the issuer with code {n}, customer {u} informed"),
    (9, "health probe of {s} answered in {ms} ms, uptime {n} s"),
];

const SUBJECTS: [&str; 12] = [
    "order", "cart", "payment", "invoice", "session", "product", "review", "voucher", "shipment",
    "account", "stock", "refund",
];

/// Words and phrases that queries ask for, each in some templates and in no variable part.
pub const WORDS: [&str; 8] =
    ["accepted", "voucher", "declined", "exhausted", "published", "slow", "refund", "doubled"];
pub const PHRASES: [&str; 5] = [
    "timed out waiting",
    "connection pool for payment",
    "handed to carrier",
    "cache miss for cart",
    "lag is now",
];

/// Severities as histograms name them.
pub const SEVERITIES: [(u8, &str); 4] = [(5, "DEBUG"), (9, "INFO"), (13, "WARN"), (17, "ERROR")];

/// What is known of one record.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    pub time_ns: u64,
    pub template: u8,
    pub pod: u16,
    /// Place of the span in which it was written, `u32::MAX` when there is none.
    pub span: u32,
}

/// All records, oldest first.
pub struct Facts {
    pub logs: Vec<Log>,
}

/// The template's text with its subject, variables still in braces.
pub fn template(number: u8) -> String {
    let (pattern, subject) = parts(number);
    PATTERNS[pattern].1.replace("{s}", SUBJECTS[subject])
}

pub fn severity(number: u8) -> u8 {
    PATTERNS[parts(number).0].0
}

fn parts(number: u8) -> (usize, usize) {
    (usize::from(number) / SUBJECTS.len(), usize::from(number) % SUBJECTS.len())
}

/// Cumulated weights: few templates make most of the volume, warnings and errors are rare.
fn weights(random: &mut Random) -> Vec<f64> {
    let count = PATTERNS.len() * SUBJECTS.len();
    let mut sum = 0.0;
    (0..count)
        .map(|number| {
            let rank = random.below(count) as f64;
            let rare = match severity(number as u8) {
                17 => 0.12,
                13 => 0.4,
                _ => 1.0,
            };
            sum += rare / (rank + 4.0);
            sum
        })
        .collect()
}

fn plan(shop: &Shop) -> Vec<Log> {
    let mut random = Random::new(shop.settings.traffic_seed() ^ 0x6c6f_6773);
    let weights = weights(&mut random);
    let total = weights[weights.len() - 1];
    let mut logs: Vec<Log> = (0..shop.settings.of(LOGS))
        .map(|number| {
            let at = random.unit() * total;
            let template = weights.partition_point(|sum| *sum <= at) as u8;
            if number % 2 == 0 {
                let place = random.below(shop.spans.len());
                let span = &shop.spans[place];
                let into = (span.duration_ns as f64 * random.unit()) as u64;
                Log { time_ns: span.start_ns + into, template, pod: span.pod, span: place as u32 }
            } else {
                let time_ns = shop.settings.start_ns + (random.unit() * HOUR_NS as f64) as u64;
                let pod = random.below(shop.pods.len()) as u16;
                Log { time_ns, template, pod, span: u32::MAX }
            }
        })
        .collect();
    logs.sort_by_key(|log| log.time_ns);
    logs
}

/// The requests in time order.
pub fn encode(shop: &Shop) -> (Requests, Facts) {
    let logs = plan(shop);
    let order: Vec<u32> = (0..logs.len() as u32).collect();
    let pod_of = |log: u32| usize::from(logs[log as usize].pod);
    let requests = requests("/v1/logs", &order, pod_of, |chunk, body| {
        let mut request = Message(body);
        let mut text = String::new();
        for of_pod in chunk.chunk_by(|a, b| pod_of(*a) == pod_of(*b)) {
            request.message(1, |resource_logs| {
                resource_logs.bytes(1, &shop.pods[pod_of(of_pod[0])].resource);
                resource_logs.message(2, |scope_logs| {
                    scope_logs.message(1, |scope| scope.text(1, "shop.logging"));
                    for place in of_pod {
                        scope_logs.message(2, |record| {
                            write(shop, &logs[*place as usize], *place, &mut text, record);
                        });
                    }
                });
            });
        }
    });
    (requests, Facts { logs })
}

fn write(shop: &Shop, log: &Log, place: u32, text: &mut String, record: &mut Message<'_>) {
    let mut random = Random::new(shop.settings.traffic_seed() ^ u64::from(place) << 20);
    let severity = severity(log.template);
    record.fixed64(1, log.time_ns);
    record.varint(2, u64::from(severity));
    let name = SEVERITIES.iter().find(|(number, _)| *number == severity).map_or("INFO", |s| s.1);
    record.text(3, name);
    body(log.template, &mut random, text);
    record.message(5, |any| any.text(1, text));
    record.attribute(6, "thread.name", &format!("worker-{}", random.below(16)));
    record.attribute_int(6, "code.line.number", 30 + 7 * u64::from(log.template));
    if log.span != u32::MAX {
        record.fixed32(8, 1);
        record.bytes(9, &shop.trace_id(shop.spans[log.span as usize].trace));
        record.bytes(10, &shop.span_id(log.span));
    }
    record.fixed64(11, log.time_ns + 1_000 * random.below(900) as u64);
}

/// Fills a template in.
fn body(template: u8, random: &mut Random, out: &mut String) {
    use std::fmt::Write as _;
    out.clear();
    let (pattern, subject) = parts(template);
    let mut rest = PATTERNS[pattern].1;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((variable, after)) = after.split_once('}') else { break };
        // Writing to a string can't fail.
        let _ = match variable {
            "s" => write!(out, "{}", SUBJECTS[subject]),
            "u" => write!(out, "c-{}", 10_000 + random.below(50_000)),
            "o" => write!(out, "{:010x}0", random.next() >> 24),
            "d" => write!(out, "{}", 1 + random.below(12)),
            "ms" => write!(out, "{}", random.log_normal(40.0, 0.9) as u64 + 1),
            _ => write!(out, "{}", random.below(5_000)),
        };
        rest = after;
    }
    out.push_str(rest);
}
