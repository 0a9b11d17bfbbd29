//! Idempotency keys: the answers already given, so that a repeated request changes nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Answers remembered; at the demo's rate more than an hour's.
const KEYS_MAX: usize = 20_000;

pub struct Keys<V>(Mutex<Remembered<V>>);

struct Remembered<V> {
    answers: HashMap<String, V>,
    /// Keys in order of arrival; the first is the first to be forgotten.
    order: VecDeque<String>,
}

impl<V> Default for Keys<V> {
    fn default() -> Self {
        Self(Mutex::new(Remembered { answers: HashMap::new(), order: VecDeque::new() }))
    }
}

impl<V: Clone> Keys<V> {
    pub fn get(&self, key: &str) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).answers.get(key).cloned()
    }

    /// Remembers the first answer to `key`; a later one is not taken.
    pub fn put(&self, key: &str, answer: V) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.answers.contains_key(key) {
            return;
        }
        if remembered.order.len() >= KEYS_MAX
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.answers.remove(&oldest);
        }
        remembered.order.push_back(key.to_owned());
        remembered.answers.insert(key.to_owned(), answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_stays() {
        let keys = Keys::default();
        keys.put("a", 1);
        keys.put("a", 2);
        assert_eq!((keys.get("a"), keys.get("b")), (Some(1), None));
    }

    #[test]
    fn the_oldest_answer_is_forgotten() {
        let keys = Keys::default();
        for n in 0..=KEYS_MAX {
            keys.put(&n.to_string(), n);
        }
        assert_eq!(keys.get("0"), None);
        assert_eq!(keys.get("1"), Some(1));
        assert_eq!(keys.get(&KEYS_MAX.to_string()), Some(KEYS_MAX));
    }
}
