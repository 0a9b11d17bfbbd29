//! Service and operation names, for pickers and completion.

use super::batch::SpanBatch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Operations remembered per service; senders that put IDs into span names must not fill memory.
const OPERATIONS_MAX: usize = 5_000;

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

    /// The names in a batch.
    pub fn of(batch: &SpanBatch) -> Self {
        // Neighbours mostly differ, but a request has few distinct ones: sort numbers, then look at texts.
        let mut seen: Vec<(u32, u32, i32)> = batch
            .rows
            .iter()
            .zip(batch.name.codes())
            .map(|(row, name)| (row.resource, *name, row.kind))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        let mut names = Self::default();
        for (resource, name, kind) in seen {
            let service = batch.resources[resource as usize].service_name.clone();
            let operations = names.0.entry(service).or_default();
            if operations.len() < OPERATIONS_MAX {
                operations.insert((batch.name.values()[name as usize].clone(), kind));
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
