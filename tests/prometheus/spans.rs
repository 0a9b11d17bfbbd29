//! Metrics derived from spans, hours apart: counters count from the first span on, whatever part of it a query sees.

use crate::remote::Remote;
use serde_json::{Value, json};

const HOURS: u64 = 5;
const HOUR_S: u64 = 3_600;

/// Three calls of an operation in each hour: 100, 200 and 400 ms, from the 100th second on.
fn send(remote: &Remote, hour: u64) {
    let spans: Vec<Value> = [100, 200, 400]
        .iter()
        .enumerate()
        .map(|(i, ms)| {
            let start_ms = (hour * HOUR_S + 100 + 10 * i as u64) * 1_000;
            json!({
                "traceId": format!("{:032x}", hour * 10 + i as u64 + 1),
                "spanId": format!("{:016x}", hour * 10 + i as u64 + 1),
                "name": "pay",
                "kind": 2,
                "startTimeUnixNano": (start_ms * 1_000_000).to_string(),
                "endTimeUnixNano": ((start_ms + ms) * 1_000_000).to_string(),
            })
        })
        .collect();
    let service = json!({"key": "service.name", "value": {"stringValue": "shop"}});
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": [service]},
        "scopeSpans": [{"spans": spans}],
    }]});
    let url = format!("{}/v1/traces", remote.server.otlp_http);
    let request = remote.client.post(url).json(&body);
    let status = remote.runtime.block_on(async { request.send().await.unwrap().status() });
    assert_eq!(status, 200);
}

/// The one number that a query gives at a time.
fn number(remote: &Remote, query: &str, time_s: u64) -> f64 {
    let time = time_s.to_string();
    let data = remote.get("query", &[("query", query), ("time", &time)]).data();
    let result = data["result"].as_array().unwrap();
    assert_eq!(result.len(), 1, "{query} at {time_s}: {data}");
    result[0]["value"][1].as_str().unwrap().parse().unwrap()
}

fn check(remote: &Remote) {
    for hour in 0..HOURS {
        let time_s = hour * HOUR_S + 200;
        let calls = 3.0 * (hour + 1) as f64;
        for (query, want) in [
            ("traces_spanmetrics_calls_total", calls),
            ("traces_spanmetrics_latency_count", calls),
            ("traces_spanmetrics_latency_bucket{le=\"+Inf\"}", calls),
            ("traces_spanmetrics_latency_bucket{le=\"0.25\"}", calls / 3.0 * 2.0),
            ("histogram_count(traces_spanmetrics_latency)", calls),
            ("traces_spanmetrics_latency_sum", 0.7 * (hour + 1) as f64),
            ("histogram_sum(traces_spanmetrics_latency)", 0.7 * (hour + 1) as f64),
        ] {
            let got = number(remote, query, time_s);
            assert!((got - want).abs() < 1e-9, "{query} in hour {hour}: {got}, not {want}");
        }
        // Two selectors that see different parts of the counter agree about it.
        if hour > 0 {
            let grown = "traces_spanmetrics_calls_total - traces_spanmetrics_calls_total offset 1h";
            assert_eq!(number(remote, grown, time_s), 3.0, "hour {hour}");
        }
        for quantile in [
            "histogram_quantile(0.5, sum by (le) (rate(traces_spanmetrics_latency_bucket[5m])))",
            "histogram_quantile(0.5, sum(rate(traces_spanmetrics_latency[5m])))",
            "histogram_quantile(0.5, traces_spanmetrics_latency)",
        ] {
            let got = number(remote, quantile, time_s);
            assert!((got - 0.2).abs() < 0.002, "{quantile} in hour {hour}: {got}");
        }
    }
    let end = (HOURS * HOUR_S).to_string();
    for query in ["traces_spanmetrics_calls_total", "histogram_count(traces_spanmetrics_latency)"] {
        let range = [("query", query), ("start", "0"), ("end", &end), ("step", "60")];
        let data = remote.get("query_range", &range).data();
        let points = data["result"][0]["values"].as_array().unwrap();
        let values: Vec<f64> =
            points.iter().map(|point| point[1].as_str().unwrap().parse().unwrap()).collect();
        assert!(values.is_sorted(), "{query}: {values:?}");
        assert_eq!(values.last(), Some(&(3.0 * HOURS as f64)), "{query}");
    }
}

#[test]
fn span_counters_never_go_back_in_memory_and_in_files() {
    let remote = Remote::start(&[]);
    (0..HOURS).for_each(|hour| send(&remote, hour));
    check(&remote);
    // Stopping seals what is in memory.
    let remote = Remote::over(remote.stop(), &[]);
    check(&remote);
    // Again, from sums that are remembered now; and with a late call.
    check(&remote);
    assert_eq!(number(&remote, "traces_spanmetrics_calls_total", 4 * HOUR_S + 200), 15.0);
    send(&remote, 7);
    assert_eq!(number(&remote, "traces_spanmetrics_calls_total", 7 * HOUR_S + 200), 18.0);
    let names = remote.get("label/__name__/values", &[("match[]", r#"{service="shop"}"#)]).data();
    assert_eq!(names.as_array().unwrap().len(), 5, "{names}");
}
