//! Sealing: hot rows become segments, and the log before them is no longer needed.
//!
//! 1. A cut goes through the applier's queue: between two frames every store sets its hot rows apart (*frozen*).
//! 2. Each store writes its frozen rows as segment files; they stay visible as rows.
//! 3. One manifest commit lists the segments and the cut's position; then the frozen rows are dropped.
//!
//! After a failure the same frozen rows are written again under the same cut, and only then is there another: rows
//! that came later are never taken for sealed. A cut that finds nothing freezes nothing, and what was written is
//! committed only if it is as many rows as the cut froze.

use crate::commit::Change;
use crate::compact::CALM;
use crate::segment::{SegmentDir, SegmentMeta};
use crate::store::{AppendError, Cut, CutOrder, Inner};
use crate::wal::writer::Applying;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

impl Inner {
    /// Seals when it is due, until the store stops.
    pub(crate) fn run_sealer(&self) {
        while !self.stopping.load(Ordering::Acquire) {
            self.sealer.wait(Duration::from_millis(500));
            self.measure_disk();
            let waiters = std::mem::take(&mut *self.seal_waiters.lock());
            if self.stopping.load(Ordering::Acquire) || waiters.is_empty() && !self.seal_is_due() {
                continue;
            }
            let sealed = self.seal().map_err(Arc::new);
            for waiter in waiters {
                // Whoever waits may have gone.
                let _ = waiter.send(sealed.clone().map_err(AppendError::Unsealed));
            }
            if let Err(error) = sealed {
                tracing::error!(%error, "recent data could not be sealed; trying again");
                self.pause_unless_stopping(Duration::from_secs(1));
            } else if let Err(error) = self.shrink_unless_maintained() {
                tracing::error!(%error, "retention by size failed; trying again");
            }
        }
    }

    fn pause_unless_stopping(&self, pause: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < pause && !self.stopping.load(Ordering::Acquire) {
            std::thread::sleep(pause / 50);
        }
    }

    fn seal_is_due(&self) -> bool {
        let end = self.wal_stats.end.load(Ordering::Acquire);
        let wal_bytes = end.saturating_sub(self.manifest.lock().wal_position);
        self.stores.hot_bytes() > self.config.seal_hot_bytes()
            || wal_bytes > self.config.seal_wal_bytes()
            || (wal_bytes > 0 && self.last_seal.lock().elapsed() > self.config.seal_age)
    }

    /// Whether a seal is under way, or must be tried again.
    pub(crate) fn is_sealing(&self) -> bool {
        self.sealing.try_lock().is_none_or(|cut| cut.is_some())
    }

    /// Writes all hot rows to segments and commits them.
    pub(crate) fn seal(&self) -> io::Result<()> {
        self.seal_what_is_hot(false)
    }

    /// Commits also when nothing is hot, which saves the window of requests anew.
    pub(crate) fn seal_even_nothing(&self) -> io::Result<()> {
        self.seal_what_is_hot(true)
    }

    fn seal_what_is_hot(&self, even_nothing: bool) -> io::Result<()> {
        let mut sealing = self.sealing.lock();
        // What an earlier try could not seal comes first; later rows are not in it.
        if let Some(cut) = &*sealing {
            self.seal_frozen(cut)?;
            *sealing = None;
        }
        let sealed = self.manifest.lock().wal_position;
        if let Some(cut) = self.cut((!even_nothing).then_some(sealed))? {
            self.seal_frozen(sealing.insert(cut))?;
            *sealing = None;
            (self.config.give_back)();
        }
        Ok(())
    }

    fn seal_frozen(&self, cut: &Cut) -> io::Result<()> {
        let started = Instant::now();
        let job = self.dir.job();
        // A panic while writing must not end the thread: ingest would stop for good.
        let written = catch_unwind(AssertUnwindSafe(|| self.write_frozen(cut, &job)))
            .unwrap_or_else(|_| Err(io::Error::other("a store panicked while sealing")));
        let added = written.inspect_err(|_| job.discard())?;
        self.commit(&Change::Seal { added: &added, cut }, &job)?;
        let now = Instant::now();
        *self.last_seal.lock() = now;
        let mut stirred = self.stirred.lock();
        stirred.retain(|_, last| last.elapsed() <= CALM);
        stirred.extend(added.iter().map(|meta| (meta.partition_ns, now)));
        drop(stirred);
        self.seals.fetch_add(1, Ordering::Relaxed);
        self.wal_stats.rotate.store(true, Ordering::Release);
        tracing::debug!(
            rows = added.iter().map(|meta| meta.rows).sum::<u64>(),
            segments = added.len(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "sealed"
        );
        Ok(())
    }

    fn write_frozen(&self, cut: &Cut, job: &SegmentDir) -> io::Result<Vec<SegmentMeta>> {
        let mut added = Vec::new();
        for (store, (signal, frozen)) in self.stores.signals().into_iter().zip(&cut.rows) {
            let metas = store.seal(job)?;
            let written: u64 = metas.iter().map(|meta| meta.rows).sum();
            // The rows of a commit leave memory and the log: one too few would be lost.
            if written != *frozen {
                let signal = signal.name();
                return Err(io::Error::other(format!(
                    "{written} rows of {signal} were written of {frozen} that are to be sealed"
                )));
            }
            added.extend(metas);
        }
        Ok(added)
    }

    /// Freezes what is hot; see [`CutOrder`].
    fn cut(&self, sealed: Option<u64>) -> io::Result<Option<Cut>> {
        let closed = || io::Error::other("the applier has ended");
        let (reply, answer) = mpsc::sync_channel(1);
        let applier = self.applier.lock().clone().ok_or_else(closed)?;
        applier.send(Applying::Cut(CutOrder { sealed, reply })).map_err(|_| closed())?;
        answer.recv().map_err(|_| closed())
    }

    pub(crate) fn measure_disk(&self) {
        match self.config.disk.space(&self.config.data_dir) {
            Ok(space) => {
                self.free_bytes.store(space.free, Ordering::Relaxed);
                self.reserve_bytes.store(self.config.reserve(space), Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "free disk space could not be read"),
        }
    }
}
