//! Lines over time with a crosshair that all charts of a page share.

use crate::url::zone_minutes;
use leptos::prelude::*;
use ui_core::scale::{paths, ticks_up_to};
use ui_core::time::clock;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: String,
    /// Class that names its colour.
    pub class: String,
    /// (Unix ns, value), ascending.
    pub points: Vec<(u64, Option<f64>)>,
}

/// Where the pointer is on the time axis, 0-1, on whichever chart of the page.
#[derive(Clone, Copy)]
pub struct Crosshair(pub RwSignal<Option<f64>>);

/// A chart of lines.
///
/// * `start`, `end`: bounds of the time axis, Unix ns.
/// * `show`: a value as text.
#[component]
pub fn LineChart(
    title: String,
    #[prop(default = "")] testid: &'static str,
    lines: Vec<Line>,
    start: u64,
    end: u64,
    show: fn(f64) -> String,
) -> impl IntoView {
    let crosshair = use_context::<Crosshair>().unwrap_or_else(|| Crosshair(RwSignal::new(None))).0;
    let width = end.saturating_sub(start).max(1) as f64;
    let share = move |time: u64| time.saturating_sub(start) as f64 / width;
    let top = lines
        .iter()
        .flat_map(|line| line.points.iter().filter_map(|(_, v)| *v))
        .filter(|v| v.is_finite())
        .fold(0.0, f64::max);
    let ticks = ticks_up_to(top, 3);
    let top = *ticks.last().unwrap_or(&1.0);
    let empty = lines.iter().all(|line| line.points.iter().all(|(_, v)| v.is_none()));
    let drawn = lines
        .iter()
        .map(|line| {
            let points: Vec<(f64, Option<f64>)> =
                line.points.iter().map(|(t, v)| (share(*t), *v)).collect();
            view! { <path class=line.class.clone() d=paths(&points, top)/> }
        })
        .collect_view();
    let grid = ticks
        .iter()
        .map(|tick| {
            let y = 100.0 - tick / top * 100.0;
            view! { <line class="grid" x1="0" x2="1000" y1=y y2=y/> }
        })
        .collect_view();
    let labels = ticks
        .iter()
        .map(|tick| {
            let bottom = format!("{}%", tick / top * 100.0);
            view! { <span style:bottom=bottom>{show(*tick)}</span> }
        })
        .collect_view();
    let legend = lines
        .iter()
        .map(|line| view! { <span class=format!("key {}", line.class)>{line.name.clone()}</span> })
        .collect_view();
    let zone = zone_minutes();
    let times = (0..=4u64)
        .map(|i| {
            let at = start + (end - start) / 4 * i;
            view! { <span>{clock(at, zone, false)}</span> }
        })
        .collect_view();
    let for_tip = lines;
    let tip = move || {
        let at = crosshair.get()?;
        let time = start + (width * at) as u64;
        let rows: Vec<(String, String, String)> = for_tip
            .iter()
            .filter_map(|line| {
                let near = line.points.iter().min_by_key(|(t, _)| t.abs_diff(time))?;
                Some((line.name.clone(), line.class.clone(), near.1.map_or("–".into(), show)))
            })
            .take(12)
            .collect();
        let left = format!("{}%", at * 100.0);
        let flipped = at > 0.6;
        Some(view! {
            <div class="cross" style:left=left.clone()></div>
            <div class="tip" class:flipped=flipped style:left=left>
                <time>{clock(time, zone, false)}</time>
                {rows
                    .into_iter()
                    .map(|(name, class, value)| view! {
                        <div><span class=format!("key {class}")>{name}</span><b>{value}</b></div>
                    })
                    .collect_view()}
            </div>
        })
    };
    let on_move = move |event: leptos::ev::MouseEvent| {
        let target: web_sys::HtmlElement = event_target(&event);
        let plot = target.closest(".plot").ok().flatten();
        if let Some(rect) = plot.map(|p| p.get_bounding_client_rect())
            && rect.width() > 0.0
        {
            let at = (f64::from(event.client_x()) - rect.left()) / rect.width();
            crosshair.set(Some(at.clamp(0.0, 1.0)));
        }
    };
    view! {
        <figure class="chart" data-testid=testid>
            <figcaption>{title}<span class="legend">{legend}</span></figcaption>
            <div class="frame">
                <div class="ylabels" aria-hidden="true">{labels}</div>
                <div class="plot" on:mousemove=on_move on:mouseleave=move |_| crosshair.set(None)>
                    <svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">
                        {grid}
                        {drawn}
                    </svg>
                    {empty.then(|| view! { <p class="none">"no values in this range"</p> })}
                    {tip}
                </div>
                <div class="xlabels" aria-hidden="true">{times}</div>
            </div>
        </figure>
    }
}
