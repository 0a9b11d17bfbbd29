//! Turns a basket into an order: prices from the catalog, money from payment, word to notifications.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use futures::future::try_join_all;
use http::StatusCode;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, KeyValue};
use serde::{Deserialize, Serialize};

use crate::catalog::Product;
use crate::kit::answer::Refusal;
use crate::kit::client::{Call, CallError, Client};
use crate::kit::instruments::TracedCounter;
use crate::kit::queue::{ORDERS, QueueClient};
use crate::kit::{Kit, server};
use crate::payment::{Charge, IDEMPOTENCY_KEY, Receipt};
use crate::shop::Service;

/// Different products in one basket; each costs a call to the catalog.
const ITEMS_MAX: usize = 20;

/// What a customer wants.
#[derive(Debug, Serialize, Deserialize)]
pub struct Basket {
    pub customer: String,
    pub card: String,
    pub items: Vec<Item>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    pub sku: String,
    pub quantity: u32,
}

/// What a customer gets; also the message on the queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub order_id: String,
    pub customer: String,
    pub items: Vec<Item>,
    pub total_cents: u64,
    pub payment_id: String,
}

struct Checkout {
    client: Client,
    queue: QueueClient,
    orders: TracedCounter,
    revenue: TracedCounter,
}

pub fn router(kit: &Kit) -> Router {
    let checkout = Arc::new(Checkout {
        client: kit.client.clone(),
        queue: kit.queue(),
        orders: kit.instruments.counter("shop.orders", "{order}", "Orders, by outcome."),
        revenue: kit.instruments.counter(
            "shop.revenue",
            "{cent}",
            "Money taken for placed orders, in cents.",
        ),
    });
    let routes = Router::new().route("/orders", post(place));
    server::traced(kit, routes.with_state(checkout))
}

async fn place(
    State(checkout): State<Arc<Checkout>>,
    Json(basket): Json<Basket>,
) -> Result<(StatusCode, Json<Order>), Refusal> {
    let outcome = checkout.place(basket).await;
    let label = match &outcome {
        Ok(_) => "placed",
        Err(refusal) if refusal.status == StatusCode::PAYMENT_REQUIRED => "declined",
        Err(refusal) if refusal.status.is_client_error() => "invalid",
        Err(_) => "failed",
    };
    checkout.orders.add(1, &[KeyValue::new("shop.outcome", label)]);
    outcome.map(|order| (StatusCode::CREATED, Json(order)))
}

impl Checkout {
    async fn place(&self, basket: Basket) -> Result<Order, Refusal> {
        if basket.items.is_empty() || basket.items.len() > ITEMS_MAX {
            let message = format!("a basket holds 1 to {ITEMS_MAX} items");
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_basket", message));
        }
        let order_id = format!("order-{:012x}", rand::random::<u64>() >> 16);
        let context = Context::current();
        let span = context.span();
        span.set_attributes([
            KeyValue::new("shop.order.id", order_id.clone()),
            KeyValue::new("shop.order.items", basket.items.len() as i64),
            KeyValue::new("enduser.pseudo.id", basket.customer.clone()),
        ]);

        let total_cents = self.price(&basket.items).await.map_err(CallError::into_refusal)?;
        span.add_event("priced", vec![KeyValue::new("shop.order.total_cents", total_cents as i64)]);
        let receipt = match self.pay(&order_id, &basket.card, total_cents).await {
            Ok(receipt) => receipt,
            Err(error) => {
                let refusal = error.into_refusal();
                if refusal.status.is_server_error() {
                    tracing::error!(
                        name: "order.failed",
                        { shop.order.id = order_id },
                        "order {order_id} could not be placed: {refusal}"
                    );
                } else {
                    tracing::warn!(
                        name: "order.refused",
                        { shop.order.id = order_id },
                        "order {order_id} refused: {refusal}"
                    );
                }
                return Err(refusal);
            }
        };
        let order = Order {
            order_id,
            customer: basket.customer,
            items: basket.items,
            total_cents,
            payment_id: receipt.payment_id,
        };
        self.announce(&order).await;
        self.revenue.add(order.total_cents, &[]);
        tracing::info!(
            name: "order.placed",
            {
                shop.order.id = order.order_id,
                shop.order.total_cents = order.total_cents,
                shop.payment.bank = receipt.bank,
            },
            "order {} placed: {} items for {}",
            order.order_id,
            order.items.len(),
            euros(order.total_cents)
        );
        Ok(order)
    }

    /// Asks the catalog for all prices at once.
    async fn price(&self, items: &[Item]) -> Result<u64, CallError> {
        let prices = items.iter().map(|item| async {
            let path = format!("/products/{}", item.sku);
            let call = Call::get(Service::Catalog, "/products/{sku}", path);
            let product: Product = self.client.send(call).await?;
            Ok(product.price_cents.saturating_mul(u64::from(item.quantity)))
        });
        let prices = try_join_all(prices).await?;
        Ok(prices.into_iter().fold(0, u64::saturating_add))
    }

    async fn pay(&self, order_id: &str, card: &str, cents: u64) -> Result<Receipt, CallError> {
        let charge =
            Charge { order_id: order_id.to_owned(), card: card.to_owned(), amount_cents: cents };
        let call = Call::post(Service::Payment, "/payments", "/payments".to_owned(), &charge);
        self.client.send(call.header(IDEMPOTENCY_KEY, order_id)).await
    }

    /// The order stands even if nobody can be told: the money is taken. The log keeps what was lost.
    async fn announce(&self, order: &Order) {
        if let Err(error) = self.queue.send(ORDERS, order).await {
            tracing::error!(
                name: "order.not_announced",
                { shop.order.id = order.order_id },
                "order {} is placed, but its confirmation is lost: {error}",
                order.order_id
            );
        }
    }
}

/// Cents as people read them.
pub fn euros(cents: u64) -> String {
    format!("{}.{:02} EUR", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::euros;

    #[test]
    fn cents_are_written_with_two_digits() {
        assert_eq!(
            [euros(5), euros(12_900), euros(123_456)],
            ["0.05 EUR", "129.00 EUR", "1234.56 EUR"]
        );
    }
}
