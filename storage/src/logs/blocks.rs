//! Blocks: the rows of a log segment in slices of time, each a list of runs of one group.
//!
//! A *block* is 4,096 rows that follow each other in time (the last block of a segment may be shorter). Inside a block
//! rows are sorted by group, then time, so a block is a short list of runs `(group, rows)`. A block that reaches over
//! the end of a minute also knows how many rows of each run lie in which minute: counts over time need no rows.

use std::ops::Range;

/// Rows of a full block; also the rows of a Parquet page.
pub const BLOCK_ROWS: usize = 4096;

/// What blocks count by, ns.
pub const MINUTE_NS: u64 = 60_000_000_000;

/// A block that reaches over more minutes does not count by them: where logs are that rare, rows are few too.
const MINUTES_MAX: u64 = 8;

/// One block of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub first_row: usize,
    pub rows: usize,
    /// Unix ns, both inclusive.
    pub min_ns: u64,
    pub max_ns: u64,
    runs: Range<usize>,
    minutes: Range<usize>,
}

impl Block {
    pub fn row_range(&self) -> Range<usize> {
        self.first_row..self.first_row + self.rows
    }

    /// Whether it is known how many rows of each run lie in which minute.
    pub fn counts_minutes(&self) -> bool {
        !self.minutes.is_empty() || self.min_ns / MINUTE_NS == self.max_ns / MINUTE_NS
    }
}

/// Numbers that a block keeps for each run: one for each minute but the last, none when there are too many.
pub fn minute_columns(min_ns: u64, max_ns: u64) -> usize {
    let columns = (max_ns / MINUTE_NS).saturating_sub(min_ns / MINUTE_NS);
    if columns < MINUTES_MAX { columns as usize } else { 0 }
}

/// All blocks of a segment in row order, which is time order.
#[derive(Debug, Default)]
pub struct Blocks {
    pub blocks: Vec<Block>,
    /// `(group, rows)` of all blocks.
    runs: Vec<(u32, u32)>,
    /// Rows by run and minute, see [`minute_columns`].
    minutes: Vec<u16>,
}

impl Blocks {
    /// Adds the next block, with the group and time of each of its rows: grouped, and by time in each group.
    pub fn push_rows(&mut self, rows: &[(u32, u64)]) {
        let times = || rows.iter().map(|(_, time_ns)| *time_ns);
        let (Some(min_ns), Some(max_ns)) = (times().min(), times().max()) else { return };
        let by_group = || rows.chunk_by(|a, b| a.0 == b.0);
        let runs: Vec<(u32, u32)> = by_group().map(|run| (run[0].0, run.len() as u32)).collect();
        let first = min_ns / MINUTE_NS;
        let columns = minute_columns(min_ns, max_ns);
        let mut minutes = vec![0; runs.len() * columns];
        if columns > 0 {
            for (counts, run) in minutes.chunks_exact_mut(columns).zip(by_group()) {
                for (_, time_ns) in run {
                    if let Some(count) = counts.get_mut((time_ns / MINUTE_NS - first) as usize) {
                        *count += 1;
                    }
                }
            }
        }
        // Counts of its own rows always fit.
        let _ = self.push(min_ns, max_ns, &runs, &minutes);
    }

    /// Adds the next block; `None` for minutes that can't be those of the runs.
    ///
    /// * `minutes`: for each run as many as [`minute_columns`] says, or none at all.
    pub fn push(
        &mut self,
        min_ns: u64,
        max_ns: u64,
        runs: &[(u32, u32)],
        minutes: &[u16],
    ) -> Option<()> {
        let columns = minutes.len().checked_div(runs.len()).unwrap_or(0);
        if columns > 0 {
            let counted = |counts: &[u16]| counts.iter().map(|rows| u32::from(*rows)).sum::<u32>();
            let fit = runs.iter().zip(minutes.chunks(columns)).all(|(run, c)| counted(c) <= run.1);
            if !fit {
                return None;
            }
        }
        let (runs_from, minutes_from) = (self.runs.len(), self.minutes.len());
        self.runs.extend_from_slice(runs);
        self.minutes.extend_from_slice(minutes);
        self.blocks.push(Block {
            first_row: self.rows(),
            rows: runs.iter().map(|(_, rows)| *rows as usize).sum(),
            min_ns,
            max_ns,
            runs: runs_from..self.runs.len(),
            minutes: minutes_from..self.minutes.len(),
        });
        Some(())
    }

    pub fn runs(&self, block: &Block) -> &[(u32, u32)] {
        &self.runs[block.runs.clone()]
    }

    /// Rows by run and minute, see [`minute_columns`].
    pub fn minutes(&self, block: &Block) -> &[u16] {
        &self.minutes[block.minutes.clone()]
    }

    pub fn rows(&self) -> usize {
        self.blocks.last().map_or(0, |block| block.row_range().end)
    }

    /// Heap bytes.
    pub fn heap_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>()
            + self.runs.capacity() * size_of::<(u32, u32)>()
            + self.minutes.capacity() * size_of::<u16>()
    }

    pub fn shrink_to_fit(&mut self) {
        self.runs.shrink_to_fit();
        self.minutes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_by_run_and_minute() {
        let minute = |n: u64| n * MINUTE_NS;
        let mut blocks = Blocks::default();
        blocks.push_rows(&[(3, minute(9) + 1), (3, minute(9) + 2), (5, minute(9) + 5)]);
        blocks.push_rows(&[(3, minute(9) + 7), (3, minute(11)), (5, minute(10)), (7, minute(11))]);
        blocks.push_rows(&[(3, minute(12)), (3, minute(90))]);
        let minutes = |block: usize| blocks.minutes(&blocks.blocks[block]);
        assert_eq!(minutes(0), [0; 0], "one minute has all rows");
        // By run: rows in minute 9, rows in minute 10; the others are in minute 11.
        assert_eq!(minutes(1), [1, 0, 0, 1, 0, 0]);
        let counts: Vec<bool> = blocks.blocks.iter().map(Block::counts_minutes).collect();
        assert_eq!(counts, [true, true, false], "78 minutes are too many");
        assert_eq!(blocks.rows(), 9);
    }

    #[test]
    fn more_rows_in_minutes_than_in_the_run_are_refused() {
        let mut blocks = Blocks::default();
        assert!(blocks.push(0, MINUTE_NS, &[(0, 2), (1, 1)], &[2, 2]).is_none());
        assert!(blocks.push(0, MINUTE_NS, &[(0, 2), (1, 1)], &[2, 0]).is_some());
    }
}
