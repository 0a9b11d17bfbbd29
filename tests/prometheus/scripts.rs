//! Scripts in Prometheus' test language over HTTP: those of the project always, Prometheus' own where they are at hand
//! (see `query/promql/tests/conformance.rs`, which runs the same scripts against the engine alone).
//!
//! Every instant evaluation is repeated as a step of a range query. Failures of Prometheus' scripts must be listed,
//! with their reason, in `docs/promql.md`.

use crate::remote::Remote;
use crate::script::When;
use crate::script::check::{Answer, Got, Shown, almost_equal};
use crate::script::run::{self, Loaded, Tally, Target};
use crate::script::series::PointValue;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use trefoil_promql::{Histogram, Labels, SampleValue};

/// A server; `clear` starts another one.
struct OverHttp(Remote);

impl OverHttp {
    fn new() -> Self {
        Self(Remote::start(&["--promql-experimental"]))
    }
}

impl Target for OverHttp {
    type Value = Shape;

    fn clear(&mut self) {
        *self = Self::new();
    }

    fn load(&mut self, series: &[(Labels, Vec<Loaded>)]) {
        self.0.write(series);
    }

    fn query(&mut self, query: &str, when: When) -> Result<Answer<Shape>, String> {
        let seconds = |ms: i64| (ms as f64 / 1000.0).to_string();
        let (path, times) = match when {
            When::Instant(time) => ("query", vec![("time", seconds(time))]),
            When::Range(start, end, step) => (
                "query_range",
                vec![("start", seconds(start)), ("end", seconds(end)), ("step", seconds(step))],
            ),
        };
        let mut parameters = vec![("query", query)];
        parameters.extend(times.iter().map(|(name, value)| (*name, value.as_str())));
        let answer = self.0.post(path, &parameters).json();
        if answer["status"] != "success" {
            let message = answer["error"].as_str().expect("an error says what it is");
            // Scripts know the message of the engine.
            let message = message.strip_prefix("invalid parameter \"query\": ").unwrap_or(message);
            return Err(message.to_owned());
        }
        let texts = |name: &str| -> Vec<String> {
            let list = answer.get(name).map(|list| list.as_array().unwrap().iter());
            list.into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let (warnings, infos) = (texts("warnings"), texts("infos"));
        Ok(Answer { value: got(&answer["data"]), warnings, infos })
    }

    /// The engine's own test does that; here it would take minutes.
    fn pins(&self) -> bool {
        false
    }
}

/// A value in the form of the HTTP API.
#[derive(Clone, Debug)]
enum Shape {
    Number(f64),
    Histogram { count: f64, sum: f64, buckets: Vec<ShownBucket> },
}

/// Rule, lower bound, upper bound, count.
type ShownBucket = (u64, f64, f64, f64);

impl Shown for Shape {
    fn is(&self, want: &PointValue) -> bool {
        match (self, &want.value) {
            (Self::Number(got), SampleValue::Float(want)) => almost_equal(*got, *want),
            (Self::Histogram { count, sum, buckets }, SampleValue::Histogram(want)) => {
                let wanted = populated(want);
                almost_equal(*count, want.count)
                    && almost_equal(*sum, want.sum)
                    && buckets.len() == wanted.len()
                    && buckets.iter().zip(wanted).all(|(got, want)| {
                        got.0 == want.0
                            && almost_equal(got.1, want.1)
                            && almost_equal(got.2, want.2)
                            && almost_equal(got.3, want.3)
                    })
            }
            _ => false,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Histogram { .. } => None,
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            other => format!("{other:?}"),
        }
    }
}

fn populated(h: &Histogram) -> Vec<ShownBucket> {
    let buckets = h.all_buckets().filter(|bucket| bucket.count != 0.0);
    buckets
        .map(|b| {
            let rule = match (b.lower_inclusive, b.upper_inclusive) {
                (false, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            (rule, b.lower, b.upper, b.count)
        })
        .collect()
}

fn number(text: &Value) -> f64 {
    match text.as_str().expect("numbers are texts") {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        digits => digits.parse().unwrap_or_else(|_| panic!("{digits} is no number")),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn shape(value: &Value) -> Shape {
    let Some(histogram) = value.as_object() else { return Shape::Number(number(value)) };
    let bucket = |b: &Value| {
        let rule = b[0].as_u64().expect("a bucket's rule");
        (rule, number(&b[1]), number(&b[2]), number(&b[3]))
    };
    let buckets = histogram.get("buckets").map(list).unwrap_or_default();
    Shape::Histogram {
        count: number(&histogram["count"]),
        sum: number(&histogram["sum"]),
        buckets: buckets.iter().map(bucket).collect(),
    }
}

fn labels(metric: &Value) -> Labels {
    let pairs = metric.as_object().expect("labels");
    Labels::new(
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str().expect("a label's value"))),
    )
}

fn time_ms(time: &Value) -> i64 {
    (time.as_f64().expect("times are numbers") * 1000.0).round() as i64
}

/// Reads the `data` of an answer.
fn got(data: &Value) -> Got<Shape> {
    let result = &data["result"];
    match data["resultType"].as_str().expect("a type") {
        "scalar" => Got::Scalar(number(&result[1])),
        "string" => Got::Text(result[1].as_str().expect("a text").to_owned()),
        "vector" => Got::Vector(
            list(result)
                .iter()
                .map(|sample| {
                    let point = sample.get("value").or_else(|| sample.get("histogram"));
                    (labels(&sample["metric"]), shape(&point.expect("a value")[1]))
                })
                .collect(),
        ),
        _ => Got::Matrix(
            list(result)
                .iter()
                .map(|series| {
                    let points = ["values", "histograms"].map(|name| {
                        let points = series.get(name);
                        assert!(points.is_none_or(|p| !list(p).is_empty()), "an empty {name}");
                        points.map(list).unwrap_or_default()
                    });
                    let mut points: Vec<(i64, Shape)> =
                        points.concat().iter().map(|p| (time_ms(&p[0]), shape(&p[1]))).collect();
                    points.sort_by_key(|(time, _)| *time);
                    (labels(&series["metric"]), points)
                })
                .collect(),
        ),
    }
}

/// Runs all scripts of some folders, on all processors.
fn run_files(folders: &[&Path]) -> Vec<(String, Tally)> {
    let mut files: Vec<PathBuf> = folders.iter().flat_map(|folder| run::scripts(folder)).collect();
    // The largest first, so that it does not come last.
    files.sort_by_key(|path| path.metadata().map_or(0, |m| m.len()));
    let (files, done) = (Mutex::new(files), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(path) = files.lock().unwrap().pop() else { return };
                    let text = std::fs::read_to_string(&path).unwrap();
                    let tally = run::run(&mut OverHttp::new(), &text);
                    done.lock().unwrap().push((run::file_name(&path), tally));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by(|a: &(String, Tally), b| a.0.cmp(&b.0));
    done
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn our_own_scripts_hold_over_http() {
    let (ours, engine) =
        (workspace().join("tests/promql"), workspace().join("query/promql/tests/cases"));
    let tallies = run_files(&[&ours, &engine]);
    assert!(tallies.len() >= 2, "no scripts");
    run::assert_all_hold(&tallies);
}

#[test]
fn prometheus_scripts_hold_over_http_except_for_what_is_listed() {
    let folder = run::prometheus_folder(workspace());
    let tallies = run_files(&[&folder]);
    if tallies.is_empty() {
        println!("no scripts in {}: nothing to compare with", folder.display());
        return;
    }
    run::assert_holds_but_for_what_is_listed(workspace(), &tallies);
}
