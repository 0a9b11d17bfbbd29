//! `trefoil query traces`.

use super::{Output, Server, Table, show};
use serde_json::Value;
use std::time::Duration;

pub async fn query(
    server: &Server,
    parameters: &[(&str, String)],
    output: Output,
) -> anyhow::Result<()> {
    let answer = server.json(server.get("/api/traces").query(parameters)).await?;
    show(&answer, output, || {
        let mut table = Table::new(COLUMNS);
        let traces = answer["traces"].as_array().into_iter().flatten();
        table.rows =
            traces.map(|trace| COLUMNS.map(|name| cell(trace, name, output)).into()).collect();
        table
    })
}

const COLUMNS: [&str; 8] = [
    "start",
    "duration_ns",
    "root_service",
    "root_operation",
    "span_count",
    "error_count",
    "services",
    "trace_id",
];

fn cell(trace: &Value, name: &str, output: Output) -> Value {
    match (name, &trace[name]) {
        ("duration_ns", Value::Number(ns)) if output == Output::Table => {
            let duration = Duration::from_nanos(ns.as_u64().unwrap_or_default());
            format!("{duration:.1?}").into()
        }
        ("services", Value::Array(names)) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            names.join(" ").into()
        }
        (_, value) => value.clone(),
    }
}
