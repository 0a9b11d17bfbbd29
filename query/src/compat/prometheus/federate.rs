//! `/federate`: the newest samples in the text format that Prometheus scrapes.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use trefoil_promql::labels::METRIC_NAME;
use trefoil_promql::text::write_value;
use trefoil_promql::{SelectHints, TimeRange, is_stale};

use super::PrometheusApi;
use super::form::Form;
use super::query::now_ms;
use super::reply::Reply;

/// The newest float of each series within the lookback, by metric name. Native histograms have no
/// place in the text format and are left out.
pub(super) async fn federate(State(api): State<PrometheusApi>, form: Form) -> Reply {
    let selectors = form.selectors()?;
    let now = now_ms();
    let lookback = api.0.engine.lookback.as_millis() as i64;
    api.run(None, move |api, budget, _| {
        let range = TimeRange { start_ms: now - lookback + 1, end_ms: now };
        let mut newest = BTreeMap::new();
        for matchers in &selectors {
            let found = api.0.source.select(matchers, range, &SelectHints::default(), budget)?;
            for series in found {
                budget.give_back(series.sample_cost());
                let (Some(time), Some(value)) =
                    (series.floats.times.last(), series.floats.values.last())
                else {
                    continue;
                };
                if !is_stale(*value) && !series.labels.name().is_empty() {
                    newest.insert(series.labels, (*time, *value));
                }
            }
        }
        let mut by_name: BTreeMap<String, String> = BTreeMap::new();
        for (labels, (time, value)) in newest {
            let text = by_name.entry(labels.name().to_owned()).or_default();
            let others = labels.retain(|n| n != METRIC_NAME);
            text.push_str(labels.name());
            if !others.is_empty() {
                text.push('{');
                for (i, (name, value)) in others.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    let value =
                        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    let _ = write!(text, "{comma}{name}=\"{value}\"");
                }
                text.push('}');
            }
            text.push(' ');
            write_value(text, value);
            let _ = writeln!(text, " {time}");
        }
        let mut body = String::new();
        for (name, lines) in by_name {
            let _ = write!(body, "# TYPE {name} untyped\n{lines}");
        }
        let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        Ok((kind, body).into_response())
    })
    .await
}
