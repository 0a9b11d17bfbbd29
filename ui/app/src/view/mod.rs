//! The pages.

pub mod logs;
pub mod metrics;
pub mod overview;
pub mod service;
pub mod sql;
pub mod trace;
pub mod traces;

use crate::url::now_ns;
use ui_core::time::Range;

/// Names the page in the browser's tab and history.
pub fn set_title(title: &str) {
    leptos::prelude::document().set_title(&format!("{title} · Trefoil"));
}

/// The range as the API's parameters. The parameter `_` names the question, so that a moving range is still the same
/// one.
pub fn bounds_query(range: &Range) -> String {
    let (start, end) = range.bounds(now_ns());
    match range {
        Range::Last(_, text) => format!("last={text}&_=&start={start}&end={end}"),
        Range::Fixed(..) => format!("start={start}&end={end}"),
    }
}
