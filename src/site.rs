//! The UI's port: UI, query APIs, probes, our own metrics, and the ingest endpoints that other systems have there.

use crate::guard::{self, Guard};
use crate::{assets, self_metrics};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, StatusCode};
use std::sync::{Arc, OnceLock};
use tower::ServiceExt;
use tower_http::compression::CompressionLayer;
use trefoil_collector::ingest::Receiver;
use trefoil_collector::{http as otlp_http, remote_write};
use trefoil_storage::store::Store;

/// What the port serves: from the start the UI and the probes, the APIs once the store is open.
#[derive(Clone)]
pub struct Site(Arc<Parts>);

struct Parts {
    receiver: Receiver,
    open: OnceLock<Open>,
}

struct Open {
    store: Arc<Store>,
    api: Router,
}

impl Site {
    pub fn new(receiver: Receiver) -> Self {
        Self(Arc::new(Parts { receiver, open: OnceLock::new() }))
    }

    /// From now on queries are answered, by `api`.
    pub fn open(&self, store: Arc<Store>, api: Router) {
        let api = api.fallback(assets::serve);
        // A second call would be a mistake of the caller's; the first store stays.
        let _ = self.0.open.set(Open { store, api });
    }

    /// All routes, behind `guard`.
    pub fn router(&self, guard: Guard) -> Router {
        let ingest = Router::new()
            .route("/prometheus/api/v1/write", any(remote_write::write))
            .with_state(self.0.receiver.clone())
            .merge(otlp_http::aliases(self.0.receiver.clone()));
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/ready", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(answer)
            .with_state(self.clone())
            .merge(ingest)
            .layer(CompressionLayer::new())
            .layer(axum::middleware::from_fn_with_state(guard, guard::check));
        // Routes are found by the address as it is now, so the alias is undone outside of them.
        Router::new().fallback_service(routes.map_request(undo_alias))
    }

    fn ready(&self) -> bool {
        self.0.open.get().is_some() && self.0.receiver.is_open()
    }
}

/// `/api/v1/…` is `/prometheus/api/v1/…`: some clients can't be given a prefix.
fn undo_alias(mut request: Request) -> Request {
    if !request.uri().path().starts_with("/api/v1/") {
        return request;
    }
    let mut parts = request.uri().clone().into_parts();
    let moved = parts.path_and_query.as_ref().map(|path| format!("/prometheus{path}"));
    if let Some(path) = moved.and_then(|path| path.parse::<PathAndQuery>().ok()) {
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

async fn readyz(State(site): State<Site>) -> Response {
    if site.ready() { "ready\n".into_response() } else { not_ready() }
}

async fn metrics(State(site): State<Site>) -> Response {
    let store = site.0.open.get().map(|open| open.store.clone());
    let text = self_metrics::render(&site.0.receiver, store.as_deref());
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// Everything else: an API's answer, or the UI's.
async fn answer(
    State(site): State<Site>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    request: Request,
) -> Response {
    match site.0.open.get() {
        Some(open) => {
            let mut response = open.api.clone().oneshot(request).await.into_response();
            if assets::is_api(uri.path())
                && let Some(warning) = warning_of(&open.store)
            {
                response.headers_mut().insert(WARNING, warning);
            }
            response
        }
        None if assets::is_api(uri.path()) => not_ready(),
        None => assets::serve(method, uri, headers).await,
    }
}

/// Names what was set aside as damaged: an answer may lack its rows. `None` when all is there.
fn warning_of(store: &Store) -> Option<HeaderValue> {
    let set_aside = store.set_aside();
    let (first, count) = (set_aside.first()?, set_aside.len());
    let more =
        if count > 1 { format!(" and {} more, see /api/status", count - 1) } else { String::new() };
    let text = format!(
        "299 trefoil \"{} was damaged and set aside: {} rows from {} to {} (Unix ns) are missing{more}\"",
        first.file, first.rows, first.min_ns, first.max_ns
    );
    HeaderValue::try_from(text).ok()
}

fn not_ready() -> Response {
    let mut response = guard::refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        "the server is starting or stopping; ask again in a second",
    );
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
