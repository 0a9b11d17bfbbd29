//! A retry is not a duplicate: content hashes of recent requests with the answers they got.
//!
//! The window is rebuilt at start from the file saved with the manifest and the frames replayed after it.

use crate::store::Ack;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;

/// Entries kept at most, whatever the window: 16 + ~80 bytes each.
const ENTRIES_MAX: usize = 200_000;

#[derive(Debug)]
enum Entry {
    /// The first request with this content is on its way; twins wait for its end.
    InFlight(watch::Receiver<bool>),
    Done(Ack),
}

/// What to do with a request.
pub enum Admission {
    /// Nobody sent this yet: go on, and settle the ticket.
    Fresh(Ticket),
    /// Stored before, with this answer.
    Duplicate(Ack),
    /// A twin is being stored: wait until the channel changes or closes, then ask again.
    Wait(watch::Receiver<bool>),
}

/// Held by the first request; dropped unsettled it lets a twin try.
pub struct Ticket {
    window: std::sync::Arc<Window>,
    hash: u128,
    _done: watch::Sender<bool>,
    settled: bool,
}

/// The window of remembered requests.
#[derive(Debug)]
pub struct Window {
    length_ns: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: FxHashMap<u128, Entry>,
    /// (arrival ns, hash) in order of settling.
    order: VecDeque<(u64, u128)>,
}

impl Window {
    pub fn new(length: Duration) -> Self {
        Self { length_ns: length.as_nanos() as u64, state: Mutex::default() }
    }

    pub fn admit(self: &std::sync::Arc<Self>, hash: u128, now_ns: u64) -> Admission {
        let mut state = self.state.lock();
        state.forget(now_ns.saturating_sub(self.length_ns));
        match state.entries.get(&hash) {
            Some(Entry::Done(ack)) => return Admission::Duplicate(ack.clone()),
            Some(Entry::InFlight(twin)) => return Admission::Wait(twin.clone()),
            None => {}
        }
        let (done, waiting) = watch::channel(false);
        state.entries.insert(hash, Entry::InFlight(waiting));
        Admission::Fresh(Ticket { window: self.clone(), hash, _done: done, settled: false })
    }

    /// Remembers a request as stored (replay).
    pub fn remember(&self, hash: u128, arrival_ns: u64, ack: Ack) {
        let mut state = self.state.lock();
        state.entries.insert(hash, Entry::Done(ack));
        state.order.push_back((arrival_ns, hash));
        if state.order.len() > ENTRIES_MAX {
            state.forget_oldest();
        }
    }

    pub fn contains(&self, hash: u128) -> bool {
        self.state.lock().entries.contains_key(&hash)
    }

    pub fn len(&self) -> usize {
        self.state.lock().order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All settled entries as lines `hash arrival accepted rejected reason-as-JSON`.
    pub fn save(&self) -> String {
        let state = self.state.lock();
        let mut out = String::with_capacity(state.order.len() * 64);
        for (arrival_ns, hash) in &state.order {
            if let Some(Entry::Done(ack)) = state.entries.get(hash) {
                let reason = serde_json::json!(ack.reason);
                out.push_str(&format!(
                    "{hash:032x} {arrival_ns} {} {} {reason}\n",
                    ack.accepted, ack.rejected
                ));
            }
        }
        out
    }

    /// Takes in what [`save`](Self::save) wrote; unreadable lines are left out.
    pub fn load(&self, saved: &str) {
        for line in saved.lines() {
            let mut parts = line.splitn(5, ' ');
            let mut next = || parts.next();
            let parsed = (|| {
                let hash = u128::from_str_radix(next()?, 16).ok()?;
                let arrival_ns = next()?.parse().ok()?;
                let accepted = next()?.parse().ok()?;
                let rejected = next()?.parse().ok()?;
                let reason = serde_json::from_str(next()?).ok()?;
                Some((hash, arrival_ns, Ack { accepted, rejected, reason, duplicate: false }))
            })();
            if let Some((hash, arrival_ns, ack)) = parsed {
                self.remember(hash, arrival_ns, ack);
            }
        }
    }
}

impl State {
    fn forget(&mut self, before_ns: u64) {
        while self.order.front().is_some_and(|(arrival_ns, _)| *arrival_ns < before_ns) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, hash)) = self.order.pop_front()
            && matches!(self.entries.get(&hash), Some(Entry::Done(_)))
        {
            self.entries.remove(&hash);
        }
    }
}

impl Ticket {
    /// The request is durable and visible: twins get `ack` from now on.
    pub fn settle(mut self, arrival_ns: u64, ack: Ack) {
        self.settled = true;
        self.window.remember(self.hash, arrival_ns, ack);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.window.state.lock().entries.remove(&self.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn ack(accepted: u64) -> Ack {
        Ack { accepted, rejected: 1, reason: Some("a \"b\"\n".into()), duplicate: false }
    }

    fn fresh(window: &Arc<Window>, hash: u128, now_ns: u64) -> Ticket {
        match window.admit(hash, now_ns) {
            Admission::Fresh(ticket) => ticket,
            _ => panic!("not fresh"),
        }
    }

    #[test]
    fn a_settled_request_is_a_duplicate_until_the_window_has_passed() {
        let window = Arc::new(Window::new(Duration::from_nanos(100)));
        fresh(&window, 1, 1000).settle(1000, ack(5));
        assert!(matches!(window.admit(1, 1100), Admission::Duplicate(a) if a == ack(5)));
        assert!(matches!(window.admit(1, 1101), Admission::Fresh(_)));
    }

    #[test]
    fn an_unsettled_ticket_lets_a_twin_try() {
        let window = Arc::new(Window::new(Duration::from_secs(1)));
        let ticket = fresh(&window, 1, 0);
        assert!(matches!(window.admit(1, 0), Admission::Wait(_)));
        drop(ticket);
        assert!(matches!(window.admit(1, 0), Admission::Fresh(_)));
    }

    #[test]
    fn the_window_survives_saving_and_loading() {
        let window = Arc::new(Window::new(Duration::from_secs(1)));
        fresh(&window, 7, 0).settle(0, ack(3));
        let other = Arc::new(Window::new(Duration::from_secs(1)));
        other.load(&(window.save() + "garbage\n"));
        assert!(matches!(other.admit(7, 0), Admission::Duplicate(a) if a == ack(3)));
        assert_eq!(other.len(), 1);
    }
}
