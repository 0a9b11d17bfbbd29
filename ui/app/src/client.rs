//! The one way to the server: JSON over HTTP, with the server's own words when it refuses.

use gloo_net::http::Request;
use leptos::prelude::*;
use leptos::task::spawn_local;
use serde::de::DeserializeOwned;
use trefoil_api::ErrorBody;

/// What a view has of its data. Old data stay while new ones are on their way.
#[derive(Debug, Clone, PartialEq)]
pub enum Load<T> {
    Loading,
    /// The server's words, or why it could not be reached.
    Failed(String),
    Ready(T),
}

/// Fetches and reads JSON.
pub async fn get<T: DeserializeOwned>(path: &str) -> Result<T, String> {
    let response = Request::get(path).send().await.map_err(|_| unreachable_text())?;
    read(response.ok(), response.text().await)
}

/// Sends JSON and reads JSON.
pub async fn post<T: DeserializeOwned>(path: &str, body: String) -> Result<T, String> {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(body)
        .map_err(|error| error.to_string())?;
    let response = request.send().await.map_err(|_| unreachable_text())?;
    read(response.ok(), response.text().await)
}

fn unreachable_text() -> String {
    "the server can't be reached; is Trefoil running?".to_owned()
}

fn read<T: DeserializeOwned>(ok: bool, text: Result<String, gloo_net::Error>) -> Result<T, String> {
    let text = text.map_err(|_| unreachable_text())?;
    if !ok {
        if let Ok(body) = serde_json::from_str::<ErrorBody>(&text) {
            return Err(body.error.message);
        }
        // The Prometheus API's form of an error.
        let prometheus: Option<String> = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|body| body["error"].as_str().map(str::to_owned));
        return Err(prometheus.unwrap_or(text));
    }
    serde_json::from_str(&text).map_err(|error| format!("unexpected answer: {error}"))
}

/// The refresh signal of the page; see the range picker.
#[derive(Clone, Copy)]
pub struct Tick(pub RwSignal<u32>);

/// Keeps data in step with an address that changes; an empty address asks for nothing.
///
/// `path` is asked again at every tick of the refresh signal. Answers that come after a newer request are dropped.
pub fn load<T>(path: impl Fn() -> String + 'static) -> RwSignal<Load<T>>
where
    T: DeserializeOwned + Send + Sync + 'static,
{
    let data = RwSignal::new(Load::Loading);
    let newest = StoredValue::new(0u32);
    let last = StoredValue::new(String::new());
    let tick = use_context::<Tick>();
    Effect::new(move |_| {
        if let Some(Tick(tick)) = tick {
            tick.track();
        }
        let path = path();
        if path.is_empty() {
            return;
        }
        let mine = newest.get_value().wrapping_add(1);
        newest.set_value(mine);
        // Another question: what is on screen is no answer to it. The same one again: keep it until the new comes.
        let question = path.split("&_=").next().unwrap_or_default().to_owned();
        if last.get_value() != question {
            last.set_value(question);
            data.set(Load::Loading);
        }
        spawn_local(async move {
            let answer = get::<T>(&path).await;
            if newest.try_get_value() == Some(mine) {
                data.set(answer.map_or_else(Load::Failed, Load::Ready));
            }
        });
    });
    data
}
