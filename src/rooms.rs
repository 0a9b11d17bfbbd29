//! Storage, collector and query put together.

use crate::config::{Config, SAMPLE_BYTES};
use crate::units::Retention;
use anyhow::Context;
use axum::Router;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use trefoil_api::status::{Account, SegmentTotals, Status};
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decoder::FrameDecoder;
use trefoil_promql::{EngineOptions, Limits, Pool};
use trefoil_query::compat::prometheus::{PrometheusApi, PrometheusConfig};
use trefoil_query::exec::sql::SqlLimits;
use trefoil_query::http::QueryState;
use trefoil_query::promql_source::PromSource;
use trefoil_storage::Stores;
use trefoil_storage::resource::Interner;
use trefoil_storage::store::Store;

/// An open store and the APIs over it.
pub struct Rooms {
    pub store: Arc<Store>,
    pub api: Router,
}

/// Opens the data directory and replays its log. Blocks.
///
/// # Errors
/// In one line why the directory can't be used, and the remedy.
pub fn open(config: &Config) -> anyhow::Result<Rooms> {
    let interner = Arc::new(Interner::default());
    let stores = Arc::new(Stores::new(interner.clone(), config.otlp.clone()));
    // What dashboards read again and again, beside the samples of the queries themselves.
    stores.metrics.keep((config.memory_limit_bytes / 16) as usize);
    // What queries read of segments before they read rows.
    trefoil_storage::kept::keep_at_most((config.memory_limit_bytes / 8) as usize);
    let mut storage = trefoil_storage::config::Config::new(&config.data_dir);
    crate::memory::keep_below(config.memory_limit_bytes);
    storage.give_back = crate::memory::give_back_if_ample;
    storage.memory_limit = config.memory_limit_bytes;
    storage.retention = match config.retention {
        Retention::For(age) => Some(age),
        Retention::Unlimited => None,
    };
    storage.retention_bytes = config.retention_bytes;
    storage.seal_age = config.seal_age;
    let decoder = decoder(interner, config.retention);
    let store =
        Store::open(storage, stores.clone(), decoder).context("opening the data directory")?;
    let store = Arc::new(store);
    let limits = SqlLimits {
        // A quarter of the budget: hot rows and requests in flight have the rest.
        memory_bytes: (config.memory_limit_bytes / 4) as usize,
        ..SqlLimits::default()
    };
    let (of_status, started, facts) = (store.clone(), Instant::now(), config.clone());
    let of_delete = store.clone();
    let delete = move |service: &str| {
        let deleted = of_delete.delete_service(service)?;
        Ok(deleted.into_iter().map(|(signal, rows)| (signal.to_owned(), rows)).collect())
    };
    let status = move || status(&of_status, &facts, started);
    let state = QueryState::new(stores.clone(), limits, status, delete)
        .context("setting up the query engine")?;
    let prometheus = PrometheusApi::new(
        Arc::new(PromSource::new(stores.metrics.clone(), stores.red.clone())),
        PrometheusConfig {
            engine: if config.promql_experimental {
                EngineOptions::experimental()
            } else {
                EngineOptions::default()
            },
            limits: Limits {
                samples_max: config.promql.samples_max,
                series_max: config.promql.series_max,
                steps_max: config.promql.steps_max,
                timeout: config.promql.timeout,
            },
            pool: Some(pool(config)),
            queries_max: config.promql.queries_max as usize,
            retention: retention_text(config.retention),
            flags: flags(config),
        },
    );
    let api = trefoil_query::http::router(Arc::new(state))
        .nest("/prometheus", trefoil_query::compat::prometheus::router(prometheus));
    Ok(Rooms { store, api })
}

/// The samples of all PromQL queries together: a quarter of the memory limit to draw from, and beside it a sixteenth
/// that is split evenly, so that small queries are answered whatever large ones do.
fn pool(config: &Config) -> Pool {
    let samples = config.memory_limit_bytes / SAMPLE_BYTES;
    // A query whose limit was set higher must be able to reach it.
    Pool::new(
        (samples / 4).max(config.promql.samples_max),
        samples / 16 / config.promql.queries_max,
    )
}

/// What `/prometheus/api/v1/status/flags` shows.
fn flags(config: &Config) -> BTreeMap<String, String> {
    let promql = &config.promql;
    let timeout = humantime::format_duration(promql.timeout).to_string();
    [
        ("memory-limit", config.memory_limit_bytes.to_string()),
        ("promql-experimental", config.promql_experimental.to_string()),
        ("promql-queries-max", promql.queries_max.to_string()),
        ("promql-samples-max", promql.samples_max.to_string()),
        ("promql-series-max", promql.series_max.to_string()),
        ("promql-steps-max", promql.steps_max.to_string()),
        ("promql-timeout", timeout),
        ("retention", retention_text(config.retention)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// What turns frames into rows, the same at ingest and at replay.
pub fn decoder(interner: Arc<Interner>, retention: Retention) -> Arc<FrameDecoder> {
    let mut limits = DecodeLimits::default();
    if retention == Retention::Unlimited {
        // Any timestamp is welcome then, also one that lies ahead.
        limits.future_ns = u64::MAX;
    }
    Arc::new(FrameDecoder::new(interner, limits))
}

fn retention_text(retention: Retention) -> String {
    match retention {
        Retention::For(age) => humantime::format_duration(age).to_string(),
        Retention::Unlimited => "unlimited".to_owned(),
    }
}

/// What `/api/status` says.
fn status(store: &Store, config: &Config, started: Instant) -> Status {
    let stats = store.stats();
    let ledger = stats.ledger.accounts().into_iter().map(|(signal, account)| {
        let live = stats.live.iter().find(|(of, _)| *of == signal).map_or(0, |(_, rows)| *rows);
        let shown = Account {
            received: account.received(),
            stored: account.stored,
            duplicate: account.duplicate,
            rejected: account.rejected,
            live,
            expired: account.expired,
            deleted: account.deleted,
            quarantined: account.quarantined,
        };
        (signal.name().to_owned(), shown)
    });
    let segments = stats.segments.iter().map(|(signal, segments, rows, bytes)| {
        (
            signal.name().to_owned(),
            SegmentTotals { segments: *segments, rows: *rows, bytes: *bytes },
        )
    });
    let quarantined = stats.quarantined.iter().filter_map(|q| serde_json::to_value(q).ok());
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: true,
        uptime_seconds: started.elapsed().as_secs_f64(),
        retention: retention_text(config.retention),
        memory_limit_bytes: config.memory_limit_bytes,
        ledger: ledger.collect(),
        segments: segments.collect(),
        hot_bytes: stats.hot_bytes,
        wal_bytes: stats.wal_bytes,
        working: stats.working,
        free_disk_bytes: stats.free_bytes,
        wal_failing: stats.wal_failing,
        quarantined: quarantined.collect(),
    }
}
