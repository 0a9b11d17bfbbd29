//! Metrics: a PromQL query as a chart and a table, with help in writing it.

mod catalogue;
mod editor;
mod known;
mod result;

use super::set_title;
use crate::chart::lines::Crosshair;
use crate::client::{Load, load};
use crate::url::{encode, now_ns, use_param, use_range, use_set_params};
use crate::widgets::states::Loading;
use catalogue::Catalogue;
use editor::Editor;
use known::Known;
use leptos::prelude::*;
use result::{Facts, Result};
use ui_core::promql::answer::{ExemplarAnswer, RangeAnswer};
use ui_core::promql::error::mistake;
use ui_core::time::Range;

/// Steps of a chart, about.
const STEPS: u64 = 240;

const SECOND_NS: u64 = 1_000_000_000;

/// Step of a range, whole seconds.
fn step_s(range: &Range) -> u64 {
    let (start, end) = range.bounds(now_ns());
    ((end - start) / STEPS).div_ceil(SECOND_NS).max(1)
}

/// Start and end on whole steps, Unix seconds: the same steps at every refresh, so that lines only grow.
fn seconds(range: &Range) -> (u64, u64) {
    let (start, end) = range.bounds(now_ns());
    let step = step_s(range);
    let whole = |ns: u64| ns / SECOND_NS / step * step;
    (whole(start), whole(end))
}

#[component]
pub fn Metrics() -> impl IntoView {
    set_title("Metrics");
    provide_context(Crosshair(RwSignal::new(None)));
    let range = use_range();
    let q = use_param("q");
    let set = use_set_params();
    let known = Known::load(range);
    let answer = load::<RangeAnswer>(move || {
        let query = q.get();
        if query.is_empty() {
            return String::new();
        }
        let range = range.get();
        let (start, end) = seconds(&range);
        format!(
            "/prometheus/api/v1/query_range?query={}&step={}&{}&_=&start={start}&end={end}",
            encode(&query),
            step_s(&range),
            asked(&range)
        )
    });
    // Only of queries that have an answer: the mistake in another one is told once.
    let found = Memo::new(move |_| {
        answer
            .with(|answer| matches!(answer, Load::Ready(answer) if !answer.data.result.is_empty()))
    });
    let exemplars = load::<Option<ExemplarAnswer>>(move || {
        if !found.get() {
            return String::new();
        }
        let range = range.get();
        let (start, end) = seconds(&range);
        format!(
            "/prometheus/api/v1/query_exemplars?query={}&{}&_=&start={start}&end={end}",
            encode(&q.get()),
            asked(&range)
        )
    });
    let wrong = Memo::new(move |_| {
        answer.with(|answer| match answer {
            Load::Failed(message) => q.with(|q| mistake(q, message)),
            _ => None,
        })
    });
    let run = Callback::new(move |query: String| set(&[("q", Some(query)), ("view", None)]));
    let draft = RwSignal::new(q.get_untracked());
    Effect::new(move |_| draft.set(q.get()));
    let result = move || match answer.get() {
        Load::Loading => view! { <Loading/> }.into_any(),
        // The editor shows where the mistake is.
        Load::Failed(_) if wrong.with(Option::is_some) => ().into_any(),
        Load::Failed(message) => {
            view! { <crate::widgets::states::Failed message=message/> }.into_any()
        }
        Load::Ready(answer) => {
            let range = range.get_untracked();
            let (start, end) = seconds(&range);
            let facts = Facts {
                query: q.get_untracked(),
                start_ns: start * SECOND_NS,
                end_ns: end * SECOND_NS,
                step_ns: step_s(&range) * SECOND_NS,
                range,
            };
            view! { <Result answer=answer exemplars=exemplars facts=facts/> }.into_any()
        }
    };
    view! {
        <div class="heading">
            <h1>"Metrics"</h1>
            <Show when=move || !q.with(String::is_empty)>
                <nav class="onward" aria-label="Onward">
                    <a href=move || format!("/explore?{}", range.get().query())>"All metrics"</a>
                </nav>
            </Show>
        </div>
        <Editor draft=draft known=known wrong=wrong on_run=run/>
        <Show
            when=move || !q.with(String::is_empty)
            fallback=move || view! { <Catalogue known=known draft=draft on_choose=run/> }
        >
            {result}
        </Show>
    }
}

/// What tells one question from another besides the query: the range as it was chosen.
fn asked(range: &Range) -> String {
    match range {
        Range::Last(_, text) => format!("last={text}"),
        Range::Fixed(start, end) => format!("from={start}&to={end}"),
    }
}
