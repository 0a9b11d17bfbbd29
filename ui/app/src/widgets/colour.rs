//! The colours of services, remembered by the browser.

use leptos::prelude::*;
use std::cell::RefCell;
use ui_core::palette::Palette;

/// Where the browser keeps them.
const KEY: &str = "service-colours";

thread_local! {
    static PALETTE: RefCell<Palette> = RefCell::new(remembered());
}

/// The class that gives an element the service's colour as `--svc`.
pub fn service_class(name: &str) -> String {
    let colour = with_palette(|palette| palette.colour(name));
    format!("s{colour}")
}

/// To be told of all services of an answer before the first of them is drawn, so that they get colours apart.
pub fn meet<'a>(names: impl IntoIterator<Item = &'a str>) {
    with_palette(|palette| palette.meet(names));
}

fn with_palette<T>(use_it: impl FnOnce(&mut Palette) -> T) -> T {
    PALETTE.with_borrow_mut(|palette| {
        let before = palette.clone();
        let out = use_it(palette);
        if *palette != before
            && let Some(storage) = storage()
        {
            // Private windows may refuse to store: the colours then last as long as the page.
            let _ = storage.set_item(KEY, &palette.to_text());
        }
        out
    })
}

fn remembered() -> Palette {
    let text = storage().and_then(|storage| storage.get_item(KEY).ok().flatten());
    text.map(|text| Palette::from_text(&text)).unwrap_or_default()
}

fn storage() -> Option<web_sys::Storage> {
    window().local_storage().ok().flatten()
}
