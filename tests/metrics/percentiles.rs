//! Span metrics against spans of known durations: counts and error ratios are exact, percentiles within 1%, over fresh
//! cells and over merged hours.

use crate::common::Server;
use crate::story::{self, SECOND_NS, instant, now_s, number};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Spans of each side of a call, every how many-th of which fails.
const SPANS: u64 = 2_000;
const FAILED: u64 = 8;

/// Spans a request.
const AT_ONCE: u64 = 500;

/// Each falls on one span, not between two.
const QUANTILES: [f64; 4] = [0.4999, 0.9499, 0.9899, 0.9989];

/// Calls of `front` to `api`: durations as the callee and as the caller saw them, ns, ascending.
struct Calls {
    server_ns: Vec<u64>,
    client_ns: Vec<u64>,
}

impl Calls {
    /// Calls whose durations spread from 1 ms to 1 s, with some slow ones beyond.
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let server_ns = (0..SPANS)
            .map(|n| {
                let ms =
                    1000f64.powf(random.random::<f64>()) * if n % 100 == 0 { 4.0 } else { 1.0 };
                (ms * 1e6) as u64
            })
            .collect::<Vec<_>>();
        let client_ns = server_ns.iter().map(|ns| ns + 2_000_000 + ns / 7).collect();
        Self { server_ns, client_ns }
    }

    /// Sends the part `from..to` of the calls, spread evenly over `width_s` seconds from `start_s` on.
    async fn send(&self, server: &Server, from: u64, to: u64, start_s: u64, width_s: u64) {
        for first in (from..to).step_by(AT_ONCE as usize) {
            let (mut callers, mut callees) = (Vec::new(), Vec::new());
            for n in first..(first + AT_ONCE).min(to) {
                let begin = start_s * SECOND_NS + n * width_s * SECOND_NS / SPANS;
                let span = |id: u64, parent: u64, kind: u8, ns: u64, status: u8| -> Value {
                    json!({
                        "traceId": format!("{:032x}", start_s * SPANS + n + 1), "spanId": format!("{id:016x}"),
                        "parentSpanId": format!("{parent:016x}"), "name": "GET /stock", "kind": kind,
                        "startTimeUnixNano": begin.to_string(), "endTimeUnixNano": (begin + ns).to_string(),
                        "status": {"code": status},
                    })
                };
                let failed = if n % FAILED == 0 { 2 } else { 0 };
                callers.push(span(1, 0, 3, self.client_ns[n as usize], 0));
                callees.push(span(2, 1, 2, self.server_ns[n as usize], failed));
            }
            let body = story::spans(&[("front", callers), ("api", callees)]);
            story::send(server, "traces", &body).await;
        }
    }
}

/// The least value that a share `q` of all does not exceed, seconds.
fn exact(values_ns: &[u64], q: f64) -> f64 {
    let mut sorted = values_ns.to_vec();
    sorted.sort_unstable();
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.max(1) - 1] as f64 / 1e9
}

/// Checks all percentiles over the `range` before `time_s`, from classic and native histograms.
async fn percentiles(server: &Server, calls: &[&Calls], range: &str, time_s: f64) {
    let all =
        |of: fn(&Calls) -> &[u64]| calls.iter().flat_map(|c| of(c)).copied().collect::<Vec<_>>();
    let (server_ns, client_ns) = (all(|c| &c.server_ns), all(|c| &c.client_ns));
    for (metric, selector, values) in [
        (
            "traces_spanmetrics_latency",
            "service=\"api\",span_kind=\"SPAN_KIND_SERVER\"",
            &server_ns,
        ),
        ("traces_spanmetrics_latency", "service=\"front\"", &client_ns),
        ("traces_service_graph_request_server_seconds", "client=\"front\"", &server_ns),
        ("traces_service_graph_request_client_seconds", "server=\"api\"", &client_ns),
    ] {
        for q in QUANTILES {
            let exact = exact(values, q);
            for query in [
                format!("sum by (le) (increase({metric}_bucket{{{selector}}}[{range}]))"),
                format!("sum(rate({metric}{{{selector}}}[{range}]))"),
            ] {
                let query = format!("histogram_quantile({q}, {query})");
                let found = number(server, &query, time_s).await;
                let error = (found / exact - 1.0).abs();
                assert!(error < 0.01, "{query}: {found} is {error} off {exact}");
            }
        }
    }
}

/// Checks counts and sums at `time_s`, by when `calls` are all there is.
async fn counts(server: &Server, calls: &[&Calls], time_s: f64) {
    let total = SPANS * calls.len() as u64;
    let failed = total / FAILED;
    for (query, count) in [
        ("sum(traces_spanmetrics_calls_total{service=\"api\"})", total),
        (
            "sum(traces_spanmetrics_calls_total{service=\"front\",span_kind=\"SPAN_KIND_CLIENT\"})",
            total,
        ),
        (
            "sum(traces_spanmetrics_calls_total{service=\"api\",status_code=\"STATUS_CODE_ERROR\"})",
            failed,
        ),
        ("sum(traces_spanmetrics_latency_count{service=\"api\"})", total),
        ("sum(traces_spanmetrics_latency_bucket{service=\"api\",le=\"+Inf\"})", total),
        ("sum(histogram_count(traces_spanmetrics_latency{service=\"api\"}))", total),
        ("sum(traces_service_graph_request_total{client=\"front\",server=\"api\"})", total),
        ("sum(traces_service_graph_request_failed_total{client=\"front\",server=\"api\"})", failed),
        ("sum(traces_service_graph_request_client_seconds_count)", total),
    ] {
        assert_eq!(number(server, query, time_s).await, count as f64, "{query}");
    }
    let ratio = "sum(traces_spanmetrics_calls_total{service=\"api\",status_code=\"STATUS_CODE_ERROR\"}) \
                 / sum(traces_spanmetrics_calls_total{service=\"api\"})";
    assert_eq!(number(server, ratio, time_s).await, 1.0 / FAILED as f64);
    let sum_ns: u128 = calls.iter().flat_map(|c| &c.server_ns).map(|ns| u128::from(*ns)).sum();
    let sum = number(server, "sum(traces_spanmetrics_latency_sum{service=\"api\"})", time_s).await;
    assert!((sum / (sum_ns as f64 / 1e9) - 1.0).abs() < 1e-9, "{sum}");
}

/// The native API's percentiles come with an interval that holds the exact one and is as narrow as three digits allow.
async fn native_api(server: &Server, calls: &[&Calls], start_s: u64, end_s: u64) {
    let (start, end) = ((start_s * SECOND_NS).to_string(), (end_s * SECOND_NS).to_string());
    let range = [("start", &*start), ("end", &*end)];
    let detail = server.get("/api/services/api", &range).await.unwrap();
    let list = server.get("/api/services", &range).await.unwrap();
    let row = list["services"].as_array().unwrap().iter().find(|row| row["name"] == "api").unwrap();
    let values: Vec<u64> = calls.iter().flat_map(|c| &c.server_ns).copied().collect();
    let total = values.len() as u64;
    assert_eq!(row["error_ratio"], 1.0 / FAILED as f64);
    for answer in [&detail, row, &detail["operations"][0]] {
        assert_eq!(answer["count"], total);
        assert_eq!(answer["error_count"], total / FAILED);
        for (key, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            let exact = exact(&values, q) * 1e9;
            let bound = |name: &str| answer[key][name].as_f64().unwrap();
            let (low, high) = (bound("low_ns"), bound("high_ns"));
            assert!(low <= exact && exact <= high, "{key}: {exact} is not in {low} to {high}");
            assert!(
                high - low <= exact / 1000.0,
                "{key}: {low} to {high} is wider than three digits"
            );
            assert!(low <= bound("value_ns") && bound("value_ns") <= high);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_percentiles_are_within_a_hundredth_and_counts_exact() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let now = now_s();
    let calls = Calls::new(7);
    calls.send(&server, 0, SPANS, now - 300, 290).await;
    counts(&server, &[&calls], now as f64).await;
    percentiles(&server, &[&calls], "10m", now as f64).await;
    native_api(&server, &[&calls], now - 600, now + 60).await;

    // Every point of a range query, too: the counts of each minute.
    let edges = instant(&server, "traces_service_graph_request_total", now as f64).await;
    let labels: Vec<&str> = edges[0].0.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(labels, ["__name__", "client", "server"]);
    let spans =
        instant(&server, "traces_spanmetrics_calls_total{service=\"api\"}", now as f64).await;
    assert_eq!(
        spans[0].0,
        json!({
            "__name__": "traces_spanmetrics_calls_total", "service": "api", "service_name": "api",
            "span_kind": "SPAN_KIND_SERVER", "span_name": "GET /stock", "status_code": "STATUS_CODE_ERROR",
        })
    );
    server.stop();
}

/// Until the compactor must have merged a handful of small segments.
const MERGED_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn percentiles_over_merged_hours_are_as_good() {
    const HOUR_S: u64 = 3600;
    let dir = tempfile::tempdir().unwrap();
    let start = now_s() / HOUR_S * HOUR_S - 72 * HOUR_S;
    let hours: Vec<Calls> = (0..3).map(Calls::new).collect();
    // Each run ends with a segment for each hour; two of an old hour are merged.
    for (from, to) in [(0, SPANS / 2), (SPANS / 2, SPANS)] {
        let server = Server::start_with(dir.path(), &["--retention", "unlimited"]);
        for (hour, calls) in hours.iter().enumerate() {
            calls.send(&server, from, to, start + hour as u64 * HOUR_S, HOUR_S).await;
        }
        server.stop();
    }
    let server = Server::start_with(dir.path(), &["--retention", "unlimited"]);
    // Five groups of spans, three of them by service, kind and status, two by call and status; one cell each an hour.
    let give_up = Instant::now() + MERGED_MAX;
    loop {
        let status = server.get("/api/status", &[]).await.unwrap();
        let red = &status["segments"]["red"];
        if red["segments"] == 3 && red["rows"] == 3 * 7 {
            break;
        }
        assert!(Instant::now() < give_up, "not merged into hours: {red}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let all: Vec<&Calls> = hours.iter().collect();
    let end = (start + 3 * HOUR_S) as f64;
    counts(&server, &all, end).await;
    // A window is open on the left: one that begins with the first hour would leave a quarter of it out.
    percentiles(&server, &all, "4h", end).await;
    // The second hour alone, and minutes within the third.
    percentiles(&server, &all[1..2], "1h", (start + 2 * HOUR_S) as f64).await;
    percentiles(&server, &all[2..], "5m", end - HOUR_S as f64 / 2.0).await;
    native_api(&server, &all, start, start + 3 * HOUR_S - 1).await;
    server.stop();
}
