//! Compaction: small segments of a signal and partition become few, in one thread and one merge at a time.

use crate::commit::Change;
use crate::config::LIMIT_SHARE;
use crate::retention::{Clock, now_ns};
use crate::segment::{PARTITION_NS, SegmentDir, SegmentMeta};
use crate::signal::Signal;
use crate::store::Inner;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// So many segments of one level in one partition become one of the next.
const FAN_IN: usize = 4;

/// The same for RED figures: their cells are decoded and encoded anew, for few bytes.
const RED_FAN_IN: usize = 8;

/// A merge never makes a segment larger than this many rows.
const ROWS_MAX: u64 = 4_000_000;

/// The words of logs are indexed anew when they are merged, which costs as much as their seal: inputs are no larger
/// together than this, bytes.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// Points of metrics are encoded anew when they are merged: leftovers are no larger than this, bytes.
const POINT_BYTES_MAX: u64 = 2 << 20;

/// A partition this long past its end gets few new rows: its leftovers are merged too.
const SETTLED_NS: u64 = 600_000_000_000;

/// Leftovers of a settled partition wait until no seal brought it rows for this long: while old data are loaded, each
/// seal would else be merged with all that came before it. Data of today flow in elsewhere and delay nothing.
pub(crate) const CALM: Duration = Duration::from_secs(15);

/// After a failed merge nothing is merged for this long.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// The compactor rests as long as it worked, up to this, so that it takes at most half a core.
const REST_MAX: Duration = Duration::from_secs(2);

impl Inner {
    /// Drops what is past retention and merges, until the store stops.
    pub(crate) fn run_compactor(&self) {
        let mut clock = Clock::new();
        let mut paused: Option<Instant> = None;
        let begun = Instant::now();
        while !self.stopping.load(Ordering::Acquire) {
            let started = Instant::now();
            self.measure_disk();
            let swept =
                self.expire_unless(clock.jumped()).and_then(|_| self.collect_late_garbage());
            if let Err(error) = swept {
                tracing::error!(%error, "retention failed; trying again");
            }
            let mut worked = false;
            if paused.is_none_or(|since| since.elapsed() > PAUSE_AFTER_FAILURE) {
                paused = None;
                // What was sealed before the start is not known: every partition may still be filling.
                let stirred = self.stirred.lock().clone();
                let calm = |partition_ns: u64| {
                    stirred.get(&partition_ns).unwrap_or(&begun).elapsed() > CALM
                };
                match self.compact_one(calm) {
                    Ok(merged) => worked = merged,
                    Err(error) => {
                        tracing::error!(%error, "segments could not be merged; trying again");
                        paused = Some(Instant::now());
                    }
                }
            }
            let rest = if worked { started.elapsed().min(REST_MAX) } else { REST_MAX };
            self.compactor.wait(rest);
        }
    }

    /// What one merge may take in.
    fn merge_limits(&self) -> Limits {
        // A directory with a limit gets its room back in small pieces.
        let on_disk = self.config.retention_bytes.map_or(u64::MAX, |limit| limit / LIMIT_SHARE);
        Limits { rows: ROWS_MAX, bytes: on_disk, log_bytes: LOG_BYTES_MAX }
    }

    /// Whether segments are being merged, or will be without new data coming in.
    pub(crate) fn merge_is_due(&self) -> bool {
        self.maintaining.try_lock().is_none()
            || pick(&self.manifest.lock().segments, now_ns(), |_| true, self.merge_limits())
                .is_some()
            || self.stores.signals().iter().any(|store| store.outgrown(now_ns()).is_some())
    }

    /// Merges one group of segments, if any is worth it.
    ///
    /// * `calm`: whether a partition, told by its start, gets no rows by seals: its leftovers may be merged.
    pub(crate) fn compact_one(&self, calm: impl Fn(u64) -> bool) -> io::Result<bool> {
        let _maintaining = self.maintaining.lock();
        let group = {
            // Stores hold exactly what the manifest lists while no change is on its way.
            let _changing = self.changing.lock();
            let now_ns = now_ns();
            let picked = pick(&self.manifest.lock().segments, now_ns, &calm, self.merge_limits());
            picked.or_else(|| {
                let stores = self.stores.signals();
                let mut due = stores.iter().filter_map(|store| store.outgrown(now_ns));
                due.find(|group| calm(group[0].partition_ns))
            })
        };
        let Some(group) = group else { return Ok(false) };
        let started = Instant::now();
        for meta in &group {
            // What a damaged page still yields must not become a sound segment.
            if self.mend_unless_sound(meta)?.is_some() {
                return Ok(true);
            }
        }
        let job = self.dir.job_until(self.stopping.clone());
        let merged = catch_unwind(AssertUnwindSafe(|| self.merge(&job, &group)))
            .unwrap_or_else(|_| Err(io::Error::other("a store panicked while merging")));
        let merged = match merged {
            Ok(merged) => merged,
            Err(error) => {
                job.discard();
                return if self.stopping.load(Ordering::Acquire) { Ok(false) } else { Err(error) };
            }
        };
        self.commit(&Change::Merge { added: &merged, removed: &group }, &job)?;
        self.compactions.fetch_add(1, Ordering::Relaxed);
        (self.config.give_back)();
        if let Some(limit) = self.config.retention_bytes {
            self.make_room(limit)?;
        }
        tracing::debug!(
            signal = group[0].signal.name(),
            inputs = group.len(),
            rows = merged.iter().map(|meta| meta.rows).sum::<u64>(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "compacted"
        );
        Ok(true)
    }

    /// Writes the merged segments and makes sure that they hold what went in.
    fn merge(&self, job: &SegmentDir, group: &[SegmentMeta]) -> io::Result<Vec<SegmentMeta>> {
        let signal = group[0].signal;
        let merged = self.store_of(&group[0])?.compact(job, group)?;
        let count = |metas: &[SegmentMeta]| metas.iter().map(|meta| meta.rows).sum::<u64>();
        let (had, has) = (count(group), count(&merged));
        let sound = match signal {
            Signal::Spans | Signal::Logs => has == had,
            // Equal samples and cells become one.
            Signal::Metrics | Signal::Red => has <= had && (has > 0 || had == 0),
        };
        if sound {
            Ok(merged)
        } else {
            Err(io::Error::other(format!("a merge of {had} rows made {has}")))
        }
    }
}

/// What a merge may take in.
#[derive(Debug, Clone, Copy)]
struct Limits {
    rows: u64,
    bytes: u64,
    /// For logs.
    log_bytes: u64,
}

/// Chooses segments of one signal and partition to merge: enough of one level, or what is left of a partition
/// that has settled and is calm.
fn pick(
    segments: &[SegmentMeta],
    now_ns: u64,
    calm: impl Fn(u64) -> bool,
    limits: Limits,
) -> Option<Vec<SegmentMeta>> {
    let mut groups: BTreeMap<(Signal, u64), Vec<&SegmentMeta>> = BTreeMap::new();
    for meta in segments {
        groups.entry((meta.signal, meta.partition_ns)).or_default().push(meta);
    }
    for ((signal, partition_ns), mut group) in groups {
        // Merges hold only a part of their rows: memory sets no bound.
        let bytes_max = match signal {
            Signal::Logs => limits.bytes.min(limits.log_bytes),
            _ => limits.bytes,
        };
        let fan_in = if signal == Signal::Red { RED_FAN_IN } else { FAN_IN };
        group.sort_by_key(|meta| (meta.level, meta.rows));
        let settled =
            partition_ns.saturating_add(PARTITION_NS + SETTLED_NS) < now_ns && calm(partition_ns);
        if settled && signal == Signal::Metrics {
            group.retain(|meta| meta.bytes() <= POINT_BYTES_MAX);
        }
        let mut start = 0;
        while start < group.len() {
            let level = group[start].level;
            let mut picked: Vec<SegmentMeta> = Vec::new();
            let (mut rows, mut bytes) = (0, 0);
            for meta in &group[start..] {
                let fits = rows + meta.rows <= limits.rows && bytes + meta.bytes() <= bytes_max;
                if (meta.level == level || settled) && fits {
                    rows += meta.rows;
                    bytes += meta.bytes();
                    picked.push((*meta).clone());
                }
            }
            if picked.len() >= if settled { 2 } else { fan_in } {
                return Some(picked);
            }
            start += group[start..].iter().take_while(|meta| meta.level == level).count();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentFile;

    const LIMITS: Limits = Limits { rows: ROWS_MAX, bytes: 100 << 20, log_bytes: 1 << 20 };

    fn file(bytes: u64) -> SegmentFile {
        SegmentFile { extension: "parquet".into(), bytes, crc32: 0 }
    }

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
        assert_eq!(pick(&three, now, |_| true, LIMITS), None);
        let four: Vec<_> = (0..4).map(|id| meta(id, 0, 10)).collect();
        assert_eq!(pick(&four, now, |_| true, LIMITS).unwrap().len(), 4);
    }

    #[test]
    fn a_settled_partition_ends_as_one_segment() {
        let now = PARTITION_NS * 3;
        assert_eq!(
            pick(&[meta(1, 0, 10), meta(2, 3, 99)], now, |_| true, LIMITS).unwrap().len(),
            2
        );
        assert_eq!(pick(&[meta(1, 4, 109)], now, |_| true, LIMITS), None);
    }

    #[test]
    fn large_segments_of_points_are_no_leftovers() {
        let now = PARTITION_NS * 3;
        let mut segments = vec![meta(1, 0, 10), meta(2, 1, 99), meta(3, 1, 99), meta(4, 1, 99)];
        for (meta, bytes) in segments.iter_mut().zip([9, 9, 3 << 20, 3 << 20]) {
            meta.signal = Signal::Metrics;
            meta.files.push(file(bytes));
        }
        assert_eq!(pick(&segments, now, |_| true, LIMITS).unwrap(), segments[..2]);
        assert_eq!(pick(&segments[2..], now, |_| true, LIMITS), None);
    }

    #[test]
    fn leftovers_of_one_partition_do_not_wait_for_another() {
        let now = PARTITION_NS * 9;
        let mut segments = vec![meta(1, 0, 10), meta(2, 3, 99), meta(3, 0, 10), meta(4, 3, 99)];
        segments[2..].iter_mut().for_each(|meta| meta.partition_ns = PARTITION_NS);
        let picked = pick(&segments, now, |partition_ns| partition_ns > 0, LIMITS).unwrap();
        assert_eq!(picked, segments[2..], "rows still flow into the first");
        assert_eq!(pick(&segments, now, |_| false, LIMITS), None);
    }

    #[test]
    fn merges_stay_below_the_limits_of_rows_and_bytes() {
        let now = PARTITION_NS * 3;
        let big: Vec<_> = (0..4).map(|id| meta(id, 1, ROWS_MAX - 1)).collect();
        assert_eq!(pick(&big, now, |_| true, LIMITS), None);
        let mut heavy: Vec<_> = (0..4).map(|id| meta(id, 1, 10)).collect();
        for meta in &mut heavy {
            meta.signal = Signal::Logs;
            meta.files.push(file(500 << 10));
        }
        assert_eq!(pick(&heavy, now, |_| true, LIMITS).unwrap().len(), 2);
        heavy.iter_mut().for_each(|meta| meta.signal = Signal::Spans);
        assert_eq!(pick(&heavy, now, |_| true, LIMITS).unwrap().len(), 4, "the limit is for logs");
        let limited = Limits { bytes: 1 << 20, ..LIMITS };
        assert_eq!(
            pick(&heavy, now, |_| true, limited).unwrap().len(),
            2,
            "a directory's limit is for all"
        );
    }
}
