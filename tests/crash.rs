//! Kill the server at random moments under load, start it again, over and over: every acknowledged record is there
//! exactly once, and a request is there whole or not at all.

mod common;

use common::{Server, otlp};
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// Records in each request.
const RECORDS: u64 = 3;

/// What the senders share.
struct World {
    /// Where the server is now; it gets new ports at every start.
    addrs: RwLock<(String, String)>,
    next: AtomicU64,
    stop: AtomicBool,
}

/// What a sender speaks.
#[derive(Clone, Copy)]
enum Way {
    GrpcTraces,
    ProtobufLogs,
    GzipMetrics,
    JsonTraces,
}

impl Way {
    const ALL: [Self; 4] =
        [Self::GrpcTraces, Self::ProtobufLogs, Self::GzipMetrics, Self::JsonTraces];

    fn table(self) -> &'static str {
        match self {
            Self::GrpcTraces | Self::JsonTraces => "spans",
            Self::ProtobufLogs => "logs",
            Self::GzipMetrics => "metrics",
        }
    }
}

/// One request, built once: a retry sends the same bytes.
enum Prepared {
    Grpc(opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest),
    Http { path: &'static str, content_type: &'static str, encoding: &'static str, body: Vec<u8> },
}

fn prepare(way: Way, number: u64) -> Prepared {
    let http =
        |path, content_type, encoding, body| Prepared::Http { path, content_type, encoding, body };
    const PROTOBUF: &str = "application/x-protobuf";
    match way {
        Way::GrpcTraces => Prepared::Grpc(otlp::traces(number, RECORDS)),
        Way::ProtobufLogs => {
            http("/v1/logs", PROTOBUF, "identity", otlp::logs(number, RECORDS).encode_to_vec())
        }
        Way::GzipMetrics => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&otlp::metrics(number, RECORDS).encode_to_vec()).unwrap();
            http("/v1/metrics", PROTOBUF, "gzip", encoder.finish().unwrap())
        }
        Way::JsonTraces => {
            let body = otlp::traces_json(number, RECORDS).into_bytes();
            http("/v1/traces", "application/json", "identity", body)
        }
    }
}

/// Whether the server acknowledged it; not being answered is no acknowledgement.
async fn send(prepared: &Prepared, world: &World) -> bool {
    let (grpc, http) = world.addrs.read().unwrap().clone();
    match prepared {
        Prepared::Grpc(request) => match TraceServiceClient::connect(grpc).await {
            Ok(mut client) => client.export(request.clone()).await.is_ok(),
            Err(_) => false,
        },
        Prepared::Http { path, content_type, encoding, body } => {
            let request = Client::new()
                .post(format!("{http}{path}"))
                .header("content-type", *content_type)
                .header("content-encoding", *encoding)
                .body(body.clone());
            request.send().await.is_ok_and(|response| response.status() == 200)
        }
    }
}

/// Sends one request after the other, each again and again until it is acknowledged; returns their numbers.
async fn sender(way: Way, world: Arc<World>) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    while !world.stop.load(Ordering::Relaxed) {
        let number = world.next.fetch_add(1, Ordering::Relaxed);
        let prepared = prepare(way, number);
        while !send(&prepared, &world).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        acknowledged.push(number);
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_being_killed_exactly_once() {
    let rounds = std::env::var("TREFOIL_TEST_KILLS").map_or(20, |n| n.parse().unwrap());
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let addrs = |server: &Server| RwLock::new((server.otlp_grpc.clone(), server.otlp_http.clone()));
    let world = Arc::new(World {
        addrs: addrs(&server),
        next: AtomicU64::new(1),
        stop: AtomicBool::new(false),
    });
    let senders: Vec<_> =
        Way::ALL.map(|way| (way, tokio::spawn(sender(way, world.clone())))).into_iter().collect();

    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..1000))).await;
        server.kill();
        server = tokio::task::block_in_place(|| Server::start(dir.path()));
        *world.addrs.write().unwrap() = addrs(&server).into_inner().unwrap();
    }
    world.stop.store(true, Ordering::Relaxed);

    let mut sent: HashMap<&str, Vec<u64>> = HashMap::new();
    for (way, sender) in senders {
        sent.entry(way.table()).or_default().extend(sender.await.unwrap());
    }
    // Once as it is after the last crash, once from sealed files.
    check(&server, &sent).await;
    server.stop();
    check(&Server::start(dir.path()), &sent).await;
}

async fn check(server: &Server, sent: &HashMap<&str, Vec<u64>>) {
    for (table, numbers) in sent {
        assert!(!numbers.is_empty(), "nothing of {table} was acknowledged");
        let live = server.metric(&format!("trefoil_records_live{{signal=\"{table}\"}}")).await;
        assert_eq!(live, RECORDS * numbers.len() as u64, "the books on {table}");
        let rows = server
            .sql(&format!("select \"request.id\", count(*) from {table} group by \"request.id\""))
            .await
            .unwrap();
        let found: HashMap<u64, u64> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row[0].as_str().unwrap().parse().unwrap(), row[1].as_u64().unwrap()))
            .collect();
        for number in numbers {
            assert_eq!(found.get(number), Some(&RECORDS), "{table}: records of request {number}");
        }
        assert_eq!(found.len(), numbers.len(), "{table}: requests that nobody sent");
    }
    eprintln!(
        "{:?}",
        sent.iter().map(|(table, numbers)| (table, numbers.len())).collect::<Vec<_>>()
    );
}
