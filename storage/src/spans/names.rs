//! Service and operation names, for pickers and completion.

use super::batch::SpanBatch;
use rustc_hash::{FxHashSet, FxHasher};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

/// Operations remembered per service; senders that put IDs into span names must not fill memory.
const OPERATIONS_MAX: usize = 5_000;

/// Hashes of names that are remembered as noted at most.
const NOTED_MAX: usize = 100_000;

/// Under this key a segment's footer has its names: a JSON object from service to a list of (operation, kind).
pub const NAMES_TEXT: &str = "trefoil.operations";

/// Operations, each a span name with a `SpanKind`, by service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<Arc<str>, BTreeSet<(Arc<str>, i32)>>);

impl Names {
    pub fn services(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// Operations of a service, sorted.
    pub fn operations(&self, service: &str) -> impl Iterator<Item = &(Arc<str>, i32)> {
        self.0.get(service).into_iter().flatten()
    }

    pub fn remove(&mut self, service: &str) {
        self.0.remove(service);
    }

    /// Whether nothing of `other` would be new.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(service, theirs)| {
            self.0
                .get(service)
                .is_some_and(|ours| ours.len() >= OPERATIONS_MAX || ours.is_superset(theirs))
        })
    }

    pub fn merge(&mut self, other: &Self) {
        for (service, theirs) in &other.0 {
            let ours = self.0.entry(service.clone()).or_default();
            for operation in theirs {
                if ours.len() >= OPERATIONS_MAX {
                    break;
                }
                ours.insert(operation.clone());
            }
        }
    }

    pub fn add(&mut self, service: &str, operation: &str, kind: i32) {
        let operations = self.0.entry(service.into()).or_default();
        if operations.len() < OPERATIONS_MAX {
            operations.insert((operation.into(), kind));
        }
    }

    /// The names in a batch that have not been noted yet.
    ///
    /// * `noted`: hashes of names, to which these are added.
    pub fn fresh(batch: &SpanBatch, noted: &mut FxHashSet<u64>) -> Self {
        if noted.len() > NOTED_MAX {
            noted.clear();
        }
        // Many rows have few distinct names: numbers first, then texts.
        let mut seen: FxHashSet<(u32, u32, i32)> = FxHashSet::default();
        let mut names = Self::default();
        for (row, name) in batch.rows.iter().zip(batch.name.codes()) {
            if !seen.insert((row.resource, *name, row.kind)) {
                continue;
            }
            let service = &*batch.resources[row.resource as usize].service_name;
            let operation = &*batch.name.values()[*name as usize];
            let mut hasher = FxHasher::default();
            (service, operation, row.kind).hash(&mut hasher);
            if noted.insert(hasher.finish()) {
                names.add(service, operation, row.kind);
            }
        }
        names
    }

    /// The text for a footer, see [`NAMES_TEXT`].
    pub fn to_text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The inverse of [`to_text`](Self::to_text); no names for a text that is none.
    pub fn from_text(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap_or_default())
    }
}
