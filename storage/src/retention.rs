//! Retention: whole segments go when all their rows are too old, or when the data directory is too large.
//!
//! A directory with a limit is held within 5 % of it, as a rule between 95 % and 100 %; what lies in `quarantine/` is not
//! counted. Files that went out of use wait for queries that began before; where there is no room for that, they go at
//! once, and a query that still wants one fails and may be repeated.

use crate::commit::Change;
use crate::segment::{PARTITION_NS, SegmentMeta};
use crate::store::Inner;
use crate::wal::files;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

impl Inner {
    /// Drops segments past retention by age or by total size.
    pub(crate) fn expire(&self) -> io::Result<bool> {
        self.expire_unless(false)
    }

    /// Like [`expire`](Self::expire), but after a jump of the clock age drops no more than a tenth of all rows.
    pub(crate) fn expire_unless(&self, clock_jumped: bool) -> io::Result<bool> {
        let _maintaining = self.maintaining.lock();
        let segments = self.manifest.lock().segments.clone();
        let gone = match self.config.retention {
            Some(retention) => past_age(&segments, retention, now_ns(), clock_jumped),
            None => Vec::new(),
        };
        self.drop_with_those_past_size(&segments, gone)
    }

    /// Drops segments past retention by size, for a sealer that has just made the directory larger. Where somebody else
    /// is at work on segments, nothing is done: the compactor will, once that has ended.
    pub(crate) fn shrink_unless_maintained(&self) -> io::Result<()> {
        if self.config.retention_bytes.is_none() {
            return Ok(());
        }
        let Some(_maintaining) = self.maintaining.try_lock() else { return Ok(()) };
        let segments = self.manifest.lock().segments.clone();
        self.drop_with_those_past_size(&segments, Vec::new()).map(|_| ())
    }

    /// * `gone`: those past age.
    fn drop_with_those_past_size(
        &self,
        segments: &[SegmentMeta],
        mut gone: Vec<SegmentMeta>,
    ) -> io::Result<bool> {
        if let Some(limit) = self.config.retention_bytes {
            // Older parts of the log go with the next commit.
            let position = self.manifest.lock().wal_position;
            let room = target(limit).saturating_sub(self.bytes_beside_segments(position)?);
            gone.extend(past_size(segments, &gone, room));
        }
        if !gone.is_empty() {
            tracing::info!(segments = gone.len(), "dropping segments past retention");
            self.commit(&Change::Expire { removed: &gone }, &self.dir.job())?;
        }
        if let Some(limit) = self.config.retention_bytes {
            self.make_room(limit)?;
        }
        Ok(!gone.is_empty())
    }

    /// Deletes files that wait for queries, as far as the directory is too large.
    pub(crate) fn make_room(&self, limit: u64) -> io::Result<()> {
        let waiting = self.garbage_bytes();
        let live: u64 = self.manifest.lock().segments.iter().map(SegmentMeta::bytes).sum();
        let used = live + waiting + self.bytes_beside_segments(0)?;
        let bytes = used.saturating_sub(target(limit));
        if bytes == 0 || waiting == 0 {
            return Ok(());
        }
        self.commit(&Change::MakeRoom { bytes }, &self.dir.job())
    }

    /// Manifests, windows of requests and the log from a position on.
    fn bytes_beside_segments(&self, position: u64) -> io::Result<u64> {
        let log = files::list(&self.config.data_dir.join("wal"))?;
        let mut bytes: u64 =
            log.iter().filter(|file| file.end() > position).map(|file| file.bytes).sum();
        for entry in std::fs::read_dir(self.config.data_dir.join("manifest"))? {
            // One that another thread has just deleted has none.
            bytes += entry?.metadata().map_or(0, |found| found.len());
        }
        Ok(bytes)
    }
}

/// The share of a size limit that is kept free for what comes in between two passes: 1/40.
const SLACK: u64 = 40;

/// To how many bytes a directory with a limit is cut down.
fn target(limit: u64) -> u64 {
    limit - limit / SLACK
}

fn past_age(
    segments: &[SegmentMeta],
    retention: Duration,
    now_ns: u64,
    clock_jumped: bool,
) -> Vec<SegmentMeta> {
    let retention_ns = retention.as_nanos().try_into().unwrap_or(u64::MAX);
    let cutoff = now_ns.saturating_sub(retention_ns);
    let gone: Vec<SegmentMeta> =
        segments.iter().filter(|meta| meta.max_ns < cutoff).cloned().collect();
    let rows = |metas: &[SegmentMeta]| metas.iter().map(|meta| meta.rows).sum::<u64>();
    if clock_jumped && rows(&gone) * 10 > rows(segments) {
        tracing::warn!(
            rows = rows(&gone),
            "the clock jumped and retention would drop over a tenth of all data; not in this pass"
        );
        return Vec::new();
    }
    gone
}

/// The oldest segments beyond `limit` bytes, those in `gone` not counted.
fn past_size(segments: &[SegmentMeta], gone: &[SegmentMeta], limit: u64) -> Vec<SegmentMeta> {
    let mut left: Vec<&SegmentMeta> =
        segments.iter().filter(|meta| !gone.iter().any(|g| g.id == meta.id)).collect();
    let mut bytes: u64 = left.iter().map(|meta| meta.bytes()).sum();
    left.sort_by_key(|meta| (meta.partition_ns, meta.max_ns));
    let mut over = Vec::new();
    for meta in left {
        if bytes <= limit {
            break;
        }
        bytes -= meta.bytes();
        over.push(meta.clone());
    }
    over
}

/// Notices jumps of the wall clock by comparing it with the monotonic one.
pub(crate) struct Clock {
    wall_ns: u64,
    monotonic: Instant,
    /// When a jump was seen last.
    jump: Option<Instant>,
}

/// A jump is minded for so long; by then it was meant, or has been mended.
const MINDED: Duration = Duration::from_secs(86_400);

impl Clock {
    pub fn new() -> Self {
        Self { wall_ns: now_ns(), monotonic: Instant::now(), jump: None }
    }

    /// Whether the wall clock moved more than an hour against the monotonic one within the last day.
    pub fn jumped(&mut self) -> bool {
        let elapsed = self.monotonic.elapsed();
        self.step(now_ns(), elapsed)
    }

    fn step(&mut self, wall_ns: u64, elapsed: Duration) -> bool {
        let elapsed_ns = elapsed.as_nanos().try_into().unwrap_or(u64::MAX);
        if wall_ns.abs_diff(self.wall_ns.saturating_add(elapsed_ns)) > PARTITION_NS {
            self.jump = Some(Instant::now());
        }
        self.wall_ns = wall_ns;
        self.monotonic += elapsed;
        self.jump.is_some_and(|jump| jump.elapsed() < MINDED)
    }
}

/// Unix ns by the wall clock; 0 before 1970.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentFile;
    use crate::signal::Signal;

    /// A segment of 100 bytes and 10 rows for each of ten hours.
    fn ten_hours() -> Vec<SegmentMeta> {
        (0..10)
            .map(|hour| SegmentMeta {
                signal: Signal::Logs,
                id: hour,
                partition_ns: hour * PARTITION_NS,
                min_ns: hour * PARTITION_NS,
                max_ns: (hour + 1) * PARTITION_NS - 1,
                rows: 10,
                level: 0,
                files: vec![SegmentFile { extension: "parquet".into(), bytes: 100, crc32: 0 }],
            })
            .collect()
    }

    fn ids(metas: &[SegmentMeta]) -> Vec<u64> {
        metas.iter().map(|meta| meta.id).collect()
    }

    #[test]
    fn a_segment_goes_when_its_last_row_is_too_old() {
        let hour = Duration::from_nanos(PARTITION_NS);
        let at = |now_ns| ids(&past_age(&ten_hours(), hour, now_ns, false));
        assert_eq!(at(2 * PARTITION_NS - 1), [0u64; 0]);
        assert_eq!(at(2 * PARTITION_NS), [0]);
        assert_eq!(at(4 * PARTITION_NS), [0, 1, 2]);
        assert_eq!(at(0), [0u64; 0], "a clock at 1970 drops nothing");
    }

    #[test]
    fn after_a_jump_of_the_clock_at_most_a_tenth_goes() {
        let hour = Duration::from_nanos(PARTITION_NS);
        let at = |now_ns| ids(&past_age(&ten_hours(), hour, now_ns, true));
        assert_eq!(at(2 * PARTITION_NS), [0]);
        assert_eq!(at(3 * PARTITION_NS), [0u64; 0]);
        assert_eq!(at(u64::MAX), [0u64; 0]);
    }

    #[test]
    fn beyond_the_size_the_oldest_go_and_those_gone_by_age_count_no_more() {
        let all = ten_hours();
        assert_eq!(ids(&past_size(&all, &[], 1000)), [0u64; 0]);
        assert_eq!(ids(&past_size(&all, &[], 999)), [0]);
        assert_eq!(ids(&past_size(&all, &all[..3], 650)), [3]);
        assert_eq!(past_size(&all, &[], 0).len(), 10);
    }

    #[test]
    fn a_jump_either_way_is_noticed_and_a_steady_clock_is_not_one() {
        for jump_ns in [-86_400_000_000_000i64, 86_400_000_000_000] {
            let mut clock = Clock::new();
            let second = Duration::from_secs(1);
            let mut wall_ns = clock.wall_ns + 1_000_000_000;
            assert!(!clock.step(wall_ns, second));
            wall_ns = wall_ns.saturating_add_signed(jump_ns + 1_000_000_000);
            assert!(clock.step(wall_ns, second));
            assert!(clock.step(wall_ns + 1_000_000_000, second), "minded for a day");
        }
    }
}
