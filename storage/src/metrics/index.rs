//! The inverted index of a set of series: label → value → series.

use super::replicas::INSTANCE;
use super::series::SeriesMeta;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::select::LabelMatcher;

/// Labels that histograms and summaries get only when they are shown, so the index knows nothing of them.
pub(super) fn is_derived(label: &str) -> bool {
    label == "le" || label == "quantile"
}

/// Series numbers by label and value. Names are indexed as they show (`x_bucket`, `x_count`, …).
#[derive(Debug, Default)]
pub struct LabelIndex {
    postings: FxHashMap<Arc<str>, BTreeMap<Arc<str>, Vec<u32>>>,
    /// Series whose `instance` is not known before all that pass are seen.
    nameless: Vec<u32>,
    len: u32,
}

impl LabelIndex {
    /// Adds the next series; numbers count up from 0.
    pub fn push(&mut self, meta: &SeriesMeta) {
        let number = self.len;
        self.len += 1;
        for (name, _) in meta.names() {
            self.add("__name__".into(), name.into(), number);
        }
        for (name, value) in &meta.labels {
            self.add(name.clone(), value.clone(), number);
        }
        if meta.nameless {
            self.nameless.push(number);
        }
    }

    fn add(&mut self, name: Arc<str>, value: Arc<str>, number: u32) {
        self.postings.entry(name).or_default().entry(value).or_default().push(number);
    }

    /// Heap bytes, an estimate; texts are shared with the series.
    pub(super) fn heap_bytes(&self) -> usize {
        let value_bytes = |(_, numbers): (_, &Vec<u32>)| 64 + numbers.capacity() * size_of::<u32>();
        self.postings.values().flat_map(|values| values.iter().map(value_bytes)).sum()
    }

    /// Numbers of series that may pass all matchers, ascending. Matchers on derived labels are left to the caller.
    pub fn find(&self, matchers: &[&dyn LabelMatcher]) -> Vec<u32> {
        let mut found: Option<Vec<u32>> = None;
        for matcher in matchers.iter().filter(|m| !is_derived(m.name()) && !m.matches("")) {
            let mut numbers: Vec<u32> = Vec::new();
            if matcher.name() == INSTANCE {
                numbers.extend(&self.nameless);
            }
            let values = self.postings.get(matcher.name());
            match matcher.literals() {
                Some(literals) => {
                    let with = |literal: &String| values?.get(literal.as_str());
                    numbers.extend(literals.iter().filter_map(with).flatten());
                }
                None => {
                    for (value, with_it) in values.into_iter().flatten() {
                        if matcher.matches(value) {
                            numbers.extend(with_it);
                        }
                    }
                }
            }
            numbers.sort_unstable();
            numbers.dedup();
            found = Some(match found {
                None => numbers,
                Some(before) => intersect(&before, &numbers),
            });
            if found.as_ref().is_some_and(Vec::is_empty) {
                return Vec::new();
            }
        }
        let mut found = found.unwrap_or_else(|| (0..self.len).collect());
        // Matchers that let a missing label pass can only take away.
        for matcher in matchers.iter().filter(|m| !is_derived(m.name()) && m.matches("")) {
            let Some(values) = self.postings.get(matcher.name()) else { continue };
            let name = matcher.name() == "__name__";
            let mut refused: Vec<u32> = values
                .iter()
                .filter(|(value, _)| !matcher.matches(value))
                .flat_map(|(_, numbers)| numbers.iter().copied())
                .collect();
            // A histogram shows under several names: it is out only when the caller has seen them all.
            if name {
                continue;
            }
            refused.sort_unstable();
            refused.dedup();
            found.retain(|number| refused.binary_search(number).is_err());
        }
        found
    }

    /// The values of a label, if there are so many that a slow pattern takes a while to try them all.
    pub(super) fn many_values(&self, name: &str) -> Vec<Arc<str>> {
        const FEW: usize = 256;
        let values = self.postings.get(name).filter(|values| values.len() > FEW);
        values.into_iter().flat_map(|values| values.keys().cloned()).collect()
    }
}

fn intersect(a: &[u32], b: &[u32]) -> Vec<u32> {
    let (small, large) = if a.len() < b.len() { (a, b) } else { (b, a) };
    small.iter().copied().filter(|n| large.binary_search(n).is_ok()).collect()
}
