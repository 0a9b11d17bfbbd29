//! Takes orders from the queue and writes each customer a confirmation, once.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use opentelemetry::KeyValue;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{SpanKind, TraceContextExt as _, Tracer as _};
use tokio_util::sync::CancellationToken;

use crate::checkout::{Order, euros};
use crate::kit::Kit;
use crate::kit::instruments::TracedCounter;
use crate::kit::queue::{ORDERS, QueueClient};

/// Orders remembered to know a repeated message.
const REMEMBERED_MAX: usize = 20_000;
/// Pause after the broker could not be reached.
const PAUSE: Duration = Duration::from_millis(500);

/// Starts the consumer; the service has no routes of its own beside the control endpoint.
pub fn router(kit: &Kit) -> Router {
    let notifications = Notifications {
        queue: kit.queue(),
        tracer: kit.tracer(),
        sent: kit.instruments.counter(
            "shop.notifications",
            "{notification}",
            "Order confirmations, by outcome.",
        ),
        told: Mutex::default(),
    };
    tokio::spawn(notifications.run(kit.stop.clone()));
    Router::new()
}

struct Notifications {
    queue: QueueClient,
    tracer: BoxedTracer,
    sent: TracedCounter,
    told: Mutex<Told>,
}

/// The orders whose customers know, the oldest first.
#[derive(Default)]
struct Told {
    orders: HashSet<String>,
    order: VecDeque<String>,
}

impl Told {
    /// Notes the order; false if it was noted before.
    fn note(&mut self, order_id: &str) -> bool {
        if !self.orders.insert(order_id.to_owned()) {
            return false;
        }
        self.order.push_back(order_id.to_owned());
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.orders.remove(&oldest);
        }
        true
    }
}

/// Processing an order cannot fail today; the type is what `process` asks for.
#[derive(Debug, thiserror::Error)]
#[error("the confirmation could not be written")]
struct NotWritten(#[from] std::fmt::Error);

impl Notifications {
    async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let messages = tokio::select! {
                messages = self.queue.receive(ORDERS) => messages,
                () = stop.cancelled() => return,
            };
            let messages = match messages {
                Ok(messages) => messages,
                Err(error) => {
                    tracing::warn!(name: "queue.unreachable", "no messages: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let mut done = Vec::with_capacity(messages.len());
            for message in messages {
                if self.queue.process(ORDERS, &message, |order| self.notify(order)).await {
                    done.push(message);
                }
            }
            if !done.is_empty()
                && let Err(error) = self.queue.acknowledge(ORDERS, &done).await
            {
                tracing::warn!(
                    name: "queue.not_acknowledged",
                    "{} messages will come again: {error}",
                    done.len()
                );
            }
        }
    }

    async fn notify(&self, order: Order) -> Result<(), NotWritten> {
        let first = self.told.lock().unwrap_or_else(PoisonError::into_inner).note(&order.order_id);
        let outcome = if first {
            let letter = self.write(&order)?;
            tracing::info!(
                name: "notification.sent",
                { shop.order.id = order.order_id, shop.notification.bytes = letter.len() },
                "confirmation of order {} written to {}",
                order.order_id,
                order.customer
            );
            "sent"
        } else {
            tracing::info!(
                name: "notification.repeated",
                { shop.order.id = order.order_id },
                "order {} came again; its customer knows already",
                order.order_id
            );
            "repeated"
        };
        self.sent.add(1, &[KeyValue::new("shop.outcome", outcome)]);
        Ok(())
    }

    fn write(&self, order: &Order) -> Result<String, std::fmt::Error> {
        let builder = self.tracer.span_builder("write confirmation").with_kind(SpanKind::Internal);
        self.tracer.in_span_with_builder(builder, |context| {
            let letter = letter(order)?;
            let bytes = KeyValue::new("shop.notification.bytes", letter.len() as i64);
            context.span().set_attribute(bytes);
            Ok(letter)
        })
    }
}

fn letter(order: &Order) -> Result<String, std::fmt::Error> {
    let mut letter = String::with_capacity(512);
    writeln!(letter, "Dear {},\n\nthank you for {}:", order.customer, order.order_id)?;
    for item in &order.items {
        writeln!(letter, "  {:3} x {}", item.quantity, item.sku)?;
    }
    write!(letter, "\nTogether {}, paid with {}.", euros(order.total_cents), order.payment_id)?;
    Ok(letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout::Item;

    #[test]
    fn a_letter_lists_what_was_bought() {
        let order = Order {
            order_id: "order-1".into(),
            customer: "ada".into(),
            items: vec![Item { sku: "rug-wool-blue".into(), quantity: 2 }],
            total_cents: 36_800,
            payment_id: "pay-1".into(),
        };
        assert_eq!(
            letter(&order).unwrap(),
            "Dear ada,\n\nthank you for order-1:\n    2 x rug-wool-blue\n\nTogether 368.00 EUR, paid with pay-1."
        );
    }

    #[test]
    fn an_order_is_told_once() {
        let mut told = Told::default();
        assert!(told.note("a"));
        assert!(!told.note("a"));
        for n in 0..REMEMBERED_MAX {
            told.note(&n.to_string());
        }
        assert!(told.note("a"), "forgotten after {REMEMBERED_MAX} others");
    }
}
