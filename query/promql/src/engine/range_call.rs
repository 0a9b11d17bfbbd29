//! Functions of range vectors: one window of samples per series and step.

use std::sync::Arc;

use crate::annotations::{Annotations, Note};
use crate::budget::Budget;
use crate::engine::QueryError;
use crate::engine::eval::{Evaluator, Result, is_metadata_label};
use crate::engine::extended::extended_rate;
use crate::engine::over_time as over;
use crate::engine::rates;
use crate::engine::select::{Looks, without_absent, without_stale};
use crate::engine::slides::{Slide, Slides, inside, lost};
use crate::engine::value::{
    Evaluated, Held, Points, RangeSeries, StepSeries, Steps, Vector, cell, is_absent,
};
use crate::histogram::Histogram;
use crate::labels::{Labels, METRIC_NAME, METRIC_TYPE, METRIC_UNIT};
use crate::parse::{Call, Expr, Extend, Span, ValueType};
use crate::series::{SampleValue, Series};
use crate::source::SelectHints;

/// Below this many window samples in a query, starting threads costs more than it saves.
const PARALLEL_SAMPLES: usize = 400_000;

/// Window samples that are looked at between two looks at the budget: about a millisecond.
const WORK_PER_CHECK: usize = 1 << 16;

/// The samples of one series that a step sees, and the edges of its range `(start, end]`.
pub(crate) struct Window<'a> {
    pub labels: &'a Labels,
    pub start: i64,
    pub end: i64,
    /// The evaluation time of the step; differs from `end` by offset and `@`.
    pub step_time: i64,
    pub times: &'a [i64],
    pub values: &'a [f64],
    /// Empty if start times are unknown or not in use.
    pub starts: &'a [i64],
    pub h_times: &'a [i64],
    pub h_values: &'a [Arc<Histogram>],
    pub h_starts: &'a [i64],
    /// Counter resets of the floats inside the window: the sample after each, and the value before
    /// it. Only for counter functions without start times.
    pub resets: &'a [(usize, f64)],
}

impl Window<'_> {
    pub(crate) fn name(&self) -> &str {
        self.labels.name()
    }
}

/// What is the same for all windows of a call.
pub(crate) struct RangeContext<'a> {
    pub range_ms: i64,
    pub extend: Extend,
    /// Position of the range argument, where most notes point to.
    pub span: Span,
    /// Position of the first argument, whatever it is.
    pub first_span: Span,
    /// Scalar arguments, one column each.
    pub scalars: &'a [Vec<f64>],
}

impl RangeContext<'_> {
    pub(crate) fn is_smoothed(&self) -> bool {
        self.extend == Extend::Smoothed
    }
}

/// The range argument of a call, loaded but not cleaned.
struct Ranges {
    series: Vec<RangeSeries>,
    looks: Looks,
    range_ms: i64,
    extend: Extend,
    /// See [`Evaluator::grouped`].
    grouped: bool,
    _held: Option<Held>,
}

/// What became of a series.
struct Done {
    labels: Labels,
    points: Points,
    notes: Annotations,
    /// That the function wants a counter, and this seems to be none.
    no_counter: Option<Note>,
}

/// Why a window function stopped the query.
type WindowResult = std::result::Result<Option<SampleValue>, String>;

impl Evaluator<'_> {
    /// The position of the range argument, if the function takes one.
    pub(crate) fn range_argument(call: &Call) -> Option<usize> {
        call.function.args.iter().position(|t| *t == ValueType::Matrix)
    }

    /// Evaluates a function of a range vector.
    pub(crate) fn eval_range_call(
        &self,
        call: &Call,
        range_arg: usize,
        steps: &Steps,
    ) -> Result<Evaluated> {
        let name = call.function.name;
        let arg = call.args[range_arg].unparenthesized();
        let mut ranges = self.ranges(arg, name, steps)?;
        let mut scalars = Vec::new();
        for (i, arg) in call.args.iter().enumerate() {
            if i != range_arg {
                scalars.push(self.eval_scalar(arg, steps)?);
            }
        }
        let context = RangeContext {
            range_ms: ranges.range_ms,
            extend: ranges.extend,
            span: arg.span(),
            first_span: call.args[0].unparenthesized().span(),
            scalars: &scalars,
        };
        let cells = (ranges.series.len() * steps.count) as u64;
        let held = Held::new(self.budget, cells)?;
        let keeps_name = matches!(name, "last_over_time" | "first_over_time");
        let delayed = self.options.delayed_name_removal;
        let distinct = !delayed && of_one_name(&ranges.series);
        let drop_name: Vec<bool> =
            ranges.series.iter().map(|s| !keeps_name || s.drop_name).collect();
        let nameless = !delayed && !keeps_name && !(ranges.grouped && distinct);
        let done = self.run_windows(name, &mut ranges, &context, nameless, steps)?;
        if name == "absent_over_time" {
            return self.absent_over_time(&done, arg, steps);
        }
        let mut out = Vec::with_capacity(done.len());
        for (Done { labels, points, .. }, drop_name) in done.into_iter().zip(drop_name) {
            out.push(StepSeries { labels, drop_name: delayed && drop_name, points });
        }
        out.retain(|s| !s.points.is_empty());
        // Series of one name differ in their other labels.
        let out = if distinct { out } else { self.merge_now(out)? };
        Ok(Evaluated::Vector(Vector::held(out, steps, held)?))
    }

    fn ranges(&self, arg: &Expr, function: &str, steps: &Steps) -> Result<Ranges> {
        match arg {
            Expr::Matrix(m) => {
                let extend = m.selector.extend;
                check_extend(extend, function).or_else(|message| self.fail(message))?;
                let looks = self.looks(&m.selector)?;
                let range_ms = self.duration(&m.range, false)?;
                let lookback = self.lookback_ms();
                let around = match extend {
                    Extend::No => (range_ms, 0),
                    Extend::Anchored => (range_ms + lookback, 0),
                    Extend::Smoothed => (range_ms + lookback, lookback),
                };
                let hints = SelectHints {
                    range_ms,
                    function: function.to_owned(),
                    starts: self.uses_starts(function),
                    ..SelectHints::default()
                };
                let loaded = self.load_raw(&m.selector, steps, looks, around, hints)?;
                let series = loaded.series.into_iter();
                let series = series.map(|series| RangeSeries { series, drop_name: false });
                let series = series.collect();
                let grouped = self.grouped.contains(&m.selector.span.start);
                Ok(Ranges { series, looks, range_ms, extend, grouped, _held: Some(loaded._held) })
            }
            Expr::Subquery(s) => {
                let series = self.subquery_ranges(s, steps)?;
                let cost = series.iter().map(|s| s.series.sample_cost()).sum();
                let looks = Looks {
                    at: self.at(s.timing.at),
                    offset_ms: self.duration(&s.timing.offset, true)?,
                };
                Ok(Ranges {
                    series,
                    looks,
                    range_ms: self.duration(&s.range, false)?,
                    extend: Extend::No,
                    grouped: false,
                    _held: Some(Held::new(self.budget, cost)?),
                })
            }
            _ => self.fail("expected a range vector"),
        }
    }

    /// One column per series, in the order of the series, which are used up.
    ///
    /// * `nameless`: labels lose the name.
    fn run_windows(
        &self,
        name: &str,
        ranges: &mut Ranges,
        context: &RangeContext<'_>,
        nameless: bool,
        steps: &Steps,
    ) -> Result<Vec<Done>> {
        let lookback = self.lookback_ms();
        let Some(function) = Function::from_name(name) else {
            return self.fail(format!("unknown range function {name}"));
        };
        let run = Run { function, looks: ranges.looks, context, steps, lookback };
        let use_starts = self.uses_starts(name);
        let mut counts = vec![0; steps.count];
        let samples: usize = ranges.series.iter().map(|s| s.series.len() + steps.count).sum();
        let threads = self.options.threads.min(ranges.series.len());
        let counters = matches!(name, "rate" | "increase");
        let counters = counters.then_some(self.options.type_and_unit_labels);
        let shared = Shared { budget: self.budget, run: &run, use_starts, nameless, counters };
        let mut done = if threads < 2 || samples < PARALLEL_SAMPLES {
            shared.all(&mut ranges.series, &mut counts)?
        } else {
            shared.in_parallel(&mut ranges.series, threads, &mut counts)?
        };
        self.count_samples(steps, &counts);
        done.iter_mut().for_each(|done| self.add_notes(std::mem::take(&mut done.notes)));
        done.iter_mut().filter_map(|done| done.no_counter.take()).for_each(|n| self.note(n));
        Ok(done)
    }

    /// Whether start times tell a function about counter resets.
    fn uses_starts(&self, function: &str) -> bool {
        self.options.start_timestamps
            && matches!(function, "rate" | "irate" | "increase" | "resets")
    }

    /// One series that is 1 where no series has a value.
    fn absent_over_time(&self, done: &[Done], arg: &Expr, steps: &Steps) -> Result<Evaluated> {
        let mut points = Points::absent(steps.count);
        for step in 0..steps.count {
            if !done.iter().any(|done| done.points.is_present(step)) {
                points.floats[step] = 1.0;
            }
        }
        let labels = crate::engine::instant::labels_of_absent(arg);
        let series = vec![StepSeries { labels, drop_name: true, points }];
        Ok(Evaluated::Vector(Vector::new(series, steps, self.budget)?))
    }
}

/// What to say of a series that a counter function was asked of, unless its name or type says that it is a counter.
///
/// * `by_type`: the type is told by a label.
fn non_counter(labels: &Labels, points: &Points, by_type: bool, span: Span) -> Option<Note> {
    let name = labels.name();
    let has_float = || points.floats.iter().any(|f| !is_absent(*f));
    if name.is_empty() {
        return None;
    }
    if by_type {
        let kind = labels.get(METRIC_TYPE).unwrap_or("");
        let suspect = kind != "counter" && kind != "histogram" && has_float();
        return suspect.then(|| Note::possible_non_counter_type(name, kind, span));
    }
    let named = ["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s));
    (!named && has_float()).then(|| Note::possible_non_counter(name, span))
}

fn check_extend(extend: Extend, function: &str) -> std::result::Result<(), String> {
    let (word, allowed): (_, &[&str]) = match extend {
        Extend::No => return Ok(()),
        Extend::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        Extend::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if allowed.contains(&function) {
        return Ok(());
    }
    let list = allowed.join(", ");
    Err(format!("{word} modifier can only be used with: {list} - not with {function}"))
}

/// What threads need of the evaluator.
struct Shared<'a> {
    budget: &'a Budget,
    run: &'a Run<'a>,
    use_starts: bool,
    /// Labels lose the name.
    nameless: bool,
    /// The function wants counters, told by their type if true.
    counters: Option<bool>,
}

impl Shared<'_> {
    /// Uses up the series. Adds the window samples of each step to `counts`.
    fn all(&self, series: &mut [RangeSeries], counts: &mut [u64]) -> Result<Vec<Done>> {
        let mut slides = (Slides::default(), Slides::default());
        let mut work = WORK_PER_CHECK;
        let one = |series: Series| {
            work += series.len() + counts.len();
            if work > WORK_PER_CHECK {
                self.budget.check()?;
                work = 0;
            }
            self.one(series, counts, &mut slides)
        };
        series.iter_mut().map(|s| std::mem::take(&mut s.series)).map(one).collect()
    }

    fn one(
        &self,
        mut series: Series,
        counts: &mut [u64],
        slides: &mut (Slides, Slides),
    ) -> Result<Done> {
        without_absent(&mut series);
        without_stale(&mut series);
        let (points, notes) =
            self.run.column(&series, self.use_starts, counts, slides, self.budget)?;
        let span = self.run.context.span;
        let no_counter =
            self.counters.and_then(|by_type| non_counter(&series.labels, &points, by_type, span));
        let mut labels = series.labels;
        if self.nameless {
            labels.cut(|name| !is_metadata_label(name));
        }
        Ok(Done { labels, points, notes, no_counter })
    }

    fn in_parallel(
        &self,
        series: &mut [RangeSeries],
        threads: usize,
        counts: &mut [u64],
    ) -> Result<Vec<Done>> {
        let chunk = series.len().div_ceil(threads);
        let steps = counts.len();
        let all = series.len();
        let work = |part: &mut [RangeSeries]| -> Result<(Vec<Done>, Vec<u64>)> {
            let mut counts = vec![0; steps];
            Ok((self.all(part, &mut counts)?, counts))
        };
        let work = &work;
        std::thread::scope(|scope| {
            let handles: Vec<_> =
                series.chunks_mut(chunk).map(|part| scope.spawn(move || work(part))).collect();
            let mut out = Vec::with_capacity(all);
            for handle in handles {
                match handle.join() {
                    Ok(part) => {
                        let (done, of_part) = part?;
                        out.extend(done);
                        counts.iter_mut().zip(of_part).for_each(|(sum, n)| *sum += n);
                    }
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(out)
        })
    }
}

/// One call over all its series.
struct Run<'a> {
    function: Function,
    looks: Looks,
    context: &'a RangeContext<'a>,
    steps: &'a Steps,
    lookback: i64,
}

impl Run<'_> {
    fn column(
        &self,
        series: &Series,
        use_starts: bool,
        counts: &mut [u64],
        slides: &mut (Slides, Slides),
        budget: &Budget,
    ) -> Result<(Points, Annotations)> {
        let mut notes = Annotations::default();
        let mut points = Points::absent(self.steps.count);
        let (floats, histograms) = (&series.floats, &series.histograms);
        let starts = if use_starts { &floats.starts[..] } else { &[] };
        let h_starts = if use_starts { &histograms.starts[..] } else { &[] };
        let counter =
            matches!(self.function, Function::Rate | Function::Increase) && starts.is_empty();
        let falls = floats.values.windows(2).fold(false, |any, w| any | (w[1] < w[0]));
        let resets: Vec<(usize, f64)> = if counter && falls {
            let pairs = floats.values.windows(2).enumerate();
            pairs.filter(|(_, w)| w[1] < w[0]).map(|(i, w)| (i + 1, w[0])).collect()
        } else {
            Vec::new()
        };
        let (before, after) = match self.context.extend {
            Extend::No => (0, 0),
            Extend::Anchored => (self.lookback, 0),
            Extend::Smoothed => (self.lookback, self.lookback),
        };
        let step_edges = |step: usize| {
            let end = self.looks.seen_from(self.steps.time(step));
            (end.saturating_sub(self.context.range_ms), end)
        };
        let edges = |step: usize| {
            let (start, end) = step_edges(step);
            (start.saturating_sub(before), end.saturating_add(after))
        };
        let plain = self.plain_rate().filter(|_| starts.is_empty() && histograms.is_empty());
        if let Some((is_counter, seconds)) = plain {
            let windows = slides.0.over(&floats.times, counts.len(), edges, step_edges);
            let values: &[f64] = &floats.values;
            let cells = points.floats.iter_mut().zip(counts);
            for (Slide { samples, reach }, (float, count)) in windows.iter().zip(cells) {
                *count += samples.len() as u64;
                let Some(reach) = reach else { continue };
                let lost = if resets.is_empty() { 0.0 } else { lost(&resets, samples) };
                *float = cell(reach.rate(&values[samples.clone()], lost, is_counter, seconds));
            }
            return Ok((points, notes));
        }
        let of_floats = slides.0.over(&floats.times, counts.len(), edges, step_edges);
        let of_histograms = slides.1.over(&histograms.times, counts.len(), edges, step_edges);
        let mut work = 0;
        for (step, count) in counts.iter_mut().enumerate() {
            let step_time = self.steps.time(step);
            let (start, end) = step_edges(step);
            let f = (of_floats[step].samples.start, of_floats[step].samples.end);
            let h = (of_histograms[step].samples.start, of_histograms[step].samples.end);
            if f.0 == f.1 && h.0 == h.1 {
                continue;
            }
            *count += (f.1 - f.0 + h.1 - h.0) as u64;
            let window = Window {
                labels: &series.labels,
                start,
                end,
                step_time,
                times: &floats.times[f.0..f.1],
                values: &floats.values[f.0..f.1],
                starts: starts.get(f.0..f.1).unwrap_or(&[]),
                h_times: &histograms.times[h.0..h.1],
                h_values: &histograms.values[h.0..h.1],
                h_starts: h_starts.get(h.0..h.1).unwrap_or(&[]),
                resets: inside(&resets, &(f.0..f.1)),
            };
            work += window.times.len() + window.h_times.len();
            if work > WORK_PER_CHECK {
                work = 0;
                budget.check()?;
            }
            if let Some(value) =
                self.apply(&window, step, &mut notes).map_err(QueryError::Execution)?
            {
                points.set(step, value);
            }
        }
        Ok((points, notes))
    }

    /// Whether this is the rate or increase or delta of numbers without extension: of counters, and per how many
    /// seconds.
    fn plain_rate(&self) -> Option<(bool, Option<f64>)> {
        let seconds = self.context.range_ms as f64 / 1000.0;
        match self.function {
            _ if self.context.extend != Extend::No => None,
            Function::Rate => Some((true, Some(seconds))),
            Function::Increase => Some((true, None)),
            Function::Delta => Some((false, None)),
            _ => None,
        }
    }

    fn apply(&self, w: &Window<'_>, step: usize, notes: &mut Annotations) -> WindowResult {
        use Function as F;
        let context = self.context;
        let scalar = |i: usize| context.scalars[i][step];
        let extended = context.extend != Extend::No;
        Ok(match self.function {
            F::Rate if extended => extended_rate(w, context, notes, true, true),
            F::Increase if extended => extended_rate(w, context, notes, true, false),
            F::Delta if extended => extended_rate(w, context, notes, false, false),
            F::Rate => rates::extrapolated(w, context, notes, true, true),
            F::Increase => rates::extrapolated(w, context, notes, true, false),
            F::Delta => rates::extrapolated(w, context, notes, false, false),
            F::Irate => rates::last_two(w, context, notes, true),
            F::Idelta => rates::last_two(w, context, notes, false),
            F::Resets => over::resets(w, context),
            F::Changes => over::changes(w, context),
            F::Deriv => over::deriv(w, context, notes),
            F::PredictLinear => over::predict_linear(w, context, notes, scalar(0)),
            F::Avg => over::avg(w, context, notes),
            F::Sum => over::sum(w, context, notes),
            F::Min => over::extreme(w, context, notes, false, false),
            F::Max => over::extreme(w, context, notes, true, false),
            F::TimeOfMin => over::extreme(w, context, notes, false, true),
            F::TimeOfMax => over::extreme(w, context, notes, true, true),
            F::TimeOfFirst => over::time_of_first(w),
            F::TimeOfLast => over::time_of_last(w),
            F::First => over::first(w),
            F::Last => over::last(w),
            F::Count => over::count(w),
            F::Present => Some(SampleValue::Float(1.0)),
            F::Stddev => over::variance(w, context, notes, true),
            F::Stdvar => over::variance(w, context, notes, false),
            F::Quantile => over::quantile(w, context, notes, scalar(0)),
            F::Mad => over::mad(w, context, notes),
            F::Smoothing => {
                return over::smoothing(w, context, notes, scalar(0), scalar(1));
            }
        })
    }
}

/// The functions of range vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Resets,
    Changes,
    Deriv,
    PredictLinear,
    Avg,
    Sum,
    Min,
    Max,
    TimeOfMin,
    TimeOfMax,
    TimeOfFirst,
    TimeOfLast,
    First,
    Last,
    Count,
    Present,
    Stddev,
    Stdvar,
    Quantile,
    Mad,
    Smoothing,
}

impl Function {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Function::Rate,
            "increase" => Function::Increase,
            "delta" => Function::Delta,
            "irate" => Function::Irate,
            "idelta" => Function::Idelta,
            "resets" => Function::Resets,
            "changes" => Function::Changes,
            "deriv" => Function::Deriv,
            "predict_linear" => Function::PredictLinear,
            "avg_over_time" => Function::Avg,
            "sum_over_time" => Function::Sum,
            "min_over_time" => Function::Min,
            "max_over_time" => Function::Max,
            "ts_of_min_over_time" => Function::TimeOfMin,
            "ts_of_max_over_time" => Function::TimeOfMax,
            "ts_of_first_over_time" => Function::TimeOfFirst,
            "ts_of_last_over_time" => Function::TimeOfLast,
            "first_over_time" => Function::First,
            "last_over_time" => Function::Last,
            "count_over_time" => Function::Count,
            // What is absent is found afterwards, from where something is present.
            "present_over_time" | "absent_over_time" => Function::Present,
            "stddev_over_time" => Function::Stddev,
            "stdvar_over_time" => Function::Stdvar,
            "quantile_over_time" => Function::Quantile,
            "mad_over_time" => Function::Mad,
            "double_exponential_smoothing" => Function::Smoothing,
            _ => return None,
        })
    }
}

/// Whether all series have the same name and no label that goes with it.
fn of_one_name(series: &[RangeSeries]) -> bool {
    let name = |s: &RangeSeries| s.series.labels.get_shared(METRIC_NAME).cloned();
    let first = series.first().and_then(name);
    first.is_some()
        && series.iter().all(|s| {
            let labels = &s.series.labels;
            labels.get_shared(METRIC_NAME) == first.as_ref()
                && !labels.has(METRIC_TYPE)
                && !labels.has(METRIC_UNIT)
                && !s.drop_name
        })
}
