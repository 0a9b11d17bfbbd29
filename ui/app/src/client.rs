//! The one way to the server: JSON over HTTP, with the server's own words when it refuses.

use crate::focus::keep_focus;
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
    // Some endpoints answer "there is none" with an empty body.
    let text = if text.is_empty() { "null" } else { &text };
    serde_json::from_str(text).map_err(|error| format!("unexpected answer: {error}"))
}

/// What all views share: the refresh signal, and why the last refresh failed.
#[derive(Clone, Copy)]
pub struct Refresh {
    pub tick: RwSignal<u32>,
    /// Views keep what they have when it can't be brought up to date; the header says so.
    pub trouble: RwSignal<Option<String>>,
}

/// Keeps data in step with an address that changes; an empty address asks for nothing.
///
/// `path` is asked again at every tick of the refresh signal. Answers that come after a newer request are dropped.
pub fn load<T>(path: impl Fn() -> String + 'static) -> RwSignal<Load<T>>
where
    T: DeserializeOwned + PartialEq + Send + Sync + 'static,
{
    load_until(path, |_| false)
}

/// The same, but data that are `settled` are not asked for again until the address is another one.
pub fn load_until<T>(
    path: impl Fn() -> String + 'static,
    settled: impl Fn(&T) -> bool + 'static,
) -> RwSignal<Load<T>>
where
    T: DeserializeOwned + PartialEq + Send + Sync + 'static,
{
    let data = RwSignal::new(Load::Loading);
    let newest = StoredValue::new(0u32);
    let last = StoredValue::new(String::new());
    let last_tick = StoredValue::new(0u32);
    let busy = StoredValue::new(false);
    let refresh = use_context::<Refresh>();
    Effect::new(move |_| {
        let tick = refresh.map_or(0, |refresh| refresh.tick.get());
        let ticked = last_tick.get_value() != tick;
        last_tick.set_value(tick);
        let path = path();
        // Another question: what is on screen is no answer to it. The same one again: keep it until the new comes.
        let question = path.split("&_=").next().unwrap_or_default().to_owned();
        let same = last.with_value(|last| *last == question);
        let enough =
            data.with_untracked(|data| matches!(data, Load::Ready(known) if settled(known)));
        // A server that takes longer than a tick gets to answer.
        if same && (enough || path.is_empty() || (ticked && busy.get_value())) {
            return;
        }
        // Whatever is still on its way answers an older question.
        let mine = newest.get_value().wrapping_add(1);
        newest.set_value(mine);
        if !same {
            last.set_value(question);
            data.set(Load::Loading);
        }
        busy.set_value(!path.is_empty());
        if path.is_empty() {
            return;
        }
        spawn_local(async move {
            let answer = get::<T>(&path).await;
            if newest.try_get_value() != Some(mine) {
                return;
            }
            busy.set_value(false);
            let (stays, trouble) = data.with_untracked(|known| match (known, &answer) {
                (Load::Ready(known), Ok(new)) => (known == new, None),
                // Figures of a moment ago are worth more than none.
                (Load::Ready(_), Err(why)) => (true, Some(why.clone())),
                _ => (false, None),
            });
            if let Some(refresh) = refresh
                && refresh.trouble.with_untracked(|known| *known != trouble)
            {
                refresh.trouble.set(trouble);
            }
            if !stays {
                keep_focus(|| data.set(answer.map_or_else(Load::Failed, Load::Ready)));
            }
        });
    });
    data
}
