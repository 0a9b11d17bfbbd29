//! Sealed points as Prometheus series, straight from their columns: what most selectors read.
//!
//! Series whose samples need no more than columns of numbers are read here, several parts of a segment at a time; the
//! others go the way of all points (`derive`).

use super::batch::{MetricDesc, MetricKind, NO_RECORDED_VALUE};
use super::column_cache::ColumnCache;
use super::derive::{derive, stale};
use super::gather::Gathering;
use super::points::{Columns, Wanted};
use super::segment::{MetricSegment, SealedSeries};
use super::select::{Asked, Read, in_parts, origin};
use super::series::Part;
use super::shown::{Buckets, Extra, Judge, LabelSet, Shown, base_passes, part_passes};
use super::store::StoredPoint;
use crate::meter::Meter;
use crate::threads;
use arrow::record_batch::RecordBatch;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Rows that are decoded at a time, all threads together: about 16 MiB.
const ROWS_AT_ONCE: usize = 1 << 17;

/// Fewer rows than this are read sooner than a thread is started for them.
const ROWS_PER_THREAD: usize = 1 << 13;

/// A series to read.
struct Job<'s> {
    number: u32,
    series: &'s SealedSeries,
    /// Its parts that pass.
    shown: Arc<[Shown]>,
    /// Which of the shown parts pass the matchers on `le` and `quantile` that are not their own.
    passing: Vec<usize>,
    /// If its buckets are asked for.
    buckets: Option<Arc<Buckets>>,
}

/// What was read of a series.
struct Piece<'j, 's> {
    job: &'j Job<'s>,
    made: Vec<Made>,
    /// Times with when the counter began, Unix ms, if that was asked for.
    starts: Vec<(i64, i64)>,
    /// What no column alone tells.
    points: Vec<StoredPoint>,
    /// That more columns are needed than were read.
    again: bool,
}

impl<'j, 's> Piece<'j, 's> {
    fn new(job: &'j Job<'s>) -> Self {
        Self { job, made: Vec::new(), starts: Vec::new(), points: Vec::new(), again: false }
    }
}

/// Samples of one Prometheus series.
struct Made {
    labels: LabelSet,
    times: Arc<Vec<i64>>,
    values: Vec<f64>,
}

/// What threads know of the selector.
struct Shared<'a> {
    segment: &'a MetricSegment,
    cache: Option<&'a ColumnCache>,
    start_ms: i64,
    end_ms: i64,
    read: Read,
    wanted: Wanted,
    meter: &'a dyn Meter,
}

/// Whether columns of numbers hold all that shows of a metric: no running totals, no text.
fn is_plain(metric: &MetricDesc) -> bool {
    let kind = matches!(metric.kind, MetricKind::Gauge | MetricKind::Sum | MetricKind::Histogram);
    kind && !metric.is_delta()
}

/// Adds the samples of a segment's series as far as columns tell them. Returns the numbers of the others.
///
/// * `cache`: keeps the columns, if they may be of use again.
/// * `found`: numbers of the series, ascending.
pub(super) fn gather(
    segment: &MetricSegment,
    cache: Option<&ColumnCache>,
    found: &[u32],
    asked: &Asked<'_>,
    judge: &mut Judge<'_>,
    out: &mut Gathering<'_>,
) -> io::Result<Vec<u32>> {
    let table = segment.table()?;
    let (mut jobs, mut others) = (Vec::with_capacity(found.len()), Vec::new());
    for number in found {
        let series = &table.series[*number as usize];
        let matchers = asked.matchers_of(&series.meta);
        if !base_passes(&series.meta, matchers) {
            continue;
        }
        if !is_plain(&series.meta.metric) {
            others.push(*number);
            continue;
        }
        let shown = judge.names(&series.meta);
        let passes = |at: &usize| part_passes(&series.meta, shown[*at].part, matchers);
        let passing: Vec<usize> = (0..shown.len()).filter(passes).collect();
        if passing.is_empty() || series.rows.is_empty() {
            continue;
        }
        let has_buckets = passing.iter().any(|at| shown[*at].part == Part::Bucket);
        let buckets = has_buckets.then(|| judge.buckets(&series.bounds));
        jobs.push(Job { number: *number, series, shown, passing, buckets });
    }
    let parts = in_parts(&jobs, ROWS_AT_ONCE, |job| job.series.rows.len());
    for part in parts {
        let Asked { start_ms, end_ms, read, .. } = *asked;
        let wanted = wanted(part, read);
        let meter = out.meter;
        let shared = Shared { segment, cache, start_ms, end_ms, read, wanted, meter };
        for pieces in shared.in_parallel(part)? {
            for piece in pieces {
                let series = piece.job.series;
                out.coming_from(origin(&series.meta, (series.min_ns, series.max_ns)));
                for Made { labels, times, values } in piece.made {
                    let at = out.place(labels);
                    out.begin(at, &piece.starts);
                    out.add(at, &times, values);
                }
                if piece.again {
                    others.push(piece.job.number);
                }
                if !piece.points.is_empty() {
                    out.all.derived = true;
                    derive(&series.meta, &piece.points, asked, judge, out);
                }
                out.metered()?;
            }
        }
    }
    others.sort_unstable();
    others.dedup();
    Ok(others)
}

/// The columns that the shown parts need.
fn wanted(jobs: &[Job<'_>], read: Read) -> Wanted {
    let mut wanted = Wanted::default();
    for job in jobs {
        wanted.starts |= read.starts_of(&job.series.meta);
        let histogram = job.series.meta.metric.kind == MetricKind::Histogram;
        for at in &job.passing {
            match (job.shown[*at].part, read) {
                (Part::Sum, _) => wanted.sums = true,
                // Buckets show by their bounds.
                (Part::Bucket, Read::Presence) => wanted.bounds = true,
                // A sender may mark a series as gone by a value, too.
                (Part::Whole, Read::Presence) => wanted.fractions = true,
                (_, Read::Presence) => {}
                (Part::Bucket, _) => wanted.buckets = true,
                _ if histogram => wanted.counts = true,
                _ => wanted.numbers = true,
            }
        }
    }
    wanted
}

impl Shared<'_> {
    /// Reads the jobs, in about equal shares by several threads. What they made comes in the order of the jobs.
    fn in_parallel<'j, 's>(&self, jobs: &'j [Job<'s>]) -> io::Result<Vec<Vec<Piece<'j, 's>>>> {
        let rows: usize = jobs.iter().map(|job| job.series.rows.len()).sum();
        let threads = threads::worth(rows, ROWS_PER_THREAD);
        if threads == 1 {
            return Ok(vec![self.work(jobs)?]);
        }
        let largest = jobs.iter().map(|job| job.series.rows.len()).max().unwrap_or(0);
        let share = rows.div_ceil(threads) + largest;
        let shares = in_parts(jobs, share, |job| job.series.rows.len());
        threads::map(threads, shares, |share| self.work(share)).into_iter().collect()
    }

    fn work<'j, 's>(&self, jobs: &'j [Job<'s>]) -> io::Result<Vec<Piece<'j, 's>>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for Job { series, .. } in jobs {
            match ranges.last_mut() {
                Some(last) if last.end == series.rows.start => last.end = series.rows.end,
                _ => ranges.push(series.rows.clone()),
            }
        }
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "points end too early");
        let mut pieces = Vec::with_capacity(jobs.len() + jobs.len() / 16);
        let mut rest = jobs.iter();
        let mut job = rest.next();
        let mut done = 0;
        let visit = |batch: &RecordBatch| {
            let columns = Columns::new(batch)?;
            let mut row = 0;
            while row < batch.num_rows() {
                let now = job.ok_or_else(damaged)?;
                let left = now.series.rows.len() - done;
                let rows = row..batch.num_rows().min(row + left);
                row = rows.end;
                done += rows.len();
                pieces.push(self.piece(now, &columns, rows)?);
                if done == now.series.rows.len() {
                    (job, done) = (rest.next(), 0);
                }
            }
            Ok(())
        };
        match self.cache {
            Some(cache) => cache.read(self.segment, self.wanted, &ranges, visit)?,
            None => self.segment.visit_columns(self.wanted, &ranges, visit)?,
        }
        if job.is_some() { Err(damaged()) } else { Ok(pieces) }
    }

    /// The samples of some rows of one series.
    fn piece<'j, 's>(
        &self,
        job: &'j Job<'s>,
        columns: &Columns<'_>,
        rows: Range<usize>,
    ) -> io::Result<Piece<'j, 's>> {
        let time_ms = |ns: i64| (ns as u64 / 1_000_000) as i64;
        let times_ns = &columns.times_ns()[rows.clone()];
        let from = times_ns.partition_point(|ns| time_ms(*ns) < self.start_ms);
        let until = times_ns.partition_point(|ns| time_ms(*ns) <= self.end_ms);
        let times_ns = times_ns.get(from..until).unwrap_or_default();
        let rows = rows.start + from..rows.start + from + times_ns.len();
        let buckets = job.buckets.as_ref().map_or(0, |buckets| buckets.order.len());
        self.meter.check()?;
        self.meter.samples((rows.len() * (job.passing.len() + buckets)) as u64)?;
        if rows.is_empty() {
            return Ok(Piece::new(job));
        }
        if !columns.are_plain(&rows) {
            if self.read == Read::Presence {
                return Ok(Piece { again: true, ..Piece::new(job) });
            }
            let points = rows.map(|row| columns.point(row, job.series));
            return Ok(Piece { points: points.collect::<io::Result<_>>()?, ..Piece::new(job) });
        }
        let times = Arc::new(times_ns.iter().map(|ns| time_ms(*ns)).collect::<Vec<i64>>());
        let flags = &columns.flags()[rows.clone()];
        let gone = |flags: &i32| *flags as u32 & NO_RECORDED_VALUE != 0;
        let gone: Vec<usize> = match flags.iter().any(gone) {
            true => (0..flags.len()).filter(|at| gone(&flags[*at])).collect(),
            false => Vec::new(),
        };
        let mark = |values: &mut [f64]| gone.iter().for_each(|at| values[*at] = stale());
        let mut made = Vec::with_capacity(job.passing.len() + buckets);
        for at in &job.passing {
            let Shown { name, part } = &job.shown[*at];
            if let (Part::Bucket, Some(buckets)) = (part, &job.buckets) {
                let mut all = self.buckets(buckets, columns, &rows);
                all.iter_mut().for_each(|values| mark(values));
                for (number, values) in buckets.order.iter().zip(all) {
                    let le = buckets.les[*number].as_ref();
                    let labels = LabelSet::of(&job.series.meta, name, le);
                    made.push(Made { labels, times: times.clone(), values });
                }
                continue;
            }
            let known = rows.clone().map(|row| self.value(*part, columns, row)).collect();
            made.push(one(job, name, &times, known, &gone));
        }
        let mut starts = Vec::new();
        if self.read.starts_of(&job.series.meta) {
            let of_rows = times.iter().zip(rows).map(|(time, row)| (*time, columns.start_ns(row)));
            let known = of_rows.filter(|(_, start_ns)| *start_ns > 0);
            starts.extend(known.map(|(time, start_ns)| (time, (start_ns / 1_000_000) as i64)));
        }
        Ok(Piece { made, starts, ..Piece::new(job) })
    }

    fn value(&self, part: Part, columns: &Columns<'_>, row: usize) -> Option<f64> {
        match part {
            Part::Sum => columns.sum(row),
            Part::Whole if self.read == Read::Presence => columns.number(row).or(Some(1.0)),
            Part::Count if self.read == Read::Presence => Some(1.0),
            Part::Count => columns.count(row).map(|count| count as f64),
            Part::Whole => columns.number(row),
            Part::Bucket | Part::Quantile => None,
        }
    }

    /// Cumulative counts of the buckets that pass, in the order of their labels.
    fn buckets(
        &self,
        buckets: &Buckets,
        columns: &Columns<'_>,
        rows: &Range<usize>,
    ) -> Vec<Vec<f64>> {
        if self.read == Read::Presence {
            return vec![vec![1.0; rows.len()]; buckets.order.len()];
        }
        let mut by_number: Vec<Vec<f64>> = vec![Vec::new(); buckets.les.len()];
        let mut below = vec![0; rows.len()];
        let last = buckets.les.len() - 1;
        for (number, le) in buckets.les.iter().enumerate() {
            if number == last {
                // All observations, whatever the buckets say.
                for (sum, row) in below.iter_mut().zip(rows.clone()) {
                    *sum = columns.count(row).unwrap_or(0);
                }
            } else {
                columns.add_bucket(number, rows.clone(), &mut below);
            }
            if le.is_some() {
                by_number[number] = below.iter().map(|count| *count as f64).collect();
            }
        }
        buckets.order.iter().map(|number| std::mem::take(&mut by_number[*number])).collect()
    }
}

/// Samples of a series that may lack some.
///
/// * `gone`: places of the points that say there is no value any more.
fn one(
    job: &Job<'_>,
    name: &Extra,
    times: &Arc<Vec<i64>>,
    mut known: Vec<Option<f64>>,
    gone: &[usize],
) -> Made {
    gone.iter().for_each(|at| known[*at] = Some(stale()));
    let labels = LabelSet::of(&job.series.meta, name, None);
    let mut values = Vec::with_capacity(known.len());
    values.extend(known.iter().flatten());
    if values.len() == known.len() {
        return Made { labels, times: times.clone(), values };
    }
    let with_value = times.iter().zip(&known).filter(|(_, value)| value.is_some());
    let times = with_value.map(|(time, _)| *time).collect();
    Made { labels, times: Arc::new(times), values }
}
