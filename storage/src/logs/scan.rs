//! Walks the matching rows of a snapshot, reading as little as the question allows.
//!
//! For a segment, in order: the manifest's time bounds, the groups (a filter is asked once per group), the text and
//! trace indexes for what groups leave open, the blocks' time bounds, and only then rows.

use super::batch::LogBatch;
use super::blocks::Block;
use super::filter::{LogFilter, LogRows};
use super::query::LogRange;
use super::sealed::{BlockRows, LogSegment, Outline};
use super::verdicts::Verdicts;
use std::io;

/// What a question does with the rows that fit. Each segment is shown to a visitor of its own.
pub trait Visitor: Sized + Send + Sync {
    /// Asks the same and has seen nothing.
    fn fresh(&self) -> Self;

    /// Takes in what another saw of the rows that come next.
    fn join(&mut self, other: Self);

    /// Takes all rows of a group of a segment at once, when neither their times nor their fields matter; returns
    /// whether it did.
    fn group(
        &mut self,
        _segment: &LogSegment,
        _outline: &Outline,
        _group: u32,
        _rows: u64,
    ) -> bool {
        false
    }

    /// Told before runs or rows of a block come.
    fn enter(&mut self, _block: &Block) {}

    /// Whether runs of a group in the block can be taken whole, without their rows' times and fields.
    fn takes_runs(&self, outline: &Outline, group: u32) -> bool;

    /// A run of rows all of which fit.
    fn run(&mut self, segment: &LogSegment, outline: &Outline, block: &Block, run: Run);

    /// Names the columns [`row`](Self::row) looks at, beyond those the group holds.
    fn columns(&self, segment: &LogSegment, columns: &mut Vec<String>);

    /// One row fits.
    fn row(&mut self, rows: &dyn LogRows, row: usize, time_ns: u64, origin: Origin<'_>);
}

/// Rows `first..first + rows` of a block, all of one group.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub group: u32,
    /// Its number among the runs of the block.
    pub number: usize,
    pub first: usize,
    pub rows: u32,
}

/// Where a row stands.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    Hot,
    Sealed { segment: &'a LogSegment, outline: &'a Outline, group: u32 },
}

/// Rows of a hot batch.
pub fn scan_hot(
    batch: &LogBatch,
    filter: &LogFilter,
    range: &LogRange,
    visitor: &mut impl Visitor,
) -> io::Result<()> {
    if !range.meets(batch.min_ns, batch.max_ns) {
        return Ok(());
    }
    range.check_deadline()?;
    for (row, fields) in batch.rows.iter().enumerate() {
        if range.contains(fields.time_ns) && filter.matches(batch, row) {
            visitor.row(batch, row, fields.time_ns, Origin::Hot);
        }
    }
    Ok(())
}

/// Rows of a segment whose times meet the range.
pub fn scan_segment(
    segment: &LogSegment,
    filter: &LogFilter,
    range: &LogRange,
    visitor: &mut impl Visitor,
) -> io::Result<()> {
    let Some(mut verdicts) = Verdicts::new(segment, filter)? else { return Ok(()) };
    let outline = segment.outline()?;
    let outline = &*outline;
    if range.covers(segment.meta.min_ns, segment.meta.max_ns) {
        verdicts.take_groups(segment, outline, visitor);
    }
    // Blocks whose rows must be read: for their times or fields only, or for the filter too.
    let (mut plain, mut filtered) = (Vec::new(), Vec::new());
    for (number, block) in outline.blocks.blocks.iter().enumerate() {
        if !range.meets(block.min_ns, block.max_ns) || !verdicts.may_want(number) {
            continue;
        }
        visitor.enter(block);
        let candidate = verdicts.is_candidate(number);
        let covered = range.covers(block.min_ns, block.max_ns);
        let (mut first, mut open, mut rows) = (0, false, false);
        for (run, &(group, count)) in outline.blocks.runs(block).iter().enumerate() {
            match verdicts.of_group(group) {
                Some(false) => {}
                Some(true) if covered && visitor.takes_runs(outline, group) => {
                    let run = Run { group, number: run, first, rows: count };
                    visitor.run(segment, outline, block, run);
                }
                Some(true) => rows = true,
                None => open |= candidate,
            }
            first += count as usize;
        }
        if open {
            filtered.push(number);
        } else if rows {
            plain.push(number);
        }
    }
    let mut columns = vec!["timestamp".to_owned()];
    visitor.columns(segment, &mut columns);
    let scan = Scan { segment, outline, verdicts: &verdicts, filter, range };
    scan.blocks(&plain, &columns, visitor)?;
    segment.columns_of(filter, &mut columns);
    scan.blocks(&filtered, &columns, visitor)
}

struct Scan<'a> {
    segment: &'a LogSegment,
    outline: &'a Outline,
    verdicts: &'a Verdicts,
    filter: &'a LogFilter,
    range: &'a LogRange,
}

impl Scan<'_> {
    fn blocks(
        &self,
        numbers: &[usize],
        columns: &[String],
        visitor: &mut impl Visitor,
    ) -> io::Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        for (rows, number) in self.segment.read_blocks(self.outline, columns, numbers)?.zip(numbers)
        {
            self.range.check_deadline()?;
            let rows = rows?;
            let block = rows.block;
            visitor.enter(block);
            let covered = self.range.covers(block.min_ns, block.max_ns);
            let times = rows.times()?;
            let mut first = 0;
            for &(group, count) in self.outline.blocks.runs(block) {
                let run = first..first + count as usize;
                first = run.end;
                let verdict = self.verdicts.of(*number, group);
                let taken =
                    verdict == Some(true) && covered && visitor.takes_runs(self.outline, group);
                if verdict == Some(false) || taken {
                    continue;
                }
                let origin = Origin::Sealed { segment: self.segment, outline: self.outline, group };
                for row in run {
                    let time_ns = times[row] as u64;
                    if self.range.contains(time_ns)
                        && (verdict == Some(true) || self.filter.matches(&rows, row))
                    {
                        visitor.row(&rows, row, time_ns, origin);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Rows of one block that fit, as `(row, time)`; for searches, which go block by block.
pub fn hits(
    segment: &LogSegment,
    outline: &Outline,
    verdicts: &Verdicts,
    filter: &LogFilter,
    range: &LogRange,
    number: usize,
) -> io::Result<Vec<(u32, u64)>> {
    let block = &outline.blocks.blocks[number];
    let mut columns = vec!["timestamp".to_owned()];
    let runs = outline.blocks.runs(block);
    if runs.iter().any(|(group, _)| verdicts.of(number, *group).is_none()) {
        segment.columns_of(filter, &mut columns);
    }
    let numbers = [number];
    let mut found = Vec::new();
    for rows in segment.read_blocks(outline, &columns, &numbers)? {
        let rows: BlockRows<'_> = rows?;
        let times = rows.times()?;
        let mut first = 0;
        for &(group, count) in runs {
            let run = first..first + count as usize;
            first = run.end;
            let verdict = verdicts.of(number, group);
            if verdict == Some(false) {
                continue;
            }
            for row in run {
                let time_ns = times[row] as u64;
                if range.contains(time_ns) && (verdict == Some(true) || filter.matches(&rows, row))
                {
                    found.push((row as u32, time_ns));
                }
            }
        }
    }
    Ok(found)
}
