//! Small pieces that views share.

pub mod icons;
pub mod spark;
pub mod states;

use leptos::prelude::*;
use ui_core::format;

/// A service's name with its colour, linking to its page.
#[component]
pub fn ServiceLink(name: String, query: String) -> impl IntoView {
    let href = format!("/service/{}?{query}", crate::url::encode(&name));
    view! {
        <a class="service" href=href>
            <Chip name=name.clone()/>
            {name}
        </a>
    }
}

/// The colour of a service.
#[component]
pub fn Chip(name: String) -> impl IntoView {
    let hue = format::hue(&name);
    view! { <span class="chip" style:--hue=hue.to_string()></span> }
}
