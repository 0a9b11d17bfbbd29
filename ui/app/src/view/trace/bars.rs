//! The waterfall: a tree of spans with a bar each, of which only the rows in view are drawn.

use crate::url::{use_replace_params, use_set_params};
use crate::widgets::Chip;
use crate::widgets::colour::service_class;
use leptos::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;
use trefoil_api::logs::LogRow;
use ui_core::format::duration;
use ui_core::waterfall::{Row, Waterfall, parent, visible};

/// Height of a row, px; the style sheet has the same number.
const ROW_PX: usize = 28;

/// Rows drawn beyond what is seen, above and below.
const SPARE_ROWS: usize = 12;

/// How a trace is looked at: what is folded, and where it is scrolled to.
#[derive(Clone, Copy, Default)]
pub struct Look {
    folded: RwSignal<HashSet<String>>,
    /// px.
    top: RwSignal<usize>,
    /// The span named in the address was scrolled to.
    found: RwSignal<bool>,
}

impl Look {
    /// As at first sight.
    pub fn reset(self) {
        self.folded.set(HashSet::new());
        self.top.set(0);
        self.found.set(false);
    }
}

#[component]
pub fn Bars(
    waterfall: Arc<Waterfall>,
    selected: Memo<String>,
    logs: Arc<Vec<LogRow>>,
    look: Look,
) -> impl IntoView {
    let Look { folded, top, found } = look;
    let height = RwSignal::new(640usize);
    let set = use_set_params();
    let for_rows = waterfall.clone();
    let shown = Memo::new(move |_| folded.with(|folded| visible(&for_rows.rows, folded)));
    let frame = NodeRef::<leptos::html::Div>::new();
    let measure = move || {
        if let Some(frame) = frame.get_untracked() {
            top.set(frame.scroll_top().max(0) as usize);
            height.set(frame.client_height().max(0) as usize);
        }
    };
    let for_scroll = waterfall.clone();
    Effect::new(move |_| {
        let Some(frame) = frame.get() else { return };
        height.set(frame.client_height().max(0) as usize);
        if found.get_untracked() {
            frame.set_scroll_top(top.get_untracked() as i32);
            return;
        }
        found.set(true);
        let chosen = selected.get_untracked();
        let at = shown.with_untracked(|shown| {
            shown.iter().position(|row| for_scroll.rows[*row].span.span_id == chosen)
        });
        if let Some(at) = at {
            frame.set_scroll_top((at * ROW_PX).saturating_sub(160) as i32);
        }
    });
    let on_key = on_key(waterfall.clone(), selected, shown, folded, frame);
    let logged: HashSet<String> = logs.iter().map(|log| log.span_id.clone()).collect();
    let for_window = waterfall.clone();
    let rows = move || {
        let first = (top.get() / ROW_PX).saturating_sub(SPARE_ROWS);
        let count = height.get() / ROW_PX + 2 * SPARE_ROWS + 1;
        let chosen = selected.get();
        shown.with(|shown| {
            shown
                .iter()
                .enumerate()
                .skip(first)
                .take(count)
                .map(|(place, row)| {
                    let row = &for_window.rows[*row];
                    let is_folded = folded.with_untracked(|f| f.contains(&row.span.span_id));
                    let facts = BarFacts {
                        place,
                        bar: for_window.bar(&row.span),
                        chosen: row.span.span_id == chosen,
                        folded: is_folded,
                        logged: logged.contains(&row.span.span_id),
                    };
                    bar_row(row, facts, folded, set.clone())
                })
                .collect_view()
        })
    };
    let total = move || format!("{}px", shown.with(Vec::len) * ROW_PX);
    let active = move || {
        let chosen = selected.get();
        (!chosen.is_empty()).then(|| row_id(&chosen))
    };
    let duration_ns = waterfall.duration_ns() as f64;
    let ticks = (0..=4)
        .map(|i| {
            let left = format!("{}%", i * 25);
            view! { <span style:left=left>{duration(duration_ns * f64::from(i) / 4.0)}</span> }
        })
        .collect_view();
    view! {
        <div class="waterfall" data-testid="waterfall">
            <div class="ruler" aria-hidden="true"><span>"Span"</span><div>{ticks}</div></div>
            <div
                class="rows" node_ref=frame on:scroll=move |_| measure() on:keydown=on_key
                tabindex="0" role="tree" aria-label="Spans; up and down select, left and right fold"
                aria-activedescendant=active data-key="waterfall"
            >
                <div class="space" role="none" style:height=total>{rows}</div>
            </div>
        </div>
    }
}

/// Up, down, home and end select; left folds or goes to the parent, right unfolds or goes to the first child; escape
/// closes.
fn on_key(
    waterfall: Arc<Waterfall>,
    selected: Memo<String>,
    shown: Memo<Vec<usize>>,
    folded: RwSignal<HashSet<String>>,
    frame: NodeRef<leptos::html::Div>,
) -> impl Fn(leptos::ev::KeyboardEvent) + 'static {
    let set = use_replace_params();
    move |event| {
        let rows = &waterfall.rows;
        let shown = shown.get_untracked();
        let chosen = selected.get_untracked();
        let at = shown.iter().position(|row| rows[*row].span.span_id == chosen);
        let last = shown.len().saturating_sub(1);
        let is_folded = |row: &Row| folded.with_untracked(|f| f.contains(&row.span.span_id));
        let key = event.key();
        let next = match (key.as_str(), at) {
            ("Escape", _) => {
                set(&[("span", None)]);
                return;
            }
            ("ArrowDown" | "j", at) => at.map_or(0, |at| (at + 1).min(last)),
            ("ArrowUp" | "k", at) => at.map_or(0, |at| at.saturating_sub(1)),
            ("Home", _) => 0,
            ("End", _) => last,
            ("ArrowLeft" | "h", Some(at)) => {
                let row = &rows[shown[at]];
                if row.descendants > 0 && !is_folded(row) {
                    folded.update(|folded| {
                        folded.insert(row.span.span_id.clone());
                    });
                    at
                } else {
                    let above = parent(rows, shown[at]);
                    above.and_then(|above| shown.iter().position(|row| *row == above)).unwrap_or(at)
                }
            }
            ("ArrowRight" | "l", Some(at)) => {
                let row = &rows[shown[at]];
                if is_folded(row) {
                    folded.update(|folded| {
                        folded.remove(&row.span.span_id);
                    });
                    at
                } else if row.descendants > 0 {
                    (at + 1).min(last)
                } else {
                    at
                }
            }
            _ => return,
        };
        event.prevent_default();
        if let Some(row) = shown.get(next) {
            if at != Some(next) {
                set(&[("span", Some(rows[*row].span.span_id.clone()))]);
            }
            if let Some(frame) = frame.get_untracked() {
                let (top, height) = (frame.scroll_top(), frame.client_height());
                let (upper, lower) = ((next * ROW_PX) as i32, ((next + 1) * ROW_PX) as i32);
                if upper < top {
                    frame.set_scroll_top(upper);
                } else if lower > top + height {
                    frame.set_scroll_top(lower - height);
                }
            }
        }
    }
}

fn row_id(span_id: &str) -> String {
    format!("span-{span_id}")
}

struct BarFacts {
    place: usize,
    bar: (f64, f64),
    chosen: bool,
    folded: bool,
    logged: bool,
}

fn bar_row<S>(
    row: &Row,
    facts: BarFacts,
    folded: RwSignal<HashSet<String>>,
    set: S,
) -> impl IntoView + use<S>
where
    S: Fn(&[(&str, Option<String>)]) + Clone + 'static,
{
    let id = row.span.span_id.clone();
    let for_fold = id.clone();
    let fold = move |event: leptos::ev::MouseEvent| {
        event.stop_propagation();
        folded.update(|folded| {
            if !folded.remove(&for_fold) {
                folded.insert(for_fold.clone());
            }
        });
    };
    let for_click = id.clone();
    let chosen = facts.chosen;
    let click = move |_| {
        set(&[("span", if chosen { None } else { Some(for_click.clone()) })]);
    };
    let (left, width) = facts.bar;
    // Beside the bar where there is room, else inside of it.
    let after = left + width <= 0.8;
    let before = !after && left >= 0.15;
    let ns = row.span.duration_ns();
    let has_below = row.descendants > 0;
    view! {
        <div
            class="row" class:chosen=facts.chosen class:error=row.span.is_error() class:critical=row.critical
            style:top=format!("{}px", facts.place * ROW_PX)
            id=row_id(&id) role="treeitem" aria-selected=facts.chosen.to_string()
            attr:aria-level=(row.depth + 1).to_string()
            aria-expanded=has_below.then(|| (!facts.folded).to_string())
            data-testid="span-row" data-span-id=id data-service=row.service.clone()
            data-duration-ns=ns.to_string() data-name=row.span.name.clone()
            on:click=click
        >
            <div class="name" style:padding-left=format!("{}px", row.depth.min(24) * 14 + 4)>
                // For the mouse; the keyboard folds with the arrow keys.
                {if has_below {
                    let sign = if facts.folded { "▸" } else { "▾" };
                    view! { <span class="fold" aria-hidden="true" on:click=fold>{sign}</span> }.into_any()
                } else {
                    view! { <span class="fold none" aria-hidden="true"></span> }.into_any()
                }}
                <Chip name=row.service.clone()/>
                <span class="what" title=format!("{} {}", row.service, row.span.name)>
                    {row.span.name.clone()}<span class="dim">" "{row.service.clone()}</span>
                </span>
                {(facts.folded && has_below).then(|| view! { <span class="more">{format!("+{}", row.descendants)}</span> })}
                {facts.logged.then(|| view! { <span class="haslogs" title="has log lines">"≡"</span> })}
                {row.orphan.then(|| view! { <span class="dim" title="its parent is not stored">"⌁"</span> })}
            </div>
            <div class="track">
                <span
                    class=format!("span {}", service_class(&row.service))
                    style:left=format!("{}%", left * 100.0) style:width=format!("max(2px, {}%)", width * 100.0)
                ></span>
                <span
                    class="time" class:before=before class:inside=!after && !before
                    style:left=format!("{}%", if before { left } else { left + width } * 100.0)
                >
                    {duration(ns as f64)}
                </span>
            </div>
        </div>
    }
}
