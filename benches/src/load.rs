//! Sends requests over a few connections, as fast as they are answered.

use crate::client::{Answer, Client};
use crate::corpus::Requests;
use crate::stats::Times;
use anyhow::bail;
use bytes::Bytes;
use hyper::StatusCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections that send at once.
pub const CONNECTIONS: usize = 4;

/// How it went.
pub struct Load {
    pub wall: Duration,
    /// From the first try of a request to its acknowledgement.
    pub acknowledged: Times,
    /// Answers that asked to send again later.
    pub refused: u64,
}

/// Sends everything once. Requests of several signals are mixed so that all end together.
pub async fn send(addr: SocketAddr, signals: &[&Requests]) -> anyhow::Result<Load> {
    let mut order: Vec<(f64, &'static str, Bytes)> = Vec::new();
    for requests in signals {
        let count = requests.bodies.len() as f64;
        order.extend(
            requests
                .bodies
                .iter()
                .enumerate()
                .map(|(number, body)| ((number as f64 + 0.5) / count, requests.path, body.clone())),
        );
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (order, next) = (Arc::new(order), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(addr).await?);
    }
    let started = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let (order, next) = (order.clone(), next.clone());
            tokio::spawn(async move {
                let (mut times, mut refused) = (Vec::new(), 0);
                while let Some((_, path, body)) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let asked = Instant::now();
                    refused += deliver(&mut client, path, body).await?;
                    times.push(asked.elapsed());
                }
                anyhow::Ok((times, refused))
            })
        })
        .collect();
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for task in tasks {
        let (times, of_task) = task.await??;
        acknowledged.extend(times);
        refused += of_task;
    }
    Ok(Load { wall: started.elapsed(), acknowledged: Times::new(acknowledged), refused })
}

/// Sends until it is taken; returns how often it was refused.
async fn deliver(client: &mut Client, path: &str, body: &Bytes) -> anyhow::Result<u64> {
    for refused in 0..600 {
        let answer = client.post(path, "application/x-protobuf", body.clone()).await?;
        match answer.status {
            StatusCode::OK if answer.body.is_empty() => return Ok(refused),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                tokio::time::sleep(answer.retry_after.unwrap_or(Duration::from_secs(1))).await;
            }
            _ => bail!("{path} answered {}: {}", answer.status, shown(&answer)),
        }
    }
    bail!("{path} was refused for ten minutes")
}

fn shown(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).chars().filter(|c| !c.is_control()).take(200).collect()
}
