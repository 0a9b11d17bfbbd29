//! The broker: a small process that keeps messages between services, over HTTP.

mod broker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::kit::answer::Refusal;
use crate::kit::queue::{Acknowledge, Acknowledged, Message, Publication, Published, Receive};
use crate::kit::{Kit, server};
use broker::{CAPACITY, Depth, Queue};

/// The longest a receiver may wait.
const WAIT_MAX: Duration = Duration::from_secs(20);

struct Broker {
    queues: Mutex<BTreeMap<String, Queue>>,
    /// Rung at every publication, on any queue.
    published: Notify,
    stop: CancellationToken,
}

pub fn router(kit: &Kit) -> Router {
    let broker = Arc::new(Broker {
        queues: Mutex::default(),
        published: Notify::new(),
        stop: kit.stop.clone(),
    });
    observe(kit.instruments.meter(), &broker);
    // A receive mostly waits; as spans and durations those waits would hide the work.
    let receive = Router::new().route("/queues/{queue}/receive", post(receive));
    let work = Router::new()
        .route("/queues/{queue}/messages", post(publish))
        .route("/queues/{queue}/ack", post(acknowledge));
    server::traced(kit, work.with_state(broker.clone())).merge(receive.with_state(broker))
}

impl Broker {
    fn queues(&self) -> MutexGuard<'_, BTreeMap<String, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn publish(
    State(broker): State<Arc<Broker>>,
    Path(queue): Path<String>,
    Json(publication): Json<Publication>,
) -> Result<(StatusCode, Json<Published>), Refusal> {
    let id = broker.queues().entry(queue.clone()).or_default().publish(publication, Instant::now());
    let Some(id) = id else {
        tracing::error!(
            name: "queue.full",
            { messaging.destination.name = queue },
            "queue {queue} is full: {CAPACITY} messages wait or are being handled"
        );
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "queue_full",
            format!("queue {queue} holds {CAPACITY} messages and takes no more"),
        ));
    };
    broker.published.notify_waiters();
    Ok((StatusCode::CREATED, Json(Published { id })))
}

async fn receive(
    State(broker): State<Arc<Broker>>,
    Path(queue): Path<String>,
    Json(ask): Json<Receive>,
) -> Json<Vec<Message>> {
    let wait = Duration::from_millis(ask.wait_ms).min(WAIT_MAX);
    let patience = tokio::time::sleep(wait);
    tokio::pin!(patience);
    loop {
        // Asked for before looking, so that a publication in between is not missed.
        let published = broker.published.notified();
        let messages =
            broker.queues().entry(queue.clone()).or_default().receive(ask.max, Instant::now());
        if !messages.is_empty() {
            return Json(messages);
        }
        tokio::select! {
            () = published => {}
            () = &mut patience => return Json(Vec::new()),
            () = broker.stop.cancelled() => return Json(Vec::new()),
        }
    }
}

async fn acknowledge(
    State(broker): State<Arc<Broker>>,
    Path(queue): Path<String>,
    Json(done): Json<Acknowledge>,
) -> Json<Acknowledged> {
    let count = broker.queues().get_mut(&queue).map_or(0, |queue| queue.acknowledge(&done.ids));
    if count < done.ids.len() {
        tracing::warn!(
            name: "queue.late_ack",
            { messaging.destination.name = queue },
            "{} of {} acknowledged messages were no longer leased",
            done.ids.len() - count,
            done.ids.len()
        );
    }
    Json(Acknowledged { count })
}

/// Registers the depth of every queue and how long its first message has waited.
fn observe(meter: &Meter, broker: &Arc<Broker>) {
    let depths = |broker: &Arc<Broker>| -> Vec<(KeyValue, Depth)> {
        let now = Instant::now();
        let name = |name: &String| KeyValue::new("messaging.destination.name", name.clone());
        broker.queues().iter().map(|(queue, held)| (name(queue), held.depth(now))).collect()
    };
    let observed = broker.clone();
    meter
        .u64_observable_gauge("shop.queue.depth")
        .with_unit("{message}")
        .with_description("Messages in the queue, waiting or handed out and not yet acknowledged.")
        .with_callback(move |observer| {
            for (queue, depth) in depths(&observed) {
                let state = |state| [queue.clone(), KeyValue::new("shop.queue.state", state)];
                observer.observe(depth.ready as u64, &state("ready"));
                observer.observe(depth.leased as u64, &state("leased"));
            }
        })
        .build();
    let observed = broker.clone();
    meter
        .f64_observable_gauge("shop.queue.oldest_age")
        .with_unit("s")
        .with_description("How long the first ready message has waited.")
        .with_callback(move |observer| {
            for (queue, depth) in depths(&observed) {
                observer.observe(depth.oldest.as_secs_f64(), &[queue]);
            }
        })
        .build();
}
