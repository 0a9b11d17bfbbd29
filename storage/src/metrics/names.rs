//! Names of OTLP metrics and units as Prometheus has them, by the translation strategy.
//!
//! Source: behaviour of prometheus/otlptranslator; OpenTelemetry specification, "Prometheus and OpenMetrics
//! Compatibility".

use super::batch::{MetricDesc, MetricKind};
use super::naming::Translation;

/// The Prometheus name of a metric family; `None` when nothing of the name is left.
pub(super) fn metric_name(desc: &MetricDesc, translation: Translation) -> Option<String> {
    if desc.kind == MetricKind::Prometheus {
        return Some(desc.name.to_string());
    }
    let name = match (translation.escapes(), translation.suffixes()) {
        (true, true) => escaped_with_suffixes(desc)?,
        (true, false) => escaped(&desc.name)?,
        (false, true) => with_suffixes(desc),
        (false, false) => desc.name.to_string(),
    };
    (!name.is_empty()).then_some(name)
}

fn is_counter(desc: &MetricDesc) -> bool {
    desc.kind == MetricKind::Sum && desc.monotonic
}

/// Unit `1` says that a gauge is a ratio; counters of things carry it by mistake.
fn is_ratio(desc: &MetricDesc) -> bool {
    desc.kind == MetricKind::Gauge && &*desc.unit == "1"
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// Tokens joined by single underscores, the unit and the type as last ones.
fn escaped_with_suffixes(desc: &MetricDesc) -> Option<String> {
    let mut tokens: Vec<String> = desc
        .name
        .split(|c: char| !is_name_char(c))
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect();
    if tokens.is_empty() {
        return None;
    }
    let (mut main, mut per) = unit_words(&desc.unit);
    main = clean(&main);
    per = clean(&per).trim_end_matches('_').to_owned();
    if tokens.contains(&main) {
        main.clear();
    }
    if per == "per" || tokens.contains(&per) {
        per.clear();
    }
    if !per.is_empty() {
        main.truncate(main.trim_end_matches('_').len());
    }
    tokens.extend([main, per].into_iter().filter(|word| !word.is_empty()));
    for (wanted, suffix) in [(is_counter(desc), "total"), (is_ratio(desc), "ratio")] {
        if wanted {
            tokens.retain(|token| token != suffix);
            tokens.push(suffix.to_owned());
        }
    }
    Some(not_a_digit_first(tokens.join("_")))
}

/// Runs of what no name may hold become one underscore; underscores stay as they are.
fn escaped(name: &str) -> Option<String> {
    let tokens: Vec<&str> = name
        .split(|c: char| !(is_name_char(c) || c == '_'))
        .filter(|token| !token.is_empty())
        .collect();
    let escaped = not_a_digit_first(tokens.join("_"));
    (escaped == name || escaped.contains(|c| c != '_')).then_some(escaped)
}

fn not_a_digit_first(name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// The name as it is, with the suffixes that it does not have yet.
fn with_suffixes(desc: &MetricDesc) -> String {
    let (main, per) = unit_words(&desc.unit);
    let mut name = &*desc.name;
    let mut suffixes: Vec<&str> = Vec::new();
    for (wanted, suffix) in
        [(is_ratio(desc), "ratio"), (is_counter(desc), "total"), (!per.is_empty(), &*per)]
    {
        if wanted {
            name = without_suffix(name, suffix);
            suffixes.insert(0, suffix);
        }
    }
    if !main.is_empty() && !name.ends_with(&main) {
        suffixes.insert(0, &main);
    }
    suffixes.into_iter().fold(name.to_owned(), |name, suffix| format!("{name}_{suffix}"))
}

/// The name without a suffix and the one character before it, unless that would be all of it.
fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let rest = name.strip_suffix(suffix).map(|rest| {
        let mut chars = rest.chars();
        chars.next_back();
        chars.as_str()
    });
    rest.filter(|rest| !rest.is_empty()).unwrap_or(name)
}

/// The unit as metadata shows it.
pub(super) fn metric_unit(unit: &str, translation: Translation) -> String {
    let (mut main, mut per) = unit_words(unit);
    if translation.escapes() {
        (main, per) = (clean(&main), clean(&per));
    }
    let words: Vec<String> = [main, per].into_iter().filter(|word| !word.is_empty()).collect();
    words.join("_").trim_matches('_').to_owned()
}

/// Main unit, and per unit with `per_` before it; empty when there is none. Parts in braces count for nothing.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let usable = |part: &str| !part.is_empty() && !part.contains(['{', '}']);
    let main = Some(main.trim()).filter(|part| usable(part)).map(main_unit);
    let per = Some(per.trim()).filter(|part| usable(part)).map(per_unit);
    (main.unwrap_or_default().to_owned(), per.map(|per| format!("per_{per}")).unwrap_or_default())
}

fn main_unit(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tebibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        "1" => "",
        other => other,
    }
}

fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

/// What no name may hold becomes an underscore, runs become one, and none stays in front.
fn clean(unit: &str) -> String {
    let mut clean = String::with_capacity(unit.len());
    for c in unit.chars() {
        if is_name_char(c) {
            clean.push(c);
        } else if !clean.is_empty() && !clean.ends_with('_') {
            clean.push('_');
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Resource, Scope};
    use std::sync::Arc;

    fn desc(name: &str, unit: &str, kind: MetricKind, monotonic: bool) -> MetricDesc {
        MetricDesc {
            name: name.into(),
            description: "".into(),
            unit: unit.into(),
            kind,
            temporality: 2,
            monotonic,
            resource: Arc::new(Resource::new(&[], "", 0)),
            scope: Arc::new(Scope::new("", "", &[], "", 0)),
        }
    }

    fn name(translation: Translation, desc: &MetricDesc) -> Option<String> {
        metric_name(desc, translation)
    }

    #[test]
    fn names_are_those_of_prometheus_otlp_receiver() {
        use MetricKind::{Gauge, Histogram, Sum};
        for (otlp, unit, kind, monotonic, expected) in [
            (
                "http.server.request.duration",
                "s",
                Histogram,
                false,
                "http_server_request_duration_seconds",
            ),
            ("http.server.active_requests", "{request}", Sum, false, "http_server_active_requests"),
            ("shop.orders", "{order}", Sum, true, "shop_orders_total"),
            ("system.network.io", "By", Sum, true, "system_network_io_bytes_total"),
            ("queue.total.bytes", "By", Sum, true, "queue_bytes_total"),
            ("system.cpu.utilization", "1", Gauge, false, "system_cpu_utilization_ratio"),
            ("disk.read", "By/s", Gauge, false, "disk_read_bytes_per_second"),
            ("3d.render.time", "ms", Gauge, false, "_3d_render_time_milliseconds"),
            ("jobs", "1/min", Gauge, false, "jobs_per_min"),
            ("x_per_second", "1/s", Gauge, false, "x_per_second_per_second"),
            ("speed", "furlongs/{fortnight}", Gauge, false, "speed_furlongs"),
            ("__a..b__", "", Gauge, false, "a_b"),
        ] {
            let desc = desc(otlp, unit, kind, monotonic);
            assert_eq!(name(Translation::default(), &desc).as_deref(), Some(expected));
        }
        assert_eq!(name(Translation::default(), &desc("...", "s", Gauge, false)), None);
    }

    #[test]
    fn other_strategies_keep_what_they_promise() {
        use MetricKind::{Gauge, Histogram, Sum};
        use Translation::{
            NoTranslation, NoUtf8EscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes,
        };
        for (otlp, unit, kind, monotonic, without, suffixed) in [
            (
                "http.server.request.duration",
                "s",
                Histogram,
                false,
                "http_server_request_duration",
                "http.server.request.duration_seconds",
            ),
            ("shop.orders", "{order}", Sum, true, "shop_orders", "shop.orders_total"),
            ("queue.total", "By", Sum, true, "queue_total", "queue_bytes_total"),
            ("cpu.ratio", "1", Gauge, false, "cpu_ratio", "cpu_ratio"),
            ("read.bytes", "By/s", Sum, true, "read_bytes", "read.bytes_per_second_total"),
            ("a__b..c", "", Gauge, false, "a__b_c", "a__b..c"),
            ("3d", "ms", Gauge, false, "_3d", "3d_milliseconds"),
        ] {
            let desc = desc(otlp, unit, kind, monotonic);
            let named = |translation| name(translation, &desc).unwrap();
            assert_eq!(named(UnderscoreEscapingWithoutSuffixes), without);
            assert_eq!(named(NoUtf8EscapingWithSuffixes), suffixed);
            assert_eq!(named(NoTranslation), otlp);
        }
        assert_eq!(name(UnderscoreEscapingWithoutSuffixes, &desc("...", "", Gauge, false)), None);
    }

    #[test]
    fn units_are_words() {
        for (unit, expected) in [
            ("s", "seconds"),
            ("By/s", "bytes_per_second"),
            ("1", ""),
            ("1/min", "per_min"),
            ("{request}", ""),
            ("{request}/s", "per_second"),
            ("§", ""),
        ] {
            assert_eq!(metric_unit(unit, Translation::default()), expected, "{unit}");
        }
    }
}
