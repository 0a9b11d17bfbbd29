//! What the server has: metrics with their metadata, labels and label values. Asked for when it is needed.

use super::seconds;
use crate::client::{Load, get, load};
use crate::url::encode;
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use ui_core::promql::answer::{ListAnswer, Metadata, MetadataAnswer};
use ui_core::time::Range;

/// Label values fetched at most; the server gives the first ones.
const VALUES_MAX: usize = 2_000;

#[derive(Clone, Copy)]
pub struct Known {
    range: Memo<Range>,
    names: RwSignal<Load<ListAnswer>>,
    metadata: RwSignal<Load<MetadataAnswer>>,
    /// Answers by address; `None` while one is on its way.
    lists: RwSignal<HashMap<String, Option<Arc<Vec<String>>>>>,
}

/// A family of metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    pub metadata: Metadata,
    /// A histogram whose samples are whole histograms, with no series for each bucket.
    pub native: bool,
}

impl Known {
    pub fn load(range: Memo<Range>) -> Self {
        let asked = move |path: &str| {
            let range = range.get();
            let (start, end) = seconds(&range);
            format!("{path}?{}&_=&start={start}&end={end}", super::asked(&range))
        };
        Self {
            range,
            names: load(move || asked("/prometheus/api/v1/label/__name__/values")),
            metadata: load(|| "/prometheus/api/v1/metadata".to_owned()),
            lists: RwSignal::new(HashMap::new()),
        }
    }

    /// Names of all series in the range.
    pub fn names(self) -> Vec<String> {
        self.names.with(|names| match names {
            Load::Ready(names) => names.data.clone(),
            _ => Vec::new(),
        })
    }

    /// Type, unit and description of the family that a series' name belongs to.
    pub fn metadata(self, name: &str) -> Option<Metadata> {
        self.metadata.with(|all| {
            let Load::Ready(all) = all else { return None };
            let family = ["", "_bucket", "_count", "_sum"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find_map(|family| all.data.get(family))?;
            family.last().cloned()
        })
    }

    /// All families that have series in the range, with those of unknown type.
    pub fn families(self) -> Load<Vec<Family>> {
        let names = match self.names.get() {
            Load::Ready(names) => names.data,
            Load::Failed(message) => return Load::Failed(message),
            Load::Loading => return Load::Loading,
        };
        let metadata = match self.metadata.get() {
            Load::Ready(metadata) => metadata.data,
            // Without them the names are still worth something.
            Load::Failed(_) => BTreeMap::new(),
            Load::Loading => return Load::Loading,
        };
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        for name in &names {
            let family = ["", "_bucket", "_count", "_sum"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|family| metadata.contains_key(*family))
                .unwrap_or(name);
            families.entry(family.to_owned()).or_insert_with(|| Family {
                name: family.to_owned(),
                metadata: metadata
                    .get(family)
                    .and_then(|all| all.last().cloned())
                    .unwrap_or_default(),
                native: names.binary_search(&format!("{family}_bucket")).is_err(),
            });
        }
        Load::Ready(families.into_values().collect())
    }

    /// Label names of a metric, or of all.
    pub fn labels(self, metric: Option<&str>) -> Arc<Vec<String>> {
        self.list("/prometheus/api/v1/labels", metric)
    }

    /// Values of a label on a metric, or on all.
    pub fn values(self, label: &str, metric: Option<&str>) -> Arc<Vec<String>> {
        self.list(&format!("/prometheus/api/v1/label/{}/values", encode(label)), metric)
    }

    /// Empty until the answer is there; whoever reads it in a reactive place is told then.
    fn list(self, path: &str, metric: Option<&str>) -> Arc<Vec<String>> {
        let (start, end) = self.range.with_untracked(seconds);
        // Whole minutes, so that the answer serves for a while.
        let (start, end) = (start / 60 * 60, end.div_ceil(60) * 60);
        let of = metric.map(|metric| format!("&match[]={}", encode(metric))).unwrap_or_default();
        let path = format!("{path}?start={start}&end={end}&limit={VALUES_MAX}{of}");
        if let Some(known) = self.lists.with(|lists| lists.get(&path).cloned()) {
            return known.unwrap_or_default();
        }
        let lists = self.lists;
        spawn_local(async move {
            // One place may ask twice before it is told: the first request counts.
            if lists.try_with_untracked(|lists| lists.contains_key(&path)) != Some(false) {
                return;
            }
            lists.update_untracked(|lists| {
                lists.insert(path.clone(), None);
            });
            // What can't be completed can still be typed.
            let answer = get::<ListAnswer>(&path).await.unwrap_or_default();
            if !lists.is_disposed() {
                lists.update(|lists| {
                    lists.insert(path, Some(Arc::new(answer.data)));
                });
            }
        });
        Arc::default()
    }
}
