//! Series that are in memory anywhere: the hot table, the one being sealed and the tables of segments share what never
//! changes about them, which is most of what a series takes.

use super::series::SeriesMeta;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::{Arc, Weak};

/// Fewer are not looked through for those that are gone.
const SWEEP_MIN: usize = 4096;

/// Series by their ids.
#[derive(Debug, Default)]
pub(super) struct KnownSeries(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_id: FxHashMap<u128, Weak<SeriesMeta>>,
    /// So many were left when those that are gone were last removed.
    swept: usize,
}

impl KnownSeries {
    /// A series in memory. Its metric's description, which is no part of its identity, must be the same too.
    pub fn get(&self, id: u128, description: &str) -> Option<Arc<SeriesMeta>> {
        let meta = self.0.lock().by_id.get(&id)?.upgrade()?;
        (*meta.metric.description == *description).then_some(meta)
    }

    /// Remembers a series for as long as somebody has it.
    pub fn add(&self, meta: SeriesMeta) -> Arc<SeriesMeta> {
        let meta = Arc::new(meta);
        let Known { by_id, swept } = &mut *self.0.lock();
        if by_id.len() >= (*swept * 2).max(SWEEP_MIN) {
            by_id.retain(|_, meta| meta.strong_count() > 0);
            *swept = by_id.len();
        }
        by_id.insert(meta.id, Arc::downgrade(&meta));
        meta
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{MetricDesc, MetricKind};
    use super::super::naming::Naming;
    use super::*;
    use crate::resource::{Resource, Scope};

    fn series(id: u128, description: &str) -> SeriesMeta {
        let metric = MetricDesc {
            name: "requests".into(),
            description: description.into(),
            unit: "1".into(),
            kind: MetricKind::Gauge,
            temporality: 0,
            monotonic: false,
            resource: Arc::new(Resource::new(&[], "", 0)),
            scope: Arc::new(Scope::new("", "", &[], "", 0)),
        };
        SeriesMeta::new(id, Arc::new(metric), &[], &Naming::default())
    }

    #[test]
    fn a_series_is_known_while_somebody_has_it_and_its_description_stays() {
        let known = KnownSeries::default();
        assert!(known.get(1, "of a kind").is_none());
        let first = known.add(series(1, "of a kind"));
        assert!(Arc::ptr_eq(&known.get(1, "of a kind").unwrap(), &first));
        assert!(known.get(1, "of another").is_none());
        drop(first);
        assert!(known.get(1, "of a kind").is_none());
    }

    #[test]
    fn what_is_gone_takes_no_room() {
        let known = KnownSeries::default();
        let kept: Vec<_> = (0..10).map(|id| known.add(series(id, ""))).collect();
        (10..20_000).for_each(|id| drop(known.add(series(id, ""))));
        assert!(known.0.lock().by_id.len() <= SWEEP_MIN);
        assert!(kept.iter().all(|meta| known.get(meta.id, "").is_some()));
    }
}
