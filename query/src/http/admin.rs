//! What changes the store: for those who run it.

use super::error::ApiError;
use super::state::{QueryState, blocking};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use std::sync::Arc;
use trefoil_api::admin::{DeleteRequest, DeleteResponse};

/// Deletes all data of a service, as of now, from every store and index. Answers when it is done.
#[utoipa::path(
    post, path = "/api/admin/delete", tag = "admin",
    request_body(content = serde_json::Value, description = "`{\"service\":\"…\"}`"),
    responses(
        (status = 200, description = "`{\"deleted\":{\"spans\":1,\"logs\":0,\"metrics\":0,\"red\":0}}`: rows by signal"),
        (status = 400, description = "no service named"),
        (status = 503, description = "the disk failed; the call may be repeated"),
    )
)]
pub async fn delete(
    State(state): State<Arc<QueryState>>,
    body: Bytes,
) -> Result<Json<DeleteResponse>, ApiError> {
    let request: DeleteRequest = serde_json::from_slice(&body).map_err(|error| {
        ApiError::bad_request(format!(
            "the body must be JSON like {{\"service\":\"checkout\"}}: {error}"
        ))
    })?;
    if request.service.is_empty() {
        return Err(ApiError::bad_request("service: name one"));
    }
    let deleted = blocking(move || Ok(state.delete_service(&request.service)?)).await?;
    Ok(Json(DeleteResponse { deleted }))
}
