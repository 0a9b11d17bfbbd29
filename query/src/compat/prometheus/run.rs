//! Running queries on blocking threads.

use std::time::{Duration, Instant};

use trefoil_promql::{Budget, LimitError, Limits};

use super::PrometheusApi;
use super::reply::{Failure, Kind};

/// Cancels a query when it is dropped: a handler is dropped when its client goes away.
struct CancelOnDrop(Budget);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What a query took until it began to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    /// Time spent waiting for a place.
    pub waited: Duration,
}

impl PrometheusApi {
    /// Waits for a place among the running queries, then runs `work` on a blocking thread.
    ///
    /// * `timeout_ms`: if shorter than the configured timeout, this one counts.
    ///
    /// # Errors
    /// When no place gets free in time, or as `work`.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        timeout_ms: Option<i64>,
        work: impl FnOnce(&PrometheusApi, &Budget, Queued) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut limits: Limits = self.0.limits.clone();
        if let Some(ms) = timeout_ms {
            let asked = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
            limits.timeout = limits.timeout.min(asked);
        }
        let arrived = Instant::now();
        let timeout = limits.timeout;
        let permit = tokio::time::timeout(timeout, self.0.queries.clone().acquire_owned())
            .await
            .map_err(|_| LimitError::Timeout { during: "query queue", timeout })?
            .map_err(|_| LimitError::Canceled { during: "query queue" })?;
        let waited = arrived.elapsed();
        limits.timeout = timeout.saturating_sub(waited);
        let budget = match &self.0.pool {
            Some(pool) => Budget::of_pool(limits, pool.clone()),
            None => Budget::new(limits),
        };
        let guard = CancelOnDrop(budget.clone());
        let api = self.clone();
        // The place is free only when the work has really ended, which after a cancellation is a little later.
        let run = move || {
            let _permit = permit;
            work(&api, &budget, Queued { waited })
        };
        let task = tokio::task::spawn_blocking(run).await;
        drop(guard);
        task.unwrap_or_else(|error| {
            tracing::error!(%error, "a query thread ended early");
            Err(Failure { kind: Kind::Internal, message: "the query ended early".to_owned() })
        })
    }
}
