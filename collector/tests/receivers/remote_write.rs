use crate::recorder::{Server, Setup};
use axum::Router;
use axum::routing::any;
use reqwest::{Client, Response};
use trefoil_collector::ingest::Receiver;
use trefoil_collector::remote_write;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::Ack;

const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn router(receiver: Receiver) -> Router {
    Router::new().route("/write", any(remote_write::write)).with_state(receiver)
}

fn snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

async fn write(server: &Server, content_type: &str, body: Vec<u8>) -> Response {
    let request = Client::new().post(server.url("/write")).header("content-type", content_type);
    request.header("content-encoding", "snappy").body(body).send().await.unwrap()
}

#[tokio::test]
async fn both_versions_reach_the_store_without_snappy() {
    for (content_type, kind) in [
        (V1, FrameKind::RemoteWrite1),
        ("application/x-protobuf; proto=prometheus.WriteRequest", FrameKind::RemoteWrite1),
        (V2, FrameKind::RemoteWrite2),
    ] {
        let server = Server::start(Setup::default(), router).await;
        let response = write(&server, content_type, snappy(b"body")).await;
        assert_eq!(response.status(), 204, "{content_type}");
        assert_eq!(server.stored(), (kind, "body".into()), "{content_type}");
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_with_words() {
    let server = Server::start(Setup::default(), router).await;
    assert_eq!(write(&server, V1, b"no snappy".to_vec()).await.status(), 400);
    assert_eq!(write(&server, V1, vec![0xff, 0xff, 0xff, 0xff, 0x0f]).await.status(), 413);
    for content_type in ["application/json", "application/x-protobuf;proto=some.Other"] {
        assert_eq!(write(&server, content_type, snappy(b"")).await.status(), 415, "{content_type}");
    }
    let request = Client::new().post(server.url("/write")).header("content-type", V1);
    let response = request.header("content-encoding", "gzip").body("x").send().await.unwrap();
    assert_eq!(response.status(), 415);
    let response = Client::new().get(server.url("/write")).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(server.stored_count(), 0);
}

#[tokio::test]
async fn bad_samples_are_told_with_400_after_the_good_ones_are_stored() {
    let answer = || {
        Ok(Ack { accepted: 1, rejected: 2, reason: Some("2 × no name".into()), duplicate: false })
    };
    let server =
        Server::start(Setup { answer: Box::new(answer), ..Setup::default() }, router).await;
    let response = write(&server, V1, snappy(b"body")).await;
    assert_eq!(response.status(), 400);
    assert!(response.text().await.unwrap().contains("no name"));
    assert_eq!(server.stored_count(), 1);
}
