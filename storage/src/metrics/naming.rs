//! OTLP metrics under their Prometheus names and labels, as Prometheus' own OTLP receiver gives them (translation
//! strategy "underscore escaping with suffixes").
//!
//! Source: prometheus/otlptranslator; OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility".

use super::batch::{MetricDesc, MetricKind};
use crate::attributes;
use crate::resource::Resource;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Settings of the translation.
#[derive(Debug, Clone)]
pub struct Naming {
    /// Resource attributes that every series carries as labels. `service.name` by default: without it nothing but
    /// `job` tells services apart, and `sum by (service_name)` is what people type.
    pub promoted: Vec<String>,
    /// Whether `otel_scope_name` and `otel_scope_version` become labels.
    pub scope_labels: bool,
}

impl Default for Naming {
    fn default() -> Self {
        Self { promoted: vec!["service.name".into()], scope_labels: false }
    }
}

/// The Prometheus name of a metric family; `None` when nothing of the name is left.
pub fn metric_name(desc: &MetricDesc) -> Option<String> {
    if desc.kind == MetricKind::Prometheus {
        return Some(desc.name.to_string());
    }
    let counter = desc.kind == MetricKind::Sum && desc.monotonic;
    let ratio = desc.kind == MetricKind::Gauge && &*desc.unit == "1";
    let mut tokens: Vec<String> = desc
        .name
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == ':'))
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect();
    if tokens.is_empty() {
        return None;
    }
    let (main, per) = unit_words(&desc.unit);
    for word in [main, per.map(|per| format!("per_{per}"))].into_iter().flatten() {
        if !word.is_empty() && !tokens.contains(&word) {
            tokens.push(word);
        }
    }
    if counter {
        tokens.retain(|token| token != "total");
        tokens.push("total".into());
    }
    if ratio {
        tokens.retain(|token| token != "ratio");
        tokens.push("ratio".into());
    }
    let name = tokens.join("_");
    Some(if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name })
}

/// The unit as metadata shows it.
pub fn metric_unit(unit: &str) -> String {
    let (main, per) = unit_words(unit);
    match (main, per) {
        (Some(main), Some(per)) => format!("{main}_per_{per}"),
        (Some(main), None) => main,
        (None, Some(per)) => format!("per_{per}"),
        (None, None) => String::new(),
    }
}

/// Main and per unit as words; parts in braces count for nothing.
fn unit_words(unit: &str) -> (Option<String>, Option<String>) {
    let (main, per) = match unit.split_once('/') {
        Some((main, per)) => (main, Some(per)),
        None => (unit, None),
    };
    let usable = |part: &str| !part.is_empty() && !part.contains(['{', '}']);
    let main = Some(main.trim()).filter(|part| usable(part)).map(main_unit);
    let per = per.map(str::trim).filter(|part| usable(part)).map(per_unit);
    (main.filter(|m| !m.is_empty()), per.filter(|p| !p.is_empty()))
}

fn main_unit(unit: &str) -> String {
    let known = match unit {
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
        other => return clean_unit(other),
    };
    known.to_owned()
}

fn per_unit(unit: &str) -> String {
    let known = match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => return clean_unit(other),
    };
    known.to_owned()
}

fn clean_unit(unit: &str) -> String {
    let tokens: Vec<&str> = unit
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == ':'))
        .filter(|token| !token.is_empty())
        .collect();
    tokens.join("_")
}

/// The Prometheus label name of an attribute key; `None` when it must be dropped.
pub fn label_name(key: &str) -> Option<Cow<'_, str>> {
    if key.is_empty() || key.chars().all(|c| c == '_') {
        return None;
    }
    let clean = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let name: Cow<'_, str> = if clean {
        key.into()
    } else {
        key.chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect::<String>()
            .into()
    };
    if name.bytes().all(|b| b == b'_') {
        return None;
    }
    Some(if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("key_{name}").into()
    } else if name.starts_with('_') && !name.starts_with("__") {
        format!("key{name}").into()
    } else {
        name
    })
}

/// `service.namespace/service.name`, or the name alone.
pub fn job(resource: &Resource) -> Option<String> {
    let name = text(resource, "service.name")?;
    Some(match text(resource, "service.namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    })
}

/// `service.instance.id`.
pub fn instance(resource: &Resource) -> Option<String> {
    text(resource, "service.instance.id")
}

fn text(resource: &Resource, key: &str) -> Option<String> {
    let text = attributes::get(&resource.attributes, key)?.to_text().into_owned();
    (!text.is_empty()).then_some(text)
}

/// Labels of a series, the name left out, sorted by label name.
///
/// * `list`: the point's canonical attributes; the labels themselves for a `Prometheus` series.
pub fn labels(desc: &MetricDesc, list: &[u8], naming: &Naming) -> Vec<(Arc<str>, Arc<str>)> {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    if desc.kind == MetricKind::Prometheus {
        for (key, value) in attributes::iter(list) {
            if key != "__name__" {
                labels.insert(key.to_owned(), value.to_text().into_owned());
            }
        }
        return share(labels);
    }
    for key in &naming.promoted {
        if let Some(value) = text(&desc.resource, key)
            && let Some(name) = label_name(key)
        {
            labels.insert(name.into_owned(), value);
        }
    }
    if naming.scope_labels {
        labels.insert("otel_scope_name".into(), desc.scope.name.to_string());
        labels.insert("otel_scope_version".into(), desc.scope.version.to_string());
    }
    labels.extend(attribute_labels(list));
    if let Some(job) = job(&desc.resource) {
        labels.insert("job".into(), job);
    }
    if let Some(instance) = instance(&desc.resource) {
        labels.insert("instance".into(), instance);
    }
    labels.retain(|_, value| !value.is_empty());
    share(labels)
}

/// Labels of `target_info` for a resource; `None` when job and instance, or everything else, is missing.
pub fn target_info(resource: &Resource) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let (job, instance) = (job(resource), instance(resource));
    if job.is_none() && instance.is_none() {
        return None;
    }
    let mut labels = attribute_labels(&resource.attributes);
    for key in ["service_name", "service_namespace", "service_instance_id"] {
        labels.remove(key);
    }
    labels.retain(|_, value| !value.is_empty());
    if labels.is_empty() {
        return None;
    }
    labels.extend(job.map(|job| ("job".to_owned(), job)));
    labels.extend(instance.map(|instance| ("instance".to_owned(), instance)));
    Some(share(labels))
}

/// Attributes as labels. Names that become the same are joined by `;` in the order of the original keys.
fn attribute_labels(list: &[u8]) -> BTreeMap<String, String> {
    let mut pairs: Vec<(&str, String)> = attributes::iter(list)
        .filter(|(key, _)| *key != "__name__")
        .map(|(key, value)| (key, value.to_text().into_owned()))
        .collect();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    // Of one key sent twice the last value counts; only different keys are joined.
    pairs.reverse();
    pairs.dedup_by(|a, b| a.0 == b.0);
    pairs.reverse();
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in pairs {
        let Some(name) = label_name(key) else { continue };
        labels
            .entry(name.into_owned())
            .and_modify(|joined| {
                joined.push(';');
                joined.push_str(&value);
            })
            .or_insert(value);
    }
    labels
}

fn share(labels: BTreeMap<String, String>) -> Vec<(Arc<str>, Arc<str>)> {
    labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// A bucket bound or quantile as a label value: the shortest decimal, as Prometheus' OTLP receiver writes it.
pub fn float_label(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else {
        let magnitude = value.abs();
        if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
            // Go writes at least two exponent digits.
            let text = format!("{value:e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ("-", digits),
                None => ("+", exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        } else {
            format!("{value}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{Value, put_attribute};
    use crate::resource::Scope;

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

    #[test]
    fn names_are_those_of_prometheus_otlp_receiver() {
        use MetricKind::{Gauge, Histogram, Sum};
        for (name, unit, kind, monotonic, expected) in [
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
        ] {
            assert_eq!(metric_name(&desc(name, unit, kind, monotonic)).as_deref(), Some(expected));
        }
        assert_eq!(metric_name(&desc("...", "s", Gauge, false)), None);
    }

    #[test]
    fn label_names_follow_the_worked_examples() {
        for (key, expected) in [
            ("http.request.method", Some("http_request_method")),
            ("_x", Some("key_x")),
            ("1st", Some("key_1st")),
            ("a--b", Some("a__b")),
            ("__", None),
            ("..", None),
            ("", None),
        ] {
            assert_eq!(label_name(key).as_deref(), expected, "{key}");
        }
    }

    #[test]
    fn colliding_labels_are_joined_in_key_order() {
        let mut list = Vec::new();
        put_attribute(&mut list, "a.b", Value::Int(1));
        put_attribute(&mut list, "a-b", Value::Int(2));
        put_attribute(&mut list, "twice", Value::Int(1));
        put_attribute(&mut list, "twice", Value::Int(2));
        let labels = attribute_labels(&list);
        assert_eq!(labels["a_b"], "2;1");
        assert_eq!(labels["twice"], "2");
    }

    #[test]
    fn bounds_are_shortest_decimals() {
        for (value, expected) in [
            (1.0, "1"),
            (0.005, "0.005"),
            (1e-7, "1e-07"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(float_label(value), expected);
        }
    }
}
