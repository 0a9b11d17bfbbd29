//! OTLP/JSON requests, and questions to the Prometheus API.

use crate::common::Server;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub const SECOND_NS: u64 = 1_000_000_000;

/// Unix seconds.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Attributes as OTLP/JSON has them.
pub fn attributes(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect()
}

/// The metrics of one resource and no named scope.
pub fn metrics(resource: &[(&str, &str)], metrics: Vec<Value>) -> Value {
    json!({"resourceMetrics": [{
        "resource": {"attributes": attributes(resource)},
        "scopeMetrics": [{"metrics": metrics}],
    }]})
}

/// The spans of services, in one request.
pub fn spans(by_service: &[(&str, Vec<Value>)]) -> Value {
    let resources: Vec<Value> = by_service
        .iter()
        .map(|(service, spans)| {
            json!({
                "resource": {"attributes": attributes(&[("service.name", service)])},
                "scopeSpans": [{"spans": spans}],
            })
        })
        .collect();
    json!({ "resourceSpans": resources })
}

/// Sends `body` and expects that all of it is taken.
///
/// * `signal`: `traces` or `metrics`.
pub async fn send(server: &Server, signal: &str, body: &Value) {
    let url = format!("{}/v1/{signal}", server.otlp_http);
    let answer = reqwest::Client::new().post(url).json(body).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!((status.as_u16(), &*text), (200, "{}"));
}

/// The `data` of a successful answer to `GET base/api/v1/path`.
pub async fn get(base: &str, path: &str, parameters: &[(&str, &str)]) -> Value {
    let request = reqwest::Client::new().get(format!("{base}/api/v1/{path}")).query(parameters);
    data(request, path, parameters).await
}

/// The same with the parameters in a form, as Grafana sends them.
pub async fn post(base: &str, path: &str, parameters: &[(&str, &str)]) -> Value {
    let request = reqwest::Client::new().post(format!("{base}/api/v1/{path}")).form(parameters);
    data(request, path, parameters).await
}

async fn data(request: reqwest::RequestBuilder, path: &str, asked: &[(&str, &str)]) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status.as_u16(), 200, "{path} {asked:?}: {text}");
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["status"], "success", "{path} {asked:?}: {text}");
    answer["data"].take()
}

/// The samples of an instant query: labels and value of each.
pub async fn instant(server: &Server, query: &str, time_s: f64) -> Vec<(Value, f64)> {
    let base = format!("{}/prometheus", server.http);
    let data = post(&base, "query", &[("query", query), ("time", &time_s.to_string())]).await;
    let samples = data["result"].as_array().unwrap_or_else(|| panic!("{query}: {data}"));
    samples
        .iter()
        .map(|sample| {
            let value = sample["value"][1].as_str().unwrap_or_else(|| panic!("{query}: {sample}"));
            (sample["metric"].clone(), value.parse().unwrap())
        })
        .collect()
}

/// The only sample of an instant query.
pub async fn number(server: &Server, query: &str, time_s: f64) -> f64 {
    let samples = instant(server, query, time_s).await;
    assert_eq!(samples.len(), 1, "{query}: {samples:?}");
    samples[0].1
}
