//! Refusals of the Prometheus HTTP API: the right type, the right status, and words that name what is wrong.

use crate::remote::Remote;
use reqwest::Method;

/// Path, parameters, status, type, and a part of the message.
type Case =
    (&'static str, &'static [(&'static str, &'static str)], u16, &'static str, &'static str);

const CASES: &[Case] = &[
    (
        "query",
        &[("query", "up{")],
        400,
        "bad_data",
        "invalid parameter \"query\": 1:4: parse error",
    ),
    ("query", &[], 400, "bad_data", "invalid parameter \"query\""),
    ("query", &[("query", "nothing_of_this_kind(up)")], 400, "bad_data", "unknown function"),
    ("query", &[("query", "mad_over_time(up[5m])")], 400, "bad_data", "mad_over_time"),
    ("query", &[("query", "{a=\"\"}")], 400, "bad_data", "non-empty matcher"),
    ("query", &[("query", "1"), ("time", "soon")], 400, "bad_data", "invalid parameter \"time\""),
    (
        "query",
        &[("query", "1"), ("timeout", "x")],
        400,
        "bad_data",
        "invalid parameter \"timeout\"",
    ),
    ("query", &[("query", "1"), ("limit", "-1")], 400, "bad_data", "invalid parameter \"limit\""),
    ("query", &[("query", "1"), ("limit", "x")], 400, "bad_data", "invalid parameter \"limit\""),
    ("query", &[("query", "1"), ("lookback_delta", "x")], 400, "bad_data", "lookback"),
    ("query", &[("query", "up * on() up")], 422, "execution", "many-to-many"),
    ("query", &[("query", "up * on(job) group_left() up")], 422, "execution", "many-to-many"),
    (
        "query",
        &[("query", "label_replace(up, \"instance\", \"x\", \"\", \"\")")],
        422,
        "execution",
        "same labelset",
    ),
    ("query", &[("query", "up"), ("timeout", "0")], 503, "timeout", "promql-timeout"),
    (
        "query_range",
        &[("query", "up"), ("start", "10"), ("end", "9"), ("step", "1")],
        400,
        "bad_data",
        "invalid parameter \"end\"",
    ),
    (
        "query_range",
        &[("query", "up"), ("start", "0"), ("end", "9"), ("step", "0")],
        400,
        "bad_data",
        "invalid parameter \"step\"",
    ),
    (
        "query_range",
        &[("query", "up"), ("start", "0"), ("end", "9"), ("step", "-1")],
        400,
        "bad_data",
        "invalid parameter \"step\"",
    ),
    ("query_range", &[("query", "up")], 400, "bad_data", "invalid parameter \"start\""),
    (
        "query_range",
        &[("query", "up"), ("start", "0"), ("end", "9")],
        400,
        "bad_data",
        "invalid parameter \"step\"",
    ),
    (
        "query_range",
        &[("query", "up"), ("start", "0"), ("end", "11000"), ("step", "1")],
        400,
        "bad_data",
        "11,000 points",
    ),
    (
        "query_range",
        &[("query", "up[5m]"), ("start", "0"), ("end", "9"), ("step", "1")],
        400,
        "bad_data",
        "range vector",
    ),
    (
        "query_range",
        &[("query", "\"text\""), ("start", "0"), ("end", "9"), ("step", "1")],
        400,
        "bad_data",
        "string",
    ),
    ("query_exemplars", &[("query", "up{")], 400, "bad_data", "parse error"),
    ("query_exemplars", &[("query", "up"), ("start", "2"), ("end", "1")], 400, "bad_data", "end"),
    ("series", &[], 400, "bad_data", "match[]"),
    ("series", &[("match[]", "up{")], 400, "bad_data", "match[]"),
    ("series", &[("match[]", "{a=~\".*\"}")], 400, "bad_data", "non-empty matcher"),
    (
        "series",
        &[("match[]", "up"), ("start", "x")],
        400,
        "bad_data",
        "invalid parameter \"start\"",
    ),
    ("labels", &[("match[]", "{}")], 400, "bad_data", "match[]"),
    ("labels", &[("limit", "-1")], 400, "bad_data", "invalid parameter \"limit\""),
    ("label/job/values", &[("end", "x")], 400, "bad_data", "invalid parameter \"end\""),
    ("metadata", &[("limit", "x")], 400, "bad_data", "limit"),
    ("format_query", &[("query", "up{")], 400, "bad_data", "parse error"),
    ("parse_query", &[("query", "up{")], 400, "bad_data", "parse error"),
    ("status/tsdb", &[("limit", "0")], 400, "bad_data", "limit"),
];

#[test]
fn every_mistake_has_its_type_its_status_and_its_words() {
    let script = r#"
load 1m
  up{job="shop", instance="a"} 1
  up{job="shop", instance="b"} 1
"#;
    let remote = Remote::with(script, &[]);
    for (path, parameters, status, kind, message) in CASES {
        let mut parameters = parameters.to_vec();
        if *path == "query" && !parameters.iter().any(|(name, _)| *name == "time") {
            parameters.push(("time", "0"));
        }
        let answer = remote.get(path, &parameters);
        let (got_kind, got) = answer.error(*status);
        assert_eq!(got_kind, *kind, "{path} {parameters:?}: {got}");
        assert!(got.contains(message), "{path} {parameters:?}: {got}");
        // Grafana asks again with GET after a refused POST: both must say the same.
        if !matches!(*path, "label/job/values" | "metadata" | "status/tsdb") {
            let (again_kind, again) = remote.post(path, &parameters).error(*status);
            assert_eq!((again_kind, again), (got_kind, got), "POST {path} {parameters:?}");
        }
    }
}

#[test]
fn what_is_not_there_is_a_404_and_wrong_methods_are_405() {
    let remote = Remote::start(&[]);
    assert_eq!(remote.get("nothing", &[]).status, 404);
    for method in [Method::PUT, Method::DELETE] {
        let answer = remote.ask(method, "/prometheus/api/v1/query", &[("query", "1")]);
        assert_eq!(answer.status, 405);
    }
    assert_eq!(remote.post("label/job/values", &[]).status, 405);
}
