//! What all charts have in common: labels of both axes, the plot that knows where the pointer is, and a stretch of time
//! chosen by dragging.

use crate::url::{use_set_params, zone_minutes};
use leptos::ev::MouseEvent;
use leptos::prelude::*;
use ui_core::time::{Mark, marks};
use wasm_bindgen::JsCast;

/// Marks wanted on a time axis.
const MARKS: usize = 6;

/// A drag shorter than this share of the axis was meant as a click.
const DRAG_MIN: f64 = 0.01;

/// Labels of the value axis: (share from the bottom, text).
#[component]
pub fn ValueLabels(labels: Vec<(f64, String)>) -> impl IntoView {
    let labels = labels
        .into_iter()
        .map(|(share, text)| {
            view! { <span style:bottom=format!("{}%", share * 100.0)>{text}</span> }
        })
        .collect_view();
    view! { <div class="ylabels" aria-hidden="true">{labels}</div> }
}

/// Round times on the axis from `start` to `end`, Unix ns.
pub fn time_marks(start: u64, end: u64) -> Vec<Mark> {
    marks(start, end, zone_minutes(), MARKS)
}

/// Labels of the time axis.
#[component]
pub fn TimeLabels(marks: Vec<Mark>) -> impl IntoView {
    let labels = marks
        .into_iter()
        .map(
            |mark| view! { <span style:left=format!("{}%", mark.share * 100.0)>{mark.text}</span> },
        )
        .collect_view();
    view! { <div class="xlabels" aria-hidden="true">{labels}</div> }
}

/// The area that data are drawn in. Dragging over it makes the page's time range the stretch that was dragged over.
///
/// * `start`, `end`: bounds of the time axis, Unix ns.
/// * `on_hover`: where the pointer is, both 0 to 1 from the lower left; `None` when it has left.
#[component]
pub fn Plot(
    start: u64,
    end: u64,
    #[prop(into)] on_hover: Callback<Option<(f64, f64)>>,
    #[prop(default = "")] class: &'static str,
    children: Children,
) -> impl IntoView {
    let set = use_set_params();
    // From where to where, while the button is down.
    let drag = RwSignal::new(None::<(f64, f64)>);
    let on_down = move |event: MouseEvent| {
        let on_link = event
            .target()
            .and_then(|target| target.dyn_into::<web_sys::Element>().ok())
            .is_some_and(|element| element.closest("a").ok().flatten().is_some());
        if event.button() == 0
            && !on_link
            && let Some((x, _)) = place(&event)
        {
            // Text beside the plot is not to be selected.
            event.prevent_default();
            drag.set(Some((x, x)));
        }
    };
    let on_move = move |event: MouseEvent| {
        let at = place(&event);
        on_hover.run(at);
        if let Some((x, _)) = at {
            drag.update(|drag| {
                if let Some((_, to)) = drag {
                    *to = x;
                }
            });
        }
    };
    let on_up = move |_| {
        let Some((from, to)) = drag.get_untracked() else { return };
        drag.set(None);
        let (from, to) = (from.min(to), from.max(to));
        if to - from >= DRAG_MIN {
            let width = end.saturating_sub(start) as f64;
            let time = |share: f64| Some((start + (width * share) as u64).to_string());
            set(&[("range", None), ("start", time(from)), ("end", time(to))]);
        }
    };
    let on_leave = move |_| {
        on_hover.run(None);
        drag.set(None);
    };
    let brush = move || {
        let (from, to) = drag.get()?;
        let (left, width) = (from.min(to) * 100.0, (to - from).abs() * 100.0);
        Some(view! {
            <div class="brush" style:left=format!("{left}%") style:width=format!("{width}%")></div>
        })
    };
    view! {
        <div
            class=format!("plot {class}")
            on:mousedown=on_down on:mousemove=on_move on:mouseup=on_up on:mouseleave=on_leave
        >
            {children()} {brush}
        </div>
    }
}

fn place(event: &MouseEvent) -> Option<(f64, f64)> {
    let target: web_sys::Element = event_target(event);
    let rect = target.closest(".plot").ok().flatten()?.get_bounding_client_rect();
    if rect.width() <= 0.0 || rect.height() <= 0.0 {
        return None;
    }
    let x = (f64::from(event.client_x()) - rect.left()) / rect.width();
    let y = (rect.bottom() - f64::from(event.client_y())) / rect.height();
    Some((x.clamp(0.0, 1.0), y.clamp(0.0, 1.0)))
}
