//! The chosen span, whole: figures, its log lines, events, attributes, links, resource.

use crate::url::{encode, use_range, use_set_params, zone_minutes};
use crate::widgets::breakable;
use crate::widgets::log::{body_text, severity_class, severity_name};
use leptos::prelude::*;
use trefoil_api::logs::LogRow;
use trefoil_api::otlp::KeyValue;
use ui_core::format::duration;
use ui_core::time::clock;
use ui_core::waterfall::Row;

/// * `logs`: of this span and of its service's spans below it.
#[component]
pub fn Details(row: Row, trace_start_ns: u64, logs: Vec<LogRow>) -> impl IntoView {
    let set = use_set_params();
    let range = use_range();
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
            let range = range.get_untracked().query();
            let href = format!("/trace/{}?span={}&{range}", link.trace_id, link.span_id);
            view! { <li><a class="inline" href=href><code>{link.trace_id.clone()}</code></a><Attributes pairs=link.attributes.clone()/></li> }
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
                <span class="dim after">"+"{duration(after as f64)}</span>
                <span class="body">{body_text(&log)}</span>
            </a>
        </li>
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
                    let text = match pair.value.plain() {
                        serde_json::Value::String(text) => text,
                        other => other.to_string(),
                    };
                    view! { <dt>{breakable(&pair.key, '.')}</dt><dd>{text}</dd> }
                })
                .collect_view()}
        </dl>
    }
    .into_any()
}
