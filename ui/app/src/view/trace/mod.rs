//! Trace: the waterfall, the chosen span's details, and the trace's logs in line.

use super::set_title;
use crate::client::load;
use crate::url::{encode, use_param, use_range, use_set_params, zone_minutes};
use crate::widgets::states::show;
use crate::widgets::{Chip, ServiceLink};
use leptos::prelude::*;
use leptos_router::hooks::use_params_map;
use std::collections::HashSet;
use std::sync::Arc;
use trefoil_api::logs::LogRow;
use trefoil_api::otlp::{KeyValue, plain};
use trefoil_api::traces::{ContextService, TraceContext};
use ui_core::format::{duration, hue, percent, rate};
use ui_core::time::{clock, date_clock};
use ui_core::waterfall::{Row, Waterfall, layout, visible};

/// Height of a waterfall row, px; the style sheet has the same number.
const ROW_PX: usize = 28;

/// Rows drawn beyond what is seen, above and below.
const SPARE_ROWS: usize = 12;

#[component]
pub fn Trace() -> impl IntoView {
    let params = use_params_map();
    let id = Memo::new(move |_| params.with(|p| p.get("id").unwrap_or_default()));
    Effect::new(move |_| set_title(&format!("Trace {}", id.get().get(..8).unwrap_or("?"))));
    let context =
        load::<TraceContext>(move || format!("/api/traces/{}/context", encode(&id.get())));
    show(context, move |context| view! { <Whole context=context/> })
}

#[component]
fn Whole(context: TraceContext) -> impl IntoView {
    let range = use_range();
    let waterfall = Arc::new(layout(&context.trace));
    let logs = Arc::new(context.logs);
    let zone = zone_minutes();
    let root = waterfall.rows.first().cloned();
    let (title, service) = root
        .map_or(("spans not received yet".to_owned(), String::new()), |row| {
            (row.span.name, row.service)
        });
    let trace_id = waterfall.rows.first().map(|row| row.span.trace_id.clone()).unwrap_or_default();
    let selected = use_param("span");
    let legend = waterfall
        .services
        .iter()
        .map(|(name, spans)| {
            let query = range.get_untracked().query();
            view! { <li><ServiceLink name=name.clone() query=query/><span class="dim">{*spans}</span></li> }
        })
        .collect_view();
    let for_details = waterfall.clone();
    let for_logs = logs.clone();
    let details = move || {
        let chosen = selected.get();
        let at = for_details.rows.iter().position(|row| row.span.span_id == chosen)?;
        let row = for_details.rows[at].clone();
        let start_ns = for_details.start_ns;
        // A service often logs in a span of its own below the one that is looked at.
        let mine: HashSet<&str> = for_details.rows[at..=at + row.descendants]
            .iter()
            .filter(|below| below.service == row.service)
            .map(|below| below.span.span_id.as_str())
            .collect();
        let logs: Vec<LogRow> =
            for_logs.iter().filter(|log| mine.contains(log.span_id.as_str())).cloned().collect();
        Some(view! { <Details row=row trace_start_ns=start_ns logs=logs/> })
    };
    let errors = waterfall.errors;
    let drawn = waterfall.clone();
    view! {
        <div class="heading">
            <h1><Chip name=service.clone()/>{service} <span class="dim">{title}</span></h1>
            <code class="id" title="Trace ID">{trace_id.clone()}</code>
        </div>
        <dl class="figures">
            <div><dt>"Start"</dt><dd>{date_clock(waterfall.start_ns, zone, true)}</dd></div>
            <div><dt>"Duration"</dt><dd>{duration(waterfall.duration_ns() as f64)}</dd></div>
            <div><dt>"Spans"</dt><dd>{waterfall.rows.len()}</dd></div>
            <div class:bad=errors != 0><dt>"Errors"</dt><dd>{errors}</dd></div>
            <div><dt>"Logs"</dt><dd>{logs.len()}</dd></div>
        </dl>
        <ul class="legend" aria-label="Services on this trace">{legend}</ul>
        <div class="trace" class:split=move || !selected.get().is_empty()>
            <Bars waterfall=drawn selected=selected logs=logs.clone()/>
            {details}
        </div>
        <TraceLogs logs=logs start_ns=waterfall.start_ns selected=selected/>
        <Around services=context.services/>
        {(!context.exemplars.is_empty()).then(|| view! {
            <section aria-labelledby="exemplars-title">
                <h2 id="exemplars-title">"Metrics that point here"</h2>
                <ul class="exemplars">
                    {context
                        .exemplars
                        .into_iter()
                        .take(20)
                        .map(|e| {
                            let href = format!("/explore?q={}&{}", encode(&e.metric), range.get_untracked().query());
                            view! { <li><a href=href><code>{e.metric}</code></a>" "<b>{e.value}</b></li> }
                        })
                        .collect_view()}
                </ul>
            </section>
        })}
    }
}

#[component]
fn Bars(
    waterfall: Arc<Waterfall>,
    selected: Memo<String>,
    logs: Arc<Vec<LogRow>>,
) -> impl IntoView {
    let folded = RwSignal::new(HashSet::<String>::new());
    let top = RwSignal::new(0usize);
    let height = RwSignal::new(640usize);
    let set = use_set_params();
    let for_rows = waterfall.clone();
    let shown = Memo::new(move |_| folded.with(|folded| visible(&for_rows.rows, folded)));
    let frame = NodeRef::<leptos::html::Div>::new();
    let measure = move || {
        if let Some(frame) = frame.get_untracked() {
            top.set(frame.scroll_top().max(0) as usize);
            height.set(frame.client_height().max(0) as usize);
        }
    };
    // A span named in the address is scrolled to once.
    let for_scroll = waterfall.clone();
    Effect::new(move |done: Option<bool>| {
        let Some(frame) = frame.get() else { return false };
        if done != Some(true) {
            let chosen = selected.get_untracked();
            let at = shown.with_untracked(|shown| {
                shown.iter().position(|row| for_scroll.rows[*row].span.span_id == chosen)
            });
            if let Some(at) = at {
                frame.set_scroll_top((at * ROW_PX).saturating_sub(160) as i32);
            }
        }
        true
    });
    let logged: HashSet<String> = logs.iter().map(|log| log.span_id.clone()).collect();
    let logged = Arc::new(logged);
    let for_keys = waterfall.clone();
    let set_for_keys = set.clone();
    let on_key = move |event: leptos::ev::KeyboardEvent| {
        let step: isize = match event.key().as_str() {
            "ArrowDown" | "j" => 1,
            "ArrowUp" | "k" => -1,
            "Escape" => {
                set_for_keys(&[("span", None)]);
                return;
            }
            _ => return,
        };
        event.prevent_default();
        let chosen = selected.get_untracked();
        shown.with_untracked(|shown| {
            let at = shown.iter().position(|row| for_keys.rows[*row].span.span_id == chosen);
            let next = at
                .map_or(0, |at| at.saturating_add_signed(step))
                .min(shown.len().saturating_sub(1));
            if let Some(row) = shown.get(next) {
                set_for_keys(&[("span", Some(for_keys.rows[*row].span.span_id.clone()))]);
            }
        });
    };
    let for_window = waterfall.clone();
    let rows = move || {
        let first = (top.get() / ROW_PX).saturating_sub(SPARE_ROWS);
        let count = height.get() / ROW_PX + 2 * SPARE_ROWS + 1;
        let chosen = selected.get();
        shown.with(|shown| {
            shown
                .iter()
                .enumerate()
                .skip(first)
                .take(count)
                .map(|(place, row)| {
                    let row = &for_window.rows[*row];
                    let is_folded = folded.with_untracked(|f| f.contains(&row.span.span_id));
                    let facts = BarFacts {
                        place,
                        bar: for_window.bar(&row.span),
                        chosen: row.span.span_id == chosen,
                        folded: is_folded,
                        logged: logged.contains(&row.span.span_id),
                    };
                    bar_row(row, facts, folded, set.clone())
                })
                .collect_view()
        })
    };
    let total = move || format!("{}px", shown.with(Vec::len) * ROW_PX);
    let duration_ns = waterfall.duration_ns() as f64;
    let ticks = (0..=4)
        .map(|i| view! { <span>{duration(duration_ns * f64::from(i) / 4.0)}</span> })
        .collect_view();
    view! {
        <div class="waterfall" data-testid="waterfall">
            <div class="ruler" aria-hidden="true"><span></span><div>{ticks}</div></div>
            <div
                class="rows" node_ref=frame on:scroll=move |_| measure() on:keydown=on_key
                tabindex="0" role="listbox" aria-label="Spans; arrow keys move the selection"
            >
                <div class="space" style:height=total>{rows}</div>
            </div>
        </div>
    }
}

struct BarFacts {
    place: usize,
    bar: (f64, f64),
    chosen: bool,
    folded: bool,
    logged: bool,
}

fn bar_row<S>(
    row: &Row,
    facts: BarFacts,
    folded: RwSignal<HashSet<String>>,
    set: S,
) -> impl IntoView + use<S>
where
    S: Fn(&[(&str, Option<String>)]) + Clone + 'static,
{
    let id = row.span.span_id.clone();
    let for_fold = id.clone();
    let fold = move |event: leptos::ev::MouseEvent| {
        event.stop_propagation();
        folded.update(|folded| {
            if !folded.remove(&for_fold) {
                folded.insert(for_fold.clone());
            }
        });
    };
    let for_click = id.clone();
    let chosen = facts.chosen;
    let click = move |_| {
        set(&[("span", if chosen { None } else { Some(for_click.clone()) })]);
    };
    let (left, width) = facts.bar;
    // Beside the bar where there is room, else inside of it.
    let after = left + width <= 0.8;
    let before = !after && left >= 0.15;
    let ns = row.span.duration_ns();
    view! {
        <div
            class="row" class:chosen=facts.chosen class:error=row.span.is_error() class:critical=row.critical
            style:top=format!("{}px", facts.place * ROW_PX)
            role="option" aria-selected=facts.chosen.to_string()
            data-testid="span-row" data-span-id=id data-service=row.service.clone()
            data-duration-ns=ns.to_string() data-name=row.span.name.clone()
            on:click=click
        >
            <div class="name" style:padding-left=format!("{}px", row.depth.min(24) * 14 + 4)>
                {if row.descendants > 0 {
                    view! {
                        <button
                            type="button" class="fold" tabindex="-1" on:click=fold
                            aria-label=if facts.folded { "Unfold" } else { "Fold" }
                        >
                            {if facts.folded { "▸" } else { "▾" }}
                        </button>
                    }
                    .into_any()
                } else {
                    view! { <span class="fold"></span> }.into_any()
                }}
                <Chip name=row.service.clone()/>
                <span class="what" title=format!("{} {}", row.service, row.span.name)>
                    {row.span.name.clone()}<span class="dim">" "{row.service.clone()}</span>
                </span>
                {facts.logged.then(|| view! { <span class="haslogs" title="has log lines">"≡"</span> })}
                {row.orphan.then(|| view! { <span class="dim" title="its parent is not stored">"⌁"</span> })}
            </div>
            <div class="track">
                <span
                    class="span" style:--hue=hue(&row.service).to_string()
                    style:left=format!("{}%", left * 100.0) style:width=format!("max(2px, {}%)", width * 100.0)
                ></span>
                <span
                    class="time" class:before=before class:inside=!after && !before
                    style:left=format!("{}%", if before { left } else { left + width } * 100.0)
                >
                    {duration(ns as f64)}
                </span>
            </div>
        </div>
    }
}

#[component]
fn Details(row: Row, trace_start_ns: u64, logs: Vec<LogRow>) -> impl IntoView {
    let set = use_set_params();
    let span = row.span;
    let zone = zone_minutes();
    let kind = ["unspecified", "internal", "server", "client", "producer", "consumer"];
    let kind = kind.get(span.kind as usize).copied().unwrap_or("unknown");
    let status = match span.status.code {
        1 => "ok",
        2 => "error",
        _ => "unset",
    };
    let offset = span.start_time_unix_nano.saturating_sub(trace_start_ns);
    let events = span
        .events
        .iter()
        .map(|event| {
            let after = event.time_unix_nano.saturating_sub(span.start_time_unix_nano);
            view! {
                <li>
                    <b>{event.name.clone()}</b>
                    <span class="dim">" +"{duration(after as f64)}</span>
                    <Attributes pairs=event.attributes.clone()/>
                </li>
            }
        })
        .collect_view();
    let links = span
        .links
        .iter()
        .map(|link| {
            let href = format!("/trace/{}?span={}", link.trace_id, link.span_id);
            view! { <li><a href=href><code>{link.trace_id.clone()}</code></a><Attributes pairs=link.attributes.clone()/></li> }
        })
        .collect_view();
    view! {
        <aside class="details" data-testid="span-details" aria-label="Span">
            <div class="heading">
                <h2>{span.name.clone()}</h2>
                <button type="button" class="plain" aria-label="Close" on:click=move |_| set(&[("span", None)])>"✕"</button>
            </div>
            <dl class="pairs">
                <dt>"Service"</dt><dd>{row.service.clone()}</dd>
                <dt>"Kind"</dt><dd>{kind}</dd>
                <dt>"Status"</dt>
                <dd class:bad=span.is_error()>{status} {(!span.status.message.is_empty()).then(|| format!(": {}", span.status.message))}</dd>
                <dt>"Start"</dt><dd>{clock(span.start_time_unix_nano, zone, true)}" (+"{duration(offset as f64)}")"</dd>
                <dt>"Duration"</dt><dd>{duration(span.duration_ns() as f64)}</dd>
                <dt>"Span ID"</dt><dd><code>{span.span_id.clone()}</code></dd>
            </dl>
            <h3>"Logs of this span and its service below it"</h3>
            {if logs.is_empty() {
                view! { <p class="dim">"none"</p> }.into_any()
            } else {
                view! {
                    <ul class="loglines">
                        {logs.into_iter().map(|log| log_line(log, span.start_time_unix_nano)).collect_view()}
                    </ul>
                }
                .into_any()
            }}
            {(!span.events.is_empty()).then(|| view! { <h3>"Events"</h3><ul class="events">{events}</ul> })}
            <h3>"Attributes"</h3>
            <Attributes pairs=span.attributes.clone()/>
            {(!span.links.is_empty()).then(|| view! { <h3>"Links"</h3><ul class="events">{links}</ul> })}
            <h3>"Resource"</h3>
            <Attributes pairs=row.resource.attributes/>
            {(!row.scope.name.is_empty()).then(|| view! {
                <h3>"Scope"</h3><p>{row.scope.name.clone()}" "{row.scope.version.clone()}</p>
            })}
        </aside>
    }
}

/// A log line that leads to the logs page, at its place in time.
fn log_line(log: LogRow, span_start_ns: u64) -> impl IntoView {
    let href = format!(
        "/logs?q={}&start={}&end={}",
        encode(&format!("trace_id:{}", log.trace_id)),
        log.time_unix_nano.saturating_sub(60_000_000_000),
        log.time_unix_nano + 60_000_000_000
    );
    let after = log.time_unix_nano.saturating_sub(span_start_ns);
    view! {
        <li data-testid="span-log">
            <a href=href>
                <span class=format!("sev {}", severity_class(&log))>{severity_name(&log)}</span>
                <span class="dim">"+"{duration(after as f64)}</span>
                <span class="body">{body_text(&log)}</span>
            </a>
        </li>
    }
}

/// The class that colours a severity.
pub fn severity_class(log: &LogRow) -> &'static str {
    match log.severity_number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => "unset",
    }
}

pub fn severity_name(log: &LogRow) -> String {
    if log.severity_text.is_empty() {
        severity_class(log).to_uppercase()
    } else {
        log.severity_text.to_uppercase()
    }
}

pub fn body_text(log: &LogRow) -> String {
    match &log.body {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[component]
fn Attributes(pairs: Vec<KeyValue>) -> impl IntoView {
    if pairs.is_empty() {
        return view! { <p class="dim">"none"</p> }.into_any();
    }
    let mut pairs = pairs;
    pairs.sort_by(|a, b| a.key.cmp(&b.key));
    view! {
        <dl class="pairs">
            {pairs
                .into_iter()
                .map(|pair| {
                    let text = match plain(&pair.value) {
                        serde_json::Value::String(text) => text,
                        other => other.to_string(),
                    };
                    view! { <dt>{pair.key}</dt><dd>{text}</dd> }
                })
                .collect_view()}
        </dl>
    }
    .into_any()
}

/// All logs of the trace in time order.
#[component]
fn TraceLogs(logs: Arc<Vec<LogRow>>, start_ns: u64, selected: Memo<String>) -> impl IntoView {
    let set = use_set_params();
    if logs.is_empty() {
        return None;
    }
    let lines = logs
        .iter()
        .take(1_000)
        .map(|log| {
            let span_id = log.span_id.clone();
            let mine = log.span_id.clone();
            let set = set.clone();
            let after = log.time_unix_nano.saturating_sub(start_ns);
            view! {
                <li class:chosen=move || !mine.is_empty() && selected.get() == mine>
                    <button
                        type="button" class="line" title="Show its span"
                        on:click=move |_| set(&[("span", Some(span_id.clone()))])
                    >
                        <span class=format!("sev {}", severity_class(log))>{severity_name(log)}</span>
                        <span class="dim">"+"{duration(after as f64)}</span>
                        <Chip name=log.service.clone()/>
                        <span class="body">{body_text(log)}</span>
                    </button>
                </li>
            }
        })
        .collect_view();
    Some(view! {
        <section aria-labelledby="trace-logs-title">
            <h2 id="trace-logs-title">"Logs of this trace"</h2>
            <ul class="loglines">{lines}</ul>
        </section>
    })
}

/// How the services on the trace did in the minutes around it.
#[component]
fn Around(services: Vec<ContextService>) -> impl IntoView {
    let range = use_range();
    if services.is_empty() {
        return None;
    }
    Some(view! {
        <section aria-labelledby="around-title">
            <h2 id="around-title">"Its services in the five minutes around it"</h2>
            <div class="scroll">
                <table>
                    <thead>
                        <tr>
                            <th scope="col">"Service"</th>
                            <th scope="col" class="number">"Spans here"</th>
                            <th scope="col" class="number">"Rate"</th>
                            <th scope="col" class="number">"Errors"</th>
                            <th scope="col" class="number">"p50"</th>
                            <th scope="col" class="number">"p99"</th>
                        </tr>
                    </thead>
                    <tbody>
                        {services
                            .into_iter()
                            .map(|s| view! {
                                <tr>
                                    <th scope="row"><ServiceLink name=s.name query=range.get_untracked().query()/></th>
                                    <td class="number">{s.span_count}</td>
                                    <td class="number">{rate(s.rate)}</td>
                                    <td class="number" class:bad=s.error_ratio != 0.0>{percent(s.error_ratio)}</td>
                                    <td class="number">{s.p50_ns.map(duration)}</td>
                                    <td class="number">{s.p99_ns.map(duration)}</td>
                                </tr>
                            })
                            .collect_view()}
                    </tbody>
                </table>
            </div>
        </section>
    })
}
