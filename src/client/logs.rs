//! `trefoil query logs`.

use super::{Output, Server, Table, show};
use serde_json::Value;

pub async fn query(
    server: &Server,
    parameters: &[(&str, String)],
    output: Output,
) -> anyhow::Result<()> {
    let answer = server.json(server.get("/api/logs").query(parameters)).await?;
    show(&answer, output, || {
        let mut table = Table::new(COLUMNS);
        table.rows = answer["logs"].as_array().into_iter().flatten().map(row).collect();
        table
    })
}

const COLUMNS: [&str; 7] =
    ["timestamp", "severity_text", "service", "body", "trace_id", "span_id", "attributes"];

fn row(log: &Value) -> Vec<Value> {
    COLUMNS
        .iter()
        .map(|name| match &log[name] {
            Value::Object(none) if none.is_empty() => Value::Null,
            value => value.clone(),
        })
        .collect()
}
