//! A fixed view of the logs and the questions it answers.

use super::batch::LogBatch;
use super::blocks::Block;
use super::filter::{LogFilter, LogRows};
use super::histogram::Histogram;
use super::query::{Bucket, By, LogQuery, LogRange, Order};
use super::row::LogRow;
use super::scan::{self, Origin, Run, Visitor};
use super::sealed::{LogSegment, Outline};
use super::verdicts::Verdicts;
use crate::threads;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::sync::Arc;

/// Rows of segments that are scanned sooner than a thread is started for them: a filter decides most by the group.
const ROWS_PER_THREAD: usize = 1 << 17;

/// A fixed view of the logs: cheap to make, unaffected by what comes later.
#[derive(Debug, Clone)]
pub struct LogSnapshot {
    pub(super) hot: Vec<Arc<LogBatch>>,
    pub(super) segments: Vec<Arc<LogSegment>>,
}

impl LogSnapshot {
    /// Matching records in time order, at most `limit`; reading stops as soon as no other can come before them.
    pub fn search(&self, query: &LogQuery) -> io::Result<Vec<LogRow>> {
        Search::new(self, query).run()
    }

    /// Exact number of matching records.
    pub fn count(&self, filter: &LogFilter, range: &LogRange) -> io::Result<u64> {
        let mut count = Count(0);
        self.scan(filter, range, &mut count)?;
        Ok(count.0)
    }

    /// Matching records per step of time, exact, in time order.
    ///
    /// * `step_ns`: at least 1.
    pub fn histogram(
        &self,
        filter: &LogFilter,
        range: &LogRange,
        step_ns: u64,
        by: &By,
    ) -> io::Result<Vec<Bucket>> {
        let mut histogram = Histogram::new(step_ns.max(1), by);
        self.scan(filter, range, &mut histogram)?;
        Ok(histogram.finish())
    }

    /// Shows every matching row, or run of rows, to a visitor.
    pub(super) fn scan<V: Visitor>(
        &self,
        filter: &LogFilter,
        range: &LogRange,
        visitor: &mut V,
    ) -> io::Result<()> {
        let segments: Vec<&LogSegment> = (self.segments.iter().map(Arc::as_ref))
            .filter(|segment| range.meets(segment.meta.min_ns, segment.meta.max_ns))
            .collect();
        let rows: u64 = segments.iter().map(|segment| segment.meta.rows).sum();
        let threads = threads::worth(rows as usize, ROWS_PER_THREAD);
        let asked = &*visitor;
        let seen = threads::map(threads, segments, |segment| -> io::Result<V> {
            let mut own = asked.fresh();
            scan::scan_segment(segment, filter, range, &mut own)?;
            Ok(own)
        });
        for own in seen {
            visitor.join(own?);
        }
        for batch in &self.hot {
            scan::scan_hot(batch, filter, range, visitor)?;
        }
        Ok(())
    }
}

struct Count(u64);

impl Visitor for Count {
    fn fresh(&self) -> Self {
        Self(0)
    }

    fn join(&mut self, other: Self) {
        self.0 += other.0;
    }

    fn group(&mut self, _segment: &LogSegment, _outline: &Outline, _group: u32, rows: u64) -> bool {
        self.0 += rows;
        true
    }

    fn takes_runs(&self, _outline: &Outline, _group: u32) -> bool {
        true
    }

    fn run(&mut self, _segment: &LogSegment, _outline: &Outline, _block: &Block, run: Run) {
        self.0 += u64::from(run.rows);
    }

    fn columns(&self, _segment: &LogSegment, _columns: &mut Vec<String>) {}

    fn row(&mut self, _rows: &dyn LogRows, _row: usize, _time_ns: u64, _origin: Origin<'_>) {
        self.0 += 1;
    }
}

/// Where rows of a search come from, the nearest in time first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Hot(u32),
    Segment(u32),
    Block(u32, u32),
}

/// One search: sources in time order, the best rows so far, and an end as soon as no source can add one.
struct Search<'a> {
    snapshot: &'a LogSnapshot,
    query: &'a LogQuery,
    sources: BinaryHeap<(u64, Source)>,
    /// Sort key (smaller is worse), source, row.
    best: BinaryHeap<Reverse<(u64, Source, u32)>>,
    verdicts: FxHashMap<u32, Verdicts>,
}

impl<'a> Search<'a> {
    fn new(snapshot: &'a LogSnapshot, query: &'a LogQuery) -> Self {
        let mut search = Self {
            snapshot,
            query,
            sources: BinaryHeap::new(),
            best: BinaryHeap::new(),
            verdicts: FxHashMap::default(),
        };
        for (i, batch) in snapshot.hot.iter().enumerate() {
            search.add_source(batch.min_ns, batch.max_ns, Source::Hot(i as u32));
        }
        for (i, segment) in snapshot.segments.iter().enumerate() {
            let meta = &segment.meta;
            search.add_source(meta.min_ns, meta.max_ns, Source::Segment(i as u32));
        }
        search
    }

    /// Larger is better.
    fn key(&self, time_ns: u64) -> u64 {
        match self.query.order {
            Order::NewestFirst => time_ns,
            Order::OldestFirst => !time_ns,
        }
    }

    fn add_source(&mut self, min_ns: u64, max_ns: u64, source: Source) {
        if self.query.range.meets(min_ns, max_ns) {
            let nearest = self.key(min_ns).max(self.key(max_ns));
            self.sources.push((nearest, source));
        }
    }

    /// Whether a row of this key would be kept.
    fn wants(&self, key: u64) -> bool {
        self.best.len() < self.query.limit
            || self.best.peek().is_some_and(|Reverse((worst, ..))| key > *worst)
    }

    fn add(&mut self, time_ns: u64, source: Source, row: u32) {
        let key = self.key(time_ns);
        if self.wants(key) {
            self.best.push(Reverse((key, source, row)));
            if self.best.len() > self.query.limit {
                self.best.pop();
            }
        }
    }

    fn run(mut self) -> io::Result<Vec<LogRow>> {
        while let Some((nearest, source)) = self.sources.pop() {
            if !self.wants(nearest) {
                break;
            }
            self.query.range.check_deadline()?;
            match source {
                Source::Hot(i) => self.search_hot(i),
                Source::Segment(i) => self.open_segment(i)?,
                Source::Block(i, number) => self.search_block(i, number)?,
            }
        }
        self.read_rows()
    }

    fn search_hot(&mut self, i: u32) {
        let (query, batch) = (self.query, &self.snapshot.hot[i as usize]);
        let mut look = |row: usize| {
            let time_ns = batch.rows[row].time_ns;
            if query.range.contains(time_ns)
                && self.wants(self.key(time_ns))
                && query.filter.matches(&**batch, row)
            {
                self.add(time_ns, Source::Hot(i), row as u32);
            }
        };
        // Rows mostly stand in time order: the best first spares looking at the others.
        match query.order {
            Order::NewestFirst => (0..batch.len()).rev().for_each(&mut look),
            Order::OldestFirst => (0..batch.len()).for_each(&mut look),
        }
    }

    fn open_segment(&mut self, i: u32) -> io::Result<()> {
        let segment = &self.snapshot.segments[i as usize];
        let Some(verdicts) = Verdicts::new(segment, &self.query.filter)? else { return Ok(()) };
        let outline = segment.outline()?;
        for (number, block) in outline.blocks.blocks.iter().enumerate() {
            if verdicts.wants(&outline, number) {
                self.add_source(block.min_ns, block.max_ns, Source::Block(i, number as u32));
            }
        }
        self.verdicts.insert(i, verdicts);
        Ok(())
    }

    fn search_block(&mut self, i: u32, number: u32) -> io::Result<()> {
        let segment = &self.snapshot.segments[i as usize];
        let outline = segment.outline()?;
        let verdicts = &self.verdicts[&i];
        let LogQuery { filter, range, .. } = self.query;
        let hits = scan::hits(segment, &outline, verdicts, filter, range, number as usize)?;
        for (row, time_ns) in hits {
            self.add(time_ns, Source::Block(i, number), row);
        }
        Ok(())
    }

    /// Reads the rows found, source by source, and puts them in order.
    fn read_rows(self) -> io::Result<Vec<LogRow>> {
        let mut hits = self.best.into_vec();
        hits.sort_unstable();
        let mut rows: Vec<Option<LogRow>> = vec![None; hits.len()];
        // By segment, then by block: rows with their places in the answer.
        let mut sealed: BTreeMap<u32, BTreeMap<u32, Vec<(u32, usize)>>> = BTreeMap::new();
        for (place, Reverse((_, source, row))) in hits.iter().enumerate() {
            match source {
                Source::Hot(i) => {
                    rows[place] = Some(self.snapshot.hot[*i as usize].row(*row as usize));
                }
                Source::Block(i, number) => {
                    let blocks = sealed.entry(*i).or_default();
                    blocks.entry(*number).or_default().push((*row, place));
                }
                // Segments are opened into blocks; none holds rows itself.
                Source::Segment(_) => {}
            }
        }
        for (i, blocks) in sealed {
            self.query.range.check_deadline()?;
            let (mut wanted, mut places) = (Vec::new(), Vec::new());
            for (number, mut of_block) in blocks {
                of_block.sort_unstable();
                wanted.push((number as usize, of_block.iter().map(|(row, _)| *row).collect()));
                places.extend(of_block.iter().map(|(_, place)| *place));
            }
            let batch = self.snapshot.segments[i as usize].rows(&wanted)?;
            for (at, place) in places.into_iter().enumerate() {
                rows[place] = Some(batch.row(at));
            }
        }
        Ok(rows.into_iter().flatten().collect())
    }
}
