//! Label sets: the identity of a series.

use std::borrow::Borrow;
use std::cmp;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use rustc_hash::FxHasher;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";
/// The label that holds the metric type where type and unit labels are in use.
pub const METRIC_TYPE: &str = "__type__";
/// The label that holds the metric unit where type and unit labels are in use.
pub const METRIC_UNIT: &str = "__unit__";
/// The upper bound of a classic histogram bucket.
pub const BUCKET_LABEL: &str = "le";

/// A label set, sorted by label name, without empty values and without repeated names.
///
/// Clones share the strings, and the hash is computed once when it is first asked for, so label sets
/// are cheap as map keys. Order is Prometheus' order of series: pair by pair, then by length.
#[derive(Clone)]
pub struct Labels(Arc<Inner>);

struct Inner {
    /// 0 until somebody asks for it.
    hash: AtomicU64,
    pairs: Arc<Vec<Pair>>,
}

/// Name and value.
type Pair = (Arc<str>, Arc<str>);

static EMPTY: LazyLock<Labels> = LazyLock::new(|| Labels::from_sorted(Vec::new()));

impl Labels {
    /// The set without labels.
    pub fn empty() -> Self {
        EMPTY.clone()
    }

    /// Builds a set from pairs in any order. Empty values mean "absent" and are left out; of a
    /// repeated name the last pair wins.
    pub fn new<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// Builds a set from pairs that are sorted by name, unique and without empty values already.
    /// This is the cheap way in for stores that keep label sets in this form.
    pub fn from_sorted(pairs: Vec<(Arc<str>, Arc<str>)>) -> Self {
        Self::sharing(Arc::new(pairs))
    }

    /// The same for a store that keeps the list.
    pub fn sharing(pairs: Arc<Vec<(Arc<str>, Arc<str>)>>) -> Self {
        debug_assert!(pairs.windows(2).all(|w| w[0].0 < w[1].0), "labels must be sorted");
        debug_assert!(pairs.iter().all(|(_, v)| !v.is_empty()), "empty values mean absent");
        Labels(Arc::new(Inner { hash: AtomicU64::new(0), pairs }))
    }

    /// The value of a label, or `None` if the set has no such label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_shared(name).map(|v| &**v)
    }

    /// As [`get`](Self::get), but gives the shared string.
    pub fn get_shared(&self, name: &str) -> Option<&Arc<str>> {
        // Label sets hold about ten pairs: a scan beats a binary search over scattered strings.
        self.0.pairs.iter().find(|(n, _)| &**n == name).map(|(_, v)| v)
    }

    /// The metric name, or the empty string.
    pub fn name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// Whether the set has a label of this name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Name and value pairs, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.pairs.iter().map(|(n, v)| (&**n, &**v))
    }

    /// As [`iter`](Self::iter), but gives the shared strings.
    pub fn pairs(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0.pairs
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.0.pairs.len()
    }

    /// Whether the set holds no label.
    pub fn is_empty(&self) -> bool {
        self.0.pairs.is_empty()
    }

    /// The hash, computed once.
    pub fn hash_value(&self) -> u64 {
        let known = self.0.hash.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let hash = hash_of(self.pairs().iter().map(|(name, value)| (&**name, &**value)));
        self.0.hash.store(hash, Ordering::Relaxed);
        hash
    }

    /// The subset of labels whose name passes `keep`. Returns a clone if nothing is dropped.
    pub fn retain(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let mut kept = Vec::with_capacity(self.len());
        for (n, v) in self.pairs() {
            if keep(n) {
                kept.push((n.clone(), v.clone()));
            }
        }
        if kept.len() == self.len() { self.clone() } else { Self::from_sorted(kept) }
    }

    /// As [`retain`](Self::retain), but in place: costs next to nothing if there is no clone of this
    /// set.
    pub fn cut(&mut self, mut keep: impl FnMut(&str) -> bool) {
        if let Some(inner) = Arc::get_mut(&mut self.0)
            && let Some(pairs) = Arc::get_mut(&mut inner.pairs)
        {
            pairs.retain(|(name, _)| keep(name));
            *inner.hash.get_mut() = 0;
        } else {
            *self = self.retain(keep);
        }
    }

    /// A builder that starts from this set.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.0.pairs.to_vec() }
    }
}

/// The hash of pairs in the order of a label set; never 0.
pub(crate) fn hash_of<'l>(pairs: impl Iterator<Item = (&'l str, &'l str)>) -> u64 {
    let mut hasher = FxHasher::default();
    for (name, value) in pairs {
        name.hash(&mut hasher);
        value.hash(&mut hasher);
    }
    hasher.finish().max(1)
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.hash_value() == other.hash_value() && self.0.pairs == other.0.pairs)
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash_value());
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        // Label sets of one origin share most of their strings.
        let texts = |a: &Arc<str>, b: &Arc<str>| match Arc::ptr_eq(a, b) {
            true => cmp::Ordering::Equal,
            false => a.cmp(b),
        };
        for ((a_name, a_value), (b_name, b_value)) in self.pairs().iter().zip(other.pairs()) {
            let order = texts(a_name, b_name).then_with(|| texts(a_value, b_value));
            if order.is_ne() {
                return order;
            }
        }
        self.len().cmp(&other.len())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As Prometheus prints a label set in messages: `{a="1", b="2"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_plain_label_name(name) {
                f.write_str(name)?;
            } else {
                f.write_str(&crate::text::quote(name))?;
            }
            write!(f, "={}", crate::text::quote(value))?;
        }
        f.write_str("}")
    }
}

/// Whether a label name can stand without quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_plain_label_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// Whether a text can be a label name at all: it is not empty and was valid UTF-8 in the query (the
/// parser puts U+FFFD in place of what is not).
pub(crate) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\u{fffd}')
}

/// Whether a metric name can stand without quotes: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub fn is_plain_metric_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b':')
}

/// Changes label by label, giving a new [`Labels`].
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(Arc<str>, Arc<str>)>,
}

impl LabelsBuilder {
    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        match self.pairs.binary_search_by(|(n, _)| (**n).cmp(&*name)) {
            Ok(at) if value.is_empty() => {
                self.pairs.remove(at);
            }
            Ok(at) => self.pairs[at].1 = value,
            Err(_) if value.is_empty() => {}
            Err(at) => self.pairs.insert(at, (name, value)),
        }
        self
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        if let Ok(at) = self.pairs.binary_search_by(|(n, _)| (**n).cmp(name)) {
            self.pairs.remove(at);
        }
        self
    }

    /// The current value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| &**n == name).map(|(_, v)| v.borrow())
    }

    /// Keeps the labels whose name passes `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) -> &mut Self {
        self.pairs.retain(|(n, _)| keep(n));
        self
    }

    /// The finished set.
    pub fn build(self) -> Labels {
        Labels::from_sorted(self.pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_empty_values_are_absent() {
        let l = Labels::new([("b", "2"), ("a", "1"), ("c", "")]);
        assert_eq!(l.to_string(), r#"{a="1", b="2"}"#);
        assert_eq!(l.get("c"), None);
        assert_eq!(l, Labels::new([("a", "1"), ("b", "2")]));
    }

    #[test]
    fn label_sets_order_pair_by_pair() {
        let a = Labels::new([("a", "1")]);
        let ab = Labels::new([("a", "1"), ("b", "1")]);
        let b = Labels::new([("b", "1")]);
        assert!(Labels::empty() < a && a < ab && ab < b);
    }
}
