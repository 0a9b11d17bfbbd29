//! Function calls.

use crate::annotations::Note;
use crate::calendar::Civil;
use crate::engine::classic::Question;
use crate::engine::eval::{Evaluator, Result};
use crate::engine::histograms;
use crate::engine::instant::{self, max, min};
use crate::engine::label_functions::text_argument;
use crate::engine::sort;
use crate::engine::value::{ABSENT, Evaluated, Points, StepSeries, Steps, Vector, cell, is_absent};
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::parse::{Call, Expr};

impl Evaluator<'_> {
    pub(crate) fn eval_call(&self, call: &Call, steps: &Steps) -> Result<Evaluated> {
        if let Some(arg) = Self::range_argument(call) {
            return self.eval_range_call(call, arg, steps);
        }
        let name = call.function.name;
        if let Some(f) = instant::math(name) {
            return self.map_floats(call, steps, |_, v| f(v));
        }
        if let Some(f) = instant::date(name) {
            return self.date_call(call, steps, f);
        }
        match name {
            "time" | "pi" | "start" | "end" | "range" | "step" | "max_of" | "min_of" | "scalar" => {
                Ok(Evaluated::Scalar(self.scalar_call(call, steps)?))
            }
            "vector" => {
                let floats = self.eval_scalar(&call.args[0], steps)?;
                let floats = floats.into_iter().map(cell).collect();
                self.one_series(Labels::empty(), floats, steps)
            }
            "absent" => self.absent(call, steps),
            "clamp" | "clamp_min" | "clamp_max" => self.clamp(call, steps),
            "round" => {
                let nearest = match call.args.get(1) {
                    Some(arg) => self.eval_scalar(arg, steps)?,
                    None => vec![1.0; steps.count],
                };
                self.map_floats(call, steps, |step, v| {
                    let inverse = 1.0 / nearest[step];
                    (v * inverse + 0.5).floor() / inverse
                })
            }
            "timestamp" | "start_timestamp" => self.timestamp(call, steps),
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => {
                self.sort_call(call, steps)
            }
            "label_replace" => self.label_replace(call, steps),
            "label_join" => self.label_join(call, steps),
            "info" => self.info(call, steps),
            "histogram_count" => self.map_histograms(call, steps, |h| h.count),
            "histogram_sum" => self.map_histograms(call, steps, |h| h.sum),
            "histogram_avg" => self.map_histograms(call, steps, |h| h.sum / h.count),
            "histogram_stdvar" => self.map_histograms(call, steps, histograms::variance),
            "histogram_stddev" => {
                self.map_histograms(call, steps, |h| histograms::variance(h).sqrt())
            }
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => {
                self.histogram_question(call, steps)
            }
            other => self.fail(format!("function {other} has no evaluation")),
        }
    }

    fn scalar_call(&self, call: &Call, steps: &Steps) -> Result<Vec<f64>> {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let constant = |value: f64| Ok(vec![value; steps.count]);
        let query = self.query;
        match call.function.name {
            "time" => Ok((0..steps.count).map(|i| seconds(steps.time(i))).collect()),
            "pi" => constant(std::f64::consts::PI),
            "start" => constant(seconds(query.start_ms)),
            "end" => constant(seconds(query.end_ms)),
            "range" => constant(seconds(query.end_ms - query.start_ms)),
            "step" if query.start_ms == query.end_ms => constant(0.0),
            "step" => constant(seconds(query.step_ms)),
            "scalar" => {
                let vector = self.eval_vector(&call.args[0], steps)?;
                let only = |step: usize| {
                    let mut floats = vector
                        .series
                        .iter()
                        .map(|s| s.points.floats[step])
                        .filter(|f| !is_absent(*f));
                    match (floats.next(), floats.next()) {
                        (Some(f), None) => f,
                        _ => f64::NAN,
                    }
                };
                Ok((0..steps.count).map(only).collect())
            }
            name => {
                let mut a = self.eval_scalar(&call.args[0], steps)?;
                let b = self.eval_scalar(&call.args[1], steps)?;
                let choose = if name == "max_of" { max } else { min };
                a.iter_mut().zip(b).for_each(|(a, b)| *a = choose(*a, b));
                Ok(a)
            }
        }
    }

    fn one_series(&self, labels: Labels, floats: Vec<f64>, steps: &Steps) -> Result<Evaluated> {
        let points = Points { floats, histograms: None };
        let series = vec![StepSeries { labels, drop_name: false, points }];
        Ok(Evaluated::Vector(Vector::new(series, steps, self.budget)?))
    }

    /// Applies a function to all floats and drops histograms.
    fn map_floats(
        &self,
        call: &Call,
        steps: &Steps,
        f: impl Fn(usize, f64) -> f64,
    ) -> Result<Evaluated> {
        self.map_series(&call.args[0], steps, |points| {
            points.histograms = None;
            for (step, v) in points.floats.iter_mut().enumerate() {
                if !is_absent(*v) {
                    *v = cell(f(step, *v));
                }
            }
        })
    }

    /// Applies a function to all histograms and drops floats.
    fn map_histograms(
        &self,
        call: &Call,
        steps: &Steps,
        f: impl Fn(&Histogram) -> f64,
    ) -> Result<Evaluated> {
        self.map_series(&call.args[0], steps, |points| {
            let histograms = points.histograms.take().unwrap_or_default();
            points.floats.fill(ABSENT);
            for (v, h) in points.floats.iter_mut().zip(histograms) {
                if let Some(h) = h {
                    *v = cell(f(&h));
                }
            }
        })
    }

    /// Changes each series of a vector; the result loses the name.
    fn map_series(
        &self,
        arg: &Expr,
        steps: &Steps,
        change: impl Fn(&mut Points),
    ) -> Result<Evaluated> {
        let mut vector = self.eval_vector(arg, steps)?;
        let mut series = std::mem::take(&mut vector.series);
        for s in &mut series {
            change(&mut s.points);
            self.drop_name(s);
        }
        series.retain(|s| !s.points.is_empty());
        Ok(Evaluated::Vector(vector.with_series(self.merge_now(series)?)))
    }

    fn date_call(&self, call: &Call, steps: &Steps, f: fn(Civil) -> f64) -> Result<Evaluated> {
        if call.args.is_empty() {
            let at = |i| f(Civil::from_unix(steps.time(i).div_euclid(1000)));
            return self.one_series(Labels::empty(), (0..steps.count).map(at).collect(), steps);
        }
        self.map_floats(call, steps, |_, v| f(Civil::from_unix(v as i64)))
    }

    fn absent(&self, call: &Call, steps: &Steps) -> Result<Evaluated> {
        let vector = self.eval_vector(&call.args[0], steps)?;
        let floats = (0..steps.count)
            .map(
                |i| if vector.series.iter().any(|s| s.points.is_present(i)) { ABSENT } else { 1.0 },
            )
            .collect();
        self.one_series(instant::labels_of_absent(&call.args[0]), floats, steps)
    }

    fn clamp(&self, call: &Call, steps: &Steps) -> Result<Evaluated> {
        let scalar = |i: usize| self.eval_scalar(&call.args[i], steps);
        let constant = |v: f64| vec![v; steps.count];
        let (low, high) = match call.function.name {
            "clamp" => (scalar(1)?, scalar(2)?),
            "clamp_min" => (scalar(1)?, constant(f64::INFINITY)),
            _ => (constant(f64::NEG_INFINITY), scalar(1)?),
        };
        self.map_series(&call.args[0], steps, |points| {
            points.histograms = None;
            for (step, v) in points.floats.iter_mut().enumerate() {
                let (low, high) = (low[step], high[step]);
                if high < low {
                    *v = ABSENT;
                } else if !is_absent(*v) {
                    *v = cell(max(low, min(high, *v)));
                }
            }
        })
    }

    fn timestamp(&self, call: &Call, steps: &Steps) -> Result<Evaluated> {
        let starts = call.function.name == "start_timestamp";
        if starts && !self.options.start_timestamps {
            return Ok(Evaluated::Vector(Vector::new(Vec::new(), steps, self.budget)?));
        }
        let mut vector = match call.args[0].unparenthesized() {
            Expr::Vector(v) => self.instant_times(v, steps, starts)?,
            // Of anything else than a selector the start is not known.
            _ if starts => Vector::new(Vec::new(), steps, self.budget)?,
            other => {
                let mut vector = self.eval_vector(other, steps)?;
                for s in &mut vector.series {
                    for step in 0..steps.count {
                        if s.points.is_present(step) {
                            s.points.floats[step] = steps.time(step) as f64 / 1000.0;
                        }
                    }
                    s.points.histograms = None;
                }
                vector
            }
        };
        let mut series = std::mem::take(&mut vector.series);
        series.iter_mut().for_each(|s| self.drop_name(s));
        Ok(Evaluated::Vector(vector.with_series(self.merge_now(series)?)))
    }

    fn sort_call(&self, call: &Call, steps: &Steps) -> Result<Evaluated> {
        if steps.count > 1 {
            self.note(Note::sort_in_range_query(call.span));
        }
        let mut vector = self.eval_vector(&call.args[0], steps)?;
        let mut series = std::mem::take(&mut vector.series);
        let name = call.function.name;
        let descending = name.ends_with("_desc");
        if name.starts_with("sort_by_label") {
            let labels: Vec<&str> = (1..call.args.len()).map(|i| text_argument(call, i)).collect();
            sort::sort_by_labels(&mut series, &labels, descending);
        } else {
            sort::sort(&mut series, steps.count, descending);
        }
        Ok(Evaluated::Vector(vector.with_series(series)))
    }

    fn histogram_question(&self, call: &Call, steps: &Steps) -> Result<Evaluated> {
        let args = &call.args;
        let scalar = |i: usize| self.eval_scalar(&args[i], steps);
        let span = |i: usize| args[i].unparenthesized().span();
        let series = match call.function.name {
            "histogram_fraction" => {
                let (lower, upper) = (scalar(0)?, scalar(1)?);
                let vector = self.eval_vector(&args[2], steps)?;
                let question = Question::Fraction { lower: &lower, upper: &upper };
                self.ask_histograms(vector, &[(question, None)], span(2), steps)?
            }
            "histogram_quantile" => {
                let q = scalar(0)?;
                let vector = self.eval_vector(&args[1], steps)?;
                let question = Question::Quantile { q: &q, span: span(0) };
                self.ask_histograms(vector, &[(question, None)], span(1), steps)?
            }
            _ => {
                let vector = self.eval_vector(&args[0], steps)?;
                let label = text_argument(call, 1);
                let columns: Vec<Vec<f64>> = (2..args.len()).map(scalar).collect::<Result<_>>()?;
                let questions: Vec<_> = columns
                    .iter()
                    .enumerate()
                    .map(|(i, q)| {
                        let values = q.iter().map(|q| Self::quantile_label(*q)).collect();
                        let question = Question::Quantile { q, span: span(i + 2) };
                        (question, Some((label, values)))
                    })
                    .collect();
                self.ask_histograms(vector, &questions, span(0), steps)?
            }
        };
        let series = self.merge_now(series)?;
        Ok(Evaluated::Vector(Vector::new(series, steps, self.budget)?))
    }
}
