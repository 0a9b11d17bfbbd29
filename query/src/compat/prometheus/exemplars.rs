//! `query_exemplars`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use trefoil_promql::{ExemplarSeries, Matcher};

use super::form::Form;
use super::reply::{Failure, Notes, Reply, success_raw};
use super::{PrometheusApi, encode};

/// Exemplars of all series that the selectors of an expression find.
pub(super) async fn query(State(api): State<PrometheusApi>, form: Form) -> Reply {
    let range = form.range()?;
    if range.end_ms < range.start_ms {
        return Err(Failure::bad_data("end timestamp must not be before start timestamp"));
    }
    let expr = trefoil_promql::parse(form.get("query"), api.0.engine.parse)
        .map_err(|e| Failure::bad_data(e.to_string()))?;
    let mut selectors: Vec<Vec<Matcher>> = Vec::new();
    expr.selectors(&mut |v| selectors.push(v.matchers.clone()));
    if selectors.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    api.run(None, move |api, budget, _| {
        let mut found = api.0.source.exemplars(&selectors, range, budget)?;
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut data = vec![b'['];
        for (i, series) in found.iter().enumerate() {
            if i > 0 {
                data.push(b',');
            }
            write_series(&mut data, series);
        }
        data.push(b']');
        Ok(success_raw(&data, &Notes::default()))
    })
    .await
}

fn write_series(out: &mut Vec<u8>, series: &ExemplarSeries) {
    out.extend_from_slice(b"{\"seriesLabels\":");
    encode::labels(out, &series.labels);
    out.extend_from_slice(b",\"exemplars\":[");
    for (i, e) in series.exemplars.iter().enumerate() {
        out.extend_from_slice(if i > 0 { b",{\"labels\":" } else { b"{\"labels\":" });
        encode::labels(out, &e.labels);
        out.extend_from_slice(b",\"value\":");
        encode::number(out, e.value);
        out.extend_from_slice(b",\"timestamp\":");
        encode::time(out, e.time_ms);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}
