//! Ingest end to end: the real binary, real sockets, what is stored read back from the server's own books.

mod common;

use common::{Server, otlp};
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use reqwest::{Client, Response};
use serde_json::Value;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tonic::Code;
use tonic::codec::CompressionEncoding;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

async fn post(url: String, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
    let request = Client::new().post(url).header("content-type", content_type);
    request.body(body.into()).send().await.unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn the_first_requests_of_exporters_are_answered_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let otlp = |path: &str| format!("{}{path}", server.otlp_http);

    let response = post(otlp("/v1/traces"), PROTOBUF, "").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.bytes().await.unwrap().len(), 0);
    let response = post(otlp("/v1/traces"), JSON, "{}").await;
    assert_eq!((response.status().as_u16(), &*response.text().await.unwrap()), (200, "{}"));

    let response = post(otlp("/v1/logs"), JSON, "{").await;
    assert_eq!(response.status(), 400);
    let status: Value = response.json().await.unwrap();
    assert_eq!(status["code"], 3);
    assert_eq!(post(otlp("/v1/logs"), "text/plain", "{}").await.status(), 415);
    assert_eq!(reqwest::get(otlp("/v1/logs")).await.unwrap().status(), 405);

    let body = otlp::traces(1, 2).encode_to_vec();
    for (encoding, packed) in [
        ("gzip", gzip(&body)),
        ("zstd", zstd::encode_all(&*otlp::traces(2, 2).encode_to_vec(), 1).unwrap()),
    ] {
        let request = Client::new().post(otlp("/v1/traces")).header("content-type", PROTOBUF);
        let request = request.header("content-encoding", encoding).body(packed);
        assert_eq!(request.send().await.unwrap().status(), 200, "{encoding}");
    }
    let snake = r#"{"resource_spans":[{"scope_spans":[{"spans":[{}]}]}]}"#;
    assert_eq!(post(otlp("/v1/traces"), JSON, snake).await.text().await.unwrap(), "{}");
    assert_eq!(server.records("spans", "stored").await, 4);
    assert_eq!(server.records("spans", "rejected").await, 0);

    let response = post(otlp("/"), JSON, "{}").await;
    assert_eq!(response.status(), 404);
    assert!(response.text().await.unwrap().contains("/v1/traces"));
    let response = post(otlp("/v1development/profiles"), JSON, "{}").await;
    assert_eq!(response.status(), 404);
    assert!(response.text().await.unwrap().contains("profiles are not supported"));
    assert_eq!(post(server.otlp_grpc.clone() + "/v1/traces", PROTOBUF, body).await.status(), 415);
}

#[tokio::test]
async fn the_three_signals_are_stored_over_grpc_and_http() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = TraceServiceClient::connect(server.otlp_grpc.clone())
        .await
        .unwrap()
        .send_compressed(CompressionEncoding::Gzip);
    let response = client.export(otlp::traces(1, 3)).await.unwrap().into_inner();
    assert_eq!(response.partial_success, None);
    for (path, body) in [
        ("/v1/logs", otlp::logs(1, 4).encode_to_vec()),
        ("/v1/metrics", otlp::metrics(1, 5).encode_to_vec()),
    ] {
        let response = post(format!("{}{path}", server.otlp_http), PROTOBUF, body).await;
        assert_eq!(response.status(), 200, "{path}");
    }
    for (signal, count) in [("spans", 3), ("logs", 4), ("metrics", 5)] {
        assert_eq!(server.records(signal, "stored").await, count, "{signal}");
    }
}

#[tokio::test]
async fn bad_input_is_refused_with_words_and_the_server_keeps_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let traces = format!("{}/v1/traces", server.otlp_http);
    let good = otlp::traces(1, 3).encode_to_vec();
    assert_eq!(post(traces.clone(), PROTOBUF, good.clone()).await.status(), 200);

    let garbage: Vec<u8> = (0..5000u32).map(|i| (i * 7919 >> 3) as u8).collect();
    assert_eq!(post(traces.clone(), PROTOBUF, garbage).await.status(), 400);
    assert_eq!(post(traces.clone(), PROTOBUF, &good[..good.len() - 3]).await.status(), 400);
    assert_eq!(post(traces.clone(), "application/xml", good.clone()).await.status(), 415);
    let oversized = vec![0; (64 << 20) + 1];
    let response = post(traces.clone(), PROTOBUF, oversized.clone()).await;
    assert_eq!(response.status(), 413);
    let bomb = Client::new().post(&traces).header("content-type", PROTOBUF);
    let bomb = bomb.header("content-encoding", "gzip").body(gzip(&oversized));
    assert_eq!(bomb.send().await.unwrap().status(), 413);
    let deep = format!(r#"{{"x":{}"#, "[".repeat(200_000));
    let response = post(traces.clone(), JSON, deep).await;
    assert_eq!(response.status(), 400);
    assert!(response.text().await.unwrap().contains("nested deeper"));

    let mut client = TraceServiceClient::connect(server.otlp_grpc.clone())
        .await
        .unwrap()
        .max_encoding_message_size(usize::MAX);
    let mut huge = otlp::traces(2, 1);
    huge.resource_spans[0].scope_spans[0].spans[0].name = "n".repeat(64 << 20);
    let status = client.export(huge).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");

    assert_eq!(server.records("spans", "stored").await, 3);
    assert_eq!(post(traces, PROTOBUF, otlp::traces(3, 1).encode_to_vec()).await.status(), 200);
    assert_eq!(server.records("spans", "stored").await, 4);
}

#[tokio::test]
async fn one_bad_record_costs_one_record_in_each_encoding() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let traces = format!("{}/v1/traces", server.otlp_http);
    let mut request = otlp::traces(1, 3);
    request.resource_spans[0].scope_spans[0].spans[1].trace_id = vec![0; 16];

    let mut client = TraceServiceClient::connect(server.otlp_grpc.clone()).await.unwrap();
    let response = client.export(request.clone()).await.unwrap().into_inner();
    assert_eq!(response.partial_success.unwrap().rejected_spans, 1);

    let span = |trace_id: &str, span_id: u32| {
        let (start, end) = (otlp::now_ns(), otlp::now_ns() + 1);
        format!(
            r#"{{"traceId":"{trace_id}","spanId":"{span_id:016x}","name":"x","startTimeUnixNano":"{start}","endTimeUnixNano":{end}}}"#
        )
    };
    let good = "0af7651916cd43dd8448eb211c80319c";
    let body = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{},{},{},{}]}}]}}]}}"#,
        span(good, 1),
        span("not hex at all", 2),
        span(&"0".repeat(32), 3),
        span(&good.to_uppercase(), 4)
    );
    let told: Value = post(traces, JSON, body).await.json().await.unwrap();
    assert_eq!(told["partialSuccess"]["rejectedSpans"], "2");
    assert_eq!(server.records("spans", "stored").await, 4);
    assert_eq!(server.records("spans", "rejected").await, 3);
}

#[tokio::test]
async fn a_retry_is_no_duplicate_also_in_another_compression_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let body = otlp::traces(1, 5).encode_to_vec();
    let send = async |server: &Server, encoding: &str| {
        let request = Client::new().post(format!("{}/v1/traces", server.otlp_http));
        let request = request.header("content-type", PROTOBUF);
        let request = match encoding {
            "gzip" => request.header("content-encoding", "gzip").body(gzip(&body)),
            _ => request.body(body.clone()),
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.bytes().await.unwrap().len(), 0);
    };
    send(&server, "identity").await;
    send(&server, "identity").await;
    send(&server, "gzip").await;
    assert_eq!(server.records("spans", "stored").await, 5);
    assert_eq!(server.records("spans", "duplicate").await, 10);
    server.kill();

    let server = Server::start(dir.path());
    assert_eq!(server.records("spans", "stored").await, 5);
    send(&server, "gzip").await;
    assert_eq!(server.records("spans", "stored").await, 5);
    server.stop();

    let server = Server::start(dir.path());
    send(&server, "identity").await;
    assert_eq!(server.records("spans", "stored").await, 5);
}

/// Sends requests of three spans until `stop`; returns how many were acknowledged.
async fn send_until(url: String, stop: Arc<AtomicBool>, numbers: Arc<AtomicU64>) -> u64 {
    let client = Client::new();
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = otlp::traces(numbers.fetch_add(1, Ordering::Relaxed), 3).encode_to_vec();
        let request = client.post(&url).header("content-type", PROTOBUF).body(body);
        match request.send().await {
            Ok(response) if response.status() == 200 => acknowledged += 1,
            Ok(response) => assert_eq!(response.status(), 503),
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_in_order_and_keeps_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let stop = Arc::new(AtomicBool::new(false));
    let numbers = Arc::new(AtomicU64::new(1));
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let url = format!("{}/v1/traces", server.otlp_http);
            tokio::spawn(send_until(url, stop.clone(), numbers.clone()))
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.signal("TERM");
    let status = tokio::task::block_in_place(|| server.wait(Duration::from_secs(10)));
    assert!(status.success(), "{status}");
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = 0;
    for sender in senders {
        acknowledged += sender.await.unwrap();
    }
    assert!(acknowledged > 0);

    let server = Server::start(dir.path());
    let stored = server.metric("trefoil_records_live{signal=\"spans\"}").await;
    // An answer may have been lost on its way; a stored request never is.
    assert!(stored >= 3 * acknowledged, "{stored} stored, {acknowledged} requests acknowledged");
    assert_eq!(stored % 3, 0, "a request is stored whole or not at all");
}

#[tokio::test]
async fn a_token_is_wanted_on_every_port_but_at_the_probes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--token", "s3cret"]);
    let traces = format!("{}/v1/traces", server.otlp_http);
    assert_eq!(post(traces.clone(), JSON, "{}").await.status(), 401);
    let request = Client::new().post(&traces).header("content-type", JSON).body("{}");
    assert_eq!(request.bearer_auth("s3cret").send().await.unwrap().status(), 200);
    let mut client = TraceServiceClient::connect(server.otlp_grpc.clone()).await.unwrap();
    let status = client.export(otlp::traces(1, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);

    for (path, expected) in
        [("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/", 401), ("/api/status", 401)]
    {
        let status = reqwest::get(format!("{}{path}", server.http)).await.unwrap().status();
        assert_eq!(status, expected, "{path}");
    }
    let request = Client::new().get(format!("{}/metrics", server.http)).bearer_auth("s3cret");
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("trefoil_ready 1") && !text.contains("s3cret"));
}
