//! OTLP metrics under their Prometheus names and labels, as Prometheus' own OTLP receiver gives them.
//!
//! Source: behaviour of prometheus/otlptranslator and of Prometheus' OTLP receiver; OpenTelemetry specification,
//! "Prometheus and OpenMetrics Compatibility".

use super::batch::{MetricDesc, MetricKind};
use super::names;
use crate::attributes;
use crate::resource::Resource;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Settings of the translation. The default is Prometheus' own: nothing of a resource or scope but `job` and
/// `instance`. They act when series are read, so a change shows in data already stored.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// How names are made.
    pub translation: Translation,
    /// Keys of resource attributes that every series carries as labels.
    pub promoted: Vec<String>,
    /// Whether every series carries all attributes of its resource.
    pub promote_all: bool,
    /// Whether `otel_scope_name`, `otel_scope_version`, `otel_scope_schema_url` and the scope's attributes become
    /// labels.
    pub scope_labels: bool,
    /// Whether `target_info` also shows the attributes that `job` and `instance` are made of.
    pub keep_identifying: bool,
}

/// How names become Prometheus names; called as in Prometheus' `otlp.translation_strategy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Translation {
    /// `http_server_request_duration_seconds`
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// `http_server_request_duration`
    UnderscoreEscapingWithoutSuffixes,
    /// `http.server.request.duration_seconds`
    NoUtf8EscapingWithSuffixes,
    /// `http.server.request.duration`
    NoTranslation,
}

impl Translation {
    const ALL: [Self; 4] = [
        Self::UnderscoreEscapingWithSuffixes,
        Self::UnderscoreEscapingWithoutSuffixes,
        Self::NoUtf8EscapingWithSuffixes,
        Self::NoTranslation,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::UnderscoreEscapingWithSuffixes => "UnderscoreEscapingWithSuffixes",
            Self::UnderscoreEscapingWithoutSuffixes => "UnderscoreEscapingWithoutSuffixes",
            Self::NoUtf8EscapingWithSuffixes => "NoUTF8EscapingWithSuffixes",
            Self::NoTranslation => "NoTranslation",
        }
    }

    /// Whether only letters, digits, `_` and, in metric names, `:` are left.
    pub(super) fn escapes(self) -> bool {
        matches!(
            self,
            Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes
        )
    }

    /// Whether units and `_total` are added.
    pub(super) fn suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUtf8EscapingWithSuffixes)
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Translation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("must be one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Attributes that `job` and `instance` are made of.
const IDENTIFYING: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];

impl Naming {
    /// The Prometheus name of a metric family; `None` when nothing of the name is left.
    pub fn metric_name(&self, desc: &MetricDesc) -> Option<String> {
        names::metric_name(desc, self.translation)
    }

    /// The unit as metadata shows it.
    pub fn metric_unit(&self, unit: &str) -> String {
        names::metric_unit(unit, self.translation)
    }

    fn label_name<'a>(&self, key: &'a str) -> Option<Cow<'a, str>> {
        let name = if self.translation.escapes() { label_name(key)? } else { key.into() };
        name.contains(|c| c != '_').then_some(name)
    }

    /// Labels of a series, the name left out, sorted by label name.
    ///
    /// * `list`: the point's canonical attributes; the labels themselves for a `Prometheus` series.
    pub fn labels(&self, desc: &MetricDesc, list: &[u8]) -> Vec<(Arc<str>, Arc<str>)> {
        if desc.kind == MetricKind::Prometheus {
            let pairs = attributes::iter(list).filter(|(key, _)| *key != "__name__");
            return share(
                pairs.map(|(key, value)| (key.to_owned(), value.to_text().into_owned())).collect(),
            );
        }
        let mut labels = self.attribute_labels(list, &[]);
        for (key, value) in attributes::iter(&desc.resource.attributes) {
            if (self.promote_all || self.promoted.iter().any(|promoted| promoted == key))
                && let Some(name) = self.label_name(key)
            {
                labels.entry(name.into_owned()).or_insert_with(|| value.to_text().into_owned());
            }
        }
        if self.scope_labels && !desc.scope.name.is_empty() {
            let scope = &desc.scope;
            labels.insert("otel_scope_name".into(), scope.name.to_string());
            labels.insert("otel_scope_version".into(), scope.version.to_string());
            labels.insert("otel_scope_schema_url".into(), scope.schema_url.to_string());
            for (key, value) in attributes::iter(&scope.attributes) {
                if let Some(name) = self.label_name(&format!("otel_scope_{key}")) {
                    labels.insert(name.into_owned(), value.to_text().into_owned());
                }
            }
        }
        identify(&mut labels, &desc.resource);
        labels.retain(|_, value| !value.is_empty());
        share(labels)
    }

    /// Labels of `target_info` for a resource; `None` when job and instance, or everything else, is missing.
    pub fn target_info(&self, resource: &Resource) -> Option<Vec<(Arc<str>, Arc<str>)>> {
        let others = attributes::iter(&resource.attributes);
        if others.filter(|(key, _)| !IDENTIFYING.contains(key)).count() == 0 {
            return None;
        }
        let left_out: &[&str] = if self.keep_identifying { &[] } else { &IDENTIFYING };
        let mut labels = self.attribute_labels(&resource.attributes, left_out);
        if !identify(&mut labels, resource) {
            return None;
        }
        labels.retain(|_, value| !value.is_empty());
        Some(share(labels))
    }

    /// Attributes as labels. Names that become the same are joined by `;` in the order of the original keys.
    fn attribute_labels(&self, list: &[u8], left_out: &[&str]) -> BTreeMap<String, String> {
        let mut pairs: Vec<(&str, String)> = attributes::iter(list)
            .filter(|(key, _)| *key != "__name__" && !left_out.contains(key))
            .map(|(key, value)| (key, value.to_text().into_owned()))
            .collect();
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        // Of one key sent twice the last value counts; only different keys are joined.
        pairs.reverse();
        pairs.dedup_by(|a, b| a.0 == b.0);
        pairs.reverse();
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in pairs {
            let Some(name) = self.label_name(key) else { continue };
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
}

/// Sets `job` (`service.namespace/service.name`, or the name alone) and `instance` (`service.instance.id`), which go
/// before attributes of these names. Returns whether there is either.
fn identify(labels: &mut BTreeMap<String, String>, resource: &Resource) -> bool {
    let text = |key: &str| {
        let text = attributes::get(&resource.attributes, key)?.to_text().into_owned();
        (!text.is_empty()).then_some(text)
    };
    let job = text("service.name").map(|name| match text("service.namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    });
    let instance = text("service.instance.id");
    let some = job.is_some() || instance.is_some();
    labels.extend(job.map(|job| ("job".to_owned(), job)));
    labels.extend(instance.map(|instance| ("instance".to_owned(), instance)));
    some
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

fn share(labels: BTreeMap<String, String>) -> Vec<(Arc<str>, Arc<str>)> {
    labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// A bucket bound or quantile as a label value: the shortest decimal without an exponent, as Prometheus' OTLP receiver
/// writes it.
pub fn float_label(value: f64) -> String {
    if value.is_infinite() {
        if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{Value, put_attribute};
    use crate::resource::Scope;

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

    fn list(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut list = Vec::new();
        for (key, value) in pairs {
            put_attribute(&mut list, key, Value::Str(value));
        }
        list
    }

    #[test]
    fn colliding_labels_are_joined_in_key_order() {
        let list = list(&[("a.b", "1"), ("a-b", "2"), ("twice", "1"), ("twice", "2")]);
        let labels = Naming::default().attribute_labels(&list, &[]);
        assert_eq!(labels["a_b"], "2;1");
        assert_eq!(labels["twice"], "2");
        let plain = Naming { translation: Translation::NoTranslation, ..Naming::default() };
        let labels = plain.attribute_labels(&list, &[]);
        assert_eq!((&*labels["a.b"], &*labels["a-b"]), ("1", "2"));
    }

    fn labels(naming: &Naming, attributes: &[(&str, &str)]) -> String {
        let resource = Resource::new(
            &list(&[
                ("service.name", "api"),
                ("service.namespace", "shop"),
                ("service.instance.id", "i-1"),
                ("host.name", "h"),
            ]),
            "",
            0,
        );
        let desc = MetricDesc {
            name: "m".into(),
            description: "".into(),
            unit: "".into(),
            kind: MetricKind::Gauge,
            temporality: 0,
            monotonic: false,
            resource: Arc::new(resource),
            scope: Arc::new(Scope::new("lib", "2", &list(&[("a.b", "c")]), "url", 0)),
        };
        show(naming.labels(&desc, &list(attributes)))
    }

    fn show(labels: Vec<(Arc<str>, Arc<str>)>) -> String {
        let pairs: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.join(" ")
    }

    #[test]
    fn a_resource_shows_as_job_and_instance_unless_more_is_promoted() {
        let plain = Naming::default();
        assert_eq!(
            labels(&plain, &[("job", "mine"), ("k.v", "1")]),
            "instance=i-1 job=shop/api k_v=1"
        );
        let promoted = Naming { promoted: vec!["host.name".into()], ..Naming::default() };
        assert_eq!(labels(&promoted, &[]), "host_name=h instance=i-1 job=shop/api");
        assert_eq!(
            labels(&promoted, &[("host.name", "of the point")]),
            "host_name=of the point instance=i-1 job=shop/api"
        );
        let all = Naming { promote_all: true, ..Naming::default() };
        assert_eq!(
            labels(&all, &[]),
            "host_name=h instance=i-1 job=shop/api service_instance_id=i-1 service_name=api service_namespace=shop"
        );
        let scope = Naming { scope_labels: true, ..Naming::default() };
        assert_eq!(
            labels(&scope, &[("otel_scope_name", "mine")]),
            "instance=i-1 job=shop/api otel_scope_a_b=c otel_scope_name=lib otel_scope_schema_url=url otel_scope_version=2"
        );
    }

    #[test]
    fn target_info_needs_an_identity_and_something_to_tell() {
        let plain = Naming::default();
        let info = |naming: &Naming, pairs: &[(&str, &str)]| {
            naming.target_info(&Resource::new(&list(pairs), "", 0)).map(show)
        };
        let whole = [("service.name", "api"), ("os.type", "linux")];
        assert_eq!(info(&plain, &whole).unwrap(), "job=api os_type=linux");
        assert_eq!(info(&plain, &whole[..1]), None);
        assert_eq!(info(&plain, &whole[1..]), None);
        let keep = Naming { keep_identifying: true, ..Naming::default() };
        assert_eq!(info(&keep, &whole).unwrap(), "job=api os_type=linux service_name=api");
        assert_eq!(info(&keep, &whole[..1]), None);
    }

    #[test]
    fn strategies_are_read_by_prometheus_names() {
        for one in Translation::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        assert!("Otherwise".parse::<Translation>().is_err());
    }

    #[test]
    fn bounds_are_shortest_decimals() {
        for (value, expected) in [
            (1.0, "1"),
            (0.005, "0.005"),
            (1e-7, "0.0000001"),
            (1e21, "1000000000000000000000"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(float_label(value), expected);
        }
    }
}
