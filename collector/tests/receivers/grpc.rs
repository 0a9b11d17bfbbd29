use crate::recorder::{Server, Setup, traces};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use std::time::Duration;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use trefoil_collector::grpc::router;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::{Ack, AppendError};

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(server.url("")).unwrap().connect().await.unwrap()
}

async fn traces_client(server: &Server) -> TraceServiceClient<Channel> {
    TraceServiceClient::new(channel(server).await).max_encoding_message_size(usize::MAX)
}

fn request(name: &str) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(&*traces(name)).unwrap()
}

async fn failed(setup: Setup) -> Status {
    let server = Server::start(setup, router).await;
    traces_client(&server).await.export(request("x")).await.unwrap_err()
}

#[tokio::test]
async fn each_signal_reaches_the_store_as_sent() {
    let server = Server::start(Setup::default(), router).await;
    let response = traces_client(&server).await.export(request("x")).await.unwrap().into_inner();
    assert_eq!(response.partial_success, None);
    assert_eq!(server.stored(), (FrameKind::OtlpTraces, traces("x").into()));

    let server = Server::start(Setup::default(), router).await;
    let mut client = LogsServiceClient::new(channel(&server).await);
    client.export(ExportLogsServiceRequest::default()).await.unwrap();
    assert_eq!(server.stored().0, FrameKind::OtlpLogs);

    let server = Server::start(Setup::default(), router).await;
    let mut client = MetricsServiceClient::new(channel(&server).await);
    client.export(ExportMetricsServiceRequest::default()).await.unwrap();
    assert_eq!(server.stored().0, FrameKind::OtlpMetrics);
}

#[tokio::test]
async fn gzip_and_zstd_are_undone() {
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let server = Server::start(Setup::default(), router).await;
        let mut client = traces_client(&server).await.send_compressed(encoding);
        client.export(request(&"n".repeat(5000))).await.unwrap();
        assert_eq!(server.stored().1, traces(&"n".repeat(5000)), "{encoding:?}");
    }
}

#[tokio::test]
async fn what_was_rejected_is_told() {
    let answer =
        || Ok(Ack { accepted: 0, rejected: 2, reason: Some("why".into()), duplicate: false });
    let server =
        Server::start(Setup { answer: Box::new(answer), ..Setup::default() }, router).await;
    let response = traces_client(&server).await.export(request("x")).await.unwrap().into_inner();
    let partial = response.partial_success.unwrap();
    assert_eq!((partial.rejected_spans, &*partial.error_message), (2, "why"));
}

#[tokio::test]
async fn messages_up_to_the_limit_are_taken_and_larger_ones_are_not_to_be_sent_again() {
    let limit = Setup::default().limits.body_bytes_max;
    let overhead = traces(&"n".repeat(limit)).len() - limit;
    for (len, taken) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
            let server = Server::start(Setup::default(), router).await;
            let mut client = traces_client(&server).await;
            if let Some(encoding) = encoding {
                client = client.send_compressed(encoding);
            }
            match client.export(request(&"n".repeat(len - overhead))).await {
                Ok(_) => assert!(taken, "{len} {encoding:?}"),
                Err(status) => {
                    assert!(!taken, "{len} {encoding:?}: {status}");
                    assert_eq!(status.code(), Code::ResourceExhausted);
                    assert!(status.details().is_empty() && retry_info(&status).is_none());
                }
            }
        }
    }
}

fn retry_info(status: &Status) -> Option<Vec<u8>> {
    let value = status.metadata().get_bin("google.rpc.retryinfo-bin")?;
    Some(value.to_bytes().unwrap().to_vec())
}

#[tokio::test]
async fn what_may_pass_is_unavailable_with_the_delay_in_both_places() {
    for error in [|| AppendError::Busy { hot_bytes: 1 }, || AppendError::Closed] {
        let status =
            failed(Setup { answer: Box::new(move || Err(error())), ..Setup::default() }).await;
        assert_eq!(status.code(), Code::Unavailable);
        // RetryInfo { retry_delay: Duration { seconds } }
        let info = retry_info(&status).unwrap();
        assert_eq!(info[..3], [0x0a, 2, 8]);
        assert!((1..=4).contains(&info[3]));
        let details = status.details();
        assert!(details.windows(info.len()).any(|window| window == info));
        assert!(details.windows(9).any(|window| window == b"RetryInfo"));
    }
    let starting = failed(Setup { open: false, ..Setup::default() }).await;
    assert_eq!(
        (starting.code(), retry_info(&starting)),
        (Code::Unavailable, Some(vec![0x0a, 2, 8, 1]))
    );
}

#[tokio::test]
async fn what_can_never_succeed_is_told_so() {
    let answer = || Err(AppendError::Malformed("not a request".into()));
    let status = failed(Setup { answer: Box::new(answer), ..Setup::default() }).await;
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "not a request"));
    assert!(retry_info(&status).is_none());
    let status = failed(Setup { token: Some("t"), ..Setup::default() }).await;
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_in_the_metadata_is_taken() {
    let server = Server::start(Setup { token: Some("t"), ..Setup::default() }, router).await;
    let mut call = Request::new(request("x"));
    call.metadata_mut().insert("authorization", "Bearer t".parse().unwrap());
    traces_client(&server).await.export(call).await.unwrap();
}

#[tokio::test]
async fn the_callers_deadline_is_kept() {
    let setup = Setup { delay: Duration::from_secs(60), ..Setup::default() };
    let server = Server::start(setup, router).await;
    // Over a plain connection: tonic's client would keep the deadline itself.
    let (status, _) =
        raw_call(&server, EXPORT, &[("grpc-timeout", "50m")], &framed(0, &traces("x"))).await;
    assert_eq!(status, Code::DeadlineExceeded as i32);
}

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// One call with exactly these bytes; the status from the headers (Trailers-Only), or from the trailers.
async fn raw_call(
    server: &Server,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (i32, Vec<u8>) {
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let mut request =
        http::Request::post(server.url(path)).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(bytes::Bytes::copy_from_slice(body));
    let response = client.request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/grpc".parse().unwrap())
    );
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let status = parts.headers.get("grpc-status").or(trailers.get("grpc-status")).unwrap();
    (status.to_str().unwrap().parse().unwrap(), collected.to_bytes().to_vec())
}

#[tokio::test]
async fn damaged_frames_are_invalid_arguments_and_nothing_of_them_is_stored() {
    let server = Server::start(Setup::default(), router).await;
    let good = framed(0, &traces("x"));
    let twice = good.repeat(2);
    for (what, body) in [
        ("no message", &[][..]),
        ("half a prefix", &good[..3]),
        ("half a message", &good[..good.len() - 1]),
        ("two messages", &twice),
        ("an unknown flag", &framed(7, b"x")),
        ("compressed, but how", &framed(1, b"x")),
    ] {
        let (status, _) = raw_call(&server, EXPORT, &[], body).await;
        assert_eq!(status, Code::InvalidArgument as i32, "{what}");
    }
    let gzip = [("grpc-encoding", "gzip")];
    let (status, _) = raw_call(&server, EXPORT, &gzip, &framed(1, b"no gzip")).await;
    assert_eq!(status, Code::InvalidArgument as i32);
    let (status, _) = raw_call(&server, EXPORT, &[("grpc-encoding", "br")], &good).await;
    assert_eq!(status, Code::Unimplemented as i32);
    assert_eq!(server.stored_count(), 0);
    let (status, answer) = raw_call(&server, EXPORT, &gzip, &good).await;
    assert_eq!((status, answer), (0, vec![0; 5]), "an uncompressed message in a gzip call");
}

#[tokio::test]
async fn methods_that_are_not_there_are_unimplemented() {
    let server = Server::start(Setup::default(), router).await;
    for path in [
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Watch",
        "/",
    ] {
        let (status, _) = raw_call(&server, path, &[], &framed(0, b"")).await;
        assert_eq!(status, Code::Unimplemented as i32, "{path}");
    }
}

#[tokio::test]
async fn the_health_check_tells_whether_requests_are_taken() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let server = Server::start(Setup::default(), router).await;
    assert_eq!(raw_call(&server, CHECK, &[], &framed(0, b"")).await, (0, framed(0, &[8, 1])));
    let service = b"\x0a\x36opentelemetry.proto.collector.trace.v1.TraceService";
    let named = [&[0x0a, service.len() as u8 - 2][..], &service[2..]].concat();
    assert_eq!(raw_call(&server, CHECK, &[], &framed(0, &named)).await.0, 0);
    assert_eq!(
        raw_call(&server, CHECK, &[], &framed(0, b"\x0a\x01x")).await.0,
        Code::NotFound as i32
    );
    server.receiver.stop();
    assert_eq!(raw_call(&server, CHECK, &[], &framed(0, b"")).await, (0, framed(0, &[8, 2])));
}

#[tokio::test]
async fn http_1_on_the_grpc_port_is_told_the_other_port() {
    let server = Server::start(Setup::default(), router).await;
    let response = reqwest::Client::new()
        .post(server.url("/v1/traces"))
        .header("content-type", "application/x-protobuf")
        .body(traces("x"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 415);
    assert!(response.text().await.unwrap().contains("4318"));
}
