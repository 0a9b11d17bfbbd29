//! What every handler of the native API shares.

use crate::exec::sql::{SqlEngine, SqlLimits};
use crate::exec::stores::{MetricsTable, SpansTable};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use trefoil_api::status::Status;
use trefoil_storage::Stores;

/// The stores, the SQL engine, and the server's own status.
pub struct QueryState {
    pub stores: Arc<Stores>,
    pub sql: SqlEngine,
    status: Box<dyn Fn() -> Status + Send + Sync>,
    delete_service: Box<DeleteService>,
}

/// Deletes the data of a service; rows by signal.
type DeleteService = dyn Fn(&str) -> io::Result<BTreeMap<String, u64>> + Send + Sync;

impl QueryState {
    /// * `status`: asked for each `/api/status`; the server knows things that the stores do not.
    /// * `delete_service`: blocks until it is done.
    pub fn new(
        stores: Arc<Stores>,
        limits: SqlLimits,
        status: impl Fn() -> Status + Send + Sync + 'static,
        delete_service: impl Fn(&str) -> io::Result<BTreeMap<String, u64>> + Send + Sync + 'static,
    ) -> Result<Self, datafusion::common::DataFusionError> {
        let sql = SqlEngine::new(
            vec![
                ("spans", Arc::new(SpansTable(stores.spans.clone()))),
                ("logs", Arc::new(crate::exec::stores::LogsTable(stores.logs.clone()))),
                ("metrics", Arc::new(MetricsTable(stores.metrics.clone()))),
            ],
            limits,
        )?;
        Ok(Self { stores, sql, status: Box::new(status), delete_service: Box::new(delete_service) })
    }

    /// Deletes all data of a service; rows by signal. Blocks.
    pub fn delete_service(&self, service: &str) -> io::Result<BTreeMap<String, u64>> {
        (self.delete_service)(service)
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
