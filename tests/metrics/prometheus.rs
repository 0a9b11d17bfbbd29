//! promtool and a real Prometheus, both of Debian's `prometheus` package (`make test-setup`).

use crate::common::{Server, run};
use crate::story::{self, SECOND_NS, get, now_s, post};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program of the package: where `scripts/setup` unpacked it, else the system's.
fn program(name: &str) -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prometheus/usr/bin");
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = [unpacked]
        .into_iter()
        .chain(std::env::split_paths(&folders))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: run `make test-setup` first"))
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_works_against_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let now = now_s();
    let points: Vec<Value> = (0..=4)
        .map(|n| {
            let time = (now - 60 + n * 15) * SECOND_NS;
            json!({"timeUnixNano": time.to_string(), "asDouble": n as f64 + 0.5})
        })
        .collect();
    let gauge = json!({"name": "queue.depth", "gauge": {"dataPoints": points}});
    let body = story::metrics(&[("service.name", "checkout")], vec![gauge]);
    story::send(&server, "metrics", &body).await;

    let base = format!("{}/prometheus", server.http);
    let promtool = |arguments: &[&str]| {
        let output = run(Command::new(program("promtool")).args(arguments));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "promtool {arguments:?}: {out}{err}");
        out
    };
    let (start, end) = ((now - 60).to_string(), now.to_string());
    let series = "queue_depth{job=\"checkout\"}";
    assert_eq!(
        promtool(&["query", "instant", "--time", &end, &base, "queue_depth"]),
        format!("{series} => 4.5 @[{now}]\n")
    );
    let lines: String = (0..=4).fold(format!("{series} =>\n"), |lines, n| {
        format!("{lines}{}.5 @[{}]\n", n, now - 60 + n * 15)
    });
    let range =
        ["query", "range", "--start", &start, "--end", &end, "--step", "15s", &base, "queue_depth"];
    assert_eq!(promtool(&range).trim_end(), lines.trim_end());
    let json = promtool(&["query", "instant", "-o", "json", "--time", &end, &base, "1 + 1"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, json!([now, "2"]));
    let times = ["--start", &*start, "--end", &*end];
    let found =
        promtool(&[&["query", "series", "--match", "queue_depth"][..], &times, &[&base]].concat());
    assert_eq!(found, "{__name__=\"queue_depth\", job=\"checkout\"}\n");
    let found = promtool(&[&["query", "labels"][..], &times, &[&base, "job"]].concat());
    assert_eq!(found, "checkout\n");

    // What is wrong is said in words.
    let wrong = run(Command::new(program("promtool")).args(["query", "instant", &base, "sum("]));
    assert!(!wrong.status.success());
    let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(words.contains("parse error"), "{words}");
    server.stop();
}

/// A real Prometheus that scrapes Trefoil and itself every second and sends all of it on; killed when dropped.
struct Prometheus {
    process: Child,
    url: String,
}

/// From the start to the first answer.
const READY_MAX: Duration = Duration::from_secs(60);

impl Prometheus {
    async fn start(dir: &Path, server: &Server) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let trefoil = server.http.trim_start_matches("http://");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{cluster: test}}}}\n\
             scrape_configs:\n\
             - {{job_name: trefoil, static_configs: [{{targets: ['{trefoil}']}}]}}\n\
             - {{job_name: prometheus, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n\
             - {{job_name: nobody, static_configs: [{{targets: ['127.0.0.1:1']}}]}}\n\
             remote_write:\n\
             - url: {}/prometheus/api/v1/write\n  \
               queue_config: {{batch_send_deadline: 200ms}}\n  \
               metadata_config: {{send_interval: 1s}}\n",
            server.http
        );
        let file = dir.join("prometheus.yml");
        std::fs::File::create(&file).unwrap().write_all(config.as_bytes()).unwrap();
        let process = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--web.console.libraries=/nowhere", "--web.console.templates=/nowhere"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { process, url: format!("http://127.0.0.1:{port}") };
        let give_up = Instant::now() + READY_MAX;
        while !reqwest::get(format!("{}/-/ready", prometheus.url))
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            assert!(Instant::now() < give_up, "Prometheus was not ready within {READY_MAX:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        prometheus
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Seconds that are scraped, and of which the last are compared. Where a counter has just come up, Prometheus 2 and 3
/// extrapolate `rate` differently, so the first seconds are left out.
const SCRAPED_S: f64 = 15.0;
const COMPARED_S: u64 = 10;

/// Until what was scraped must have arrived.
const ARRIVED_MAX: Duration = Duration::from_secs(30);

/// Raw samples by series: (time, value) as text.
type Samples = BTreeMap<String, Vec<(String, String)>>;

/// All samples of `[end - COMPARED_S, end]`, the closed left edge of Prometheus 2 left out.
async fn raw(base: &str, end_s: u64) -> Samples {
    let query = format!("{{job=~\".+\"}}[{COMPARED_S}s]");
    let data = post(base, "query", &[("query", &query), ("time", &end_s.to_string())]).await;
    assert_eq!(data["resultType"], "matrix");
    let left = (end_s - COMPARED_S) as f64;
    let mut samples = Samples::new();
    for series in data["result"].as_array().unwrap() {
        let points: Vec<(String, String)> = series["values"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|point| point[0].as_f64().unwrap() > left)
            .map(|point| (point[0].to_string(), point[1].as_str().unwrap().to_owned()))
            .collect();
        // What was sent carries the external label too.
        let mut labels = series["metric"].clone();
        labels.as_object_mut().unwrap().remove("cluster");
        samples.insert(labels.to_string(), points);
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_prometheus_sends_arrives_complete_and_answers_alike() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("trefoil"));
    let prometheus = Prometheus::start(dir.path(), &server).await;
    let (ours, theirs) = (format!("{}/prometheus", server.http), prometheus.url.clone());
    let first_scrape = "min_over_time(timestamp(up{job=\"prometheus\"})[1h:1s])";
    loop {
        let found = post(&theirs, "query", &[("query", first_scrape)]).await;
        let first = found["result"][0]["value"][1].as_str().map(|s| s.parse::<f64>().unwrap());
        if first.is_some_and(|first| now_s() as f64 > first + SCRAPED_S) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let end = now_s() - 1;

    // Everything of these seconds, sample for sample. The last of it may still be on its way.
    let give_up = Instant::now() + ARRIVED_MAX;
    let samples = loop {
        let (have, want) = (raw(&ours, end).await, raw(&theirs, end).await);
        if have == want {
            break have;
        }
        if Instant::now() > give_up {
            let differ = want.iter().find(|(labels, points)| have.get(*labels) != Some(*points));
            let more: Vec<_> = have.keys().filter(|labels| !want.contains_key(*labels)).collect();
            let got = differ.map(|(labels, _)| have.get(labels));
            panic!("wanted {differ:?}, have {got:?}; only here {more:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let total: usize = samples.values().map(Vec::len).sum();
    assert!(samples.len() > 300 && total > 300 * 8, "{} series, {total} samples", samples.len());

    // A time at which no sample lies: both kinds of window then hold the same.
    let used: Vec<u64> = samples
        .values()
        .flatten()
        .map(|(time, _)| (time.parse::<f64>().unwrap() * 1000.0).round() as u64 % 1000)
        .collect();
    let offset_ms = (500..1000).find(|ms| !used.contains(ms)).unwrap();
    let time = |seconds: u64| format!("{seconds}.{offset_ms}");
    for query in [
        "up",
        "sum by (job) (up)",
        "scrape_samples_scraped",
        "rate(prometheus_http_requests_total[4s])",
        "sum by (handler) (increase(prometheus_http_request_duration_seconds_bucket[4s]))",
        "histogram_quantile(0.9, sum by (le) (rate(prometheus_tsdb_compaction_chunk_range_seconds_bucket[5s])))",
        "histogram_quantile(0.9, prometheus_http_request_duration_seconds_bucket)",
        "go_gc_duration_seconds{quantile=\"0.5\"}",
        "avg_over_time(process_resident_memory_bytes[3s]) / 1024",
        "max by (job) (process_open_fds) > 5",
        "topk(3, go_memstats_alloc_bytes)",
        "deriv(process_cpu_seconds_total[5s])",
        "sum by (signal, fate) (trefoil_records_total)",
        "rate(trefoil_records_total{signal=\"metrics\"}[4s])",
        "count({job=\"prometheus\"}) by (job)",
        "max_over_time(rate(prometheus_tsdb_head_samples_appended_total[3s])[4s:1s])",
        "label_replace(up, \"host\", \"$1\", \"instance\", \"(.*):.*\")",
        "absent(nothing_here)",
    ] {
        let asked =
            [("query", query), ("start", &*time(end - 5)), ("end", &*time(end - 1)), ("step", "1")];
        let have = post(&ours, "query_range", &asked).await;
        let want = post(&theirs, "query_range", &asked).await;
        alike(query, &have, &want);
    }

    // Labels, series and metadata, too.
    let times = [("start", &*time(end - 5)), ("end", &*time(end - 1))];
    let names = get(&theirs, "label/__name__/values", &times).await;
    assert_eq!(get(&ours, "label/__name__/values", &times).await, names);
    let up = [&times[..], &[("match[]", "up")]].concat();
    let jobs = get(&theirs, "label/job/values", &up).await;
    assert_eq!(get(&ours, "label/job/values", &up).await, jobs);
    let mut series = post(&ours, "series", &up).await;
    for labels in series.as_array_mut().unwrap() {
        assert_eq!(labels.as_object_mut().unwrap().remove("cluster"), Some(json!("test")));
    }
    assert_eq!(series, post(&theirs, "series", &up).await);
    let (have, want) = (get(&ours, "metadata", &[]).await, get(&theirs, "metadata", &[]).await);
    for name in
        ["go_gc_duration_seconds", "prometheus_http_requests_total", "trefoil_records_total"]
    {
        assert_eq!(have[name], want[name], "{name}");
    }
    drop(prometheus);
    server.stop();
}

/// Compares two matrices; numbers may differ in the last digits, since sums are taken in another order.
fn alike(query: &str, have: &Value, want: &Value) {
    let by_labels = |data: &Value| -> BTreeMap<String, Value> {
        assert_eq!(data["resultType"], "matrix", "{query}: {data}");
        let series = data["result"].as_array().unwrap();
        series
            .iter()
            .map(|series| {
                let mut labels = series["metric"].clone();
                labels.as_object_mut().unwrap().remove("cluster");
                (labels.to_string(), series["values"].clone())
            })
            .collect()
    };
    let (have, want) = (by_labels(have), by_labels(want));
    assert!(!want.is_empty(), "{query} finds nothing in Prometheus");
    let keys = |map: &BTreeMap<String, Value>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&have), keys(&want), "{query}");
    for (labels, want) in &want {
        let (have, want) = (have[labels].as_array().unwrap(), want.as_array().unwrap());
        let times = |points: &[Value]| points.iter().map(|p| p[0].clone()).collect::<Vec<_>>();
        assert_eq!(times(have), times(want), "{query} {labels}");
        let (have_all, want_all) = (have, want);
        for (have, want) in have.iter().zip(want) {
            let number = |point: &Value| point[1].as_str().unwrap().parse::<f64>().unwrap();
            let (a, b) = (number(have), number(want));
            let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * b.abs();
            assert!(
                same,
                "{query} {labels}: {have} is not {want}; all: {have_all:?} and {want_all:?}"
            );
        }
    }
}
