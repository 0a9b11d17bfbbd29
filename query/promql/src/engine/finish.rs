//! Columns to the value that callers get.

use crate::engine::value::{Cell, Evaluated, RangeSeries, StepSeries, Steps};
use crate::engine::{QueryError, QueryRange, Sample, Value};
use crate::labels::Labels;
use crate::parse::ValueType;
use crate::series::{SampleValue, Series};

pub(crate) fn value(
    evaluated: Evaluated,
    kind: ValueType,
    range: QueryRange,
) -> Result<Value, QueryError> {
    if range.step_ms > 0 {
        let count = usize::try_from(range.steps()).unwrap_or(usize::MAX);
        let steps = Steps { start_ms: range.start_ms, step_ms: range.step_ms, count };
        return Ok(Value::Matrix(match evaluated {
            Evaluated::Vector(v) => sorted(v.series.iter().map(|s| over_time(s, &steps)).collect()),
            Evaluated::Scalar(v) => {
                let mut series = Series::new(Labels::empty());
                series.floats.times = (0..steps.count).map(|i| steps.time(i)).collect();
                series.floats.values = v.into();
                vec![series]
            }
            Evaluated::Matrix(m) => matrix(m),
            Evaluated::Text(_) => {
                let message = format!("a range query of type {} has no value", kind.name());
                return Err(QueryError::Invalid(message));
            }
        }));
    }
    Ok(match evaluated {
        Evaluated::Scalar(v) => Value::Scalar(v[0]),
        Evaluated::Text(t) => Value::Text(t),
        Evaluated::Matrix(m) => Value::Matrix(matrix(m)),
        Evaluated::Vector(v) => Value::Vector(
            v.series.iter().filter_map(|s| Some(sample(s, s.points.get(0)?))).collect(),
        ),
    })
}

fn sample(series: &StepSeries, cell: Cell<'_>) -> Sample {
    let value = match cell {
        Cell::Float(f) => SampleValue::Float(f),
        Cell::Histogram(h) => SampleValue::Histogram(h.clone()),
    };
    Sample { labels: series.labels.clone(), value }
}

/// The present cells of a column with their times.
pub(crate) fn over_time(s: &StepSeries, steps: &Steps) -> Series {
    let mut out = Series::new(s.labels.clone());
    for step in 0..steps.count {
        match s.points.get(step) {
            Some(Cell::Float(f)) => out.floats.push(steps.time(step), f),
            Some(Cell::Histogram(h)) => out.histograms.push(steps.time(step), h.clone()),
            None => {}
        }
    }
    out
}

fn matrix(series: Vec<RangeSeries>) -> Vec<Series> {
    sorted(series.into_iter().map(|s| s.series).filter(|s| !s.is_empty()).collect())
}

fn sorted(mut series: Vec<Series>) -> Vec<Series> {
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}
