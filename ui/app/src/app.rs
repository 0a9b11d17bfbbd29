//! Routes, navigation, range picker, theme.

use crate::client::Refresh;
use crate::url::{now_ns, use_range, use_set_params, zone_minutes};
use crate::view::{logs, metrics, overview, service, sql, trace, traces};
use crate::widgets::icons;
use leptos::prelude::*;
use leptos_router::components::{Route, Router, Routes};
use leptos_router::hooks::use_location;
use leptos_router::path;
use ui_core::time::{CHOICES, Range, date_clock};

/// Interval of automatic refresh, ms.
const REFRESH_MS: u32 = 10_000;

#[component]
pub fn App() -> impl IntoView {
    let refresh = Refresh { tick: RwSignal::new(0), trouble: RwSignal::new(None) };
    provide_context(refresh);
    apply_theme(stored_theme().as_deref());
    view! {
        <Router>
            <a class="skip" href="#main">"Skip to content"</a>
            <Header refresh=refresh/>
            <main id="main" tabindex="-1">
                <Routes fallback=|| view! { <NotFound/> }>
                    <Route path=path!("/") view=overview::Overview/>
                    <Route path=path!("/service/:name") view=service::Service/>
                    <Route path=path!("/traces") view=traces::Traces/>
                    <Route path=path!("/trace/:id") view=trace::Trace/>
                    <Route path=path!("/logs") view=logs::Logs/>
                    <Route path=path!("/explore") view=metrics::Metrics/>
                    <Route path=path!("/sql") view=sql::Sql/>
                </Routes>
            </main>
        </Router>
    }
}

#[component]
fn NotFound() -> impl IntoView {
    view! {
        <section class="state">
            <h1>"Nothing here"</h1>
            <p>"This page does not exist. "<a href="/">"Go to the overview"</a>"."</p>
        </section>
    }
}

#[component]
fn Header(refresh: Refresh) -> impl IntoView {
    let location = use_location();
    let range = use_range();
    let links = [
        ("/", "Overview"),
        ("/traces", "Traces"),
        ("/logs", "Logs"),
        ("/explore", "Metrics"),
        ("/sql", "SQL"),
    ];
    let current = move |href: &'static str| {
        let path = location.pathname.get();
        let here = match href {
            "/" => path == "/" || path.starts_with("/service/"),
            "/traces" => path == "/traces" || path.starts_with("/trace/"),
            other => path == other,
        };
        here.then_some("page")
    };
    view! {
        <header class="top">
            <a class="brand" href=move || format!("/?{}", range.get().query()) aria-label="Trefoil, overview">
                {icons::knot()}
                <span>"Trefoil"</span>
            </a>
            <nav aria-label="Views">
                {links
                    .into_iter()
                    .map(|(href, label)| {
                        view! {
                            <a
                                href=move || format!("{href}?{}", range.get().query())
                                aria-current=move || current(href)
                            >
                                {label}
                            </a>
                        }
                    })
                    .collect_view()}
            </nav>
            {move || refresh.trouble.get().map(|why| view! {
                <span class="trouble" role="status" title=why>"Not up to date"</span>
            })}
            // SQL says itself which times it is about.
            <RangePicker tick=refresh.tick hidden=Signal::derive(move || location.pathname.get() == "/sql")/>
            <ThemeButton/>
        </header>
    }
}

#[component]
fn RangePicker(tick: RwSignal<u32>, hidden: Signal<bool>) -> impl IntoView {
    let range = use_range();
    let set = use_set_params();
    let live = RwSignal::new(true);
    let interval = gloo_timers::callback::Interval::new(REFRESH_MS, move || {
        if live.try_get_untracked() == Some(true) && range.with_untracked(Range::is_live) {
            tick.update(|n| *n = n.wrapping_add(1));
        }
    });
    // The header lives as long as the page.
    interval.forget();
    let chosen = move || match range.get() {
        Range::Last(_, text) => text,
        Range::Fixed(..) => "fixed".to_owned(),
    };
    let fixed = move || match range.get() {
        Range::Fixed(start, end) => {
            let zone = zone_minutes();
            Some(format!(
                "{} to {}",
                date_clock(start, zone, false),
                &date_clock(end, zone, false)[11..]
            ))
        }
        Range::Last(..) => None,
    };
    let on_change = {
        let set = set.clone();
        move |event| {
            let value = event_target_value(&event);
            if value != "fixed" {
                set(&[("range", Some(value)), ("start", None), ("end", None)]);
            }
        }
    };
    let freeze = move |_| {
        let (start, end) = range.get_untracked().bounds(now_ns());
        set(&[("range", None), ("start", Some(start.to_string())), ("end", Some(end.to_string()))]);
    };
    view! {
        <div class="range" role="group" aria-label="Time range" hidden=move || hidden.get()>
            {move || fixed().map(|text| view! { <span class="fixed">{text}</span> })}
            <label>
                <span class="hidden">"Time range"</span>
                <select on:change=on_change prop:value=chosen>
                    {CHOICES
                        .into_iter()
                        .map(|choice| view! {
                            <option value=choice selected=move || chosen() == choice>{format!("Last {choice}")}</option>
                        })
                        .collect_view()}
                    // The address may hold one that is not offered.
                    {move || {
                        let text = chosen();
                        (text != "fixed" && !CHOICES.contains(&text.as_str())).then(|| view! {
                            <option value=text.clone() selected=true>{format!("Last {text}")}</option>
                        })
                    }}
                    <option value="fixed" selected=move || chosen() == "fixed" disabled=true>"Fixed"</option>
                </select>
            </label>
            <Show when=move || range.with(Range::is_live)>
                <button
                    class="plain" type="button" title="Hold this range still, so that its address can be shared"
                    on:click=freeze.clone()
                >
                    "Hold"
                </button>
            </Show>
            <button
                type="button" class="plain"
                aria-pressed=move || live.get().to_string()
                title="Refresh every 10 seconds"
                on:click=move |_| live.update(|on| *on = !*on)
            >
                <span class="pulse" class:on=move || live.get() && range.with(Range::is_live)></span>
                "Live"
            </button>
        </div>
    }
}

#[component]
fn ThemeButton() -> impl IntoView {
    let theme = RwSignal::new(stored_theme());
    let flip = move |_| {
        let dark = match theme.get_untracked().as_deref() {
            Some(text) => text == "dark",
            None => prefers_dark(),
        };
        let next = if dark { "light" } else { "dark" };
        if let Some(storage) = window().local_storage().ok().flatten() {
            // Private windows may refuse to store: the choice then lasts as long as the page.
            let _ = storage.set_item("theme", next);
        }
        apply_theme(Some(next));
        theme.set(Some(next.to_owned()));
    };
    view! {
        <button type="button" class="plain icon" aria-label="Switch between dark and light" on:click=flip>
            {icons::theme()}
        </button>
    }
}

fn stored_theme() -> Option<String> {
    window().local_storage().ok().flatten()?.get_item("theme").ok().flatten()
}

fn prefers_dark() -> bool {
    window().match_media("(prefers-color-scheme: dark)").ok().flatten().is_some_and(|m| m.matches())
}

fn apply_theme(theme: Option<&str>) {
    if let (Some(root), Some(theme)) = (document().document_element(), theme) {
        // Only an unknown attribute name could fail.
        let _ = root.set_attribute("data-theme", theme);
    }
}
