use crate::recorder::{Server, Setup, traces};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use prost::Message;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trefoil_collector::http::router;
use trefoil_collector::limits::Limits;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::{Ack, AppendError};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

async fn server() -> Server {
    Server::start(Setup::default(), router).await
}

async fn post(
    server: &Server,
    path: &str,
    content_type: &str,
    body: impl Into<Vec<u8>>,
) -> Response {
    let request = Client::new().post(server.url(path)).header("content-type", content_type);
    request.body(body.into()).send().await.unwrap()
}

/// `google.rpc.Status`, written from its definition.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[tokio::test]
async fn each_signal_reaches_the_store_as_protobuf_whatever_its_encoding() {
    for (path, kind, json) in [
        ("/v1/traces", FrameKind::OtlpTraces, r#"{"resourceSpans":[{"schemaUrl":"s"}]}"#),
        ("/v1/logs", FrameKind::OtlpLogs, r#"{"resourceLogs":[{"schemaUrl":"s"}]}"#),
        ("/v1/metrics", FrameKind::OtlpMetrics, r#"{"resourceMetrics":[{"schemaUrl":"s"}]}"#),
    ] {
        let server = server().await;
        let response = post(&server, path, "application/json; charset=utf-8", json).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], JSON);
        assert_eq!(response.text().await.unwrap(), "{}");
        let (stored, body) = server.stored();
        assert_eq!((stored, &body[..]), (kind, &b"\x0a\x03\x1a\x01s"[..]));
    }
    let server = server().await;
    let response = post(&server, "/v1/traces", PROTOBUF, traces("x")).await;
    assert_eq!(response.headers()["content-type"], PROTOBUF);
    assert_eq!(response.bytes().await.unwrap().len(), 0);
    assert_eq!(server.stored().1, traces("x"));
}

#[tokio::test]
async fn every_compression_is_undone() {
    let body = traces(&"n".repeat(5000));
    let gzip = || {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&body).unwrap();
        encoder.finish().unwrap()
    };
    let zlib = || {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&body).unwrap();
        encoder.finish().unwrap()
    };
    for (name, compressed) in [
        ("gzip", gzip()),
        ("GZIP", gzip()),
        ("deflate", zlib()),
        ("zstd", zstd::encode_all(&*body, 3).unwrap()),
        ("identity", body.clone()),
    ] {
        let server = server().await;
        let request = Client::new().post(server.url("/v1/traces")).header("content-type", PROTOBUF);
        let request = request.header("content-encoding", name).body(compressed);
        assert_eq!(request.send().await.unwrap().status(), 200, "{name}");
        assert_eq!(server.stored().1, body, "{name}");
    }
}

#[tokio::test]
async fn what_was_rejected_is_told_in_the_requests_encoding() {
    let answer = || {
        Ok(Ack { accepted: 1, rejected: 3, reason: Some("too \"bad\"".into()), duplicate: false })
    };
    for (path, field) in [
        ("/v1/traces", "rejectedSpans"),
        ("/v1/logs", "rejectedLogRecords"),
        ("/v1/metrics", "rejectedDataPoints"),
    ] {
        let server =
            Server::start(Setup { answer: Box::new(answer), ..Setup::default() }, router).await;
        let response = post(&server, path, JSON, "{}").await;
        assert_eq!(response.status(), 200);
        let told: Value = response.json().await.unwrap();
        assert_eq!(told, json!({"partialSuccess": {field: "3", "errorMessage": "too \"bad\""}}));
        let response = post(&server, path, PROTOBUF, "").await;
        let body = response.bytes().await.unwrap();
        assert_eq!(&body[..], b"\x0a\x0d\x08\x03\x12\x09too \"bad\"");
    }
}

#[tokio::test]
async fn records_that_json_spoils_are_counted_as_rejected() {
    let server = server().await;
    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xy"},{"name":"ok"}]}]}]}"#;
    let told: Value = post(&server, "/v1/traces", JSON, body).await.json().await.unwrap();
    assert_eq!(told["partialSuccess"]["rejectedSpans"], "1");
    assert!(told["partialSuccess"]["errorMessage"].as_str().unwrap().contains("not hex"));
    assert_eq!(*server.recorder.rejected.lock(), 1);
}

#[tokio::test]
async fn bad_requests_get_the_code_that_fits_and_leave_no_trace() {
    let server = server().await;
    let response = post(&server, "/v1/logs", JSON, "{").await;
    assert_eq!(response.status(), 400);
    let told: Value = response.json().await.unwrap();
    assert_eq!(told["code"], 3);
    assert!(told["message"].as_str().unwrap().contains("at byte 1"));

    for content_type in ["text/plain", "application/xml", ""] {
        let response = post(&server, "/v1/logs", content_type, "{}").await;
        assert_eq!(response.status(), 415, "{content_type}");
        assert!(response.text().await.unwrap().contains("application/x-protobuf"));
    }
    let response = Client::new().get(server.url("/v1/logs")).send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST, OPTIONS".parse().unwrap())
    );

    let request = Client::new().post(server.url("/v1/logs")).header("content-type", PROTOBUF);
    let response = request.header("content-encoding", "br").body("x").send().await.unwrap();
    assert_eq!(response.status(), 415);
    assert!(response.headers()["accept-encoding"].to_str().unwrap().contains("gzip"));
    let status = RpcStatus::decode(response.bytes().await.unwrap()).unwrap();
    assert!(status.message.contains("br"));

    let request = Client::new().post(server.url("/v1/logs")).header("content-type", PROTOBUF);
    let response = request.header("content-encoding", "gzip").body("no gzip").send().await.unwrap();
    assert_eq!(response.status(), 400);
    let status = RpcStatus::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(status.code, 3);

    let response = post(&server, "/", PROTOBUF, "").await;
    assert_eq!(response.status(), 404);
    let status = RpcStatus::decode(response.bytes().await.unwrap()).unwrap();
    assert!(status.message.contains("/v1/traces"), "{}", status.message);
    let response = post(&server, "/v1development/profiles", JSON, "{}").await;
    assert_eq!(response.status(), 404);
    let told: Value = response.json().await.unwrap();
    assert_eq!(told["message"], "profiles are not supported");
    assert_eq!(server.stored_count(), 0);
}

#[tokio::test]
async fn bodies_up_to_the_limit_are_taken_and_larger_ones_are_413() {
    let limit = Setup::default().limits.body_bytes_max;
    let overhead = traces(&"n".repeat(limit)).len() - limit;
    for (len, status) in [(limit - 1, 200), (limit, 200), (limit + 1, 413)] {
        let body = traces(&"n".repeat(len - overhead));
        assert_eq!(body.len(), len);
        let server = server().await;
        let response = post(&server, "/v1/traces", PROTOBUF, body.clone()).await;
        assert_eq!(response.status(), status, "{len} plain");
        assert!(!response.headers().contains_key("retry-after"));

        let chunks = futures::stream::iter([Ok::<_, std::io::Error>(body.clone())]);
        let request = Client::new().post(server.url("/v1/traces")).header("content-type", PROTOBUF);
        let response = request.body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
        assert_eq!(response.status(), status, "{len} chunked");

        let request = Client::new().post(server.url("/v1/traces")).header("content-type", PROTOBUF);
        let packed = zstd::encode_all(&*body, 1).unwrap();
        let response =
            request.header("content-encoding", "zstd").body(packed).send().await.unwrap();
        assert_eq!(response.status(), status, "{len} zstd");
    }
}

#[tokio::test]
async fn what_may_pass_is_503_with_a_short_delay() {
    for error in [
        || AppendError::Busy { hot_bytes: 1 },
        || AppendError::Full { free_bytes: 1, reserve_bytes: 2 },
        || AppendError::Closed,
    ] {
        let setup = Setup { answer: Box::new(move || Err(error())), ..Setup::default() };
        let server = Server::start(setup, router).await;
        let response = post(&server, "/v1/traces", JSON, "{}").await;
        assert_eq!(response.status(), 503);
        let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=4).contains(&seconds));
        let told: Value = response.json().await.unwrap();
        assert_eq!(told["code"], 14);
    }
    let server = Server::start(Setup { open: false, ..Setup::default() }, router).await;
    let response = post(&server, "/v1/traces", JSON, "{}").await;
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
}

#[tokio::test]
async fn a_fault_in_one_request_is_503_and_the_next_is_served() {
    let setup = Setup { answer: Box::new(|| panic!("planted")), ..Setup::default() };
    let server = Server::start(setup, router).await;
    for _ in 0..2 {
        assert_eq!(post(&server, "/v1/traces", JSON, "{}").await.status(), 503);
    }
}

#[tokio::test]
async fn memory_for_a_body_is_reserved_before_it_is_read_and_given_back() {
    let limits =
        Limits { body_bytes_max: 100_000, in_flight_bytes_max: 200_000, ..Setup::default().limits };
    let setup = Setup { limits, delay: Duration::from_millis(300), ..Setup::default() };
    let server = Server::start(setup, router).await;
    let body = traces(&"n".repeat(60_000));
    let posts = (0..4).map(|_| post(&server, "/v1/traces", PROTOBUF, body.clone()));
    let statuses: Vec<u16> =
        futures::future::join_all(posts).await.iter().map(|r| r.status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 3, "{statuses:?}");
    assert_eq!(server.receiver.in_flight().used_bytes(), 0);
    assert_eq!(post(&server, "/v1/traces", PROTOBUF, body).await.status(), 200);
}

#[tokio::test]
async fn a_token_is_wanted_if_there_is_one() {
    let server = Server::start(Setup { token: Some("t0ken"), ..Setup::default() }, router).await;
    let response = post(&server, "/v1/traces", JSON, "{}").await;
    assert_eq!(response.status(), 401);
    let told: Value = response.json().await.unwrap();
    assert_eq!(told["code"], 16);
    let request = Client::new().post(server.url("/v1/traces")).header("content-type", JSON);
    let response = request.bearer_auth("t0ken").body("{}").send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn only_configured_origins_get_cors_and_they_get_it_on_errors_too() {
    let origins = vec!["https://shop.example".to_owned()];
    let server = Server::start(Setup { origins, ..Setup::default() }, router).await;
    let preflight = |origin: &'static str| {
        let request = Client::new().request(reqwest::Method::OPTIONS, server.url("/v1/traces"));
        request.header("origin", origin).header("access-control-request-method", "POST").send()
    };
    let response = preflight("https://shop.example").await.unwrap();
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["access-control-allow-origin"], "https://shop.example");
    assert!(
        response.headers()["access-control-allow-headers"]
            .to_str()
            .unwrap()
            .contains("content-type")
    );
    assert_eq!(response.headers()["access-control-max-age"], "7200");
    let response = preflight("https://evil.example").await.unwrap();
    assert_eq!(response.status(), 405);
    assert!(!response.headers().contains_key("access-control-allow-origin"));

    let request = Client::new().post(server.url("/v1/traces")).header("content-type", JSON);
    let response = request.header("origin", "https://shop.example").body("{").send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["access-control-allow-origin"], "https://shop.example");
}

/// Sends raw bytes and reads until the server closes.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset instead of an orderly end is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn silent_slow_and_stalled_senders_are_let_go() {
    let limits = Limits {
        header_time_max: Duration::from_millis(300),
        body_pause_max: Duration::from_millis(300),
        idle_time_max: Duration::from_millis(600),
        ..Setup::default().limits
    };
    let server = Server::start(Setup { limits, ..Setup::default() }, router).await;
    assert_eq!(raw(&server, b"").await, "", "a silent connection is closed");
    assert_eq!(raw(&server, b"PRI * HT").await, "", "half a preface");
    let half_headers = raw(&server, b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n").await;
    assert!(!half_headers.contains("200"), "{half_headers}");
    let half_body = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    let answer = raw(&server, half_body).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let whole = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let answer = raw(&server, whole).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "answered, then closed when idle: {answer}");
}

#[tokio::test]
async fn slow_headers_on_a_used_connection_end_it_but_idleness_does_not() {
    let limits = Limits { header_time_max: Duration::from_millis(300), ..Setup::default().limits };
    let server = Server::start(Setup { limits, ..Setup::default() }, router).await;
    let whole = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let mut answer = [0; 400];
    for _ in 0..2 {
        stream.write_all(whole).await.unwrap();
        let len = stream.read(&mut answer).await.unwrap();
        assert!(
            answer[..len].starts_with(b"HTTP/1.1 200"),
            "after a pause longer than for headers"
        );
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    stream.write_all(b"POST /v1/tr").await.unwrap();
    let ended = stream.read(&mut answer).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
