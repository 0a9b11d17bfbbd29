//! `trefoil tail`: log records as they arrive, until Ctrl-C.

use super::{Output, Server, print};
use crate::client::table::visible;
use anyhow::bail;
use serde_json::Value;

pub async fn tail(server: &Server, q: &str, output: Output) -> anyhow::Result<()> {
    if matches!(output, Output::Csv | Output::Arrow) {
        bail!("tail prints lines: use --output table or json");
    }
    let request = server.get("/api/logs/tail").query(&[("q", q)]);
    let mut response = server.send(request.header("accept", "text/event-stream")).await?;
    let mut events = Events::default();
    let stopped = crate::app::shutdown_signal();
    tokio::pin!(stopped);
    loop {
        let chunk = tokio::select! {
            chunk = response.chunk() => chunk?,
            _ = &mut stopped => return Ok(()),
        };
        let Some(chunk) = chunk else { bail!("the server ended the stream") };
        for data in events.push(&chunk) {
            let text = match output {
                Output::Json => data,
                _ => line(&serde_json::from_str(&data)?),
            };
            print(format!("{text}\n").as_bytes())?;
        }
    }
}

/// Time, severity, service, body.
fn line(log: &Value) -> String {
    let text = |name: &str| match &log[name] {
        Value::String(text) => visible(text),
        Value::Null => String::new(),
        other => visible(&other.to_string()),
    };
    format!(
        "{} {:5} {} {}",
        text("timestamp"),
        text("severity_text"),
        text("service"),
        text("body")
    )
}

/// Cuts a stream of server-sent events into the data of each event.
///
/// Source: WHATWG HTML, "Server-sent events", parsing.
#[derive(Default)]
struct Events {
    /// The line that has not ended yet.
    partial: Vec<u8>,
    data: Option<String>,
}

impl Events {
    fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        for &byte in chunk {
            if byte != b'\n' {
                self.partial.push(byte);
                continue;
            }
            let line =
                String::from_utf8_lossy(self.partial.strip_suffix(b"\r").unwrap_or(&self.partial))
                    .into_owned();
            self.partial.clear();
            if line.is_empty() {
                whole.extend(self.data.take());
            } else if let Some(value) = line.strip_prefix("data:") {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => self.data = Some(value.to_owned()),
                }
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let stream =
            b": hello\n\ndata: {\"a\":1}\n\nevent: log\r\ndata: x\r\ndata:y\r\n\r\ndata: cut";
        for size in [1, 3, 7, 100] {
            let mut events = Events::default();
            let found: Vec<String> =
                stream.chunks(size).flat_map(|chunk| events.push(chunk)).collect();
            assert_eq!(found, ["{\"a\":1}", "x\ny"], "{size}");
        }
    }
}
