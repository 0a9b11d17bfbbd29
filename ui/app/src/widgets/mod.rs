//! Small pieces that views share.

pub mod colour;
pub mod icons;
pub mod log;
pub mod spark;
pub mod states;

use colour::service_class;
use leptos::prelude::*;

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

/// A long name that may break after each `mark`, and nowhere else.
pub fn breakable(name: &str, mark: char) -> Vec<AnyView> {
    name.split_inclusive(mark).map(|word| view! { {word.to_owned()}<wbr/> }.into_any()).collect()
}

/// The colour of a service.
#[component]
pub fn Chip(name: String) -> impl IntoView {
    view! { <span class=format!("chip {}", service_class(&name))></span> }
}
