//! Kill the server at random moments under load, start it again, over and over: every acknowledged record is there
//! exactly once, and a request is there whole or not at all.

mod common;

use common::senders::Senders;
use common::{Server, rounds, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;
use tokio::task::block_in_place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_being_killed_exactly_once() {
    let mut random = StdRng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    // Recent rows are sealed every half second, so that kills also hit seals, merges and the start after them.
    let settings = ["--seal-age", "500ms"];
    let mut server = Server::start_with(dir.path(), &settings);
    let senders = Senders::start(&server);
    for round in 0..rounds("KILLS", 20, 1000) {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..1500))).await;
        server.kill();
        server = block_in_place(|| Server::start_with(dir.path(), &settings));
        senders.moved_to(&server);
        if round % 10 == 9 {
            server.books().await.unwrap();
        }
    }
    let sent = senders.finish().await;
    eprintln!("{} requests acknowledged", sent.count());
    // Once as it is after the last crash, once from sealed files.
    sent.compare(&server).await.unwrap();
    server.stop();
    sent.compare(&block_in_place(|| Server::start(dir.path()))).await.unwrap();
}
