//! The native JSON API on the UI's port.

mod admin;
pub mod error;
mod logs;
mod metrics;
pub mod params;
mod services;
mod sql;
mod state;
mod traces;

pub use state::{QueryState, blocking};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use error::ApiError;
use std::sync::Arc;
use trefoil_api::status::Status;
use utoipa::OpenApi;

/// The description that `/api/openapi.json` answers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Trefoil",
        description = "Times are RFC 3339 or integer Unix nanoseconds, durations like 250ms. Errors are {\"error\":{\"code\",\"message\"}}.",
        license(name = "Apache-2.0")
    ),
    paths(
        services::services,
        services::service,
        services::map,
        traces::search,
        traces::trace,
        traces::context,
        logs::search,
        logs::histogram,
        logs::fields,
        logs::patterns,
        logs::tail,
        metrics::list,
        sql::sql,
        admin::delete,
        status,
    )
)]
struct Description;

/// All routes of the native API.
pub fn router(state: Arc<QueryState>) -> Router {
    Router::new()
        .route("/api/services", get(services::services))
        .route("/api/services/{*service}", get(services::service))
        .route("/api/map", get(services::map))
        .route("/api/traces", get(traces::search))
        .route("/api/traces/{id}", get(traces::trace))
        .route("/api/traces/{id}/context", get(traces::context))
        .route("/api/logs", get(logs::search))
        .route("/api/logs/histogram", get(logs::histogram))
        .route("/api/logs/fields", get(logs::fields))
        .route("/api/logs/patterns", get(logs::patterns))
        .route("/api/logs/tail", get(logs::tail))
        .route("/api/metrics", get(metrics::list))
        .route("/api/sql", post(sql::sql))
        .route("/api/admin/delete", post(admin::delete))
        .route("/api/status", get(status))
        .route("/api/openapi.json", get(openapi))
        .route("/api/{*rest}", axum::routing::any(unknown))
        .with_state(state)
}

async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

/// What the store holds and how its books stand.
#[utoipa::path(
    get, path = "/api/status", tag = "status",
    responses((status = 200, description = "status of the server and its store"))
)]
async fn status(State(state): State<Arc<QueryState>>) -> Json<Status> {
    Json(state.status())
}

async fn unknown(uri: axum::http::Uri) -> ApiError {
    ApiError::not_found(format!(
        "there is no {}; /api/openapi.json lists what there is",
        uri.path()
    ))
}
