//! What happens behind ingest: seal hot rows, merge segments, drop what is past retention, delete dead files.
//!
//! Every change of the live set is one manifest commit. What a commit makes dead (segment files, log files) is
//! deleted one generation later, so that a damaged newest manifest can fall back without loss.

use crate::manifest::{self, Manifest};
use crate::segment::{PARTITION_NS, SegmentMeta};
use crate::signal::Signal;
use crate::store::{Cut, Inner};
use crate::wal::files;
use crate::wal::writer::Applying;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longer than any query may run: dead files stay this long for queries that began before.
const QUERY_TIME_MAX: Duration = Duration::from_secs(60);

/// So many segments of one level in one partition become one of the next.
const FAN_IN: usize = 4;

/// A merge never makes a segment larger than this many rows.
const ROWS_MAX: u64 = 4_000_000;

/// A partition this long past its end gets few new rows: its leftovers are merged too.
const SETTLED_NS: u64 = 600_000_000_000;

impl Inner {
    pub(crate) fn wake_sealer(&self) {
        *self.nudge.lock() = true;
        self.nudged.notify_one();
    }

    pub(crate) fn run_sealer(&self) {
        while !self.stopping.load(Ordering::Acquire) {
            let mut nudge = self.nudge.lock();
            if !*nudge {
                self.nudged.wait_for(&mut nudge, Duration::from_millis(500));
            }
            *nudge = false;
            drop(nudge);
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            if self.seal_is_due()
                && let Err(error) = self.seal()
            {
                tracing::error!(%error, "recent data could not be sealed; trying again");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }

    fn seal_is_due(&self) -> bool {
        let wal_bytes =
            self.wal_stats.end.load(Ordering::Acquire) - self.manifest.lock().wal_position;
        self.stores.hot_bytes() > self.config.seal_hot_bytes()
            || wal_bytes > self.config.seal_wal_bytes
            || (wal_bytes > 0 && self.last_seal.lock().elapsed() > self.config.seal_age)
    }

    /// Writes all hot rows to segments, commits them, and frees the log before the one-but-last cut.
    pub(crate) fn seal(&self) -> io::Result<()> {
        let mut sealing = self.sealing.lock();
        // After a failure the rows frozen then are still waiting: their cut holds, not a new one.
        let cut = match *sealing {
            Some(cut) => cut,
            None => {
                let cut = self.cut()?;
                *sealing = Some(cut);
                cut
            }
        };
        if cut.position == self.manifest.lock().wal_position {
            *sealing = None;
            return Ok(());
        }
        let started = Instant::now();
        let mut added = Vec::new();
        for store in self.stores.signals() {
            added.extend(store.seal(&self.dir)?);
        }
        let rows: u64 = added.iter().map(|meta| meta.rows).sum();
        self.commit(&added, &[], Some(cut))?;
        *sealing = None;
        *self.last_seal.lock() = Instant::now();
        self.seals.fetch_add(1, Ordering::Relaxed);
        self.wal_stats.rotate.store(true, Ordering::Release);
        tracing::debug!(
            rows,
            segments = added.len(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "sealed"
        );
        Ok(())
    }

    fn cut(&self) -> io::Result<Cut> {
        let closed = || io::Error::other("the applier has ended");
        let (reply, answer) = mpsc::sync_channel(1);
        let applier = self.applier.lock().clone().ok_or_else(closed)?;
        applier.send(Applying::Cut(reply)).map_err(|_| closed())?;
        answer.recv().map_err(|_| closed())
    }

    /// Makes one change of the live set durable, then visible, then deletes what no generation needs.
    ///
    /// * `cut`: given by a seal, whose frozen rows `added` holds.
    fn commit(
        &self,
        added: &[SegmentMeta],
        removed: &[SegmentMeta],
        cut: Option<Cut>,
    ) -> io::Result<()> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        next.generation += 1;
        next.next_segment_id = self.dir.next_id();
        next.segments.retain(|meta| !removed.iter().any(|gone| gone.id == meta.id));
        next.segments.extend(added.iter().cloned());
        if let Some(cut) = cut {
            next.wal_position = cut.position;
            for (signal, at_cut) in cut.ledger.accounts() {
                if let Some(account) = next.ledger.account_mut(signal) {
                    account.stored = at_cut.stored;
                    account.duplicate = at_cut.duplicate;
                    account.rejected = at_cut.rejected;
                }
            }
        }
        // Dropped without a successor: that is retention.
        if added.is_empty() && cut.is_none() {
            let mut live = self.ledger.lock();
            for ledger in [&mut next.ledger, &mut *live] {
                for meta in removed {
                    if let Some(account) = ledger.account_mut(meta.signal) {
                        account.expired += meta.rows;
                    }
                }
            }
        }
        let manifest_dir = self.config.data_dir.join("manifest");
        if cut.is_some() {
            self.save_window(next.generation)?;
        }
        manifest::commit(&manifest_dir, &next)?;
        let before = std::mem::replace(&mut *manifest, next);
        let generation = manifest.generation;
        drop(manifest);
        for store in self.stores.signals() {
            let of = |metas: &[SegmentMeta]| -> Vec<SegmentMeta> {
                metas.iter().filter(|m| m.signal == store.signal()).cloned().collect()
            };
            store.publish(&self.dir, &of(added), &of(removed), cut.is_some())?;
        }
        let now = Instant::now();
        self.garbage.lock().extend(removed.iter().map(|meta| (now, generation, meta.clone())));
        self.collect_garbage(&before);
        Ok(())
    }

    fn save_window(&self, generation: u64) -> io::Result<()> {
        let path = self.window_path(generation);
        let temporary = path.with_extension("dedup.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(self.window.save().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    }

    /// Deletes log files and segment files that neither the newest manifest nor the one before needs.
    fn collect_garbage(&self, previous: &Manifest) {
        let wal_dir = self.config.data_dir.join("wal");
        let current_file = self.wal_stats.file_start.load(Ordering::Acquire);
        if let Err(error) = files::truncate(&wal_dir, previous.wal_position, current_file) {
            tracing::warn!(%error, "old write-ahead-log files could not be deleted");
        }
        self.garbage.lock().retain(|(since, generation, meta)| {
            if *generation > previous.generation || since.elapsed() < QUERY_TIME_MAX {
                return true;
            }
            for file in &meta.files {
                let path = self.dir.file_path(meta, &file.extension);
                if let Err(error) = fs::remove_file(&path)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(file = %path.display(), %error, "a dead segment file could not be deleted");
                }
            }
            // Fails as long as the partition holds others.
            if let Some(folder) = self.dir.file_path(meta, "x").parent() {
                let _ = fs::remove_dir(folder);
            }
            false
        });
        let window_dir = self.config.data_dir.join("manifest");
        let keep_from = self.window_path(previous.generation.saturating_sub(62));
        for entry in fs::read_dir(window_dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let newest_two = path >= keep_from;
            if path.extension().is_some_and(|e| e == "dedup") && !newest_two {
                let _ = fs::remove_file(path);
            }
        }
    }

    pub(crate) fn run_compactor(&self) {
        let mut clock = Clock::new();
        while !self.stopping.load(Ordering::Acquire) {
            self.measure_disk();
            let jumped = clock.jumped();
            let worked = self.expire_unless(jumped).and_then(|expired| {
                self.collect_late_garbage()?;
                Ok(self.compact_one()? || expired)
            });
            match worked {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "compaction or retention failed; trying again")
                }
            }
            let mut nudge = self.nudge.lock();
            if !self.stopping.load(Ordering::Acquire) {
                // Woken only by `close`; a nudge meant for the sealer stays set.
                self.nudged.wait_for(&mut nudge, Duration::from_secs(2));
            }
        }
    }

    /// Dead files whose grace has passed go with an empty commit, so that two newer generations do not need them.
    fn collect_late_garbage(&self) -> io::Result<()> {
        let due = self.garbage.lock().iter().any(|(since, _, _)| since.elapsed() > QUERY_TIME_MAX);
        if due { self.commit_nothing() } else { Ok(()) }
    }

    fn commit_nothing(&self) -> io::Result<()> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        next.generation += 1;
        manifest::commit(&self.config.data_dir.join("manifest"), &next)?;
        let before = std::mem::replace(&mut *manifest, next);
        drop(manifest);
        self.collect_garbage(&before);
        Ok(())
    }

    /// Drops segments past retention by age or by total size.
    pub(crate) fn expire(&self) -> io::Result<bool> {
        self.expire_unless(false)
    }

    fn expire_unless(&self, clock_jumped: bool) -> io::Result<bool> {
        let (segments, total_rows) = {
            let manifest = self.manifest.lock();
            let rows: u64 = manifest.segments.iter().map(|meta| meta.rows).sum();
            (manifest.segments.clone(), rows)
        };
        let mut gone: Vec<SegmentMeta> = Vec::new();
        if let Some(retention) = self.config.retention {
            let cutoff = now_ns().saturating_sub(retention.as_nanos() as u64);
            gone.extend(segments.iter().filter(|meta| meta.max_ns < cutoff).cloned());
            let gone_rows: u64 = gone.iter().map(|meta| meta.rows).sum();
            if clock_jumped && gone_rows * 10 > total_rows {
                tracing::warn!(
                    rows = gone_rows,
                    "the clock jumped and retention would drop over a tenth of all data; not in this pass"
                );
                gone.clear();
            }
        }
        if let Some(limit) = self.config.retention_bytes {
            let mut left: Vec<&SegmentMeta> =
                segments.iter().filter(|meta| !gone.iter().any(|g| g.id == meta.id)).collect();
            let mut bytes: u64 = left.iter().map(|meta| meta.bytes()).sum();
            left.sort_by_key(|meta| (meta.partition_ns, meta.max_ns));
            for meta in left {
                if bytes <= limit {
                    break;
                }
                bytes -= meta.bytes();
                gone.push(meta.clone());
            }
        }
        if gone.is_empty() {
            return Ok(false);
        }
        tracing::info!(segments = gone.len(), "dropping segments past retention");
        self.commit(&[], &gone, None)?;
        Ok(true)
    }

    /// Merges one group of segments, if any is worth it.
    pub(crate) fn compact_one(&self) -> io::Result<bool> {
        let Some(group) = pick(&self.manifest.lock().segments, now_ns()) else { return Ok(false) };
        let signal = group[0].signal;
        let store = self
            .stores
            .signals()
            .into_iter()
            .find(|store| store.signal() == signal)
            .ok_or_else(|| io::Error::other("no store for a segment's signal"))?;
        let started = Instant::now();
        let merged = store.compact(&self.dir, &group)?;
        self.commit(&merged, &group, None)?;
        self.compactions.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(
            signal = signal.name(),
            inputs = group.len(),
            rows = merged.iter().map(|meta| meta.rows).sum::<u64>(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "compacted"
        );
        Ok(true)
    }

    pub(crate) fn measure_disk(&self) {
        match fs4::available_space(&self.config.data_dir) {
            Ok(bytes) => self.free_bytes.store(bytes, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "free disk space could not be read"),
        }
    }
}

/// Chooses segments of one signal and partition to merge: four or more of one level, or what is left of a partition
/// that has settled.
fn pick(segments: &[SegmentMeta], now_ns: u64) -> Option<Vec<SegmentMeta>> {
    let mut groups: BTreeMap<(Signal, u64), Vec<&SegmentMeta>> = BTreeMap::new();
    for meta in segments {
        groups.entry((meta.signal, meta.partition_ns)).or_default().push(meta);
    }
    for ((_, partition_ns), mut group) in groups {
        group.sort_by_key(|meta| (meta.level, meta.rows));
        let settled = partition_ns.saturating_add(PARTITION_NS + SETTLED_NS) < now_ns;
        let mut start = 0;
        while start < group.len() {
            let level = group[start].level;
            let mut picked: Vec<SegmentMeta> = Vec::new();
            let mut rows = 0;
            for meta in &group[start..] {
                if (meta.level == level || settled) && rows + meta.rows <= ROWS_MAX {
                    rows += meta.rows;
                    picked.push((*meta).clone());
                }
            }
            if picked.len() >= if settled { 2 } else { FAN_IN } {
                return Some(picked);
            }
            start += group[start..].iter().take_while(|meta| meta.level == level).count();
        }
    }
    None
}

/// Notices wall-clock jumps by comparing with the monotonic clock.
struct Clock {
    wall_ns: u64,
    monotonic: Instant,
}

impl Clock {
    fn new() -> Self {
        Self { wall_ns: now_ns(), monotonic: Instant::now() }
    }

    /// Whether the wall clock moved more than an hour against the monotonic one since the start or the last
    /// accepted jump a day ago.
    fn jumped(&mut self) -> bool {
        let expected = self.wall_ns.saturating_add(self.monotonic.elapsed().as_nanos() as u64);
        let jumped = now_ns().abs_diff(expected) > PARTITION_NS;
        if self.monotonic.elapsed() > Duration::from_secs(86_400) {
            *self = Self::new();
        }
        jumped
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(id: u64, level: u32, rows: u64) -> SegmentMeta {
        SegmentMeta {
            signal: Signal::Spans,
            id,
            partition_ns: 0,
            min_ns: 0,
            max_ns: 1,
            rows,
            level,
            files: vec![],
        }
    }

    #[test]
    fn four_of_a_level_are_merged_and_three_are_not() {
        let now = PARTITION_NS;
        let three: Vec<_> = (0..3).map(|id| meta(id, 0, 10)).collect();
        assert_eq!(pick(&three, now), None);
        let four: Vec<_> = (0..4).map(|id| meta(id, 0, 10)).collect();
        assert_eq!(pick(&four, now).unwrap().len(), 4);
    }

    #[test]
    fn a_settled_partition_ends_as_one_segment() {
        let now = PARTITION_NS * 3;
        assert_eq!(pick(&[meta(1, 0, 10), meta(2, 3, 99)], now).unwrap().len(), 2);
        assert_eq!(pick(&[meta(1, 4, 109)], now), None);
    }

    #[test]
    fn merges_stay_below_the_row_limit() {
        let now = PARTITION_NS * 3;
        let big: Vec<_> = (0..4).map(|id| meta(id, 1, ROWS_MAX - 1)).collect();
        assert_eq!(pick(&big, now), None);
    }
}
