//! What the black-box tests share: the real binary on ports of its own, over a data directory of its own.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod faults;
pub mod filled;
pub mod otlp;
pub mod senders;
pub mod shop;

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// A running `trefoil serve`; killed when dropped.
pub struct Server {
    process: Child,
    pub otlp_grpc: String,
    pub otlp_http: String,
    pub http: String,
}

/// From the start to `ready`, on a loaded machine and with an unoptimized binary.
const READY_MAX: Duration = Duration::from_secs(60);

/// The program under test: the one that cargo built with the tests, or the one of another build that the environment
/// variable `TREFOIL_BINARY` names.
pub fn binary() -> PathBuf {
    let other = std::env::var_os("TREFOIL_BINARY");
    other.map_or_else(|| env!("CARGO_BIN_EXE_trefoil").into(), PathBuf::from)
}

/// The binary under test, with no setting from the environment.
pub fn trefoil() -> Command {
    trefoil_at(&binary())
}

/// The same in another place.
pub fn trefoil_at(path: &Path) -> Command {
    unset(Command::new(path))
}

fn trefoil_under(wrapper: &[String]) -> Command {
    let [program, arguments @ ..] = wrapper else { return trefoil() };
    let mut command = Command::new(program);
    command.args(arguments).arg(binary());
    unset(command)
}

fn unset(mut command: Command) -> Command {
    for (name, _) in std::env::vars() {
        if name.starts_with("TREFOIL_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// How often a test does what it does: the size of `make test`, or that of `make torture`, or what the environment
/// variable `TREFOIL_TEST_<name>` says.
pub fn rounds(name: &str, everyday: u64, torture: u64) -> u64 {
    match std::env::var(format!("TREFOIL_TEST_{name}")) {
        Ok(count) => count.parse().expect("a number"),
        Err(_) if std::env::var_os("TREFOIL_TORTURE").is_some() => torture,
        Err(_) => everyday,
    }
}

/// A seed that a failing test prints, or the one to repeat from `TREFOIL_TEST_SEED`.
pub fn seed() -> u64 {
    let seed = match std::env::var("TREFOIL_TEST_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => rand::random(),
    };
    eprintln!("TREFOIL_TEST_SEED={seed}");
    seed
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

/// A port that no server of this process had before: a sender that does not yet know that its server is dead must find
/// nobody there, and not another test's server that takes the request. Below the range from which the system gives out
/// its own, so that nobody else comes by it.
fn unused_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 10_000..20_000;
    static USED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut used = USED.lock().unwrap();
    // Those of long ago are forgotten by every sender.
    if used.len() > PORTS.len() / 2 {
        used.clear();
    }
    loop {
        let port = rand::random_range(PORTS);
        if used.insert(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// Starts a server over `data_dir` on free ports and waits until it is ready.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// The same with further arguments.
    pub fn start_with(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::start_under(&[], data_dir, arguments)
    }

    /// The same, run by another program.
    ///
    /// * `wrapper`: that program and its arguments; none runs the server itself.
    pub fn start_under(wrapper: &[String], data_dir: &Path, arguments: &[&str]) -> Self {
        Self::try_start(wrapper, data_dir, arguments)
            .unwrap_or_else(|log| panic!("the server ended before it was ready:\n{log}"))
    }

    /// The same where the server may end before it is ready.
    ///
    /// # Errors
    /// What it had logged.
    pub fn try_start(
        wrapper: &[String],
        data_dir: &Path,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let mut command = trefoil_under(wrapper);
        command.arg("serve").arg("--data-dir").arg(data_dir);
        for flag in ["--otlp-grpc-addr", "--otlp-http-addr", "--http-addr"] {
            command.arg(flag).arg(format!("127.0.0.1:{}", unused_port()));
        }
        let mut process =
            command.args(arguments).stderr(Stdio::piped()).spawn().expect("the server starts");
        let log = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let (ready, is_ready) = mpsc::channel();
        // Reads on until the server ends, so that it never blocks on its own log.
        std::thread::spawn(move || {
            let mut seen = String::new();
            for line in log.lines().map_while(Result::ok) {
                eprintln!("{line}");
                if line.contains(" ready ") {
                    let _ = ready.send(Ok(line.clone()));
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            let _ = ready.send(Err(seen));
        });
        let line = match is_ready.recv_timeout(READY_MAX) {
            Ok(Ok(line)) => line,
            Ok(Err(log)) => {
                let _ = process.wait();
                return Err(log);
            }
            Err(_) => panic!("the server was not ready within {READY_MAX:?}"),
        };
        let addrs: HashMap<&str, &str> =
            line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        let url = |name: &str| format!("http://{}", addrs[name]);
        Ok(Self {
            process,
            otlp_grpc: url("otlp_grpc"),
            otlp_http: url("otlp_http"),
            http: url("http"),
        })
    }

    /// The most memory it has held so far.
    pub fn peak_memory_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("the server runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let pid = self.wrapped().unwrap_or_else(|| self.process.id().to_string());
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Stops the process where it is: from the return on it answers nobody any more. Only a kill follows.
    pub fn freeze(&self) {
        self.signal("STOP");
        let pid = self.wrapped().unwrap_or_else(|| self.process.id().to_string());
        // A thread within a system call stops when that ends.
        let runs = |stat: std::io::Result<String>| {
            let stat = stat.unwrap_or_default();
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            state.is_some_and(|state| "RS".contains(state))
        };
        let tasks =
            || std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        while tasks().any(|task| runs(std::fs::read_to_string(task.path().join("stat")))) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits for the end, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let give_up = Instant::now() + patience;
        loop {
            if let Some(status) = self.process.try_wait().expect("the server can be watched") {
                return status;
            }
            assert!(Instant::now() < give_up, "the server did not end within {patience:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as a power cut would end the process: at once.
    pub fn kill(mut self) {
        self.kill_and_wait();
    }

    /// A program that runs the server lets it live when it is killed itself: the server goes first.
    fn kill_and_wait(&mut self) {
        if let Some(child) = self.wrapped() {
            let _ = Command::new("kill").args(["-s", "KILL", &child]).status();
            // It ends with the server.
            let _ = self.process.wait();
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The server's process when another program runs it.
    fn wrapped(&self) -> Option<String> {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }

    /// Whether it has ended, by itself or killed.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("the server can be watched").is_some()
    }

    /// Ends it as a service manager would, and checks that it says all is well.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait(Duration::from_secs(15));
        assert!(status.success(), "{status}");
    }

    /// The value of one of the server's own metrics, such as `trefoil_records_total{signal="spans",fate="stored"}`;
    /// 0 while it is not there.
    pub async fn metric(&self, name: &str) -> u64 {
        value(&self.metrics().await, name)
    }

    async fn metrics(&self) -> String {
        reqwest::get(format!("{}/metrics", self.http)).await.unwrap().text().await.unwrap()
    }

    /// `GET path?parameters` on the query port as JSON; any answer but a success becomes the error's text.
    pub async fn get(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<serde_json::Value, String> {
        let url = format!("{}{path}", self.http);
        let request = reqwest::Client::new().get(url).query(parameters);
        json(request).await.map_err(|error| format!("GET {path} {parameters:?}: {error}"))
    }

    /// The rows of a SQL query.
    pub async fn sql(&self, query: &str) -> Result<serde_json::Value, String> {
        let body = serde_json::json!({ "query": query });
        let request = reqwest::Client::new().post(format!("{}/api/sql", self.http)).json(&body);
        let answer = json(request).await.map_err(|error| format!("SQL {query}: {error}"))?;
        Ok(answer["rows"].clone())
    }

    /// Compares the books: per signal received = stored + duplicate + rejected, and stored = live + expired + deleted
    /// + quarantined, where live is counted in the stores; `/metrics` must say the same.
    ///
    /// # Errors
    /// The account that does not balance.
    pub async fn books(&self) -> Result<(), String> {
        let before = self.get("/api/status", &[]).await?;
        let metrics = self.metrics().await;
        let after = self.get("/api/status", &[]).await?;
        for signal in ["spans", "logs", "metrics"] {
            let told = |status: &serde_json::Value, name: &str| {
                status["ledger"][signal][name].as_u64().unwrap()
            };
            let measured = |name: &str| match name {
                "live" => value(&metrics, &format!("trefoil_records_live{{signal=\"{signal}\"}}")),
                "received" => value(
                    &metrics,
                    &format!("trefoil_records_received_total{{signal=\"{signal}\"}}"),
                ),
                fate => value(&metrics, &fate_of(signal, fate)),
            };
            let accounts: [&dyn Fn(&str) -> u64; 3] =
                [&|name| told(&before, name), &measured, &|name| told(&after, name)];
            for of in accounts {
                let received = of("stored") + of("duplicate") + of("rejected");
                let stored = of("live") + of("expired") + of("deleted") + of("quarantined");
                if of("received") != received || of("stored") != stored {
                    let fates = ["received", "stored", "duplicate", "rejected", "live", "expired"];
                    let fates = fates.into_iter().chain(["deleted", "quarantined"]);
                    let account: Vec<_> = fates.map(|name| (name, of(name))).collect();
                    return Err(format!("the books on {signal} do not balance: {account:?}"));
                }
            }
            // Both show the same books; records may come in meanwhile.
            for name in ["received", "stored"] {
                let [first, second, third] = accounts.map(|of| of(name));
                if first > second || second > third {
                    return Err(format!(
                        "{name} {signal}: {first} in /api/status, then {second} in /metrics, then {third}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Records of a signal by what became of them.
    pub async fn records(&self, signal: &str, fate: &str) -> u64 {
        self.metric(&fate_of(signal, fate)).await
    }
}

/// The name of the metric that counts a signal's records by what became of them.
fn fate_of(signal: &str, fate: &str) -> String {
    format!("trefoil_records_total{{signal=\"{signal}\",fate=\"{fate}\"}}")
}

/// A metric in a page of them; 0 where it is not there.
fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

async fn json(request: reqwest::RequestBuilder) -> Result<serde_json::Value, String> {
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {text}"));
    }
    serde_json::from_str(&text).map_err(|error| format!("not JSON ({error}): {text}"))
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill_and_wait();
        }
    }
}
