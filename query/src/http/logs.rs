//! `/api/logs` and what hangs below it.

use super::error::ApiError;
use super::params::{Params, malformed, parse_span_id, parse_trace_id};
use super::state::{QueryState, blocking};
use crate::exec::logs::{log_row, severity_range};
use crate::exec::traces::rfc3339;
use crate::lang;
use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use trefoil_api::logs::{
    FieldValue, LogBucket, LogField, LogFields, LogHistogram, LogList, LogPattern, LogPatterns,
};
use trefoil_storage::logs::{By, Field, LogFilter, LogQuery, LogRange, Order};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 50_000;

/// Buckets of a histogram at most.
const BUCKETS_MAX: u64 = 11_000;

/// Longest a log query may run: an answer comes within ten seconds, good or bad.
const TIME_MAX: Duration = Duration::from_secs(9);

/// The filter of `q`, `trace_id`, `span_id`, `service` and `severity` together.
fn filter(params: &Params) -> Result<LogFilter, ApiError> {
    let mut parts = Vec::new();
    if let Some(text) = params.get("q") {
        parts.push(lang::logs::parse(text).map_err(|error| {
            ApiError::bad_request(format!("parameter \"q\" can't be read: {error}"))
        })?);
    }
    if let Some(id) = params.get("trace_id") {
        parts.push(LogFilter::TraceId(parse_trace_id(id)?));
    }
    if let Some(id) = params.get("span_id") {
        parts.push(LogFilter::SpanId(parse_span_id(id)?));
    }
    if let Some(service) = params.get("service") {
        parts.push(LogFilter::Equals(Field::Service, service.into()));
    }
    if let Some(severity) = params.get("severity") {
        let (low, high) = severity_range(severity).ok_or_else(|| {
            malformed("severity", severity, "trace, debug, info, warn, error or fatal is expected")
        })?;
        parts.push(LogFilter::Severity(low, high));
    }
    Ok(LogFilter::and(parts))
}

fn range(params: &Params) -> Result<LogRange, ApiError> {
    let (start_ns, end_ns) = params.range()?;
    Ok(LogRange { start_ns, end_ns, deadline: Some(Instant::now() + TIME_MAX) })
}

/// Searches logs.
#[utoipa::path(
    get, path = "/api/logs", tag = "logs",
    params(
        ("q" = Option<String>, Query, description = "words, \"phrases\", field:value, AND OR NOT, ranges, prefixes"),
        ("trace_id" = Option<String>, Query), ("span_id" = Option<String>, Query),
        ("service" = Option<String>, Query), ("severity" = Option<String>, Query),
        ("start" = Option<String>, Query), ("end" = Option<String>, Query), ("limit" = Option<usize>, Query),
        ("order" = Option<String>, Query, description = "desc (newest first, default) or asc"),
        ("count" = Option<bool>, Query, description = "true adds the exact total"),
    ),
    responses((status = 200, description = "log records"), (status = 400, description = "a malformed parameter, named"))
)]
pub async fn search(
    State(state): State<Arc<QueryState>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<LogList>, ApiError> {
    let params = Params::parse(uri.query());
    let filter = filter(&params)?;
    let range = range(&params)?;
    let limit = params.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let counted = params.flag("count")?;
    let order = match params.get("order") {
        None | Some("desc") => Order::NewestFirst,
        Some("asc") => Order::OldestFirst,
        Some(other) => return Err(malformed("order", other, "asc or desc is expected")),
    };
    blocking(move || {
        let snapshot = state.stores.logs.snapshot();
        let total = if counted { Some(snapshot.count(&filter, &range)?) } else { None };
        let logs = if limit == 0 {
            Vec::new()
        } else {
            snapshot.search(&LogQuery { filter, range, limit, order })?
        };
        Ok(Json(LogList { logs: logs.iter().map(log_row).collect(), total }))
    })
    .await
}

/// Counts over time.
#[utoipa::path(
    get, path = "/api/logs/histogram", tag = "logs",
    params(
        ("q" = Option<String>, Query), ("start" = Option<String>, Query), ("end" = Option<String>, Query),
        ("step" = Option<String>, Query, description = "default 1m"),
        ("by" = Option<String>, Query, description = "severity (default), service, or any field"),
    ),
    responses((status = 200, description = "buckets with a match, oldest first"))
)]
pub async fn histogram(
    State(state): State<Arc<QueryState>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<LogHistogram>, ApiError> {
    let params = Params::parse(uri.query());
    let filter = filter(&params)?;
    let range = range(&params)?;
    let step_ns = params.duration("step")?.unwrap_or(60_000_000_000);
    if step_ns == 0 {
        return Err(malformed("step", "0", "a positive duration is expected"));
    }
    let by = match params.get("by") {
        None | Some("severity") => By::Severity,
        Some(name) => By::Field(Field::named(name)),
    };
    blocking(move || {
        let found = state.stores.logs.snapshot().histogram(&filter, &range, step_ns, &by)?;
        if found.len() as u64 > BUCKETS_MAX {
            return Err(ApiError::limit(format!(
                "the histogram has more than {BUCKETS_MAX} buckets; make \"step\" longer or the range shorter"
            )));
        }
        let buckets = found
            .into_iter()
            .map(|bucket| LogBucket {
                start: rfc3339(bucket.start_ns),
                start_unix_nano: bucket.start_ns,
                counts: bucket.counts,
            })
            .collect();
        Ok(Json(LogHistogram { step_ns, buckets }))
    })
    .await
}

/// Fields of the matching logs with their most frequent values.
#[utoipa::path(
    get, path = "/api/logs/fields", tag = "logs",
    params(("q" = Option<String>, Query), ("start" = Option<String>, Query), ("end" = Option<String>, Query)),
    responses((status = 200, description = "fields, most frequent first"))
)]
pub async fn fields(
    State(state): State<Arc<QueryState>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<LogFields>, ApiError> {
    let params = Params::parse(uri.query());
    let filter = filter(&params)?;
    let range = range(&params)?;
    blocking(move || {
        let fields = state
            .stores
            .logs
            .snapshot()
            .fields(&filter, &range)?
            .into_iter()
            .map(|field| LogField {
                name: field.name,
                count: field.count,
                values: field
                    .values
                    .into_iter()
                    .map(|(value, count)| FieldValue { value, count })
                    .collect(),
            })
            .collect();
        Ok(Json(LogFields { fields }))
    })
    .await
}

/// Bodies that differ only in their variable parts, counted.
#[utoipa::path(
    get, path = "/api/logs/patterns", tag = "logs",
    params(
        ("q" = Option<String>, Query), ("start" = Option<String>, Query), ("end" = Option<String>, Query),
        ("limit" = Option<usize>, Query),
    ),
    responses((status = 200, description = "patterns, most frequent first"))
)]
pub async fn patterns(
    State(state): State<Arc<QueryState>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<LogPatterns>, ApiError> {
    let params = Params::parse(uri.query());
    let filter = filter(&params)?;
    let range = range(&params)?;
    let limit = params.limit(50, 1_000)?;
    blocking(move || {
        let patterns = state
            .stores
            .logs
            .snapshot()
            .patterns(&filter, &range, limit)?
            .into_iter()
            .map(|found| LogPattern {
                pattern: found.pattern,
                count: found.count,
                sample: found.sample,
            })
            .collect();
        Ok(Json(LogPatterns { patterns }))
    })
    .await
}

/// Streams matching logs as they come in, one JSON object an event.
#[utoipa::path(
    get, path = "/api/logs/tail", tag = "logs", params(("q" = Option<String>, Query)),
    responses((status = 200, description = "server-sent events; an event named `missed` tells how many batches a slow reader lost"))
)]
pub async fn tail(
    State(state): State<Arc<QueryState>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let filter = filter(&Params::parse(uri.query()))?;
    let mut batches = state.stores.logs.subscribe();
    let events = async_stream::stream! {
        loop {
            match batches.recv().await {
                Ok(batch) => {
                    for row in 0..batch.len() {
                        if filter.matches(&*batch, row)
                            && let Ok(event) = Event::default().json_data(log_row(&batch.row(row)))
                        {
                            yield Ok(event);
                        }
                    }
                }
                Err(RecvError::Lagged(missed)) => {
                    yield Ok(Event::default().event("missed").data(missed.to_string()));
                }
                Err(RecvError::Closed) => return,
            }
        }
    };
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}
