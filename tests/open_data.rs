//! The sealed files belong to their owner: DuckDB and pyarrow read them directly and count what our own SQL counts.

mod common;

use common::otlp::Sender;
use common::{Server, otlp};
use prost::Message;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::Command;
use tokio::task::block_in_place;

/// Spans, logs and points of three services, in two hours.
async fn send(server: &Server) {
    let now_ns = otlp::now_ns();
    for (service, requests) in [("checkout", 9u64), ("payment", 5), ("Straße \"7\"", 2)] {
        for number in 0..requests {
            let time_ns = now_ns - (number % 2) * 3_600_000_000_000;
            let sender = Sender { service: service.to_owned(), time_ns };
            let number = number + 1000 * service.len() as u64;
            for (path, body) in [
                ("/v1/traces", sender.traces(number, 7).encode_to_vec()),
                ("/v1/logs", sender.logs(number, 5).encode_to_vec()),
                ("/v1/metrics", sender.metrics(number, 3).encode_to_vec()),
            ] {
                let request = reqwest::Client::new()
                    .post(format!("{}{path}", server.otlp_http))
                    .header("content-type", "application/x-protobuf")
                    .body(body);
                assert_eq!(request.send().await.unwrap().status(), 200);
            }
        }
    }
}

/// Rows per service by our own SQL.
async fn own(server: &Server, table: &str) -> Value {
    let sql = format!("select service_name, count(*) from {table} group by service_name");
    let rows = server.sql(&sql).await.unwrap();
    let counts = rows.as_array().unwrap().iter();
    let counts = counts.map(|row| (row[0].as_str().unwrap().to_owned(), row[1].clone()));
    Value::Object(counts.collect::<Map<_, _>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_and_pyarrow_count_what_our_sql_counts() {
    let dir = tempfile::tempdir().unwrap();
    let server = block_in_place(|| Server::start(dir.path()));
    send(&server).await;
    block_in_place(|| server.stop());
    let server = block_in_place(|| Server::start(dir.path()));

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/clients-venv/bin/python");
    assert!(python.exists(), "{}: make test-setup installs it", python.display());
    let output = Command::new(python)
        .arg(root.join("tests/clients/python/read_parquet.py"))
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();

    let sum = server.sql("select sum(duration_ns) from spans").await.unwrap()[0][0].clone();
    for engine in ["duckdb", "pyarrow"] {
        for table in ["spans", "logs", "metrics"] {
            assert_eq!(read[engine][table], own(&server, table).await, "{engine}: {table}");
        }
        assert_eq!(read[engine]["duration_ns"], sum, "{engine}");
    }
    assert_eq!(read["duckdb"]["spans"]["checkout"], json!(9 * 7));

    // The types are those of storage/FORMAT.md.
    let types = &read["pyarrow"]["columns"];
    assert_eq!(types["trace_id"], "fixed_size_binary[16]");
    assert_eq!(types["start_time"], "timestamp[ns, tz=UTC]");
    assert_eq!(types["duration_ns"], "int64");
    assert_eq!(types["status_code"], "int32");
    let types = &read["duckdb"]["columns"];
    assert_eq!(types["duration_ns"], "BIGINT");
    assert_eq!(types["service_name"], "VARCHAR");
}
