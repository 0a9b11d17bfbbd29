//! `/api/services`, `/api/services/{s}`, `/api/map`.

use super::error::ApiError;
use super::params::{Params, percent_decode};
use super::state::{QueryState, blocking};
use crate::exec::red::{self, DetailQuery};
use axum::Json;
use axum::extract::{OriginalUri, State};
use std::sync::Arc;
use trefoil_api::services::{ServiceDetail, ServiceEdge, ServiceList, ServiceMap};

/// Range of an answer when none is asked for.
const RECENT_NS: u64 = 15 * 60 * 1_000_000_000;

/// Steps of a chart at most.
const STEPS_MAX: u64 = 11_000;

/// All services with rate, errors and percentiles.
#[utoipa::path(
    get, path = "/api/services", tag = "services",
    params(("start" = Option<String>, Query), ("end" = Option<String>, Query)),
    responses((status = 200, description = "services over the range, default the last 15 minutes"))
)]
pub async fn services(
    State(state): State<Arc<QueryState>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<ServiceList>, ApiError> {
    let (start, end) = Params::parse(uri.query()).recent_range(RECENT_NS)?;
    blocking(move || Ok(Json(red::services(&state.stores.red, start, end)?))).await
}

/// One service: series, operations, heat map, exemplars.
#[utoipa::path(
    get, path = "/api/services/{service}", tag = "services",
    params(
        ("service" = String, Path), ("start" = Option<String>, Query), ("end" = Option<String>, Query),
        ("step" = Option<String>, Query), ("operation" = Option<String>, Query), ("kind" = Option<String>, Query),
    ),
    responses((status = 200, description = "RED figures"), (status = 404, description = "no such service in the range"))
)]
pub async fn service(
    State(state): State<Arc<QueryState>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<ServiceDetail>, ApiError> {
    // Decoded from the raw path: service names may hold a slash.
    let name = percent_decode(uri.path().trim_start_matches("/api/services/"));
    let params = Params::parse(uri.query());
    let (start_ns, end_ns) = params.recent_range(RECENT_NS)?;
    let step_ns = params.duration("step")?.unwrap_or(0);
    if step_ns > 0 && (end_ns - start_ns) / step_ns > STEPS_MAX {
        return Err(ApiError::limit(format!(
            "the range has more than {STEPS_MAX} steps; make \"step\" longer or the range shorter"
        )));
    }
    let kind = match params.get("kind") {
        None => None,
        Some(text) => Some(kind_number(text).ok_or_else(|| {
            ApiError::bad_request(
                "parameter \"kind\" must be server, client, producer, consumer, internal or unspecified",
            )
        })?),
    };
    let operation = params.get("operation").map(str::to_owned);
    blocking(move || {
        let query = DetailQuery { operation, kind, start_ns, end_ns, step_ns };
        let found = red::service(&state.stores.red, &name, &query)?;
        found.map(Json).ok_or_else(|| {
            ApiError::not_found(format!("service {name:?} has no spans in this time range"))
        })
    })
    .await
}

fn kind_number(text: &str) -> Option<i32> {
    ["unspecified", "internal", "server", "client", "producer", "consumer"]
        .iter()
        .position(|name| name.eq_ignore_ascii_case(text))
        .map(|at| at as i32)
}

/// Who calls whom.
#[utoipa::path(
    get, path = "/api/map", tag = "services",
    params(("start" = Option<String>, Query), ("end" = Option<String>, Query)),
    responses((status = 200, description = "edges between services over the range"))
)]
pub async fn map(
    State(state): State<Arc<QueryState>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<ServiceMap>, ApiError> {
    let (start, end) = Params::parse(uri.query()).recent_range(RECENT_NS)?;
    blocking(move || {
        let edges = state.stores.spans.snapshot().edges(start, end)?;
        let edges = edges
            .into_iter()
            .map(|edge| ServiceEdge {
                caller: edge.caller,
                callee: edge.callee,
                count: edge.count,
                error_count: edge.error_count,
            })
            .collect();
        Ok(Json(ServiceMap { edges }))
    })
    .await
}
