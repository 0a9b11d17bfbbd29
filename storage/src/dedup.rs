//! A retry is not a duplicate: content hashes of recent requests with the answers they got.
//!
//! The window is rebuilt at start from the file saved with the manifest, which holds what lies before the manifest's
//! log position, and the frames replayed after it. A saved window never speaks of later frames: replay would take
//! them for repeats of themselves.

use crate::store::Ack;
use crate::window_file;
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

#[derive(Debug)]
enum Entry {
    /// The first request with this content is on its way; twins wait for its end.
    InFlight(watch::Receiver<bool>),
    Done(Remembered),
}

/// A stored request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Unix ns.
    pub arrival_ns: u64,
    /// Log position after its frame.
    pub end: u64,
    pub accepted: u64,
    pub rejected: u64,
    pub reason: Option<Box<str>>,
}

impl Remembered {
    pub fn new(arrival_ns: u64, end: u64, ack: &Ack) -> Self {
        let Ack { accepted, rejected, ref reason, .. } = *ack;
        Self { arrival_ns, end, accepted, rejected, reason: reason.as_deref().map(Box::from) }
    }

    /// The answer that it got.
    pub fn ack(&self) -> Ack {
        Ack {
            accepted: self.accepted,
            rejected: self.rejected,
            reason: self.reason.as_deref().map(str::to_owned),
            duplicate: false,
        }
    }
}

/// What to do with a request.
pub enum Admission {
    /// Nobody sent this yet: go on, and settle the ticket.
    Fresh(Ticket),
    /// Stored before, with this answer.
    Duplicate(Ack),
    /// Read back from the log at the start, and not sealed since: seal, then ask again. A process that was killed
    /// between writing and syncing leaves frames that only the page cache holds, and after a failed sync no later one
    /// need bring them to the disk. They can be seen, but must not be acknowledged.
    Unsure,
    /// A twin is being stored: wait until the channel changes or closes, then ask again.
    Wait(watch::Receiver<bool>),
}

/// Held by the first request; dropped unsettled it lets a twin try.
pub struct Ticket {
    window: Arc<Window>,
    hash: u128,
    _done: watch::Sender<bool>,
    settled: bool,
}

/// The window of remembered requests.
#[derive(Debug)]
pub struct Window {
    length_ns: u64,
    entries_max: usize,
    /// Log positions up to which requests are sealed, and were read back at the start.
    sealed: AtomicU64,
    replayed: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: FxHashMap<u128, Entry>,
    /// (arrival ns, hash) in order of settling.
    order: VecDeque<(u64, u128)>,
    /// Entries dropped for room before their time.
    crowded_out: u64,
    /// A file that was not read yet, and the log position up to which it counts.
    saved: Option<(PathBuf, u64)>,
}

impl Window {
    /// * `entries_max`: kept at most, whatever the window; about 130 bytes each.
    pub fn new(length: Duration, entries_max: usize) -> Self {
        let length_ns = length.as_nanos().try_into().unwrap_or(u64::MAX);
        let (sealed, replayed) = Default::default();
        Self { length_ns, entries_max, sealed, replayed, state: Mutex::default() }
    }

    /// Sets the log positions up to which all was sealed before the start, and up to which the rest was read back.
    pub fn begin(&self, sealed: u64, replayed: u64) {
        self.sealed.store(sealed, Ordering::Release);
        self.replayed.store(replayed, Ordering::Release);
    }

    /// What ends at or before a log position is in segments that a manifest names, durably.
    pub fn note_sealed(&self, position: u64) {
        self.sealed.fetch_max(position, Ordering::AcqRel);
    }

    /// Looks a request up and, if it is new, enters it as on its way.
    pub fn admit(self: &Arc<Self>, hash: u128, arrival_ns: u64) -> Admission {
        let mut state = self.state();
        state.forget(arrival_ns.saturating_sub(self.length_ns));
        match state.entries.get(&hash) {
            Some(Entry::Done(first)) if self.covers(first, arrival_ns) => {
                let was_read_back = first.end <= self.replayed.load(Ordering::Acquire);
                let is_unsure = was_read_back && first.end > self.sealed.load(Ordering::Acquire);
                return if is_unsure {
                    Admission::Unsure
                } else {
                    Admission::Duplicate(first.ack())
                };
            }
            Some(Entry::InFlight(twin)) => return Admission::Wait(twin.clone()),
            _ => {}
        }
        let (done, waiting) = watch::channel(false);
        state.entries.insert(hash, Entry::InFlight(waiting));
        Admission::Fresh(Ticket { window: self.clone(), hash, _done: done, settled: false })
    }

    fn covers(&self, first: &Remembered, arrival_ns: u64) -> bool {
        first.arrival_ns.saturating_add(self.length_ns) >= arrival_ns
    }

    /// Whether a frame read back repeats a remembered one: asked with the time at which it came in, so that the answer
    /// is the one it got then.
    pub fn repeats(&self, hash: u128, arrival_ns: u64) -> bool {
        let state = self.state();
        matches!(state.entries.get(&hash), Some(Entry::Done(first)) if self.covers(first, arrival_ns))
    }

    /// Enters a request as stored.
    pub fn remember(&self, hash: u128, request: Remembered) {
        self.state().remember(hash, request, self.entries_max);
    }

    pub fn len(&self) -> usize {
        self.state().order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests forgotten before their time because there were too many.
    pub fn crowded_out(&self) -> u64 {
        self.state().crowded_out
    }

    /// The requests whose frames end at or before `position`, for [`load`](Self::load).
    pub fn save(&self, position: u64) -> Vec<u8> {
        let state = self.state();
        let done = state.order.iter().filter_map(|(arrival_ns, hash)| {
            let Some(Entry::Done(first)) = state.entries.get(hash) else { return None };
            let counts = first.arrival_ns == *arrival_ns && first.end <= position;
            counts.then_some((*hash, first))
        });
        window_file::encode(&done.collect::<Vec<_>>())
    }

    /// From now on what [`save`](Self::save) wrote into a file counts, but nothing whose frame ends after `position`.
    /// It is read when the window is first asked: a start need not wait for it.
    ///
    /// A damaged file is told of in the log; its readable requests are taken in all the same, since each one saves a
    /// sender from a duplicate.
    pub fn load(&self, path: PathBuf, position: u64) {
        self.state.lock().saved = Some((path, position));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if let Some((path, position)) = state.saved.take() {
            state.load(&path, position, self.entries_max).unwrap_or_else(|error| {
                tracing::error!(
                    file = %path.display(), %error,
                    "the window of recent requests is damaged; some retries may be stored twice"
                );
            });
        }
        state
    }
}

impl State {
    fn load(&mut self, path: &Path, position: u64, entries_max: usize) -> io::Result<()> {
        let (requests, whole) = window_file::decode(&fs::read(path)?);
        let entries = requests.len().min(entries_max);
        self.entries.reserve(entries);
        self.order.reserve(entries);
        for (hash, request) in requests.into_iter().filter(|(_, request)| request.end <= position) {
            self.remember(hash, request, entries_max);
        }
        whole
    }

    fn remember(&mut self, hash: u128, request: Remembered, entries_max: usize) {
        self.order.push_back((request.arrival_ns, hash));
        self.entries.insert(hash, Entry::Done(request));
        if self.order.len() > entries_max {
            self.crowded_out += 1;
            self.forget_oldest();
        }
    }

    fn forget(&mut self, before_ns: u64) {
        while self.order.front().is_some_and(|(arrival_ns, _)| *arrival_ns < before_ns) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((arrival_ns, hash)) = self.order.pop_front()
            && matches!(self.entries.get(&hash), Some(Entry::Done(r)) if r.arrival_ns == arrival_ns)
        {
            self.entries.remove(&hash);
        }
    }
}

impl Ticket {
    /// The request is durable and visible: twins get its answer from now on.
    pub fn settle(mut self, request: Remembered) {
        self.settled = true;
        self.window.remember(self.hash, request);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.window.state().entries.remove(&self.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(arrival_ns: u64, end: u64) -> Remembered {
        let reason = Some("a \"b\"\n".into());
        let ack = Ack { accepted: 5, rejected: 1, reason, duplicate: false };
        Remembered::new(arrival_ns, end, &ack)
    }

    fn window(length_ns: u64) -> Arc<Window> {
        Arc::new(Window::new(Duration::from_nanos(length_ns), 100))
    }

    fn fresh(window: &Arc<Window>, hash: u128, now_ns: u64) -> Ticket {
        match window.admit(hash, now_ns) {
            Admission::Fresh(ticket) => ticket,
            _ => panic!("not fresh"),
        }
    }

    fn duplicate(window: &Arc<Window>, hash: u128, now_ns: u64) -> Ack {
        match window.admit(hash, now_ns) {
            Admission::Duplicate(ack) => ack,
            _ => panic!("no duplicate"),
        }
    }

    #[test]
    fn a_settled_request_is_a_duplicate_until_the_window_has_passed() {
        let window = window(100);
        fresh(&window, 1, 1000).settle(request(1000, 9));
        assert_eq!(duplicate(&window, 1, 1100), request(1000, 9).ack());
        assert!(matches!(window.admit(1, 1101), Admission::Fresh(_)));
    }

    #[test]
    fn what_was_read_back_is_unsure_until_it_is_sealed() {
        let window = window(100);
        for (hash, end) in [(1, 10), (2, 11), (3, 20), (4, 21)] {
            window.remember(hash, request(0, end));
        }
        window.begin(10, 20);
        assert_eq!(duplicate(&window, 1, 5).accepted, 5);
        assert!(matches!(window.admit(2, 5), Admission::Unsure));
        assert!(matches!(window.admit(3, 5), Admission::Unsure));
        assert_eq!(duplicate(&window, 4, 5).accepted, 5);
        window.note_sealed(20);
        assert_eq!(duplicate(&window, 2, 5).accepted, 5);
        assert_eq!(duplicate(&window, 3, 5).accepted, 5);
    }

    #[test]
    fn an_unsettled_ticket_lets_a_twin_try() {
        let window = window(100);
        let ticket = fresh(&window, 1, 0);
        assert!(matches!(window.admit(1, 0), Admission::Wait(_)));
        drop(ticket);
        assert!(matches!(window.admit(1, 0), Admission::Fresh(_)));
    }

    #[test]
    fn the_window_survives_saving_and_loading_up_to_a_position() {
        let window = window(100);
        fresh(&window, 7, 0).settle(request(0, 50));
        fresh(&window, 8, 0).settle(request(0, 51));
        let again = self::window(100);
        let dir = tempfile::tempdir().unwrap();
        let saved = |position: u64| {
            let path = dir.path().join(position.to_string());
            fs::write(&path, window.save(position)).unwrap();
            path
        };
        again.load(saved(50), 50);
        assert_eq!(again.len(), 1);
        assert_eq!(duplicate(&again, 7, 0), request(0, 50).ack());
        assert!(!again.repeats(8, 0), "its frame is replayed");
        let earlier = self::window(100);
        earlier.load(saved(51), 50);
        assert!(earlier.repeats(7, 0) && !earlier.repeats(8, 0));
    }

    #[test]
    fn a_damaged_file_is_told_and_its_readable_requests_still_count() {
        let window = window(100);
        for hash in 1..4 {
            fresh(&window, hash, 0).settle(request(0, 1));
        }
        let mut saved = window.save(1);
        saved[30] ^= 4;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), saved).unwrap();
        let again = self::window(100);
        again.load(file.path().to_owned(), 1);
        assert_eq!(again.len(), 2);
    }

    #[test]
    fn a_clock_that_ran_ahead_does_not_make_others_be_forgotten_or_kept_for_ever() {
        let window = window(100);
        fresh(&window, 1, 9_000).settle(request(9_000, 1));
        fresh(&window, 2, 1_000).settle(request(1_000, 2));
        assert_eq!(duplicate(&window, 2, 1_100).accepted, 5);
        // Its line stands behind one from the future, yet it has had its time.
        fresh(&window, 2, 1_101).settle(request(1_101, 3));
        assert_eq!(duplicate(&window, 2, 1_150).accepted, 5);
        assert_eq!(duplicate(&window, 1, 9_050).accepted, 5);
    }

    #[test]
    fn beyond_its_size_the_window_forgets_the_oldest_and_says_so() {
        let window = Arc::new(Window::new(Duration::from_secs(1), 3));
        for hash in 0..5 {
            fresh(&window, hash, 0).settle(request(0, 1));
        }
        assert_eq!((window.len(), window.crowded_out()), (3, 2));
        assert!(matches!(window.admit(0, 0), Admission::Fresh(_)));
        assert_eq!(duplicate(&window, 4, 0).accepted, 5);
    }
}
