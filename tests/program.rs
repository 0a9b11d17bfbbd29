//! The program around the stores: command line, start and stop, what the UI's port lets through.

mod common;

use common::{Server, run, trefoil, trefoil_at};
use reqwest::{Client, Method, StatusCode};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

fn words(output: &std::process::Output) -> String {
    assert!(!output.status.success(), "it should have failed");
    assert!(output.stdout.is_empty(), "errors go to stderr");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_names_every_command_and_every_setting_with_its_variable() {
    let output = run(trefoil().arg("--help"));
    let help = String::from_utf8(output.stdout).unwrap();
    for command in ["serve", "query", "tail", "demo"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in:\n{help}");
    }
    let output = run(trefoil().args(["serve", "--help"]));
    let help = String::from_utf8(output.stdout).unwrap();
    for (flag, variable) in [
        ("--data-dir", "TREFOIL_DATA_DIR"),
        ("--otlp-grpc-addr", "TREFOIL_OTLP_GRPC_ADDR"),
        ("--otlp-http-addr", "TREFOIL_OTLP_HTTP_ADDR"),
        ("--http-addr", "TREFOIL_HTTP_ADDR"),
        ("--retention", "TREFOIL_RETENTION"),
        ("--memory-limit", "TREFOIL_MEMORY_LIMIT"),
        ("--promql-experimental", "TREFOIL_PROMQL_EXPERIMENTAL"),
        ("--promql-samples-max", "TREFOIL_PROMQL_SAMPLES_MAX"),
        ("--promql-series-max", "TREFOIL_PROMQL_SERIES_MAX"),
        ("--promql-steps-max", "TREFOIL_PROMQL_STEPS_MAX"),
        ("--promql-timeout", "TREFOIL_PROMQL_TIMEOUT"),
        ("--promql-queries-max", "TREFOIL_PROMQL_QUERIES_MAX"),
        ("--config", "TREFOIL_CONFIG"),
        ("--token", "TREFOIL_TOKEN"),
    ] {
        assert!(help.contains(flag) && help.contains(variable), "{flag} in:\n{help}");
    }
}

#[test]
fn mistakes_in_the_settings_are_told_together_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let serve = |arguments: &[&str]| {
        words(&run(trefoil().arg("serve").current_dir(dir.path()).args(arguments)))
    };
    let told = serve(&["--retention", "soon", "--memory-limit", "lots", "--http-addr", "here"]);
    for name in ["retention", "memory-limit", "http-addr"] {
        assert!(told.contains(name), "{told}");
    }
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(serve(&["--http-addr", "0.0.0.0:0"]).contains("--token"));
    assert!(serve(&["--config", "missing.toml"]).contains("missing.toml"));
    std::fs::write(dir.path().join("trefoil.toml"), "memory = \"1GiB\"\n").unwrap();
    assert!(serve(&[]).contains("memory"));
}

#[test]
fn settings_come_from_the_file_the_environment_and_the_flags_in_that_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    std::fs::write(&file, "retention = \"from the file\"\n").unwrap();
    let mut serve = trefoil();
    serve.args(["serve", "--config"]).arg(&file);
    assert!(words(&run(&mut serve)).contains("from the file"));
    serve.env("TREFOIL_RETENTION", "from the environment");
    assert!(words(&run(&mut serve)).contains("from the environment"));
    serve.args(["--retention", "from a flag"]);
    assert!(words(&run(&mut serve)).contains("from a flag"));
}

#[test]
fn a_taken_port_and_a_locked_directory_are_named_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let told = words(&run(trefoil()
        .args(["serve", "--otlp-grpc-addr", &addr])
        .arg("--data-dir")
        .arg(dir.path())));
    assert!(told.contains(&addr) && told.contains("--otlp-grpc-addr"), "{told}");

    let _server = Server::start(dir.path());
    let free = [
        "--otlp-grpc-addr",
        "127.0.0.1:0",
        "--otlp-http-addr",
        "127.0.0.1:0",
        "--http-addr",
        "127.0.0.1:0",
    ];
    let told = words(&run(trefoil().arg("serve").args(free).arg("--data-dir").arg(dir.path())));
    assert!(told.contains("in use") && told.contains("--data-dir"), "{told}");
}

#[test]
fn client_commands_fail_with_one_line_on_stderr() {
    let told =
        words(&run(trefoil().args(["query", "sql", "select 1", "--url", "http://127.0.0.1:9"])));
    assert!(told.contains("trefoil serve") && told.lines().count() == 1, "{told}");
    let told = words(&run(trefoil().args(["query", "promql", "up", "--start", "-1h"])));
    assert!(told.contains("--step"), "{told}");
}

#[tokio::test]
async fn the_ui_port_is_closed_to_other_sites_and_strict_with_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--allowed-host", "trefoil.example"]);
    let ask = |method: Method, path: &str, headers: &[(&'static str, &'static str)]| {
        let mut request = Client::new().request(method, format!("{}{path}", server.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        async move { request.send().await.unwrap() }
    };
    for path in ["/", "/healthz", "/metrics", "/api/services", "/prometheus/api/v1/labels"] {
        let answer = ask(Method::GET, path, &[("host", "evil.test")]).await;
        assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{path}");
        let answer = ask(Method::GET, path, &[("host", "trefoil.example:8080")]).await;
        assert_ne!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe-inline"), "{policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert!(answer.headers().contains_key("referrer-policy"));
    }
    for headers in [&[("origin", "http://evil.test")][..], &[("sec-fetch-site", "cross-site")]] {
        let answer = ask(Method::POST, "/api/sql", headers).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{headers:?}");
    }
}

#[tokio::test]
async fn probes_and_own_metrics_are_there_and_unknown_paths_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let get = async |path: &str| reqwest::get(format!("{}{path}", server.http)).await.unwrap();
    for probe in ["/healthz", "/readyz", "/ready"] {
        assert_eq!(get(probe).await.status(), 200, "{probe}");
        let head = Client::new().head(format!("{}{probe}", server.http)).send().await.unwrap();
        assert_eq!(head.status(), 200, "HEAD {probe}");
    }
    let metrics = get("/metrics").await;
    assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = metrics.text().await.unwrap();
    for family in ["trefoil_ready 1", "process_resident_memory_bytes ", "trefoil_wal_groups_total "]
    {
        assert!(text.lines().any(|line| line.starts_with(family)), "{family}");
    }
    // Prometheus' rules: each family is announced once, before its samples.
    let mut announced = std::collections::HashSet::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(family) => assert!(announced.insert(family.split(' ').next().unwrap()), "{line}"),
            None if line.starts_with('#') => {}
            None => {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(announced.contains(name), "{line}");
            }
        }
    }
    assert_eq!(get("/api/nothing").await.status(), 404);
    assert_eq!(get("/app-0123.js").await.status(), 404);
    assert_eq!(get("/..%2f..%2fCargo.toml").await.status(), 404);
}

/// The shop of `trefoil demo` ends with its stdin, as this one does that stands in for it.
const SHOP: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
echo "$OTEL_EXPORTER_OTLP_ENDPOINT" > opening && mv opening open
cat > /dev/null
touch closed
"#;

#[test]
fn the_demo_keeps_its_shop_open_until_it_is_asked_to_stop() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = |name| folder.path().join(name);
    // The shop is looked for beside the program.
    std::fs::hard_link(common::binary(), file("trefoil")).unwrap();
    std::fs::write(file("trefoil-shop"), SHOP).unwrap();
    std::fs::set_permissions(file("trefoil-shop"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut demo = trefoil_at(&file("trefoil"))
        .args(["demo", "--otlp-grpc-addr", "127.0.0.1:0", "--otlp-http-addr", "127.0.0.1:0"])
        .args(["--http-addr", "127.0.0.1:0", "--data-dir"])
        .arg(file("data"))
        .spawn()
        .unwrap();
    while !file("open").exists() {
        assert!(demo.try_wait().unwrap().is_none(), "the demo ended before the shop was open");
        std::thread::sleep(Duration::from_millis(20));
    }
    let endpoint = std::fs::read_to_string(file("open")).unwrap();
    TcpStream::connect(endpoint.trim().trim_start_matches("http://")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(demo.try_wait().unwrap().is_none() && !file("closed").exists(), "the shop closed");
    run(Command::new("kill").args(["-s", "TERM", &demo.id().to_string()]));
    assert!(demo.wait().unwrap().success());
    assert!(file("closed").exists(), "the shop goes on without the demo");
}
