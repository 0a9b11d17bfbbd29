//! `status/*`, and endpoints about things that Trefoil does not have: they answer with empty lists.

use std::time::SystemTime;

use axum::extract::State;
use serde_json::{Value, json};

use super::PrometheusApi;
use super::form::Form;
use super::reply::{Failure, Notes, Reply, success};

/// The version of Prometheus whose API this is: clients choose features by it.
const PROMETHEUS_VERSION: &str = "3.14.0";
/// The most entries of the lists in `status/tsdb`.
const LIST_MAX: usize = 10_000;

fn reply(data: Value) -> Reply {
    Ok(success(&data, &Notes::default()))
}

pub(super) async fn rules() -> Reply {
    reply(json!({"groups": []}))
}

pub(super) async fn alerts() -> Reply {
    reply(json!({"alerts": []}))
}

pub(super) async fn alertmanagers() -> Reply {
    reply(json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}))
}

pub(super) async fn targets() -> Reply {
    reply(json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}}))
}

pub(super) async fn targets_metadata() -> Reply {
    reply(json!([]))
}

pub(super) async fn scrape_pools() -> Reply {
    reply(json!({"scrapePools": []}))
}

pub(super) async fn config() -> Reply {
    reply(json!({"yaml": ""}))
}

pub(super) async fn wal_replay() -> Reply {
    reply(json!({"min": 0, "max": 0, "current": 0}))
}

/// No `features` here: Grafana would take it for a sign of Mimir and offer to write rules.
pub(super) async fn build_info() -> Reply {
    reply(json!({
        "version": PROMETHEUS_VERSION,
        "revision": concat!("trefoil-", env!("CARGO_PKG_VERSION")),
        "branch": "HEAD",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|t| t.to_string()).unwrap_or_default()
}

pub(super) async fn runtime_info(State(api): State<PrometheusApi>) -> Reply {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let folder = std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    reply(json!({
        "startTime": rfc3339(api.0.started),
        "CWD": folder,
        "hostname": host.trim(),
        "serverTime": rfc3339(SystemTime::now()),
        "reloadConfigSuccess": true,
        "lastConfigTime": rfc3339(api.0.started),
        "corruptionCount": 0,
        "goroutineCount": 0,
        "GOMAXPROCS": threads,
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": api.0.retention,
    }))
}

pub(super) async fn flags(State(api): State<PrometheusApi>) -> Reply {
    Ok(success(&api.0.flags, &Notes::default()))
}

pub(super) async fn tsdb(State(api): State<PrometheusApi>, form: Form) -> Reply {
    let limit = match form.get("limit") {
        "" => 10,
        text => match text.parse::<usize>() {
            Ok(n) if n > LIST_MAX => {
                return Err(Failure::bad_data(format!("limit must not exceed {LIST_MAX}")));
            }
            Ok(n) if n > 0 => n,
            _ => return Err(Failure::bad_data("limit must be a positive number")),
        },
    };
    api.run(None, move |api, _, _| {
        let stats = api.0.source.stats(limit)?;
        let list = |entries: Vec<(String, u64)>| -> Vec<Value> {
            entries.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
        };
        let (min, max) = stats.times_ms.unwrap_or((0, 0));
        let data = json!({
            "headStats": {
                "numSeries": stats.series,
                "numLabelPairs": stats.label_pairs,
                "chunkCount": 0,
                "minTime": min,
                "maxTime": max,
            },
            "seriesCountByMetricName": list(stats.series_by_metric),
            "labelValueCountByLabelName": list(stats.values_by_label),
            "memoryInBytesByLabelName": [],
            "seriesCountByLabelValuePair": [],
        });
        Ok(success(&data, &Notes::default()))
    })
    .await
}
