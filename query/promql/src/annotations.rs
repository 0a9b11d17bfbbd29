//! Warnings and infos that accompany a result, with Prometheus' texts.

use crate::parse::{Span, location};
use crate::text::{format_short, quote};

/// How serious a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The result may be wrong.
    Warning,
    /// The result is right, but may not be what was meant.
    Info,
}

/// A note about the evaluation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    severity: Severity,
    /// Identifies the note: two notes of one text are one, at the later position.
    text: String,
    span: Span,
    extra: Extra,
}

#[derive(Clone, Debug, PartialEq)]
enum Extra {
    None,
    /// Of buckets whose counts went down.
    Monotonicity(Monotonicity),
    /// How often it happened.
    Count(u64),
}

/// Where classic histogram buckets had to be repaired.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Monotonicity {
    pub times_ms: (i64, i64),
    pub bucket_min: f64,
    pub bucket_max: f64,
    pub diff_max: f64,
    pub samples: u64,
}

/// The operation in which two histograms met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistogramOperation {
    Addition,
    Subtraction,
    Aggregation,
}

impl HistogramOperation {
    fn name(self) -> &'static str {
        match self {
            HistogramOperation::Addition => "addition",
            HistogramOperation::Subtraction => "subtraction",
            HistogramOperation::Aggregation => "aggregation",
        }
    }
}

fn warning(span: Span, text: impl Into<String>) -> Note {
    Note { severity: Severity::Warning, text: text.into(), span, extra: Extra::None }
}

fn info(span: Span, text: impl Into<String>) -> Note {
    Note { severity: Severity::Info, text: text.into(), span, extra: Extra::None }
}

fn with_name(text: &str, metric: &str) -> String {
    if metric.is_empty() {
        text.to_owned()
    } else {
        format!("{text} for metric name {}", quote(metric))
    }
}

impl Note {
    pub(crate) fn invalid_quantile(q: f64, span: Span) -> Self {
        let q = format_short(q);
        warning(span, format!("quantile value should be between 0 and 1, got {q}"))
    }

    pub(crate) fn invalid_ratio(ratio: f64, cap: f64, span: Span) -> Self {
        let (ratio, cap) = (format_short(ratio), format_short(cap));
        warning(
            span,
            format!("ratio value should be between -1 and 1, got {ratio}, capping to {cap}"),
        )
    }

    pub(crate) fn bad_bucket_label(metric: &str, label: &str, span: Span) -> Self {
        let label = quote(label);
        let text = format!("bucket label \"le\" is missing or has a malformed value of {label}");
        warning(span, with_name(&text, metric))
    }

    pub(crate) fn mixed_floats_histograms(metric: &str, span: Span) -> Self {
        let metric = quote(metric);
        warning(
            span,
            format!("encountered a mix of histograms and floats for metric name {metric}"),
        )
    }

    pub(crate) fn mixed_in_aggregation(span: Span) -> Self {
        warning(span, "encountered a mix of histograms and floats for aggregation")
    }

    pub(crate) fn mixed_classic_native(metric: &str, span: Span) -> Self {
        warning(span, with_name("vector contains a mix of classic and native histograms", metric))
    }

    pub(crate) fn not_a_counter(metric: &str, span: Span) -> Self {
        let metric = quote(metric);
        warning(span, format!("this native histogram metric is not a counter: {metric}"))
    }

    pub(crate) fn not_a_gauge(metric: &str, span: Span) -> Self {
        let metric = quote(metric);
        warning(span, format!("this native histogram metric is not a gauge: {metric}"))
    }

    pub(crate) fn mixed_exponential_custom(metric: &str, span: Span) -> Self {
        let metric = quote(metric);
        warning(
            span,
            format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {metric}"
            ),
        )
    }

    pub(crate) fn incompatible_buckets(op: &str, span: Span) -> Self {
        warning(span, format!("incompatible bucket layout encountered for binary operator {op}"))
    }

    pub(crate) fn sort_in_range_query(span: Span) -> Self {
        warning(
            span,
            "sort is ineffective for range queries since results are always ordered by labels",
        )
    }

    pub(crate) fn reset_collision(operation: HistogramOperation, span: Span) -> Self {
        let operation = operation.name();
        warning(span, format!("conflicting counter resets during histogram {operation}"))
    }

    pub(crate) fn start_time_overlap(metric: &str, span: Span) -> Self {
        let text = format!(
            "sample has start time that overlaps with previous sample timestamp for metric {}",
            quote(metric)
        );
        Note { extra: Extra::Count(1), ..warning(span, text) }
    }

    pub(crate) fn possible_non_counter(metric: &str, span: Span) -> Self {
        let metric = quote(metric);
        info(
            span,
            format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {metric}"
            ),
        )
    }

    pub(crate) fn possible_non_counter_type(metric: &str, kind: &str, span: Span) -> Self {
        let (metric, kind) = (quote(metric), quote(kind));
        info(
            span,
            format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {kind}: {metric}"
            ),
        )
    }

    pub(crate) fn forced_monotonicity(metric: &str, what: Monotonicity, span: Span) -> Self {
        let text = "input to histogram_quantile needed to be fixed for monotonicity (see \
                    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        Note { extra: Extra::Monotonicity(what), ..info(span, with_name(text, metric)) }
    }

    pub(crate) fn incompatible_types(left: &str, op: &str, right: &str, span: Span) -> Self {
        info(
            span,
            format!(
                "incompatible sample types encountered for binary operator {}: {left} {op} {right}",
                quote(op)
            ),
        )
    }

    pub(crate) fn ignored_in_aggregation(aggregation: &str, span: Span) -> Self {
        info(span, format!("ignored histogram in {aggregation} aggregation"))
    }

    pub(crate) fn ignored_in_mixed_range(metric: &str, span: Span) -> Self {
        let metric = quote(metric);
        info(
            span,
            format!(
                "ignored histograms in a range containing both floats and histograms for metric name {metric}"
            ),
        )
    }

    pub(crate) fn quantile_is_nan(metric: &str, span: Span) -> Self {
        let text = "input to histogram_quantile has NaN observations, result is NaN";
        info(span, with_name(text, metric))
    }

    pub(crate) fn quantile_is_skewed(metric: &str, span: Span) -> Self {
        let text = "input to histogram_quantile has NaN observations, result is skewed higher";
        info(span, with_name(text, metric))
    }

    pub(crate) fn fraction_without_nans(metric: &str, span: Span) -> Self {
        let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
        info(span, with_name(text, metric))
    }

    pub(crate) fn bounds_reconciled(operation: HistogramOperation, span: Span) -> Self {
        let operation = operation.name();
        info(span, format!("mismatched custom buckets were reconciled during {operation}"))
    }

    fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }

    fn merge(&mut self, newer: Note) {
        let extra = match (&self.extra, &newer.extra) {
            (Extra::Monotonicity(a), Extra::Monotonicity(b)) => Extra::Monotonicity(Monotonicity {
                times_ms: (a.times_ms.0.min(b.times_ms.0), a.times_ms.1.max(b.times_ms.1)),
                bucket_min: a.bucket_min.min(b.bucket_min),
                bucket_max: a.bucket_max.max(b.bucket_max),
                diff_max: a.diff_max.max(b.diff_max),
                samples: a.samples + b.samples,
            }),
            (Extra::Count(a), Extra::Count(b)) => Extra::Count(a + b),
            (_, other) => other.clone(),
        };
        *self = Note { extra, ..newer };
    }

    fn render(&self, query: &str) -> String {
        let kind = if self.is_warning() { "PromQL warning" } else { "PromQL info" };
        let at = location(query, self.span.start);
        let text = &self.text;
        match &self.extra {
            Extra::None | Extra::Count(1) => format!("{kind}: {text} ({at})"),
            Extra::Count(n) => format!("{kind}: {text} ({n} occurrences) ({at})"),
            Extra::Monotonicity(m) => format!(
                "{kind}: {text}, from buckets {} to {}, with a max diff of {}, over {} samples from {} to {} ({at})",
                format_short(m.bucket_min),
                format_short(m.bucket_max),
                two_digits(m.diff_max),
                m.samples,
                rfc3339(m.times_ms.0),
                rfc3339(m.times_ms.1),
            ),
        }
    }
}

/// Go's `%.2g`: two significant digits.
fn two_digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format_short(value);
    }
    let text = format!("{value:.1e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = digits.strip_suffix(".0").unwrap_or(digits);
    if (-4..2).contains(&exponent) {
        return format_short(text.parse().unwrap_or(value));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn rfc3339(ms: i64) -> String {
    let c = crate::calendar::Civil::from_unix(ms.div_euclid(1000));
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// A set of notes, in order of first occurrence.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    notes: Vec<Note>,
}

impl Annotations {
    /// Adds a note, or merges it with one of the same text.
    pub(crate) fn add(&mut self, note: Note) {
        match self.notes.iter_mut().find(|n| n.text == note.text && n.severity == note.severity) {
            Some(known) => known.merge(note),
            None => self.notes.push(note),
        }
    }

    /// Adds all notes of another set.
    pub(crate) fn merge(&mut self, other: Annotations) {
        for note in other.notes {
            self.add(note);
        }
    }

    /// Whether there is no note.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// The texts with positions in the query, as the HTTP API gives them: warnings and infos.
    ///
    /// At most `max` of each unless it is 0; a last line then tells how many were left out.
    pub fn texts(&self, query: &str, max: usize) -> (Vec<String>, Vec<String>) {
        let list = |severity: Severity, name: &str| {
            let of_kind = self.notes.iter().filter(|n| n.severity == severity);
            let mut out: Vec<String> = of_kind.map(|n| n.render(query)).collect();
            if max > 0 && out.len() > max {
                let more = out.len() - max;
                out.truncate(max);
                out.push(format!("{more} more {name} annotations omitted"));
            }
            out
        };
        (list(Severity::Warning, "warning"), list(Severity::Info, "info"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_noted_once_at_its_last_position() {
        let mut notes = Annotations::default();
        let at = |start| Span { start, end: start + 1 };
        notes.add(Note::possible_non_counter("a", at(0)));
        notes.add(Note::possible_non_counter("a", at(6)));
        let (warnings, infos) = notes.texts("a\n\n   a", 0);
        assert!(warnings.is_empty());
        assert_eq!(
            infos,
            [
                "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"a\" (3:4)"
            ]
        );
    }

    #[test]
    fn differences_are_written_with_two_digits() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (12.3, "12"),
            (123.0, "1.2e+02"),
            (0.00123, "0.0012"),
            (5e-7, "5e-07"),
        ] {
            assert_eq!(two_digits(value), text);
        }
    }
}
