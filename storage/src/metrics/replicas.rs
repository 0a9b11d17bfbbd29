//! Replicas that name no instance: kept apart where Prometheus would mix them into one series.
//!
//! OTLP resources without `service.instance.id` have no `instance` label. When several of them send the same series at
//! the same time, their samples in one series would turn every rate to noise. Then, and only then, `instance` is filled
//! from what else tells them apart. One after the other, as after a restart, they stay one series.

use super::select::LabelMatcher;
use crate::attributes;
use crate::resource::Resource;
use std::sync::Arc;

pub(super) const INSTANCE: &str = "instance";

/// Attributes that stand in for `service.instance.id`, the best first.
const STAND_INS: [&str; 3] = ["k8s.pod.name", "container.id", "host.name"];

/// Who sent a series that has no `instance`, and when.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub resource: Arc<Resource>,
    /// Unix ns, both included.
    pub first_ns: u64,
    pub last_ns: u64,
}

impl Origin {
    /// It also sent between these times.
    pub(super) fn saw(&mut self, first_ns: u64, last_ns: u64) {
        self.first_ns = self.first_ns.min(first_ns);
        self.last_ns = self.last_ns.max(last_ns);
    }

    fn instance(&self) -> String {
        let text = |key: &&str| {
            let text = attributes::get(&self.resource.attributes, key)?.to_text().into_owned();
            (!text.is_empty()).then_some(text)
        };
        STAND_INS.iter().find_map(text).unwrap_or_else(|| self.number())
    }

    /// A short name that no other resource has.
    fn number(&self) -> String {
        format!("{:08x}", (self.resource.id >> 96) as u32)
    }
}

/// The `instance` of each origin of one series; `None` when no two of them sent at the same time.
pub(super) fn instances(origins: &[&Origin]) -> Option<Vec<String>> {
    let mut times: Vec<(u64, u64)> = origins.iter().map(|o| (o.first_ns, o.last_ns)).collect();
    times.sort_unstable();
    let mut until_ns: Option<u64> = None;
    let together = times.into_iter().any(|(first_ns, last_ns)| {
        let overlaps = until_ns.is_some_and(|until_ns| first_ns <= until_ns);
        until_ns = until_ns.max(Some(last_ns));
        overlaps
    });
    together.then(|| {
        let names: Vec<String> = origins.iter().map(|origin| origin.instance()).collect();
        let shared = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
        let both = origins.iter().zip(&names);
        both.map(|(origin, name)| match shared(name) {
            true => format!("{name}/{}", origin.number()),
            false => name.clone(),
        })
        .collect()
    })
}

/// The matchers that decide before replicas are told apart.
pub(super) fn without_instance<'a>(matchers: &[&'a dyn LabelMatcher]) -> Vec<&'a dyn LabelMatcher> {
    matchers.iter().copied().filter(|matcher| matcher.name() != INSTANCE).collect()
}

/// Whether matchers on `instance` let a value pass; the empty one stands for none.
pub(super) fn instance_passes(matchers: &[&dyn LabelMatcher], instance: &str) -> bool {
    matchers.iter().filter(|m| m.name() == INSTANCE).all(|m| m.matches(instance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{Value, put_attribute};

    fn origin(pairs: &[(&str, &str)], first_ns: u64, last_ns: u64) -> Origin {
        let mut list = Vec::new();
        for (key, value) in pairs {
            put_attribute(&mut list, key, Value::Str(value));
        }
        Origin { resource: Arc::new(Resource::new(&list, "", 0)), first_ns, last_ns }
    }

    #[test]
    fn replicas_have_an_instance_while_they_overlap() {
        let a = origin(&[("host.name", "a")], 0, 10);
        let b = origin(&[("host.name", "b"), ("k8s.pod.name", "pod-b")], 10, 20);
        let c = origin(&[("host.name", "c")], 21, 30);
        let names = |origins: &[&Origin]| instances(origins);
        assert_eq!(names(&[&a, &c]), None, "one after the other");
        assert_eq!(names(&[&a]), None);
        assert_eq!(names(&[&c, &a, &b]).unwrap(), ["c", "a", "pod-b"]);
    }

    #[test]
    fn two_on_one_host_or_without_any_hint_are_told_apart_too() {
        let on_host = |pid: &str| origin(&[("host.name", "h"), ("process.pid", pid)], 0, 10);
        let names = instances(&[&on_host("1"), &on_host("2")]).unwrap();
        assert!(names[0] != names[1] && names.iter().all(|name| name.starts_with("h/")));
        let names = instances(&[&origin(&[("a", "1")], 0, 1), &origin(&[], 0, 1)]).unwrap();
        assert!(names[0] != names[1] && names.iter().all(|name| name.len() == 8), "{names:?}");
    }
}
