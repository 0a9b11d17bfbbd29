//! Every metric there is, with queries to start from.

use super::known::{Family, Known};
use crate::client::Load;
use crate::widgets::breakable;
use crate::widgets::states::{Failed, Loading, SendData};
use leptos::prelude::*;
use ui_core::promql::complete::rank;
use ui_core::promql::starters::starters;

/// Rows drawn at most.
const ROWS_MAX: usize = 400;

/// Narrows itself to what is typed into the query.
#[component]
pub fn Catalogue(
    known: Known,
    draft: RwSignal<String>,
    #[prop(into)] on_choose: Callback<String>,
) -> impl IntoView {
    let families = Memo::new(move |_| known.families());
    move || {
        let families = match families.get() {
            Load::Loading => return view! { <Loading/> }.into_any(),
            Load::Failed(message) => return view! { <Failed message=message/> }.into_any(),
            Load::Ready(families) => families,
        };
        if families.is_empty() {
            return view! { <SendData/> }.into_any();
        }
        let total = families.len();
        let typed = draft.get();
        let places =
            rank(families.iter().map(|family| family.name.as_str()), typed.trim(), ROWS_MAX);
        if places.is_empty() {
            return view! {
                <p class="hint" role="status">"No metric has such a name. Enter asks it as a query."</p>
            }
            .into_any();
        }
        let shown = places.len();
        let rows = places
            .into_iter()
            .map(|place| view! { <Row family=families[place].clone() on_choose=on_choose/> })
            .collect_view();
        view! {
            <p class="hint" role="status">
                {if shown == total { format!("{total} metrics in this range") } else { format!("{shown} of {total} metrics") }}
            </p>
            <div class="scroll">
                <table class="catalogue">
                    <thead>
                        <tr>
                            <th scope="col">"Metric"</th>
                            <th scope="col">"Type"</th>
                            <th scope="col">"Unit"</th>
                            <th scope="col">"Description"</th>
                            <th scope="col">"Show"</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        }
        .into_any()
    }
}

#[component]
fn Row(family: Family, on_choose: Callback<String>) -> impl IntoView {
    let Family { name, metadata, native } = family;
    let starters = starters(&name, &metadata.kind, native, service_label(&name));
    let first = starters.first().map_or_else(|| name.clone(), |starter| starter.query.clone());
    let key = name.clone();
    let words = breakable(&name, '_');
    let buttons = starters
        .into_iter()
        .map(|starter| {
            let query = starter.query.clone();
            view! {
                <button type="button" class="pill" title=starter.query on:click=move |_| on_choose.run(query.clone())>
                    {starter.label}
                </button>
            }
        })
        .collect_view();
    view! {
        <tr>
            <th scope="row">
                <button type="button" class="link" data-key=format!("metric-{key}") on:click=move |_| on_choose.run(first.clone())>
                    <code>{words}</code>
                </button>
            </th>
            <td class="dim">{if metadata.kind.is_empty() { "unknown".to_owned() } else { metadata.kind }}</td>
            <td class="dim">{metadata.unit}</td>
            <td class="wide">{metadata.help}</td>
            <td class="pills">{buttons}</td>
        </tr>
    }
}

/// The label that names the service on series of that metric.
fn service_label(name: &str) -> Option<&'static str> {
    if name.starts_with("traces_spanmetrics") {
        Some("service")
    } else if name.starts_with("traces_service_graph") {
        Some("server")
    } else {
        Some("job")
    }
}
