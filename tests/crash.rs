//! Kill the server at random moments under load, start it again, over and over: every acknowledged record is there
//! exactly once, and a request is there whole or not at all.

mod common;

use common::senders::Senders;
use common::{Server, rounds, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;
use tokio::task::block_in_place;

/// So many kills go on with one data directory; then a new one keeps the comparisons short.
const KILLS_OF_ONE: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_being_killed_exactly_once() {
    let mut random = StdRng::seed_from_u64(seed());
    let kills = rounds("KILLS", 60, 1000);
    let mut acknowledged = 0;
    for first in (0..kills).step_by(KILLS_OF_ONE as usize) {
        acknowledged += kills_of_one(KILLS_OF_ONE.min(kills - first), &mut random).await;
    }
    eprintln!("{kills} kills, {acknowledged} requests acknowledged, 0 lost");
}

/// Kills a server again and again; returns how many requests were acknowledged.
async fn kills_of_one(kills: u64, random: &mut StdRng) -> usize {
    let dir = tempfile::tempdir().unwrap();
    // Recent rows are sealed every half second, so that kills also hit seals, merges and the start after them.
    let settings = ["--seal-age", "500ms"];
    let mut server = Server::start_with(dir.path(), &settings);
    let senders = Senders::start(&server);
    for round in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..1500))).await;
        server.kill();
        server = block_in_place(|| Server::start_with(dir.path(), &settings));
        senders.moved_to(&server);
        if round % 10 == 9 {
            server.books().await.unwrap();
        }
    }
    let sent = senders.finish().await;
    // Once as it is after the last crash, once from sealed files.
    sent.compare(&server).await.unwrap();
    server.stop();
    sent.compare(&block_in_place(|| Server::start(dir.path()))).await.unwrap();
    sent.count()
}
