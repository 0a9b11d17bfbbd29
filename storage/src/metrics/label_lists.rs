//! Label names and values of all series, without making their label sets.

use super::batch::MetricKind;
use super::gather::Gathering;
use super::index::is_derived;
use super::replicas::INSTANCE;
use super::select::range_ns;
use super::series::SeriesMeta;
use super::shown::Judge;
use super::store::MetricStore;
use crate::meter::Meter;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Series that are looked at between two looks at the meter.
const PER_CHECK: u32 = 4096;

impl MetricStore {
    /// Names of the labels of all series that may have a sample in the range; `None` when only their label sets tell,
    /// as with summaries and with replicas that name no instance.
    ///
    /// # Errors
    /// Of reading, or the meter's.
    pub fn label_names(
        &self,
        start_ms: i64,
        end_ms: i64,
        meter: &dyn Meter,
    ) -> io::Result<Option<BTreeSet<Arc<str>>>> {
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut told = true;
        self.each_shown(start_ms, end_ms, meter, &mut |meta| {
            told &= !meta.nameless && meta.metric.kind != MetricKind::Summary;
            let derived = (meta.metric.kind == MetricKind::Histogram).then_some("le");
            for name in ["__name__"].into_iter().chain(derived) {
                if !names.contains(name) {
                    names.insert(name.into());
                }
            }
            for (name, _) in &meta.labels {
                if !names.contains(name) {
                    names.insert(name.clone());
                }
            }
        })?;
        let mut out = Gathering::new(meter);
        self.target_info(&[], start_ms, end_ms, &mut out)?;
        let of_targets =
            out.all.series.into_iter().flat_map(|series| Arc::unwrap_or_clone(series.labels));
        names.extend(of_targets.map(|(name, _)| name));
        Ok(told.then_some(names))
    }

    /// Values of a label in all series that may have a sample in the range; `None` when only their label sets tell.
    ///
    /// # Errors
    /// Of reading, or the meter's.
    pub fn label_values(
        &self,
        name: &str,
        start_ms: i64,
        end_ms: i64,
        meter: &dyn Meter,
    ) -> io::Result<Option<BTreeSet<Arc<str>>>> {
        if is_derived(name) {
            return Ok(None);
        }
        let mut values: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut told = true;
        let mut judge = Judge::new(&[]);
        let mut add = |value: &Arc<str>| {
            if !values.contains(value) {
                values.insert(value.clone());
            }
        };
        self.each_shown(start_ms, end_ms, meter, &mut |meta| {
            told &= !meta.nameless || name != INSTANCE;
            if name == "__name__" {
                judge.names(meta).iter().for_each(|shown| add(shown.name.value()));
            } else if let Ok(at) = meta.labels.binary_search_by(|(label, _)| (**label).cmp(name)) {
                add(&meta.labels[at].1);
            }
        })?;
        let mut out = Gathering::new(meter);
        self.target_info(&[], start_ms, end_ms, &mut out)?;
        let of_targets =
            out.all.series.into_iter().flat_map(|series| Arc::unwrap_or_clone(series.labels));
        values.extend(of_targets.filter(|(label, _)| **label == *name).map(|(_, value)| value));
        Ok(told.then_some(values))
    }

    /// Calls `visit` with the series that show under a name and may have a sample in the range.
    fn each_shown(
        &self,
        start_ms: i64,
        end_ms: i64,
        meter: &dyn Meter,
        visit: &mut dyn FnMut(&SeriesMeta),
    ) -> io::Result<()> {
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        let mut visited = 0u32;
        self.visit_metas(start_ns, end_ns, &mut |meta, min_ns, max_ns| {
            visited += 1;
            if visited.is_multiple_of(PER_CHECK) {
                meter.check()?;
            }
            if min_ns <= end_ns && max_ns >= start_ns && !meta.family.is_empty() {
                visit(meta);
            }
            Ok(())
        })
    }
}
