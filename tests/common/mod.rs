//! What the black-box tests share: the real binary on ports of its own, over a data directory of its own.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod shop;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A running `trefoil serve`; killed when dropped.
pub struct Server {
    process: Child,
    pub otlp_grpc: String,
    pub otlp_http: String,
    pub http: String,
}

/// From the start to `ready`, on a loaded machine and with an unoptimized binary.
const READY_MAX: Duration = Duration::from_secs(60);

/// The binary under test, with no setting from the environment.
pub fn trefoil() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trefoil"));
    for (name, _) in std::env::vars() {
        if name.starts_with("TREFOIL_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

impl Server {
    /// Starts a server over `data_dir` on free ports and waits until it is ready.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// The same with further arguments.
    pub fn start_with(data_dir: &Path, arguments: &[&str]) -> Self {
        let mut process = trefoil()
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--otlp-grpc-addr", "127.0.0.1:0", "--otlp-http-addr", "127.0.0.1:0"])
            .args(["--http-addr", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let log = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let (ready, is_ready) = mpsc::channel();
        // Reads on until the server ends, so that it never blocks on its own log.
        std::thread::spawn(move || {
            let mut seen = String::new();
            for line in log.lines().map_while(Result::ok) {
                eprintln!("{line}");
                if line.contains(" ready ") {
                    let _ = ready.send(Ok(line.clone()));
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            let _ = ready.send(Err(seen));
        });
        let line = match is_ready.recv_timeout(READY_MAX) {
            Ok(Ok(line)) => line,
            Ok(Err(log)) => panic!("the server ended before it was ready:\n{log}"),
            Err(_) => panic!("the server was not ready within {READY_MAX:?}"),
        };
        let addrs: HashMap<&str, &str> =
            line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        let url = |name: &str| format!("http://{}", addrs[name]);
        Self {
            process,
            otlp_grpc: url("otlp_grpc"),
            otlp_http: url("otlp_http"),
            http: url("http"),
        }
    }

    /// The most memory it has held so far.
    pub fn peak_memory_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("the server runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the end, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let give_up = Instant::now() + patience;
        loop {
            if let Some(status) = self.process.try_wait().expect("the server can be watched") {
                return status;
            }
            assert!(Instant::now() < give_up, "the server did not end within {patience:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as a power cut would end the process: at once.
    pub fn kill(mut self) {
        self.process.kill().expect("the server can be killed");
        self.process.wait().expect("it ends");
    }

    /// Ends it as a service manager would, and checks that it says all is well.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait(Duration::from_secs(15));
        assert!(status.success(), "{status}");
    }

    /// The value of one of the server's own metrics, such as `trefoil_records_total{signal="spans",fate="stored"}`;
    /// 0 while it is not there.
    pub async fn metric(&self, name: &str) -> u64 {
        let text =
            reqwest::get(format!("{}/metrics", self.http)).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// `GET path?parameters` on the query port as JSON; any answer but a success becomes the error's text.
    pub async fn get(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<serde_json::Value, String> {
        let url = format!("{}{path}", self.http);
        let request = reqwest::Client::new().get(url).query(parameters);
        json(request).await.map_err(|error| format!("GET {path} {parameters:?}: {error}"))
    }

    /// The rows of a SQL query.
    pub async fn sql(&self, query: &str) -> Result<serde_json::Value, String> {
        let body = serde_json::json!({ "query": query });
        let request = reqwest::Client::new().post(format!("{}/api/sql", self.http)).json(&body);
        let answer = json(request).await.map_err(|error| format!("SQL {query}: {error}"))?;
        Ok(answer["rows"].clone())
    }

    /// Records of a signal by what became of them.
    pub async fn records(&self, signal: &str, fate: &str) -> u64 {
        self.metric(&format!("trefoil_records_total{{signal=\"{signal}\",fate=\"{fate}\"}}")).await
    }
}

async fn json(request: reqwest::RequestBuilder) -> Result<serde_json::Value, String> {
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {text}"));
    }
    serde_json::from_str(&text).map_err(|error| format!("not JSON ({error}): {text}"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// OTLP requests to send, each built from a number so that no two are alike.
pub mod otlp {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::metrics::v1::{
        Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
    };
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use std::time::{SystemTime, UNIX_EPOCH};

    pub fn now_ns() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
    }

    fn text(key: &str, value: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
        KeyValue { key: key.into(), value, ..KeyValue::default() }
    }

    fn resource() -> Option<Resource> {
        Some(Resource { attributes: vec![text("service.name", "checkout")], ..Resource::default() })
    }

    /// The trace ID that the spans and logs of request `number` carry.
    pub fn trace_id(number: u64) -> [u8; 16] {
        (u128::from(number) << 8 | 1).to_be_bytes()
    }

    /// `count` spans of one trace.
    pub fn traces(number: u64, count: u64) -> ExportTraceServiceRequest {
        let spans = (1..=count)
            .map(|index| Span {
                trace_id: trace_id(number).into(),
                span_id: (number << 16 | index).to_be_bytes().into(),
                name: format!("operation {index}"),
                kind: 2,
                start_time_unix_nano: now_ns(),
                end_time_unix_nano: now_ns() + 1_000_000,
                attributes: vec![text("request.id", &number.to_string())],
                ..Span::default()
            })
            .collect();
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans =
            vec![ResourceSpans { resource: resource(), scope_spans, ..ResourceSpans::default() }];
        ExportTraceServiceRequest { resource_spans }
    }

    /// The same as OTLP/JSON.
    pub fn traces_json(number: u64, count: u64) -> String {
        let spans: Vec<serde_json::Value> = (1..=count)
            .map(|index| {
                serde_json::json!({
                    "traceId": format!("{:032x}", u128::from_be_bytes(trace_id(number))),
                    "spanId": format!("{:016x}", number << 16 | index),
                    "name": format!("operation {index}"),
                    "kind": 2,
                    "startTimeUnixNano": now_ns().to_string(),
                    "endTimeUnixNano": (now_ns() + 1_000_000).to_string(),
                    "attributes": [{"key": "request.id", "value": {"stringValue": number.to_string()}}],
                })
            })
            .collect();
        let service =
            serde_json::json!({"key": "service.name", "value": {"stringValue": "checkout"}});
        serde_json::json!({"resourceSpans": [{
            "resource": {"attributes": [service]},
            "scopeSpans": [{"spans": spans}],
        }]})
        .to_string()
    }

    /// `count` log records of one trace.
    pub fn logs(number: u64, count: u64) -> ExportLogsServiceRequest {
        let log_records = (1..=count)
            .map(|index| LogRecord {
                time_unix_nano: now_ns(),
                severity_number: 9,
                severity_text: "INFO".into(),
                body: Some(AnyValue {
                    value: Some(Value::StringValue(format!("request {number} line {index}"))),
                }),
                trace_id: trace_id(number).into(),
                attributes: vec![text("request.id", &number.to_string())],
                ..LogRecord::default()
            })
            .collect();
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource_logs =
            vec![ResourceLogs { resource: resource(), scope_logs, ..ResourceLogs::default() }];
        ExportLogsServiceRequest { resource_logs }
    }

    /// `count` points of one gauge, each of a series of its own.
    pub fn metrics(number: u64, count: u64) -> ExportMetricsServiceRequest {
        let data_points = (1..=count)
            .map(|index| NumberDataPoint {
                time_unix_nano: now_ns(),
                attributes: vec![
                    text("request.id", &number.to_string()),
                    text("index", &index.to_string()),
                ],
                value: Some(number_data_point::Value::AsDouble(index as f64)),
                ..NumberDataPoint::default()
            })
            .collect();
        let metric = Metric {
            name: "queue.depth".into(),
            data: Some(metric::Data::Gauge(Gauge { data_points })),
            ..Metric::default()
        };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
        let resource_metrics = vec![ResourceMetrics {
            resource: resource(),
            scope_metrics,
            ..ResourceMetrics::default()
        }];
        ExportMetricsServiceRequest { resource_metrics }
    }
}
