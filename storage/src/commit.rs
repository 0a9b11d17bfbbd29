//! Changes of the live set: durable in the manifest, then visible, then what no generation needs is deleted.
//!
//! What a commit makes dead (segment files, log files) is deleted one generation later, so that a damaged newest
//! manifest can fall back without loss, and not before queries that began earlier have ended.

use crate::disk;
use crate::manifest::{self, Manifest, Quarantined};
use crate::segment::{SegmentDir, SegmentMeta};
use crate::signal::Signal;
use crate::store::{Cut, Inner};
use crate::wal::files;
use crate::window_file;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longer than any query may run: dead files stay this long for queries that began before.
pub(crate) const QUERY_TIME_MAX: Duration = Duration::from_secs(30);

/// A change of the live set.
pub(crate) enum Change<'a> {
    /// All rows up to the cut are in these segments.
    Seal { added: &'a [SegmentMeta], cut: &'a Cut },
    /// These hold the rows of those.
    Merge { added: &'a [SegmentMeta], removed: &'a [SegmentMeta] },
    /// Past retention.
    Expire { removed: &'a [SegmentMeta] },
    /// Damaged, each with the reason.
    Quarantine { removed: &'a [(SegmentMeta, String)] },
    /// None, but dead files of this many bytes go without waiting for queries.
    MakeRoom { bytes: u64 },
    /// None; makes what became dead two commits ago deletable.
    Tidy,
}

impl Change<'_> {
    fn added(&self) -> &[SegmentMeta] {
        match self {
            Self::Seal { added, .. } | Self::Merge { added, .. } => added,
            _ => &[],
        }
    }

    fn removed(&self) -> Vec<SegmentMeta> {
        match self {
            Self::Merge { removed, .. } | Self::Expire { removed } => removed.to_vec(),
            Self::Quarantine { removed } => removed.iter().map(|(meta, _)| meta.clone()).collect(),
            Self::Seal { .. } | Self::MakeRoom { .. } | Self::Tidy => Vec::new(),
        }
    }
}

fn rows(metas: &[SegmentMeta], signal: Signal) -> u64 {
    metas.iter().filter(|meta| meta.signal == signal).map(|meta| meta.rows).sum()
}

impl Inner {
    /// Makes a change durable, then visible. On an error nothing has changed, and the files of `job`, with which the
    /// added segments were made, are taken back.
    pub(crate) fn commit(&self, change: &Change<'_>, job: &SegmentDir) -> io::Result<()> {
        let changing = self.changing.lock();
        let (added, removed) = (change.added(), change.removed());
        let before = self.manifest.lock().clone();
        let next = self.next_manifest(&before, change, &removed);
        let manifest_dir = self.config.data_dir.join("manifest");
        if let Change::Seal { cut, .. } = change {
            let saved = self.window.save(cut.position);
            let path = self.window_path(next.generation);
            disk::write_whole(&*self.config.disk, &path, &saved).inspect_err(|_| job.discard())?;
        }
        if let Err(error) = manifest::commit(&*self.config.disk, &manifest_dir, &next) {
            // What stands after all must find its files after a crash.
            if !error.may_stand {
                job.discard();
            }
            return Err(error.source);
        }
        if let Change::Seal { cut, .. } = change {
            self.window.note_sealed(cut.position);
        }
        self.enter_losses(&mut self.ledger.lock(), change);
        *self.manifest.lock() = next;
        self.publish(added, &removed, matches!(change, Change::Seal { .. }));
        if matches!(change, Change::Quarantine { .. }) {
            removed.iter().for_each(|meta| self.move_to_quarantine(meta));
        } else {
            let generation = self.manifest.lock().generation;
            let now = Instant::now();
            self.garbage.lock().extend(removed.into_iter().map(|meta| (now, generation, meta)));
        }
        drop(changing);
        let hurry = if let Change::MakeRoom { bytes } = change { *bytes } else { 0 };
        self.collect_garbage(&before, hurry);
        Ok(())
    }

    fn next_manifest(
        &self,
        before: &Manifest,
        change: &Change<'_>,
        removed: &[SegmentMeta],
    ) -> Manifest {
        let mut next = before.clone();
        // A failed commit may have left its file: its number is never used again.
        next.generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        next.next_segment_id = self.dir.next_id();
        next.segments.retain(|meta| !removed.iter().any(|gone| gone.id == meta.id));
        next.segments.extend(change.added().iter().cloned());
        if let Change::Seal { cut, .. } = change {
            next.wal_position = cut.position;
            next.window_generation = next.generation;
            for (signal, at_cut) in cut.ledger.accounts() {
                if let Some(account) = next.ledger.account_mut(signal) {
                    account.stored = at_cut.stored;
                    account.duplicate = at_cut.duplicate;
                    account.rejected = at_cut.rejected;
                }
            }
        }
        if let Change::Quarantine { removed } = change {
            for (meta, reason) in *removed {
                next.note_quarantined(quarantined(meta, reason));
            }
        }
        self.enter_losses(&mut next.ledger, change);
        next
    }

    /// Enters into a ledger what a change takes out of the live set.
    fn enter_losses(&self, ledger: &mut crate::ledger::Ledger, change: &Change<'_>) {
        for signal in Signal::ALL {
            let Some(account) = ledger.account_mut(signal) else { continue };
            match change {
                Change::Expire { removed } => account.expired += rows(removed, signal),
                Change::Quarantine { removed } => {
                    let metas: Vec<_> = removed.iter().map(|(meta, _)| meta.clone()).collect();
                    account.quarantined += rows(&metas, signal);
                }
                Change::Merge { added, removed } => {
                    let (kept, had) = (rows(added, signal), rows(removed, signal));
                    account.deleted += had.saturating_sub(kept);
                }
                Change::Seal { .. } | Change::MakeRoom { .. } | Change::Tidy => {}
            }
        }
    }

    /// Shows queries what the manifest says. The manifest can't be taken back, so this is tried until it works: until
    /// then queries go on seeing the rows where they were. Once the store stops, what can't be opened is left to the
    /// next start; the frozen rows go all the same, as a later cut must not find them.
    fn publish(&self, added: &[SegmentMeta], removed: &[SegmentMeta], sealed: bool) {
        for store in self.stores.signals() {
            let of = |metas: &[SegmentMeta]| -> Vec<SegmentMeta> {
                metas.iter().filter(|m| m.signal == store.signal()).cloned().collect()
            };
            let (added, removed) = (of(added), of(removed));
            let mut wait = Duration::from_millis(50);
            while let Err(error) = store.publish(&self.dir, &added, &removed, sealed) {
                tracing::error!(
                    signal = store.signal().name(), %error,
                    "new segments can't be opened; trying again"
                );
                if self.stopping.load(Ordering::Acquire) {
                    let _ = store.publish(&self.dir, &[], &removed, sealed);
                    break;
                }
                std::thread::sleep(wait);
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    }

    pub(crate) fn window_path(&self, generation: u64) -> PathBuf {
        window_file::path(&self.config.data_dir.join("manifest"), generation)
    }

    /// Deletes what neither the newest manifest nor the one before needs. What can't be deleted is tried again.
    ///
    /// * `hurry_bytes`: so much of it goes without waiting for queries.
    fn collect_garbage(&self, previous: &Manifest, mut hurry_bytes: u64) {
        let manifest_dir = self.config.data_dir.join("manifest");
        let disk = &*self.config.disk;
        let (generation, window) = {
            let manifest = self.manifest.lock();
            (manifest.generation, manifest.window_generation)
        };
        let needed = [window, previous.window_generation];
        let collected = manifest::forget(disk, &manifest_dir)
            .and_then(|()| self.forget_windows(generation, &needed))
            .and_then(|()| {
                let current_file = self.wal_stats.file_start.load(Ordering::Acquire);
                let wal_dir = self.config.data_dir.join("wal");
                files::truncate(disk, &wal_dir, previous.wal_position, current_file)
            });
        if let Err(error) = collected {
            tracing::warn!(%error, "files that are no longer needed could not be deleted");
        }
        self.garbage.lock().retain(|(since, generation, meta)| {
            let waits = since.elapsed() < QUERY_TIME_MAX && hurry_bytes == 0;
            if *generation > previous.generation || waits {
                return true;
            }
            hurry_bytes = hurry_bytes.saturating_sub(meta.bytes());
            self.delete_segment(meta).is_err()
        });
    }

    fn forget_windows(&self, generation: u64, needed: &[u64]) -> io::Result<()> {
        for entry in fs::read_dir(self.config.data_dir.join("manifest"))? {
            let path = entry?.path();
            if is_stale_window(&path, generation, needed) {
                self.config.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    fn delete_segment(&self, meta: &SegmentMeta) -> io::Result<()> {
        for file in &meta.files {
            let path = self.dir.file_path(meta, &file.extension);
            if let Err(error) = self.config.disk.remove(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %path.display(), %error, "a dead segment file could not be deleted");
                return Err(error);
            }
        }
        if let Some(folder) = self.dir.file_path(meta, "x").parent() {
            // Fails as long as the partition holds others.
            let _ = self.config.disk.remove_dir(folder);
        }
        Ok(())
    }

    /// Bytes of dead segments whose files still stand.
    pub(crate) fn garbage_bytes(&self) -> u64 {
        self.garbage.lock().iter().map(|(_, _, meta)| meta.bytes()).sum()
    }

    /// Lets dead files go whose grace has passed.
    pub(crate) fn collect_late_garbage(&self) -> io::Result<()> {
        let due = self.garbage.lock().iter().any(|(since, _, _)| since.elapsed() > QUERY_TIME_MAX);
        if due { self.commit(&Change::Tidy, &self.dir.job()) } else { Ok(()) }
    }

    /// Takes a segment that can't be opened out of a manifest that is being loaded, and moves its files away.
    pub(crate) fn set_aside(&self, manifest: &mut Manifest, meta: &SegmentMeta, reason: &str) {
        let path = self.dir.file_path(meta, "*");
        tracing::error!(file = %path.display(), reason, "damaged segment set aside; the rest is served");
        self.move_to_quarantine(meta);
        manifest.segments.retain(|other| other.id != meta.id);
        manifest.note_quarantined(quarantined(meta, reason));
        for ledger in [&mut manifest.ledger, &mut *self.ledger.lock()] {
            if let Some(account) = ledger.account_mut(meta.signal) {
                account.quarantined += meta.rows;
            }
        }
    }

    pub(crate) fn move_to_quarantine(&self, meta: &SegmentMeta) {
        let folder = self.config.data_dir.join("quarantine");
        let moved = disk::make_dir(&*self.config.disk, &folder).and_then(|()| {
            for file in &meta.files {
                let from = self.dir.file_path(meta, &file.extension);
                let name = format!("{}.{}", quarantined_name(meta), file.extension);
                if from.exists() {
                    self.config.disk.rename(&from, &folder.join(name))?;
                }
            }
            Ok(())
        });
        if let Err(error) = moved {
            tracing::error!(%error, "files could not be moved to quarantine");
        }
    }
}

/// Under which name a segment is set aside.
pub(crate) fn quarantined_name(meta: &SegmentMeta) -> String {
    format!("{}-{:016}", meta.signal.name(), meta.id)
}

fn quarantined(meta: &SegmentMeta, reason: &str) -> Quarantined {
    Quarantined {
        file: quarantined_name(meta),
        reason: reason.to_owned(),
        min_ns: meta.min_ns,
        max_ns: meta.max_ns,
        rows: meta.rows,
    }
}

/// Whether a file is a saved window that no manifest needs.
///
/// * `generation`: of the manifest. What is above it belongs to a seal that is being committed by another thread, or to
///   one that failed, and goes with a later generation.
/// * `needed`: generations whose windows manifests name.
fn is_stale_window(path: &Path, generation: u64, needed: &[u64]) -> bool {
    let number = || path.file_stem()?.to_str()?.parse::<u64>().ok();
    path.extension().is_some_and(|extension| extension == "dedup")
        && number().is_none_or(|number| number <= generation && !needed.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_a_seal_is_about_to_commit_is_not_deleted_by_the_merge_before_it() {
        let stale = |number: u64| {
            let path = window_file::path(Path::new("manifest"), number);
            is_stale_window(&path, 10, &[7, 4])
        };
        assert!(!stale(11), "its manifest follows");
        assert!(!stale(7) && !stale(4));
        assert!(stale(9), "of a seal that failed");
        assert!(stale(3));
        assert!(!is_stale_window(Path::new("manifest/0000000000000003.json"), 10, &[7, 4]));
    }
}
