//! The customers: an open-loop load on the gateway.
//!
//! Requests start at random moments (a Poisson process), whether or not earlier ones were answered, as customers
//! come to a shop. A customer's browser sends no telemetry, so neither does this: the gateway is each trace's root.

mod customer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use rand::Rng as _;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::kit::answer::Refusal;
use crate::kit::client::http_client;
use crate::kit::listen;
use crate::shop::{Addresses, Service};
use customer::Visit;

/// Enough for smooth curves, little enough to leave the machine alone.
pub const RATE_DEFAULT: f64 = 25.0;
const RATE_MAX: f64 = 1_000.0;
/// Requests under way at once; beyond that customers turn away at the door and are counted as such.
const UNDER_WAY_MAX: usize = 512;
/// How long a customer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
struct Tally {
    sent: AtomicU64,
    succeeded: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    turned_away: AtomicU64,
}

struct Traffic {
    http: Client,
    gateway: String,
    /// Requests per second, as the bits of an `f64`; changed at run time.
    rate: AtomicU64,
    under_way: Arc<Semaphore>,
    tally: Tally,
}

/// What `GET /control/traffic` shows.
#[derive(Serialize)]
struct Report {
    rate: f64,
    sent: u64,
    succeeded: u64,
    /// Answers 4xx: declined cards, unknown products.
    refused: u64,
    /// Answers 5xx, and no answer at all.
    failed: u64,
    turned_away: u64,
}

#[derive(Deserialize)]
struct Wanted {
    rate: f64,
}

/// Sends customers until the process is asked to end. `PUT /control/traffic` with `{"rate":n}` changes the rate.
pub async fn run(addresses: Addresses, rate: f64, stop: CancellationToken) -> anyhow::Result<()> {
    check(rate).map_err(|refusal| anyhow::anyhow!("--rate: {refusal}"))?;
    let listener = listen(Service::Traffic, addresses).await?;
    let traffic = Arc::new(Traffic {
        http: http_client(Service::Traffic)?,
        gateway: addresses.url(Service::Gateway),
        rate: AtomicU64::new(rate.to_bits()),
        under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
        tally: Tally::default(),
    });
    let sending = tokio::spawn(traffic.clone().send_customers(stop.clone()));
    let router =
        Router::new().route("/control/traffic", get(report).put(change)).with_state(traffic);
    println!("ready");
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
        .context("the HTTP server failed")?;
    sending.await.context("the load generator failed")
}

fn check(rate: f64) -> Result<(), Refusal> {
    if (0.0..=RATE_MAX).contains(&rate) {
        return Ok(());
    }
    let message = format!("{rate} is not a rate; use 0 to {RATE_MAX} requests per second");
    Err(Refusal::new(http::StatusCode::UNPROCESSABLE_ENTITY, "bad_rate", message))
}

async fn report(State(traffic): State<Arc<Traffic>>) -> Json<Report> {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Json(Report {
        rate: traffic.rate(),
        sent: read(&traffic.tally.sent),
        succeeded: read(&traffic.tally.succeeded),
        refused: read(&traffic.tally.refused),
        failed: read(&traffic.tally.failed),
        turned_away: read(&traffic.tally.turned_away),
    })
}

async fn change(
    state: State<Arc<Traffic>>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Report>, Refusal> {
    check(wanted.rate)?;
    state.rate.store(wanted.rate.to_bits(), Ordering::Relaxed);
    Ok(report(state).await)
}

impl Traffic {
    fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    async fn send_customers(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = pause(self.rate(), rand::rng().random());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            // No load is asked for: the pause was only to look again.
            if self.rate() == 0.0 {
                continue;
            }
            let Ok(permit) = self.under_way.clone().try_acquire_owned() else {
                self.tally.turned_away.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let traffic = self.clone();
            let visit = Visit::draw(&mut rand::rng());
            tokio::spawn(async move {
                traffic.serve(visit).await;
                drop(permit);
            });
        }
    }

    async fn serve(&self, visit: Visit) {
        self.tally.sent.fetch_add(1, Ordering::Relaxed);
        let answer = visit.request(&self.http, &self.gateway).timeout(PATIENCE).send().await;
        // The body is read to its end, so that the connection can be used again.
        let status = match answer {
            Ok(answer) => {
                let status = answer.status();
                answer.bytes().await.ok().map(|_| status)
            }
            Err(_) => None,
        };
        let count = match status {
            Some(status) if status.is_success() => &self.tally.succeeded,
            Some(status) if status.is_client_error() => &self.tally.refused,
            _ => &self.tally.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The time to the next arrival of a Poisson process.
///
/// * `uniform`: a random number in [0, 1).
fn pause(rate: f64, uniform: f64) -> Duration {
    if rate == 0.0 {
        return Duration::from_millis(200);
    }
    // At low rates the exponential distribution's tail would leave the shop empty for long.
    Duration::from_secs_f64((-(1.0 - uniform).ln() / rate).min(5.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_exponential() {
        assert_eq!(pause(10.0, 0.0), Duration::ZERO);
        // Half of the pauses are shorter than ln 2 / rate.
        assert!((pause(10.0, 0.5).as_secs_f64() - 0.069_314_7).abs() < 1e-6);
        assert_eq!(pause(0.001, 0.99), Duration::from_secs(5));
    }

    #[test]
    fn an_impossible_rate_is_refused() {
        for rate in [-1.0, f64::NAN, f64::INFINITY, 1_001.0] {
            assert!(check(rate).is_err(), "{rate}");
        }
        assert!(check(0.0).is_ok() && check(RATE_MAX).is_ok());
    }
}
