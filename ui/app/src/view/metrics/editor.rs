//! The query field: completes metrics, functions, labels and label values, and shows where a query is wrong.

use super::known::Known;
use leptos::ev::KeyboardEvent;
use leptos::html::Textarea;
use leptos::prelude::*;
use ui_core::promql::complete::{
    Place, Wanted, byte_position, escape, place, rank, utf16_position,
};
use ui_core::promql::error::Mistake;
use ui_core::promql::functions::{AGGREGATIONS, FUNCTIONS};
use ui_core::promql::tokens::KEYWORDS;

/// Choices shown at most.
const CHOICES_MAX: usize = 60;

const DURATIONS: [(&str, &str); 8] = [
    ("1m", "a minute"),
    ("5m", "5 minutes"),
    ("10m", "10 minutes"),
    ("30m", "half an hour"),
    ("1h", "an hour"),
    ("6h", "6 hours"),
    ("1d", "a day"),
    ("30s", "half a minute"),
];

/// Something that can be put in at the caret.
#[derive(Debug, Clone, PartialEq)]
struct Choice {
    /// What is compared with what was typed.
    text: String,
    /// What it is, such as `metric`.
    kind: &'static str,
    detail: String,
    /// What is put in.
    insert: String,
    /// Bytes of `insert` behind which the caret goes.
    caret: usize,
}

impl Choice {
    fn new(text: &str, kind: &'static str, detail: impl Into<String>) -> Self {
        Self {
            text: text.to_owned(),
            kind,
            detail: detail.into(),
            insert: text.to_owned(),
            caret: text.len(),
        }
    }

    /// The caret goes between the two parts that are put in.
    fn around(self, before: &str, after: &str) -> Self {
        Self { insert: format!("{before}{after}"), caret: before.len(), ..self }
    }
}

/// * `draft`: what stands in the field; `on_run` is called with what shall be asked.
#[component]
pub fn Editor(
    draft: RwSignal<String>,
    known: Known,
    wrong: Memo<Option<Mistake>>,
    #[prop(into)] on_run: Callback<String>,
) -> impl IntoView {
    let field = NodeRef::<Textarea>::new();
    let caret = RwSignal::new(0usize);
    let open = RwSignal::new(false);
    let active = RwSignal::new(0usize);
    let here = Memo::new(move |_| draft.with(|draft| place(draft, caret.get())));
    let choices = Memo::new(move |_| {
        if !open.get() {
            return Vec::new();
        }
        let place = here.get();
        draft.with(|draft| choices(known, draft, &place))
    });
    let shown = move || open.get() && !choices.with(Vec::is_empty);
    let read_caret = move || {
        let Some(field) = field.get_untracked() else { return };
        let units = field.selection_start().ok().flatten().unwrap_or(0) as usize;
        caret.set(draft.with_untracked(|draft| byte_position(draft, units)));
    };
    let on_input = move |event: leptos::ev::Event| {
        draft.set(event_target_value(&event));
        read_caret();
        active.set(0);
        // While something is being typed; elsewhere it is asked for by Ctrl+Space.
        open.set(match here.get_untracked() {
            Place { wanted: Wanted::Nothing, .. } => false,
            Place { wanted: Wanted::Name, start, end } => start < end,
            _ => true,
        });
    };
    let accept = move |at: usize| {
        let Some(choice) = choices.with_untracked(|choices| choices.get(at).cloned()) else {
            return;
        };
        let place = here.get_untracked();
        let mut text = draft.get_untracked();
        text.replace_range(place.start..place.end, &choice.insert);
        let position = place.start + choice.caret;
        if let Some(field) = field.get_untracked() {
            field.set_value(&text);
            let units = utf16_position(&text, position) as u32;
            // Only fails for fields that can't be selected in.
            let _ = field.set_selection_range(units, units);
        }
        draft.set(text);
        caret.set(position);
        active.set(0);
        // Behind a label its values are next.
        let next = here.get_untracked().wanted;
        open.set(matches!(next, Wanted::Value { .. }) && choice.kind == "label");
    };
    let run = move || {
        open.set(false);
        on_run.run(draft.with_untracked(|draft| draft.trim().to_owned()));
    };
    let on_key = move |event: KeyboardEvent| {
        let n = choices.with_untracked(Vec::len);
        let is_open = open.get_untracked() && n > 0;
        match event.key().as_str() {
            " " if event.ctrl_key() => {
                read_caret();
                active.set(0);
                open.set(true);
            }
            "ArrowDown" if is_open => active.update(|at| *at = (*at + 1) % n),
            "ArrowUp" if is_open => active.update(|at| *at = (*at + n - 1) % n),
            "Escape" if is_open => open.set(false),
            "Tab" if is_open && !event.shift_key() => accept(active.get_untracked()),
            "Enter" if event.shift_key() => return,
            "Enter" => {
                let at = active.get_untracked();
                let place = here.get_untracked();
                let typed = draft.with_untracked(|draft| draft[place.start..place.end].to_owned());
                // What is written out already needs no completion.
                let needed = choices
                    .with_untracked(|choices| choices.get(at).is_some_and(|c| c.text != typed));
                if is_open && needed && !event.ctrl_key() { accept(at) } else { run() }
            }
            _ => return,
        }
        event.prevent_default();
    };
    let on_caret = move |event: KeyboardEvent| {
        if matches!(event.key().as_str(), "ArrowLeft" | "ArrowRight" | "Home" | "End") {
            open.set(false);
            read_caret();
        }
    };
    // The list hangs below the word that is being typed.
    let indent = move || {
        let start = here.get().start;
        draft.with(|draft| {
            let line = draft[..start].rsplit('\n').next().unwrap_or_default();
            line.chars().count().to_string()
        })
    };
    let depth = move || {
        let start = here.get().start;
        draft.with(|draft| (draft[..start].matches('\n').count() + 1).to_string())
    };
    let rows = move || draft.with(|draft| draft.split('\n').count().clamp(1, 8).to_string());
    let list = move || {
        shown().then(|| {
            let chosen = active.get();
            let options = choices
                .get()
                .into_iter()
                .enumerate()
                .map(|(i, choice)| {
                    view! {
                        <li
                            role="option" id=format!("completion-{i}") class:chosen={i == chosen}
                            aria-selected=(i == chosen).to_string()
                            on:mousedown=move |event| {
                                event.prevent_default();
                                accept(i);
                            }
                        >
                            <span class=format!("kind {}", choice.kind)>{choice.kind}</span>
                            <code>{choice.text}</code>
                            <span class="dim">{choice.detail}</span>
                        </li>
                    }
                })
                .collect_view();
            view! {
                <ul
                    class="completions" id="completions" role="listbox" aria-label="Completions"
                    style:--column=indent() style:--row=depth()
                >
                    {options}
                </ul>
            }
        })
    };
    Effect::new(move |_| {
        let at = active.get();
        if open.get()
            && let Some(option) = document().get_element_by_id(&format!("completion-{at}"))
        {
            let options = web_sys::ScrollIntoViewOptions::new();
            options.set_block(web_sys::ScrollLogicalPosition::Nearest);
            option.scroll_into_view_with_scroll_into_view_options(&options);
        }
    });
    view! {
        <form
            class="editor" role="search" aria-label="PromQL"
            on:submit=move |event| {
                event.prevent_default();
                run();
            }
        >
            <div class="field">
                <textarea
                    node_ref=field rows=rows spellcheck="false" autocapitalize="off" autocomplete="off"
                    placeholder="A metric's name or a PromQL query; Ctrl+Space completes"
                    aria-label="PromQL query" role="combobox" aria-autocomplete="list"
                    aria-controls="completions" aria-haspopup="listbox"
                    aria-expanded=move || shown().to_string()
                    aria-activedescendant=move || shown().then(|| format!("completion-{}", active.get()))
                    aria-invalid=move || wrong.with(Option::is_some).then_some("true")
                    aria-describedby=move || wrong.with(Option::is_some).then_some("query-mistake")
                    data-testid="promql-query" data-key="promql-query"
                    prop:value=draft on:input=on_input on:keydown=on_key on:keyup=on_caret
                    on:click=move |_| {
                        open.set(false);
                        read_caret();
                    }
                    on:blur=move |_| open.set(false)
                ></textarea>
                {list}
            </div>
            <button type="submit" class="primary">"Run"</button>
        </form>
        {move || wrong.get().map(|wrong| view! { <Wrong wrong=wrong/> })}
    }
}

/// The line of the query that is wrong, with a caret below the place.
#[component]
fn Wrong(wrong: Mistake) -> impl IntoView {
    let part = |from: usize, n: usize| wrong.line.chars().skip(from).take(n).collect::<String>();
    let (before, bad) = (part(0, wrong.before), part(wrong.before, wrong.length));
    let after = part(wrong.before + wrong.length, usize::MAX);
    let carets = format!("{}{}", " ".repeat(wrong.before), "^".repeat(wrong.length));
    view! {
        <div class="mistake" id="query-mistake" role="alert" data-testid="query-mistake">
            <pre aria-hidden="true">{before}<mark>{bad}</mark>{after}"\n"<b>{carets}</b></pre>
            <p>
                <strong>{wrong.message.clone()}</strong>
                <span class="hidden">{format!(" at character {}", wrong.before + 1)}</span>
                {wrong.advice.map(|advice| view! { <span class="advice">{advice}</span> })}
            </p>
        </div>
    }
}

/// What can stand there, the likeliest first.
fn choices(known: Known, draft: &str, place: &Place) -> Vec<Choice> {
    let typed = &draft[place.start..place.end];
    let next = draft[place.end..].chars().next();
    let all: Vec<Choice> = match &place.wanted {
        Wanted::Nothing => return Vec::new(),
        Wanted::Duration => {
            DURATIONS.iter().map(|(text, detail)| Choice::new(text, "range", *detail)).collect()
        }
        Wanted::Label { metric, in_braces } => known
            .labels(metric.as_deref())
            .iter()
            .filter(|label| *label != "__name__")
            .map(|label| {
                let choice = Choice::new(label, "label", "");
                match (in_braces, next) {
                    (true, None | Some(',' | '}' | ' ' | ')' | '\n')) => {
                        choice.around(&format!("{label}=\""), "\"")
                    }
                    _ => choice,
                }
            })
            .collect(),
        Wanted::Value { metric, label } => known
            .values(label, metric.as_deref())
            .iter()
            .map(|value| {
                let text = escape(value);
                let choice = Choice::new(value, "value", "");
                // Behind the closing quote, which may be there already.
                let caret = text.len() + 1;
                let insert = if next == Some('"') { text } else { format!("{text}\"") };
                Choice { insert, caret, ..choice }
            })
            .collect(),
        Wanted::Name => names(known, next == Some('(')),
    };
    let places = rank(all.iter().map(|choice| choice.text.as_str()), typed, CHOICES_MAX);
    places.into_iter().map(|i| all[i].clone()).collect()
}

fn names(known: Known, called: bool) -> Vec<Choice> {
    let metrics = known.names().into_iter().map(|name| {
        let metadata = known.metadata(&name).unwrap_or_default();
        Choice::new(&name, "metric", metadata.help)
    });
    let call = |(name, arguments, what): &(&str, &str, &str), kind| {
        let choice = Choice::new(name, kind, format!("{arguments}  {what}"));
        if called { choice } else { choice.around(&format!("{name}("), ")") }
    };
    let functions = FUNCTIONS.iter().map(|entry| call(entry, "function"));
    let aggregations = AGGREGATIONS.iter().map(|entry| call(entry, "aggregation"));
    let keywords = KEYWORDS.iter().map(|word| Choice::new(word, "keyword", ""));
    metrics.chain(aggregations).chain(functions).chain(keywords).collect()
}
