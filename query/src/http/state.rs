//! What every handler of the native API shares.

use crate::exec::sql::{SqlEngine, SqlLimits};
use crate::exec::stores::{MetricsTable, SpansTable};
use std::sync::Arc;
use trefoil_api::status::Status;
use trefoil_storage::Stores;

/// The stores, the SQL engine, and the server's own status.
pub struct QueryState {
    pub stores: Arc<Stores>,
    pub sql: SqlEngine,
    status: Box<dyn Fn() -> Status + Send + Sync>,
}

impl QueryState {
    /// * `status`: asked for each `/api/status`; the server knows things that the stores do not.
    pub fn new(
        stores: Arc<Stores>,
        limits: SqlLimits,
        status: impl Fn() -> Status + Send + Sync + 'static,
    ) -> Result<Self, datafusion::common::DataFusionError> {
        let sql = SqlEngine::new(
            vec![
                ("spans", Arc::new(SpansTable(stores.spans.clone()))),
                ("logs", Arc::new(crate::exec::stores::LogsTable(stores.logs.clone()))),
                ("metrics", Arc::new(MetricsTable(stores.metrics.clone()))),
            ],
            limits,
        )?;
        Ok(Self { stores, sql, status: Box::new(status) })
    }

    pub fn status(&self) -> Status {
        (self.status)()
    }
}

/// Runs a scan on a blocking thread, so that it never holds up the network's threads.
///
/// # Errors
/// The scan's own error; 503 when it panicked (which fails only this request).
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, super::error::ApiError> + Send + 'static,
) -> Result<T, super::error::ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a query panicked");
        Err(super::error::ApiError::unavailable(
            "the query failed; the server's log has the reason",
        ))
    })
}
