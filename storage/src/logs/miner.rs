//! Finds the body patterns worth keeping: those that many rows share.

use super::groups::{NO_PATTERN, Pattern};
use super::tokens;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// A pattern that fewer rows of a segment share is not kept: its rows are looked at one by one.
const ROWS_MIN: u64 = 8;

/// Patterns kept per segment.
const KEPT_MAX: usize = 4096;

/// Distinct patterns counted per segment, so that bodies without any pattern don't fill memory.
const COUNTED_MAX: usize = 65_536;

/// Longer bodies have no pattern, bytes.
const BODY_BYTES_MAX: usize = 2048;

/// Numbers patterns by text and counts their rows.
#[derive(Debug, Default)]
pub struct PatternMiner {
    lookup: HashTable<u32>,
    texts: Vec<(u64, Box<str>)>,
    counts: Vec<u64>,
    scratch: String,
}

impl PatternMiner {
    /// Counts a body's pattern and returns its number, [`NO_PATTERN`] when it is not counted.
    pub fn add_body(&mut self, body: &str) -> u32 {
        let mut scratch = std::mem::take(&mut self.scratch);
        let found = body.len() <= BODY_BYTES_MAX && tokens::pattern(body, &mut scratch);
        let number = if found { self.add(&scratch, 1) } else { NO_PATTERN };
        self.scratch = scratch;
        number
    }

    /// Counts rows of a stored pattern.
    pub fn add(&mut self, text: &str, rows: u64) -> u32 {
        let hash = xxh3_64(text.as_bytes());
        let texts = &self.texts;
        let known = self.lookup.find(hash, |number| {
            let (known_hash, known) = &texts[*number as usize];
            *known_hash == hash && **known == *text
        });
        if let Some(&number) = known {
            self.counts[number as usize] += rows;
            return number;
        }
        if self.texts.len() >= COUNTED_MAX {
            return NO_PATTERN;
        }
        let number = self.texts.len() as u32;
        self.texts.push((hash, text.into()));
        self.counts.push(rows);
        let texts = &self.texts;
        self.lookup.insert_unique(hash, number, |number| texts[*number as usize].0);
        number
    }

    /// The patterns that are kept, alike ones next to each other, and for each number handed out its place among
    /// them or [`NO_PATTERN`].
    pub fn finish(self) -> (Vec<Pattern>, Vec<u32>) {
        let mut kept: Vec<u32> = (0..self.texts.len() as u32)
            .filter(|number| self.counts[*number as usize] >= ROWS_MIN)
            .collect();
        kept.sort_by_key(|number| std::cmp::Reverse(self.counts[*number as usize]));
        kept.truncate(KEPT_MAX);
        kept.sort_by_key(|number| &self.texts[*number as usize].1);
        let mut places = vec![NO_PATTERN; self.texts.len()];
        for (place, number) in kept.iter().enumerate() {
            places[*number as usize] = place as u32;
        }
        let patterns =
            kept.iter().map(|number| Pattern::new(&self.texts[*number as usize].1)).collect();
        (patterns, places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_patterns_are_kept_and_rare_ones_are_not() {
        let mut miner = PatternMiner::default();
        let numbers: Vec<u32> = (0..20).map(|i| miner.add_body(&format!("took {i} ms"))).collect();
        let rare = miner.add_body("only once");
        let (patterns, places) = miner.finish();
        assert_eq!(patterns.len(), 1);
        assert_eq!(&*patterns[0].text, "took \u{1} ms");
        assert!(numbers.iter().all(|number| places[*number as usize] == 0));
        assert_eq!(places[rare as usize], NO_PATTERN);
    }
}
