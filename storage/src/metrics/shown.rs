//! Under which names, and in which buckets, a series shows to a selector: judged once for all series alike.

use super::batch::MetricKind;
use super::index::is_derived;
use super::naming::float_label;
use super::select::Matchers;
use super::series::{Label, Part, SeriesMeta};
use rustc_hash::FxHashMap;
use std::sync::{Arc, LazyLock};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

static NAME: LazyLock<Arc<str>> = LazyLock::new(|| "__name__".into());
static LE: LazyLock<Arc<str>> = LazyLock::new(|| "le".into());
static QUANTILE: LazyLock<Arc<str>> = LazyLock::new(|| "quantile".into());

/// Hash of a label. That of a label set is the sum over its labels, so that it is known without their list.
fn hash_of((name, value): &Label) -> u64 {
    xxh3_64_with_seed(value.as_bytes(), xxh3_64(name.as_bytes()))
}

/// Hash of a label set.
pub(super) fn hash_of_all(labels: &[Label]) -> u64 {
    labels.iter().fold(0, |sum, label| sum.wrapping_add(hash_of(label)))
}

/// A label that a series has only as it shows.
#[derive(Debug, Clone)]
pub(super) struct Extra {
    label: Label,
    hash: u64,
}

impl Extra {
    fn new(label: &Arc<str>, value: &str) -> Self {
        let label = (label.clone(), value.into());
        Self { hash: hash_of(&label), label }
    }

    pub(super) fn value(&self) -> &Arc<str> {
        &self.label.1
    }

    /// `__name__`
    pub(super) fn name(name: &str) -> Self {
        Self::new(&NAME, name)
    }

    /// `le`
    pub(super) fn le(bound: f64) -> Self {
        Self::new(&LE, &float_label(bound))
    }

    /// `quantile`
    pub(super) fn quantile(quantile: f64) -> Self {
        Self::new(&QUANTILE, &float_label(quantile))
    }
}

/// A label set and its hash.
pub(super) struct LabelSet {
    pub labels: Vec<Label>,
    pub hash: u64,
}

impl LabelSet {
    /// Labels as they are, sorted.
    pub(super) fn new(labels: Vec<Label>) -> Self {
        Self { hash: hash_of_all(&labels), labels }
    }

    /// The labels of a series under a name and perhaps with a derived label, which goes before one of the sender's.
    pub(super) fn of(meta: &SeriesMeta, name: &Extra, derived: Option<&Extra>) -> Self {
        let labels = with_labels(&meta.labels, name, derived);
        let extra = derived.map_or(0, |derived| derived.hash);
        let hash = if labels.len() == meta.labels.len() + 1 + usize::from(derived.is_some()) {
            meta.labels_hash.wrapping_add(name.hash).wrapping_add(extra)
        } else {
            hash_of_all(&labels)
        };
        Self { labels, hash }
    }
}

/// Adds `__name__` and perhaps a derived label, keeping the order.
pub(super) fn with_labels(labels: &[Label], name: &Extra, derived: Option<&Extra>) -> Vec<Label> {
    let mut all: Vec<Label> = Vec::with_capacity(labels.len() + 1 + usize::from(derived.is_some()));
    let mut rest = labels;
    // `__name__` sorts before `le` and `quantile`.
    for Extra { label, .. } in [Some(name), derived].into_iter().flatten() {
        let before = rest.iter().take_while(|(key, _)| **key < *label.0).count();
        all.extend_from_slice(&rest[..before]);
        rest = &rest[before..];
        if rest.first().is_some_and(|(key, _)| *key == label.0) {
            rest = &rest[1..];
        }
        all.push(label.clone());
    }
    all.extend_from_slice(rest);
    all
}

/// A part of a series, and the name under which it shows.
#[derive(Debug)]
pub(super) struct Shown {
    pub name: Extra,
    pub part: Part,
}

/// Buckets of some bounds, +Inf the last.
#[derive(Debug)]
pub(super) struct Buckets {
    /// The label of each; `None` if the matchers on `le` refuse it.
    pub les: Vec<Option<Extra>>,
    /// Numbers of those that pass, in the order of their labels.
    pub order: Vec<usize>,
}

/// What the matchers of a selector make of names and buckets.
pub(super) struct Judge<'m> {
    matchers: &'m Matchers<'m>,
    names: FxHashMap<(Arc<str>, MetricKind), Arc<[Shown]>>,
    buckets: FxHashMap<Box<[u64]>, Arc<Buckets>>,
    /// Bounds hardly ever change from one histogram to the next.
    last: Option<(Arc<[f64]>, Arc<Buckets>)>,
}

impl<'m> Judge<'m> {
    pub(super) fn new(matchers: &'m Matchers<'m>) -> Self {
        Self { matchers, names: FxHashMap::default(), buckets: FxHashMap::default(), last: None }
    }

    /// Parts of a series whose name passes.
    pub(super) fn names(&mut self, meta: &SeriesMeta) -> Arc<[Shown]> {
        let matchers = self.matchers;
        let key = (meta.family.clone(), meta.metric.kind);
        let shown = self.names.entry(key).or_insert_with(|| {
            let passes = |name: &str| {
                matchers.iter().filter(|m| m.name() == "__name__").all(|m| m.matches(name))
            };
            let names = meta.names().into_iter().filter(|(name, _)| passes(name));
            names.map(|(name, part)| Shown { name: Extra::name(&name), part }).collect()
        });
        shown.clone()
    }

    /// Buckets of bounds, +Inf left out of these.
    pub(super) fn buckets(&mut self, bounds: &Arc<[f64]>) -> Arc<Buckets> {
        if let Some((known, buckets)) = &self.last
            && Arc::ptr_eq(known, bounds)
        {
            return buckets.clone();
        }
        let key: Box<[u64]> = bounds.iter().map(|bound| bound.to_bits()).collect();
        let matchers = self.matchers;
        let buckets = self.buckets.entry(key).or_insert_with(|| {
            let passes =
                |le: &str| matchers.iter().filter(|m| m.name() == "le").all(|m| m.matches(le));
            let all = bounds.iter().copied().chain([f64::INFINITY]).map(Extra::le);
            let les: Vec<Option<Extra>> = all.map(|le| passes(&le.label.1).then_some(le)).collect();
            let mut order: Vec<usize> = (0..les.len()).filter(|n| les[*n].is_some()).collect();
            // Stable: of two buckets with one label the later one counts.
            order.sort_by(|a, b| {
                let text = |n: &usize| les[*n].as_ref().map(|le| &le.label.1);
                text(a).cmp(&text(b))
            });
            Arc::new(Buckets { les, order })
        });
        let buckets = buckets.clone();
        self.last = Some((bounds.clone(), buckets.clone()));
        buckets
    }

    /// Whether the matchers on `quantile` let one pass.
    pub(super) fn quantile(&self, quantile: &Extra) -> bool {
        self.matchers
            .iter()
            .filter(|m| m.name() == &**QUANTILE)
            .all(|m| m.matches(&quantile.label.1))
    }
}

/// Whether the labels of a series pass but for those that only its parts have.
pub(super) fn base_passes(meta: &SeriesMeta, matchers: &Matchers<'_>) -> bool {
    matchers
        .iter()
        .filter(|m| m.name() != "__name__" && !is_derived(m.name()))
        .all(|m| m.matches(value_of(meta, m.name())))
}

/// Whether a part passes the matchers on `le` and `quantile`, but for the one of these that the part brings itself.
pub(super) fn part_passes(meta: &SeriesMeta, part: Part, matchers: &Matchers<'_>) -> bool {
    let own = match part {
        Part::Bucket => "le",
        Part::Quantile => "quantile",
        Part::Whole | Part::Count | Part::Sum => "",
    };
    matchers
        .iter()
        .filter(|m| is_derived(m.name()) && m.name() != own)
        .all(|m| m.matches(value_of(meta, m.name())))
}

fn value_of<'s>(meta: &'s SeriesMeta, label: &str) -> &'s str {
    let at = meta.labels.binary_search_by(|(name, _)| (**name).cmp(label));
    at.map_or("", |at| &meta.labels[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Vec<Label> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn names_and_bounds_take_their_place_among_the_labels() {
        let base = labels(&[("Upper", "1"), ("job", "j"), ("le", "mine"), ("zone", "z")]);
        let all = with_labels(&base, &Extra::name("x_bucket"), Some(&Extra::le(0.5)));
        let want =
            [("Upper", "1"), ("__name__", "x_bucket"), ("job", "j"), ("le", "0.5"), ("zone", "z")];
        assert_eq!(all, labels(&want));
        let plain = with_labels(&base, &Extra::name("x"), None);
        assert_eq!(plain.len(), 5);
        assert!(plain.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn the_hash_of_a_set_is_that_of_its_labels_in_any_order() {
        let one = labels(&[("a", "1"), ("b", "2")]);
        let other = labels(&[("b", "2"), ("a", "1")]);
        assert_eq!(hash_of_all(&one), hash_of_all(&other));
        assert_ne!(hash_of_all(&one), hash_of_all(&labels(&[("a", "2"), ("b", "1")])));
    }
}
