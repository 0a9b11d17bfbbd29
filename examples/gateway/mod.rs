//! The door of the shop: customers' requests go to the service that answers them.

mod scenarios;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, KeyValue};
use serde_json::Value;

use crate::checkout::{Basket, Order};
use crate::kit::answer::Refusal;
use crate::kit::client::{Call, CallError, Client};
use crate::kit::{Kit, server};
use crate::shop::Service;
pub use scenarios::Listed;

/// Names the customer's visit; its value becomes `session.id`.
pub const SESSION: &str = "x-session-id";

pub fn router(kit: &Kit) -> Router {
    let gateway = Arc::new(Gateway { client: kit.client.clone() });
    let routes = Router::new()
        .route("/api/products", get(products))
        .route("/api/products/{sku}", get(product))
        .route("/api/search", get(search))
        .route("/api/checkout", post(checkout));
    server::traced(kit, routes.with_state(gateway)).merge(scenarios::router(kit.client.clone()))
}

struct Gateway {
    client: Client,
}

type Answer = Result<Json<Value>, Refusal>;

impl Gateway {
    async fn pass_on(&self, headers: &HeaderMap, call: Call<'_>) -> Answer {
        note_session(headers);
        self.client.send(call).await.map(Json).map_err(refuse)
    }
}

async fn products(
    State(gateway): State<Arc<Gateway>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    let page = query.get("page").map_or("0", String::as_str);
    let path = format!("/products?page={}", encoded(page));
    gateway.pass_on(&headers, Call::get(Service::Catalog, "/products", path)).await
}

async fn product(
    State(gateway): State<Arc<Gateway>>,
    Path(sku): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let path = format!("/products/{}", encoded(&sku));
    gateway.pass_on(&headers, Call::get(Service::Catalog, "/products/{sku}", path)).await
}

async fn search(
    State(gateway): State<Arc<Gateway>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    let words = query.get("q").map_or("", String::as_str);
    let path = format!("/search?q={}", encoded(words));
    gateway.pass_on(&headers, Call::get(Service::Catalog, "/search", path)).await
}

async fn checkout(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    Json(basket): Json<Basket>,
) -> Result<(StatusCode, Json<Order>), Refusal> {
    note_session(&headers);
    let call = Call::post(Service::Checkout, "/orders", "/orders".to_owned(), &basket);
    let order = gateway.client.send(call).await.map_err(refuse)?;
    Ok((StatusCode::CREATED, Json(order)))
}

fn note_session(headers: &HeaderMap) {
    if let Some(session) = headers.get(SESSION).and_then(|session| session.to_str().ok()) {
        let session = KeyValue::new("session.id", session.to_owned());
        Context::current().span().set_attribute(session);
    }
}

fn refuse(error: CallError) -> Refusal {
    let refusal = error.into_refusal();
    if refusal.status.is_server_error() {
        tracing::error!(
            name: "request.failed",
            { http.response.status_code = refusal.status.as_u16() },
            "a customer's request failed: {refusal}"
        );
    }
    refusal
}

/// Percent-encodes everything but letters, digits, `-`, `.`, `_` and `~`.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn what_a_customer_types_cannot_change_the_path() {
        assert_eq!(encoded("blue rug/../x?y=ü"), "blue%20rug%2F..%2Fx%3Fy%3D%C3%BC");
    }
}
