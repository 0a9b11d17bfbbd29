//! Queues in memory with leases: a message handed out comes back unless it is acknowledged in time.
//!
//! At-least-once delivery, in order of publication as long as nothing comes back.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::kit::queue::{Message, Publication};

/// How long a receiver may hold a message.
pub const LEASE: Duration = Duration::from_secs(30);
/// Messages a queue holds before it refuses more, handed out or not.
pub const CAPACITY: usize = 10_000;

struct Held {
    message: Message,
    published: Instant,
}

/// One queue. All times come from the caller.
#[derive(Default)]
pub struct Queue {
    next_id: u64,
    ready: VecDeque<Held>,
    /// By message ID: when its lease ends, and the message.
    leased: BTreeMap<u64, (Instant, Held)>,
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    pub ready: usize,
    pub leased: usize,
    /// How long the first ready message has waited.
    pub oldest: Duration,
}

impl Queue {
    /// Takes a message and returns its ID, or `None` when the queue is full.
    pub fn publish(&mut self, publication: Publication, now: Instant) -> Option<u64> {
        if self.ready.len() + self.leased.len() >= CAPACITY {
            return None;
        }
        self.next_id += 1;
        let message = Message {
            id: self.next_id,
            headers: publication.headers,
            body: publication.body,
            delivery: 0,
            waited_ms: 0,
        };
        self.ready.push_back(Held { message, published: now });
        Some(self.next_id)
    }

    /// Hands out up to `max` messages, those whose lease has run out first.
    pub fn receive(&mut self, max: usize, now: Instant) -> Vec<Message> {
        self.take_back(now);
        let count = max.min(self.ready.len());
        let mut messages = Vec::with_capacity(count);
        for mut held in self.ready.drain(..count) {
            held.message.delivery += 1;
            held.message.waited_ms = (now - held.published).as_millis() as u64;
            messages.push(held.message.clone());
            self.leased.insert(held.message.id, (now + LEASE, held));
        }
        messages
    }

    /// Forgets messages that were handed out; returns how many of `ids` were.
    pub fn acknowledge(&mut self, ids: &[u64]) -> usize {
        ids.iter().filter(|id| self.leased.remove(id).is_some()).count()
    }

    pub fn depth(&self, now: Instant) -> Depth {
        Depth {
            ready: self.ready.len(),
            leased: self.leased.len(),
            oldest: self.ready.front().map_or(Duration::ZERO, |held| now - held.published),
        }
    }

    fn take_back(&mut self, now: Instant) {
        let late: Vec<u64> = self
            .leased
            .iter()
            .filter(|(_, (lease_end, _))| *lease_end <= now)
            .map(|(id, _)| *id)
            .collect();
        // In reverse, so that the oldest ends up in front.
        for id in late.into_iter().rev() {
            if let Some((_, held)) = self.leased.remove(&id) {
                self.ready.push_front(held);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(text: &str) -> Publication {
        Publication { headers: BTreeMap::new(), body: text.into() }
    }

    fn ids(messages: &[Message]) -> Vec<u64> {
        messages.iter().map(|message| message.id).collect()
    }

    #[test]
    fn messages_come_out_in_order_and_only_once() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for text in ["a", "b", "c"] {
            queue.publish(publication(text), now).unwrap();
        }
        assert_eq!(ids(&queue.receive(2, now)), [1, 2]);
        assert_eq!(ids(&queue.receive(2, now)), [3]);
        assert!(queue.receive(2, now).is_empty());
        assert_eq!(queue.depth(now), Depth { ready: 0, leased: 3, oldest: Duration::ZERO });
    }

    #[test]
    fn an_unacknowledged_message_comes_back_first_and_counts_its_deliveries() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for text in ["a", "b", "c", "d"] {
            queue.publish(publication(text), now).unwrap();
        }
        queue.receive(3, now);
        assert_eq!(queue.acknowledge(&[2, 2, 99]), 1);
        let later = now + LEASE;
        let again = queue.receive(10, later);
        assert_eq!(ids(&again), [1, 3, 4]);
        assert_eq!(again.iter().map(|m| m.delivery).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(again[0].waited_ms, LEASE.as_millis() as u64);
    }

    #[test]
    fn a_full_queue_refuses() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for _ in 0..CAPACITY {
            queue.publish(publication("x"), now).unwrap();
        }
        assert_eq!(queue.publish(publication("x"), now), None);
        let taken = ids(&queue.receive(1, now));
        assert_eq!(queue.publish(publication("x"), now), None, "a lease still takes room");
        queue.acknowledge(&taken);
        assert!(queue.publish(publication("x"), now).is_some());
    }
}
