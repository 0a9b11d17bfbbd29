//! Logs: search, histogram over time, live tail; every line leads to its trace.

mod lines;
mod tail;

use super::{bounds_query, set_title};
use crate::chart::bars::SeverityBars;
use crate::client::{Load, load, load_until};
use crate::url::{encode, now_ns, use_param, use_range, use_set_params};
use crate::widgets::colour::meet;
use crate::widgets::states::show;
use leptos::prelude::*;
use lines::{Lines, Reading};
use std::sync::Arc;
use tail::Tail;
use trefoil_api::logs::{LogHistogram, LogList};
use ui_core::format::grouped;
use ui_core::time::Range;

/// Lines fetched at first; the list draws only those in view.
const FIRST: usize = 1_000;

/// Lines fetched in addition when they are asked for.
const MORE: usize = 5_000;

/// Lines fetched at most.
const MOST: usize = 50_000;

#[component]
pub fn Logs() -> impl IntoView {
    set_title("Logs");
    let range = use_range();
    let q = use_param("q");
    let tail = use_param("tail");
    let tailing = Memo::new(move |_| tail.with(|tail| tail == "1"));
    let set = use_set_params();
    let reading = Reading::default();
    let wanted = RwSignal::new(FIRST);
    // Lines that move away under one's eyes can't be read.
    let list = load_until::<LogList>(
        move || {
            // The number comes last: more lines are an answer to the same question.
            format!(
                "/api/logs?q={}&count=true&{}&_=&limit={}",
                encode(&q.get()),
                bounds_query(&range.get()),
                wanted.get()
            )
        },
        move |list| {
            let all = list.total.is_some_and(|total| list.logs.len() as u64 >= total);
            reading.is_on_untracked() && (all || list.logs.len() >= wanted.get_untracked())
        },
    );
    Effect::new(move |before: Option<String>| {
        let q = q.get();
        if before.is_some_and(|before| before != q) {
            reading.end();
            wanted.set(FIRST);
        }
        q
    });
    let bounds = move || range.get().bounds(now_ns());
    let step = move || {
        let (start, end) = bounds();
        // Whole seconds, about sixty bars.
        ((end - start) / 60).div_ceil(1_000_000_000).max(1) * 1_000_000_000
    };
    let histogram = load::<LogHistogram>(move || {
        let step_s = step() / 1_000_000_000;
        format!(
            "/api/logs/histogram?q={}&step={step_s}s&{}",
            encode(&q.get()),
            bounds_query(&range.get())
        )
    });
    let set_query = set.clone();
    let set_tail = set.clone();
    let pick = {
        let set = set.clone();
        Callback::new(move |(start, end): (u64, u64)| {
            set(&[
                ("range", None),
                ("start", Some(start.to_string())),
                ("end", Some(end.to_string())),
            ]);
        })
    };
    view! {
        <h1>"Logs"</h1>
        <form class="search wide" role="search" aria-label="Logs" on:submit=|event| event.prevent_default()>
            <label class="grow">
                <span class="hidden">"Query"</span>
                <input
                    data-testid="log-query" placeholder="payment AND severity:error" spellcheck="false"
                    prop:value=q on:change=move |event| set_query(&[("q", Some(event_target_value(&event)))])
                />
            </label>
            <button
                type="button" aria-pressed=move || tailing.get().to_string()
                on:click=move |_| set_tail(&[("tail", (!tailing.get_untracked()).then(|| "1".to_owned()))])
            >
                <span class="pulse" class:on=tailing></span>"Tail"
            </button>
        </form>
        <details class="help">
            <summary>"Query language"</summary>
            <p>
                <code>"declined card"</code>" both words · "<code>"\"card declined\""</code>" phrase · "
                <code>"pay*"</code>" prefix · "<code>"severity:error"</code>" · "<code>"service:checkout"</code>" · "
                <code>"http.route:\"/pay\""</code>" · "<code>"order.total:>100"</code>" · "
                <code>"order.total:[10 TO 20]"</code>" · "<code>"trace_id:4bf9…"</code>" · "
                <code>"AND OR NOT ( )"</code>
            </p>
        </details>
        <Show when=move || !tailing.get() fallback=move || view! { <Tail q=q/> }>
            {move || match histogram.get() {
                Load::Ready(found) => {
                    let (start, end) = range.get_untracked().bounds(now_ns());
                    let buckets =
                        found.buckets.into_iter().map(|b| (b.start_unix_nano, b.counts)).collect();
                    Some(view! {
                        <SeverityBars buckets=buckets start=start end=end step_ns=found.step_ns on_pick=pick/>
                    })
                }
                _ => None,
            }}
            {show(list, move |list| {
                let total = list.total.unwrap_or(list.logs.len() as u64);
                meet(list.logs.iter().map(|row| row.service.as_str()));
                if list.logs.is_empty() {
                    view! {
                        <section class="state">
                            <h2>"No logs match"</h2>
                            <p>"Loosen the query, or widen the time range."</p>
                        </section>
                    }
                    .into_any()
                } else {
                    let more = total > list.logs.len() as u64;
                    let shown = list.logs.len();
                    view! {
                        <p class="hint" role="status">
                            {format!("{} lines", grouped(total))}
                            {more.then(|| format!(", the newest {} shown", grouped(shown as u64)))}
                            {move || (reading.is_on() && range.with(Range::is_live)).then_some(" · held still while you read")}
                        </p>
                        <Lines rows=Arc::new(list.logs) reading=reading/>
                        {(more && shown < MOST).then(|| view! {
                            <p class="more-lines">
                                <button
                                    type="button" data-key="more-lines"
                                    on:click=move |_| wanted.update(|wanted| *wanted = (*wanted + MORE).min(MOST))
                                >
                                    {format!("Fetch {} more", grouped(MORE as u64))}
                                </button>
                            </p>
                        })}
                    }
                    .into_any()
                }
            })}
        </Show>
    }
}
