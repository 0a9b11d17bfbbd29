//! Quantiles and fractions over classic histogram buckets, and the functions that take classic and
//! native histograms alike.

use std::collections::HashMap;

use crate::annotations::{Monotonicity, Note};
use crate::engine::eval::{Evaluator, Result};
use crate::engine::native;
use crate::engine::value::{Points, StepSeries, Steps, Vector, cell, is_absent};
use crate::labels::{BUCKET_LABEL, Labels};
use crate::parse::Span;
use crate::text::format_short;

/// Differences below this share of the count are taken for rounding.
const TOLERANCE: f64 = 1e-12;

/// A cumulative bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassicBucket {
    pub upper: f64,
    pub count: f64,
}

/// Merges buckets of the same bound. They must be sorted.
fn coalesce(buckets: &mut Vec<ClassicBucket>) {
    buckets.dedup_by(|b, a| {
        let same = a.upper == b.upper;
        if same {
            a.count += b.count;
        }
        same
    });
}

/// Repairs counts that go down. Tells where, if that was not just rounding.
fn repair(buckets: &mut [ClassicBucket]) -> Option<(f64, f64, f64)> {
    let mut repaired: Option<(f64, f64, f64)> = None;
    let mut previous = buckets[0].count;
    for b in &mut buckets[1..] {
        if b.count == previous {
            continue;
        }
        if almost_equal(previous, b.count) {
            b.count = previous;
        } else if b.count < previous {
            let diff = previous - b.count;
            let (min, max, most) = repaired.unwrap_or((f64::INFINITY, f64::NEG_INFINITY, 0.0));
            repaired = Some((min.min(b.upper), max.max(b.upper), most.max(diff)));
            b.count = previous;
        } else {
            previous = b.count;
        }
    }
    repaired
}

fn almost_equal(a: f64, b: f64) -> bool {
    let (sum, diff) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < TOLERANCE * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < TOLERANCE
}

/// A quantile by linear interpolation. Buckets must be sorted by bound. Also tells where counts had
/// to be repaired.
pub(crate) fn bucket_quantile(
    q: f64,
    buckets: &mut Vec<ClassicBucket>,
) -> (f64, Option<(f64, f64, f64)>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let repaired = repair(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 {
        return (f64::NAN, repaired);
    }
    let mut rank = q * observations;
    let at = buckets[..last].partition_point(|b| b.count < rank);
    let quantile = if at == last {
        buckets[last - 1].upper
    } else if at == 0 && buckets[0].upper <= 0.0 {
        buckets[0].upper
    } else {
        let (mut start, end, mut count) = (0.0, buckets[at].upper, buckets[at].count);
        if at > 0 {
            start = buckets[at - 1].upper;
            count -= buckets[at - 1].count;
            rank -= buckets[at - 1].count;
        }
        start + (end - start) * (rank / count)
    };
    (quantile, repaired)
}

/// The fraction of observations between two values. Buckets must be sorted by bound.
pub(crate) fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return f64::NAN;
    }
    coalesce(buckets);
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let mut rank = 0.0;
    let mut from = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    let (mut lower_rank, mut upper_rank): (Option<f64>, Option<f64>) = (None, None);
    for b in buckets.iter() {
        let rank_at = |v: f64| {
            if from == f64::NEG_INFINITY {
                return b.count;
            }
            rank + (b.count - rank) * (v - from) / (b.upper - from)
        };
        for (bound, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && from >= bound {
                *found = Some(rank);
            }
            if found.is_none() && from < bound && b.upper > bound {
                *found = Some(rank_at(bound));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank = b.count;
        from = b.upper;
    }
    let rank_or_all = |rank: Option<f64>| rank.map_or(count, |r| if r > count { count } else { r });
    (rank_or_all(upper_rank) - rank_or_all(lower_rank)) / count
}

/// The classic buckets and native histograms of one label set.
struct Family {
    /// Labels without `le`.
    labels: Labels,
    drop_name: bool,
    /// Bounds and columns, sorted by bound.
    classic: Vec<(f64, Points)>,
    native: Option<Points>,
}

/// What is asked of each histogram.
pub(crate) enum Question<'a> {
    /// One quantile per step.
    Quantile { q: &'a [f64], span: Span },
    /// The fraction between two values per step.
    Fraction { lower: &'a [f64], upper: &'a [f64] },
}

/// A question, and the name and per-step values of a label that marks its answers.
pub(crate) type LabeledQuestion<'a> = (Question<'a>, Option<(&'a str, Vec<String>)>);

impl Evaluator<'_> {
    /// Sorts the series of a vector into histograms.
    fn families(&self, vector: &mut Vector, span: Span, steps: &Steps) -> Vec<Family> {
        let mut at: HashMap<Labels, usize> = HashMap::new();
        let mut families: Vec<Family> = Vec::new();
        let mut family = |families: &mut Vec<Family>, labels: Labels, drop_name: bool| {
            *at.entry(labels.clone()).or_insert_with(|| {
                families.push(Family { labels, drop_name, classic: Vec::new(), native: None });
                families.len() - 1
            })
        };
        for s in std::mem::take(&mut vector.series) {
            let StepSeries { labels, drop_name, points } = s;
            if points.histograms.is_some() {
                let i = family(&mut families, labels.clone(), drop_name);
                let native = Points {
                    floats: Points::absent(steps.count).floats,
                    histograms: points.histograms.clone(),
                };
                families[i].native = Some(native);
            }
            if points.floats.iter().all(|f| is_absent(*f)) {
                continue;
            }
            let le = labels.get(BUCKET_LABEL).unwrap_or("");
            let Some(bound) = parse_bound(le) else {
                self.note(Note::bad_bucket_label(self.shown_name(&labels), le, span));
                continue;
            };
            let i = family(&mut families, labels.retain(|n| n != BUCKET_LABEL), drop_name);
            let floats = Points { floats: points.floats, histograms: None };
            families[i].classic.push((bound, floats));
        }
        for f in &mut families {
            f.classic.sort_by(|a, b| a.0.total_cmp(&b.0));
            self.note_conflicts(f, span, steps);
        }
        families
    }

    /// Classic and native histogram of one identity at one step: neither counts.
    fn note_conflicts(&self, f: &mut Family, span: Span, steps: &Steps) {
        let Some(native) = f.native.as_mut().filter(|_| !f.classic.is_empty()) else { return };
        for step in 0..steps.count {
            let classic = f.classic.iter().any(|(_, p)| p.is_present(step));
            if classic && native.is_present(step) {
                self.note(Note::mixed_classic_native(self.shown_name(&f.labels), span));
                native.clear(step);
                f.classic.iter_mut().for_each(|(_, p)| p.clear(step));
            }
        }
    }

    /// The metric name as notes show it: only while names are kept.
    fn shown_name<'l>(&self, labels: &'l Labels) -> &'l str {
        if self.options.delayed_name_removal { labels.name() } else { "" }
    }

    /// Asks each histogram of a vector.
    ///
    /// * `questions`: with a label for the results where several quantiles are asked at once.
    pub(crate) fn ask_histograms(
        &self,
        mut vector: Vector,
        questions: &[LabeledQuestion<'_>],
        span: Span,
        steps: &Steps,
    ) -> Result<Vec<StepSeries>> {
        for (question, _) in questions {
            if let Question::Quantile { q, span } = question {
                for q in q.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
                    self.note(Note::invalid_quantile(*q, *span));
                }
            }
        }
        let families = self.families(&mut vector, span, steps);
        let mut out = Vec::with_capacity(families.len() * questions.len());
        for (question, label) in questions {
            for (i, f) in families.iter().enumerate() {
                if i % 64 == 0 {
                    self.budget.check()?;
                }
                let points = self.answer(f, question, span, steps);
                match label {
                    None => out.push(self.named(f, f.labels.clone(), points)),
                    Some((name, values)) => {
                        self.split_by_value(f, points, (name, values), &mut out);
                    }
                }
            }
        }
        out.retain(|s| !s.points.is_empty());
        Ok(out)
    }

    fn named(&self, f: &Family, labels: Labels, points: Points) -> StepSeries {
        let mut series = StepSeries { labels, drop_name: f.drop_name, points };
        self.drop_name(&mut series);
        series
    }

    /// The label's value may differ from step to step: one series for each.
    fn split_by_value(
        &self,
        f: &Family,
        points: Points,
        (name, values): (&str, &[String]),
        out: &mut Vec<StepSeries>,
    ) {
        let mut done: Vec<&str> = Vec::new();
        for value in values {
            if done.contains(&value.as_str()) {
                continue;
            }
            done.push(value);
            let mut part = points.clone();
            for (step, v) in values.iter().enumerate() {
                if v != value {
                    part.clear(step);
                }
            }
            let mut labels = f.labels.to_builder();
            labels.set(name, value.as_str());
            out.push(self.named(f, labels.build(), part));
        }
    }

    fn answer(&self, f: &Family, question: &Question<'_>, span: Span, steps: &Steps) -> Points {
        let mut points = Points::absent(steps.count);
        let name = self.native_name(f);
        let mut buckets = Vec::with_capacity(f.classic.len());
        for step in 0..steps.count {
            if let Some(h) = f.native.as_ref().and_then(|n| n.histogram(step)) {
                let (value, note) = match question {
                    Question::Quantile { q, .. } => native::quantile(q[step], h, name, span),
                    Question::Fraction { lower, upper } => {
                        native::fraction(lower[step], upper[step], h, name, span)
                    }
                };
                note.into_iter().for_each(|n| self.note(n));
                points.floats[step] = cell(value);
                continue;
            }
            buckets.clear();
            for (upper, column) in &f.classic {
                let count = column.floats[step];
                if !is_absent(count) {
                    buckets.push(ClassicBucket { upper: *upper, count });
                }
            }
            if buckets.is_empty() {
                continue;
            }
            points.floats[step] = cell(match question {
                Question::Fraction { lower, upper } => {
                    bucket_fraction(lower[step], upper[step], &mut buckets)
                }
                Question::Quantile { q, .. } => {
                    let (value, repaired) = bucket_quantile(q[step], &mut buckets);
                    if let Some((bucket_min, bucket_max, diff_max)) = repaired {
                        let time = steps.time(step);
                        let what = Monotonicity {
                            times_ms: (time, time),
                            bucket_min,
                            bucket_max,
                            diff_max,
                            samples: 1,
                        };
                        let name = self.shown_name(&f.labels);
                        self.note(Note::forced_monotonicity(name, what, span));
                    }
                    value
                }
            });
        }
        points
    }

    /// Notes on native histograms name the metric as it is after the name was dropped.
    fn native_name<'f>(&self, f: &'f Family) -> &'f str {
        self.shown_name(&f.labels)
    }

    /// The label value that a quantile gets, in OpenMetrics' form: always with a point or exponent.
    pub(crate) fn quantile_label(q: f64) -> String {
        if q.is_nan() {
            return "NaN".to_owned();
        }
        if q == 1.0 || q == 0.0 || q == -1.0 {
            return format!("{q:.1}");
        }
        let text = format_short(q);
        if text.contains(['.', 'e']) || q.is_infinite() { text } else { format!("{text}.0") }
    }
}

fn parse_bound(le: &str) -> Option<f64> {
    if le.is_empty() || le.contains('_') {
        return None;
    }
    le.parse().ok()
}
