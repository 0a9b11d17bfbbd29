//! Real SDK exporters, unmodified, against the real server: what they send comes back exact, within a second of the
//! acknowledgement, and again after a restart. See `clients/README.md` for what is sent.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::Server;
use serde_json::{Value, json};
use trefoil_api::otlp::{AnyValue, KeyValue, Span, TracesData};

/// Promise 3: what is acknowledged is found by every query within this time.
const FRESH: Duration = Duration::from_secs(1);
const MS: u64 = 1_000_000;

/// What a client's SDK can express; everything else of the story all can.
struct Abilities {
    /// Bytes and maps as span attributes.
    rich_span_attributes: bool,
    /// Integers beyond 2^53.
    big_integers: bool,
    exemplars: bool,
    /// `exception.type` of the recorded exception, and whether its time can be chosen.
    exception_type: Option<&'static str>,
}

const PYTHON: Abilities = Abilities {
    rich_span_attributes: true,
    big_integers: true,
    exemplars: true,
    exception_type: Some("ValueError"),
};
const JAVASCRIPT: Abilities = Abilities {
    rich_span_attributes: false,
    big_integers: false,
    exemplars: false,
    exception_type: Some("TypeError"),
};
const RUST: Abilities = Abilities {
    rich_span_attributes: false,
    big_integers: true,
    exemplars: false,
    exception_type: None,
};

/// A client's story as it was told, with the IDs that its SDK drew.
struct Story {
    service: &'static str,
    abilities: Abilities,
    time_ns: u64,
    trace_id: String,
    root_span_id: String,
    child_span_id: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_python_sdk_sends_over_grpc_comes_back_exact() {
    let command = python("grpc");
    tell_and_check("client-python-grpc", PYTHON, command, |server| &server.otlp_grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_python_sdk_sends_over_http_with_gzip_comes_back_exact() {
    let command = python("http");
    tell_and_check("client-python-http", PYTHON, command, |server| &server.otlp_http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_javascript_sdk_sends_as_json_comes_back_exact() {
    let script = root().join("tests/clients/js/client.mjs");
    needs(&root().join("tests/clients/js/node_modules/@opentelemetry"));
    let mut command = Command::new("node");
    command.arg(script);
    tell_and_check("client-javascript", JAVASCRIPT, command, |server| &server.otlp_http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rust_sdk_sends_over_grpc_comes_back_exact() {
    let trefoil = common::binary();
    let client = trefoil.with_file_name("examples").join("otlp-client");
    needs(&client);
    tell_and_check("client-rust", RUST, Command::new(client), |server| &server.otlp_grpc).await;
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn python(protocol: &str) -> Command {
    let python = root().join("target/clients-venv/bin/python");
    needs(&python);
    let mut command = Command::new(python);
    command.arg(root().join("tests/clients/python/client.py")).arg(protocol);
    command
}

fn needs(path: &std::path::Path) {
    assert!(path.exists(), "{} is missing: run `make test-setup` first", path.display());
}

async fn tell_and_check(
    service: &'static str,
    abilities: Abilities,
    client: Command,
    endpoint: impl FnOnce(&Server) -> &str,
) {
    let data_dir = tempfile::tempdir().unwrap();
    let server = Server::start(data_dir.path());
    let mut telling = Telling::start(client, service, endpoint(&server));
    let time_ns = telling.time_ns;
    let ids = telling.acknowledged("traces");
    let id = |name: &str| ids[name].as_str().unwrap().to_owned();
    let story = Story {
        service,
        abilities,
        time_ns,
        trace_id: id("trace_id"),
        root_span_id: id("root_span_id"),
        child_span_id: id("child_span_id"),
    };
    fresh(&server, &story, traces).await;
    telling.acknowledged("logs");
    fresh(&server, &story, logs).await;
    telling.acknowledged("metrics");
    fresh(&server, &story, metrics).await;
    assert!(telling.client.wait().unwrap().success());

    // Out of memory and into files: still the same.
    server.stop();
    let server = Server::start(data_dir.path());
    for outcome in
        [traces(&server, &story).await, logs(&server, &story).await, metrics(&server, &story).await]
    {
        outcome.unwrap_or_else(|error| panic!("after a restart: {error}"));
    }
    server.stop();
}

/// A client at work.
struct Telling {
    client: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    time_ns: u64,
}

impl Telling {
    fn start(mut client: Command, service: &str, endpoint: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        // A little ago, so that nothing lies in the future, and not a whole number of anything.
        let time_ns = now - 2_000 * MS;
        let mut client = client
            .args([service, &time_ns.to_string()])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        Self { client, lines, time_ns }
    }

    /// Waits until the client says that `signal` was acknowledged.
    fn acknowledged(&mut self, signal: &str) -> Value {
        let line = self.lines.next().expect("the client tells on").unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(told["signal"], signal);
        told
    }
}

/// Checks again and again; a query that starts more than a second after the acknowledgement is not asked any more.
async fn fresh(server: &Server, story: &Story, check: impl AsyncFn(&Server, &Story) -> Outcome) {
    let acknowledged = Instant::now();
    let mut last = Ok(());
    while acknowledged.elapsed() < FRESH {
        last = check(server, story).await;
        if last.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    last.unwrap_or_else(|error| panic!("{FRESH:?} after the acknowledgement: {error}"));
}

type Outcome = Result<(), String>;

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, told: T) -> Outcome {
    if found == told { Ok(()) } else { Err(format!("{what}: found {found:?}, told {told:?}")) }
}

/// Compares attributes without regard to their order.
fn same_attributes(what: &str, found: &[KeyValue], told: Value) -> Outcome {
    let found: serde_json::Map<String, Value> =
        found.iter().map(|one| (one.key.clone(), ordered(json!(one.value)))).collect();
    same(what, Value::Object(found), told)
}

/// Sorts the pairs of maps, whose order an SDK need not keep.
fn ordered(mut value: Value) -> Value {
    match &mut value {
        Value::Array(values) => {
            for one in values.iter_mut() {
                *one = ordered(one.take());
            }
            if values.iter().all(|one| one.get("key").is_some()) {
                values.sort_by_key(|one| one["key"].to_string());
            }
        }
        Value::Object(object) => {
            for one in object.values_mut() {
                *one = ordered(one.take());
            }
        }
        _ => {}
    }
    value
}

async fn traces(server: &Server, story: &Story) -> Outcome {
    let answer = server.get(&format!("/api/traces/{}", story.trace_id), &[]).await?;
    let data: TracesData = serde_json::from_value(answer).map_err(|error| error.to_string())?;
    let [of_resource] = &data.resource_spans[..] else { return Err("not one resource".into()) };
    let resource = &of_resource.resource.attributes;
    for (key, value) in [
        ("service.name", json!({"stringValue": story.service})),
        ("service.version", json!({"stringValue": "1.2.3"})),
        ("service.instance.id", json!({"stringValue": "i-1"})),
        ("host.cpus", json!({"intValue": "8"})),
    ] {
        let found = resource.iter().find(|one| one.key == key).map(|one| json!(one.value));
        same(key, found, Some(value))?;
    }
    let [of_scope] = &of_resource.scope_spans[..] else { return Err("not one scope".into()) };
    let scope = (of_scope.scope.name.as_str(), of_scope.scope.version.as_str());
    same("scope", scope, ("story", "0.9"))?;
    same("number of spans", of_scope.spans.len(), 2)?;
    let span = |id: &str| {
        let found = of_scope.spans.iter().find(|span| span.span_id == id);
        found.ok_or_else(|| format!("no span {id}"))
    };
    root_span(span(&story.root_span_id)?, story)?;
    child_span(span(&story.child_span_id)?, story)?;
    trace_search(server, story).await
}

fn root_span(span: &Span, story: &Story) -> Outcome {
    same("root's name", span.name.as_str(), "root")?;
    same("root's kind", span.kind, 2)?;
    same("root's parent", span.parent_span_id.as_str(), "")?;
    let times = (span.start_time_unix_nano, span.end_time_unix_nano);
    same("root's times", times, (story.time_ns, story.time_ns + 250 * MS))?;
    same("root's status", (span.status.code, span.status.message.as_str()), (1, ""))?;

    let list = |values: Value| json!({"arrayValue": {"values": values}});
    let mut told = json!({
        "text": {"stringValue": "grüße 🍀"},
        "empty": {"stringValue": ""},
        "yes": {"boolValue": true},
        "no": {"boolValue": false},
        "int": {"intValue": "42"},
        "negative": {"intValue": "-7"},
        "double": {"doubleValue": 2.5},
        "texts": list(json!([{"stringValue": "a"}, {"stringValue": "b"}])),
        "ints": list(json!([{"intValue": "1"}, {"intValue": "2"}, {"intValue": "3"}])),
        "doubles": list(json!([{"doubleValue": 0.5}, {"doubleValue": 1.5}])),
        "bools": list(json!([{"boolValue": true}, {"boolValue": false}])),
    });
    if story.abilities.big_integers {
        told["big"] = json!({"intValue": "9007199254740993"});
    }
    if story.abilities.rich_span_attributes {
        told["bytes"] = json!({"bytesValue": "AP8Q"});
        let deep = json!([{"key": "list", "value": list(json!([
            {"stringValue": "x"}, {"intValue": "2"}
        ]))}]);
        told["map"] = json!({"kvlistValue": {"values": [
            {"key": "deep", "value": {"kvlistValue": {"values": deep}}},
            {"key": "inner", "value": {"intValue": "1"}},
        ]}});
    }
    same_attributes("root's attributes", &span.attributes, told)?;

    let [first, exception] = &span.events[..] else {
        return Err(format!("not two events: {:?}", span.events));
    };
    let told = ("first", story.time_ns + 10 * MS);
    same("first event", (first.name.as_str(), first.time_unix_nano), told)?;
    let told = json!({"n": {"intValue": "1"}, "ok": {"boolValue": true}});
    same_attributes("first event's attributes", &first.attributes, told)?;
    same("second event", exception.name.as_str(), "exception")?;
    if story.abilities.exception_type.is_some() {
        same("exception's time", exception.time_unix_nano, story.time_ns + 20 * MS)?;
    }
    let of_exception = |key: &str| {
        let found = exception.attributes.iter().find(|one| one.key == key);
        found.and_then(|one| match &one.value {
            AnyValue::Str(text) => Some(text.as_str()),
            _ => None,
        })
    };
    same("exception's message", of_exception("exception.message"), Some("no such card"))?;
    same("exception's type", of_exception("exception.type"), story.abilities.exception_type)?;

    let [link] = &span.links[..] else { return Err("not one link".into()) };
    let told = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    same("link", (link.trace_id.as_str(), link.span_id.as_str()), told)?;
    let told = json!({"reason": {"stringValue": "retry"}, "attempt": {"intValue": "2"}});
    same_attributes("link's attributes", &link.attributes, told)
}

fn child_span(span: &Span, story: &Story) -> Outcome {
    same("child's name", span.name.as_str(), "child")?;
    same("child's kind", span.kind, 3)?;
    same("child's parent", &span.parent_span_id, &story.root_span_id)?;
    let times = (span.start_time_unix_nano, span.end_time_unix_nano);
    same("child's times", times, (story.time_ns + 50 * MS, story.time_ns + 150 * MS))?;
    same("child's status", (span.status.code, span.status.message.as_str()), (2, "it broke"))
}

async fn trace_search(server: &Server, story: &Story) -> Outcome {
    let parameters = [
        ("service", story.service),
        ("operation", "root"),
        ("min_duration", "250ms"),
        ("max_duration", "250ms"),
        ("attr", "int=42"),
    ];
    let found = server.get("/api/traces", &parameters).await?;
    let [trace] = found["traces"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(format!("search: not one trace: {found}"));
    };
    same("search's trace", trace["trace_id"].as_str(), Some(story.trace_id.as_str()))?;
    let figures = ["duration_ns", "span_count", "error_count"].map(|key| trace[key].as_u64());
    same("search's figures", figures, [Some(250 * MS), Some(2), Some(1)])?;
    let query = format!(
        "select name, duration_ns from spans where trace_id = '{}' order by name",
        story.trace_id
    );
    same("SQL", server.sql(&query).await?, json!([["child", 100 * MS], ["root", 250 * MS]]))
}

async fn logs(server: &Server, story: &Story) -> Outcome {
    let by_trace = [("trace_id", story.trace_id.as_str()), ("order", "asc"), ("limit", "100")];
    let found = server.get("/api/logs", &by_trace).await?;
    let rows = found["logs"].as_array().map(Vec::as_slice).unwrap_or_default();
    same("number of the trace's logs", rows.len(), 6)?;
    let severities = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    for ((n, severity), row) in severities.iter().enumerate().zip(rows) {
        let told = json!({
            "time_unix_nano": story.time_ns + n as u64 * MS,
            "severity_text": severity,
            "severity_number": 1 + 4 * n,
            "service": story.service,
            "body": format!("the story is at {severity}"),
            "trace_id": story.trace_id,
            "span_id": story.child_span_id,
            "attributes": {"n": n},
            "event_name": "story.told",
        });
        same_members("log", row, &told)?;
        let told = json!({
            "service.name": story.service,
            "service.version": "1.2.3",
            "service.instance.id": "i-1",
            "host.cpus": 8,
        });
        same_members("log's resource", &row["resource"], &told)?;
    }

    let query = format!("service:\"{}\" AND structured", story.service);
    let found = server.get("/api/logs", &[("q", &query), ("count", "true")]).await?;
    same("number of structured logs", found["total"].as_u64(), Some(1))?;
    let told = json!({
        "time_unix_nano": story.time_ns + 10 * MS,
        "severity_text": "INFO",
        "severity_number": 9,
        "body": {"kind": "structured", "count": 3},
        "trace_id": "",
        "span_id": "",
        "attributes": {
            "bytes": "AP8Q",
            "list": ["a", 1, 2.5, true],
            "map": {"inner": 1, "deep": {"list": ["x", 2]}},
        },
    });
    same_members("structured log", &found["logs"][0], &told)?;

    let query = format!("service:\"{}\" AND severity:error", story.service);
    let found =
        server.get("/api/logs", &[("q", &query), ("count", "true"), ("limit", "0")]).await?;
    same("number of errors", found["total"].as_u64(), Some(1))
}

/// Compares the members that `told` has.
fn same_members(what: &str, found: &Value, told: &Value) -> Outcome {
    for (key, value) in told.as_object().into_iter().flatten() {
        same(&format!("{what}'s {key}"), &found[key], value)?;
    }
    Ok(())
}

async fn metrics(server: &Server, story: &Story) -> Outcome {
    let job = format!("job=\"{}\"", story.service);
    let scalars = [
        (format!("client_requests_total{{{job},k=\"v\",instance=\"i-1\"}}"), "3"),
        (format!("client_requests_total{{{job},k=\"w\"}}"), "2"),
        (format!("client_active{{{job}}}"), "3"),
        (format!("client_temperature_celsius{{{job}}}"), "21.5"),
        (format!("client_duration_seconds_bucket{{{job},le=\"0.01\"}}"), "1"),
        (format!("client_duration_seconds_bucket{{{job},le=\"0.1\"}}"), "1"),
        (format!("client_duration_seconds_bucket{{{job},le=\"1\"}}"), "2"),
        (format!("client_duration_seconds_bucket{{{job},le=\"+Inf\"}}"), "3"),
        (format!("client_duration_seconds_count{{{job}}}"), "3"),
        (format!("client_duration_seconds_sum{{{job}}}"), "7.303"),
        (format!("histogram_count(client_size_bytes{{{job}}})"), "4"),
        (format!("histogram_sum(client_size_bytes{{{job}}})"), "15"),
        (format!("histogram_quantile(1, client_size_bytes{{{job}}})"), "8"),
        (format!("target_info{{{job},host_cpus=\"8\",service_version=\"1.2.3\"}}"), "1"),
    ];
    for (query, told) in scalars {
        let answer = server.get("/prometheus/api/v1/query", &[("query", &query)]).await?;
        let result = answer["data"]["result"].as_array().map(Vec::as_slice).unwrap_or_default();
        let [series] = result else { return Err(format!("{query}: not one series: {answer}")) };
        same(&query, series["value"][1].as_str(), Some(told))?;
    }
    for (family, kind, unit, help) in [
        ("client_requests_total", "counter", "", "Requests made."),
        ("client_active", "gauge", "", "Requests under way."),
        ("client_temperature_celsius", "gauge", "celsius", "How warm it is."),
        ("client_duration_seconds", "histogram", "seconds", "How long."),
        ("client_size_bytes", "histogram", "bytes", "How much."),
    ] {
        let answer = server.get("/prometheus/api/v1/metadata", &[("metric", family)]).await?;
        let found = &answer["data"][family][0];
        let found = ["type", "unit", "help"].map(|key| found[key].as_str());
        same(family, found, [Some(kind), Some(unit), Some(help)])?;
    }
    if story.abilities.exemplars {
        exemplars(server, story, &job).await?;
    }
    metric_rows(server, story).await
}

/// The points as SQL shows them; equal rows are the collection at the shutdown again.
async fn metric_rows(server: &Server, story: &Story) -> Outcome {
    let query = format!(
        "select distinct metric_name, type, value, count, sum from metrics \
         where service_name = '{}' order by metric_name, value desc",
        story.service
    );
    let told = json!([
        ["client.active", "sum", 3.0, null, null],
        ["client.duration", "histogram", null, 3, 7.303],
        ["client.requests", "sum", 3.0, null, null],
        ["client.requests", "sum", 2.0, null, null],
        ["client.size", "exponential_histogram", null, 4, 15.0],
        ["client.temperature", "gauge", 21.5, null, null],
    ]);
    same("SQL over metrics", server.sql(&query).await?, told)
}

async fn exemplars(server: &Server, story: &Story, job: &str) -> Outcome {
    let query = format!("client_duration_seconds_bucket{{{job}}}");
    let seconds = story.time_ns / 1_000_000_000;
    let (start, end) = ((seconds - 60).to_string(), (seconds + 600).to_string());
    let parameters = [("query", query.as_str()), ("start", &start), ("end", &end)];
    let answer = server.get("/prometheus/api/v1/query_exemplars", &parameters).await?;
    let mut found: Vec<(String, Value)> = Vec::new();
    for series in answer["data"].as_array().into_iter().flatten() {
        for one in series["exemplars"].as_array().into_iter().flatten() {
            let le = series["seriesLabels"]["le"].as_str().unwrap_or_default().to_owned();
            found.push((le, json!([one["value"], one["labels"]])));
        }
    }
    // The SDK sends them again with the collection at its shutdown.
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.dedup();
    let labels = json!({"trace_id": story.trace_id, "span_id": story.child_span_id});
    let told = [("+Inf", "7"), ("0.01", "0.003"), ("1", "0.3")]
        .map(|(le, value)| (le.to_owned(), json!([value, labels])));
    same("exemplars", &found[..], &told[..])
}
