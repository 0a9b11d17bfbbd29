//! Runs scripts in Prometheus' test language against the engine: those of the project always, and
//! Prometheus' own where they are at hand (in `../shared/conformance/promql` beside the workspace,
//! or in the folder that `TREFOIL_CONFORMANCE` names).
//!
//! Every instant evaluation is repeated as a step of a range query, and with `@` added at other
//! times; all must agree. Failures must be listed, with their reason, in `docs/promql.md`.

mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use script::check;
use script::series::SeriesLine;
use script::{Command, Eval, When};
use trefoil_promql::histogram::CUSTOM_BUCKETS_SCHEMA;
use trefoil_promql::parse::{At, Expr};
use trefoil_promql::{
    Bucket, Budget, Engine, EngineOptions, Histogram, Labels, Limits, MemorySource, Outcome,
    ParseOptions, QueryError, QueryRange, Sample, SampleValue, Value, parse,
};

/// How a file fared.
#[derive(Default)]
struct Tally {
    values: usize,
    annotations: usize,
    value_failures: BTreeMap<usize, String>,
    annotation_failures: BTreeMap<usize, String>,
}

struct Runner {
    engine: Engine,
    source: MemorySource,
    tally: Tally,
}

impl Runner {
    fn new() -> Self {
        Runner {
            engine: Engine::new(EngineOptions::experimental()),
            source: MemorySource::new(),
            tally: Tally::default(),
        }
    }

    fn run(mut self, text: &str) -> Tally {
        for command in script::parse(text) {
            match command {
                Command::Clear => self.source = MemorySource::new(),
                Command::Load { step_ms, with_custom_buckets, series } => {
                    self.load(step_ms, &series);
                    if with_custom_buckets {
                        self.load_custom_buckets(step_ms, &series);
                    }
                }
                Command::Eval(eval) => self.eval(&eval),
            }
        }
        self.tally
    }

    fn load(&mut self, step_ms: i64, series: &[SeriesLine]) {
        for s in series {
            for (i, point) in s.points.iter().enumerate() {
                let Some(point) = point else { continue };
                let time = i as i64 * step_ms;
                let start = s.start_offsets.get(i).copied().flatten().map_or(0, |o| time + o);
                self.source.add_started(&s.labels, time, point.value.clone(), start);
            }
        }
    }

    /// Classic histograms as native ones with custom buckets, under the base name.
    fn load_custom_buckets(&mut self, step_ms: i64, series: &[SeriesLine]) {
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
            for (i, point) in s.points.iter().enumerate() {
                let Some(SampleValue::Float(v)) = point.as_ref().map(|p| &p.value) else {
                    continue;
                };
                let key = (labels.clone(), i as i64 * step_ms);
                let entry = classic.entry(key).or_default();
                match (suffix, le) {
                    ("_bucket", Some(le)) => entry.buckets.push((le, *v)),
                    ("_count", _) => entry.count = Some(*v),
                    ("_sum", _) => entry.sum = *v,
                    _ => {}
                }
            }
        }
        for ((labels, time), mut c) in classic {
            c.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            c.buckets.dedup_by(|b, a| a.0 == b.0);
            let count = c.count.or(c.buckets.last().map(|b| b.1)).unwrap_or(0.0);
            if c.buckets.last().is_none_or(|b| b.0 != f64::INFINITY) {
                c.buckets.push((f64::INFINITY, count));
            }
            let bounds: Vec<f64> =
                c.buckets.iter().map(|b| b.0).filter(|b| b.is_finite()).collect();
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
            self.source.add(&labels, time, SampleValue::Histogram(Arc::new(h)));
        }
    }

    fn query(&self, query: &str, when: When) -> Result<Outcome, QueryError> {
        let budget = Budget::new(Limits::default());
        match when {
            When::Instant(time) => self.engine.instant(&self.source, query, time, &budget),
            When::Range(start_ms, end_ms, step_ms) => {
                let range = QueryRange { start_ms, end_ms, step_ms };
                self.engine.range(&self.source, query, range, &budget)
            }
        }
    }

    fn eval(&mut self, eval: &Eval) {
        self.tally.values += 1;
        if eval.checks_annotations() {
            self.tally.annotations += 1;
        }
        let mut queries = vec![(eval.query.clone(), eval.when)];
        if let When::Instant(time) = eval.when {
            queries.extend(pinned(&eval.query, time));
        }
        for (query, when) in queries {
            if let Err(message) = self.one(eval, &query, when) {
                self.tally
                    .value_failures
                    .entry(eval.line)
                    .or_insert(format!("{query} at {when:?}: {message}"));
            }
        }
    }

    fn one(&mut self, eval: &Eval, query: &str, when: When) -> Result<(), String> {
        let outcome = match (self.query(query, when), &eval.fail) {
            (Err(e), Some(want)) => {
                let message = e.to_string();
                return if want.matches(&message) { Ok(()) } else { Err(message) };
            }
            (Ok(_), Some(_)) => return Err("expected to fail".to_owned()),
            (Err(e), None) => return Err(e.to_string()),
            (Ok(outcome), None) => outcome,
        };
        let (warnings, infos) = outcome.annotations.texts(query, 0);
        if let Err(message) = check::annotations(eval, &warnings, &infos) {
            let failures = &mut self.tally.annotation_failures;
            failures.entry(eval.line).or_insert(format!("{query} at {when:?}: {message}"));
        }
        check::value(eval, &outcome.value)?;
        let When::Instant(time) = when else { return Ok(()) };
        let context = ["start()", "end()", "range()", "step()"].iter().any(|f| query.contains(f));
        if eval.ordered || eval.text.is_some() || eval.range_vector.is_some() || context {
            return Ok(());
        }
        let outcome = self
            .query(query, When::Range(time - 60_000, time + 60_000, 60_000))
            .map_err(|e| format!("as a range: {e}"))?;
        as_step(eval, &outcome.value, time).map_err(|e| format!("as a range: {e}"))
    }
}

/// Compares the step of a range query at a time with an instant expectation.
fn as_step(eval: &Eval, value: &Value, time: i64) -> Result<(), String> {
    let Value::Matrix(series) = value else { return Err("expected a matrix".to_owned()) };
    let at_time = series.iter().filter_map(|s| {
        let all = check::samples(s);
        let (_, value) = all.into_iter().find(|(t, _)| *t == time)?;
        Some(Sample { labels: s.labels.clone(), value })
    });
    let samples: Vec<Sample> = at_time.collect();
    match (eval.scalar, &samples[..]) {
        (Some(_), [Sample { value: SampleValue::Float(v), .. }]) => {
            check::value(eval, &Value::Scalar(*v))
        }
        _ => check::vector(eval, &samples),
    }
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

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    paths.retain(|p| p.extension().is_some_and(|e| e == "test"));
    paths.sort();
    paths
}

fn run_file(path: &Path) -> Tally {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Runner::new().run(&text)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn our_own_scripts_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let files = scripts(&folder);
    assert!(!files.is_empty(), "no scripts in {}", folder.display());
    let mut failures = Vec::new();
    for path in files {
        let tally = run_file(&path);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (line, message) in tally.value_failures.iter().chain(&tally.annotation_failures) {
            failures.push(format!("{name}:{line}: {message}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn prometheus_scripts_hold_except_for_what_is_listed() {
    let folder = std::env::var_os("TREFOIL_CONFORMANCE")
        .map_or_else(|| workspace().join("../shared/conformance/promql"), PathBuf::from);
    let files = scripts(&folder);
    if files.is_empty() {
        println!("no scripts in {}: nothing to compare with", folder.display());
        return;
    }
    let docs = std::fs::read_to_string(workspace().join("docs/promql.md")).unwrap_or_default();
    let listed: BTreeSet<&str> = docs.split('`').filter(|part| part.contains(".test:")).collect();
    let mut unlisted = Vec::new();
    let (mut values, mut notes) = ((0, 0), (0, 0));
    for path in files {
        let tally = run_file(&path);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
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
