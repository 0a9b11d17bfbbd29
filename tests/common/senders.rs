//! Senders that never give up, and what must be true of their records whatever happens to the server.

use super::{Server, otlp};
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use reqwest::Client;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Records in each request.
pub const RECORDS: u64 = 3;

/// How long a sender waits for an answer: a server that was stopped by a signal never gives one.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What the senders share.
struct World {
    /// Where the server is now; it gets new ports at every start.
    addrs: RwLock<(String, String)>,
    next: AtomicU64,
    stop: AtomicBool,
    sent: Mutex<Sent>,
}

/// Request numbers by table.
#[derive(Debug, Default, Clone)]
pub struct Sent {
    pub acknowledged: BTreeMap<&'static str, Vec<u64>>,
    /// Sent, and perhaps stored, but not acknowledged so far.
    pub open: BTreeMap<&'static str, Vec<u64>>,
}

/// What a sender speaks.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    GrpcTraces,
    ProtobufLogs,
    GzipMetrics,
    JsonTraces,
}

impl Way {
    pub const ALL: [Self; 4] =
        [Self::GrpcTraces, Self::ProtobufLogs, Self::GzipMetrics, Self::JsonTraces];

    pub fn table(self) -> &'static str {
        match self {
            Self::GrpcTraces | Self::JsonTraces => "spans",
            Self::ProtobufLogs => "logs",
            Self::GzipMetrics => "metrics",
        }
    }
}

/// One request, built once: a retry sends the same bytes.
pub enum Prepared {
    Grpc(opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest),
    Http { path: &'static str, content_type: &'static str, encoding: &'static str, body: Vec<u8> },
}

/// The request with this number.
pub fn prepare(way: Way, number: u64) -> Prepared {
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

/// Sends once. Whether the server acknowledged it, all records taken; not being answered is no acknowledgement.
pub async fn send(prepared: &Prepared, grpc: &str, http: &str) -> bool {
    let answered = async {
        match prepared {
            Prepared::Grpc(request) => match TraceServiceClient::connect(grpc.to_owned()).await {
                Ok(mut client) => client
                    .export(request.clone())
                    .await
                    .is_ok_and(|answer| answer.into_inner().partial_success.is_none()),
                Err(_) => false,
            },
            Prepared::Http { path, content_type, encoding, body } => {
                let request = Client::new()
                    .post(format!("{http}{path}"))
                    .header("content-type", *content_type)
                    .header("content-encoding", *encoding)
                    .body(body.clone());
                match request.send().await {
                    Ok(answer) if answer.status() == 200 => {
                        answer.text().await.is_ok_and(|body| body.is_empty() || body == "{}")
                    }
                    _ => false,
                }
            }
        }
    };
    tokio::time::timeout(ANSWER_MAX, answered).await.unwrap_or(false)
}

/// One sender of each way.
pub struct Senders {
    world: Arc<World>,
    tasks: Vec<JoinHandle<()>>,
}

impl Senders {
    /// Starts them.
    pub fn start(server: &Server) -> Self {
        let world = Arc::new(World {
            addrs: RwLock::new((server.otlp_grpc.clone(), server.otlp_http.clone())),
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            sent: Mutex::default(),
        });
        let tasks = Way::ALL.map(|way| tokio::spawn(run(way, world.clone()))).into();
        Self { world, tasks }
    }

    /// The server is elsewhere now.
    pub fn moved_to(&self, server: &Server) {
        *self.world.addrs.write().unwrap() = (server.otlp_grpc.clone(), server.otlp_http.clone());
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        self.world.sent.lock().unwrap().clone()
    }

    /// Compares what was sent so far with what the server shows, see [`Sent::compare`]. The senders may have found it
    /// already: it may have got a port that they know.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn compare(&self, server: &Server) -> Result<(), String> {
        self.sent().compare_with(server, || self.sent()).await
    }

    /// Ends them once each has had its last request acknowledged.
    pub async fn finish(self) -> Sent {
        self.world.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let sent = self.world.sent.lock().unwrap().clone();
        assert!(sent.open.values().all(Vec::is_empty));
        sent
    }
}

/// Sends one request after the other, each again and again until it is acknowledged.
async fn run(way: Way, world: Arc<World>) {
    let table = way.table();
    while !world.stop.load(Ordering::Relaxed) {
        let number = world.next.fetch_add(1, Ordering::Relaxed);
        let prepared = prepare(way, number);
        world.sent.lock().unwrap().open.entry(table).or_default().push(number);
        loop {
            let (grpc, http) = world.addrs.read().unwrap().clone();
            if send(&prepared, &grpc, &http).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut sent = world.sent.lock().unwrap();
        sent.acknowledged.entry(table).or_default().push(number);
        sent.open.entry(table).or_default().retain(|open| *open != number);
    }
}

impl Sent {
    /// Compares with what the server shows: every acknowledged record is there exactly once, a request is there whole
    /// or not at all, nothing is there that nobody sent, and the books balance.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn compare(&self, server: &Server) -> Result<(), String> {
        self.compare_with(server, || self.clone()).await
    }

    /// * `by_now`: what was sent by the time of an answer.
    async fn compare_with(&self, server: &Server, by_now: impl Fn() -> Self) -> Result<(), String> {
        for (table, acknowledged) in &self.acknowledged {
            let query =
                format!("select \"request.id\", count(*) from {table} group by \"request.id\"");
            let rows = match server.sql(&query).await {
                Ok(rows) => rows,
                // A table without any row has no such column.
                Err(error) if error.contains("No field named") => serde_json::json!([]),
                Err(error) => return Err(format!("{table}: {error}")),
            };
            let found: HashMap<u64, u64> = rows
                .as_array()
                .ok_or("no rows")?
                .iter()
                .map(|row| (row[0].as_str().unwrap().parse().unwrap(), row[1].as_u64().unwrap()))
                .collect();
            let lost: Vec<_> = acknowledged.iter().filter(|n| !found.contains_key(n)).collect();
            if !lost.is_empty() {
                let (lost_count, count) = (lost.len(), acknowledged.len());
                return Err(format!(
                    "{table}: acknowledged and lost: {lost_count} of {count} requests: {lost:?}"
                ));
            }
            let uneven: Vec<_> = found.iter().filter(|(_, count)| **count != RECORDS).collect();
            if !uneven.is_empty() {
                return Err(format!("{table}: not {RECORDS} records: {uneven:?}"));
            }
            let by_now = by_now();
            let known: HashSet<&u64> = [&by_now.acknowledged, &by_now.open]
                .into_iter()
                .flat_map(|numbers| numbers.get(table).into_iter().flatten())
                .collect();
            let strange: Vec<_> = found.keys().filter(|number| !known.contains(number)).collect();
            if !strange.is_empty() {
                return Err(format!("{table}: nobody sent {strange:?}"));
            }
        }
        server.books().await
    }

    /// Requests acknowledged.
    pub fn count(&self) -> usize {
        self.acknowledged.values().map(Vec::len).sum()
    }
}
