//! Charges cards through the card network, each order at most once.

mod keys;
mod network;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use serde::{Deserialize, Serialize};

use crate::kit::answer::Refusal;
use crate::kit::instruments::{TracedCounter, TracedHistogram};
use crate::kit::switches::Switches;
use crate::kit::{Kit, server};
use crate::shop::{FAILING_PAYMENT, SLOW_PAYMENT};
use keys::Keys;
use network::{ATLAS, Bank, Behaviour, NORTHBANK, Verdict};

/// Above this an authorisation is worth a line in the log.
const SLOW: Duration = Duration::from_millis(300);

pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A request for money.
#[derive(Debug, Serialize, Deserialize)]
pub struct Charge {
    pub order_id: String,
    pub card: String,
    pub amount_cents: u64,
}

/// Proof that the money was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receipt {
    pub payment_id: String,
    pub bank: String,
}

struct Payment {
    switches: Arc<Switches>,
    tracer: BoxedTracer,
    keys: Keys<Receipt>,
    attempts: TracedCounter,
    authorization: TracedHistogram,
}

pub fn router(kit: &Kit) -> Router {
    let payment = Arc::new(Payment {
        switches: kit.switches.clone(),
        tracer: kit.tracer(),
        keys: Keys::default(),
        attempts: kit.instruments.counter(
            "shop.payments",
            "{payment}",
            "Requests for money, by bank and outcome.",
        ),
        authorization: kit.instruments.duration(
            "shop.payment.authorization.duration",
            "How long a bank took to authorise a card.",
        ),
    });
    let routes = Router::new().route("/payments", post(charge));
    server::traced(kit, routes.with_state(payment))
}

async fn charge(
    State(payment): State<Arc<Payment>>,
    headers: HeaderMap,
    Json(charge): Json<Charge>,
) -> Result<(StatusCode, Json<Receipt>), Refusal> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()) else {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "no_idempotency_key",
            "a charge needs an Idempotency-Key header, so that a repeated request charges once",
        ));
    };
    let bank = network::bank_of(&charge.card);
    Context::current().span().set_attributes([
        KeyValue::new("shop.order.id", charge.order_id.clone()),
        KeyValue::new("shop.payment.bank", bank.name),
        KeyValue::new("shop.payment.amount_cents", charge.amount_cents as i64),
    ]);
    if let Some(receipt) = payment.keys.get(key) {
        tracing::info!(
            name: "payment.repeated",
            { shop.order.id = charge.order_id },
            "payment for order {} repeated: answered from the first time",
            charge.order_id
        );
        return Ok((StatusCode::OK, Json(receipt)));
    }
    let receipt = payment.authorize(bank, &charge).await?;
    payment.keys.put(key, receipt.clone());
    Ok((StatusCode::CREATED, Json(receipt)))
}

impl Payment {
    fn behaviour(&self, bank: &Bank) -> Behaviour {
        if bank.name == NORTHBANK.name && self.switches.on(SLOW_PAYMENT) {
            Behaviour { median: Duration::from_millis(950), ..bank.healthy }
        } else if bank.name == ATLAS.name && self.switches.on(FAILING_PAYMENT) {
            Behaviour { unavailable: 0.7, ..bank.healthy }
        } else {
            bank.healthy
        }
    }

    /// Asks the bank for the money, within a client span: the bank is a system of its own.
    async fn authorize(&self, bank: &Bank, charge: &Charge) -> Result<Receipt, Refusal> {
        let host = format!("{}.cards.example", bank.name);
        let span = self
            .tracer
            .span_builder("POST /authorizations")
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("url.template", "/authorizations"),
                KeyValue::new("url.full", format!("https://{host}/authorizations")),
                KeyValue::new("server.address", host),
                KeyValue::new("server.port", 443),
                KeyValue::new("shop.payment.bank", bank.name),
            ])
            .start(&self.tracer);
        let context = Context::current_with_span(span);
        let outcome = async {
            let started = Instant::now();
            let (verdict, takes) = network::draw(self.behaviour(bank), &mut rand::rng());
            tokio::time::sleep(takes).await;
            self.conclude(bank, charge, verdict, started.elapsed())
        };
        outcome.with_context(context).await
    }

    /// Records what the bank said, in all three signals, and turns it into an answer.
    fn conclude(
        &self,
        bank: &Bank,
        charge: &Charge,
        verdict: Verdict,
        took: Duration,
    ) -> Result<Receipt, Refusal> {
        let context = Context::current();
        let span = context.span();
        let order = &charge.order_id;
        let labels = |outcome| {
            [KeyValue::new("shop.payment.bank", bank.name), KeyValue::new("shop.outcome", outcome)]
        };
        self.authorization.record(took.as_secs_f64(), &labels("answered")[..1]);
        let status = |code: i64| KeyValue::new("http.response.status_code", code);
        if took >= SLOW {
            tracing::warn!(
                name: "payment.slow",
                {
                    shop.order.id = order,
                    shop.payment.bank = bank.name,
                    shop.payment.took_ms = took.as_millis() as u64,
                },
                "payment for order {order} is slow: bank {} took {} ms to authorise the card",
                bank.name,
                took.as_millis()
            );
        }
        match verdict {
            Verdict::Authorized => {
                span.set_attribute(status(201));
                self.attempts.add(1, &labels("authorized"));
                let payment_id = format!("pay-{:016x}", rand::random::<u64>());
                tracing::info!(
                    name: "payment.authorized",
                    {
                        shop.order.id = order,
                        shop.payment.bank = bank.name,
                        shop.payment.amount_cents = charge.amount_cents,
                    },
                    "payment {payment_id} authorised by {} for order {order}",
                    bank.name
                );
                Ok(Receipt { payment_id, bank: bank.name.to_owned() })
            }
            Verdict::Declined => {
                span.set_attribute(status(402));
                self.attempts.add(1, &labels("declined"));
                tracing::warn!(
                    name: "payment.declined",
                    { shop.order.id = order, shop.payment.bank = bank.name },
                    "payment for order {order} declined by {}: not enough money on the card",
                    bank.name
                );
                Err(Refusal::new(
                    StatusCode::PAYMENT_REQUIRED,
                    "card_declined",
                    format!("the card was declined by {}", bank.name),
                ))
            }
            Verdict::Unavailable => {
                let error = BankUnavailable { bank: bank.name };
                span.set_attributes([status(503), KeyValue::new("error.type", "503")]);
                span.add_event(
                    "exception",
                    vec![
                        KeyValue::new("exception.type", "BankUnavailable"),
                        KeyValue::new("exception.message", error.to_string()),
                    ],
                );
                span.set_status(Status::error(error.to_string()));
                self.attempts.add(1, &labels("unavailable"));
                tracing::error!(
                    name: "payment.failed",
                    {
                        shop.order.id = order,
                        shop.payment.bank = bank.name,
                        "exception.type" = "BankUnavailable",
                        exception.message = %error,
                    },
                    "payment for order {order} failed: {error}"
                );
                Err(Refusal::new(StatusCode::BAD_GATEWAY, "bank_unavailable", error.to_string()))
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("bank {bank} answered 503, card network unavailable")]
struct BankUnavailable {
    bank: &'static str,
}
