//! Trace: the waterfall, the chosen span's details, and the trace's logs in line.

mod bars;
mod details;

use super::set_title;
use crate::client::load_until;
use crate::url::{encode, now_ns, use_param, use_range, use_set_params, zone_minutes};
use crate::widgets::colour::meet;
use crate::widgets::log::{body_text, severity_class, severity_name};
use crate::widgets::states::show;
use crate::widgets::{Chip, ServiceLink};
use bars::{Bars, Look};
use details::Details;
use leptos::prelude::*;
use leptos_router::hooks::use_params_map;
use std::collections::HashSet;
use std::sync::Arc;
use trefoil_api::logs::LogRow;
use trefoil_api::metrics::ExemplarRow;
use trefoil_api::traces::{ContextService, TraceContext};
use ui_core::format::{duration, percent, rate};
use ui_core::promql::complete::escape;
use ui_core::promql::unit::unit;
use ui_core::time::date_clock;
use ui_core::waterfall::{is_settled, layout};

#[component]
pub fn Trace() -> impl IntoView {
    let params = use_params_map();
    let id = Memo::new(move |_| params.with(|p| p.get("id").unwrap_or_default()));
    Effect::new(move |_| set_title(&format!("Trace {}", id.get().get(..8).unwrap_or("?"))));
    // Spans that come late redraw the page: how it is looked at lives longer than what is drawn.
    let look = Look::default();
    Effect::new(move |before: Option<String>| {
        let id = id.get();
        if before.is_some_and(|before| before != id) {
            look.reset();
        }
        id
    });
    let context = load_until::<TraceContext>(
        move || format!("/api/traces/{}/context", encode(&id.get())),
        |context| is_settled(&context.trace, now_ns()),
    );
    show(context, move |context| view! { <Whole context=context look=look/> })
}

#[component]
fn Whole(context: TraceContext, look: Look) -> impl IntoView {
    let range = use_range();
    let waterfall = Arc::new(layout(&context.trace));
    meet(waterfall.services.iter().map(|(name, _)| name.as_str()));
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
            <Bars waterfall=drawn selected=selected logs=logs.clone() look=look/>
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
                            let query = question(&e);
                            let href = format!("/explore?q={}&{}", encode(&query), range.get_untracked().query());
                            let show = unit(e.metric.trim_end_matches("_bucket")).show();
                            let service = e.labels.get("job").cloned().unwrap_or_default();
                            view! {
                                <li>
                                    <a class="inline" href=href title=query><code>{e.metric}</code></a>
                                    <span class="dim">{service}</span>
                                    <b>{show(e.value)}</b>
                                </li>
                            }
                        })
                        .collect_view()}
                </ul>
            </section>
        })}
    }
}

/// What to ask about an exemplar's metric: how the measurements of its service were spread, or how many there were.
fn question(exemplar: &ExemplarRow) -> String {
    let job = exemplar.labels.get("job").map(|job| format!("{{job=\"{}\"}}", escape(job)));
    let series = format!("{}{}", exemplar.metric, job.unwrap_or_default());
    if exemplar.metric.ends_with("_bucket") {
        format!("sum by (le) (rate({series}[1m]))")
    } else if exemplar.metric.ends_with("_total") {
        format!("sum(rate({series}[1m]))")
    } else {
        series
    }
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
                        <span class="dim after">"+"{duration(after as f64)}</span>
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
