//! OTLP metrics under Prometheus names: what the Python SDK sends shows as Prometheus' OTLP receiver would show it.

use crate::common::Server;
use crate::story::{self, SECOND_NS, get, instant, now_s, number, post};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sends the metrics of `clients/python/metrics.py`.
///
/// * `temporality`: `cumulative` or `delta`.
fn send(server: &Server, temporality: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python: PathBuf = root.join("target/clients-venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make test-setup` first", python.display());
    let status = Command::new(python)
        .arg(root.join("tests/clients/python/metrics.py"))
        .arg(temporality)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &server.otlp_grpc)
        .env("OTEL_EXPORTER_OTLP_INSECURE", "true")
        .status()
        .unwrap();
    assert!(status.success());
}

fn base(server: &Server) -> String {
    format!("{}/prometheus", server.http)
}

/// All series of the client as text, `job` and `instance` checked and left out.
async fn series(server: &Server) -> BTreeSet<String> {
    let found = post(&base(server), "series", &[("match[]", r#"{job="shop/api"}"#)]).await;
    let found = found.as_array().unwrap();
    found
        .iter()
        .map(|labels| {
            let labels = labels.as_object().unwrap();
            assert_eq!((&labels["job"], &labels["instance"]), (&json!("shop/api"), &json!("i-1")));
            let others: Vec<String> = labels
                .iter()
                .filter(|(name, _)| !["__name__", "job", "instance"].contains(&&***name))
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap()))
                .collect();
            format!("{}{{{}}}", labels["__name__"].as_str().unwrap(), others.join(","))
        })
        .collect()
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

const ORDER: &str = "a__b=0.5,http_request_method=GET,key_1st=1,key_x=true";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_python_sdk_sends_has_the_names_types_units_and_labels_of_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, "cumulative");
    let now = now_s() as f64 + 1.0;

    // Name, type, unit, help, value after two rounds.
    for (name, kind, unit, help, value) in [
        ("shop_orders_total", "counter", "", "Orders placed.", 5.0),
        ("queue_bytes_total", "counter", "bytes", "Bytes queued.", 2000.0),
        ("failures_total", "counter", "", "What went wrong.", 2.0),
        ("http_server_active_requests", "gauge", "", "Under way.", 5.0),
        ("room_temperature_celsius", "gauge", "celsius", "How warm it is.", 21.5),
        ("cpu_utilization_ratio", "gauge", "", "How busy it is.", 0.25),
        ("cpu_time_seconds_total", "counter", "seconds", "Time spent.", 12.5),
        ("disk_read_bytes_per_second", "gauge", "bytes_per_second", "How fast it reads.", 4096.0),
        ("target_info", "gauge", "", "Target metadata", 1.0),
    ] {
        assert_eq!(number(&server, name, now).await, value, "{name}");
        let metadata = get(&base(&server), "metadata", &[("metric", name)]).await;
        assert_eq!(metadata, json!({name: [{"type": kind, "unit": unit, "help": help}]}));
    }
    for (family, unit, help) in [
        ("http_server_request_duration_seconds", "seconds", "How long requests take."),
        ("payload_size_bytes", "bytes", "How much is sent."),
    ] {
        let metadata = get(&base(&server), "metadata", &[("metric", family)]).await;
        assert_eq!(metadata, json!({family: [{"type": "histogram", "unit": unit, "help": help}]}));
    }
    assert_eq!(
        series(&server).await,
        set(&[
            &format!("shop_orders_total{{{ORDER}}}"),
            "queue_bytes_total{}",
            "failures_total{}",
            "http_server_active_requests{}",
            "room_temperature_celsius{}",
            "cpu_utilization_ratio{}",
            "cpu_time_seconds_total{}",
            "disk_read_bytes_per_second{}",
            "http_server_request_duration_seconds_bucket{le=0.01}",
            "http_server_request_duration_seconds_bucket{le=0.1}",
            "http_server_request_duration_seconds_bucket{le=1}",
            "http_server_request_duration_seconds_bucket{le=+Inf}",
            "http_server_request_duration_seconds_count{}",
            "http_server_request_duration_seconds_sum{}",
            "payload_size_bytes{}",
            "target_info{host_cpus=8,host_name=host-a}",
        ])
    );

    for (le, count) in [("0.01", 1.0), ("0.1", 1.0), ("1", 2.0), ("+Inf", 3.0)] {
        let query = format!("http_server_request_duration_seconds_bucket{{le=\"{le}\"}}");
        assert_eq!(number(&server, &query, now).await, count, "le {le}");
    }
    assert_eq!(number(&server, "http_server_request_duration_seconds_count", now).await, 3.0);
    assert_eq!(number(&server, "http_server_request_duration_seconds_sum", now).await, 7.303);
    // 1, 4 and 8 in a native histogram: exact powers of two end their buckets.
    assert_eq!(number(&server, "histogram_count(payload_size_bytes)", now).await, 3.0);
    assert_eq!(number(&server, "histogram_sum(payload_size_bytes)", now).await, 13.0);
    let three = "histogram_fraction(0, 4, payload_size_bytes) * 3";
    assert!((number(&server, three, now).await - 2.0).abs() < 1e-9);
    exemplars(&server).await;
    server.stop();
}

/// Each value on the bucket that holds it; of native histograms and counters on the series itself.
async fn exemplars(server: &Server) {
    let (trace_id, span_id) = (format!("{:032x}", 0xa), format!("{:016x}", 0xb));
    for (query, expected) in [
        (
            "http_server_request_duration_seconds_bucket",
            vec![(Some("+Inf"), "7"), (Some("0.01"), "0.003"), (Some("1"), "0.3")],
        ),
        ("shop_orders_total", vec![(None, "2"), (None, "3")]),
    ] {
        let found = post(&base(server), "query_exemplars", &[("query", query)]).await;
        let mut seen: Vec<(Option<&str>, &str)> = Vec::new();
        for series in found.as_array().unwrap() {
            assert_eq!(series["seriesLabels"]["job"], "shop/api");
            for exemplar in series["exemplars"].as_array().unwrap() {
                assert_eq!(exemplar["labels"]["trace_id"], *trace_id);
                assert_eq!(exemplar["labels"]["span_id"], *span_id);
                let value = exemplar["value"].as_str().unwrap();
                seen.push((series["seriesLabels"]["le"].as_str(), value));
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, expected, "{found}");
    }
    let found = post(&base(server), "query_exemplars", &[("query", "payload_size_bytes")]).await;
    assert_eq!(found[0]["exemplars"][0]["labels"]["trace_id"], *trace_id, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_temporality_adds_up_to_what_cumulative_would_be() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, "delta");
    let now = now_s() as f64 + 1.0;
    for (query, value) in [
        ("shop_orders_total", 5.0),
        ("queue_bytes_total", 2000.0),
        ("http_server_request_duration_seconds_count", 3.0),
        ("http_server_request_duration_seconds_sum", 7.303),
        ("http_server_request_duration_seconds_bucket{le=\"1\"}", 2.0),
        ("http_server_request_duration_seconds_bucket{le=\"+Inf\"}", 3.0),
        ("histogram_count(payload_size_bytes)", 3.0),
        ("histogram_sum(payload_size_bytes)", 13.0),
    ] {
        assert_eq!(number(&server, query, now).await, value, "{query}");
    }
    // From zero, where the sender began: the first delta counts in an increase.
    for query in [
        "min_over_time(shop_orders_total[1m])",
        "min_over_time(http_server_request_duration_seconds_count[1m])",
        "min_over_time(http_server_request_duration_seconds_bucket{le=\"+Inf\"}[1m])",
    ] {
        assert_eq!(number(&server, query, now).await, 0.0, "{query}");
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_change_the_names_of_what_is_stored_already() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, "cumulative");
    server.stop();

    const SUFFIX: [&str; 2] =
        ["UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes"];
    const PLAIN: [&str; 2] = ["NoUTF8EscapingWithSuffixes", "NoTranslation"];
    let raw_order = "1st=1,_x=true,a--b=0.5,http.request.method=GET";
    for (strategy, order, expected) in [
        (
            SUFFIX[1],
            ORDER,
            ["shop_orders", "queue_total_bytes", "cpu_utilization", "http_server_request_duration"],
        ),
        (
            PLAIN[0],
            raw_order,
            [
                "shop.orders_total",
                "queue.total.bytes_total",
                "cpu.utilization_ratio",
                "http.server.request.duration_seconds",
            ],
        ),
        (
            PLAIN[1],
            raw_order,
            ["shop.orders", "queue.total.bytes", "cpu.utilization", "http.server.request.duration"],
        ),
    ] {
        let server = Server::start_with(dir.path(), &["--otlp-translation-strategy", strategy]);
        let found = series(&server).await;
        let [orders, queue, cpu, duration] = expected;
        for line in [
            format!("{orders}{{{order}}}"),
            format!("{queue}{{}}"),
            format!("{cpu}{{}}"),
            format!("{duration}_bucket{{le=+Inf}}"),
            format!("{duration}_count{{}}"),
        ] {
            assert!(found.contains(&line), "{strategy}: {line} in {found:#?}");
        }
        let query = format!("{{\"{orders}\"}}");
        assert_eq!(number(&server, &query, now_s() as f64 + 1.0).await, 5.0);
        let values = get(&base(&server), "label/__name__/values", &[]).await;
        assert!(values.as_array().unwrap().contains(&json!(orders)), "{values}");
        server.stop();
    }

    let server = Server::start_with(
        dir.path(),
        &[
            "--otlp-promote-resource-attribute",
            "host.name,service.name",
            "--otlp-promote-scope-metadata",
            "--otlp-keep-identifying-resource-attributes",
        ],
    );
    let found = instant(&server, "failures_total", now_s() as f64 + 1.0).await;
    let labels = json!({
        "__name__": "failures_total", "job": "shop/api", "instance": "i-1",
        "host_name": "host-a", "service_name": "api",
        "otel_scope_name": "lib", "otel_scope_version": "1.2",
        "otel_scope_schema_url": "https://example.invalid/1", "otel_scope_lib_mode": "fast",
    });
    assert_eq!(found, [(labels, 2.0)]);
    let info = instant(&server, "target_info", now_s() as f64 + 1.0).await;
    let labels: Value = json!({
        "__name__": "target_info", "job": "shop/api", "instance": "i-1", "host_name": "host-a", "host_cpus": "8",
        "service_name": "api", "service_namespace": "shop", "service_instance_id": "i-1",
    });
    assert_eq!(info, [(labels, 1.0)]);
    server.stop();
}

/// A counter that goes up by `step` every second from `from_s` until before `until_s`.
async fn count(server: &Server, host: &str, from_s: u64, until_s: u64, step: u64) {
    let points: Vec<Value> = (from_s..until_s)
        .map(|s| {
            let time = (s * SECOND_NS).to_string();
            json!({"timeUnixNano": time, "asInt": ((s - from_s) * step).to_string()})
        })
        .collect();
    let sum = json!({"dataPoints": points, "aggregationTemporality": 2, "isMonotonic": true});
    let metric = json!({"name": "jobs.done", "sum": sum});
    let resource = [("service.name", "worker"), ("host.name", host)];
    story::send(server, "metrics", &story::metrics(&resource, vec![metric])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_name_no_instance_are_not_mixed_into_one_series() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let now = now_s();
    count(&server, "a", now - 100, now, 1).await;
    // Alone, or one after the other, it is one series without an instance.
    let labels = json!({"__name__": "jobs_done_total", "job": "worker"});
    assert_eq!(instant(&server, "jobs_done_total", now as f64).await, [(labels.clone(), 99.0)]);
    count(&server, "b", now - 200, now - 110, 1).await;
    let found = instant(&server, "count_over_time(jobs_done_total[5m])", now as f64).await;
    assert_eq!(found, [(json!({"job": "worker"}), 190.0)]);
    assert_eq!(instant(&server, "jobs_done_total", now as f64).await, [(labels, 99.0)]);

    count(&server, "c", now - 50, now, 10).await;
    for restarted in [false, true] {
        if restarted {
            server.stop();
            server = Server::start(dir.path());
        }
        let with = |host: &str| json!({"job": "worker", "instance": host});
        let rates =
            instant(&server, "sort(round(rate(jobs_done_total[30s]), 0.001))", now as f64 - 1.0)
                .await;
        assert_eq!(rates, [(with("a"), 1.0), (with("c"), 10.0)]);
        let one = instant(
            &server,
            "round(rate(jobs_done_total{instance=\"c\"}[30s]), 0.001)",
            now as f64 - 1.0,
        );
        assert_eq!(one.await, [(with("c"), 10.0)]);
        let none = instant(&server, "jobs_done_total{instance=\"\"}", now as f64).await;
        assert_eq!(none, []);
        let (start, end) = ((now - 40).to_string(), now.to_string());
        let asked = [("start", &*start), ("end", &end), ("match[]", "jobs_done_total")];
        let instances = get(&base(&server), "label/instance/values", &asked).await;
        assert_eq!(instances, json!(["a", "c"]));
        let info = instant(&server, "sort(target_info{host_name=~\"a|c\"})", now as f64).await;
        let hosts: Vec<&Value> = info.iter().map(|(labels, _)| &labels["instance"]).collect();
        assert!(hosts.contains(&&json!("a")) && hosts.contains(&&json!("c")), "{info:?}");
        // The first, which ended two minutes ago, is still in sight.
        let joined =
            "count(jobs_done_total * on (job, instance) group_left (host_name) target_info)";
        assert_eq!(number(&server, joined, now as f64).await, 3.0);
    }
    server.stop();
}
