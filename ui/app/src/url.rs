//! The address as state: reading and writing query parameters, and the time range in them.

use leptos::prelude::*;
use leptos_router::NavigateOptions;
use leptos_router::hooks::{use_location, use_navigate, use_query_map};
use ui_core::time::Range;

/// Encodes text for a path segment or parameter.
pub fn encode(text: &str) -> String {
    String::from(js_sys::encode_uri_component(text))
}

/// Unix ns by the browser's clock.
pub fn now_ns() -> u64 {
    (js_sys::Date::now() * 1e6) as u64
}

/// Minutes east of UTC of the browser's zone.
pub fn zone_minutes() -> i64 {
    -js_sys::Date::new_0().get_timezone_offset() as i64
}

/// The time range of the page.
pub fn use_range() -> Memo<Range> {
    let query = use_query_map();
    Memo::new(move |_| {
        query.with(|map| {
            Range::parse(map.get_str("range"), map.get_str("start"), map.get_str("end"))
        })
    })
}

/// One parameter of the page; empty when absent.
pub fn use_param(name: &'static str) -> Memo<String> {
    let query = use_query_map();
    Memo::new(move |_| query.with(|map| map.get(name).unwrap_or_default()))
}

/// A function that sets or removes parameters and leaves the others as they are; the way back leads to the old ones.
pub fn use_set_params() -> impl Fn(&[(&str, Option<String>)]) + Clone + 'static {
    use_params_setter(false)
}

/// The same without a step in the history: for what changes with every key.
pub fn use_replace_params() -> impl Fn(&[(&str, Option<String>)]) + Clone + 'static {
    use_params_setter(true)
}

fn use_params_setter(replace: bool) -> impl Fn(&[(&str, Option<String>)]) + Clone + 'static {
    let query = use_query_map();
    let location = use_location();
    let navigate = use_navigate();
    move |changes| {
        let mut pairs: Vec<(String, String)> = query.with_untracked(|map| {
            map.clone().into_iter().map(|(key, value)| (key.into_owned(), value)).collect()
        });
        for (key, value) in changes {
            pairs.retain(|(known, _)| known != key);
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                pairs.push(((*key).to_owned(), value.clone()));
            }
        }
        let text: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        let path = location.pathname.get_untracked();
        let options = NavigateOptions { scroll: false, replace, ..NavigateOptions::default() };
        navigate(&format!("{path}?{}", text.join("&")), options);
    }
}
