//! The latency heat map with exemplar dots: each dot is a link to its trace.

use crate::url::zone_minutes;
use leptos::prelude::*;
use trefoil_api::services::{Heatmap, SpanExemplar};
use ui_core::format::duration;
use ui_core::scale::log_share;
use ui_core::time::clock;
use wasm_bindgen::{Clamped, JsCast};
use web_sys::{CanvasRenderingContext2d, ImageData};

/// Colour of a full cell; how full it is decides how opaque.
const CELL: [u8; 3] = [79, 142, 247];

/// * `query`: the time range as address parameters, for the traces' links.
#[component]
pub fn HeatMap(
    map: Heatmap,
    exemplars: Vec<SpanExemplar>,
    step_ns: u64,
    query: String,
) -> impl IntoView {
    let canvas = NodeRef::<leptos::html::Canvas>::new();
    let (columns, rows) = (map.times.len(), map.bounds_ns.len().saturating_sub(1));
    if columns == 0 || rows == 0 {
        return view! { <p class="none">"no spans in this range"</p> }.into_any();
    }
    let (low, high) = (map.bounds_ns[0], map.bounds_ns[rows]);
    let start = map.times[0];
    let width = (step_ns * columns as u64) as f64;
    let counts = map.counts;
    Effect::new(move |_| {
        if let Some(canvas) = canvas.get() {
            // A cell is a pixel; the style sheet scales the canvas without smoothing.
            canvas.set_width(columns as u32);
            canvas.set_height(rows as u32);
            draw(&canvas, &counts, columns, rows);
        }
    });
    let zone = zone_minutes();
    let dots = exemplars
        .into_iter()
        .filter(|e| e.time >= start)
        .map(|e| {
            let left = format!("{}%", ((e.time - start) as f64 / width).min(1.0) * 100.0);
            let bottom = format!("{}%", log_share(e.duration_ns as f64, low, high) * 100.0);
            let label = format!(
                "{} {}, {}{}: open this trace",
                e.operation,
                duration(e.duration_ns as f64),
                clock(e.time, zone, false),
                if e.error { ", error" } else { "" }
            );
            view! {
                <a
                    class="dot" class:error=e.error
                    href=format!("/trace/{}?span={}&{query}", e.trace_id, e.span_id)
                    style:left=left style:bottom=bottom
                    title=label.clone() aria-label=label
                    data-testid="exemplar-dot"
                    data-duration-ns=e.duration_ns.to_string()
                    data-error=e.error.to_string()
                ></a>
            }
        })
        .collect_view();
    let labels = (0..=4)
        .map(|i| {
            let share = f64::from(i) / 4.0;
            let value = (low.ln() + (high.ln() - low.ln()) * share).exp();
            view! { <span style:bottom=format!("{}%", share * 100.0)>{duration(value)}</span> }
        })
        .collect_view();
    let end = start + width as u64;
    let times = (0..=4u64)
        .map(|i| view! { <span>{clock(start + (end - start) / 4 * i, zone, false)}</span> })
        .collect_view();
    view! {
        <div class="frame tall">
            <div class="ylabels" aria-hidden="true">{labels}</div>
            <div class="plot heat">
                <canvas node_ref=canvas aria-hidden="true"></canvas>
                {dots}
            </div>
            <div class="xlabels" aria-hidden="true">{times}</div>
        </div>
    }
    .into_any()
}

fn draw(canvas: &web_sys::HtmlCanvasElement, counts: &[Vec<u64>], columns: usize, rows: usize) {
    let context = canvas
        .get_context("2d")
        .ok()
        .flatten()
        .and_then(|context| context.dyn_into::<CanvasRenderingContext2d>().ok());
    let Some(context) = context else { return };
    let most = counts.iter().flatten().copied().max().unwrap_or(1).max(1) as f64;
    let mut pixels = vec![0u8; columns * rows * 4];
    for (column, cells) in counts.iter().enumerate() {
        for (row, count) in cells.iter().enumerate().filter(|(_, count)| **count > 0) {
            // Logarithmic, so that a single slow span is still seen beside thousands of fast ones.
            let share = (1.0 + *count as f64).ln() / (1.0 + most).ln();
            let at = ((rows - 1 - row) * columns + column) * 4;
            pixels[at..at + 3].copy_from_slice(&CELL);
            pixels[at + 3] = (60.0 + 195.0 * share) as u8;
        }
    }
    let image = ImageData::new_with_u8_clamped_array(Clamped(&pixels), columns as u32);
    if let Ok(image) = image {
        // Fails only for images without a size.
        let _ = context.put_image_data(&image, 0.0, 0.0);
    }
}
