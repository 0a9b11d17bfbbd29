//! The walk the product is made for, metric to trace to log line, on the real shop under load: once by the script,
//! once in a real browser.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::Server;
use common::shop::Shop;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end; its output, and whether it succeeded.
fn outcome(command: &mut Command) -> (String, bool) {
    let output = command.output().expect("the program starts");
    let words = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&words).into_owned(), output.status.success())
}

async fn switch(shop: &Shop, scenario: &str, on: bool) {
    let url = format!("{}/scenarios/{scenario}", shop.url());
    let give_up = Instant::now() + Duration::from_secs(60);
    let body = serde_json::json!({ "on": on });
    // The gateway may just be starting.
    while !reqwest::Client::new()
        .put(&url)
        .json(&body)
        .send()
        .await
        .is_ok_and(|a| a.status() == 200)
    {
        assert!(Instant::now() < give_up, "{url} does not answer");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_walks_from_a_metric_to_the_log_line_that_names_the_slow_bank() {
    let script = root().join("examples/scripts/walk.py");
    let data_dir = tempfile::tempdir().unwrap();
    let server = Server::start(data_dir.path());
    let walk = |arguments: &[&str]| {
        outcome(Command::new("python3").arg(&script).args(["--base", &server.http]).args(arguments))
    };

    let (words, success) = walk(&[]);
    assert!(!success && words.contains("is the shop running"), "an empty server says so: {words}");

    let shop = Shop::open(&server.otlp_grpc);
    switch(&shop, "slow-payment", true).await;
    // Started at `payment`: on a busy machine the other services have slow requests of their own.
    let to_the_bank = |words: &str| {
        let marked = |what: &str| {
            words.lines().any(|line| line.trim_start().starts_with("->") && line.contains(what))
        };
        marked("payment: POST /authorizations") && marked("is slow: bank northbank took")
    };
    let give_up = Instant::now() + Duration::from_secs(120);
    loop {
        let (words, success) = walk(&["--service", "payment", "--range", "1m"]);
        if success && to_the_bank(&words) {
            break;
        }
        assert!(Instant::now() < give_up, "the walk never led to the slow bank:\n{words}");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let (words, success) = walk(&[]);
    assert!(success, "from the highest p99 it leads somewhere, too: {words}");
    drop(shop);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_walks_from_the_overview_to_the_log_line_clicking_only_links() {
    browse("walk.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_whole_and_can_be_used_by_keyboard() {
    browse("pages.mjs").await;
}

/// Runs a script of `tests/browser` against a server and a shop of its own.
async fn browse(script: &str) {
    needs(&root().join("tests/browser/node_modules"), "make test-setup");
    needs(&root().join("ui/dist/index.html"), "make ui");
    let data_dir = tempfile::tempdir().unwrap();
    let server = Server::start(data_dir.path());
    let shop = Shop::open(&server.otlp_grpc);
    switch(&shop, "slow-payment", false).await;
    let (words, success) = outcome(
        Command::new("node")
            .arg(root().join("tests/browser").join(script))
            .arg(&server.http)
            .env("SHOP_URL", shop.url()),
    );
    println!("{words}");
    assert!(success, "{words}");
    drop(shop);
    server.stop();
}

fn needs(path: &Path, target: &str) {
    assert!(path.exists(), "{} is missing: run `{target}` first", path.display());
}
