//! A list of log lines, and the opened one beside it.

use crate::url::{use_param, use_range, use_set_params, zone_minutes};
use crate::widgets::log::{body_text, severity_class, severity_name};
use crate::widgets::{Chip, breakable};
use leptos::prelude::*;
use std::sync::Arc;
use trefoil_api::logs::LogRow;
use ui_core::time::{Range, clock, date_clock};

/// Height of a line, px; the style sheet has the same number.
const LINE_PX: usize = 26;

/// Lines drawn beyond what is seen, above and below.
const SPARE_LINES: usize = 11;

/// Where somebody is in a list. It lives longer than a list that is drawn anew.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    /// px scrolled away.
    top: RwSignal<usize>,
    open: RwSignal<Option<LogRow>>,
}

impl Reading {
    /// Whether lines must stay where they are.
    pub fn is_on(self) -> bool {
        self.top.get() > 0 || self.open.with(Option::is_some)
    }

    /// The same for once, also when the page is another by now.
    pub fn is_on_untracked(self) -> bool {
        self.top.try_get_untracked().unwrap_or_default() > 0
            || self.open.try_with_untracked(Option::is_some).unwrap_or_default()
    }

    /// Back to the top, nothing opened.
    pub fn end(self) {
        self.top.set(0);
        self.open.set(None);
    }
}

/// Only the lines in view are drawn. Up and down open the line before and after.
#[component]
pub fn Lines(rows: Arc<Vec<LogRow>>, reading: Reading) -> impl IntoView {
    let Reading { top, open } = reading;
    let range = use_range();
    let height = RwSignal::new(700usize);
    let frame = NodeRef::<leptos::html::Div>::new();
    let total = rows.len();
    Effect::new(move |_| {
        if let Some(frame) = frame.get() {
            height.set(frame.client_height().max(0) as usize);
            frame.set_scroll_top(top.get_untracked() as i32);
        }
    });
    let toggle = move |row: &LogRow| {
        open.update(|open| {
            *open = if open.as_ref() == Some(row) { None } else { Some(row.clone()) }
        });
    };
    let for_keys = rows.clone();
    let on_key = move |event: leptos::ev::KeyboardEvent| {
        let at =
            open.with_untracked(|open| for_keys.iter().position(|row| Some(row) == open.as_ref()));
        let last = for_keys.len().saturating_sub(1);
        let next = match event.key().as_str() {
            "ArrowDown" | "j" => at.map_or(top.get_untracked() / LINE_PX, |at| (at + 1).min(last)),
            "ArrowUp" | "k" => at.map_or(top.get_untracked() / LINE_PX, |at| at.saturating_sub(1)),
            "Escape" => return open.set(None),
            _ => return,
        };
        event.prevent_default();
        open.set(for_keys.get(next).cloned());
        if let Some(frame) = frame.get_untracked() {
            let (top, height) = (frame.scroll_top(), frame.client_height());
            let (upper, lower) = ((next * LINE_PX) as i32, ((next + 1) * LINE_PX) as i32);
            if upper < top {
                frame.set_scroll_top(upper);
            } else if lower > top + height {
                frame.set_scroll_top(lower - height);
            }
        }
    };
    let drawn = move || {
        let first = (top.get() / LINE_PX).saturating_sub(SPARE_LINES);
        let many = height.get() / LINE_PX + 2 * SPARE_LINES;
        rows.iter()
            .enumerate()
            .skip(first)
            .take(many)
            .map(|(at, row)| {
                let place = format!("{}px", at * LINE_PX);
                let class = format!("logrow {}", severity_class(row));
                let (mine, opens) = (row.clone(), row.clone());
                let chosen = move || open.with(|open| open.as_ref() == Some(&mine));
                view! {
                    <div class=class style:top=place class:chosen=chosen data-testid="log-row">
                        {line(row, range, move || toggle(&opens))}
                    </div>
                }
            })
            .collect_view()
    };
    let close = Callback::new(move |()| open.set(None));
    view! {
        <div class="logs" class:split=move || open.with(Option::is_some)>
            <div
                class="loglist" node_ref=frame tabindex="0" role="region"
                aria-label="Log lines; up and down open one" data-key="log-lines"
                on:scroll=move |_| {
                    if let Some(frame) = frame.get_untracked() {
                        top.set(frame.scroll_top().max(0) as usize);
                        height.set(frame.client_height().max(0) as usize);
                    }
                }
                on:keydown=on_key
            >
                <div class="space" style:height=format!("{}px", total * LINE_PX)>{drawn}</div>
            </div>
            {move || open.get().map(|row| view! { <Opened row=row on_close=close/> })}
        </div>
    }
}

/// The keyboard goes by lines: what is in a line is for the mouse, and in the opened record again.
fn line<F: Fn() + 'static>(row: &LogRow, range: Memo<Range>, on_open: F) -> impl IntoView + use<F> {
    let zone = zone_minutes();
    let whole = date_clock(row.time_unix_nano, zone, true);
    let (date, time) = (whole[..11].to_owned(), clock(row.time_unix_nano, zone, true));
    let trace = (!row.trace_id.is_empty()).then(|| {
        let href = trace_address(row, &range.get_untracked());
        view! {
            <a class="totrace" href=href tabindex="-1" data-testid="log-trace-link" title="Open its trace">
                "trace"
            </a>
        }
    });
    view! {
        <button type="button" class="line" tabindex="-1" on:click=move |_| on_open()>
            <time class="dim" title=whole><span class="date">{date}</span>{time}</time>
            <span class=format!("sev {}", severity_class(row))>{severity_name(row)}</span>
            <span class="svc" title=row.service.clone()><Chip name=row.service.clone()/>{row.service.clone()}</span>
            <span class="body">{body_text(row)}</span>
        </button>
        {trace}
    }
}

fn trace_address(row: &LogRow, range: &Range) -> String {
    let span =
        if row.span_id.is_empty() { String::new() } else { format!("span={}&", row.span_id) };
    format!("/trace/{}?{span}{}", row.trace_id, range.query())
}

/// One record whole.
#[component]
fn Opened(row: LogRow, on_close: Callback<()>) -> impl IntoView {
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
                    <dt>{breakable(&key, '.')}</dt>
                    <dd><button type="button" class="link" title="Narrow the search to this" on:click=narrow>{text}</button></dd>
                }
            })
            .collect_view()
    };
    let zone = zone_minutes();
    let service = row.service.clone();
    let has_trace = !row.trace_id.is_empty();
    let href = trace_address(&row, &range.get_untracked());
    view! {
        <aside class="details" aria-label="Log record" aria-live="polite">
            <div class="heading">
                <h2>
                    <span class=format!("sev {}", severity_class(&row))>{severity_name(&row)}</span>
                    <time>{date_clock(row.time_unix_nano, zone, true)}</time>
                </h2>
                <button type="button" class="plain icon" aria-label="Close" on:click=move |_| on_close.run(())>"✕"</button>
            </div>
            <pre class="bodytext">{body_text(&row)}</pre>
            {has_trace.then(|| view! {
                <p class="onward"><a href=href.clone() data-key="open-trace">"Open its trace"</a></p>
            })}
            <dl class="pairs">
                <dt>"service"</dt>
                <dd><crate::widgets::ServiceLink name=service query=range.get_untracked().query()/></dd>
                <dt>"time"</dt><dd>{row.timestamp.clone()}</dd>
                {has_trace.then(|| view! {
                    <dt>"trace_id"</dt><dd>{row.trace_id.clone()}</dd>
                    <dt>"span_id"</dt><dd>{row.span_id.clone()}</dd>
                })}
                {(!row.scope.is_empty()).then(|| view! { <dt>"scope"</dt><dd>{row.scope.clone()}</dd> })}
                {(!row.event_name.is_empty()).then(|| view! { <dt>"event_name"</dt><dd>{row.event_name.clone()}</dd> })}
            </dl>
            <h3>"Attributes"</h3>
            {if row.attributes.is_empty() {
                view! { <p class="dim">"none"</p> }.into_any()
            } else {
                view! { <dl class="pairs">{pairs(row.attributes)}</dl> }.into_any()
            }}
            <h3>"Resource"</h3>
            <dl class="pairs">{pairs(row.resource)}</dl>
        </aside>
    }
}
