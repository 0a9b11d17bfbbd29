//! Which unit the values of a query have, by the names of its metrics.

use super::tokens::{Kind, metrics, tokens};
use crate::format;

/// How values are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Number,
    Seconds,
    Bytes,
    BytesPerSecond,
    PerSecond,
    Ratio,
}

impl Unit {
    /// A value as text.
    pub fn show(self) -> fn(f64) -> String {
        match self {
            Self::Number => format::count,
            Self::Seconds => |value| format::duration(value * 1e9),
            Self::Bytes => format::bytes,
            Self::BytesPerSecond => |value| format!("{}/s", format::bytes(value)),
            Self::PerSecond => format::rate,
            Self::Ratio => format::percent,
        }
    }
}

/// The unit of a query's values; a number wherever there is doubt.
pub fn unit(query: &str) -> Unit {
    let tokens = tokens(query);
    let words: Vec<&str> =
        tokens.iter().filter(|t| t.kind == Kind::Word).map(|t| &query[t.start..t.end]).collect();
    let has = |names: &[&str]| words.iter().any(|word| names.contains(word));
    let calculates = tokens.iter().any(|t| {
        t.kind == Kind::Sign
            && matches!(
                &query[t.start..t.end],
                "/" | "*" | "^" | "%" | "==" | "!=" | "<" | ">" | "<=" | ">="
            )
    }) && !metrics(query).is_empty();
    let counts = [
        "count",
        "count_values",
        "group",
        "changes",
        "resets",
        "count_over_time",
        "absent",
        "timestamp",
    ];
    if calculates || has(&counts) {
        return Unit::Number;
    }
    let mut units = metrics(query).into_iter().map(|(_, name)| name);
    let Some(name) = units.next() else { return Unit::Number };
    if units.any(|other| base(other) != base(name)) {
        return Unit::Number;
    }
    let per_second = has(&["rate", "irate", "deriv"]);
    let observed = has(&["histogram_quantile", "histogram_avg", "histogram_stddev"]);
    let is_count =
        name.ends_with("_count") || name.ends_with("_bucket") || has(&["histogram_count"]);
    match (observed, is_count, base(name)) {
        (true, _, unit) => unit,
        (false, true, _) if per_second => Unit::PerSecond,
        (false, true, _) => Unit::Number,
        (false, false, Unit::Bytes) if per_second => Unit::BytesPerSecond,
        // Seconds a second are no unit that anybody reads.
        (false, false, Unit::Seconds) if per_second => Unit::Number,
        (false, false, Unit::Number) if per_second => Unit::PerSecond,
        (false, false, unit) => unit,
    }
}

/// What one observation or value of a metric is measured in.
fn base(name: &str) -> Unit {
    let name = ["_bucket", "_count", "_sum", "_total"]
        .iter()
        .fold(name, |name, suffix| name.strip_suffix(suffix).unwrap_or(name));
    if name.ends_with("_seconds") || name == "traces_spanmetrics_latency" {
        Unit::Seconds
    } else if name.ends_with("_bytes") {
        Unit::Bytes
    } else if name.ends_with("_ratio") {
        Unit::Ratio
    } else {
        Unit::Number
    }
}

/// Whether an exemplar's value can be read on the axis of the query's chart.
pub fn shows_observations(query: &str) -> bool {
    let observed = ["histogram_quantile", "histogram_avg"];
    tokens(query).iter().any(|t| observed.contains(&&query[t.start..t.end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_from_names_and_functions() {
        for (query, wanted) in [
            ("up", Unit::Number),
            ("process_memory_bytes", Unit::Bytes),
            ("rate(network_bytes_total[1m])", Unit::BytesPerSecond),
            ("sum by (a) (rate(shop_orders_total[1m]))", Unit::PerSecond),
            ("increase(shop_orders_total[1m])", Unit::Number),
            ("sum(rate(http_seconds_count[5m]))", Unit::PerSecond),
            ("sum by (le) (rate(http_seconds_bucket[5m]))", Unit::PerSecond),
            ("histogram_quantile(0.9, sum by (le) (rate(http_seconds_bucket[5m])))", Unit::Seconds),
            ("histogram_quantile(0.9, traces_spanmetrics_latency)", Unit::Seconds),
            ("max(http_duration_seconds)", Unit::Seconds),
            ("cpu_utilization_ratio", Unit::Ratio),
            ("rate(http_seconds_sum[5m]) / rate(http_seconds_count[5m])", Unit::Number),
            ("count(process_memory_bytes)", Unit::Number),
            ("a_bytes or b_seconds", Unit::Number),
            ("1 / 2", Unit::Number),
        ] {
            assert_eq!(unit(query), wanted, "{query}");
        }
    }
}
