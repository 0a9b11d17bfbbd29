//! Keyboard focus that outlives a redraw.

use leptos::prelude::*;
use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{Element, HtmlElement};

/// Runs `redraw`, and when it took away the element that had the focus, gives the focus to the one that stands for the
/// same thing now: the link with the same address, or the element with the same `data-key`.
pub fn keep_focus(redraw: impl FnOnce()) {
    let wanted = document().active_element().and_then(|element| sign(&element));
    redraw();
    let Some((name, value)) = wanted else { return };
    // Views redraw in a microtask; a frame later they have.
    let give_back = Closure::once_into_js(move || {
        let document = document();
        let lost = document.active_element().is_none_or(|element| element.tag_name() == "BODY");
        if !lost {
            return;
        }
        let Ok(candidates) = document.query_selector_all(&format!("main [{name}]")) else { return };
        let found = (0..candidates.length())
            .filter_map(|i| candidates.item(i)?.dyn_into::<HtmlElement>().ok())
            .find(|element| element.get_attribute(name).as_deref() == Some(&value));
        if let Some(element) = found {
            let options = web_sys::FocusOptions::new();
            options.set_prevent_scroll(true);
            // Only fails on pages that are going away.
            let _ = element.focus_with_options(&options);
        }
    });
    // Without animation frames there is nobody looking.
    let _ = window().request_animation_frame(give_back.unchecked_ref());
}

/// What tells an element from others across redraws.
fn sign(element: &Element) -> Option<(&'static str, String)> {
    ["data-key", "href"].into_iter().find_map(|name| Some((name, element.get_attribute(name)?)))
}
