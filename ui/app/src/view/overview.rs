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
use ui_core::format::{count, duration, grouped, percent, rate};
use ui_core::health::{Health, health};
use ui_core::map::{Layout, layout};

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
    // The last step is still filling: drawn, it would look like a drop.
    let step_ns = list.step_ns.max(1);
    let whole = (list.end / step_ns).saturating_sub(list.start / step_ns) as usize;
    for (_, row) in &mut rows {
        row.rate_series.truncate(whole);
        row.error_series.truncate(whole);
        row.p99_series.truncate(whole);
    }
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
    // A line at zero is no alarm.
    let errors = if row.error_count == 0 { "quiet" } else { "error" };
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
            <td class="sparkcell"><Spark values=row.error_series kind=errors/></td>
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
/// Below this many pixels a column the map scrolls sideways instead of shrinking further.
const NARROWEST_COLUMN: usize = 130;
const ROW: usize = 64;
const NODE_WIDTH: usize = 150;
const NODE_HEIGHT: usize = 36;

#[component]
fn Map(edges: Vec<ServiceEdge>, query: String) -> impl IntoView {
    let Layout { nodes, routes, rows } = layout(&edges);
    let columns = nodes.iter().map(|n| n.column).max().unwrap_or(0) + 1;
    // Drawn for this width; in a narrower window all places and widths shrink alike, down to what names need.
    let (width, height) = ((columns - 1) * COLUMN + NODE_WIDTH + 20, rows * ROW + 10);
    let share = |pixels: usize| format!("{}%", 100.0 * pixels as f64 / width as f64);
    let mut heights = vec![0; columns];
    for (column, row) in routes.iter().flatten() {
        heights[*column] = heights[*column].max(row + 1);
    }
    // Short columns are centred against the longest.
    let place = |column: usize, row: usize| {
        (column * COLUMN + 10, row * ROW + (rows - heights[column]) * ROW / 2 + 12)
    };
    let busiest = edges.iter().map(|e| e.count).max().unwrap_or(1).max(1) as f64;
    let lines = edges
        .iter()
        .zip(&routes)
        .map(|(edge, route)| {
            let ratio = edge.error_count as f64 / edge.count.max(1) as f64;
            let title = format!(
                "{} calls {}: {} spans, {} errors",
                edge.caller,
                edge.callee,
                grouped(edge.count),
                percent(ratio)
            );
            let width = 1.0 + 3.0 * (edge.count as f64 / busiest).sqrt();
            view! {
                <path class="edge" class:failing={ratio >= 0.05} d=curve(route, place) stroke-width=width>
                    <title>{title}</title>
                </path>
            }
        })
        .collect_view();
    // HTML links over the drawing: an `a` made apart from its `svg` would not belong to it.
    let boxes = nodes
        .into_iter()
        .map(|node| {
            let (x, y) = place(node.column, node.row);
            let href = format!("/service/{}?{query}", crate::url::encode(&node.name));
            let (name, title) = (node.name.clone(), node.name);
            view! {
                <a
                    class="node" href=href title=title
                    style:left=share(x) style:width=share(NODE_WIDTH) style:top=format!("{y}px")
                >
                    <Chip name=name.clone()/>
                    <span>{name}</span>
                </a>
            }
            .into_any()
        })
        .collect::<Vec<AnyView>>();
    let narrowest = columns * NARROWEST_COLUMN;
    view! {
        <section aria-labelledby="map-title">
            <h2 id="map-title">"Service map"</h2>
            <div class="scroll">
                <div
                    class="map" style:max-width=format!("{width}px") style:min-width=format!("{narrowest}px")
                    style:height=format!("{height}px")
                >
                    <svg viewBox=format!("0 0 {width} {height}") preserveAspectRatio="none" aria-hidden="true">
                        {lines}
                    </svg>
                    {boxes}
                </div>
            </div>
        </section>
    }
}

/// The SVG path of a call, from the right of its caller to the left of its callee.
fn curve(route: &[(usize, usize)], place: impl Fn(usize, usize) -> (usize, usize)) -> String {
    let mut path = String::new();
    let mut from = None;
    for (column, row) in route {
        let (left, top) = place(*column, *row);
        let (right, y) = (left + NODE_WIDTH, top + NODE_HEIGHT / 2);
        match from {
            None => path.push_str(&format!("M{right} {y}")),
            Some((x, before)) => {
                let bend = (x + left) / 2;
                path.push_str(&format!("C{bend} {before} {bend} {y} {left} {y}"));
                // Straight through a place that is kept free for it.
                if Some(&(*column, *row)) != route.last() {
                    path.push_str(&format!("H{right}"));
                }
            }
        }
        from = Some((right, y));
    }
    path
}
