//! `/api/metrics`: which metrics there are; their values come by PromQL and SQL.

use super::error::ApiError;
use super::state::{QueryState, blocking};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use trefoil_api::metrics::{MetricList, MetricRow};

/// All metric families with type, unit and description.
#[utoipa::path(
    get, path = "/api/metrics", tag = "metrics",
    responses((status = 200, description = "metric families by name"))
)]
pub async fn list(State(state): State<Arc<QueryState>>) -> Result<Json<MetricList>, ApiError> {
    blocking(move || {
        let metrics = state
            .stores
            .metrics
            .metadata()?
            .into_iter()
            .flat_map(|(name, metadata)| {
                metadata.into_iter().map(move |m| MetricRow {
                    name: name.clone(),
                    kind: m.kind,
                    unit: m.unit,
                    description: m.help,
                })
            })
            .collect();
        Ok(Json(MetricList { metrics }))
    })
    .await
}
