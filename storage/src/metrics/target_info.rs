//! `target_info`: a series per resource that shows its attributes.

use super::derive::passes;
use super::gather::Gathering;
use super::replicas::{self, Origin};
use super::select::{Matchers, range_ns};
use super::series::Label;
use super::shown::{Extra, LabelSet, with_labels};
use super::store::MetricStore;
use crate::resource::Resource;
use rustc_hash::FxHashMap;
use std::io;
use std::sync::Arc;

/// Name of the series that carries resource attributes.
pub(super) const TARGET_INFO: &str = "target_info";

/// Distance of synthesised `target_info` samples, ns: less than half the usual lookback of five minutes.
const TARGET_INFO_STEP_NS: u64 = 60_000_000_000;

/// A resource and the times, Unix ns, between which it sent.
type Presence = (Arc<Resource>, Vec<(u64, u64)>);

impl MetricStore {
    /// One series per resource, present while the resource sends metrics.
    pub(super) fn target_info(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        out: &mut Gathering<'_>,
    ) -> io::Result<()> {
        let asked =
            matchers.iter().filter(|m| m.name() == "__name__").all(|m| m.matches(TARGET_INFO));
        if !asked {
            return Ok(());
        }
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        let mut resources: FxHashMap<u128, Presence> = FxHashMap::default();
        let mut visited = 0u32;
        self.visit_metas(start_ns, end_ns, &mut |meta, min_ns, max_ns| {
            visited += 1;
            if visited.is_multiple_of(4096) {
                out.meter.check()?;
            }
            let resource = &meta.metric.resource;
            let entry =
                resources.entry(resource.id).or_insert_with(|| (resource.clone(), Vec::new()));
            match entry.1.last_mut() {
                Some(last) if min_ns <= last.1 + TARGET_INFO_STEP_NS && max_ns >= last.0 => {
                    last.0 = last.0.min(min_ns);
                    last.1 = last.1.max(max_ns);
                }
                _ => entry.1.push((min_ns, max_ns)),
            }
            Ok(())
        })?;
        let found: Vec<(Vec<Label>, Presence)> = resources
            .into_values()
            .filter_map(|of_one| Some((self.naming.target_info(&of_one.0)?, of_one)))
            .collect();
        let name = Extra::name(TARGET_INFO);
        for (labels, (_, spans)) in told_apart(found) {
            let labels = with_labels(&labels, &name, None);
            if !passes(matchers, &labels) {
                continue;
            }
            let mut samples: u64 = 0;
            for (min_ns, max_ns) in &spans {
                let (from_ns, until_ns) = (start_ns.max(*min_ns), end_ns.min(*max_ns));
                samples += until_ns.saturating_sub(from_ns) / TARGET_INFO_STEP_NS + 2;
            }
            out.fresh += samples;
            out.metered()?;
            let at = out.place(LabelSet::new(labels));
            let mut times = Vec::new();
            for (min_ns, max_ns) in spans {
                // Steps count from where the resource began to send.
                let before = start_ns.saturating_sub(min_ns) / TARGET_INFO_STEP_NS;
                let mut time_ns = (min_ns + before * TARGET_INFO_STEP_NS).min(max_ns);
                while time_ns <= end_ns {
                    let time_ms = (time_ns / 1_000_000) as i64;
                    if time_ms >= start_ms && time_ms <= end_ms {
                        times.push(time_ms);
                    }
                    if time_ns >= max_ns {
                        break;
                    }
                    time_ns = time_ns.saturating_add(TARGET_INFO_STEP_NS).min(max_ns);
                }
            }
            let values = vec![1.0; times.len()];
            out.add(at, &Arc::new(times), values);
        }
        out.metered()
    }
}

/// Fills the `instance` of resources of one job that name none and sent at the same time: that of their series.
fn told_apart(mut found: Vec<(Vec<Label>, Presence)>) -> Vec<(Vec<Label>, Presence)> {
    let mut jobs: FxHashMap<Arc<str>, Vec<usize>> = FxHashMap::default();
    for (at, (labels, _)) in found.iter().enumerate() {
        let value = |label: &str| labels.iter().find(|(name, _)| **name == *label);
        if let (Some((_, job)), None) = (value("job"), value(replicas::INSTANCE)) {
            jobs.entry(job.clone()).or_default().push(at);
        }
    }
    for replicas_of_one in jobs.into_values().filter(|of_one| of_one.len() > 1) {
        let origins: Vec<Origin> = replicas_of_one
            .iter()
            .map(|at| {
                let (resource, spans) = &found[*at].1;
                let (first_ns, last_ns) = (
                    spans.iter().map(|span| span.0).min().unwrap_or(0),
                    spans.iter().map(|span| span.1).max().unwrap_or(0),
                );
                Origin { resource: resource.clone(), first_ns, last_ns }
            })
            .collect();
        let origins: Vec<&Origin> = origins.iter().collect();
        for (at, name) in
            replicas_of_one.iter().zip(replicas::instances(&origins).into_iter().flatten())
        {
            let labels = &mut found[*at].0;
            let place = labels.partition_point(|(label, _)| **label < *replicas::INSTANCE);
            labels.insert(place, (replicas::INSTANCE.into(), name.into()));
        }
    }
    found
}
