//! What was used last, up to a number of bytes.

use rustc_hash::FxHashMap;
use std::hash::Hash;

/// Lets go what was not used for longest. For few entries: each is a part of a large read.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: FxHashMap<K, Entry<V>>,
    /// Of all entries.
    bytes: usize,
    bytes_max: usize,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K, V> Default for Recent<K, V> {
    /// Keeps nothing.
    fn default() -> Self {
        Self { entries: FxHashMap::default(), bytes: 0, bytes_max: 0, clock: 0 }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Recent<K, V> {
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Keeps so many bytes at most.
    pub(super) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.shrink();
    }

    pub(super) fn find(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    pub(super) fn insert(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        self.bytes += bytes;
        self.entries.insert(key, Entry { value, bytes, used: self.clock });
        self.shrink();
    }

    /// Forgets what is gone.
    pub(super) fn forget(&mut self, gone: impl Fn(&K) -> bool) {
        let keys: Vec<K> = self.entries.keys().filter(|key| gone(key)).cloned().collect();
        keys.iter().for_each(|key| self.remove(key));
    }

    fn remove(&mut self, key: &K) {
        if let Some(gone) = self.entries.remove(key) {
            self.bytes -= gone.bytes;
        }
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            self.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut recent = Recent::default();
        recent.limit(30);
        for key in 0..3 {
            recent.insert(key, (), 10);
            recent.find(&0);
        }
        recent.limit(20);
        assert_eq!([0, 1, 2].map(|key| recent.find(&key).is_some()), [true, false, true]);
        recent.forget(|key| *key == 2);
        assert_eq!([0, 1, 2].map(|key| recent.find(&key).is_some()), [true, false, false]);
        assert_eq!(recent.bytes, 10);
    }
}
