//! Exemplars: each dot stands for something that was really measured, and is a link to its trace.

use leptos::prelude::*;

/// A dot on a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Dot {
    /// Place in the plot, both 0 to 1 from the lower left.
    pub x: f64,
    pub y: f64,
    pub href: String,
    /// What it is, for its tooltip and for those who don't see it.
    pub label: String,
    pub error: bool,
    /// Of the span, where it is known.
    pub duration_ns: Option<u64>,
}

#[component]
pub fn Dots(dots: Vec<Dot>) -> impl IntoView {
    dots.into_iter()
        .map(|dot| {
            view! {
                <a
                    class="dot" class:error=dot.error
                    href=dot.href
                    style:left=format!("{}%", dot.x * 100.0) style:bottom=format!("{}%", dot.y * 100.0)
                    title=dot.label.clone() aria-label=dot.label
                    data-testid="exemplar-dot"
                    data-duration-ns=dot.duration_ns.map(|ns| ns.to_string())
                    data-error=dot.error.to_string()
                ></a>
            }
        })
        .collect_view()
}
