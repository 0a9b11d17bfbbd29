//! `/api/traces`, `/api/traces/{id}`, `/api/traces/{id}/context`.

use super::error::ApiError;
use super::params::{Params, hex, malformed, parse_trace_id};
use super::state::{QueryState, blocking};
use crate::correlate;
use crate::exec::traces::{trace_row, traces_data};
use axum::Json;
use axum::extract::{OriginalUri, Path, State};
use std::sync::Arc;
use trefoil_api::otlp::TracesData;
use trefoil_api::traces::{TraceContext, TraceList};
use trefoil_storage::spans::{SpanQuery, TraceStatus};

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 10_000;

/// Searches traces, newest first.
#[utoipa::path(
    get, path = "/api/traces", tag = "traces",
    params(
        ("service" = Option<String>, Query), ("operation" = Option<String>, Query),
        ("min_duration" = Option<String>, Query, description = "of the span that fits: 250ms, 500us, 1.5s"),
        ("max_duration" = Option<String>, Query), ("status" = Option<String>, Query, description = "error or ok (no errored span)"),
        ("attr" = Option<Vec<String>>, Query, description = "key=value, may repeat"),
        ("start" = Option<String>, Query, description = "RFC 3339 or Unix ns"), ("end" = Option<String>, Query),
        ("limit" = Option<usize>, Query),
    ),
    responses((status = 200, description = "summaries"), (status = 400, description = "a malformed parameter, named"))
)]
pub async fn search(
    State(state): State<Arc<QueryState>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<TraceList>, ApiError> {
    let params = Params::parse(uri.query());
    let query = span_query(&params)?;
    blocking(move || {
        let found = state.stores.spans.snapshot().search(&query)?;
        Ok(Json(TraceList { traces: found.iter().map(trace_row).collect() }))
    })
    .await
}

fn span_query(params: &Params) -> Result<SpanQuery, ApiError> {
    if params.get("q").is_some() {
        return Err(ApiError::bad_request(
            "parameter \"q\" (TraceQL) is not supported yet; use service, operation, min_duration, \
             max_duration, status and attr",
        ));
    }
    let (start_ns, end_ns) = params.range()?;
    let status = match params.get("status") {
        None => None,
        Some("error") => Some(TraceStatus::Error),
        Some("ok") => Some(TraceStatus::Ok),
        Some(other) => return Err(malformed("status", other, "error or ok is expected")),
    };
    let attributes = params
        .all("attr")
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(malformed("attr", pair, "key=value is expected")),
        })
        .collect::<Result<_, _>>()?;
    let (min, max) = (params.duration("min_duration")?, params.duration("max_duration")?);
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(ApiError::bad_request("\"min_duration\" is longer than \"max_duration\""));
    }
    Ok(SpanQuery {
        service: params.get("service").map(str::to_owned),
        operation: params.get("operation").map(str::to_owned),
        min_duration_ns: min,
        max_duration_ns: max,
        status,
        attributes,
        start_ns,
        end_ns,
        limit: params.limit(LIMIT_DEFAULT, LIMIT_MAX)?,
    })
}

/// One trace as OTLP/JSON.
#[utoipa::path(
    get, path = "/api/traces/{trace_id}", tag = "traces", params(("trace_id" = String, Path)),
    responses((status = 200, description = "OTLP/JSON TracesData"), (status = 404, description = "unknown trace"))
)]
pub async fn trace(
    State(state): State<Arc<QueryState>>,
    Path(id): Path<String>,
) -> Result<Json<TracesData>, ApiError> {
    let trace_id = parse_trace_id(&id)?;
    blocking(move || {
        let spans = state.stores.spans.snapshot().trace(&trace_id)?;
        if spans.is_empty() {
            return Err(unknown(&trace_id));
        }
        Ok(Json(traces_data(&spans)))
    })
    .await
}

/// One trace in all three signals.
#[utoipa::path(
    get, path = "/api/traces/{trace_id}/context", tag = "traces", params(("trace_id" = String, Path)),
    responses((status = 200, description = "the trace, its logs, exemplars and services"), (status = 404, description = "unknown trace"))
)]
pub async fn context(
    State(state): State<Arc<QueryState>>,
    Path(id): Path<String>,
) -> Result<Json<TraceContext>, ApiError> {
    let trace_id = parse_trace_id(&id)?;
    blocking(move || {
        let found = correlate::trace_context(&state.stores, &trace_id)?;
        found.map(Json).ok_or_else(|| unknown(&trace_id))
    })
    .await
}

fn unknown(trace_id: &[u8; 16]) -> ApiError {
    ApiError::not_found(format!(
        "no spans of trace {} are stored: it may be past retention, not sampled, or not sent yet",
        hex(trace_id)
    ))
}
