//! What the end-to-end tests share: the real binary on ports of its own, over a data directory of its own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running `trefoil serve`. Killed when dropped, unless it was stopped before.
pub struct Server {
    process: Child,
    pub grpc_port: u16,
    pub otlp_http_port: u16,
    pub http_port: u16,
}

impl Server {
    /// Starts the server over `data_dir` and waits until it is ready.
    pub async fn start(data_dir: &Path) -> Self {
        let [grpc_port, otlp_http_port, http_port] = free_ports();
        let process = Command::new(env!("CARGO_BIN_EXE_trefoil"))
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--otlp-grpc-addr", &format!("127.0.0.1:{grpc_port}")])
            .args(["--otlp-http-addr", &format!("127.0.0.1:{otlp_http_port}")])
            .args(["--http-addr", &format!("127.0.0.1:{http_port}")])
            .args(["--retention", "unlimited"])
            .stdin(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut server = Self { process, grpc_port, otlp_http_port, http_port };
        let give_up = Instant::now() + Duration::from_secs(60);
        let ready = server.url("/readyz");
        while !reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
            if let Some(status) = server.process.try_wait().expect("the server can be watched") {
                panic!("the server ended before it was ready: {status}");
            }
            assert!(Instant::now() < give_up, "the server is not ready after a minute");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    /// An address on the query port.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http_port)
    }

    /// Ends the server by SIGTERM, as a service manager would.
    pub fn stop(mut self) {
        let pid = self.process.id().to_string();
        let told = Command::new("kill").args(["-s", "TERM", &pid]).status().expect("kill runs");
        assert!(told.success());
        let status = self.process.wait().expect("the server ends");
        assert!(status.success(), "the server's end: {status}");
    }

    /// `GET path?parameters` as JSON; an error's text for any other answer.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let request = reqwest::Client::new().get(self.url(path)).query(parameters);
        json(request).await.map_err(|error| format!("GET {path} {parameters:?}: {error}"))
    }

    /// The rows of a SQL query.
    pub async fn sql(&self, query: &str) -> Result<Value, String> {
        let body = serde_json::json!({ "query": query });
        let request = reqwest::Client::new().post(self.url("/api/sql")).json(&body);
        let answer = json(request).await.map_err(|error| format!("SQL {query}: {error}"))?;
        Ok(answer["rows"].clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn json(request: reqwest::RequestBuilder) -> Result<Value, String> {
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {text}"));
    }
    serde_json::from_str(&text).map_err(|error| format!("not JSON ({error}): {text}"))
}

/// Ports that were free a moment ago, each held until all are found.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("its address").port())
}
