//! A query's answer: chart or heat map, exemplars, table.

use crate::chart::dots::Dot;
use crate::chart::heat::HeatMap;
use crate::chart::lines::{Line, LineChart};
use crate::client::Load;
use crate::url::{use_param, use_replace_params, zone_minutes};
use crate::widgets::colour::{meet, service_class};
use leptos::prelude::*;
use std::cmp::Ordering;
use std::sync::Arc;
use ui_core::format::{count, significant};
use ui_core::heat::{Bucket, Heat, are_buckets, from_buckets, merge};
use ui_core::promql::answer::{Exemplar, ExemplarAnswer, RangeAnswer, Series};
use ui_core::promql::error::noted;
use ui_core::promql::unit::{Unit, shows_observations, unit};
use ui_core::series::{
    Labels, Points, figures, selector, short_name, telling, thin_out, with_gaps,
};
use ui_core::time::{Range, clock};

/// Series drawn at most.
const LINES_MAX: usize = 50;

/// Rows of the table at most.
const ROWS_MAX: usize = 200;

/// Rows of a heat map at most.
const HEAT_ROWS_MAX: usize = 60;

/// Exemplars drawn: of each so many pieces of the time axis the largest two.
const EXEMPLAR_PIECES: usize = 60;

/// Colours of lines in the style sheet.
const LINE_COLOURS: usize = 12;

/// Labels that name a service; lines that differ in one of them only have the service's colour.
const SERVICE_LABELS: [&str; 5] = ["service_name", "service", "job", "server", "client"];

/// What was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub query: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub step_ns: u64,
    pub range: Range,
}

/// A series with what the chart and the table both need.
#[derive(Debug, Clone, PartialEq)]
struct Drawn {
    labels: Labels,
    name: String,
    class: String,
    points: Points,
}

#[component]
pub fn Result(
    answer: RangeAnswer,
    exemplars: RwSignal<Load<Option<ExemplarAnswer>>>,
    facts: Facts,
) -> impl IntoView {
    let RangeAnswer { mut data, warnings, infos } = answer;
    if are_buckets(data.result.iter().map(|one| &one.metric)) {
        // As numbers, not as texts.
        let bound = |one: &Series| one.metric.get("le").and_then(|le| le.parse::<f64>().ok());
        data.result.sort_by(|a, b| bound(a).partial_cmp(&bound(b)).unwrap_or(Ordering::Equal));
    }
    let notes = notes(&facts.query, warnings.into_iter().chain(infos));
    let total = data.result.len();
    if total == 0 {
        let all = format!("/explore?{}", facts.range.query());
        return view! {
            {notes}
            <section class="state">
                <h2>"No series"</h2>
                <p>
                    "The query is right, and found nothing in this time range. Widen the range, or "
                    <a class="inline" href=all>"look at all metrics"</a>"."
                </p>
            </section>
        }
        .into_any();
    }
    let native = data.result.iter().any(|series| !series.histograms.is_empty());
    let heat = heat(&data.result, &facts).map(Arc::new);
    let view = use_param("view");
    let has_heat = heat.is_some();
    // Whole histograms have no lines.
    let as_heat = Memo::new(move |_| has_heat && (native || view.get() != "lines"));
    let set = use_replace_params();
    let toggle = (has_heat && !native).then(|| {
        let button = |label: &'static str, wanted: &'static str| {
            let set = set.clone();
            let on = move || as_heat.get() == (wanted == "heat");
            view! {
                <button
                    type="button" aria-pressed=move || on().to_string() data-key=format!("view-{wanted}")
                    on:click=move |_| set(&[("view", (wanted == "lines").then(|| wanted.to_owned()))])
                >
                    {label}
                </button>
            }
        };
        view! {
            <div class="segmented" role="group" aria-label="Chart">
                {button("Heat map", "heat")} {button("Lines", "lines")}
            </div>
        }
    });
    let with_dots = RwSignal::new(true);
    let found = exemplars_in(exemplars, facts.clone());
    let dots_button = move || {
        let n = found.with(Vec::len);
        (n > 0).then(|| view! {
            <button
                type="button" class="plain" data-key="exemplars" aria-pressed=move || with_dots.get().to_string()
                title="Requests that were really measured; each leads to its trace"
                on:click=move |_| with_dots.update(|on| *on = !*on)
            >
                <span class="dotkey"></span>{format!("{} exemplars", count(n as f64))}
            </button>
        })
    };
    let drawn = Arc::new(drawn(&data.result, facts.step_ns));
    let lit = RwSignal::new(None::<usize>);
    let show = unit(&facts.query).show();
    let observed = observed(&facts.query);
    let chart = {
        let (drawn, facts) = (drawn.clone(), facts.clone());
        move || {
            let exemplars = if with_dots.get() { found.get() } else { Vec::new() };
            match heat.clone().filter(|_| as_heat.get()) {
                Some(heat) => heat_chart(heat, exemplars, &facts).into_any(),
                None => lines_chart(&drawn, exemplars, &facts, show, lit).into_any(),
            }
        }
    };
    let step = ui_core::format::duration(facts.step_ns as f64);
    view! {
        {notes}
        <div class="resulthead">
            <p class="hint" role="status">
                {format!("{} series · a value every {step}", count(total as f64))}
                {(total > LINES_MAX && !native).then(|| format!(" · {LINES_MAX} drawn"))}
            </p>
            {dots_button} {toggle}
        </div>
        {chart}
        <Table series=data.result drawn=drawn show=show observed=observed lit=lit/>
    }
    .into_any()
}

/// Warnings and infos of the answer, with their place in the query.
fn notes(query: &str, notes: impl Iterator<Item = String>) -> Vec<AnyView> {
    notes
        .map(|note| match noted(query, &note) {
            Some(spot) => {
                let at: String = spot.line.chars().skip(spot.before).take(spot.length).collect();
                view! { <p class="note" role="status">{spot.message}" at "<code>{at}</code></p> }
                    .into_any()
            }
            None => view! { <p class="note" role="status">{note}</p> }.into_any(),
        })
        .collect()
}

/// A heat map, if the series are histograms.
fn heat(series: &[Series], facts: &Facts) -> Option<Heat> {
    let columns = if series.iter().any(|one| !one.histograms.is_empty()) {
        merge(series.iter().flat_map(Series::columns))
    } else if are_buckets(series.iter().map(|one| &one.metric)) {
        let points: Vec<Points> = series.iter().map(Series::points).collect();
        let buckets: Vec<Bucket<'_>> = series
            .iter()
            .zip(&points)
            .map(|(one, points)| Bucket { labels: &one.metric, points })
            .collect();
        from_buckets(&buckets)
    } else {
        return None;
    };
    // A column is what was seen up to its time.
    let end_ns = facts.end_ns + facts.step_ns;
    Some(Heat::new(facts.start_ns, end_ns, facts.step_ns, columns)?.coarse(HEAT_ROWS_MAX))
}

/// Names and colours of series.
fn drawn(series: &[Series], step_ns: u64) -> Vec<Drawn> {
    let labels: Vec<&Labels> = series.iter().map(|one| &one.metric).collect();
    let telling = telling(&labels);
    let by_service = match telling.as_slice() {
        [only] if SERVICE_LABELS.contains(&only.as_str()) => Some(only.clone()),
        _ => None,
    };
    if let Some(label) = &by_service {
        meet(labels.iter().filter_map(|labels| labels.get(label)).map(String::as_str));
    }
    series
        .iter()
        .enumerate()
        .map(|(i, one)| {
            let service = by_service.as_ref().and_then(|label| one.metric.get(label));
            Drawn {
                labels: one.metric.clone(),
                name: short_name(&one.metric, &telling),
                class: service.map_or_else(
                    || format!("c{}", i % LINE_COLOURS),
                    |service| format!("line {}", service_class(service)),
                ),
                points: with_gaps(one.points(), step_ns),
            }
        })
        .collect()
}

/// Exemplars in the range, thinned out.
fn exemplars_in(
    exemplars: RwSignal<Load<Option<ExemplarAnswer>>>,
    facts: Facts,
) -> Memo<Vec<Exemplar>> {
    Memo::new(move |_| {
        let all = exemplars.with(|answer| match answer {
            Load::Ready(Some(answer)) => answer.clone().leading_to_traces(),
            _ => Vec::new(),
        });
        let width = (facts.end_ns - facts.start_ns).max(1) as f64;
        let inside: Vec<Exemplar> = all
            .into_iter()
            .filter(|e| (facts.start_ns..=facts.end_ns).contains(&e.time_ns))
            .collect();
        let places: Vec<(f64, f64)> =
            inside.iter().map(|e| ((e.time_ns - facts.start_ns) as f64 / width, e.value)).collect();
        thin_out(&places, EXEMPLAR_PIECES, 2).into_iter().map(|i| inside[i].clone()).collect()
    })
}

fn dot(exemplar: &Exemplar, facts: &Facts, end_ns: u64) -> Dot {
    let span = if exemplar.span_id.is_empty() {
        String::new()
    } else {
        format!("span={}&", exemplar.span_id)
    };
    // What one exemplar measures is the metric's own unit, whatever the query makes of it.
    let name = exemplar.series.get("__name__").map(String::as_str).unwrap_or_default();
    let value = match unit(name.trim_end_matches("_bucket")) {
        Unit::Number => significant(exemplar.value),
        unit => unit.show()(exemplar.value),
    };
    let service = SERVICE_LABELS.iter().find_map(|label| exemplar.series.get(*label));
    Dot {
        x: (exemplar.time_ns - facts.start_ns) as f64 / (end_ns - facts.start_ns).max(1) as f64,
        y: 0.0,
        href: format!("/trace/{}?{span}{}", exemplar.trace_id, facts.range.query()),
        label: format!(
            "{}{value}, {}: open this trace",
            service.map(|service| format!("{service}, ")).unwrap_or_default(),
            clock(exemplar.time_ns, zone_minutes(), false)
        ),
        error: false,
        duration_ns: None,
    }
}

/// How observations of the query's histograms are shown: as a quantile of them would be.
fn observed(query: &str) -> fn(f64) -> String {
    unit(&format!("histogram_quantile(0.5, {query})")).show()
}

fn heat_chart(heat: Arc<Heat>, exemplars: Vec<Exemplar>, facts: &Facts) -> impl IntoView + use<> {
    let heat = Heat::clone(&heat).holding(exemplars.iter().map(|e| e.value));
    let dots = exemplars.iter().map(|e| (e.value, dot(e, facts, heat.end_ns))).collect();
    let show = observed(&facts.query);
    let counted = unit(&format!("histogram_count({})", facts.query)).show();
    view! {
        <div data-testid="heat-promql">
            <HeatMap heat=Arc::new(heat) dots=dots show=show count=counted/>
        </div>
    }
}

fn lines_chart(
    drawn: &[Drawn],
    exemplars: Vec<Exemplar>,
    facts: &Facts,
    show: fn(f64) -> String,
    lit: RwSignal<Option<usize>>,
) -> impl IntoView + use<> {
    let on_axis = shows_observations(&facts.query);
    let dots = exemplars
        .iter()
        .map(|e| (on_axis.then_some(e.value), dot(e, facts, facts.end_ns)))
        .collect();
    let lines: Vec<Line> = drawn
        .iter()
        .take(LINES_MAX)
        .map(|one| Line {
            name: one.name.clone(),
            class: one.class.clone(),
            points: one.points.clone(),
        })
        .collect();
    view! {
        <div class="charts single">
            <LineChart
                testid="chart-promql" lines=lines start=facts.start_ns end=facts.end_ns show=show
                dots=dots legend=false lit=lit
            />
        </div>
    }
}

/// A row for each series with its labels and figures.
///
/// * `show`: a value as text; `observed`: an observation of a histogram.
#[component]
fn Table(
    series: Vec<Series>,
    drawn: Arc<Vec<Drawn>>,
    show: fn(f64) -> String,
    observed: fn(f64) -> String,
    lit: RwSignal<Option<usize>>,
) -> impl IntoView {
    let labels: Vec<&Labels> = series.iter().map(|one| &one.metric).collect();
    let columns = telling(&labels);
    let pinned = RwSignal::new(None::<usize>);
    let rows = series
        .iter()
        .zip(drawn.iter())
        .take(ROWS_MAX)
        .enumerate()
        .map(|(i, (one, line))| {
            let cells = columns
                .iter()
                .map(|column| view! { <td class="label">{line.labels.get(column).cloned().unwrap_or_default()}</td> })
                .collect_view();
            let numbers = match one.histograms.last() {
                Some((_, histogram)) => vec![
                    histogram.count.parse::<f64>().map(significant).ok(),
                    histogram.mean().map(observed),
                ],
                None => {
                    let f = figures(&line.points);
                    [f.last, f.mean, f.min, f.max].map(|value| value.map(show)).to_vec()
                }
            };
            let numbers = numbers
                .into_iter()
                .map(|text| view! { <td class="number">{text.unwrap_or_else(|| "–".to_owned())}</td> })
                .collect_view();
            let can_light = i < LINES_MAX && one.histograms.is_empty();
            let pin = move |_| {
                let next = if pinned.get_untracked() == Some(i) { None } else { Some(i) };
                pinned.set(next);
                lit.set(next);
            };
            let swatch = if can_light {
                view! {
                    <button
                        type="button" class=format!("swatch {}", line.class) data-key=format!("series-{i}")
                        aria-pressed=move || (pinned.get() == Some(i)).to_string()
                        aria-label=format!("Let {} stand out", line.name) title="Let it stand out" on:click=pin
                    ></button>
                }
                .into_any()
            } else {
                ().into_any()
            };
            view! {
                <tr
                    class:chosen=move || pinned.get() == Some(i)
                    on:mouseenter=move |_| if can_light { lit.set(Some(i)) }
                    on:mouseleave=move |_| lit.set(pinned.get_untracked())
                    title=selector(&line.labels)
                >
                    <td class="swatchcell">{swatch}</td>
                    {cells}
                    {columns.is_empty().then(|| view! { <td class="label">{line.name.clone()}</td> })}
                    {numbers}
                </tr>
            }
        })
        .collect_view();
    let heads = columns
        .iter()
        .map(|column| view! { <th scope="col"><code>{if column == "__name__" { "name".to_owned() } else { column.clone() }}</code></th> })
        .collect_view();
    let histograms = series.iter().any(|one| !one.histograms.is_empty());
    let figures: &[&str] =
        if histograms { &["Last count", "Last mean"] } else { &["Last", "Mean", "Min", "Max"] };
    let more = series.len().saturating_sub(ROWS_MAX);
    view! {
        <div class="scroll">
            <table class="figuretable" data-testid="promql-table">
                <thead>
                    <tr>
                        <th scope="col"><span class="hidden">"Colour"</span></th>
                        {heads}
                        {columns.is_empty().then(|| view! { <th scope="col">"Series"</th> })}
                        {figures.iter().map(|name| view! { <th scope="col" class="number">{*name}</th> }).collect_view()}
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
        {(more > 0).then(|| view! { <p class="hint">{format!("and {more} more series")}</p> })}
    }
}
