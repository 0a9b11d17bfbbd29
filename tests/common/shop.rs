//! The demo shop as `trefoil-shop up` starts it, under load, on ports of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// Processes, each with a port.
const PORTS: u16 = 7;

/// A running shop; all its processes end when this is dropped.
pub struct Shop {
    up: Child,
    port_base: u16,
}

impl Shop {
    /// Opens a shop that sends its telemetry to `otlp_grpc`, faster than in real life so that tests need not wait.
    pub fn open(otlp_grpc: &str) -> Self {
        let port_base = free_ports();
        let up = shop(port_base)
            .args(["up", "--end-with-stdin", "--rate", "30"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", otlp_grpc)
            .env("OTEL_METRIC_EXPORT_INTERVAL", "2000")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the shop starts");
        Self { up, port_base }
    }

    /// The gateway's address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port_base)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // Its end of the pipe: the shop closes, and its services with it.
        drop(self.up.stdin.take());
        let _ = self.up.wait();
    }
}

fn shop(port_base: u16) -> Command {
    let program = super::binary().with_file_name("trefoil-shop");
    assert!(
        program.exists(),
        "{} is missing: run `cargo build --workspace --bins` first",
        program.display()
    );
    let mut command = Command::new(program);
    command.arg("--port-base").arg(port_base.to_string());
    command
}

/// The first of as many free ports in a row, below the range from which the system gives out its own.
fn free_ports() -> u16 {
    loop {
        let base = rand::random_range(20_000..32_000);
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + PORTS).all(free) {
            return base;
        }
    }
}
