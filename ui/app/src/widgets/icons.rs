//! Inline SVG icons.

use leptos::prelude::*;

/// Three loops of one knot.
pub fn knot() -> impl IntoView {
    view! {
        <svg class="knot" viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
            <circle class="metric" cx="16" cy="10.5" r="6.5"/>
            <circle class="trace" cx="10.5" cy="20" r="6.5"/>
            <circle class="log" cx="21.5" cy="20" r="6.5"/>
        </svg>
    }
}

/// Half dark, half light.
pub fn theme() -> impl IntoView {
    view! {
        <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
            <circle cx="10" cy="10" r="7" fill="none" stroke="currentColor" stroke-width="1.6"/>
            <path d="M10 3a7 7 0 0 1 0 14z" fill="currentColor"/>
        </svg>
    }
}
