//! A heat map with exemplar dots.

use super::dots::{Dot, Dots};
use super::frame::{Plot, TimeLabels, ValueLabels, time_marks};
use crate::url::zone_minutes;
use leptos::prelude::*;
use std::sync::Arc;
use ui_core::heat::Heat;
use ui_core::time::date_clock;
use wasm_bindgen::{Clamped, JsCast};
use web_sys::{CanvasRenderingContext2d, ImageData};

/// Colour of a full cell; how full it is decides how opaque. The style sheet's legend has the same.
const CELL: [u8; 3] = [79, 142, 247];

/// Rows of pixels. The style sheet stretches them without smoothing.
const HEIGHT: usize = 240;

/// * `show`: a value of the axis as text; `count`: that of a cell.
/// * `dots`: exemplars with the value at which they stand.
#[component]
pub fn HeatMap(
    heat: Arc<Heat>,
    dots: Vec<(f64, Dot)>,
    show: fn(f64) -> String,
    count: fn(f64) -> String,
) -> impl IntoView {
    let canvas = NodeRef::<leptos::html::Canvas>::new();
    let for_drawing = heat.clone();
    Effect::new(move |_| {
        if let Some(canvas) = canvas.get() {
            draw(&canvas, &for_drawing);
        }
    });
    let (start, end) = (heat.start_ns, heat.end_ns);
    let labels = heat.ticks().into_iter().map(|(share, value)| (share, show(value))).collect();
    let dots = dots.into_iter().map(|(value, dot)| Dot { y: heat.share(value), ..dot }).collect();
    let most = count(heat.most());
    let summary = format!(
        "Heat map from {} to {}; at most {most} in a cell",
        show(heat.low),
        show(heat.high)
    );
    let pointer = RwSignal::new(None::<(f64, f64)>);
    let tip = move || {
        let (x, y) = pointer.get()?;
        let (column, cell) = heat.at(x, y)?;
        let total: f64 = column.cells.iter().map(|cell| cell.count).sum();
        let (low, high, here) = match cell {
            Some(cell) => (cell.low, cell.high, count(cell.count)),
            None => (heat.value(y), heat.value(y), "none".to_owned()),
        };
        let range = match (low.is_finite() && low > 0.0, high.is_finite()) {
            _ if low == high => show(low),
            (true, true) => format!("{} to {}", show(low), show(high)),
            (false, true) => format!("up to {}", show(high)),
            (_, false) => format!("over {}", show(low)),
        };
        Some(view! {
            <div
                class="tip" class:flipped={x > 0.55} class:below={y > 0.5}
                style:left=format!("{}%", x * 100.0) style:bottom=format!("{}%", y * 100.0)
            >
                <time>{date_clock(column.time_ns, zone_minutes(), false)}</time>
                <div><span>{range}</span><b>{here}</b></div>
                <div class="dim"><span>"all"</span><span>{count(total)}</span></div>
            </div>
        })
    };
    view! {
        <div class="frame tall">
            <ValueLabels labels=labels/>
            <Plot start=start end=end class="heat" on_hover=move |at| pointer.set(at)>
                <canvas node_ref=canvas role="img" aria-label=summary></canvas>
                {tip}
                <Dots dots=dots/>
            </Plot>
            <TimeLabels marks=time_marks(start, end)/>
            <div class="heatkey" aria-hidden="true">"few"<span></span>"many, up to "{most}</div>
        </div>
    }
}

fn draw(canvas: &web_sys::HtmlCanvasElement, heat: &Heat) {
    let width = heat.width();
    canvas.set_width(width as u32);
    canvas.set_height(HEIGHT as u32);
    let context = canvas
        .get_context("2d")
        .ok()
        .flatten()
        .and_then(|context| context.dyn_into::<CanvasRenderingContext2d>().ok());
    let Some(context) = context else { return };
    let mut pixels = vec![0u8; width * HEIGHT * 4];
    for (pixel, strength) in pixels.chunks_exact_mut(4).zip(heat.pixels(HEIGHT)) {
        if strength > 0.0 {
            pixel[..3].copy_from_slice(&CELL);
            pixel[3] = (40.0 + 215.0 * strength) as u8;
        }
    }
    let image = ImageData::new_with_u8_clamped_array(Clamped(&pixels), width as u32);
    if let Ok(image) = image {
        // Fails only for images without a size.
        let _ = context.put_image_data(&image, 0.0, 0.0);
    }
}
