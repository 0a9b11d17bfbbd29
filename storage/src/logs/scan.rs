//! Walks the matching rows of a snapshot, reading as little as the question allows.
//!
//! For a segment, in order: the manifest's time bounds, the groups (a filter is asked once per group), the text and
//! trace indexes for what groups leave open, the blocks' time bounds, and only then rows.

use super::batch::LogBatch;
use super::filter::{LogFilter, LogRows};
use super::groups::Block;
use super::query::LogRange;
use super::sealed::{BlockRows, LogSegment, Outline};
use std::io;

/// What a question does with the rows that fit.
pub trait Visitor {
    /// Whether runs of a group in a block can be taken whole, without their rows' times and fields.
    fn takes_run(&self, outline: &Outline, block: &Block, group: u32) -> bool;

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

/// What the groups of a segment say to a filter.
pub struct Verdicts {
    /// By group: all rows fit, none fits, or it depends.
    by_group: Vec<Option<bool>>,
    /// Blocks in which rows of undecided groups can fit; `None` = all.
    candidates: Option<roaring::RoaringBitmap>,
}

impl Verdicts {
    pub fn new(segment: &LogSegment, outline: &Outline, filter: &LogFilter) -> io::Result<Self> {
        let groups = &outline.groups;
        let by_group: Vec<Option<bool>> = (0..groups.groups.len() as u32)
            .map(|group| filter.matches_group(&groups.facts(group)))
            .collect();
        let open = by_group.contains(&None);
        let candidates = if open { segment.candidates(filter)? } else { None };
        Ok(Self { by_group, candidates })
    }

    /// The verdict on a run, given its block.
    pub fn of(&self, block: usize, group: u32) -> Option<bool> {
        match self.by_group[group as usize] {
            None if self.candidates.as_ref().is_some_and(|c| !c.contains(block as u32)) => {
                Some(false)
            }
            verdict => verdict,
        }
    }

    /// Whether any row of a block can fit.
    pub fn wants(&self, outline: &Outline, number: usize) -> bool {
        let runs = outline.blocks.runs(&outline.blocks.blocks[number]);
        runs.iter().any(|(group, _)| self.of(number, *group) != Some(false))
    }
}

/// Rows of a segment.
pub fn scan_segment(
    segment: &LogSegment,
    filter: &LogFilter,
    range: &LogRange,
    visitor: &mut impl Visitor,
) -> io::Result<()> {
    if !range.meets(segment.meta.min_ns, segment.meta.max_ns) {
        return Ok(());
    }
    let outline = segment.outline()?;
    let verdicts = Verdicts::new(segment, outline, filter)?;
    // Blocks whose rows must be read: for their times or fields only, or for the filter too.
    let (mut plain, mut filtered) = (Vec::new(), Vec::new());
    for (number, block) in outline.blocks.blocks.iter().enumerate() {
        if !range.meets(block.min_ns, block.max_ns) {
            continue;
        }
        let covered = range.covers(block.min_ns, block.max_ns);
        let (mut first, mut open, mut rows) = (0, false, false);
        for &(group, count) in outline.blocks.runs(block) {
            match verdicts.of(number, group) {
                Some(false) => {}
                Some(true) if covered && visitor.takes_run(outline, block, group) => {
                    visitor.run(segment, outline, block, Run { group, first, rows: count });
                }
                Some(true) => rows = true,
                None => open = true,
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
            let covered = self.range.covers(block.min_ns, block.max_ns);
            let times = rows.times()?;
            let mut first = 0;
            for &(group, count) in self.outline.blocks.runs(block) {
                let run = first..first + count as usize;
                first = run.end;
                let verdict = self.verdicts.of(*number, group);
                let taken = verdict == Some(true)
                    && covered
                    && visitor.takes_run(self.outline, block, group);
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
        for (row, time) in times.iter().enumerate() {
            let time_ns = *time as u64;
            let fits = || match verdicts.of(number, rows.group(row)) {
                Some(known) => known,
                None => filter.matches(&rows, row),
            };
            if range.contains(time_ns) && fits() {
                found.push((row as u32, time_ns));
            }
        }
    }
    Ok(found)
}
