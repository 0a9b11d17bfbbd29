//! Queries of death against the engine alone: whatever they ask for, they end at a bound, and what they hold stays
//! near it.

use std::time::Duration;
use trefoil_promql::{
    Budget, Engine, EngineOptions, Labels, LimitError, Limits, MemorySource, Pool, QueryError,
    QueryRange, SampleValue,
};

const SAMPLES_MAX: u64 = 100_000;

/// 100 series of 60 samples a minute apart.
fn source() -> MemorySource {
    let mut source = MemorySource::new();
    for series in 0..100 {
        let labels = Labels::new([("__name__", "x"), ("i", &series.to_string())]);
        for minute in 0..60i64 {
            let value = SampleValue::Float(f64::from(series) * 1000.0 + minute as f64);
            source.add(&labels, minute * 60_000, value);
        }
    }
    source
}

fn limits() -> Limits {
    Limits { samples_max: SAMPLES_MAX, ..Limits::default() }
}

fn range(query: &str, steps: i64, budget: &Budget) -> Result<(), QueryError> {
    let range = QueryRange { start_ms: 0, end_ms: (steps - 1) * 1000, step_ms: 1000 };
    let engine = Engine::new(EngineOptions::experimental());
    engine.range(&source(), query, range, budget).map(drop)
}

#[test]
fn whatever_grows_ends_at_the_samples_limit() {
    for query in [
        // Columns of all series at all steps.
        "x",
        "timestamp(x)",
        "x @ 0 smoothed",
        "rate(x[5m])",
        // One sample becomes many.
        "x @ 60",
        // A column for each value that occurs.
        r#"count_values("v", x)"#,
        // More steps inside than outside.
        "max_over_time(x[1h:1s])",
        "max_over_time(vector(1)[1000d:1ms])",
        "sum_over_time(vector(time() + (time() + (time() + time())))[20m:100ms])",
        // Many on one side, in one group.
        "x * on() group_left() sum(x)",
        "x + ignoring(i) group_left() sum(x)",
    ] {
        let budget = Budget::new(limits());
        let result = range(query, 3_000, &budget);
        let limit = QueryError::Limit(LimitError::Samples { max: SAMPLES_MAX });
        assert_eq!(format!("{result:?}"), format!("{:?}", Err::<(), _>(limit)), "{query}");
    }
}

#[test]
fn what_fits_is_given_back() {
    let budget = Budget::new(limits());
    for query in ["x", "rate(x[5m])", "x * on() group_left() sum(x)", "topk(3, x)", "x @ 60"] {
        range(query, 100, &budget).unwrap_or_else(|error| panic!("{query}: {error}"));
        // All of it is free again: nearly everything can be taken at once.
        budget.take(SAMPLES_MAX).unwrap_or_else(|error| panic!("after {query}: {error}"));
        budget.give_back(SAMPLES_MAX);
    }
}

#[test]
fn steps_and_series_have_limits_with_their_settings_names() {
    let budget = Budget::new(Limits { steps_max: 10, ..limits() });
    let message = range("x", 11, &budget).unwrap_err().to_string();
    assert!(message.contains("promql-steps-max"), "{message}");
    let budget = Budget::new(Limits { series_max: 99, ..limits() });
    let message = range("x", 2, &budget).unwrap_err().to_string();
    assert!(message.contains("promql-series-max"), "{message}");
    let budget = Budget::new(limits());
    let message = range("x", 3_000, &budget).unwrap_err().to_string();
    assert!(message.contains("promql-samples-max"), "{message}");
}

#[test]
fn one_endless_series_stops_in_the_middle() {
    // 3,000 windows of 100,000 points: minutes of work in a single column.
    let slow = "quantile_over_time(0.5, vector(time())[1000s:10ms])";
    let budget = Budget::new(Limits { timeout: Duration::from_millis(200), ..Limits::default() });
    let error = range(slow, 3_000, &budget).unwrap_err();
    assert!(matches!(error, QueryError::Limit(LimitError::Timeout { .. })), "{error}");
    assert!(error.to_string().contains("promql-timeout"), "{error}");

    let budget = Budget::new(Limits::default());
    let canceler = budget.clone();
    std::thread::scope(|scope| {
        let query = scope.spawn(|| range(slow, 3_000, &budget));
        std::thread::sleep(Duration::from_millis(100));
        canceler.cancel();
        let error = query.join().unwrap().unwrap_err();
        assert!(matches!(error, QueryError::Limit(LimitError::Canceled { .. })), "{error}");
    });
}

#[test]
fn a_large_query_leaves_the_small_ones_their_share() {
    let pool = Pool::new(50_000, 20_000);
    let large = Budget::of_pool(Limits::default(), pool.clone());
    let error = range("x", 3_000, &large).unwrap_err();
    assert!(matches!(error, QueryError::Limit(LimitError::Together { .. })), "{error}");
    assert!(error.to_string().contains("memory-limit"), "{error}");
    // Even while the large one has not ended.
    large.take(100_000).unwrap_err();
    range("sum(x)", 100, &Budget::of_pool(Limits::default(), pool)).unwrap();
}
