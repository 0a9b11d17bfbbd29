//! Answers get lost: whoever sends the same bytes again has them stored once, and is told that all is well.

mod common;

use common::senders::{RECORDS, Senders, Way, prepare, send};
use common::{Server, otlp, rounds, seed};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;

/// Passes connections on and cuts one of three at some byte of the answer.
struct CuttingProxy {
    url: String,
    cuts: Arc<AtomicU64>,
}

impl CuttingProxy {
    async fn start(target: &str, seed: u64) -> Self {
        let target = target.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cuts = Arc::new(AtomicU64::new(0));
        let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        let counted = cuts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let cut_at = {
                    let mut random = random.lock().unwrap();
                    // An answer over HTTP/1 has some 150 bytes, one over HTTP/2 with its settings a little less.
                    random.random_bool(1.0 / 3.0).then(|| random.random_range(0..120))
                };
                let (target, cuts) = (target.clone(), counted.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(target).await.ok()?;
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let forth = async {
                        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                        let _ = to_server.shutdown().await;
                    };
                    let back = async {
                        let mut passed = 0;
                        let mut buffer = [0; 4096];
                        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                            let left = cut_at.map_or(read, |at: usize| (at - passed).min(read));
                            let _ = to_client.write_all(&buffer[..left]).await;
                            passed += left;
                            if cut_at == Some(passed) {
                                // The server has answered; nobody will know.
                                cuts.fetch_add(1, Ordering::Relaxed);
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        () = back => {}
                        () = async { forth.await; std::future::pending().await } => {}
                    }
                    Some(())
                });
            }
        });
        Self { url, cuts }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_sent_again_through_a_connection_that_cuts_answers_are_stored_once() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--seal-age", "500ms"]);
    let grpc = CuttingProxy::start(&server.otlp_grpc, seed).await;
    let http = CuttingProxy::start(&server.otlp_http, seed + 1).await;
    let requests = rounds("RETRIES", 400, 10_000);
    let next = Arc::new(AtomicU64::new(1));
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let way = Way::ALL[sender % Way::ALL.len()];
            let (grpc, http, next) = (grpc.url.clone(), http.url.clone(), next.clone());
            tokio::spawn(async move {
                let mut sent = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number > requests {
                        return (way, sent);
                    }
                    let prepared = prepare(way, number);
                    while !send(&prepared, &grpc, &http).await {}
                    sent.push(number);
                }
            })
        })
        .collect();
    let mut stored = std::collections::BTreeMap::new();
    for sender in senders {
        let (way, sent) = sender.await.unwrap();
        *stored.entry(way.table()).or_insert(0) += RECORDS * sent.len() as u64;
    }
    let cuts = grpc.cuts.load(Ordering::Relaxed) + http.cuts.load(Ordering::Relaxed);
    assert!(cuts > requests / 4, "{cuts} answers were cut");
    for (table, stored) in &stored {
        assert_eq!(server.records(table, "stored").await, *stored, "{table}");
        let rows = server.sql(&format!("select count(*) from {table}")).await.unwrap();
        assert_eq!(rows[0][0].as_u64(), Some(*stored), "{table}");
    }
    let mut duplicates = 0;
    for table in stored.keys() {
        duplicates += server.records(table, "duplicate").await;
    }
    eprintln!("{cuts} answers cut, {duplicates} records came twice");
    assert!(duplicates > 0);
    server.books().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acknowledged_before_a_kill_may_be_sent_again_after_it() {
    let mut random = StdRng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    let settings = ["--seal-age", "300ms"];
    let mut server = Server::start_with(dir.path(), &settings);
    for round in 0..rounds("RETRIES_AFTER_KILLS", 5, 100) {
        let requests: Vec<_> = (1..=20u64)
            .map(|number| {
                let way = Way::ALL[random.random_range(0..Way::ALL.len())];
                (way, prepare(way, round * 100 + number))
            })
            .collect();
        for (_, request) in &requests {
            assert!(send(request, &server.otlp_grpc, &server.otlp_http).await);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        server.kill();
        server = block_in_place(|| Server::start_with(dir.path(), &settings));
        let mut before = 0;
        for table in ["spans", "logs", "metrics"] {
            before += server.records(table, "stored").await;
        }
        for (_, request) in &requests {
            assert!(send(request, &server.otlp_grpc, &server.otlp_http).await, "the same answer");
        }
        let (mut after, mut duplicates) = (0, 0);
        for table in ["spans", "logs", "metrics"] {
            after += server.records(table, "stored").await;
            duplicates += server.records(table, "duplicate").await;
        }
        assert_eq!((before, after), (before, before), "round {round}");
        assert!(duplicates >= RECORDS * requests.len() as u64, "round {round}");
        server.books().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twins_at_the_same_time_are_stored_once_and_both_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for number in 0..20 {
        let body = otlp::logs(number, RECORDS).encode_to_vec();
        let twins = (0..4).map(|_| {
            let request = reqwest::Client::new()
                .post(format!("{}/v1/logs", server.otlp_http))
                .header("content-type", "application/x-protobuf")
                .body(body.clone());
            tokio::spawn(request.send())
        });
        for twin in twins.collect::<Vec<_>>() {
            assert_eq!(twin.await.unwrap().unwrap().status(), 200);
        }
    }
    assert_eq!(server.records("logs", "stored").await, 20 * RECORDS);
    assert_eq!(server.records("logs", "duplicate").await, 3 * 20 * RECORDS);
    server.books().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_seen_by_every_query_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--seal-age", "500ms"]);
    let load = Senders::start(&server);
    let mut waits: Vec<Duration> = Vec::new();
    for pair in 0..rounds("FRESH", 40, 5_000) {
        let number = 10_000_000 + pair;
        for way in [Way::GrpcTraces, Way::ProtobufLogs, Way::GzipMetrics] {
            let prepared = prepare(way, number);
            assert!(send(&prepared, &server.otlp_grpc, &server.otlp_http).await);
        }
        let acknowledged = std::time::Instant::now();
        let id = format!("{:032x}", u128::from_be_bytes(otlp::trace_id(number)));
        assert!(server.get(&format!("/api/traces/{id}"), &[]).await.is_ok(), "trace {number}");
        let logs = server.get("/api/logs", &[("trace_id", &id)]).await.unwrap();
        assert_eq!(logs["logs"].as_array().unwrap().len() as u64, RECORDS, "logs {number}");
        let query = format!("count(queue_depth{{request_id=\"{number}\"}})");
        let value = server.get("/prometheus/api/v1/query", &[("query", &query)]).await.unwrap();
        assert_eq!(value["data"]["result"][0]["value"][1], RECORDS.to_string(), "{query}: {value}");
        waits.push(acknowledged.elapsed());
        let sql = format!("select count(*) from spans where \"request.id\" = '{number}'");
        assert_eq!(server.sql(&sql).await.unwrap()[0][0].as_u64(), Some(RECORDS), "{sql}");
    }
    waits.sort();
    eprintln!("from the answer to three query answers: p99 {:?}", waits[waits.len() * 99 / 100]);
    let sent = load.finish().await;
    assert!(sent.count() > 0);
}
