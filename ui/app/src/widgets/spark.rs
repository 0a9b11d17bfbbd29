//! Sparklines.

use leptos::prelude::*;
use ui_core::scale::{Axis, paths};

/// A small line of values over time; `kind` names its colour.
#[component]
pub fn Spark(values: Vec<Option<f64>>, kind: &'static str) -> impl IntoView {
    let top = values.iter().flatten().copied().fold(0.0, f64::max);
    let last = values.len().saturating_sub(1).max(1) as f64;
    let points: Vec<(f64, Option<f64>)> =
        values.into_iter().enumerate().map(|(i, v)| (i as f64 / last, v)).collect();
    let axis = Axis { ticks: vec![0.0, if top > 0.0 { top * 1.08 } else { 1.0 }] };
    view! {
        <svg class=format!("spark {kind}") viewBox="0 -4 1000 108" preserveAspectRatio="none" aria-hidden="true">
            <path d=paths(&points, &axis)/>
        </svg>
    }
}
