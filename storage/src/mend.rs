//! Mending: every live file is compared with what the manifest says of it. A segment whose Parquet files are sound is
//! written anew from them, indexes and all; any other is set aside, and the rest is served.
//!
//! A pass runs at every start, newest segments first, and then from time to time; between passes missing and shortened
//! files are noticed by their length. Merges compare their inputs first, so that damage is never merged.

use crate::check::verify_segment;
use crate::commit::{Change, quarantined_name};
use crate::segment::{SegmentDir, SegmentMeta};
use crate::signal::SignalStore;
use crate::store::{Inner, Store};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// From one pass over all files to the next.
const PASS_EVERY: Duration = Duration::from_secs(6 * 3600);

/// From one look at the lengths of all files to the next.
const GLANCE_EVERY: Duration = Duration::from_secs(5);

/// So much is read in a second at most, so that queries have the disk: after the start, and later.
const FIRST_BYTES_PER_SECOND: u64 = 128 << 20;
const LATER_BYTES_PER_SECOND: u64 = 64 << 20;

/// What became of a damaged segment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mended {
    /// Signal and number.
    pub segment: String,
    /// Which files differ, and how.
    pub faults: Vec<String>,
    /// Made anew from its Parquet file, nothing lost; otherwise set aside with all its rows.
    pub rebuilt: bool,
    pub rows: u64,
}

/// What the passes have done since the start.
#[derive(Debug, Default)]
pub(crate) struct MendStats {
    pub passes: AtomicU64,
    pub rebuilt: AtomicU64,
}

impl Store {
    /// Compares every live segment with the manifest and mends what differs. Blocks.
    pub fn mend_now(&self) -> io::Result<Vec<Mended>> {
        let mut mended = Vec::new();
        for meta in self.inner.newest_first() {
            mended.extend(self.inner.mend(&meta)?);
        }
        Ok(mended)
    }

    /// Commits the live set twice as it is, so that both generations stand for it and what only an older one needed
    /// can go, also parts of the log that are damaged. Everything must be sealed.
    pub fn renew_generations(&self) -> io::Result<()> {
        self.inner.seal_even_nothing()?;
        self.inner.commit(&Change::Tidy, &self.inner.dir.job())
    }
}

impl Inner {
    /// Passes over all files, until the store stops.
    pub(crate) fn run_mender(&self) {
        // Has the window of recent requests read before the first sender waits for it.
        let _ = self.window.len();
        let mut pace = FIRST_BYTES_PER_SECOND;
        while !self.stopping.load(Ordering::Acquire) {
            self.pass(pace);
            self.mend_stats.passes.fetch_add(1, Ordering::Relaxed);
            pace = LATER_BYTES_PER_SECOND;
            let passed = Instant::now();
            while passed.elapsed() < PASS_EVERY && !self.stopping.load(Ordering::Acquire) {
                self.mender.wait(GLANCE_EVERY);
                self.glance();
            }
        }
    }

    fn pass(&self, bytes_per_second: u64) {
        for meta in self.newest_first() {
            let started = Instant::now();
            self.mend_or_tell(&meta);
            let due = Duration::from_secs_f64(meta.bytes() as f64 / bytes_per_second as f64);
            self.mender.wait(due.saturating_sub(started.elapsed()));
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Mends segments of which a file is missing or has another length.
    fn glance(&self) {
        for meta in self.newest_first() {
            let differs = meta.files.iter().any(|file| {
                let found = std::fs::metadata(self.dir.file_path(&meta, &file.extension));
                found.map_or(true, |found| found.len() != file.bytes)
            });
            if differs {
                self.mend_or_tell(&meta);
            }
        }
    }

    fn mend_or_tell(&self, meta: &SegmentMeta) {
        if let Err(error) = self.mend(meta) {
            let segment = quarantined_name(meta);
            tracing::error!(segment, %error, "a damaged segment could not be mended; trying again");
        }
    }

    /// The live segments; people look at what is new.
    fn newest_first(&self) -> Vec<SegmentMeta> {
        let mut all = self.manifest.lock().segments.clone();
        all.sort_by_key(|meta| std::cmp::Reverse(meta.max_ns));
        all
    }

    /// Compares a segment's files with the manifest and, if one differs, rebuilds it or sets it aside. `None` when all
    /// is well, or when it is no longer live.
    pub(crate) fn mend(&self, meta: &SegmentMeta) -> io::Result<Option<Mended>> {
        if verify_segment(&self.dir, meta)?.is_empty() {
            return Ok(None);
        }
        // Again, now that nobody else replaces it.
        let _maintaining = self.maintaining.lock();
        self.mend_unless_sound(meta)
    }

    /// Like [`mend`](Self::mend), for those who hold `maintaining`.
    pub(crate) fn mend_unless_sound(&self, meta: &SegmentMeta) -> io::Result<Option<Mended>> {
        if !self.manifest.lock().segments.iter().any(|live| live.id == meta.id) {
            return Ok(None);
        }
        let faults = verify_segment(&self.dir, meta)?;
        if faults.is_empty() {
            return Ok(None);
        }
        let job = self.dir.job();
        let anew = self.rebuild(&job, meta, &faults);
        let faults: Vec<String> = faults
            .iter()
            .map(|(path, what)| format!("{}: {what}", extension_of(path, meta)))
            .collect();
        let segment = quarantined_name(meta);
        let reason = faults.join("; ");
        let rebuilt = match anew {
            Ok(added) => {
                self.commit(
                    &Change::Merge { added: &added, removed: std::slice::from_ref(meta) },
                    &job,
                )?;
                self.mend_stats.rebuilt.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(segment, reason, "damaged files made anew from Parquet");
                true
            }
            Err(error) => {
                job.discard();
                tracing::error!(segment, reason, %error, "damaged segment set aside; the rest is served");
                let removed = [(meta.clone(), reason)];
                self.commit(&Change::Quarantine { removed: &removed }, &self.dir.job())?;
                false
            }
        };
        Ok(Some(Mended { segment, faults, rebuilt, rows: meta.rows }))
    }

    /// Writes a segment anew if its Parquet files are sound.
    ///
    /// * `faults`: what is wrong with it.
    pub(crate) fn rebuild(
        &self,
        job: &SegmentDir,
        meta: &SegmentMeta,
        faults: &[(PathBuf, String)],
    ) -> io::Result<Vec<SegmentMeta>> {
        let store = self.store_of(meta)?;
        if let Some((path, what)) = faults.iter().find(|(path, _)| is_parquet(path)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {what}", extension_of(path, meta)),
            ));
        }
        let anew = catch_unwind(AssertUnwindSafe(|| store.rebuild(job, meta)))
            .unwrap_or_else(|_| Err(io::Error::other("a store panicked while rebuilding")))?;
        let rows: u64 = anew.iter().map(|meta| meta.rows).sum();
        if rows == meta.rows {
            Ok(anew)
        } else {
            Err(io::Error::other(format!("{} rows became {rows}", meta.rows)))
        }
    }

    pub(crate) fn store_of(&self, meta: &SegmentMeta) -> io::Result<&dyn SignalStore> {
        self.stores
            .signals()
            .into_iter()
            .find(|store| store.signal() == meta.signal)
            .ok_or_else(|| io::Error::other("no store for a segment's signal"))
    }
}

fn is_parquet(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "parquet")
}

/// The part of a segment file's name after the number.
fn extension_of(path: &std::path::Path, meta: &SegmentMeta) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.strip_prefix(&format!("{:016}.", meta.id)).map_or(name.clone(), str::to_owned)
}
