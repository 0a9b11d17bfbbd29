//! Service: rate, errors and durations over time, the heat map whose dots lead to traces, and the operations.

use super::overview::shown;
use super::{bounds_query, set_title};
use crate::chart::dots::Dot;
use crate::chart::heat::HeatMap;
use crate::chart::lines::{Crosshair, Line, LineChart};
use crate::client::load;
use crate::url::{encode, use_param, use_range, use_set_params, zone_minutes};
use crate::widgets::Chip;
use crate::widgets::states::show;
use leptos::prelude::*;
use leptos_router::hooks::use_params_map;
use std::sync::Arc;
use trefoil_api::services::{Heatmap, OperationRow, ServiceDetail, SpanExemplar};
use ui_core::format::{count, duration, grouped, percent, rate};
use ui_core::heat::{Cell, Column, Heat};
use ui_core::promql::complete::escape;
use ui_core::time::clock;

#[component]
pub fn Service() -> impl IntoView {
    let params = use_params_map();
    let name = Memo::new(move |_| params.with(|p| p.get("name").unwrap_or_default()));
    let range = use_range();
    let operation = use_param("operation");
    let kind = use_param("kind");
    provide_context(Crosshair(RwSignal::new(None)));
    Effect::new(move |_| set_title(&name.get()));
    let detail = load::<ServiceDetail>(move || {
        let mut path = format!("/api/services/{}?", encode(&name.get()));
        for (key, value) in [("operation", operation.get()), ("kind", kind.get())] {
            if !value.is_empty() {
                path.push_str(&format!("{key}={}&", encode(&value)));
            }
        }
        path.push_str(&bounds_query(&range.get()));
        path
    });
    let set = use_set_params();
    let traces = move |status: &str| {
        let operation = match operation.get() {
            chosen if chosen.is_empty() => chosen,
            chosen => format!("operation={}&", encode(&chosen)),
        };
        format!(
            "/traces?service={}&{operation}{status}{}",
            encode(&name.get()),
            range.get().query()
        )
    };
    view! {
        <div class="heading">
            <h1>{move || view! { <Chip name=name.get()/> }} {name}</h1>
            <Show when=move || !operation.get().is_empty()>
                {
                    let set = set.clone();
                    view! {
                        <button
                            type="button" class="filter"
                            on:click=move |_| set(&[("operation", None), ("kind", None)])
                        >
                            {operation} " ✕"
                        </button>
                    }
                }
            </Show>
            <nav class="onward" aria-label="Onward">
                <a href=move || traces("")>"Traces"</a>
                <a href=move || traces("status=error&")>"Failed traces"</a>
                <a href=move || {
                    let q = format!("service:\"{}\"", name.get());
                    format!("/logs?q={}&{}", encode(&q), range.get().query())
                }>"Logs"</a>
                <a href=move || {
                    let name = escape(&name.get());
                    let q = format!("sum by (span_name) (rate(traces_spanmetrics_calls_total{{service=\"{name}\"}}[1m]))");
                    format!("/explore?q={}&{}", encode(&q), range.get().query())
                }>"Metrics"</a>
            </nav>
        </div>
        {show(detail, move |detail| {
            let query = range.get_untracked().query();
            view! { <Detail detail=detail query=query/> }
        })}
    }
}

#[component]
fn Detail(detail: ServiceDetail, query: String) -> impl IntoView {
    let ratio = detail.error_count as f64 / detail.count.max(1) as f64;
    // The last step is still filling: drawn, it would look like a drop.
    let (start, end) = (detail.start, detail.end);
    let points = |value: &dyn Fn(usize) -> Option<f64>| -> Vec<(u64, Option<f64>)> {
        detail
            .series
            .iter()
            .enumerate()
            .filter(|(_, p)| p.time + detail.step_ns <= end)
            .map(|(i, p)| (p.time + detail.step_ns / 2, value(i)))
            .collect()
    };
    let series = &detail.series;
    let line = |name: &str, class: &str, value: &dyn Fn(usize) -> Option<f64>| Line {
        name: name.into(),
        class: class.into(),
        points: points(value),
    };
    let rates = vec![line("rate", "metric", &|i| Some(series[i].rate))];
    let errors = vec![line("errors", "error", &|i| {
        let point = &series[i];
        (point.count > 0).then(|| point.error_count as f64 / point.count as f64)
    })];
    let latency = vec![
        line("p50", "p50", &|i| series[i].p50_ns),
        line("p95", "p95", &|i| series[i].p95_ns),
        line("p99", "p99", &|i| series[i].p99_ns),
    ];
    view! {
        <dl class="figures">
            <div><dt>"Spans"</dt><dd>{grouped(detail.count)}</dd></div>
            <div class:bad=detail.error_count != 0><dt>"Errors"</dt><dd>{percent(ratio)}</dd></div>
            <div><dt>"p50"</dt><dd>{shown(detail.p50)}</dd></div>
            <div><dt>"p95"</dt><dd>{shown(detail.p95)}</dd></div>
            <div><dt>"p99"</dt><dd>{shown(detail.p99)}</dd></div>
        </dl>
        <div class="charts">
            <LineChart title="Rate" testid="chart-rate" lines=rates start=start end=end show=rate/>
            <LineChart title="Errors" testid="chart-errors" lines=errors start=start end=end show=percent/>
            <LineChart title="Duration" testid="chart-p99" lines=latency start=start end=end show=duration/>
        </div>
        <section aria-labelledby="heat-title" data-testid="heatmap">
            <h2 id="heat-title">"Durations"</h2>
            <p class="hint">"Every dot is a real span: follow it to its trace. Drag over a chart to zoom in."</p>
            {heat_map(detail.heatmap, detail.exemplars, (start, end), detail.step_ns, &query)}
        </section>
        <Operations rows=detail.operations/>
    }
}

/// The heat map of durations in ns, with a dot for each exemplar.
fn heat_map(
    map: Heatmap,
    exemplars: Vec<SpanExemplar>,
    (start, end): (u64, u64),
    step_ns: u64,
    query: &str,
) -> impl IntoView + use<> {
    let start = map.times.first().map_or(start, |first| start.min(*first));
    let columns = map
        .times
        .iter()
        .zip(&map.counts)
        .map(|(time_ns, counts)| {
            let cells = map.bounds_ns.windows(2).zip(counts).filter(|(_, count)| **count > 0);
            let cells = cells
                .map(|(ends, count)| Cell { low: ends[0], high: ends[1], count: *count as f64 })
                .collect();
            Column { time_ns: *time_ns, cells }
        })
        .collect();
    let Some(heat) = Heat::new(start, end, step_ns, columns) else {
        return view! { <p class="state dim">"No spans in this range."</p> }.into_any();
    };
    let width = (end - start).max(1) as f64;
    let zone = zone_minutes();
    let dots = exemplars
        .into_iter()
        .filter(|e| (start..=end).contains(&e.time))
        .map(|e| {
            let label = format!(
                "{} {}, {}{}: open this trace",
                e.operation,
                duration(e.duration_ns as f64),
                clock(e.time, zone, false),
                if e.error { ", error" } else { "" }
            );
            let dot = Dot {
                x: (e.time - start) as f64 / width,
                y: 0.0,
                href: format!("/trace/{}?span={}&{query}", e.trace_id, e.span_id),
                label,
                error: e.error,
                duration_ns: Some(e.duration_ns),
            };
            (e.duration_ns as f64, dot)
        })
        .collect();
    view! { <HeatMap heat=Arc::new(heat) dots=dots show=duration count=count/> }.into_any()
}

#[component]
fn Operations(rows: Vec<OperationRow>) -> impl IntoView {
    let set = use_set_params();
    view! {
        <section aria-labelledby="operations-title">
            <h2 id="operations-title">"Operations"</h2>
            <div class="scroll">
                <table>
                    <thead>
                        <tr>
                            <th scope="col">"Operation"</th>
                            <th scope="col">"Kind"</th>
                            <th scope="col" class="number">"Rate"</th>
                            <th scope="col" class="number">"Errors"</th>
                            <th scope="col" class="number">"p50"</th>
                            <th scope="col" class="number">"p95"</th>
                            <th scope="col" class="number">"p99"</th>
                        </tr>
                    </thead>
                    <tbody>
                        {rows
                            .into_iter()
                            .map(|row| {
                                let set = set.clone();
                                let (name, kind) = (row.name.clone(), row.kind.to_lowercase());
                                let choose = move |_| {
                                    set(&[("operation", Some(name.clone())), ("kind", Some(kind.clone()))]);
                                };
                                let ratio = row.error_count as f64 / row.count.max(1) as f64;
                                view! {
                                    <tr>
                                        <th scope="row">
                                            <button type="button" class="link" on:click=choose>{row.name}</button>
                                        </th>
                                        <td class="dim">{row.kind.to_lowercase()}</td>
                                        <td class="number">{rate(row.rate)}</td>
                                        <td class="number" class:bad=row.error_count != 0>{percent(ratio)}</td>
                                        <td class="number">{shown(row.p50)}</td>
                                        <td class="number">{shown(row.p95)}</td>
                                        <td class="number">{shown(row.p99)}</td>
                                    </tr>
                                }
                            })
                            .collect_view()}
                    </tbody>
                </table>
            </div>
        </section>
    }
}
