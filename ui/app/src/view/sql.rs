//! SQL over spans, logs and metrics.

use super::set_title;
use crate::client::{Load, post};
use crate::url::{use_param, use_range, use_set_params};
use crate::widgets::states::{Failed, Loading};
use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::Value;
use trefoil_api::sql::{SqlRequest, SqlResponse};
use ui_core::format::six_digits;

/// Rows drawn at most.
const ROWS_MAX: usize = 1_000;

/// From so many bytes on a text may be wider than its column.
const LONG: usize = 60;

/// Queries to start from.
const EXAMPLES: [(&str, &str); 4] = [
    (
        "Slowest operations",
        "select service_name, name, count(*) as spans,\n       approx_percentile_cont(0.99) within group (order by duration_ns) / 1e6 as p99_ms\nfrom spans\ngroup by service_name, name\norder by p99_ms desc\nlimit 20",
    ),
    (
        "Errors by service",
        "select service_name, status_message, count(*) as errors\nfrom spans\nwhere status_code = 'ERROR'\ngroup by service_name, status_message\norder by errors desc\nlimit 20",
    ),
    (
        "Traces with error logs",
        "select s.trace_id, s.name, s.duration_ns, l.body\nfrom spans s join logs l on l.trace_id = s.trace_id\nwhere l.severity_number >= 17 and s.parent_span_id is null\nlimit 20",
    ),
    (
        "Metrics by name",
        "select metric_name, type, unit, count(*) as points\nfrom metrics\ngroup by metric_name, type, unit\norder by points desc",
    ),
];

#[component]
pub fn Sql() -> impl IntoView {
    set_title("SQL");
    let q = use_param("q");
    let set = use_set_params();
    let draft = RwSignal::new(String::new());
    let answer = RwSignal::new(None::<Load<SqlResponse>>);
    Effect::new(move |_| {
        let query = q.get();
        draft.set(query.clone());
        if query.is_empty() {
            answer.set(None);
            return;
        }
        answer.set(Some(Load::Loading));
        spawn_local(async move {
            let body =
                serde_json::to_string(&SqlRequest { query: query.clone() }).unwrap_or_default();
            let found = post::<SqlResponse>("/api/sql", body).await;
            if q.try_get_untracked() == Some(query) {
                answer.set(Some(found.map_or_else(Load::Failed, Load::Ready)));
            }
        });
    });
    let run = {
        let set = set.clone();
        Callback::new(move |()| set(&[("q", Some(draft.get_untracked()))]))
    };
    let on_key = move |event: leptos::ev::KeyboardEvent| {
        if event.key() == "Enter" && (event.ctrl_key() || event.meta_key()) {
            event.prevent_default();
            run.run(());
        }
    };
    view! {
        <h1>"SQL"</h1>
        <form
            class="sql" aria-label="SQL query"
            on:submit=move |event| {
                event.prevent_default();
                run.run(());
            }
        >
            <label>
                <span class="hidden">"Query over the tables spans, logs and metrics"</span>
                <textarea
                    rows="7" spellcheck="false" placeholder="select … from spans, logs or metrics"
                    prop:value=draft on:input=move |event| draft.set(event_target_value(&event)) on:keydown=on_key
                ></textarea>
            </label>
            <div class="buttons">
                <button type="submit" class="primary">"Run"</button>
                <span class="dim">"Ctrl+Enter"</span>
                {EXAMPLES
                    .into_iter()
                    .map(|(label, query)| {
                        let set = set.clone();
                        view! {
                            <button type="button" class="plain" on:click=move |_| set(&[("q", Some(query.to_owned()))])>
                                {label}
                            </button>
                        }
                    })
                    .collect_view()}
            </div>
        </form>
        {move || match answer.get() {
            None => view! {
                <p class="hint">
                    "Attribute keys are columns in double quotes, for example "<code>"\"http.route\""</code>
                    ". IDs are lower-case hex, durations nanoseconds."
                </p>
            }
            .into_any(),
            Some(Load::Loading) => view! { <Loading/> }.into_any(),
            Some(Load::Failed(message)) => view! { <Failed message=message/> }.into_any(),
            Some(Load::Ready(found)) => view! { <Table found=found/> }.into_any(),
        }}
    }
}

#[component]
fn Table(found: SqlResponse) -> impl IntoView {
    let range = use_range();
    let total = found.rows.len();
    let numeric: Vec<bool> = (0..found.columns.len())
        .map(|at| found.rows.iter().any(|row| row.get(at).is_some_and(Value::is_number)))
        .collect();
    let trace_column = found.columns.iter().position(|name| name == "trace_id");
    let rows = found
        .rows
        .into_iter()
        .take(ROWS_MAX)
        .map(|row| {
            row.into_iter()
                .enumerate()
                .map(|(at, cell)| {
                    let number = cell.is_number();
                    // What may be cut off is whole in the tooltip.
                    let whole = match &cell {
                        Value::Number(number) => number.is_f64().then(|| number.to_string()),
                        Value::String(text) => (text.len() > LONG).then(|| text.clone()),
                        Value::Array(_) | Value::Object(_) => Some(cell.to_string()),
                        Value::Null | Value::Bool(_) => None,
                    };
                    let text = match cell {
                        Value::Number(number) if number.is_f64() => {
                            number.as_f64().map(six_digits).unwrap_or_default()
                        }
                        Value::Null => String::new(),
                        Value::String(text) => text,
                        other => other.to_string(),
                    };
                    if trace_column == Some(at) && !text.is_empty() {
                        let href = format!("/trace/{text}?{}", range.get_untracked().query());
                        view! { <td><a class="inline" href=href><code>{text}</code></a></td> }
                            .into_any()
                    } else {
                        view! { <td class:number=number title=whole>{text}</td> }.into_any()
                    }
                })
                .collect_view()
        })
        .map(|cells| view! { <tr>{cells}</tr> })
        .collect_view();
    let shown = if total > ROWS_MAX {
        format!("{total} rows, the first {ROWS_MAX} shown")
    } else {
        format!("{total} rows")
    };
    view! {
        <p class="hint" role="status">{shown}</p>
        <div class="scroll">
            <table class="result">
                <thead>
                    <tr>
                        {found
                            .columns
                            .into_iter()
                            .zip(numeric)
                            .map(|(name, numeric)| view! { <th scope="col" class:number=numeric>{name}</th> })
                            .collect_view()}
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}
