//! Shapes of the answers of the Prometheus HTTP API, byte for byte where clients read them so.

use crate::prompb::v1;
use crate::remote::Remote;
use reqwest::Method;
use serde_json::{Value, json};

/// A few series of each kind, at 0, 1 and 2 minutes after 1970.
const SHOP: &str = r#"
load 1m
  up{job="shop", instance="b"} 1 1 1
  up{job="shop", instance="a"} 0 1 0.5
  orders_total{job="shop"} 0+60x2
  latency{job="shop"} {{schema:0 sum:2.5 count:5 z_bucket:1 z_bucket_w:0.001 buckets:[1 1] n_buckets:[2]}}x2
  {"http.size", "http.method"="GET"} 3 3 3
"#;

fn shop() -> Remote {
    Remote::with(SHOP, &[])
}

/// The body of a successful query answer, up to its data.
fn result(remote: &Remote, path: &str, parameters: &[(&str, &str)]) -> String {
    let answer = remote.get(path, parameters);
    assert_eq!(answer.status, 200, "{}", answer.text);
    // Both methods give the same answer.
    assert_eq!(remote.post(path, parameters).text, answer.text);
    let data = answer.text.strip_prefix(r#"{"status":"success","data":"#);
    data.unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
}

#[test]
fn values_have_the_four_types_and_times_of_three_decimals() {
    let remote = shop();
    for (query, time, want) in [
        ("1+1", "4", r#"{"resultType":"scalar","result":[4,"2"]}}"#),
        ("1+1", "4.5", r#"{"resultType":"scalar","result":[4.500,"2"]}}"#),
        ("1+1", "1970-01-01T00:00:04.5Z", r#"{"resultType":"scalar","result":[4.500,"2"]}}"#),
        (r#""text""#, "4", r#"{"resultType":"string","result":[4,"text"]}}"#),
        ("nothing", "4", r#"{"resultType":"vector","result":[]}}"#),
        (
            "orders_total",
            "60",
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"orders_total","job":"shop"},"value":[60,"60"]}]}}"#,
        ),
        (
            "orders_total[2m]",
            "60",
            r#"{"resultType":"matrix","result":[{"metric":{"__name__":"orders_total","job":"shop"},"values":[[0,"0"],[60,"60"]]}]}}"#,
        ),
        (
            "latency",
            "60",
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"latency","job":"shop"},"histogram":[60,{"count":"5","sum":"2.5","buckets":[[1,"-1","-0.5","2"],[3,"-0.001","0.001","1"],[0,"0.5","1","1"],[0,"1","2","1"]]}]}]}}"#,
        ),
    ] {
        let got = result(&remote, "query", &[("query", query), ("time", time)]);
        assert_eq!(got, want, "{query} at {time}");
    }
}

#[test]
fn numbers_are_the_shortest_that_round_trip() {
    let remote = Remote::start(&[]);
    for (query, want) in [
        ("0.1+0.2", "0.30000000000000004"),
        ("1e20", "100000000000000000000"),
        ("1e21", "1e+21"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-07"),
        ("-0", "-0"),
        ("0/0", "NaN"),
        ("1/0", "+Inf"),
        ("-1/0", "-Inf"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
    ] {
        let got = result(&remote, "query", &[("query", query), ("time", "0")]);
        assert_eq!(got, format!(r#"{{"resultType":"scalar","result":[0,"{want}"]}}}}"#), "{query}");
    }
}

#[test]
fn ranges_are_sorted_by_labels_and_leave_gaps_out() {
    let remote = shop();
    let range = [("query", "up"), ("start", "0"), ("end", "120"), ("step", "60")];
    assert_eq!(
        result(&remote, "query_range", &range),
        r#"{"resultType":"matrix","result":[{"metric":{"__name__":"up","instance":"a","job":"shop"},"values":[[0,"0"],[60,"1"],[120,"0.5"]]},{"metric":{"__name__":"up","instance":"b","job":"shop"},"values":[[0,"1"],[60,"1"],[120,"1"]]}]}}"#
    );
    let range = [("query", "latency"), ("start", "0"), ("end", "60"), ("step", "1m")];
    let data = remote.get("query_range", &range).data();
    assert_eq!(data["result"][0]["histograms"].as_array().unwrap().len(), 2);
    assert!(data["result"][0].get("values").is_none(), "{data}");
    let range = [("query", "vector(1)"), ("start", "0.5"), ("end", "1.25"), ("step", "0.5")];
    assert_eq!(
        result(&remote, "query_range", &range),
        r#"{"resultType":"matrix","result":[{"metric":{},"values":[[0.500,"1"],[1,"1"]]}]}}"#
    );
    let range = [("query", "time()"), ("start", "0"), ("end", "2"), ("step", "1")];
    assert_eq!(
        result(&remote, "query_range", &range),
        r#"{"resultType":"matrix","result":[{"metric":{},"values":[[0,"0"],[1,"1"],[2,"2"]]}]}}"#
    );
}

#[test]
fn results_are_cut_with_a_warning_and_lookback_can_be_chosen() {
    let remote = shop();
    let answer = remote.get("query", &[("query", "up"), ("time", "60"), ("limit", "1")]);
    assert_eq!(answer.data()["result"].as_array().unwrap().len(), 1);
    assert_eq!(answer.json()["warnings"], json!(["results truncated due to limit"]));
    for limit in ["0", "2"] {
        let answer = remote.get("query", &[("query", "up"), ("time", "60"), ("limit", limit)]);
        assert_eq!(answer.data()["result"].as_array().unwrap().len(), 2);
        assert!(answer.json().get("warnings").is_none());
    }
    let count = |parameters: &[(&str, &str)]| {
        let mut all = vec![("query", "count(up)"), ("time", "200")];
        all.extend_from_slice(parameters);
        remote.get("query", &all).data()["result"].as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 1);
    assert_eq!(count(&[("lookback_delta", "1m")]), 0);
    assert_eq!(count(&[("lookback_delta", "81")]), 1);
    assert_eq!(count(&[("unheard_of", "1")]), 1);
}

#[test]
fn notes_come_with_the_answer() {
    let remote = shop();
    let answer = remote.get("query", &[("query", "rate(up[2m])"), ("time", "60")]).json();
    let info = answer["infos"][0].as_str().unwrap();
    assert!(info.starts_with("PromQL info: metric might not be a counter"), "{info}");
    assert!(info.ends_with(r#""up" (1:6)"#), "{info}");
    assert!(answer.get("warnings").is_none());
    let answer = remote.get("query", &[("query", "quantile(2, up)"), ("time", "60")]).json();
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("PromQL warning: quantile value should be"), "{warning}");
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let remote = shop();
    let range = [("query", "up"), ("start", "0"), ("end", "120"), ("step", "60")];
    assert!(remote.get("query_range", &range).data().get("stats").is_none());
    let with = |stats| {
        let mut parameters = range.to_vec();
        parameters.push(("stats", stats));
        remote.get("query_range", &parameters).data()["stats"].clone()
    };
    let stats = with("true");
    for name in [
        "evalTotalTime",
        "resultSortTime",
        "queryPreparationTime",
        "innerEvalTime",
        "execQueueTime",
        "execTotalTime",
    ] {
        assert!(stats["timings"][name].is_number(), "{name} in {stats}");
    }
    assert_eq!(stats["samples"]["totalQueryableSamples"], 6);
    assert_eq!(stats["samples"]["samplesRead"], 6);
    assert!(stats["samples"]["peakSamples"].as_u64().unwrap() >= 6, "{stats}");
    assert!(stats["samples"].get("totalQueryableSamplesPerStep").is_none());
    let steps = &with("all")["samples"]["totalQueryableSamplesPerStep"];
    assert_eq!(*steps, json!([[0, 2], [60, 2], [120, 2]]));
}

#[test]
fn labels_and_their_values_are_sorted_lists() {
    let remote = shop();
    let names = json!(["__name__", "http.method", "instance", "job"]);
    for answer in [remote.get("labels", &[]), remote.post("labels", &[])] {
        assert_eq!(answer.data(), names);
    }
    let of_up = [("match[]", "up"), ("match[]", "{job=\"none\"}"), ("start", "0"), ("end", "60")];
    assert_eq!(remote.get("labels", &of_up).data(), json!(["__name__", "instance", "job"]));
    let later = [("start", "7200"), ("end", "7300")];
    assert_eq!(remote.get("labels", &later).data(), json!([]));

    let names = json!(["http.size", "latency", "orders_total", "up"]);
    assert_eq!(remote.get("label/__name__/values", &[]).data(), names);
    let of_shop = [("match[]", r#"{instance=~".+"}"#)];
    assert_eq!(remote.get("label/__name__/values", &of_shop).data(), json!(["up"]));
    assert_eq!(remote.get("label/instance/values", &[]).data(), json!(["a", "b"]));
    assert_eq!(remote.get("label/unheard_of/values", &[]).data(), json!([]));
    // Names that are no identifiers are escaped in the path, or percent-encoded.
    for name in ["U__http_2e_method", "http.method", "http%2Emethod"] {
        assert_eq!(remote.get(&format!("label/{name}/values"), &[]).data(), json!(["GET"]));
    }
    let cut = remote.get("label/__name__/values", &[("limit", "2")]);
    assert_eq!(cut.data(), json!(["http.size", "latency"]));
    assert_eq!(cut.json()["warnings"], json!(["results truncated due to limit"]));
}

#[test]
fn series_are_listed_by_their_labels() {
    let remote = shop();
    let up = json!([
        {"__name__": "up", "instance": "a", "job": "shop"},
        {"__name__": "up", "instance": "b", "job": "shop"},
    ]);
    let parameters = [("match[]", "up"), ("start", "0"), ("end", "60")];
    assert_eq!(remote.get("series", &parameters).data(), up);
    assert_eq!(remote.post("series", &parameters).data(), up);
    let both = [("match[]", "up"), ("match[]", r#"{instance="a"}"#), ("match[]", "latency")];
    assert_eq!(remote.get("series", &both).data().as_array().unwrap().len(), 3);
    let cut = remote.get("series", &[("match[]", "up"), ("limit", "1")]);
    assert_eq!(cut.data(), json!([up[0]]));
    assert_eq!(cut.json()["warnings"], json!(["results truncated due to limit"]));
    assert_eq!(remote.get("series", &[("match[]", "nothing")]).data(), json!([]));
}

#[test]
fn metadata_are_told_by_family() {
    let remote = Remote::start(&[]);
    let family = |kind, name: &str, help: &str, unit: &str| v1::MetricMetadata {
        r#type: kind,
        metric_family_name: name.into(),
        help: help.into(),
        unit: unit.into(),
    };
    let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
    let request = v1::WriteRequest {
        timeseries: vec![v1::TimeSeries {
            labels: vec![label("__name__", "orders_total")],
            samples: vec![v1::Sample { value: 1.0, timestamp: 0 }],
            ..Default::default()
        }],
        metadata: vec![
            family(1, "orders_total", "Orders taken.", ""),
            family(2, "queue_bytes", "Bytes that wait.", "bytes"),
        ],
    };
    remote.send("prometheus.WriteRequest", &request);
    let orders = json!([{"type": "counter", "unit": "", "help": "Orders taken."}]);
    let queue = json!([{"type": "gauge", "unit": "bytes", "help": "Bytes that wait."}]);
    let ask = |parameters: &[(&str, &str)]| remote.get("metadata", parameters).data();
    assert_eq!(ask(&[]), json!({"orders_total": orders, "queue_bytes": queue}));
    assert_eq!(ask(&[("metric", "queue_bytes")]), json!({"queue_bytes": queue}));
    assert_eq!(ask(&[("metric", "nothing")]), json!({}));
    assert_eq!(ask(&[("limit", "1")]), json!({"orders_total": orders}));
    assert_eq!(ask(&[("limit_per_metric", "1")]).as_object().unwrap().len(), 2);
}

#[test]
fn exemplars_come_with_their_series() {
    let remote = Remote::start(&[]);
    let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let request = v1::WriteRequest {
        timeseries: vec![v1::TimeSeries {
            labels: vec![label("__name__", "wait_bucket"), label("le", "0.25")],
            samples: vec![v1::Sample { value: 1.0, timestamp: 60_000 }],
            exemplars: vec![v1::Exemplar {
                labels: vec![label("trace_id", trace_id), label("user", "u1")],
                value: 0.18,
                timestamp: 59_180,
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    remote.send("prometheus.WriteRequest", &request);
    let query = "histogram_quantile(0.9, sum by (le) (rate(wait_bucket[5m]))) + other";
    let answer = remote.post("query_exemplars", &[("query", query), ("start", "0"), ("end", "60")]);
    assert_eq!(
        answer.text,
        format!(
            r#"{{"status":"success","data":[{{"seriesLabels":{{"__name__":"wait_bucket","le":"0.25"}},"exemplars":[{{"labels":{{"trace_id":"{trace_id}","user":"u1"}},"value":"0.18","timestamp":59.180}}]}}]}}"#
        )
    );
    let ask = |parameters: &[(&str, &str)]| remote.get("query_exemplars", parameters);
    assert_eq!(ask(&[("query", query)]).data(), answer.data());
    // Their own time counts, not that of the sample they came with.
    assert_eq!(ask(&[("query", "wait_bucket"), ("end", "59.5")]).data(), answer.data());
    assert_eq!(ask(&[("query", "wait_bucket"), ("end", "30")]).data(), json!([]));
    assert_eq!(ask(&[("query", "wait_bucket"), ("start", "59.5")]).data(), json!([]));
    assert_eq!(ask(&[("query", r#"wait_bucket{le="1"}"#)]).data(), json!([]));
    assert!([200, 204].contains(&ask(&[("query", "1+1")]).status));
}

#[test]
fn queries_are_formatted_and_taken_apart() {
    let remote = Remote::start(&[]);
    let query = [("query", "sum( rate(x{a='b'}[5m])) by(job)")];
    let formatted = remote.get("format_query", &query);
    assert_eq!(formatted.data(), r#"sum by (job) (rate(x{a="b"}[5m]))"#);
    assert_eq!(remote.post("format_query", &query).text, formatted.text);
    let tree = remote.post("parse_query", &query).data();
    assert_eq!((&tree["type"], &tree["op"]), (&json!("aggregation"), &json!("sum")));
    assert_eq!(tree["grouping"], json!(["job"]));
    let selector = &tree["expr"]["args"][0];
    assert_eq!(
        (&selector["type"], &selector["range"]),
        (&json!("matrixSelector"), &json!(300_000))
    );
    assert_eq!(
        selector["matchers"][0],
        json!({"name": "a", "value": "b", "type": "="}),
        "{selector}"
    );
}

#[test]
fn what_there_is_none_of_is_empty_and_the_build_is_a_prometheus_3() {
    let remote = Remote::start(&["--promql-samples-max", "1234"]);
    let get = |path: &str| remote.get(path, &[]).data();
    assert_eq!(get("rules"), json!({"groups": []}));
    assert_eq!(get("alerts"), json!({"alerts": []}));
    assert_eq!(
        get("alertmanagers"),
        json!({"activeAlertmanagers": [], "droppedAlertmanagers": []})
    );
    assert_eq!(
        get("targets"),
        json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}})
    );
    assert_eq!(get("targets/metadata"), json!([]));
    assert_eq!(get("scrape_pools"), json!({"scrapePools": []}));
    assert_eq!(get("metadata"), json!({}));

    let build = get("status/buildinfo");
    for name in ["version", "revision", "branch", "buildUser", "buildDate", "goVersion"] {
        assert!(build[name].is_string(), "{name} in {build}");
    }
    assert!(build["version"].as_str().unwrap().starts_with("3."), "{build}");
    // Grafana would take it for Mimir's.
    assert!(build.get("features").is_none());
    assert!(get("status/runtimeinfo")["storageRetention"].is_string());
    assert_eq!(get("status/flags")["promql-samples-max"], "1234");
    assert!(get("status/config")["yaml"].is_string());
    let tsdb = get("status/tsdb");
    assert_eq!(tsdb["headStats"]["numSeries"], 0);
    assert_eq!(tsdb["seriesCountByMetricName"], json!([]));
}

#[test]
fn the_api_stands_at_the_root_too_and_head_is_answered() {
    let remote = shop();
    let query = [("query", "up"), ("time", "60")];
    let of_prefix = remote.get("query", &query).text;
    let of_root = |method| remote.ask(method, "/api/v1/query", &query);
    assert_eq!(of_root(Method::GET).text, of_prefix);
    assert_eq!(of_root(Method::POST).text, of_prefix);
    let head = of_root(Method::HEAD);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    for probe in ["/prometheus/-/healthy", "/prometheus/-/ready"] {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(remote.ask(method, probe, &[]).status, 200, "{probe}");
        }
    }
    // Parameters of the form and of the address are one.
    let answer = remote.ask(Method::POST, "/prometheus/api/v1/query?time=60", &[("query", "up")]);
    assert_eq!(answer.text, of_prefix);
}

#[test]
fn answers_are_compressed_for_those_who_ask() {
    let remote = shop();
    let url = format!("{}/prometheus/api/v1/query?query=up&time=60", remote.server.http);
    let request = remote.client.get(url).header("accept-encoding", "gzip");
    let (encoding, body) = remote.runtime.block_on(async {
        let answer = request.send().await.unwrap();
        (answer.headers().get("content-encoding").cloned(), answer.bytes().await.unwrap())
    });
    assert_eq!(encoding.unwrap(), "gzip");
    let body: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&body[..])).unwrap();
    assert_eq!(body["data"]["result"].as_array().unwrap().len(), 2);
}
