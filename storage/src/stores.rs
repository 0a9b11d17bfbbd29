//! The stores behind one write-ahead log, side by side.

use crate::metrics::MetricStore;
use crate::metrics::naming::Naming;
use crate::red::RedStore;
use crate::resource::Interner;
use crate::signal::{Batch, SignalStore, StoreSet};
use crate::spans::SpanStore;
use std::sync::Arc;

/// One store for each kind of segment.
pub struct Stores {
    pub spans: SpanStore,
    /// Fed from every span, before anything is sampled.
    pub red: RedStore,
    pub metrics: MetricStore,
}

impl Stores {
    /// * `interner`: shared with the decoder.
    pub fn new(interner: Arc<Interner>) -> Self {
        Self {
            spans: SpanStore::new(interner.clone()),
            red: RedStore::new(),
            metrics: MetricStore::new(interner, Naming::default()),
        }
    }
}

impl StoreSet for Stores {
    fn insert(&self, batch: Batch) {
        match batch {
            Batch::Spans(batch) => {
                self.red.observe(&batch);
                self.spans.insert(batch);
            }
            Batch::Metrics(batch) => self.metrics.insert(batch),
            Batch::Logs(_) => {}
        }
    }

    fn signals(&self) -> Vec<&dyn SignalStore> {
        vec![&self.spans, &self.red, &self.metrics]
    }
}
