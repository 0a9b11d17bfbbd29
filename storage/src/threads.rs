//! One query's or replay's work on several cores.

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::Builder;

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

/// A job under way on another thread, see [`beside`].
pub struct Beside<T>(mpsc::Receiver<std::thread::Result<T>>);

impl<T> Beside<T> {
    /// What the job made.
    ///
    /// # Panics
    /// When the job did, with its message.
    pub fn wait(self) -> T {
        match self.0.recv().expect("a job sends what it made, also when it panics") {
            Ok(made) => made,
            Err(panic) => resume_unwind(panic),
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that sleep until there is something to do. Those of [`pool`] look around for more work after each job, which
/// costs a query of a millisecond a quarter of its CPU time.
fn sleepers() -> Option<&'static mpsc::Sender<Job>> {
    static JOBS: OnceLock<Option<mpsc::Sender<Job>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        let mut threads = 0;
        for number in 0..2 * cores() {
            let waiting = waiting.clone();
            let run = move || {
                loop {
                    let next = waiting.lock().recv();
                    let Ok(job) = next else { return };
                    job();
                }
            };
            threads +=
                usize::from(Builder::new().name(format!("reader-{number}")).spawn(run).is_ok());
        }
        (threads > 0).then_some(jobs)
    });
    jobs.as_ref()
}

/// Begins a job on another thread, for a short one that a query needs soon. A job waits for no other job.
pub fn beside<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Beside<T> {
    let (done, made) = mpsc::sync_channel(1);
    let job = move || {
        // Whoever waits may have gone.
        let _ = done.send(catch_unwind(AssertUnwindSafe(job)));
    };
    match sleepers() {
        // The receivers live as long as the process.
        Some(jobs) => drop(jobs.send(Box::new(job))),
        None => job(),
    }
    Beside(made)
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
    fn jobs_beside_give_what_they_make_and_pass_panics_on() {
        let jobs: Vec<_> = (0..50u64).map(|n| beside(move || n * n)).collect();
        let made: Vec<u64> = jobs.into_iter().map(Beside::wait).collect();
        assert_eq!(made, (0..50).map(|n| n * n).collect::<Vec<u64>>());
        let failed = catch_unwind(|| beside(|| panic!("on purpose")).wait());
        assert_eq!(failed.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
        assert_eq!(beside(|| 7).wait(), 7, "the threads live on");
    }

    #[test]
    fn little_work_deserves_one_thread() {
        assert_eq!(worth(0, 10), 1);
        assert_eq!(worth(19, 10), 1);
        assert!(worth(1_000, 10) >= 1);
    }
}
