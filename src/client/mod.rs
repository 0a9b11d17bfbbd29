//! The commands that ask a running server: for scripts and for the quick look.

pub mod delete;
pub mod logs;
pub mod promql;
pub mod sql;
mod table;
pub mod tail;
pub mod traces;

use crate::cli::{Connect, Range};
use crate::units;
use anyhow::{Context, bail};
use clap::ValueEnum;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};
pub use table::Table;

/// How to print an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns, for people
    Table,
    /// The server's JSON
    Json,
    /// Comma-separated values with a header
    Csv,
    /// Arrow IPC stream
    Arrow,
}

/// A server to ask.
pub struct Server {
    client: Client,
    url: String,
    token: Option<String>,
}

impl Server {
    /// # Errors
    /// When the address is not `http://…`.
    pub fn new(connect: &Connect) -> anyhow::Result<Self> {
        let url = connect.url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") {
            bail!("--url {url} must be an address such as http://127.0.0.1:4319");
        }
        Ok(Self { client: Client::new(), url, token: connect.token.clone() })
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.with_token(self.client.get(format!("{}{path}", self.url)))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.with_token(self.client.post(format!("{}{path}", self.url)))
    }

    fn with_token(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When nobody answers, or with the server's own words when it refuses.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.with_context(|| {
            format!("no answer from {}: is `trefoil serve` running there?", self.url)
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        bail!("{}", words_of(&text).unwrap_or_else(|| format!("{status}: {}", text.trim())));
    }

    pub async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        self.send(request).await?.json().await.context("the answer is not JSON")
    }
}

/// The message of an error answer, of the native API or of Prometheus'.
fn words_of(body: &str) -> Option<String> {
    let json: Value = serde_json::from_str(body).ok()?;
    let message = json["error"]["message"].as_str().or(json["error"].as_str())?;
    Some(message.to_owned())
}

/// `start`, `end` and `limit` as the native API takes them.
pub fn time_range(range: &Range) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut parameters = vec![("limit", range.limit.to_string())];
    for (name, text) in [("start", &range.start), ("end", &range.end)] {
        if let Some(text) = text {
            let time = match age(text)? {
                Some(seconds) => format!("{}", (seconds * 1e9) as u64),
                None => text.clone(),
            };
            parameters.push((name, time));
        }
    }
    Ok(parameters)
}

/// The time that an age such as `-5m` stands for, in Unix seconds; `None` if the text is not one.
fn age(text: &str) -> anyhow::Result<Option<f64>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    if text == "now" {
        return Ok(Some(now));
    }
    let Some(age) = text.strip_prefix('-') else { return Ok(None) };
    let age = units::duration(age)
        .map_err(|mistake| anyhow::anyhow!("the age {text:?} {mistake}, with a minus"))?;
    Ok(Some(now - age.as_secs_f64()))
}

/// Writes to stdout; a reader that has seen enough (`| head`) is no error.
pub fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Prints `json` as it came, or the table made of it.
pub fn show(json: &Value, output: Output, table: impl FnOnce() -> Table) -> anyhow::Result<()> {
    let bytes = match output {
        Output::Json => format!("{json:#}\n").into_bytes(),
        Output::Table => table().aligned().into_bytes(),
        Output::Csv => table().csv().into_bytes(),
        Output::Arrow => table().arrow()?,
    };
    print(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_from_times() {
        assert_eq!(age("2026-01-01T00:00:00Z").unwrap(), None);
        assert_eq!(age("1700000000").unwrap(), None);
        assert!(age("-5m").unwrap().unwrap() < age("-1s").unwrap().unwrap());
        assert!(age("-soon").is_err());
    }

    #[test]
    fn errors_are_told_in_the_servers_words() {
        assert_eq!(words_of(r#"{"error":{"code":"x","message":"m"}}"#).as_deref(), Some("m"));
        assert_eq!(words_of(r#"{"status":"error","error":"p"}"#).as_deref(), Some("p"));
        assert_eq!(words_of("<html>"), None);
    }
}
