//! Deletion of a service's data: everything that was acknowledged when it began.
//!
//! 1. Hot rows are sealed, so that all there is of the service is in segments.
//! 2. Every segment that names it is written anew without it, indexes too.
//! 3. What only older generations needed goes at once: dead files, the log with the requests, the window's answers.
//!
//! Files in `quarantine/` are as they were found; nothing can take rows out of them.

use crate::commit::Change;
use crate::segment::SegmentMeta;
use crate::signal::Signal;
use crate::store::{Inner, Store};
use crate::wal::writer::Order;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

/// Rows taken out, by signal.
pub type Deleted = BTreeMap<&'static str, u64>;

impl Store {
    /// Deletes all rows of a service from all stores, as of now. Queries that began before may fail. Blocks: it reads
    /// and writes every segment in which the service is.
    ///
    /// # Errors
    /// When the disk fails; what is deleted by then stays deleted, and the call may be repeated.
    pub fn delete_service(&self, service: &str) -> io::Result<Deleted> {
        let inner = &self.inner;
        inner.seal()?;
        let mut deleted: Deleted = Signal::ALL.iter().map(|signal| (signal.name(), 0)).collect();
        {
            let _maintaining = inner.maintaining.lock();
            let live = inner.manifest.lock().segments.clone();
            for meta in live {
                *deleted.entry(meta.signal.name()).or_default() +=
                    inner.take_out(&meta, service)?;
            }
        }
        for store in inner.stores.signals() {
            store.forget(service);
        }
        // The log's file may hold later requests too; after another cut, when it is no longer written, it can go.
        self.close_log_file();
        inner.seal_even_nothing()?;
        for _generation in 0..2 {
            inner.commit(&Change::MakeRoom { bytes: u64::MAX }, &inner.dir.job())?;
        }
        tracing::info!(service, ?deleted, "deleted all data of a service");
        Ok(deleted)
    }
}

impl Store {
    /// Requests from now on go to a new file of the log. Does nothing when the store is closing.
    fn close_log_file(&self) {
        let (done, closed) = mpsc::sync_channel(1);
        let sent = match self.queue.lock().as_ref() {
            Some(queue) => queue.send(Order::NewFile(done)).is_ok(),
            None => false,
        };
        if sent {
            let _ = closed.recv();
        }
    }
}

impl Inner {
    /// Writes a segment anew without a service; returns how many rows that were.
    fn take_out(&self, meta: &SegmentMeta, service: &str) -> io::Result<u64> {
        let store = self.store_of(meta)?;
        let job = self.dir.job();
        let anew = catch_unwind(AssertUnwindSafe(|| store.without(&job, meta, service)))
            .unwrap_or_else(|_| Err(io::Error::other("a store panicked while deleting")));
        let Some(added) = anew.inspect_err(|_| job.discard())? else { return Ok(0) };
        self.commit(&Change::Merge { added: &added, removed: std::slice::from_ref(meta) }, &job)?;
        let kept: u64 = added.iter().map(|meta| meta.rows).sum();
        Ok(meta.rows.saturating_sub(kept))
    }
}
