//! Eight hours of load pass quickly: the records' times run ahead of the clock, while seals, merges, rollups and
//! retention go on as ever. What the server uses stays flat, and percentiles over the whole range are those of one
//! histogram that was fed with everything.

mod common;

use common::otlp::Sender;
use common::{Server, otlp, rounds, seed};
use hdrhistogram::Histogram;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::time::Duration;
use tokio::task::block_in_place;

const MINUTE_NS: u64 = 60_000_000_000;

/// What a server uses.
#[derive(Debug, Clone, Copy)]
struct Use {
    memory_bytes: u64,
    files_open: u64,
    threads: u64,
    files: u64,
}

async fn used(server: &Server, data_dir: &Path) -> Use {
    Use {
        memory_bytes: server.metric("process_resident_memory_bytes").await,
        files_open: server.metric("process_open_fds").await,
        threads: server.metric("process_threads").await,
        files: count(data_dir),
    }
}

fn count(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_of_load_leave_use_flat_and_percentiles_exact() {
    let mut random = StdRng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    // Merges and rollups treat hours as past when they are: so the story ends now.
    let minutes = rounds("SOAK_MINUTES", 60, 480);
    let settings = ["--retention", "24h", "--seal-age", "1s"];
    let server = block_in_place(|| Server::start_with(dir.path(), &settings));
    let client = reqwest::Client::new();
    let start_ns = otlp::now_ns() - minutes * MINUTE_NS;
    // As the server keeps them: 3 significant digits.
    let mut all = Histogram::<u64>::new(3).unwrap();
    let mut uses = Vec::new();
    for minute in 0..minutes {
        for batch in 0..rounds("SOAK_BATCHES", 4, 30) {
            let time_ns = start_ns + minute * MINUTE_NS + random.random_range(0..MINUTE_NS / 2);
            let sender = Sender { service: "checkout".into(), time_ns };
            let number = minute * 1000 + batch;
            let mut traces = sender.traces(number, 50);
            for span in &mut traces.resource_spans[0].scope_spans[0].spans {
                let duration_ns = 10f64.powf(random.random_range(4.0..10.0)) as u64;
                span.end_time_unix_nano = span.start_time_unix_nano + duration_ns;
                all.record(duration_ns).unwrap();
            }
            for (path, body) in [
                ("/v1/traces", traces.encode_to_vec()),
                ("/v1/logs", sender.logs(number, 50).encode_to_vec()),
                ("/v1/metrics", sender.metrics(batch, 50).encode_to_vec()),
            ] {
                let request = client
                    .post(format!("{}{path}", server.otlp_http))
                    .header("content-type", "application/x-protobuf")
                    .body(body);
                assert_eq!(request.send().await.unwrap().status(), 200);
            }
        }
        // Ten minutes for eight hours leave a second and a quarter for each minute.
        tokio::time::sleep(Duration::from_millis(rounds("SOAK_REST_MS", 100, 800))).await;
        if minute % (minutes / 12) == 0 {
            uses.push(used(&server, dir.path()).await);
        }
    }
    for each in &uses {
        eprintln!("{each:?}");
    }
    flat(&uses);
    server.books().await.unwrap();

    // The server's own figures of the whole range.
    let range = [("start", start_ns.to_string()), ("end", otlp::now_ns().to_string())];
    let range: Vec<(&str, &str)> = range.iter().map(|(key, value)| (*key, &**value)).collect();
    let told = server.get("/api/services/checkout", &range).await.unwrap();
    assert_eq!(told["count"].as_u64(), Some(all.len()));
    for (name, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        let of = |bound: &str| told[name][bound].as_f64().unwrap() as u64;
        let exact = all.value_at_quantile(quantile);
        let (lowest, highest) = (all.lowest_equivalent(exact), all.highest_equivalent(exact));
        assert_eq!((of("low_ns"), of("high_ns")), (lowest, highest), "{name} of {}", all.len());
    }
}

/// After the first third nothing grows on by itself: the last third is not far above the middle one.
fn flat(uses: &[Use]) {
    let third = uses.len() / 3;
    let highest = |uses: &[Use], of: fn(&Use) -> u64| uses.iter().map(of).max().unwrap();
    for (name, of, ratio, slack) in [
        // A look may meet a seal or a merge, or the pages that the allocator kept of one.
        ("memory", (|u| u.memory_bytes) as fn(&Use) -> u64, 1.25, 64 << 20),
        ("open files", |u| u.files_open, 1.25, 16),
        ("threads", |u| u.threads, 1.25, 16),
        // A segment or so of each signal for an hour stays.
        ("files", |u| u.files, 2.0, 16),
    ] {
        let (middle, last) =
            (highest(&uses[third..2 * third], of), highest(&uses[2 * third..], of));
        assert!(
            last as f64 <= middle as f64 * ratio + slack as f64,
            "{name}: {middle}, then {last}"
        );
    }
}
