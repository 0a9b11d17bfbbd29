//! The client of the queue: messages carry the publisher's trace in their headers.
//!
//! Names follow the semantic conventions for messaging: a producer span `send Q`, a consumer span `process Q` for
//! each message, whose parent is the producer's span, and a span `ack Q` per batch that links to each of them.

use std::time::{Duration, Instant};

use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::trace::{
    FutureExt as _, Link, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::client::{Call, CallError, Client};
use super::instruments::{Instruments, TracedCounter, TracedHistogram};
use super::propagation::{self, MessageHeaders};
use crate::shop::Service;

/// The queue on which checkout tells of new orders.
pub const ORDERS: &str = "orders";

/// How long an idle receiver waits for a message before it asks again.
const POLL: Duration = Duration::from_secs(2);
/// Messages per receive.
const BATCH: usize = 10;
const SYSTEM: &str = "shop-queue";

/// A message on its way in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Publication {
    pub headers: MessageHeaders,
    pub body: serde_json::Value,
}

/// The broker's answer to a publication.
#[derive(Debug, Serialize, Deserialize)]
pub struct Published {
    pub id: u64,
}

/// What a receiver asks for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Receive {
    /// At most so many messages.
    pub max: usize,
    /// How long to wait for the first one.
    pub wait_ms: u64,
}

/// A message on its way out. It returns to the queue unless it is acknowledged within the broker's lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    pub id: u64,
    pub headers: MessageHeaders,
    pub body: serde_json::Value,
    /// 1 at the first delivery.
    pub delivery: u32,
    /// How long it had waited when it was handed out.
    pub waited_ms: u64,
}

/// Messages a receiver is done with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Acknowledge {
    pub ids: Vec<u64>,
}

/// How many of them the broker still held for this receiver.
#[derive(Debug, Serialize, Deserialize)]
pub struct Acknowledged {
    pub count: usize,
}

#[derive(Clone)]
pub struct QueueClient {
    client: Client,
    tracer: std::sync::Arc<BoxedTracer>,
    sent: TracedCounter,
    consumed: TracedCounter,
    process: TracedHistogram,
}

impl QueueClient {
    pub fn new(client: Client, service: Service, instruments: &Instruments) -> Self {
        Self {
            client,
            tracer: std::sync::Arc::new(global::tracer(service.name())),
            sent: instruments.counter(
                "messaging.client.sent.messages",
                "{message}",
                "Number of messages producer attempted to send to the broker.",
            ),
            consumed: instruments.counter(
                "messaging.client.consumed.messages",
                "{message}",
                "Number of messages that were delivered to the application.",
            ),
            process: instruments
                .duration("messaging.process.duration", "Duration of processing operation."),
        }
    }

    /// Puts a message into the queue; returns once the broker has it.
    pub async fn send<T: Serialize>(
        &self,
        queue: &'static str,
        message: &T,
    ) -> Result<u64, CallError> {
        let span = self
            .tracer
            .span_builder(format!("send {queue}"))
            .with_kind(SpanKind::Producer)
            .with_attributes(operation(queue, "send", "send"))
            .start(&*self.tracer);
        let context = Context::current_with_span(span);
        let mut headers = MessageHeaders::new();
        propagation::into_message(&context, &mut headers);
        let body = serde_json::to_value(message)
            .map_err(|source| CallError::Unreadable { peer: Service::Queue, source })?;
        let publication = Publication { headers, body };
        let outcome = self
            .client
            .send::<Published>(Call::post(
                Service::Queue,
                "/queues/{queue}/messages",
                format!("/queues/{queue}/messages"),
                &publication,
            ))
            .with_context(context.clone())
            .await;
        let mut measured = measured(queue, "send");
        match &outcome {
            Ok(published) => {
                let id = published.id.to_string();
                context.span().set_attribute(KeyValue::new("messaging.message.id", id));
            }
            Err(error) => {
                context.span().set_status(Status::error(error.to_string()));
                measured.push(KeyValue::new("error.type", "send_failed"));
            }
        }
        let _guard = context.clone().attach();
        self.sent.add(1, &measured);
        outcome.map(|published| published.id)
    }

    /// Waits for messages. An empty answer means there were none for a while.
    pub async fn receive(&self, queue: &'static str) -> Result<Vec<Message>, CallError> {
        let ask = Receive { max: BATCH, wait_ms: POLL.as_millis() as u64 };
        let call = Call::post(
            Service::Queue,
            "/queues/{queue}/receive",
            format!("/queues/{queue}/receive"),
            &ask,
        );
        self.client.send_untraced(call.patience(POLL + Duration::from_secs(5))).await
    }

    /// Handles one message within a consumer span that continues the publisher's trace.
    ///
    /// * returns whether the message is done with and may be acknowledged.
    pub async fn process<T, E, F>(
        &self,
        queue: &'static str,
        message: &Message,
        handle: impl FnOnce(T) -> F,
    ) -> bool
    where
        T: DeserializeOwned,
        E: std::error::Error + 'static,
        F: Future<Output = Result<(), E>>,
    {
        let started = Instant::now();
        let parent = propagation::from_message(&message.headers);
        let span = self
            .tracer
            .span_builder(format!("process {queue}"))
            .with_kind(SpanKind::Consumer)
            .with_attributes(operation(queue, "process", "process").into_iter().chain([
                KeyValue::new("messaging.message.id", message.id.to_string()),
                KeyValue::new("shop.message.delivery", i64::from(message.delivery)),
                KeyValue::new("shop.message.waited_ms", message.waited_ms as i64),
            ]))
            .start_with_context(&*self.tracer, &parent);
        let context = parent.with_span(span);
        let done = match serde_json::from_value::<T>(message.body.clone()) {
            // A message that cannot be read will not get better: it is acknowledged and reported.
            Err(error) => {
                fail(&context, &error);
                true
            }
            Ok(body) => match handle(body).with_context(context.clone()).await {
                Ok(()) => true,
                Err(error) => {
                    fail(&context, &error);
                    false
                }
            },
        };
        let measured = measured(queue, "process");
        let _guard = context.clone().attach();
        self.consumed.add(1, &measured);
        self.process.record(started.elapsed().as_secs_f64(), &measured);
        done
    }

    /// Tells the broker that the messages are done with.
    pub async fn acknowledge(
        &self,
        queue: &'static str,
        messages: &[Message],
    ) -> Result<(), CallError> {
        let links = messages
            .iter()
            .map(|message| propagation::from_message(&message.headers))
            .filter(|context| context.span().span_context().is_valid())
            .map(|context| Link::with_context(context.span().span_context().clone()))
            .collect();
        let span = self
            .tracer
            .span_builder(format!("ack {queue}"))
            .with_kind(SpanKind::Client)
            .with_links(links)
            .with_attributes(
                operation(queue, "ack", "settle")
                    .into_iter()
                    .chain([KeyValue::new("messaging.batch.message_count", messages.len() as i64)]),
            )
            .start_with_context(&*self.tracer, &Context::new());
        let context = Context::new().with_span(span);
        let acknowledge = Acknowledge { ids: messages.iter().map(|message| message.id).collect() };
        let outcome = self
            .client
            .send::<Acknowledged>(Call::post(
                Service::Queue,
                "/queues/{queue}/ack",
                format!("/queues/{queue}/ack"),
                &acknowledge,
            ))
            .with_context(context.clone())
            .await;
        if let Err(error) = &outcome {
            fail(&context, error);
        }
        outcome.map(drop)
    }
}

fn fail(context: &Context, error: &(dyn std::error::Error + 'static)) {
    context.span().record_error(error);
    context.span().set_status(Status::error(error.to_string()));
}

fn operation(queue: &'static str, name: &'static str, kind: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", SYSTEM),
        KeyValue::new("messaging.destination.name", queue),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.operation.type", kind),
    ]
}

fn measured(queue: &'static str, name: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", SYSTEM),
        KeyValue::new("messaging.destination.name", queue),
        KeyValue::new("messaging.operation.name", name),
    ]
}
