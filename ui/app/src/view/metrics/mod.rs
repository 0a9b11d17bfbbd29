//! Metrics: a PromQL query as a chart and a table.

use super::set_title;
use crate::chart::lines::{Crosshair, Line, LineChart};
use crate::client::{Load, load};
use crate::url::{encode, now_ns, use_param, use_range, use_set_params};
use crate::widgets::states::show;
use leptos::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use trefoil_api::metrics::MetricList;
use ui_core::format::count;

/// Series drawn at most.
const LINES_MAX: usize = 40;

/// `query_range` of the Prometheus HTTP API.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Answer {
    data: Data,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Data {
    result: Vec<SeriesOfAnswer>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct SeriesOfAnswer {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

#[component]
pub fn Metrics() -> impl IntoView {
    set_title("Metrics");
    provide_context(Crosshair(RwSignal::new(None)));
    let range = use_range();
    let q = use_param("q");
    let set = use_set_params();
    let names = load::<MetricList>(|| "/api/metrics".to_owned());
    let bounds = move || range.get().bounds(now_ns());
    let answer = load::<Answer>(move || {
        let query = q.get();
        if query.is_empty() {
            return String::new();
        }
        let (start, end) = bounds();
        let step = ((end - start) / 240).div_ceil(1_000_000_000).max(1);
        // The same steps at every refresh: the lines then only grow.
        let seconds = |ns: u64| ns / 1_000_000_000 / step * step;
        format!(
            "/prometheus/api/v1/query_range?query={}&step={step}&r={}&_=&start={}&end={}",
            encode(&query),
            range.get().query(),
            seconds(start),
            seconds(end)
        )
    });
    let choose = {
        let set = set.clone();
        Callback::new(move |query: String| set(&[("q", Some(query))]))
    };
    view! {
        <h1>"Metrics"</h1>
        <form class="search wide" role="search" aria-label="PromQL" on:submit=|event| event.prevent_default()>
            <label class="grow">
                <span class="hidden">"PromQL query"</span>
                <input
                    list="metric-names" placeholder="sum by (service_name) (rate(http_server_request_duration_seconds_count[1m]))"
                    spellcheck="false" prop:value=q
                    on:change=move |event| set(&[("q", Some(event_target_value(&event)))])
                />
                <datalist id="metric-names">
                    {move || match names.get() {
                        Load::Ready(list) => list
                            .metrics
                            .into_iter()
                            .map(|m| view! { <option value=m.name></option> })
                            .collect_view()
                            .into_any(),
                        _ => ().into_any(),
                    }}
                </datalist>
            </label>
        </form>
        <Show
            when=move || !q.get().is_empty()
            fallback=move || view! { <Catalogue names=names on_choose=choose/> }
        >
            {show(answer, move |answer| {
                let (start, end) = range.get_untracked().bounds(now_ns());
                view! { <Chart answer=answer start=start end=end/> }
            })}
        </Show>
    }
}

/// Every metric there is, to start from.
#[component]
fn Catalogue(names: RwSignal<Load<MetricList>>, on_choose: Callback<String>) -> impl IntoView {
    show(names, move |list| {
        if list.metrics.is_empty() {
            return view! { <crate::widgets::states::SendData/> }.into_any();
        }
        view! {
            <div class="scroll">
                <table>
                    <thead>
                        <tr><th scope="col">"Metric"</th><th scope="col">"Type"</th><th scope="col">"Unit"</th><th scope="col">"Description"</th></tr>
                    </thead>
                    <tbody>
                        {list
                            .metrics
                            .into_iter()
                            .map(|m| {
                                let query = starting_query(&m.name, &m.kind);
                                view! {
                                    <tr>
                                        <th scope="row">
                                            <button type="button" class="link" on:click=move |_| on_choose.run(query.clone())>
                                                <code>{m.name}</code>
                                            </button>
                                        </th>
                                        <td class="dim">{m.kind}</td>
                                        <td class="dim">{m.unit}</td>
                                        <td>{m.description}</td>
                                    </tr>
                                }
                            })
                            .collect_view()}
                    </tbody>
                </table>
            </div>
        }
        .into_any()
    })
}

/// What one usually wants to see of a metric of that type.
fn starting_query(name: &str, kind: &str) -> String {
    match kind {
        "counter" => format!("sum by (service_name) (rate({name}[1m]))"),
        "histogram" => {
            format!("histogram_quantile(0.99, sum by (service_name, le) (rate({name}_bucket[1m])))")
        }
        _ => name.to_owned(),
    }
}

#[component]
fn Chart(answer: Answer, start: u64, end: u64) -> impl IntoView {
    let notes = answer.warnings.into_iter().chain(answer.infos).collect::<Vec<String>>();
    let total = answer.data.result.len();
    if total == 0 {
        return view! {
            <section class="state">
                <h2>"No series"</h2>
                <p>"The query found nothing in this time range. "<a href="/explore">"See all metrics"</a></p>
            </section>
        }
        .into_any();
    }
    let lines: Vec<Line> = answer
        .data
        .result
        .iter()
        .take(LINES_MAX)
        .enumerate()
        .map(|(i, series)| Line {
            name: labels(&series.metric),
            class: format!("c{}", i % 8),
            points: series
                .values
                .iter()
                .map(|(time, value)| {
                    let value = value.parse().ok().filter(|v: &f64| v.is_finite());
                    ((time * 1e9) as u64, value)
                })
                .collect(),
        })
        .collect();
    let rows = answer
        .data
        .result
        .iter()
        .take(LINES_MAX)
        .enumerate()
        .map(|(i, series)| {
            let last = series.values.last().map(|(_, v)| v.clone()).unwrap_or_default();
            view! {
                <tr>
                    <th scope="row"><span class=format!("key c{}", i % 8)></span><code>{labels(&series.metric)}</code></th>
                    <td class="number">{last}</td>
                </tr>
            }
        })
        .collect_view();
    view! {
        {notes.into_iter().map(|note| view! { <p class="note">{note}</p> }).collect_view()}
        <div class="charts single">
            <LineChart title="".into() testid="chart-promql" lines=lines start=start end=end show=count/>
        </div>
        {(total > LINES_MAX).then(|| view! { <p class="hint">{format!("{total} series, the first {LINES_MAX} shown")}</p> })}
        <div class="scroll">
            <table>
                <thead><tr><th scope="col">"Series"</th><th scope="col" class="number">"Last value"</th></tr></thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
    .into_any()
}

fn labels(metric: &BTreeMap<String, String>) -> String {
    let name = metric.get("__name__").cloned().unwrap_or_default();
    let rest: Vec<String> = metric
        .iter()
        .filter(|(key, _)| *key != "__name__")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    match (name.is_empty(), rest.is_empty()) {
        (true, true) => "value".to_owned(),
        (false, true) => name,
        (_, false) => format!("{name}{{{}}}", rest.join(", ")),
    }
}
