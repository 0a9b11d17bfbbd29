//! `labels`, `label/{name}/values`, `series`, `metadata`.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use serde::Serialize;

use super::form::{Form, unescape_name};
use super::reply::{Failure, Notes, Reply, success, success_raw};
use super::{PrometheusApi, encode};

/// One more than the limit, so that a cut can be told from an exact fit.
fn one_more(limit: usize) -> usize {
    if limit == 0 { 0 } else { limit.saturating_add(1) }
}

fn cut<T>(list: &mut Vec<T>, limit: usize) -> bool {
    let too_long = limit > 0 && list.len() > limit;
    if too_long {
        list.truncate(limit);
    }
    too_long
}

pub(super) async fn names(State(api): State<PrometheusApi>, form: Form) -> Reply {
    let (limit, range, selectors) = (form.limit()?, form.range()?, form.selectors()?);
    api.run(None, move |api, budget, _| {
        let mut names = api.0.source.label_names(&selectors, range, one_more(limit), budget)?;
        let notes = Notes::truncated(cut(&mut names, limit));
        Ok(success(&names, &notes))
    })
    .await
}

pub(super) async fn values(
    State(api): State<PrometheusApi>,
    Path(name): Path<String>,
    form: Form,
) -> Reply {
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(Failure::bad_data("invalid label name: \"\""));
    }
    let (limit, range, selectors) = (form.limit()?, form.range()?, form.selectors()?);
    api.run(None, move |api, budget, _| {
        let mut values =
            api.0.source.label_values(&name, &selectors, range, one_more(limit), budget)?;
        let notes = Notes::truncated(cut(&mut values, limit));
        Ok(success(&values, &notes))
    })
    .await
}

pub(super) async fn series(State(api): State<PrometheusApi>, form: Form) -> Reply {
    let selectors = form.selectors()?;
    if selectors.is_empty() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let (limit, range) = (form.limit()?, form.range()?);
    api.run(None, move |api, budget, _| {
        let mut series = api.0.source.series(&selectors, range, one_more(limit), budget)?;
        series.sort_unstable();
        let notes = Notes::truncated(cut(&mut series, limit));
        let mut data = vec![b'['];
        for (i, labels) in series.iter().enumerate() {
            if i > 0 {
                data.push(b',');
            }
            encode::labels(&mut data, labels);
        }
        data.push(b']');
        Ok(success_raw(&data, &notes))
    })
    .await
}

#[derive(Serialize)]
struct MetadataEntry {
    #[serde(rename = "type")]
    kind: String,
    unit: String,
    help: String,
}

pub(super) async fn metadata(State(api): State<PrometheusApi>, form: Form) -> Reply {
    let number = |name: &str| -> Result<usize, Failure> {
        let text = form.get(name);
        if text.is_empty() {
            return Ok(usize::MAX);
        }
        let number: i64 =
            text.parse().map_err(|_| Failure::bad_data(format!("{name} must be a number")))?;
        // Below zero means no limit, as in Prometheus.
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    };
    let limit = number("limit")?;
    let per_metric = match number("limit_per_metric")? {
        0 => usize::MAX,
        n => n,
    };
    let metric = form.get("metric").to_owned();
    api.run(None, move |api, _, _| {
        let family = (!metric.is_empty()).then_some(metric.as_str());
        let all = api.0.source.metadata(family)?;
        let entries: BTreeMap<String, Vec<MetadataEntry>> = all
            .into_iter()
            .take(limit)
            .map(|(name, list)| {
                let entry = |m: trefoil_promql::Metadata| MetadataEntry {
                    kind: m.kind,
                    unit: m.unit,
                    help: m.help,
                };
                (name, list.into_iter().take(per_metric).map(entry).collect())
            })
            .collect();
        Ok(success(&entries, &Notes::default()))
    })
    .await
}
