//! Runs scripts against something that stores samples and answers queries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trefoil_promql::histogram::CUSTOM_BUCKETS_SCHEMA;
use trefoil_promql::parse::{At, Expr};
use trefoil_promql::{Bucket, Histogram, Labels, ParseOptions, SampleValue, parse};

use super::check::{self, Answer, Shown};
use super::series::SeriesLine;
use super::{Command, Eval, When};

/// A sample to store.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Unix milliseconds.
    pub time_ms: i64,
    pub value: SampleValue,
    /// When the counter began, Unix milliseconds; 0 = not known.
    pub start_ms: i64,
}

/// What scripts run against.
pub trait Target {
    /// Values as the target gives them.
    type Value: Shown + Clone;

    /// Drops all data.
    fn clear(&mut self);

    /// Stores samples of series, each series' in order of time.
    fn load(&mut self, series: &[(Labels, Vec<Loaded>)]);

    /// Evaluates a query.
    ///
    /// # Errors
    /// Why it failed, without any prefix.
    fn query(&mut self, query: &str, when: When) -> Result<Answer<Self::Value>, String>;

    /// Whether instant queries are repeated with `@` added, at other times.
    fn pins(&self) -> bool;
}

/// How a file fared.
#[derive(Default)]
pub struct Tally {
    pub values: usize,
    pub annotations: usize,
    pub value_failures: BTreeMap<usize, String>,
    pub annotation_failures: BTreeMap<usize, String>,
}

/// Runs a script; the target should be empty.
pub fn run(target: &mut impl Target, text: &str) -> Tally {
    let mut tally = Tally::default();
    for command in super::parse(text) {
        match command {
            Command::Clear => target.clear(),
            Command::Load { step_ms, with_custom_buckets, series } => {
                target.load(&loaded(step_ms, with_custom_buckets, &series));
            }
            Command::Eval(eval) => evaluate(target, &eval, &mut tally),
        }
    }
    tally
}

/// What the `load` commands of a script store, one by one.
#[allow(dead_code, reason = "not every test that runs scripts needs it")]
pub fn loads(text: &str) -> Vec<Vec<(Labels, Vec<Loaded>)>> {
    let load = |command| match command {
        Command::Load { step_ms, with_custom_buckets, series } => {
            Some(loaded(step_ms, with_custom_buckets, &series))
        }
        _ => None,
    };
    super::parse(text).into_iter().filter_map(load).collect()
}

fn loaded(
    step_ms: i64,
    with_custom_buckets: bool,
    series: &[SeriesLine],
) -> Vec<(Labels, Vec<Loaded>)> {
    let mut loaded: Vec<_> =
        series.iter().map(|s| (s.labels.clone(), samples(step_ms, s))).collect();
    if with_custom_buckets {
        loaded.extend(custom_buckets(step_ms, series));
    }
    loaded
}

fn samples(step_ms: i64, series: &SeriesLine) -> Vec<Loaded> {
    let sample = |(i, point): (usize, &super::series::Point)| {
        let time_ms = i as i64 * step_ms;
        let offset = series.start_offsets.get(i).copied().flatten();
        let start_ms = offset.map_or(0, |offset| time_ms + offset);
        point.as_ref().map(|p| Loaded { time_ms, value: p.value.clone(), start_ms })
    };
    series.points.iter().enumerate().filter_map(sample).collect()
}

/// Classic histograms as native ones with custom buckets, under the base name.
fn custom_buckets(step_ms: i64, series: &[SeriesLine]) -> Vec<(Labels, Vec<Loaded>)> {
    #[derive(Default)]
    struct Classic {
        buckets: Vec<(f64, f64)>,
        count: Option<f64>,
        sum: f64,
    }
    let mut classic: BTreeMap<(Labels, i64), Classic> = BTreeMap::new();
    for s in series {
        let name = s.labels.name();
        let Some((base, suffix)) = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| Some((name.strip_suffix(suffix)?, *suffix)))
        else {
            continue;
        };
        let mut labels = s.labels.to_builder();
        labels.set("__name__", base).remove("le");
        let labels = labels.build();
        let le: Option<f64> = s.labels.get("le").and_then(|le| le.parse().ok());
        for sample in samples(step_ms, s) {
            let SampleValue::Float(v) = sample.value else { continue };
            let entry = classic.entry((labels.clone(), sample.time_ms)).or_default();
            match (suffix, le) {
                ("_bucket", Some(le)) => entry.buckets.push((le, v)),
                ("_count", _) => entry.count = Some(v),
                ("_sum", _) => entry.sum = v,
                _ => {}
            }
        }
    }
    let mut out: BTreeMap<Labels, Vec<Loaded>> = BTreeMap::new();
    for ((labels, time_ms), mut c) in classic {
        c.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        c.buckets.dedup_by(|b, a| a.0 == b.0);
        let count = c.count.or(c.buckets.last().map(|b| b.1)).unwrap_or(0.0);
        if c.buckets.last().is_none_or(|b| b.0 != f64::INFINITY) {
            c.buckets.push((f64::INFINITY, count));
        }
        let bounds: Vec<f64> = c.buckets.iter().map(|b| b.0).filter(|b| b.is_finite()).collect();
        let mut before = 0.0;
        let mut positive = Vec::new();
        for (i, (_, cumulative)) in c.buckets.iter().enumerate() {
            let count = cumulative - before;
            before = *cumulative;
            if count != 0.0 {
                positive.push(Bucket { index: i as i32, count });
            }
        }
        let h = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: c.sum,
            positive,
            custom_values: Some(bounds.into()),
            ..Histogram::default()
        };
        let value = SampleValue::Histogram(Arc::new(h));
        out.entry(labels).or_default().push(Loaded { time_ms, value, start_ms: 0 });
    }
    out.into_iter().collect()
}

fn evaluate<T: Target>(target: &mut T, eval: &Eval, tally: &mut Tally) {
    tally.values += 1;
    if eval.checks_annotations() {
        tally.annotations += 1;
    }
    let mut queries = vec![(eval.query.clone(), eval.when)];
    if let When::Instant(time) = eval.when
        && target.pins()
    {
        queries.extend(pinned(&eval.query, time));
    }
    for (query, when) in queries {
        if let Err(message) = one(target, eval, &query, when, tally) {
            tally
                .value_failures
                .entry(eval.line)
                .or_insert(format!("{query} at {when:?}: {message}"));
        }
    }
}

fn one<T: Target>(
    target: &mut T,
    eval: &Eval,
    query: &str,
    when: When,
    tally: &mut Tally,
) -> Result<(), String> {
    let answer = match (target.query(query, when), &eval.fail) {
        (Err(message), Some(want)) => {
            return if want.matches(&message) { Ok(()) } else { Err(message) };
        }
        (Ok(_), Some(_)) => return Err("expected to fail".to_owned()),
        (Err(message), None) => return Err(message),
        (Ok(answer), None) => answer,
    };
    if let Err(message) = check::annotations(eval, &answer.warnings, &answer.infos) {
        let message = format!("{query} at {when:?}: {message}");
        tally.annotation_failures.entry(eval.line).or_insert(message);
    }
    check::value(eval, &answer.value)?;
    let When::Instant(time) = when else { return Ok(()) };
    let context = ["start()", "end()", "range()", "step()"].iter().any(|f| query.contains(f));
    if eval.ordered || eval.text.is_some() || eval.range_vector.is_some() || context {
        return Ok(());
    }
    let answer = target
        .query(query, When::Range(time - 60_000, time + 60_000, 60_000))
        .map_err(|e| format!("as a range: {e}"))?;
    check::step(eval, &answer.value, time).map_err(|e| format!("as a range: {e}"))
}

/// The query with `@` added to all selectors that have none, at other evaluation times. Nothing if
/// the result depends on the evaluation time anyway.
fn pinned(query: &str, time: i64) -> Vec<(String, When)> {
    let Ok(mut expr) = parse(query, ParseOptions::ALL) else { return Vec::new() };
    if depends_on_time(&expr) {
        return Vec::new();
    }
    pin(&mut expr, time);
    let times = if time == 0 {
        vec![-1000, 0, 1000]
    } else {
        vec![-10 * time, 0, time / 5, time, 10 * time]
    };
    times.into_iter().map(|t| (expr.to_string(), When::Instant(t))).collect()
}

fn depends_on_time(expr: &Expr) -> bool {
    let unsafe_functions = [
        "days_in_month",
        "day_of_month",
        "day_of_week",
        "day_of_year",
        "end",
        "hour",
        "minute",
        "month",
        "year",
        "predict_linear",
        "range",
        "start",
        "step",
        "time",
        "timestamp",
    ];
    matches!(expr, Expr::Call(c) if unsafe_functions.contains(&c.function.name))
        || expr.children().into_iter().any(depends_on_time)
}

fn pin(expr: &mut Expr, time: i64) {
    let at = Some(At::Time(time));
    match expr {
        Expr::Vector(v) => v.timing.at = v.timing.at.or(at),
        Expr::Matrix(m) => m.selector.timing.at = m.selector.timing.at.or(at),
        // What is inside follows the subquery's time.
        Expr::Subquery(s) => s.timing.at = s.timing.at.or(at),
        Expr::Call(c) => c.args.iter_mut().for_each(|a| pin(a, time)),
        Expr::Aggregate(a) => {
            pin(&mut a.expr, time);
            a.param.iter_mut().for_each(|p| pin(p, time));
        }
        Expr::Binary(b) => {
            pin(&mut b.left, time);
            pin(&mut b.right, time);
        }
        Expr::Unary(u) => pin(&mut u.expr, time),
        Expr::Paren(p) => pin(&mut p.expr, time),
        Expr::Number(_) | Expr::String(_) => {}
    }
}

/// The scripts of a folder by name; none if there is no such folder.
pub fn scripts(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    paths.retain(|p| p.extension().is_some_and(|e| e == "test"));
    paths.sort();
    paths
}

/// Where Prometheus' own scripts are, if they are at hand: in the folder that `TREFOIL_CONFORMANCE` names, or beside
/// the workspace.
pub fn prometheus_folder(workspace: &Path) -> PathBuf {
    std::env::var_os("TREFOIL_CONFORMANCE")
        .map_or_else(|| workspace.join("../shared/conformance/promql"), PathBuf::from)
}

/// The last part of a path.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Fails unless everything held.
pub fn assert_all_hold(tallies: &[(String, Tally)]) {
    let mut failures = Vec::new();
    for (name, tally) in tallies {
        for (line, message) in tally.value_failures.iter().chain(&tally.annotation_failures) {
            failures.push(format!("{name}:{line}: {message}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Fails if more than 1% of the values or 5% of the annotations are wrong, or if one that is wrong is not listed in
/// `docs/promql.md` as `file.test:line` in backquotes.
pub fn assert_holds_but_for_what_is_listed(workspace: &Path, tallies: &[(String, Tally)]) {
    let docs = std::fs::read_to_string(workspace.join("docs/promql.md")).unwrap_or_default();
    let listed: BTreeSet<&str> = docs.split('`').filter(|part| part.contains(".test:")).collect();
    let mut unlisted = Vec::new();
    let (mut values, mut notes) = ((0, 0), (0, 0));
    for (name, tally) in tallies {
        println!(
            "{name}: {} values, {} failed; {} annotations, {} failed",
            tally.values,
            tally.value_failures.len(),
            tally.annotations,
            tally.annotation_failures.len()
        );
        values = (values.0 + tally.values, values.1 + tally.value_failures.len());
        notes = (notes.0 + tally.annotations, notes.1 + tally.annotation_failures.len());
        for (line, message) in tally.value_failures.iter().chain(&tally.annotation_failures) {
            let place = format!("{name}:{line}");
            if !listed.contains(place.as_str()) {
                unlisted.push(format!("{place}: {message}"));
            }
        }
    }
    println!(
        "{} values, {} failed; {} annotations, {} failed",
        values.0, values.1, notes.0, notes.1
    );
    assert!(
        unlisted.is_empty(),
        "{} failures are not listed:\n{}",
        unlisted.len(),
        unlisted.join("\n")
    );
    assert!(values.1 * 100 <= values.0, "more than 1% of the values are wrong");
    assert!(notes.1 * 20 <= notes.0, "more than 5% of the annotations are wrong");
}
