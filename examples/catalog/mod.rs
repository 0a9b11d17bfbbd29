//! Products: list, search, details. Searches are cached for a while.

mod cache;
mod products;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use opentelemetry::Context;
use opentelemetry::KeyValue;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{SpanKind, TraceContextExt as _, Tracer as _};
use serde::Deserialize;

use crate::kit::answer::Refusal;
use crate::kit::instruments::TracedCounter;
use crate::kit::{Kit, server};
use cache::Cache;
pub use products::Product;
use products::Products;

const PAGE: usize = 20;
const FOUND_MAX: usize = 20;
/// Fewer than the load's distinct searches, so that the cache is worth watching.
const CACHED_SEARCHES: usize = 24;
const CACHED_FOR: Duration = Duration::from_secs(30);

struct Catalog {
    products: Products,
    searches: Mutex<Cache<Arc<Vec<Product>>>>,
    lookups: TracedCounter,
    tracer: BoxedTracer,
}

pub fn router(kit: &Kit) -> Router {
    let catalog = Arc::new(Catalog {
        products: Products::assortment(),
        searches: Mutex::new(Cache::new(CACHED_SEARCHES, CACHED_FOR)),
        lookups: kit.instruments.counter(
            "shop.cache.lookups",
            "{lookup}",
            "Lookups in a cache, by whether they found something.",
        ),
        tracer: kit.tracer(),
    });
    let routes = Router::new()
        .route("/products", get(list))
        .route("/products/{sku}", get(details))
        .route("/search", get(search));
    server::traced(kit, routes.with_state(catalog))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    page: usize,
}

async fn list(State(catalog): State<Arc<Catalog>>, Query(page): Query<Page>) -> Json<Vec<Product>> {
    Json(catalog.products.page(page.page, PAGE))
}

async fn details(
    State(catalog): State<Arc<Catalog>>,
    Path(sku): Path<String>,
) -> Result<Json<Product>, Refusal> {
    Context::current().span().set_attribute(KeyValue::new("shop.product.sku", sku.clone()));
    match catalog.products.get(&sku) {
        Some(product) => Ok(Json(product.clone())),
        None => {
            tracing::warn!(
                name: "product.unknown",
                { shop.product.sku = sku },
                "no product {sku}"
            );
            Err(Refusal::not_found(format!("no product {sku}")))
        }
    }
}

#[derive(Deserialize)]
struct Search {
    q: String,
}

async fn search(
    State(catalog): State<Arc<Catalog>>,
    Query(search): Query<Search>,
) -> Json<Arc<Vec<Product>>> {
    let now = Instant::now();
    let cache = || catalog.searches.lock().unwrap_or_else(PoisonError::into_inner);
    let cached = cache().get(&search.q, now);
    let outcome = if cached.is_some() { "hit" } else { "miss" };
    let labels = [KeyValue::new("shop.cache", "searches"), KeyValue::new("shop.outcome", outcome)];
    catalog.lookups.add(1, &labels);
    let span = Context::current();
    span.span().set_attribute(KeyValue::new("shop.cache.hit", cached.is_some()));
    let found = cached.unwrap_or_else(|| {
        let found = Arc::new(catalog.rank(&search.q));
        cache().put(search.q.clone(), found.clone(), now);
        found
    });
    tracing::info!(
        name: "search.answered",
        { shop.search.query = search.q, shop.search.found = found.len() },
        "search for \"{}\" found {} products ({outcome})",
        search.q,
        found.len()
    );
    Json(found)
}

impl Catalog {
    fn rank(&self, query: &str) -> Vec<Product> {
        let builder = self.tracer.span_builder("rank products").with_kind(SpanKind::Internal);
        self.tracer.in_span_with_builder(builder, |context| {
            let found = self.products.search(query, FOUND_MAX);
            context.span().set_attributes([
                KeyValue::new("shop.search.candidates", self.products.len() as i64),
                KeyValue::new("shop.search.found", found.len() as i64),
            ]);
            found
        })
    }
}
