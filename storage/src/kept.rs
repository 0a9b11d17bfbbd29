//! What was read of segments' files and will be asked for again, in memory within one budget: footers, series tables,
//! groups and blocks, term dictionaries.
//!
//! A directory of years has thousands of files, and a query over months opens them all: only what was asked for last
//! stays.

use parking_lot::Mutex;
use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Before [`keep_at_most`], bytes. Tests have next to nothing, so that they read things again.
const BYTES_MAX: usize = if cfg!(test) { 16 << 10 } else { 128 << 20 };

/// Shared by all stores of the process.
static ROOM: Mutex<Room> = Mutex::new(Room::new(BYTES_MAX));

/// Number of the next [`Kept`].
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Sets how much stays in memory, bytes.
pub fn keep_at_most(bytes: usize) {
    let gone = ROOM.lock().set_max(bytes);
    drop(gone);
}

/// Something that can say what it takes.
pub trait HeapBytes {
    /// Bytes of memory, an estimate; what others have as well does not count.
    fn heap_bytes(&self) -> usize;
}

/// Something that can be read again: it stays in memory while somebody has it, and after that as long as there is room.
#[derive(Debug)]
pub struct Kept<T> {
    number: u64,
    last: Mutex<Weak<T>>,
}

impl<T: HeapBytes + Any + Send + Sync> Kept<T> {
    /// Nothing was read yet.
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        Self { number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed), last: Mutex::default() }
    }

    /// It, read if need be; others who ask meanwhile wait for it.
    ///
    /// * `read`: on this thread alone; another's work, taken up while it waits, might ask for the same.
    ///
    /// # Errors
    /// Those of `read`; the next who asks tries again.
    pub fn get_or_read(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<Arc<T>> {
        let mut last = self.last.lock();
        let (value, known) = match last.upgrade() {
            Some(value) => (value, true),
            None => (Arc::new(read()?), false),
        };
        if !known {
            *last = Arc::downgrade(&value);
        }
        // It may be known because somebody has it, and yet be gone from here.
        if !(known && ROOM.lock().use_again(self.number)) {
            let bytes = value.heap_bytes();
            let gone = ROOM.lock().keep(self.number, value.clone(), bytes);
            drop(gone);
        }
        Ok(value)
    }
}

impl<T> Kept<T> {
    /// Takes no room until it is asked for again.
    pub fn forget(&self) {
        let gone = ROOM.lock().forget(self.number);
        drop(gone);
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        self.forget();
    }
}

type Value = Arc<dyn Any + Send + Sync>;

/// Values by number, and in the order in which they were last asked for. What leaves is handed back, so that it is not
/// torn down while others wait.
struct Room {
    values: BTreeMap<u64, InRoom>,
    by_use: BTreeMap<u64, u64>,
    bytes: usize,
    bytes_max: usize,
    uses: u64,
}

struct InRoom {
    value: Value,
    bytes: usize,
    last_use: u64,
}

impl Room {
    const fn new(bytes_max: usize) -> Self {
        Self { values: BTreeMap::new(), by_use: BTreeMap::new(), bytes: 0, bytes_max, uses: 0 }
    }

    /// Whether it is here.
    fn use_again(&mut self, number: u64) -> bool {
        let Some(here) = self.values.get_mut(&number) else { return false };
        self.uses += 1;
        self.by_use.remove(&here.last_use);
        self.by_use.insert(self.uses, number);
        here.last_use = self.uses;
        true
    }

    fn keep(&mut self, number: u64, value: Value, bytes: usize) -> Vec<Value> {
        let before = self.forget(number);
        self.uses += 1;
        self.bytes += bytes;
        self.values.insert(number, InRoom { value, bytes, last_use: self.uses });
        self.by_use.insert(self.uses, number);
        before.into_iter().chain(self.make_room()).collect()
    }

    fn forget(&mut self, number: u64) -> Option<Value> {
        let gone = self.values.remove(&number)?;
        self.by_use.remove(&gone.last_use);
        self.bytes -= gone.bytes;
        Some(gone.value)
    }

    fn set_max(&mut self, bytes: usize) -> Vec<Value> {
        self.bytes_max = bytes;
        self.make_room()
    }

    /// The last one stays at any rate.
    fn make_room(&mut self) -> Vec<Value> {
        let mut gone = Vec::new();
        while self.bytes > self.bytes_max && self.values.len() > 1 {
            let Some((_, number)) = self.by_use.first_key_value() else { break };
            gone.extend(self.forget(*number));
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_last_stays_within_the_room() {
        let mut room = Room::new(300);
        let value = || -> Value { Arc::new(()) };
        (1..=3).for_each(|number| assert!(room.keep(number, value(), 100).is_empty()));
        assert!(room.use_again(1));
        assert_eq!(room.keep(4, value(), 100).len(), 1);
        assert!(!room.use_again(2), "the one not asked for the longest");
        assert!([3, 1, 4].into_iter().all(|number| room.use_again(number)));
        assert_eq!(room.keep(5, value(), 250).len(), 3, "as many as it takes");
        assert_eq!(room.keep(6, value(), 1_000).len(), 1);
        assert!(room.use_again(6), "one is kept at any rate");
        assert_eq!(room.set_max(10).len(), 0);
        room.forget(6);
        assert_eq!((room.bytes, room.values.len(), room.by_use.len()), (0, 0, 0));
    }

    struct Large(u64);

    impl HeapBytes for Large {
        fn heap_bytes(&self) -> usize {
            usize::MAX >> 8
        }
    }

    #[test]
    fn a_value_is_read_once_while_somebody_has_it_and_again_when_there_was_no_room() {
        let (one, other) = (Kept::new(), Kept::new());
        let held = one.get_or_read(|| Ok(Large(1))).unwrap();
        other.get_or_read(|| Ok(Large(2))).unwrap();
        let again = one.get_or_read(|| unreachable!("it is held")).unwrap();
        assert!(Arc::ptr_eq(&held, &again));
        drop((held, again));
        // Another file's value takes all the room.
        other.get_or_read(|| Ok(Large(3))).unwrap();
        let read_anew = one.get_or_read(|| Ok(Large(4))).unwrap();
        assert_eq!(read_anew.0, 4);
        let failing = Kept::<Large>::new();
        assert!(failing.get_or_read(|| Err(io::Error::other("no file"))).is_err());
        assert_eq!(failing.get_or_read(|| Ok(Large(5))).unwrap().0, 5);
    }
}
