//! Lines over time with a crosshair that all charts of a page share.

use super::dots::{Dot, Dots};
use super::frame::{Plot, TimeLabels, ValueLabels, time_marks};
use crate::url::zone_minutes;
use leptos::prelude::*;
use ui_core::scale::{Axis, paths};
use ui_core::time::date_clock;

/// Lines that the tooltip names.
const TIP_LINES: usize = 10;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: String,
    /// Class that names its colour.
    pub class: String,
    /// (Unix ns, value), ascending.
    pub points: Vec<(u64, Option<f64>)>,
}

impl Line {
    /// Its value closest to a time, if one is close.
    fn at(&self, time: u64, near_ns: u64) -> Option<f64> {
        let (at, value) = self.points.iter().min_by_key(|(t, _)| t.abs_diff(time))?;
        value.filter(|_| at.abs_diff(time) <= near_ns)
    }
}

/// Where the pointer is on the time axis, 0-1, on whichever chart of the page.
#[derive(Clone, Copy)]
pub struct Crosshair(pub RwSignal<Option<f64>>);

/// A chart of lines.
///
/// * `start`, `end`: bounds of the time axis, Unix ns.
/// * `show`: a value as text.
/// * `dots`: exemplars; their y is a value on the axis, or `None` for the foot of the chart.
/// * `lit`: the line that stands out, by its place in `lines`.
#[component]
pub fn LineChart(
    #[prop(default = "")] title: &'static str,
    #[prop(default = "")] testid: &'static str,
    lines: Vec<Line>,
    start: u64,
    end: u64,
    show: fn(f64) -> String,
    #[prop(default = Vec::new())] dots: Vec<(Option<f64>, Dot)>,
    #[prop(default = true)] legend: bool,
    #[prop(optional)] lit: RwSignal<Option<usize>>,
) -> impl IntoView {
    let crosshair = use_context::<Crosshair>().unwrap_or_else(|| Crosshair(RwSignal::new(None))).0;
    let width = end.saturating_sub(start).max(1) as f64;
    let share = move |time: u64| (time as f64 - start as f64) / width;
    let values = lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, v)| *v));
    let axis = Axis::over(values.chain(dots.iter().filter_map(|(value, _)| *value)), 3);
    let empty = lines.iter().all(|line| line.points.iter().all(|(_, v)| v.is_none()));
    let marks = time_marks(start, end);
    let drawn = lines
        .iter()
        .enumerate()
        .map(|(i, line)| {
            let points: Vec<(f64, Option<f64>)> =
                line.points.iter().map(|(t, v)| (share(*t), *v)).collect();
            view! {
                <path
                    class=line.class.clone() class:lit=move || lit.get() == Some(i)
                    class:unlit=move || lit.get().is_some_and(|lit| lit != i)
                    d=paths(&points, &axis)
                />
            }
        })
        .collect_view();
    let across = axis
        .ticks
        .iter()
        .map(|tick| {
            let y = 100.0 - axis.share(*tick) * 100.0;
            view! { <line class="grid" class:zero=*tick == 0.0 x1="0" x2="1000" y1=y y2=y/> }
        })
        .collect_view();
    let down = marks
        .iter()
        .map(|mark| {
            let x = mark.share * 1000.0;
            view! { <line class="grid" x1=x x2=x y1="0" y2="100"/> }
        })
        .collect_view();
    let labels = axis.ticks.iter().map(|tick| (axis.share(*tick), show(*tick))).collect();
    let legend = legend.then(|| {
        let keys = lines
            .iter()
            .map(|line| view! { <span class=format!("key {}", line.class)>{line.name.clone()}</span> })
            .collect_view();
        view! { <span class="legend">{keys}</span> }
    });
    let dots: Vec<Dot> = dots
        .into_iter()
        .map(|(value, dot)| Dot { y: value.map_or(0.0, |value| axis.share(value)), ..dot })
        .collect();
    let summary = summary(title, &lines, show);
    let caption = (!title.is_empty() || legend.is_some())
        .then(|| view! { <figcaption>{title}{legend}</figcaption> });
    let step = lines.iter().filter_map(|line| Some(line.points.get(1)?.0 - line.points[0].0)).min();
    let near_ns = step.unwrap_or(u64::MAX);
    let tip = move || {
        let at = crosshair.get()?;
        let time = start + (width * at) as u64;
        let mut rows: Vec<(usize, f64)> = lines
            .iter()
            .enumerate()
            .filter_map(|(i, line)| Some((i, line.at(time, near_ns)?)))
            .collect();
        if rows.len() > 3 {
            rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        }
        let more = rows.len().saturating_sub(TIP_LINES);
        rows.truncate(TIP_LINES);
        let nothing = rows.is_empty();
        let rows = rows
            .into_iter()
            .map(|(i, value)| {
                let line = &lines[i];
                view! {
                    <div class:lit=lit.get() == Some(i)>
                        <span class=format!("key {}", line.class)>{line.name.clone()}</span><b>{show(value)}</b>
                    </div>
                }
            })
            .collect_view();
        let left = format!("{}%", at * 100.0);
        Some(view! {
            <div class="cross" style:left=left.clone()></div>
            <div class="tip" class:flipped={at > 0.55} style:left=left>
                <time>{date_clock(time, zone_minutes(), false)}</time>
                {rows}
                {nothing.then(|| view! { <div class="dim">"no values here"</div> })}
                {(more > 0).then(|| view! { <div class="dim">{format!("and {more} more")}</div> })}
            </div>
        })
    };
    let on_hover = move |at: Option<(f64, f64)>| crosshair.set(at.map(|(x, _)| x));
    view! {
        <figure class="chart" data-testid=testid>
            {caption}
            <div class="frame">
                <ValueLabels labels=labels/>
                <Plot start=start end=end on_hover=on_hover>
                    <svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label=summary>
                        {across} {down} {drawn}
                    </svg>
                    {empty.then(|| view! { <p class="none">"no values in this range"</p> })}
                    {tip}
                    <Dots dots=dots/>
                </Plot>
                <TimeLabels marks=marks/>
            </div>
        </figure>
    }
}

/// The chart in words, for those who don't see it.
fn summary(title: &str, lines: &[Line], show: fn(f64) -> String) -> String {
    let name = if title.is_empty() { "Chart" } else { title };
    let parts: Vec<String> = lines
        .iter()
        .take(5)
        .map(|line| {
            let figures = ui_core::series::figures(&line.points);
            match (figures.last, figures.max) {
                (Some(last), Some(max)) => {
                    format!("{}: last {}, highest {}", line.name, show(last), show(max))
                }
                _ => format!("{}: no values", line.name),
            }
        })
        .collect();
    let more = if lines.len() > 5 {
        format!("; and {} more lines", lines.len() - 5)
    } else {
        String::new()
    };
    format!("{name}. {}{more}", parts.join("; "))
}
