//! `info`: adds labels of info metrics, such as `target_info`, to the series of the same target.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::engine::eval::{Evaluator, Result};
use crate::engine::select::{FoundValue, Looks, Lookup};
use crate::engine::value::{Cell, Evaluated, Points, StepSeries, Steps, Vector};
use crate::labels::{Labels, LabelsBuilder, METRIC_NAME};
use crate::matcher::{MatchOp, Matcher};
use crate::parse::{At, Call, Expr, Timing};
use crate::series::SampleValue;
use crate::source::{SelectHints, TimeRange};

/// A result whose error is the message of a failed query.
type OrMessage<T> = std::result::Result<T, String>;

/// The labels that name a target.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// An info series: at each step the time of its newest sample, if there is one.
struct InfoSeries {
    labels: Labels,
    times: Vec<Option<i64>>,
}

/// The innermost `@` of the first selector of an expression, and the offsets up to it.
fn timing_of(expr: &Expr) -> Option<Vec<&Timing>> {
    match expr {
        Expr::Vector(v) => Some(vec![&v.timing]),
        Expr::Matrix(m) => Some(vec![&m.selector.timing]),
        Expr::Subquery(s) => {
            let mut path = timing_of(&s.expr)?;
            path.push(&s.timing);
            Some(path)
        }
        _ => expr.children().into_iter().find_map(timing_of),
    }
}

impl Evaluator<'_> {
    pub(crate) fn info(&self, call: &Call, steps: &Steps) -> Result<Evaluated> {
        let looks = self.info_looks(&call.args[0])?;
        let mut vector = self.eval_vector(&call.args[0], steps)?;
        let series = std::mem::take(&mut vector.series);
        let given: &[Matcher] = match call.args.get(1).map(Expr::unparenthesized) {
            Some(Expr::Vector(v)) => &v.matchers,
            _ => &[],
        };
        let (names, data): (Vec<Matcher>, Vec<Matcher>) =
            given.iter().cloned().partition(|m| m.name() == METRIC_NAME);
        let names = self.info_names(names)?;
        let is_info = |s: &StepSeries| names.iter().all(|m| m.matches(s.labels.name()));
        let infos = self.info_series(&series, &is_info, &names, &data, looks, steps)?;
        let mut joined =
            InfoJoin { data: &data, infos: &infos, out: Vec::new(), at: HashMap::new() };
        for s in series {
            self.budget.check()?;
            if is_info(&s) {
                joined.add_whole(s);
                continue;
            }
            joined.join(&s, steps).or_else(|message| self.fail(message))?;
        }
        let series = self.merge_same_labels(joined.out)?;
        Ok(Evaluated::Vector(Vector::new(series, steps, self.budget)?))
    }

    /// The time at which info series count: that of the first selector of the argument.
    fn info_looks(&self, expr: &Expr) -> Result<Looks> {
        let mut looks = Looks { at: None, offset_ms: 0 };
        for timing in timing_of(expr).unwrap_or_default() {
            looks.offset_ms += self.duration(&timing.offset, true)?;
            let at: Option<At> = timing.at;
            if at.is_some() {
                looks.at = self.at(at);
                break;
            }
        }
        Ok(looks)
    }

    /// Without a positive condition on the name, any `…_info`; without any, `target_info`.
    fn info_names(&self, given: Vec<Matcher>) -> Result<Vec<Matcher>> {
        if given.is_empty() {
            return Ok(vec![Matcher::equal(METRIC_NAME, "target_info")]);
        }
        if given.iter().any(|m| !m.is_negative()) {
            return Ok(given);
        }
        match Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info") {
            Ok(any) => Ok([any].into_iter().chain(given).collect()),
            Err(e) => self.fail(e.to_string()),
        }
    }

    fn info_series(
        &self,
        base: &[StepSeries],
        is_info: &dyn Fn(&StepSeries) -> bool,
        names: &[Matcher],
        data: &[Matcher],
        looks: Looks,
        steps: &Steps,
    ) -> Result<Vec<InfoSeries>> {
        let mut matchers: Vec<Matcher> = Vec::new();
        for label in IDENTIFYING {
            let values: BTreeSet<&str> =
                base.iter().filter(|s| !is_info(s)).filter_map(|s| s.labels.get(label)).collect();
            if values.is_empty() {
                continue;
            }
            let any: Vec<String> = values.into_iter().map(regex_syntax::escape).collect();
            match Matcher::new(MatchOp::Regex, label, any.join("|")) {
                Ok(m) => matchers.push(m),
                Err(e) => return self.fail(e.to_string()),
            }
        }
        if matchers.is_empty() {
            return Ok(Vec::new());
        }
        matchers.extend(data.iter().chain(names).cloned());
        let lookback = self.lookback_ms();
        let range = TimeRange {
            start_ms: looks.seen_from(steps.start_ms) - lookback + 1,
            end_ms: looks.seen_from(steps.last_ms()),
        };
        let step_ms = if steps.count > 1 { steps.step_ms } else { 0 };
        let hints = SelectHints { step_ms, function: "info".to_owned(), ..SelectHints::default() };
        let mut loaded = self.source.select(&matchers, range, &hints, self.budget)?;
        let cost: u64 = loaded.iter().map(|s| s.sample_cost()).sum();
        loaded.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        let mut out = Vec::with_capacity(loaded.len());
        for series in &loaded {
            let mut lookup = Lookup::new(series, lookback);
            let mut times = Vec::with_capacity(steps.count);
            for step in 0..steps.count {
                let found = lookup.at(looks.seen_from(steps.time(step)));
                if let Some(FoundValue::Histogram(_)) = found.as_ref().map(|f| &f.value) {
                    return self.fail(format!(
                        "this should be an info metric, with float samples: {}",
                        series.labels
                    ));
                }
                times.push(found.map(|f| f.time_ms));
            }
            out.push(InfoSeries { labels: series.labels.clone(), times });
        }
        self.budget.give_back(cost);
        Ok(out)
    }
}

/// The join of base series with info series.
struct InfoJoin<'a> {
    /// Conditions on the labels to add; if there are any, only these labels are added.
    data: &'a [Matcher],
    infos: &'a [InfoSeries],
    out: Vec<StepSeries>,
    at: HashMap<Labels, usize>,
}

impl InfoJoin<'_> {
    fn add_whole(&mut self, s: StepSeries) {
        self.at.entry(s.labels.clone()).or_insert(self.out.len());
        self.out.push(s);
    }

    /// Adds the series with the labels it gets at each step.
    fn join(&mut self, s: &StepSeries, steps: &Steps) -> OrMessage<()> {
        let same_target =
            |info: &&InfoSeries| IDENTIFYING.iter().all(|l| info.labels.get(l) == s.labels.get(l));
        let candidates: Vec<&InfoSeries> = self.infos.iter().filter(same_target).collect();
        let wants_match = self.data.iter().any(|m| !m.matches_empty());
        let mut last: Option<(Vec<Option<usize>>, Option<Labels>)> = None;
        for step in 0..steps.count {
            let Some(cell) = s.points.get(step) else { continue };
            let chosen = newest(&candidates, step)?;
            // Mostly the same info series count at all steps.
            if last.as_ref().is_none_or(|(c, _)| *c != chosen) {
                let found: Vec<&InfoSeries> =
                    chosen.iter().flatten().map(|i| candidates[*i]).collect();
                let labels = if found.is_empty() && wants_match {
                    None
                } else {
                    Some(self.enriched(&s.labels, &found)?)
                };
                last = Some((chosen, labels));
            }
            let Some((_, Some(labels))) = &last else { continue };
            let value = match cell {
                Cell::Float(f) => SampleValue::Float(f),
                Cell::Histogram(h) => SampleValue::Histogram(h.clone()),
            };
            let i = match self.at.get(labels) {
                Some(&i) => i,
                None => {
                    self.at.insert(labels.clone(), self.out.len());
                    let points = Points::absent(steps.count);
                    let (labels, drop_name) = (labels.clone(), s.drop_name);
                    self.out.push(StepSeries { labels, drop_name, points });
                    self.out.len() - 1
                }
            };
            if self.out[i].points.is_present(step) {
                return Err("vector cannot contain metrics with the same labelset".to_owned());
            }
            self.out[i].points.set(step, value);
        }
        Ok(())
    }

    /// The labels of a series with those of its info series added.
    fn enriched(&self, base: &Labels, infos: &[&InfoSeries]) -> OrMessage<Labels> {
        let mut added = LabelsBuilder::default();
        for (name, value) in infos.iter().flat_map(|i| i.labels.iter()) {
            let wanted = self.data.is_empty() || self.data.iter().any(|m| m.name() == name);
            if name == METRIC_NAME || !wanted {
                continue;
            }
            if added.get(name).is_some_and(|v| v != value) {
                return Err(format!("conflicting label: {name}"));
            }
            if !base.has(name) {
                added.set(name, value);
            }
        }
        let mut labels = base.to_builder();
        for (name, value) in added.build().iter() {
            labels.set(name, value);
        }
        Ok(labels.build())
    }
}

/// For each info metric, the series with the newest sample at a step.
fn newest(candidates: &[&InfoSeries], step: usize) -> OrMessage<Vec<Option<usize>>> {
    let mut best: BTreeMap<&str, (usize, i64)> = BTreeMap::new();
    for (i, info) in candidates.iter().enumerate() {
        let Some(time) = info.times[step] else { continue };
        match best.get(info.labels.name()) {
            Some((_, known)) if *known > time => {}
            Some((other, known)) if *known == time => {
                return Err(format!(
                    "found duplicate series for info metric: existing {} @ {known}, new {} @ {time}",
                    candidates[*other].labels, info.labels
                ));
            }
            _ => {
                best.insert(info.labels.name(), (i, time));
            }
        }
    }
    Ok(best.into_values().map(|(i, _)| Some(i)).collect())
}
