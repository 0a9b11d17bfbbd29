//! PromQL, compared with the same figures worked out from the generator's counters.

use super::{Known, Query, Set, ensure_equal, list};
use crate::client::encoded;
use crate::corpus::metrics::{BOUNDS, Facts, NAME_PATTERN, SERIES_PER_POD};
use crate::corpus::shop::SERVICES;
use crate::corpus::{HOUR_NS, Shop};
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;

const RANGE_MS: u64 = 300_000;
const STEP_MS: u64 = 60_000;
const ASKED: usize = 10;

/// What sums in another order may differ by.
const TOLERANCE: f64 = 1e-9;

pub fn sets<'a>(known: &'a Known<'a>) -> Vec<Set<'a>> {
    let set = |name, goal, queries| Set { name, goals: (None, goal), queries };
    vec![
        set("sum by service of rate[5m], 55 min", Some(10.0), rates(known)),
        set("histogram_quantile by service, 55 min", Some(50.0), quantiles(known)),
        set("topk, instant", Some(5.0), (0..20).map(|number| topk(known, number)).collect()),
        set("count of all series, instant", None, (0..ASKED).map(|_| count(known)).collect()),
    ]
}

/// Evaluation times, Unix ms: from five minutes in to the end.
fn steps(shop: &Shop) -> Vec<u64> {
    let (start, end) =
        (shop.settings.start_ns / 1_000_000, (shop.settings.start_ns + HOUR_NS) / 1_000_000);
    (start + RANGE_MS..=end).step_by(STEP_MS as usize).collect()
}

fn range_query(shop: &Shop, expression: &str) -> String {
    let steps = steps(shop);
    let (first, last) = (steps[0], steps[steps.len() - 1]);
    format!(
        "/prometheus/api/v1/query_range?query={}&start={}&end={}&step={}",
        encoded(expression),
        first / 1000,
        last / 1000,
        STEP_MS / 1000
    )
}

/// Prometheus' `rate` of a counter that is never reset, at `at_ms`.
///
/// * `times_ms`: of the samples, ascending.
fn rate(times_ms: &[u64], value: impl Fn(usize) -> f64, at_ms: u64) -> Option<f64> {
    let from = times_ms.partition_point(|time| *time <= at_ms - RANGE_MS);
    let to = times_ms.partition_point(|time| *time <= at_ms);
    if to - from < 2 {
        return None;
    }
    let (first, last) = (times_ms[from], times_ms[to - 1]);
    let (first_value, gain) = (value(from), value(to - 1) - value(from));
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let sampled = seconds(last - first);
    let between = sampled / (to - from - 1) as f64;
    let near = |gap: f64| if gap >= between * 1.1 { between / 2.0 } else { gap };
    let mut before = near(seconds(first - (at_ms - RANGE_MS)));
    if gain > 0.0 && first_value >= 0.0 {
        before = before.min(sampled * (first_value / gain));
    }
    let after = near(seconds(at_ms - last));
    Some(gain * (sampled + before + after) / sampled / seconds(RANGE_MS))
}

/// Rates of the cumulative buckets of server requests, added up by service; per evaluation time.
fn bucket_rates(shop: &Shop, facts: &Facts, service: usize) -> Vec<Option<Vec<f64>>> {
    let mut out: Vec<Option<Vec<f64>>> = steps(shop).iter().map(|_| None).collect();
    for (place, pod) in facts.pods.iter().enumerate() {
        if shop.pods[*pod].service != service {
            continue;
        }
        let times_ms: Vec<u64> = facts.times_ns[place].iter().map(|ns| ns / 1_000_000).collect();
        for counts in &facts.durations[place] {
            for (sums, at_ms) in out.iter_mut().zip(steps(shop)) {
                for bucket in 0..=BOUNDS.len() {
                    let value = |step: usize| counts[step][..=bucket].iter().sum::<u64>() as f64;
                    if let Some(rate) = rate(&times_ms, value, at_ms) {
                        sums.get_or_insert_with(|| vec![0.0; BOUNDS.len() + 1])[bucket] += rate;
                    }
                }
            }
        }
    }
    out
}

/// `histogram_quantile` of cumulative bucket rates, the last one +Inf.
fn quantile(q: f64, buckets: &[f64]) -> f64 {
    let all = buckets[buckets.len() - 1];
    if all == 0.0 {
        return f64::NAN;
    }
    let mut rank = q * all;
    let bucket = buckets.partition_point(|count| *count < rank);
    if bucket >= BOUNDS.len() {
        return BOUNDS[BOUNDS.len() - 1];
    }
    let (start, below) = match bucket {
        0 => (0.0, 0.0),
        _ => (BOUNDS[bucket - 1], buckets[bucket - 1]),
    };
    rank -= below;
    start + (BOUNDS[bucket] - start) * (rank / (buckets[bucket] - below))
}

type Matrix = BTreeMap<String, Vec<(u64, f64)>>;

/// What a range query should give, by service.
fn expected(known: &Known<'_>, value: impl Fn(&[f64]) -> f64) -> Matrix {
    let mut matrix = Matrix::new();
    for (number, service) in SERVICES.iter().enumerate() {
        let rates = bucket_rates(known.shop, known.metrics, number);
        let values: Vec<(u64, f64)> = steps(known.shop)
            .into_iter()
            .zip(&rates)
            .filter_map(|(time, buckets)| Some((time, value(buckets.as_ref()?))))
            .collect();
        if !values.is_empty() {
            // `job` is service.namespace and service.name.
            matrix.insert(format!("shop/{}", service.name), values);
        }
    }
    matrix
}

fn result(answer: &Value) -> Result<&Vec<Value>, String> {
    list(answer.get("data").ok_or("no data")?, "result")
}

fn sample(pair: &Value) -> Result<(u64, f64), String> {
    let time = pair[0].as_f64().ok_or("no time")?;
    let value = pair[1].as_str().and_then(|text| text.parse().ok()).ok_or("no value")?;
    Ok(((time * 1000.0).round() as u64, value))
}

fn is_matrix(want: &Matrix, answer: &Value) -> Result<(), String> {
    let mut got = Matrix::new();
    for series in result(answer)? {
        let service = series["metric"]["job"].as_str().ok_or("no job")?;
        let values = list(series, "values")?.iter().map(sample).collect::<Result<_, _>>()?;
        got.insert(service.to_owned(), values);
    }
    ensure_equal("services", got.keys().collect::<Vec<_>>(), want.keys().collect())?;
    for (service, want) in want {
        let got = &got[service];
        ensure_equal("points", got.len(), want.len())?;
        for ((time, value), (want_time, want_value)) in got.iter().zip(want) {
            ensure_equal("time", time, want_time)?;
            let close = (value - want_value).abs() <= TOLERANCE * want_value.abs();
            if !close && !(value.is_nan() && want_value.is_nan()) {
                return Err(format!("{service} at {time}: got {value}, want {want_value}"));
            }
        }
    }
    Ok(())
}

/// One range query, asked again and again.
fn repeated<'a>(known: &Known<'_>, expression: &str, want: Matrix) -> Vec<Query<'a>> {
    let want = Rc::new(want);
    let query = |_| {
        let want = want.clone();
        let check = move |answer: &Value| is_matrix(&want, answer);
        Query { path: range_query(known.shop, expression), check: Box::new(check) }
    };
    (0..ASKED).map(query).collect()
}

fn rates<'a>(known: &Known<'_>) -> Vec<Query<'a>> {
    let want = expected(known, |buckets| buckets[BOUNDS.len()]);
    let sum = "sum by (job) (rate(http_server_request_duration_seconds_count[5m]))";
    repeated(known, sum, want)
}

fn quantiles<'a>(known: &Known<'_>) -> Vec<Query<'a>> {
    let want = expected(known, |buckets| quantile(0.95, buckets));
    let expression = "histogram_quantile(0.95, sum by (job, le) \
                      (rate(http_server_request_duration_seconds_bucket[5m])))";
    repeated(known, expression, want)
}

fn instant_query(expression: &str, at_ms: u64) -> String {
    format!("/prometheus/api/v1/query?query={}&time={}", encoded(expression), at_ms / 1000)
}

fn topk<'a>(known: &'a Known<'a>, number: usize) -> Query<'a> {
    let steps = steps(known.shop);
    let at_ms = steps[(number * 7) % steps.len()];
    let facts = known.metrics;
    let mut levels: Vec<i64> = (0..facts.pods.len())
        .filter_map(|place| {
            let after = facts.times_ns[place].partition_point(|ns| ns / 1_000_000 <= at_ms);
            Some(facts.memory_bytes[place][after.checked_sub(1)?])
        })
        .collect();
    levels.sort_unstable_by_key(|level| std::cmp::Reverse(*level));
    levels.truncate(5);
    let check = move |answer: &Value| {
        let values = result(answer)?.iter().map(|series| sample(&series["value"]));
        let mut got: Vec<i64> =
            values.map(|s| s.map(|(_, v)| v as i64)).collect::<Result<_, _>>()?;
        got.sort_unstable_by_key(|level| std::cmp::Reverse(*level));
        ensure_equal("values", &got, &levels)
    };
    Query {
        path: instant_query("topk(5, process_memory_usage_bytes)", at_ms),
        check: Box::new(check),
    }
}

fn count<'a>(known: &'a Known<'a>) -> Query<'a> {
    let steps = steps(known.shop);
    let want = (known.metrics.pods.len() * SERIES_PER_POD) as i64;
    let check = move |answer: &Value| {
        let series = result(answer)?.first().ok_or("no result")?;
        ensure_equal("series", sample(&series["value"])?.1 as i64, want)
    };
    let expression = format!("count({{__name__=~\"{NAME_PATTERN}\"}})");
    Query { path: instant_query(&expression, steps[steps.len() - 1]), check: Box::new(check) }
}
