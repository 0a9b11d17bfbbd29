//! The live tail.

use super::lines::{Lines, Reading};
use crate::url::encode;
use crate::widgets::states::Failed;
use futures::StreamExt;
use gloo_net::eventsource::futures::EventSource;
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::collections::VecDeque;
use std::sync::Arc;
use trefoil_api::logs::LogRow;
use ui_core::format::grouped;

/// Lines kept.
const LINES_MAX: usize = 2_000;

/// The list is drawn anew so often at most, ms: a busy shop logs hundreds of lines a second.
const REDRAW_MS: u32 = 250;

/// Lines as they come in, the newest first. While somebody reads, new ones wait.
#[component]
pub fn Tail(q: Memo<String>) -> impl IntoView {
    let reading = Reading::default();
    let rows = RwSignal::new(Arc::new(Vec::<LogRow>::new()));
    let waiting = RwSignal::new(VecDeque::<LogRow>::new());
    let seen = RwSignal::new(0usize);
    let problem = RwSignal::new(None::<String>);
    let turn = StoredValue::new(0u32);
    Effect::new(move |_| {
        let path = format!("/api/logs/tail?q={}", encode(&q.get()));
        let mine = turn.get_value().wrapping_add(1);
        turn.set_value(mine);
        rows.set(Arc::default());
        waiting.set(VecDeque::new());
        seen.set(0);
        problem.set(None);
        spawn_local(async move {
            let Ok(mut source) = EventSource::new(&path) else {
                problem.set(Some("the tail could not be opened".to_owned()));
                return;
            };
            let Ok(mut events) = source.subscribe("message") else { return };
            while let Some(event) = events.next().await {
                // The page, or the query, is another by now.
                if turn.try_get_value() != Some(mine) {
                    return;
                }
                match event {
                    Ok((_, message)) => {
                        let text = message.data().as_string().unwrap_or_default();
                        if let Ok(row) = serde_json::from_str::<LogRow>(&text) {
                            seen.update(|n| *n += 1);
                            waiting.update(|waiting| {
                                waiting.push_front(row);
                                waiting.truncate(LINES_MAX);
                            });
                        }
                    }
                    Err(_) => {
                        problem.set(Some(
                            "the tail was cut; check the query or the server".to_owned(),
                        ));
                        return;
                    }
                }
            }
        });
    });
    let draw = gloo_timers::callback::Interval::new(REDRAW_MS, move || {
        if reading.is_on_untracked()
            || waiting.try_with_untracked(VecDeque::is_empty) != Some(false)
        {
            return;
        }
        let new = waiting.try_update(std::mem::take).unwrap_or_default();
        rows.update(|rows| {
            let kept = LINES_MAX.saturating_sub(new.len());
            *rows = Arc::new(new.into_iter().chain(rows.iter().take(kept).cloned()).collect());
        });
    });
    // Dropped, it ends; and it can't be sent to other threads, of which there are none.
    let draw = StoredValue::new_local(Some(draw));
    on_cleanup(move || {
        turn.set_value(u32::MAX);
        draw.set_value(None);
    });
    view! {
        {move || problem.get().map(|text| view! { <Failed message=text/> })}
        <p class="hint" role="status">
            {move || {
                let held = waiting.with(VecDeque::len);
                match seen.get() {
                    0 => "Waiting for new lines…".to_owned(),
                    n if reading.is_on() && held > 0 => {
                        format!("{} new lines · {} wait while you read", grouped(n as u64), grouped(held as u64))
                    }
                    n => format!("{} new lines", grouped(n as u64)),
                }
            }}
        </p>
        {move || {
            let rows = rows.get();
            (!rows.is_empty()).then(|| view! { <Lines rows=rows reading=reading/> })
        }}
    }
}
