//! Traces: search by service, operation, duration, status and attributes.

use super::{bounds_query, set_title};
use crate::client::{Load, load};
use crate::url::{encode, use_param, use_range, use_set_params, zone_minutes};
use crate::widgets::Chip;
use crate::widgets::colour::{meet, service_class};
use crate::widgets::states::show;
use leptos::prelude::*;
use trefoil_api::services::{ServiceDetail, ServiceList};
use trefoil_api::traces::{TraceList, TraceRow};
use ui_core::format::duration;
use ui_core::time::{clock, date_clock};

/// Parameters of the search, as in the address and the API alike.
const FIELDS: [&str; 7] =
    ["service", "operation", "min_duration", "max_duration", "status", "attr", "limit"];

#[component]
pub fn Traces() -> impl IntoView {
    set_title("Traces");
    let range = use_range();
    let fields: Vec<(&'static str, Memo<String>)> =
        FIELDS.into_iter().map(|name| (name, use_param(name))).collect();
    let for_path = fields.clone();
    let traces = load::<TraceList>(move || {
        let mut path = "/api/traces?".to_owned();
        for (name, value) in &for_path {
            let value = value.get();
            if !value.is_empty() {
                path.push_str(&format!("{name}={}&", encode(&value)));
            }
        }
        path.push_str(&bounds_query(&range.get()));
        path
    });
    view! {
        <h1>"Traces"</h1>
        <Form fields=fields/>
        {show(traces, move |list| {
            let query = range.get_untracked().query();
            meet(list.traces.iter().flat_map(|row| &row.services).map(String::as_str));
            if list.traces.is_empty() {
                view! {
                    <section class="state">
                        <h2>"No traces fit"</h2>
                        <p>"Loosen the search above, or widen the time range."</p>
                    </section>
                }
                .into_any()
            } else {
                view! { <Results rows=list.traces query=query/> }.into_any()
            }
        })}
    }
}

#[component]
fn Form(fields: Vec<(&'static str, Memo<String>)>) -> impl IntoView {
    let range = use_range();
    let set = use_set_params();
    let field = |name: &'static str| {
        fields
            .iter()
            .find(|(known, _)| *known == name)
            .map_or_else(|| Memo::new(|_| String::new()), |(_, value)| *value)
    };
    let services =
        load::<ServiceList>(move || format!("/api/services?{}", bounds_query(&range.get())));
    let [service, operation, min_duration, max_duration, status, attr, limit] = FIELDS.map(field);
    let chosen = load::<ServiceDetail>(move || match service.get() {
        name if name.is_empty() => String::new(),
        name => format!("/api/services/{}?{}", encode(&name), bounds_query(&range.get())),
    });
    let names = move || match services.get() {
        Load::Ready(list) => list.services.into_iter().map(|row| row.name).collect(),
        _ => Vec::new(),
    };
    let operations = move || match chosen.get() {
        Load::Ready(detail) if !service.get().is_empty() => {
            let mut names: Vec<String> = detail.operations.into_iter().map(|o| o.name).collect();
            names.sort();
            names.dedup();
            names
        }
        _ => Vec::new(),
    };
    let change = {
        let set = set.clone();
        move |name: &'static str| {
            let set = set.clone();
            move |event: leptos::ev::Event| set(&[(name, Some(event_target_value(&event)))])
        }
    };
    // What the server gives when no number is asked for.
    let shown_limit = move || {
        let limit = limit.get();
        if limit.is_empty() { "20".to_owned() } else { limit }
    };
    let on_service = move |event: leptos::ev::Event| {
        set(&[("service", Some(event_target_value(&event))), ("operation", None)]);
    };
    view! {
        <form class="search" on:submit=|event| event.prevent_default() role="search" aria-label="Traces">
            <label>
                "Service"
                <select on:change=on_service prop:value=service>
                    <option value="">"any"</option>
                    {move || {
                        let mut names: Vec<String> = names();
                        let current = service.get();
                        if !current.is_empty() && !names.contains(&current) {
                            names.push(current.clone());
                        }
                        names
                            .into_iter()
                            .map(|name| view! {
                                <option value=name.clone() selected=name == current>{name.clone()}</option>
                            })
                            .collect_view()
                    }}
                </select>
            </label>
            <label>
                "Operation"
                <input
                    list="operations" placeholder="any" prop:value=operation on:change=change("operation")
                />
                <datalist id="operations">
                    {move || operations().into_iter().map(|name| view! { <option value=name></option> }).collect_view()}
                </datalist>
            </label>
            <label>
                "At least"
                <input
                    class="short" placeholder="100ms" prop:value=min_duration on:change=change("min_duration")
                />
            </label>
            <label>
                "At most"
                <input class="short" placeholder="2s" prop:value=max_duration on:change=change("max_duration")/>
            </label>
            <label>
                "Status"
                <select on:change=change("status") prop:value=status>
                    <option value="">"any"</option>
                    <option value="error" selected=move || status.get() == "error">"with errors"</option>
                    <option value="ok" selected=move || status.get() == "ok">"without errors"</option>
                </select>
            </label>
            <label>
                "Attribute"
                <input placeholder="http.route=/pay" prop:value=attr on:change=change("attr")/>
            </label>
            <label>
                "Show"
                <select class="short" on:change=change("limit") prop:value=shown_limit>
                    {["20", "100", "500"]
                        .into_iter()
                        .map(|n| view! { <option value=n selected=move || shown_limit() == n>{n}</option> })
                        .collect_view()}
                </select>
            </label>
        </form>
    }
}

#[component]
fn Results(rows: Vec<TraceRow>, query: String) -> impl IntoView {
    let longest = rows.iter().map(|row| row.duration_ns).max().unwrap_or(1).max(1) as f64;
    let zone = zone_minutes();
    view! {
        <div class="scroll">
            <table class="traces">
                <thead>
                    <tr>
                        <th scope="col">"Trace"</th>
                        <th scope="col">"Start"</th>
                        <th scope="col">"Duration"</th>
                        <th scope="col" class="number">"Spans"</th>
                        <th scope="col" class="number">"Errors"</th>
                        <th scope="col">"Services"</th>
                    </tr>
                </thead>
                <tbody>
                    {rows
                        .into_iter()
                        .map(|row| {
                            let width = format!("{}%", row.duration_ns as f64 / longest * 100.0);
                            let date = date_clock(row.start_unix_nano, zone, false)[..11].to_owned();
                            let bar = format!("bar {}", service_class(&row.root_service));
                            view! {
                                <tr data-testid="trace-row">
                                    <th scope="row">
                                        <a href=format!("/trace/{}?{query}", row.trace_id)>
                                            <Chip name=row.root_service.clone()/>
                                            {row.root_service} <span class="dim">" "{row.root_operation}</span>
                                        </a>
                                    </th>
                                    <td class="nowrap dim">
                                        <time title=date_clock(row.start_unix_nano, zone, true)>
                                            <span class="date">{date}</span>{clock(row.start_unix_nano, zone, true)}
                                        </time>
                                    </td>
                                    <td class="barcell">
                                        <span class=bar style:width=width></span>
                                        <span>{duration(row.duration_ns as f64)}</span>
                                    </td>
                                    <td class="number">{row.span_count}</td>
                                    <td class="number" class:bad=row.error_count != 0>{row.error_count}</td>
                                    <td class="chips">
                                        {row
                                            .services
                                            .into_iter()
                                            .map(|name| view! { <span title=name.clone()><Chip name=name.clone()/></span> })
                                            .collect_view()}
                                    </td>
                                </tr>
                            }
                        })
                        .collect_view()}
                </tbody>
            </table>
        </div>
    }
}
