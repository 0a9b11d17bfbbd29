//! Logs: search, histogram over time, live tail; every line leads to its trace.

use super::trace::{body_text, severity_class, severity_name};
use super::{bounds_query, set_title};
use crate::chart::bars::SeverityBars;
use crate::client::{Load, load};
use crate::url::{encode, now_ns, use_param, use_range, use_set_params, zone_minutes};
use crate::widgets::Chip;
use crate::widgets::states::show;
use futures::StreamExt;
use gloo_net::eventsource::futures::EventSource;
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use trefoil_api::logs::{LogHistogram, LogList, LogRow};
use ui_core::format::count;
use ui_core::time::date_clock;

/// Height of a line, px; the style sheet has the same number.
const LINE_PX: usize = 26;

/// Lines fetched; the list draws only those in view.
const LIMIT: usize = 5_000;

/// Lines kept while tailing.
const TAIL_MAX: usize = 2_000;

#[component]
pub fn Logs() -> impl IntoView {
    set_title("Logs");
    let range = use_range();
    let q = use_param("q");
    let tailing = RwSignal::new(false);
    let set = use_set_params();
    let list = load::<LogList>(move || {
        format!(
            "/api/logs?q={}&limit={LIMIT}&count=true&{}",
            encode(&q.get()),
            bounds_query(&range.get())
        )
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
                on:click=move |_| tailing.update(|on| *on = !*on)
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
                            {format!("{} lines", count(total as f64))}
                            {more.then(|| format!(", the newest {shown} shown"))}
                        </p>
                        <Lines rows=Arc::new(list.logs)/>
                    }
                    .into_any()
                }
            })}
        </Show>
    }
}

/// A list of which only the lines in view are drawn; opened lines stand below the list's own flow.
#[component]
fn Lines(rows: Arc<Vec<LogRow>>) -> impl IntoView {
    let top = RwSignal::new(0usize);
    let height = RwSignal::new(700usize);
    let open = RwSignal::new(None::<usize>);
    let frame = NodeRef::<leptos::html::Div>::new();
    let total = rows.len();
    let drawn = {
        let rows = rows.clone();
        move || {
            let first = (top.get() / LINE_PX).saturating_sub(10);
            let many = height.get() / LINE_PX + 22;
            rows.iter()
                .enumerate()
                .skip(first)
                .take(many)
                .map(|(at, row)| {
                    let place = format!("{}px", at * LINE_PX);
                    let class = format!("logrow {}", severity_class(row));
                    view! {
                        <div class=class style:top=place class:chosen=move || open.get() == Some(at) data-testid="log-row">
                            {line(row, Callback::new(move |()| open.update(|o| *o = if *o == Some(at) { None } else { Some(at) })))}
                        </div>
                    }
                })
                .collect_view()
        }
    };
    let details = move || {
        open.get().and_then(|at| rows.get(at).cloned()).map(|row| view! { <Opened row=row/> })
    };
    view! {
        <div
            class="loglist" node_ref=frame tabindex="0" aria-label="Log lines"
            on:scroll=move |_| {
                if let Some(frame) = frame.get_untracked() {
                    top.set(frame.scroll_top().max(0) as usize);
                    height.set(frame.client_height().max(0) as usize);
                }
            }
        >
            <div class="space" style:height=format!("{}px", total * LINE_PX)>{drawn}</div>
        </div>
        {details}
    }
}

fn line(row: &LogRow, on_open: Callback<()>) -> impl IntoView + use<> {
    let zone = zone_minutes();
    let trace = (!row.trace_id.is_empty()).then(|| {
        let span = if row.span_id.is_empty() { String::new() } else { format!("?span={}", row.span_id) };
        let href = format!("/trace/{}{span}", row.trace_id);
        view! { <a class="totrace" href=href data-testid="log-trace-link" title="Open its trace">"trace"</a> }
    });
    view! {
        <button type="button" class="line" on:click=move |_| on_open.run(())>
            <time class="dim">{date_clock(row.time_unix_nano, zone, true)}</time>
            <span class=format!("sev {}", severity_class(row))>{severity_name(row)}</span>
            <span class="svc"><Chip name=row.service.clone()/>{row.service.clone()}</span>
            <span class="body">{body_text(row)}</span>
        </button>
        {trace}
    }
}

/// One record whole.
#[component]
fn Opened(row: LogRow) -> impl IntoView {
    let range = use_range();
    let set = use_set_params();
    let q = use_param("q");
    let pairs = |object: serde_json::Map<String, serde_json::Value>| {
        let set = set.clone();
        object
            .into_iter()
            .map(move |(key, value)| {
                let text = match &value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let set = set.clone();
                let condition = format!("{key}:{}", serde_json::Value::String(text.clone()));
                let narrow = move |_| {
                    let before = q.get_untracked();
                    let next =
                        if before.is_empty() { condition.clone() } else { format!("({before}) AND {condition}") };
                    set(&[("q", Some(next))]);
                };
                view! {
                    <dt>{key}</dt>
                    <dd><button type="button" class="link" title="Narrow the search to this" on:click=narrow>{text}</button></dd>
                }
            })
            .collect_view()
    };
    view! {
        <section class="opened" aria-label="Log record">
            <pre class="bodytext">{body_text(&row)}</pre>
            <div class="columns">
                <div>
                    <h3>"Record"</h3>
                    <dl class="pairs">
                        <dt>"time"</dt><dd>{row.timestamp.clone()}</dd>
                        <dt>"service"</dt>
                        <dd><crate::widgets::ServiceLink name=row.service.clone() query=range.get_untracked().query()/></dd>
                        {(!row.trace_id.is_empty()).then(|| view! {
                            <dt>"trace_id"</dt>
                            <dd><a href=format!("/trace/{}?span={}", row.trace_id, row.span_id)><code>{row.trace_id.clone()}</code></a></dd>
                            <dt>"span_id"</dt><dd><code>{row.span_id.clone()}</code></dd>
                        })}
                        {(!row.scope.is_empty()).then(|| view! { <dt>"scope"</dt><dd>{row.scope.clone()}</dd> })}
                        {(!row.event_name.is_empty()).then(|| view! { <dt>"event_name"</dt><dd>{row.event_name.clone()}</dd> })}
                    </dl>
                </div>
                <div><h3>"Attributes"</h3><dl class="pairs">{pairs(row.attributes)}</dl></div>
                <div><h3>"Resource"</h3><dl class="pairs">{pairs(row.resource)}</dl></div>
            </div>
        </section>
    }
}

/// Lines as they come in, the newest first.
#[component]
fn Tail(q: Memo<String>) -> impl IntoView {
    let rows = RwSignal::new(VecDeque::<LogRow>::new());
    let problem = RwSignal::new(None::<String>);
    let turn = StoredValue::new(0u32);
    Effect::new(move |_| {
        let path = format!("/api/logs/tail?q={}", encode(&q.get()));
        let mine = turn.get_value().wrapping_add(1);
        turn.set_value(mine);
        rows.set(VecDeque::new());
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
                            rows.update(|rows| {
                                rows.push_front(row);
                                rows.truncate(TAIL_MAX);
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
    on_cleanup(move || turn.set_value(u32::MAX));
    let seen = Memo::new(move |_| rows.with(VecDeque::len));
    view! {
        {move || problem.get().map(|text| view! { <crate::widgets::states::Failed message=text/> })}
        <p class="hint" role="status">
            {move || if seen.get() == 0 { "Waiting for new lines…".to_owned() } else { format!("{} new lines", seen.get()) }}
        </p>
        {move || {
            let rows: Vec<LogRow> = rows.with(|rows| rows.iter().cloned().collect());
            let distinct: HashSet<&str> = rows.iter().map(|r| r.service.as_str()).collect();
            (!distinct.is_empty()).then(|| view! { <Lines rows=Arc::new(rows.clone())/> })
        }}
    }
}
