//! The Prometheus HTTP API over a [`SeriesSource`].
//!
//! Evaluation runs on blocking threads, at most a configured number at once. A query stops when its
//! time is up or when the client goes away.

mod encode;
mod exemplars;
mod federate;
mod form;
mod labels;
mod query;
mod reply;
mod run;
mod status;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::routing::get;
use tokio::sync::Semaphore;
use trefoil_promql::{EngineOptions, Limits, Pool, SeriesSource};

/// What the endpoints share. Clones share it, too.
#[derive(Clone)]
pub struct PrometheusApi(Arc<Shared>);

struct Shared {
    source: Arc<dyn SeriesSource>,
    engine: EngineOptions,
    limits: Limits,
    pool: Option<Pool>,
    queries: Arc<Semaphore>,
    started: SystemTime,
    retention: String,
    flags: BTreeMap<String, String>,
}

/// How the API is set up.
#[derive(Clone, Debug)]
pub struct PrometheusConfig {
    /// How queries are evaluated.
    pub engine: EngineOptions,
    /// Bounds of a query.
    pub limits: Limits,
    /// Bounds of all queries together.
    pub pool: Option<Pool>,
    /// Queries that run at once; more wait (`promql-queries-max`).
    pub queries_max: usize,
    /// What `status/runtimeinfo` says about retention.
    pub retention: String,
    /// What `status/flags` shows.
    pub flags: BTreeMap<String, String>,
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        PrometheusConfig {
            engine: EngineOptions::default(),
            limits: Limits::default(),
            pool: None,
            queries_max: 20,
            retention: "unlimited".to_owned(),
            flags: BTreeMap::new(),
        }
    }
}

impl PrometheusApi {
    /// The API over a store.
    pub fn new(source: Arc<dyn SeriesSource>, config: PrometheusConfig) -> Self {
        PrometheusApi(Arc::new(Shared {
            source,
            engine: config.engine,
            limits: config.limits,
            pool: config.pool,
            queries: Arc::new(Semaphore::new(config.queries_max.clamp(1, Semaphore::MAX_PERMITS))),
            started: SystemTime::now(),
            retention: config.retention,
            flags: config.flags,
        }))
    }
}

/// All routes, to be nested under `/prometheus`: `/api/v1/…`, `/federate`, `/-/healthy`, `/-/ready`.
pub fn router(api: PrometheusApi) -> Router {
    Router::new()
        .route("/federate", get(federate::federate))
        .route("/-/healthy", get(|| async { "Trefoil is Healthy.\n" }))
        .route("/-/ready", get(|| async { "Trefoil is Ready.\n" }))
        .with_state(api.clone())
        .nest("/api/v1", api_router(api))
}

/// The routes below `/api/v1`, for the alias at the root.
pub fn api_router(api: PrometheusApi) -> Router {
    Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(exemplars::query).post(exemplars::query))
        .route("/format_query", get(query::format).post(query::format))
        .route("/parse_query", get(query::parse).post(query::parse))
        .route("/labels", get(labels::names).post(labels::names))
        .route("/label/{name}/values", get(labels::values))
        .route("/series", get(labels::series).post(labels::series))
        .route("/metadata", get(labels::metadata))
        .route("/rules", get(status::rules))
        .route("/alerts", get(status::alerts))
        .route("/alertmanagers", get(status::alertmanagers))
        .route("/targets", get(status::targets))
        .route("/targets/metadata", get(status::targets_metadata))
        .route("/scrape_pools", get(status::scrape_pools))
        .route("/status/buildinfo", get(status::build_info))
        .route("/status/runtimeinfo", get(status::runtime_info))
        .route("/status/flags", get(status::flags))
        .route("/status/config", get(status::config))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/walreplay", get(status::wal_replay))
        .with_state(api)
}
