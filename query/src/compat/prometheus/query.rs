//! `query`, `query_range`, `format_query`, `parse_query`.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use trefoil_promql::parse::prettify;
use trefoil_promql::{Budget, Engine, Outcome, QueryRange, Value};

use super::form::Form;
use super::reply::{Failure, Notes, Reply, success, success_raw};
use super::run::Queued;
use super::{PrometheusApi, encode, tree};

/// The most points per series of a range query.
const POINTS_MAX: u64 = 11_000;
/// Warnings and infos beyond these are only counted.
const NOTES_MAX: usize = 10;

/// Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}

/// What both kinds of queries take.
struct Common {
    query: String,
    limit: usize,
    stats: String,
    timeout_ms: Option<i64>,
    engine: Engine,
}

fn common(api: &PrometheusApi, form: &Form) -> Result<Common, Failure> {
    let mut options = api.0.engine.clone();
    let lookback = form.duration("lookback_delta").map_err(|e| {
        Failure::bad_data(format!("error parsing lookback delta duration: {}", e.message))
    })?;
    if let Some(ms) = lookback.filter(|ms| *ms > 0) {
        options.lookback = Duration::from_millis(ms.unsigned_abs());
    }
    Ok(Common {
        query: form.get("query").to_owned(),
        limit: form.limit()?,
        stats: form.get("stats").to_owned(),
        timeout_ms: form.duration("timeout")?,
        engine: Engine::new(options),
    })
}

pub(super) async fn instant(State(api): State<PrometheusApi>, form: Form) -> Reply {
    let time_ms = form.time_or("time", now_ms())?;
    let common = common(&api, &form)?;
    api.run(common.timeout_ms, move |api, budget, queued| {
        let outcome =
            common.engine.instant(api.0.source.as_ref(), &common.query, time_ms, budget)?;
        answer(&common, outcome, time_ms, budget, queued)
    })
    .await
}

pub(super) async fn range(State(api): State<PrometheusApi>, form: Form) -> Reply {
    let (start_ms, end_ms) = (form.time("start")?, form.time("end")?);
    if end_ms < start_ms {
        return Err(Failure::parameter("end", "end timestamp must not be before start time"));
    }
    let step_ms = form
        .duration("step")?
        .ok_or_else(|| Failure::parameter("step", "cannot parse \"\" to a valid duration"))?;
    if step_ms <= 0 {
        let message = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(Failure::parameter("step", message));
    }
    let range = QueryRange { start_ms, end_ms, step_ms };
    if range.steps() > POINTS_MAX {
        return Err(Failure::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX) (setting promql-steps-max)",
        ));
    }
    let common = common(&api, &form)?;
    api.run(common.timeout_ms, move |api, budget, queued| {
        let outcome = common.engine.range(api.0.source.as_ref(), &common.query, range, budget)?;
        answer(&common, outcome, start_ms, budget, queued)
    })
    .await
}

fn answer(
    common: &Common,
    mut outcome: Outcome,
    time_ms: i64,
    budget: &Budget,
    queued: Queued,
) -> Reply {
    let (warnings, infos) = outcome.annotations.texts(&common.query, NOTES_MAX);
    let mut notes = Notes { warnings, infos };
    if truncate(&mut outcome.value, common.limit) {
        notes.warnings.push("results truncated due to limit".to_owned());
    }
    if !matches!(common.stats.as_str(), "" | "true" | "all") {
        notes.warnings.push(format!(
            "value {:?} for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\"",
            common.stats
        ));
    }
    // Never given back: the query ends here.
    budget.take(size(&outcome.value))?;
    let mut data = vec![b'{'];
    encode::result(&mut data, &outcome.value, time_ms);
    if !common.stats.is_empty() {
        write_stats(&mut data, &outcome, budget, queued, common.stats == "all");
    }
    data.push(b'}');
    Ok(success_raw(&data, &notes))
}

/// Memory that a result takes, in samples: as it stands, and as text, about 30 bytes a point and 250 for labels.
fn size(value: &Value) -> u64 {
    const SERIES: u64 = 16;
    const POINT: u64 = 3;
    match value {
        Value::Scalar(_) | Value::Text(_) => 1,
        Value::Vector(samples) => (SERIES + POINT) * samples.len() as u64,
        Value::Matrix(all) => all.iter().map(|s| SERIES + POINT * s.sample_cost()).sum(),
    }
}

fn truncate(value: &mut Value, limit: usize) -> bool {
    let cut = |len: usize| limit > 0 && len > limit;
    match value {
        Value::Vector(v) if cut(v.len()) => v.truncate(limit),
        Value::Matrix(m) if cut(m.len()) => m.truncate(limit),
        _ => return false,
    }
    true
}

fn write_stats(
    out: &mut Vec<u8>,
    outcome: &Outcome,
    budget: &Budget,
    queued: Queued,
    per_step: bool,
) {
    let evaluation = outcome.evaluation.as_secs_f64();
    let sorting = outcome.sorting.as_secs_f64();
    let waited = queued.waited.as_secs_f64();
    let total = evaluation + sorting + waited;
    let _ = write!(
        out,
        ",\"stats\":{{\"timings\":{{\"evalTotalTime\":{},\"resultSortTime\":{sorting},\"queryPreparationTime\":0,\"innerEvalTime\":{evaluation},\"execQueueTime\":{waited},\"execTotalTime\":{total}}},\"samples\":{{",
        evaluation + sorting,
    );
    if per_step {
        out.extend_from_slice(b"\"totalQueryableSamplesPerStep\":[");
        for (i, (time_ms, count)) in outcome.samples.iter().enumerate() {
            out.extend_from_slice(if i > 0 { b",[" } else { b"[" });
            encode::time(out, *time_ms);
            let _ = write!(out, ",{count}]");
        }
        out.extend_from_slice(b"],");
    }
    let total: u64 = outcome.samples.iter().map(|(_, n)| n).sum();
    let _ = write!(
        out,
        "\"totalQueryableSamples\":{total},\"samplesRead\":{},\"peakSamples\":{}}}}}",
        budget.samples_read(),
        budget.samples_peak()
    );
}

fn parsed(api: &PrometheusApi, form: &Form) -> Result<trefoil_promql::parse::Expr, Failure> {
    trefoil_promql::parse(form.get("query"), api.0.engine.parse)
        .map_err(|e| Failure::parameter("query", e))
}

pub(super) async fn format(State(api): State<PrometheusApi>, form: Form) -> Reply {
    Ok(success(&prettify(&parsed(&api, &form)?), &Notes::default()))
}

pub(super) async fn parse(State(api): State<PrometheusApi>, form: Form) -> Reply {
    Ok(success(&tree::json(&parsed(&api, &form)?), &Notes::default()))
}
