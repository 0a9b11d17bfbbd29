//! Overview: every service with its rate, errors and durations, and who calls whom.

use super::{bounds_query, set_title};
use crate::client::{Load, load};
use crate::url::use_range;
use crate::widgets::colour::meet;
use crate::widgets::spark::Spark;
use crate::widgets::states::{SendData, show};
use crate::widgets::{Chip, ServiceLink};
use leptos::prelude::*;
use trefoil_api::services::{Percentile, ServiceEdge, ServiceList, ServiceMap, ServiceRow};
use ui_core::format::{count, duration, percent, rate};
use ui_core::health::{Health, health};
use ui_core::map::layout;

#[component]
pub fn Overview() -> impl IntoView {
    set_title("Overview");
    let range = use_range();
    let services =
        load::<ServiceList>(move || format!("/api/services?{}", bounds_query(&range.get())));
    let map = load::<ServiceMap>(move || format!("/api/map?{}", bounds_query(&range.get())));
    view! {
        <h1>"Services"</h1>
        {show(services, move |list| {
            let query = range.get_untracked().query();
            meet(list.services.iter().map(|row| row.name.as_str()));
            if list.services.is_empty() {
                view! { <SendData/> }.into_any()
            } else {
                view! { <Table list=list query=query/> }.into_any()
            }
        })}
        {move || match map.get() {
            Load::Ready(map) if !map.edges.is_empty() => {
                let query = range.get_untracked().query();
                Some(view! { <Map edges=map.edges query=query/> })
            }
            _ => None,
        }}
    }
}

#[component]
fn Table(list: ServiceList, query: String) -> impl IntoView {
    // What needs a look comes first, then the busiest.
    let mut rows: Vec<(Health, ServiceRow)> =
        list.services.into_iter().map(|row| (health(&row), row)).collect();
    rows.sort_by(|(a, x), (b, y)| {
        a.is_well().cmp(&b.is_well()).then(y.rate.total_cmp(&x.rate)).then(x.name.cmp(&y.name))
    });
    view! {
        <div class="scroll">
            <table class="services">
                <thead>
                    <tr>
                        <th scope="col">"Service"</th>
                        <th scope="col" class="number">"Rate"</th>
                        <th scope="col"><span class="hidden">"Rate over time"</span></th>
                        <th scope="col" class="number">"Errors"</th>
                        <th scope="col"><span class="hidden">"Errors over time"</span></th>
                        <th scope="col" class="number">"p50"</th>
                        <th scope="col" class="number">"p95"</th>
                        <th scope="col" class="number">"p99"</th>
                        <th scope="col"><span class="hidden">"p99 over time"</span></th>
                    </tr>
                </thead>
                <tbody>
                    {rows
                        .into_iter()
                        .map(|(health, row)| view! { <Row row=row health=health query=query.clone()/> })
                        .collect_view()}
                </tbody>
            </table>
        </div>
    }
}

#[component]
fn Row(row: ServiceRow, health: Health, query: String) -> impl IntoView {
    let name = row.name.clone();
    let rates: Vec<Option<f64>> = row.rate_series.iter().copied().map(Some).collect();
    view! {
        <tr
            data-testid="service-row" data-service=name data-rate=row.rate.to_string()
            class:slow=health.slower.is_some() class:failing=health.failing.is_some()
        >
            <th scope="row">
                <ServiceLink name=row.name query=query/>
                {health.slower.map(|times| view! {
                    <span class="badge slow">{format!("p99 {}×", count(times))}</span>
                })}
                {health.failing.map(|ratio| view! {
                    <span class="badge failing">{format!("{} errors", percent(ratio))}</span>
                })}
            </th>
            <td class="number">{rate(row.rate)}</td>
            <td class="sparkcell"><Spark values=rates kind="metric"/></td>
            <td class="number" class:bad=row.error_count != 0>{percent(row.error_ratio)}</td>
            <td class="sparkcell"><Spark values=row.error_series kind="error"/></td>
            <td class="number">{shown(row.p50)}</td>
            <td class="number">{shown(row.p95)}</td>
            <td class="number p99">{shown(row.p99)}</td>
            <td class="sparkcell"><Spark values=row.p99_series kind="trace"/></td>
        </tr>
    }
}

/// A percentile, with its interval where it is wide enough to matter.
pub fn shown(percentile: Option<Percentile>) -> impl IntoView {
    percentile.map(|p| {
        let title = format!("between {} and {}", duration(p.low_ns), duration(p.high_ns));
        view! { <span title=title>{duration(p.value_ns)}</span> }
    })
}

const COLUMN: usize = 210;
const ROW: usize = 64;
const NODE_WIDTH: usize = 150;
const NODE_HEIGHT: usize = 36;

#[component]
fn Map(edges: Vec<ServiceEdge>, query: String) -> impl IntoView {
    let nodes = layout(&[], &edges);
    let columns = nodes.iter().map(|n| n.column).max().unwrap_or(0) + 1;
    let deepest = nodes.iter().map(|n| n.row).max().unwrap_or(0) + 1;
    // Short columns are centred against the longest.
    let place = |name: &str| {
        let node = nodes.iter().find(|n| n.name == name)?;
        let in_column = nodes.iter().filter(|n| n.column == node.column).count();
        let pad = (deepest - in_column) * ROW / 2;
        Some((node.column * COLUMN + 10, node.row * ROW + pad + 12))
    };
    let busiest = edges.iter().map(|e| e.count).max().unwrap_or(1).max(1) as f64;
    let lines = edges
        .iter()
        .filter_map(|edge| {
            let (x1, y1) = place(&edge.caller)?;
            let (x2, y2) = place(&edge.callee)?;
            let (x1, y1, y2) = (x1 + NODE_WIDTH, y1 + NODE_HEIGHT / 2, y2 + NODE_HEIGHT / 2);
            let bend = (x1 + x2) / 2;
            let ratio = edge.error_count as f64 / edge.count.max(1) as f64;
            let title = format!(
                "{} calls {}: {} spans, {} errors",
                edge.caller,
                edge.callee,
                edge.count,
                percent(ratio)
            );
            let width = 1.0 + 3.0 * (edge.count as f64 / busiest).sqrt();
            Some(view! {
                <path
                    class="edge" class:failing={ratio >= 0.05}
                    d=format!("M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}") stroke-width=width
                >
                    <title>{title}</title>
                </path>
            })
        })
        .collect_view();
    // HTML links over the drawing: an `a` made apart from its `svg` would not belong to it.
    let boxes = nodes
        .iter()
        .filter_map(|node| {
            let (x, y) = place(&node.name)?;
            let href = format!("/service/{}?{query}", crate::url::encode(&node.name));
            let (name, title) = (node.name.clone(), node.name.clone());
            Some(
                view! {
                    <a
                        class="node" href=href title=title
                        style:left=format!("{x}px") style:top=format!("{y}px")
                    >
                        <Chip name=name.clone()/>
                        <span>{name}</span>
                    </a>
                }
                .into_any(),
            )
        })
        .collect::<Vec<AnyView>>();
    let (width, height) = (columns * COLUMN, deepest * ROW + 10);
    view! {
        <section aria-labelledby="map-title">
            <h2 id="map-title">"Service map"</h2>
            <div class="scroll">
                <div class="map" style:width=format!("{width}px") style:height=format!("{height}px")>
                    <svg viewBox=format!("0 0 {width} {height}") width=width height=height aria-hidden="true">
                        {lines}
                    </svg>
                    {boxes}
                </div>
            </div>
        </section>
    }
}
