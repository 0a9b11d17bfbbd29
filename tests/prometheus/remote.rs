//! A server that is written to and asked as Prometheus and its clients do.

use crate::common::Server;
use crate::prompb::{self, v1, v2};
use crate::script::run::{self, Loaded};
use prost::Message;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use trefoil_promql::{Bucket, Histogram, Labels, SampleValue};

/// A server over a directory of its own, and a client.
pub struct Remote {
    pub server: Server,
    dir: TempDir,
    pub client: reqwest::Client,
    pub runtime: Runtime,
}

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e} in {}", self.text))
    }

    /// `data` of a successful answer.
    pub fn data(&self) -> Value {
        let body = self.json();
        assert_eq!((self.status, &body["status"]), (200, &Value::from("success")), "{body}");
        body["data"].clone()
    }

    /// `errorType` and `error` of a failed one, whose status must be this.
    pub fn error(&self, status: u16) -> (String, String) {
        let body = self.json();
        assert_eq!((self.status, &body["status"]), (status, &Value::from("error")), "{body}");
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        (text("errorType"), text("error"))
    }
}

impl Remote {
    /// Scripts count time from 1970, so nothing may expire.
    pub fn start(arguments: &[&str]) -> Self {
        Self::over(tempfile::tempdir().unwrap(), arguments)
    }

    /// The same over a directory that may hold data.
    pub fn over(dir: TempDir, arguments: &[&str]) -> Self {
        let arguments: Vec<&str> =
            ["--retention", "unlimited"].iter().chain(arguments).copied().collect();
        let server = Server::start_with(dir.path(), &arguments);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { server, dir, client: reqwest::Client::new(), runtime }
    }

    /// Stops the server as a service manager would.
    pub fn stop(self) -> TempDir {
        self.server.stop();
        self.dir
    }

    /// A server with the data of a script's `load` commands.
    pub fn with(script: &str, arguments: &[&str]) -> Self {
        let remote = Self::start(arguments);
        for series in run::loads(script) {
            remote.write(&series);
        }
        remote
    }

    /// Sends samples by remote write.
    pub fn write(&self, series: &[(Labels, Vec<Loaded>)]) {
        // Where a series turns from numbers to histograms or back, a new request begins.
        let mut runs: Vec<Vec<(&Labels, &[Loaded])>> = Vec::new();
        for (labels, samples) in series {
            let is_float = |s: &Loaded| matches!(s.value, SampleValue::Float(_));
            for (number, run) in samples.chunk_by(|a, b| is_float(a) == is_float(b)).enumerate() {
                if number == runs.len() {
                    runs.push(Vec::new());
                }
                runs[number].push((labels, run));
            }
        }
        for run in runs {
            // Only 2.0 tells start times.
            if run.iter().any(|(_, samples)| samples.iter().any(|s| s.start_ms != 0)) {
                self.send("io.prometheus.write.v2.Request", &request_2(&run));
            } else {
                self.send("prometheus.WriteRequest", &request_1(&run));
            }
        }
    }

    /// Sends a remote-write message, which must be accepted.
    pub fn send(&self, proto: &str, message: &impl Message) {
        let body = snap::raw::Encoder::new().compress_vec(&message.encode_to_vec()).unwrap();
        let request = self
            .client
            .post(format!("{}/prometheus/api/v1/write", self.server.http))
            .header("content-type", format!("application/x-protobuf;proto={proto}"))
            .header("content-encoding", "snappy")
            .body(body);
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let status = answer.status();
            assert_eq!(status, 204, "{}", answer.text().await.unwrap_or_default());
        });
    }

    /// `GET /prometheus/api/v1/PATH`.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        self.ask(Method::GET, &format!("/prometheus/api/v1/{path}"), parameters)
    }

    /// `POST /prometheus/api/v1/PATH` with a form.
    pub fn post(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        self.ask(Method::POST, &format!("/prometheus/api/v1/{path}"), parameters)
    }

    /// Any request; parameters go into the address, or into the form of a POST.
    pub fn ask(&self, method: Method, path: &str, parameters: &[(&str, &str)]) -> Answer {
        let request = self.client.request(method.clone(), format!("{}{path}", self.server.http));
        let request = if method == Method::POST {
            request.form(parameters)
        } else {
            request.query(parameters)
        };
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            Answer { status, text: answer.text().await.unwrap() }
        })
    }
}

fn request_1(run: &[(&Labels, &[Loaded])]) -> v1::WriteRequest {
    let timeseries = run.iter().map(|(labels, samples)| {
        let mut series = v1::TimeSeries {
            labels: labels
                .iter()
                .map(|(name, value)| v1::Label { name: name.into(), value: value.into() })
                .collect(),
            ..Default::default()
        };
        for s in *samples {
            match &s.value {
                SampleValue::Float(value) => {
                    series.samples.push(v1::Sample { value: *value, timestamp: s.time_ms });
                }
                SampleValue::Histogram(h) => series.histograms.push(histogram(h, s.time_ms)),
            }
        }
        series
    });
    v1::WriteRequest { timeseries: timeseries.collect(), ..Default::default() }
}

fn request_2(run: &[(&Labels, &[Loaded])]) -> v2::Request {
    let mut request = prompb::upgrade(&request_1(run));
    for (series, (_, samples)) in request.timeseries.iter_mut().zip(run) {
        for (sample, loaded) in series.samples.iter_mut().zip(*samples) {
            sample.start_timestamp = loaded.start_ms;
        }
    }
    request
}

fn histogram(h: &Histogram, time_ms: i64) -> v1::Histogram {
    let side = |buckets: &[Bucket]| {
        let mut spans: Vec<v1::BucketSpan> = Vec::new();
        let mut next = 0;
        for bucket in buckets {
            match spans.last_mut() {
                Some(span) if bucket.index == next => span.length += 1,
                _ => spans.push(v1::BucketSpan { offset: bucket.index - next, length: 1 }),
            }
            next = bucket.index + 1;
        }
        (spans, buckets.iter().map(|bucket| bucket.count).collect())
    };
    let (positive_spans, positive_counts) = side(&h.positive);
    let (negative_spans, negative_counts) = side(&h.negative);
    v1::Histogram {
        count: Some(v1::histogram::Count::CountFloat(h.count)),
        sum: h.sum,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountFloat(h.zero_count)),
        positive_spans,
        positive_counts,
        negative_spans,
        negative_counts,
        reset_hint: h.reset_hint as i32,
        timestamp: time_ms,
        custom_values: h.custom_values.as_deref().unwrap_or_default().to_vec(),
        ..Default::default()
    }
}
