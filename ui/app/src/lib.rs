//! Trefoil's web app: the walk from a metric to the trace to the log line.
//!
//! The address is the state: every view can be shared by copying it. The server is reached only through `client`.

mod app;
mod chart;
mod client;
mod focus;
mod url;
mod view;
mod widgets;

/// Called by the page once the module is loaded.
#[wasm_bindgen::prelude::wasm_bindgen(start)]
pub fn start() {
    leptos::mount::mount_to_body(app::App);
}
