//! A small cache: entries live for a while, and the least recently used one makes room.

use std::collections::HashMap;
use std::time::{Duration, Instant};

pub struct Cache<V> {
    entries: HashMap<String, Entry<V>>,
    entries_max: usize,
    lifetime: Duration,
    /// Counts uses, to know which came last.
    clock: u64,
}

struct Entry<V> {
    value: V,
    stored: Instant,
    used: u64,
}

impl<V: Clone> Cache<V> {
    pub fn new(entries_max: usize, lifetime: Duration) -> Self {
        Self { entries: HashMap::new(), entries_max, lifetime, clock: 0 }
    }

    /// What is stored under `key`, unless it is too old.
    pub fn get(&mut self, key: &str, now: Instant) -> Option<V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        if now - entry.stored >= self.lifetime {
            self.entries.remove(key);
            return None;
        }
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    pub fn put(&mut self, key: String, value: V, now: Instant) {
        self.clock += 1;
        if self.entries.len() >= self.entries_max && !self.entries.contains_key(&key) {
            // A scan is cheap at this size and needs no second structure.
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.entries.remove(&key);
            }
        }
        self.entries.insert(key, Entry { value, stored: now, used: self.clock });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_entry_makes_room() {
        let now = Instant::now();
        let mut cache = Cache::new(2, Duration::from_secs(10));
        cache.put("a".into(), 1, now);
        cache.put("b".into(), 2, now);
        assert_eq!(cache.get("a", now), Some(1));
        cache.put("c".into(), 3, now);
        assert_eq!((cache.get("a", now), cache.get("b", now)), (Some(1), None));
    }

    #[test]
    fn an_old_entry_is_gone() {
        let now = Instant::now();
        let mut cache = Cache::new(2, Duration::from_secs(10));
        cache.put("a".into(), 1, now);
        assert_eq!(cache.get("a", now + Duration::from_secs(9)), Some(1));
        assert_eq!(cache.get("a", now + Duration::from_secs(10)), None);
    }
}
