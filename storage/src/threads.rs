//! One query's or replay's work on several cores.

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;

/// Threads that stay: those made anew for each query would begin without memory at hand, and what they ask for first
/// costs more than they save. There are two for each core, so that a small query need not wait until a large one is
/// through.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let name = |number| format!("worker-{number}");
        let built = ThreadPoolBuilder::new().num_threads(2 * cores()).thread_name(name).build();
        built.inspect_err(|error| tracing::warn!(%error, "no threads; queries use one core")).ok()
    });
    pool.as_ref()
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Threads that an amount of work deserves: one for each `share` of it, at most one a core, at least one.
pub fn worth(work: usize, share: usize) -> usize {
    cores().min(work / share.max(1)).max(1)
}

/// What `work` makes of each item, in the order of the items. The calling thread works too.
///
/// # Panics
/// When `work` does, with its message.
pub fn map<T: Send, R: Send>(
    threads: usize,
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let items: Vec<T> = items.into_iter().collect();
    let threads = threads.min(items.len());
    let Some(pool) = (threads > 1).then(pool).flatten() else {
        return items.into_iter().map(work).collect();
    };
    let waiting = Mutex::new(items.into_iter().enumerate());
    let done: Mutex<Vec<(usize, R)>> = Mutex::default();
    let run = || {
        loop {
            let next = waiting.lock().next();
            let Some((place, item)) = next else { return };
            let made = work(item);
            done.lock().push((place, made));
        }
    };
    pool.in_place_scope(|scope| {
        (1..threads).for_each(|_| scope.spawn(|_| run()));
        run();
    });
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_items_however_many_threads_there_are() {
        let want: Vec<u64> = (0..100).map(|n| n * n).collect();
        for threads in [0, 1, 2, 3, 200] {
            assert_eq!(map(threads, 0..100u64, |n| n * n), want, "{threads} threads");
        }
        assert!(map(4, [0; 0], |n: i32| n).is_empty());
    }

    #[test]
    fn items_may_be_changed_in_place() {
        let mut numbers = [1, 2, 3, 4, 5];
        map(2, numbers.chunks_mut(2), |part| part.iter_mut().for_each(|n| *n *= 2));
        assert_eq!(numbers, [2, 4, 6, 8, 10]);
    }

    #[test]
    #[should_panic(expected = "the third")]
    fn a_panic_is_passed_on() {
        map(2, 0..5, |n| assert!(n != 3, "the third"));
    }

    #[test]
    fn little_work_deserves_one_thread() {
        assert_eq!(worth(0, 10), 1);
        assert_eq!(worth(19, 10), 1);
        assert!(worth(1_000, 10) >= 1);
    }
}
