//! Footers of Parquet files in memory.

use crate::parquet_file::Footer;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Footers kept in memory, bytes.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The footers that were asked for last.
pub static KEPT: Mutex<Kept> = Mutex::new(Kept::new(KEPT_BYTES_MAX));

/// Footers by the numbers of their files. A directory of years has thousands of files, whose footers take a hundredth of
/// its bytes: only those that are asked for stay.
pub struct Kept {
    footers: BTreeMap<u64, KeptFooter>,
    bytes: usize,
    bytes_max: usize,
    /// Counts look-ups, for their order.
    uses: u64,
}

struct KeptFooter {
    footer: Arc<Footer>,
    bytes: usize,
    last_use: u64,
}

impl Kept {
    pub const fn new(bytes_max: usize) -> Self {
        Self { footers: BTreeMap::new(), bytes: 0, bytes_max, uses: 0 }
    }

    pub fn get(&mut self, number: u64) -> Option<Arc<Footer>> {
        let kept = self.footers.get_mut(&number)?;
        self.uses += 1;
        kept.last_use = self.uses;
        Some(kept.footer.clone())
    }

    pub fn keep(&mut self, number: u64, footer: Arc<Footer>) {
        self.forget(number);
        self.uses += 1;
        let bytes = footer.heap_bytes();
        self.bytes += bytes;
        self.footers.insert(number, KeptFooter { footer, bytes, last_use: self.uses });
        while self.bytes > self.bytes_max && self.footers.len() > 1 {
            let oldest = self.footers.iter().min_by_key(|(_, kept)| kept.last_use);
            let Some(number) = oldest.map(|(number, _)| *number) else { return };
            self.forget(number);
        }
    }

    pub fn forget(&mut self, number: u64) {
        if let Some(kept) = self.footers.remove(&number) {
            self.bytes -= kept.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parquet_file::tests::file;

    #[test]
    fn the_footers_asked_for_last_stay_within_their_room() {
        let folder = tempfile::tempdir().unwrap();
        let footer = Arc::new(Footer::open(&file(folder.path())).unwrap());
        let mut kept = Kept::new(footer.heap_bytes() * 3);
        (1..=3).for_each(|number| kept.keep(number, footer.clone()));
        kept.get(1).unwrap();
        kept.keep(4, footer.clone());
        assert!(kept.get(2).is_none(), "the one not asked for the longest");
        assert!([1, 3, 4].into_iter().all(|number| kept.get(number).is_some()));
        assert_eq!(kept.bytes, footer.heap_bytes() * 3);
        [1, 3, 4].into_iter().for_each(|number| kept.forget(number));
        assert_eq!(kept.bytes, 0);
        let mut small = Kept::new(1);
        small.keep(1, footer);
        assert!(small.get(1).is_some(), "one is kept at any rate");
    }
}
