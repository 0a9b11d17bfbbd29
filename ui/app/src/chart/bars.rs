//! Stacked bars over time: the histogram of logs by severity. A click on a bar zooms into its step.

use super::frame::{Plot, TimeLabels, ValueLabels, time_marks};
use crate::url::zone_minutes;
use leptos::prelude::*;
use std::collections::BTreeMap;
use ui_core::format::count;
use ui_core::scale::ticks_up_to;
use ui_core::time::clock;

/// Severity classes from the bottom of a bar to its top.
pub const SEVERITIES: [&str; 7] = ["TRACE", "DEBUG", "UNSET", "INFO", "WARN", "ERROR", "FATAL"];

/// * `buckets`: (start in Unix ns, counts by severity), only those with any.
#[component]
pub fn SeverityBars(
    buckets: Vec<(u64, BTreeMap<String, u64>)>,
    start: u64,
    end: u64,
    step_ns: u64,
    #[prop(into)] on_pick: Callback<(u64, u64)>,
) -> impl IntoView {
    let width = end.saturating_sub(start).max(1) as f64;
    let top = buckets.iter().map(|(_, counts)| counts.values().sum::<u64>()).max().unwrap_or(0);
    let ticks = ticks_up_to(top as f64, 2);
    let top = *ticks.last().unwrap_or(&1.0);
    let zone = zone_minutes();
    let present: Vec<&str> = SEVERITIES
        .into_iter()
        .rev()
        .filter(|severity| buckets.iter().any(|(_, counts)| counts.contains_key(*severity)))
        .collect();
    let bars = buckets
        .into_iter()
        .map(|(time, counts)| {
            let left = time.saturating_sub(start) as f64 / width * 1000.0;
            // The newest bar ends with the axis.
            let wide = (step_ns as f64 / width * 1000.0 * 0.86).max(1.0).min(1000.0 - left);
            let mut below = 0.0;
            let parts = SEVERITIES
                .into_iter()
                .filter_map(|severity| {
                    let n = *counts.get(severity)? as f64;
                    let height = n / top * 100.0;
                    below += height;
                    let class = format!("sev {}", severity.to_lowercase());
                    Some(view! { <rect class=class x=left y=100.0 - below width=wide height=height/> })
                })
                .collect_view();
            let texts: Vec<String> =
                counts.iter().map(|(severity, n)| format!("{severity} {n}")).collect();
            let label = format!("{}: {}", clock(time, zone, false), texts.join(", "));
            view! {
                <g class="bar" on:click=move |_| on_pick.run((time, time + step_ns))>
                    <title>{label}</title>
                    <rect class="hit" x=left y="0" width=wide height="100"/>
                    {parts}
                </g>
            }
        })
        .collect_view();
    let labels = ticks.iter().map(|tick| (tick / top, count(*tick))).collect();
    let across = ticks
        .iter()
        .map(|tick| {
            let y = 100.0 - tick / top * 100.0;
            view! { <line class="grid" x1="0" x2="1000" y1=y y2=y/> }
        })
        .collect_view();
    let keys = present
        .into_iter()
        .map(|severity| {
            let class = format!("key {}", severity.to_lowercase());
            view! { <span class=class>{severity.to_lowercase()}</span> }
        })
        .collect_view();
    view! {
        <figure class="chart bars" data-testid="log-histogram">
            <figcaption><span class="hint">"Lines over time; drag to zoom"</span><span class="legend">{keys}</span></figcaption>
            <div class="frame low">
                <ValueLabels labels=labels/>
                <Plot start=start end=end on_hover=|_| ()>
                    <svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="Logs over time by severity">
                        {across} {bars}
                    </svg>
                </Plot>
                <TimeLabels marks=time_marks(start, end)/>
            </div>
        </figure>
    }
}
