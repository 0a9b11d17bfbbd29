//! The stores behind one write-ahead log, side by side.

use crate::logs::LogStore;
use crate::metrics::MetricStore;
use crate::metrics::naming::Naming;
use crate::red::RedStore;
use crate::resource::Interner;
use crate::signal::{Batch, SignalStore, StoreSet};
use crate::spans::SpanStore;
use std::sync::Arc;

/// One store for each kind of segment.
#[derive(Debug)]
pub struct Stores {
    pub spans: Arc<SpanStore>,
    /// Fed from every span, before anything is sampled.
    pub red: Arc<RedStore>,
    pub logs: Arc<LogStore>,
    pub metrics: Arc<MetricStore>,
}

impl Stores {
    /// * `interner`: shared with the decoder, so that rows of one sender share one resource.
    /// * `naming`: how OTLP metrics show in PromQL.
    pub fn new(interner: Arc<Interner>, naming: Naming) -> Self {
        Self {
            spans: Arc::new(SpanStore::new(interner.clone())),
            red: Arc::new(RedStore::new()),
            logs: Arc::new(LogStore::new(interner.clone())),
            metrics: Arc::new(MetricStore::new(interner, naming)),
        }
    }
}

impl StoreSet for Stores {
    fn insert(&self, batch: Batch) {
        match batch {
            Batch::Spans(batch) => {
                // Figures first: what is shown of a trace must already be counted.
                self.red.observe(&batch);
                self.spans.insert(batch);
            }
            Batch::Logs(batch) => self.logs.insert(batch),
            Batch::Metrics(batch) => self.metrics.insert(batch),
        }
    }

    fn signals(&self) -> Vec<&dyn SignalStore> {
        vec![&*self.spans, &*self.red, &*self.logs, &*self.metrics]
    }
}
