//! `trefoil query sql`.

use super::{Output, Server, Table, print, show};
use serde_json::{Value, json};

pub async fn query(server: &Server, sql: &str, output: Output) -> anyhow::Result<()> {
    let request = server.post("/api/sql").json(&json!({ "query": sql }));
    // The server knows the columns' types: what it can write itself is passed on.
    let accept = match output {
        Output::Csv => "text/csv",
        Output::Arrow => "application/vnd.apache.arrow.stream",
        Output::Json | Output::Table => {
            let answer = server.json(request).await?;
            return show(&answer, output, || table(&answer));
        }
    };
    let mut response = server.send(request.header("accept", accept)).await?;
    while let Some(chunk) = response.chunk().await? {
        print(&chunk)?;
    }
    Ok(())
}

fn table(answer: &Value) -> Table {
    let text = |name: &Value| name.as_str().unwrap_or_default().to_owned();
    let columns: Vec<String> =
        answer["columns"].as_array().into_iter().flatten().map(text).collect();
    let rows = answer["rows"].as_array().into_iter().flatten();
    let rows = rows.map(|row| row.as_array().cloned().unwrap_or_default()).collect();
    Table { columns, rows }
}
