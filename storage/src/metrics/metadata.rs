//! What is known of families and times without a selector.

use super::batch::{FamilyMetadata, MetricKind};
use super::store::{HotSeries, MetricStore};
use super::target_info::TARGET_INFO;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// A family's metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromMetadata {
    pub kind: String,
    pub unit: String,
    pub help: String,
}

impl MetricStore {
    /// Earliest and latest point, Unix ms, of sealed and hot points; `None` when there is none.
    pub fn time_bounds_ms(&self) -> Option<(i64, i64)> {
        let of_table = |series: &[HotSeries]| {
            let times = || series.iter().flat_map(|s| s.points.iter().map(|p| p.time_ns));
            Some((times().min()?, times().max()?))
        };
        let hot = self.with_hot(|table| of_table(&table.series));
        let (frozen, segments) = self.sealed();
        let sealed = segments.iter().map(|s| (s.meta.min_ns, s.meta.max_ns));
        let frozen = frozen.and_then(|table| of_table(&table.series));
        let (min_ns, max_ns) =
            sealed.chain(frozen).chain(hot).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        Some(((min_ns / 1_000_000) as i64, (max_ns / 1_000_000) as i64))
    }

    /// Metadata by family, the newest last.
    pub fn metadata(&self) -> io::Result<BTreeMap<String, BTreeSet<PromMetadata>>> {
        let mut families: BTreeMap<String, BTreeSet<PromMetadata>> = BTreeMap::new();
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let mut resources: BTreeSet<u128> = BTreeSet::new();
        let mut info = false;
        let mut add_sent = |sent: &BTreeMap<Arc<str>, FamilyMetadata>| {
            for (family, metadata) in sent {
                families.entry(family.to_string()).or_default().insert(PromMetadata {
                    kind: metadata.kind.to_string(),
                    unit: metadata.unit.to_string(),
                    help: metadata.help.to_string(),
                });
            }
        };
        self.with_hot(|table| add_sent(&table.families));
        let (frozen, segments) = self.sealed();
        for segment in &segments {
            add_sent(&segment.table()?.families);
        }
        if let Some(table) = frozen {
            add_sent(&table.families);
        }
        self.visit_metas(0, u64::MAX, &mut |meta, _, _| {
            // What came by remote write has no type of its own.
            if meta.metric.kind == MetricKind::Prometheus {
                return Ok(());
            }
            if meta.family.is_empty() || !seen.insert(Arc::as_ptr(&meta.metric) as usize) {
                return Ok(());
            }
            let resource = &meta.metric.resource;
            info = info
                || (resources.insert(resource.id) && self.naming.target_info(resource).is_some());
            families.entry(meta.family.to_string()).or_default().insert(PromMetadata {
                kind: meta.prometheus_type().to_owned(),
                unit: self.naming.metric_unit(&meta.metric.unit),
                help: meta.metric.description.to_string(),
            });
            Ok(())
        })?;
        if info {
            families.entry(TARGET_INFO.to_owned()).or_default().insert(PromMetadata {
                kind: "gauge".to_owned(),
                unit: String::new(),
                help: "Target metadata".to_owned(),
            });
        }
        Ok(families)
    }
}
