//! What Grafana's Prometheus data source sends, with its exact parameters: save and test, metric browser, query builder,
//! variables, panels, exemplars, heat maps, and the queries of the service graph and the traces view.

use crate::common::Server;
use crate::story::{self, SECOND_NS, get, now_s, post};
use serde_json::{Value, json};
use std::io::Read;

/// The trace that all exemplars name.
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

/// Distance of points, and how many.
const STEP_S: u64 = 15;
const POINTS: u64 = 41;

/// Two services' metrics over ten minutes up to `now_s`, and the calls between them.
async fn fill(server: &Server, now_s: u64) {
    let times: Vec<(u64, u64)> =
        (0..POINTS).map(|n| (n, (now_s - (POINTS - 1 - n) * STEP_S) * SECOND_NS)).collect();
    let start = ((now_s - POINTS * STEP_S) * SECOND_NS).to_string();
    let points = |of: &dyn Fn(u64) -> Value| -> Vec<Value> {
        times
            .iter()
            .map(|(n, time)| {
                let mut point = of(*n);
                point["timeUnixNano"] = json!(time.to_string());
                point["startTimeUnixNano"] = json!(start);
                point
            })
            .collect()
    };
    for (service, factor) in [("checkout", 1), ("payment", 2)] {
        let exemplar = json!({
            "timeUnixNano": ((now_s - 30) * SECOND_NS).to_string(), "asDouble": 0.18,
            "traceId": TRACE_ID, "spanId": "b7ad6b7169203331",
        });
        let orders = points(&|n| {
            let attributes = story::attributes(&[("outcome", "paid")]);
            json!({"asInt": (n * 10 * factor).to_string(), "attributes": attributes})
        });
        let depth = points(&|n| json!({"asDouble": n as f64 / 4.0}));
        let durations = points(&|n| {
            let n = n * factor;
            json!({
                "count": (4 * n).to_string(), "sum": 0.5 * n as f64, "explicitBounds": [0.005, 0.1, 0.25, 1.0],
                "bucketCounts": ["0", n.to_string(), (2 * n).to_string(), n.to_string(), "0"],
                "exemplars": [exemplar],
            })
        });
        let sizes = points(&|n| {
            json!({
                "count": (3 * n).to_string(), "sum": 9.0 * n as f64, "scale": 0, "zeroCount": "0",
                "positive": {"offset": 0, "bucketCounts": [n.to_string(), (2 * n).to_string()]},
            })
        });
        let cumulative = |key: &str,
                          unit: &str,
                          kind: &str,
                          points: Vec<Value>,
                          monotonic: bool| {
            let mut data = json!({"dataPoints": points, "aggregationTemporality": 2});
            if monotonic {
                data["isMonotonic"] = json!(true);
            }
            json!({"name": key, "unit": unit, "description": format!("About {key}."), kind: data})
        };
        let body = story::metrics(
            &[("service.name", service), ("service.instance.id", "1"), ("host.name", "h")],
            vec![
                cumulative("shop.orders", "{order}", "sum", orders, true),
                json!({"name": "queue.depth", "gauge": {"dataPoints": depth}}),
                cumulative("http.server.request.duration", "s", "histogram", durations, false),
                cumulative("payload.size", "By", "exponentialHistogram", sizes, false),
            ],
        );
        story::send(server, "metrics", &body).await;
    }
    let (mut callers, mut callees) = (Vec::new(), Vec::new());
    for n in 0..60 {
        let begin = (now_s - 600 + n * 10) * SECOND_NS;
        let span = |id: u64, parent: u64, kind: u8, ms: u64, failed: bool| {
            let mut span = json!({
                "traceId": format!("{:032x}", n + 1), "spanId": format!("{id:016x}"), "name": "POST /pay", "kind": kind,
                "startTimeUnixNano": begin.to_string(), "endTimeUnixNano": (begin + ms * 1_000_000).to_string(),
                "status": {"code": if failed { 2 } else { 0 }},
            });
            if parent > 0 {
                span["parentSpanId"] = json!(format!("{parent:016x}"));
            }
            span
        };
        callers.push(span(2 * n + 1, 0, 3, 120, false));
        callees.push(span(2 * n + 2, 2 * n + 1, 2, 100, n % 10 == 0));
    }
    let body = story::spans(&[("checkout", callers), ("payment", callees)]);
    story::send(server, "traces", &body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grafanas_requests_get_answers_of_the_documented_shape() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    // A multiple of the step, as Grafana's ranges are.
    let now = now_s() / STEP_S * STEP_S;
    fill(&server, now).await;
    let base = format!("{}/prometheus", server.http);
    save_and_test(&base).await;
    browser_and_builder(&base, now).await;
    panels(&base, now).await;
    exemplars(&base, now).await;
    heat_maps(&base, now).await;
    service_graph(&base, now).await;
    answers_are_compressed_and_head_works(&base).await;
    server.stop();
}

async fn save_and_test(base: &str) {
    let answer = post(base, "query", &[("query", "1+1"), ("time", "4")]).await;
    assert_eq!(answer, json!({"resultType": "scalar", "result": [4, "2"]}));
    let info = get(base, "status/buildinfo", &[]).await;
    for key in ["version", "revision", "branch", "buildUser", "buildDate", "goVersion"] {
        assert!(info[key].is_string(), "{key} in {info}");
    }
    assert!(info["version"].as_str().unwrap().starts_with("3."), "{info}");
    assert!(info.get("features").is_none(), "Grafana would take us for Mimir: {info}");
    assert_eq!(get(base, "rules", &[]).await, json!({"groups": []}));
    assert_eq!(get(base, "alerts", &[]).await, json!({"alerts": []}));
}

async fn browser_and_builder(base: &str, now: u64) {
    let (start, end) = ((now - 600).to_string(), now.to_string());
    let range = [("start", &*start), ("end", &*end), ("limit", "40000")];
    let with = |selector: &'static str| [&range[..], &[("match[]", selector)]].concat();

    let metadata = get(base, "metadata", &[("limit", "40000")]).await;
    let of =
        |kind: &str, unit: &str, help: &str| json!([{"type": kind, "unit": unit, "help": help}]);
    assert_eq!(metadata["shop_orders_total"], of("counter", "", "About shop.orders."));
    assert_eq!(metadata["queue_depth"], of("gauge", "", ""));
    let help = "About http.server.request.duration.";
    let histogram = of("histogram", "seconds", help);
    assert_eq!(metadata["http_server_request_duration_seconds"], histogram);
    assert_eq!(metadata["traces_spanmetrics_calls_total"][0]["type"], "counter");
    let few = get(base, "metadata", &[("limit", "2")]).await;
    assert_eq!(few.as_object().unwrap().len(), 2);

    // Names of metrics, all and of one job; names are sorted.
    let names = get(base, "label/__name__/values", &range).await;
    let list: Vec<&str> = names.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert!(list.is_sorted(), "{list:?}");
    for name in
        ["shop_orders_total", "payload_size_bytes", "target_info", "traces_spanmetrics_latency"]
    {
        assert!(list.contains(&name), "{name} in {list:?}");
    }
    let names = get(base, "label/__name__/values", &with(r#"{job="payment"}"#)).await;
    assert_eq!(
        names,
        json!([
            "http_server_request_duration_seconds_bucket",
            "http_server_request_duration_seconds_count",
            "http_server_request_duration_seconds_sum",
            "payload_size_bytes",
            "queue_depth",
            "shop_orders_total",
            "target_info",
        ])
    );

    // Labels of a metric, as POST and, as after a 405, as GET.
    let labels = json!(["__name__", "instance", "job", "outcome"]);
    assert_eq!(post(base, "labels", &with("shop_orders_total")).await, labels);
    assert_eq!(get(base, "labels", &with("shop_orders_total")).await, labels);
    let selector = r#"{__name__="shop_orders_total",outcome="paid"}"#;
    let jobs = get(base, "label/job/values", &with(selector)).await;
    assert_eq!(jobs, json!(["checkout", "payment"]));
    assert_eq!(get(base, "label/U__host_2e_name/values", &range).await, json!([]));

    // Series, with several selectors, also as variables ask for them.
    let both = [&with("queue_depth")[..], &[("match[]", "shop_orders_total")]].concat();
    let series = post(base, "series", &both).await;
    let one = |name: &str, job: &str| json!({"__name__": name, "instance": "1", "job": job});
    let mut expected = vec![one("queue_depth", "checkout"), one("queue_depth", "payment")];
    for job in ["checkout", "payment"] {
        let mut labels = one("shop_orders_total", job);
        labels["outcome"] = json!("paid");
        expected.push(labels);
    }
    assert_eq!(series, json!(expected));
    assert_eq!(get(base, "series", &both).await, series);
    let few = get(base, "series", &[("match[]", "queue_depth"), ("limit", "1")]).await;
    assert_eq!(few.as_array().unwrap().len(), 1);
}

async fn panels(base: &str, now: u64) {
    let query = "sum by (job) (rate(shop_orders_total[1m]))";
    let (start, end) = ((now - 300).to_string(), now.to_string());
    for step in ["15", "15s"] {
        let range = [("query", query), ("start", &start), ("end", &end), ("step", step)];
        let data = post(base, "query_range", &range).await;
        assert_eq!(data["resultType"], "matrix");
        let result = data["result"].as_array().unwrap();
        for (series, (job, rate)) in result.iter().zip([("checkout", 10.0), ("payment", 20.0)]) {
            assert_eq!(series["metric"], json!({ "job": job }));
            let values = series["values"].as_array().unwrap();
            assert_eq!(values.len(), 21, "{series}");
            for (n, point) in values.iter().enumerate() {
                assert_eq!(point[0], json!(now - 300 + n as u64 * STEP_S), "{series}");
                let value: f64 = point[1].as_str().unwrap().parse().unwrap();
                assert!((value - rate / STEP_S as f64).abs() < 1e-9, "{series}");
            }
        }
        assert_eq!(result.len(), 2);
        assert_eq!(get(base, "query_range", &range).await, data);
    }
    // Grafana's start and end have decimals when the browser's range does; its smallest step is below a second.
    let (start, end) = (format!("{}.5", now - 10), format!("{now}.25"));
    let range = [("query", "queue_depth"), ("start", &start), ("end", &end), ("step", "0.5")];
    let data = post(base, "query_range", &range).await;
    let values = data["result"][0]["values"].as_array().unwrap();
    assert_eq!(values.len(), 20);
    assert_eq!(values[0][0], json!(now as f64 - 9.5));
    assert_eq!(values[1][0], json!(now - 9));

    let instant = [("query", "topk(1, queue_depth)"), ("time", &*now.to_string())];
    let data = post(base, "query", &instant).await;
    assert_eq!(data["resultType"], "vector");
    assert_eq!(data["result"][0]["value"], json!([now, "10"]));

    for (path, parameters, code, kind) in [
        ("query_range", vec![("start", "0"), ("end", "11001"), ("step", "1")], 400, "bad_data"),
        ("query_range", vec![("start", "9"), ("end", "1"), ("step", "1")], 400, "bad_data"),
        ("query_range", vec![("start", "0"), ("end", "1"), ("step", "0")], 400, "bad_data"),
        ("query", vec![("query", "sum(")], 400, "bad_data"),
        ("query", vec![("query", "queue_depth + on() queue_depth")], 422, "execution"),
        ("query", vec![("limit", "-1")], 400, "bad_data"),
        ("series", vec![], 400, "bad_data"),
        ("series", vec![("match[]", "{job=~\".*\"}")], 400, "bad_data"),
    ] {
        let url = format!("{base}/api/v1/{path}");
        // Of a parameter given twice the first counts.
        let form = [&parameters[..], &[("query", "queue_depth")]].concat();
        let answer = reqwest::Client::new().post(url).form(&form).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), code, "{path} {form:?}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!((&body["status"], &body["errorType"]), (&json!("error"), &json!(kind)));
        assert!(!body["error"].as_str().unwrap().is_empty());
    }
}

async fn exemplars(base: &str, now: u64) {
    let query = "histogram_quantile(0.95, sum by (le) (rate(http_server_request_duration_seconds_bucket{job=\"payment\"}[1m])))";
    let (start, end) = ((now - 600).to_string(), now.to_string());
    let asked = [("query", query), ("start", &*start), ("end", &*end), ("step", "15")];
    let found = post(base, "query_exemplars", &asked).await;
    assert_eq!(
        found,
        json!([{
            "seriesLabels": {
                "__name__": "http_server_request_duration_seconds_bucket", "instance": "1", "job": "payment", "le": "0.25",
            },
            "exemplars": [{
                "labels": {"trace_id": TRACE_ID, "span_id": "b7ad6b7169203331"},
                "value": "0.18", "timestamp": now - 30,
            }],
        }])
    );
    let early = [("query", query), ("start", "1"), ("end", "2")];
    assert_eq!(post(base, "query_exemplars", &early).await, json!([]));
}

async fn heat_maps(base: &str, now: u64) {
    let (start, end) = ((now - 60).to_string(), now.to_string());
    let classic = "sum by (le) (increase(http_server_request_duration_seconds_bucket[1m]))";
    let asked = [("query", classic), ("start", &*start), ("end", &*end), ("step", "15")];
    let data = post(base, "query_range", &asked).await;
    let bounds: Vec<&str> = data["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|series| series["metric"]["le"].as_str().unwrap())
        .collect();
    assert_eq!(bounds, ["+Inf", "0.005", "0.1", "0.25", "1"]);

    let native = "sum(increase(payload_size_bytes[1m]))";
    let asked = [("query", native), ("start", &*start), ("end", &*end), ("step", "15")];
    let data = post(base, "query_range", &asked).await;
    let series = &data["result"][0];
    assert!(series.get("values").is_none(), "{series}");
    let points = series["histograms"].as_array().unwrap();
    assert_eq!(points.len(), 5);
    assert_eq!(points[0][0], json!(now - 60));
    let histogram = &points[0][1];
    // Three steps in a window that is open on the left, extrapolated to four; two services.
    assert_eq!((&histogram["count"], &histogram["sum"]), (&json!("24"), &json!("72")));
    let buckets = json!([[0, "1", "2", "8"], [0, "2", "4", "16"]]);
    assert_eq!(histogram["buckets"], buckets);
}

async fn service_graph(base: &str, now: u64) {
    // The service graph of the Tempo data source, and the table above it.
    let time = now.to_string();
    let ask = async |query: &str| -> Vec<(Value, f64)> {
        let data = post(base, "query", &[("query", query), ("time", &time)]).await;
        assert_eq!(data["resultType"], "vector", "{query}");
        let samples = data["result"].as_array().unwrap();
        samples
            .iter()
            .map(|s| (s["metric"].clone(), s["value"][1].as_str().unwrap().parse().unwrap()))
            .collect()
    };
    let edge = json!({"client": "checkout", "server": "payment"});
    for (metric, total) in [
        ("traces_service_graph_request_total", 60.0),
        ("traces_service_graph_request_failed_total", 6.0),
        ("traces_service_graph_request_server_seconds_sum", 6.0),
        ("traces_service_graph_request_client_seconds_sum", 7.2),
    ] {
        // From zero before the first span: the whole range holds them all.
        let found = ask(&format!("sum by (client, server) ({metric})")).await;
        assert_eq!(found.len(), 1, "{metric}: {found:?}");
        assert_eq!(found[0].0, edge);
        assert!((found[0].1 - total).abs() < 1e-6, "{metric}: {found:?}");
        assert_eq!(ask(&format!("sum by (client, server) (rate({metric}[10m]))")).await.len(), 1);
    }
    let top = "topk(5, sum(rate(traces_spanmetrics_calls_total{span_kind=\"SPAN_KIND_SERVER\"}[10m])) by (span_name))";
    assert_eq!(ask(top).await[0].0, json!({"span_name": "POST /pay"}));
    let failed = "sum(traces_spanmetrics_calls_total{status_code=\"STATUS_CODE_ERROR\",span_name=~\"POST /pay\"}) by (span_name)";
    assert_eq!(ask(failed).await, [(json!({"span_name": "POST /pay"}), 6.0)]);
    let p90 = "histogram_quantile(.9, sum(rate(traces_spanmetrics_latency_bucket{span_kind=\"SPAN_KIND_SERVER\"}[10m])) by (le))";
    let found = ask(p90).await;
    assert!((found[0].1 / 0.1 - 1.0).abs() < 0.01, "{found:?}");
}

async fn answers_are_compressed_and_head_works(base: &str) {
    let url = format!("{base}/api/v1/metadata");
    let plain = reqwest::get(&url).await.unwrap().bytes().await.unwrap();
    let request = reqwest::Client::new().get(&url).header("accept-encoding", "gzip");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let packed = answer.bytes().await.unwrap();
    let mut inflated = Vec::new();
    flate2::read::GzDecoder::new(&*packed).read_to_end(&mut inflated).unwrap();
    assert_eq!(inflated, plain);
    for path in ["/-/healthy", "/-/ready", "/api/v1/labels"] {
        let answer = reqwest::Client::new().head(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "HEAD {path}");
    }
}
