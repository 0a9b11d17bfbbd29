//! `trefoil delete`: all data of a service.

use super::{Output, Server, Table, show};
use serde_json::{Value, json};

/// Deletes, and tells how many rows of each signal that were.
pub async fn delete(server: &Server, service: &str, output: Output) -> anyhow::Result<()> {
    let request = server.post("/api/admin/delete").json(&json!({ "service": service }));
    let answer = server.json(request).await?;
    show(&answer, output, || {
        let mut table = Table::new(["signal", "deleted"]);
        let deleted = answer["deleted"].as_object().into_iter().flatten();
        table.rows =
            deleted.map(|(signal, rows)| vec![Value::from(&**signal), rows.clone()]).collect();
        table
    })
}
