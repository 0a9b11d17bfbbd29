//! The shop as a whole: real processes, watched through what they send.

mod receiver;

use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use receiver::{Received, Receiver};

const PROCESSES: u16 = 7;

/// A running `trefoil-shop up`; ended by SIGTERM when dropped.
struct Shop {
    up: Child,
    port_base: u16,
}

impl Shop {
    fn open(otlp: SocketAddr) -> Self {
        let port_base = free_ports();
        let up = command(port_base)
            .args(["up", "--rate", "60"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}"))
            .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
            .env("OTEL_BSP_SCHEDULE_DELAY", "200")
            .env("OTEL_BLRP_SCHEDULE_DELAY", "200")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let shop = Self { up, port_base };
        eventually("the gateway listens", || shop.listening().contains(&port_base));
        shop
    }

    /// The shop's ports on which somebody listens.
    fn listening(&self) -> Vec<u16> {
        (self.port_base..self.port_base + PROCESSES)
            .filter(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
            .collect()
    }

    /// Processes that were started for this shop and still run.
    fn processes(&self) -> usize {
        let mark = format!("--port-base\0{}\0", self.port_base);
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .filter(|words| String::from_utf8_lossy(words).contains(&mark))
            .count()
    }

    fn scenario(&self, arguments: &[&str]) -> std::process::Output {
        command(self.port_base).arg("scenario").args(arguments).output().unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.up.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if matches!(self.up.try_wait(), Ok(None)) {
            self.signal("TERM");
            let _ = self.up.wait();
        }
    }
}

fn command(port_base: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trefoil-shop"));
    command.arg("--port-base").arg(port_base.to_string());
    command
}

/// The first of seven free ports in a row, looked for below the range from which the system gives out its own.
fn free_ports() -> u16 {
    loop {
        let base = rand::random_range(20_000..32_000);
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + PROCESSES).all(free) {
            return base;
        }
    }
}

/// Waits until `holds`; gives up with a panic after a time that no healthy machine needs.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < give_up, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text.clone(),
        _ => String::new(),
    }
}

/// Trace IDs to the `service kind name` of their spans.
fn traces(received: &Received) -> HashMap<Vec<u8>, BTreeSet<String>> {
    let mut traces: HashMap<Vec<u8>, BTreeSet<String>> = HashMap::new();
    for (service, span) in received.spans() {
        let kind = match span.kind() {
            SpanKind::Server => "server",
            SpanKind::Client => "client",
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
            _ => "internal",
        };
        let line = format!("{service} {kind} {}", span.name);
        traces.entry(span.trace_id.clone()).or_default().insert(line);
    }
    traces
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_is_one_trace_through_every_service_and_all_signals_know_it() {
    let receiver = Receiver::start().await;
    let shop = Shop::open(receiver.address());
    let whole = [
        "gateway server POST /api/checkout",
        "gateway client POST /orders",
        "checkout server POST /orders",
        "checkout client GET /products/{sku}",
        "catalog server GET /products/{sku}",
        "checkout client POST /payments",
        "payment server POST /payments",
        "payment client POST /authorizations",
        "checkout producer send orders",
        "queue server POST /queues/{queue}/messages",
        "notifications consumer process orders",
        "notifications internal write confirmation",
    ];
    eventually("an order's trace is whole", || {
        let received = receiver.received();
        traces(&received).values().any(|spans| whole.iter().all(|span| spans.contains(*span)))
    });

    eventually("a log record of payment knows its span", || {
        let received = receiver.received();
        let spans: BTreeSet<_> = received
            .spans()
            .map(|(service, span)| (service, span.trace_id.clone(), span.span_id.clone()))
            .collect();
        received.logs().any(|(service, log)| {
            service == "payment"
                && log.event_name == "payment.authorized"
                && spans.contains(&(service, log.trace_id.clone(), log.span_id.clone()))
        })
    });

    eventually("an exemplar of gateway's durations leads to its server span", || {
        let received = receiver.received();
        let server_spans: BTreeSet<_> = received
            .spans()
            .filter(|(service, span)| service == "gateway" && span.kind() == SpanKind::Server)
            .map(|(_, span)| (span.trace_id.clone(), span.span_id.clone()))
            .collect();
        received
            .metrics()
            .filter(|(service, metric)| {
                service == "gateway" && metric.name == "http.server.request.duration"
            })
            .filter_map(|(_, metric)| match &metric.data {
                Some(Data::Histogram(histogram)) => Some(&histogram.data_points),
                _ => None,
            })
            .flatten()
            .flat_map(|point| &point.exemplars)
            .any(|one| server_spans.contains(&(one.trace_id.clone(), one.span_id.clone())))
    });

    eventually("every kind of metric is there", || {
        let received = receiver.received();
        let names: BTreeSet<(String, &str)> =
            received.metrics().map(|(service, metric)| (service, metric.name.as_str())).collect();
        [
            ("checkout", "shop.orders"),
            ("queue", "shop.queue.depth"),
            ("payment", "shop.payment.authorization.duration"),
            ("notifications", "messaging.process.duration"),
            ("catalog", "shop.cache.lookups"),
            ("catalog", "http.server.active_requests"),
            ("gateway", "process.cpu.time"),
        ]
        .iter()
        .all(|(service, name)| names.contains(&((*service).to_owned(), *name)))
    });
    let received = receiver.received();
    let banks = received.metrics().find_map(|(_, metric)| match &metric.data {
        Some(Data::ExponentialHistogram(histogram)) => Some(histogram.data_points.len()),
        _ => None,
    });
    assert!(banks.is_some(), "the banks' answer times come as exponential histograms");
    let resources: BTreeSet<_> =
        received.resources().map(|resource| text(resource, "service.instance.id")).collect();
    assert!(resources.contains(&format!("gateway-{}", shop.port_base)), "{resources:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_is_switched_at_run_time_and_seen_in_the_spans() {
    let receiver = Receiver::start().await;
    let shop = Shop::open(receiver.address());

    let refused = shop.scenario(&["no-such-thing", "on"]);
    assert!(!refused.status.success());
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("slow-payment"), "tells what there is: {words}");

    let switched = shop.scenario(&["failing-payment", "on"]);
    let words = String::from_utf8_lossy(&switched.stdout).into_owned();
    assert!(switched.status.success() && words.starts_with("failing-payment  on"), "{words}");
    eventually("atlas fails all the way up to the gateway", || {
        let received = receiver.received();
        let failed: HashMap<Vec<u8>, BTreeSet<String>> = received
            .spans()
            .filter(|(_, span)| {
                span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
            })
            .fold(HashMap::new(), |mut failed, (service, span)| {
                failed
                    .entry(span.trace_id.clone())
                    .or_insert_with(BTreeSet::new)
                    .insert(format!("{service} {}", text(&span.attributes, "shop.payment.bank")));
                failed
            });
        failed.values().any(|spans| {
            ["payment atlas", "checkout ", "gateway "].iter().all(|one| spans.contains(*one))
        })
    });
    assert!(
        receiver.received().logs().any(|(service, log)| service == "payment"
            && log.severity_text == "ERROR"
            && !log.trace_id.is_empty()),
        "the failure is in the log, with its trace"
    );

    shop.scenario(&["failing-payment", "off"]);
    let listed = String::from_utf8_lossy(&shop.scenario(&[]).stdout).into_owned();
    assert!(listed.contains("failing-payment  off") && listed.contains("slow-payment     off"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_is_left_behind_even_when_the_first_is_killed() {
    // Nobody receives the telemetry: the shop must not mind.
    let nobody: SocketAddr = ([127, 0, 0, 1], 9).into();
    let mut shop = Shop::open(nobody);
    eventually("all seven listen", || shop.listening().len() == usize::from(PROCESSES));
    shop.signal("TERM");
    assert!(shop.up.wait().unwrap().success());
    assert_eq!(shop.processes(), 0);

    let mut shop = Shop::open(nobody);
    eventually("all seven listen", || shop.listening().len() == usize::from(PROCESSES));
    shop.signal("KILL");
    shop.up.wait().unwrap();
    eventually("the orphans have ended", || shop.processes() == 0);
}

#[test]
fn a_taken_port_is_named() {
    let port_base = free_ports();
    let holder = TcpListener::bind(("127.0.0.1", port_base + 3)).unwrap();
    let mut up =
        command(port_base).arg("up").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(!up.wait().unwrap().success());
    drop(holder);
    let mut words = String::new();
    up.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    let named = format!("payment cannot listen on 127.0.0.1:{}", port_base + 3);
    assert!(words.contains(&named) && words.contains("--port-base"), "{words}");
}
