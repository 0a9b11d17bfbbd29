//! Merges segments of one partition into one.
//!
//! Blocks are read in the order of their first times and rows are held back only while a block that is still to come
//! may hold an earlier one, so memory stays at a few blocks however large the inputs are.

use super::batch::LogBatch;
use super::blocks::BLOCK_ROWS;
use super::groups::NO_PATTERN;
use super::miner::PatternMiner;
use super::sealed::LogSegment;
use super::write::{Place, SegmentWriter};
use crate::attribute_columns::AttributeColumns;
use crate::columnar::ScalarType;
use crate::segment::{SegmentDir, SegmentMeta};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Merges `inputs`, at least one, all of one partition.
pub fn merge(dir: &SegmentDir, inputs: &[Arc<LogSegment>], level: u32) -> io::Result<SegmentMeta> {
    let mut miner = PatternMiner::default();
    // By input, then by its own pattern number.
    let mut numbers: Vec<Vec<u32>> = Vec::new();
    let mut keys: BTreeMap<String, ScalarType> = BTreeMap::new();
    // First time, input, block.
    let mut order: Vec<(u64, usize, usize)> = Vec::new();
    let mut rows = 0;
    for (i, segment) in inputs.iter().enumerate() {
        let outline = segment.outline()?;
        let groups = &outline.groups;
        let mut counts = vec![0; groups.patterns.len()];
        for (number, block) in outline.blocks.blocks.iter().enumerate() {
            order.push((block.min_ns, i, number));
            for (group, rows) in outline.blocks.runs(block) {
                if let Some(count) = counts.get_mut(groups.groups[*group as usize].pattern as usize)
                {
                    *count += u64::from(*rows);
                }
            }
        }
        let patterns = groups.patterns.iter().zip(counts);
        numbers.push(patterns.map(|(pattern, count)| miner.add(&pattern.text, count)).collect());
        // Of two types under one key the first is taken; values of the other go to the rest column.
        for (key, scalar) in segment.file.footer()?.attribute_keys() {
            keys.entry(key.to_owned()).or_insert(scalar);
        }
        rows += segment.meta.rows as usize;
    }
    let (patterns, places) = miner.finish();
    let keys = keys.into_iter().map(|(key, scalar)| (key.into(), scalar)).collect();
    let partition_ns = inputs[0].meta.partition_ns;
    let mut writer = SegmentWriter::new(
        dir,
        partition_ns,
        level,
        rows,
        patterns,
        AttributeColumns::with_keys(keys),
    )?;
    order.sort_unstable();
    let mut held = Held::default();
    for (at, (_, i, number)) in order.iter().enumerate() {
        let segment = &inputs[*i];
        let outline = segment.outline()?;
        let block = &outline.blocks.blocks[*number];
        let batch = segment.block(block)?;
        let groups = outline.group_of_rows(block);
        let pattern = |row: usize| {
            let own = outline.groups.groups[groups[row] as usize].pattern;
            let counted = numbers[*i].get(own as usize);
            let place = counted.and_then(|counted| places.get(*counted as usize));
            place.copied().unwrap_or(NO_PATTERN)
        };
        held.add(batch, pattern);
        let open_until = order.get(at + 1).map_or(u64::MAX, |(min_ns, ..)| *min_ns);
        held.write_before(open_until, &mut writer)?;
    }
    held.write_rest(&mut writer)?;
    writer.finish(dir)
}

/// Rows that wait for their place in time.
#[derive(Default)]
struct Held {
    batches: Vec<Arc<LogBatch>>,
    /// In time order.
    rows: Vec<Place>,
}

impl Held {
    fn add(&mut self, batch: LogBatch, pattern: impl Fn(usize) -> u32) {
        let number = self.batches.len() as u32;
        self.rows.extend(batch.rows.iter().enumerate().map(|(row, fields)| Place {
            time_ns: fields.time_ns,
            batch: number,
            row: row as u32,
            pattern: pattern(row),
        }));
        self.batches.push(Arc::new(batch));
        self.rows.sort_by_key(|place| place.time_ns);
    }

    /// Writes full blocks of rows that nothing to come can precede.
    fn write_before(&mut self, time_ns: u64, writer: &mut SegmentWriter) -> io::Result<()> {
        let ready = self.rows.partition_point(|place| place.time_ns <= time_ns);
        let full = ready - ready % BLOCK_ROWS;
        for block in self.rows[..full].chunks(BLOCK_ROWS) {
            writer.push_block(&self.batches, block)?;
        }
        if full > 0 {
            self.rows.drain(..full);
            self.drop_unused();
        }
        Ok(())
    }

    fn write_rest(&mut self, writer: &mut SegmentWriter) -> io::Result<()> {
        self.rows.chunks(BLOCK_ROWS).try_for_each(|block| writer.push_block(&self.batches, block))
    }

    /// Lets batches go of which no row waits any more.
    fn drop_unused(&mut self) {
        let mut used = vec![false; self.batches.len()];
        self.rows.iter().for_each(|place| used[place.batch as usize] = true);
        let mut next = 0;
        let renamed: Vec<u32> = used
            .iter()
            .map(|used| {
                let name = next;
                next += u32::from(*used);
                name
            })
            .collect();
        self.rows.iter_mut().for_each(|place| place.batch = renamed[place.batch as usize]);
        let mut used = used.into_iter();
        self.batches.retain(|_| used.next().unwrap_or(false));
    }
}
