//! Float samples by column. Series that came as one, as the buckets of a histogram, share their times.

use std::ops::Range;
use std::sync::Arc;

/// Float samples, times ascending. Times, and values that are kept for further queries, are shared.
#[derive(Debug, Clone, Default)]
pub struct Floats {
    /// Unix ms.
    times: Arc<Vec<i64>>,
    /// One per time.
    values: Arc<Vec<f64>>,
    /// Those that count.
    part: Range<usize>,
}

impl Floats {
    /// * `values`: one per time.
    pub fn new(times: Arc<Vec<i64>>, values: Vec<f64>) -> Self {
        debug_assert_eq!(times.len(), values.len(), "one value per time");
        let part = 0..values.len();
        Self { times, values: Arc::new(values), part }
    }

    /// Unix ms.
    pub fn times(&self) -> &[i64] {
        &self.times[self.part.clone()]
    }

    /// One per time.
    pub fn values(&self) -> &[f64] {
        &self.values[self.part.clone()]
    }

    pub fn len(&self) -> usize {
        self.part.len()
    }

    pub fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// Times with values.
    pub fn iter(&self) -> impl Iterator<Item = (i64, f64)> {
        self.times().iter().copied().zip(self.values().iter().copied())
    }

    /// Times and values with the part of both that counts.
    pub fn into_shared(self) -> (Arc<Vec<i64>>, Arc<Vec<f64>>, Range<usize>) {
        (self.times, self.values, self.part)
    }

    /// Leaves out what is outside of a time range, Unix ms, both ends included.
    pub(super) fn cut(&mut self, start_ms: i64, end_ms: i64) {
        let times = self.times();
        let from = match times.first() {
            Some(first) if *first < start_ms => times.partition_point(|time| *time < start_ms),
            _ => 0,
        };
        let until = match times.last() {
            Some(last) if *last > end_ms => times.partition_point(|time| *time <= end_ms),
            _ => times.len(),
        };
        self.part = self.part.start + from..self.part.start + until.max(from);
    }

    /// Adds a sample.
    ///
    /// * `at`: its place among the others.
    pub(super) fn insert(&mut self, at: usize, time_ms: i64, value: f64) {
        let (mut times, mut values) = (self.times().to_vec(), self.values().to_vec());
        times.insert(at, time_ms);
        values.insert(at, value);
        *self = Self::new(Arc::new(times), values);
    }

    /// Whether the times of both are the same in memory.
    fn shares_times(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.times, &other.times) && self.part == other.part
    }
}

/// Puts samples in order that came in several pieces. What was found out of times holds for all series that share them.
#[derive(Default)]
pub(super) struct Lines {
    last: Option<Line>,
}

/// Times of pieces, put in order.
struct Line {
    /// Pieces with these times.
    pieces: Vec<Floats>,
    times: Arc<Vec<i64>>,
    /// Where in the pieces, one after the other, the value of each time is; `None` if just there.
    order: Option<Vec<usize>>,
}

impl Line {
    fn new(pieces: Vec<Floats>) -> Self {
        let joined: Arc<Vec<i64>> = match &pieces[..] {
            [one] if one.len() == one.times.len() => one.times.clone(),
            several => Arc::new(several.iter().flat_map(|piece| piece.times()).copied().collect()),
        };
        if joined.is_sorted_by(|a, b| a < b) {
            return Self { pieces, times: joined, order: None };
        }
        let mut order: Vec<usize> = (0..joined.len()).collect();
        // The last that came counts.
        order.sort_by_key(|at| joined[*at]);
        order.reverse();
        order.dedup_by_key(|at| joined[*at]);
        order.reverse();
        let times = Arc::new(order.iter().map(|at| joined[*at]).collect());
        Self { pieces, times, order: Some(order) }
    }

    fn is_of(&self, first: &Floats, more: &[Floats]) -> bool {
        self.pieces.len() == 1 + more.len()
            && self.pieces[0].shares_times(first)
            && self.pieces[1..].iter().zip(more).all(|(a, b)| a.shares_times(b))
    }
}

impl Lines {
    /// Adds pieces to the first one, sorts by time; of samples at one time the last counts.
    pub(super) fn join(&mut self, first: &mut Floats, more: Vec<Floats>) {
        if !self.last.as_ref().is_some_and(|line| line.is_of(first, &more)) {
            let pieces = std::iter::once(&*first).chain(&more);
            self.last = Some(Line::new(pieces.cloned().collect()));
        }
        let Some(line) = &self.last else { return };
        if more.is_empty() && line.order.is_none() {
            return;
        }
        let mut values =
            Vec::with_capacity(first.len() + more.iter().map(Floats::len).sum::<usize>());
        values.extend_from_slice(first.values());
        more.iter().for_each(|piece| values.extend_from_slice(piece.values()));
        if let Some(order) = &line.order {
            values = order.iter().map(|at| values[*at]).collect();
        }
        *first = Floats::new(line.times.clone(), values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(samples: &[(i64, f64)]) -> Floats {
        let (times, values) = samples.iter().copied().unzip();
        Floats::new(Arc::new(times), values)
    }

    #[test]
    fn of_samples_at_one_time_the_last_that_came_counts() {
        let mut lines = Lines::default();
        let mut first = floats(&[(1, 1.0), (3, 3.0)]);
        let more = vec![floats(&[(2, 2.0), (3, 3.5)]), floats(&[])];
        lines.join(&mut first, more);
        assert_eq!(first.iter().collect::<Vec<_>>(), [(1, 1.0), (2, 2.0), (3, 3.5)]);
    }

    #[test]
    fn series_that_shared_their_times_share_them_afterwards() {
        let mut lines = Lines::default();
        let (a, b) = (floats(&[(5, 1.0)]), floats(&[(1, 2.0)]));
        let mut joined = [(a.clone(), b.clone()), (a, b)].map(|(mut first, more)| {
            lines.join(&mut first, vec![more]);
            first
        });
        assert!(joined[0].shares_times(&joined[1]));
        assert_eq!(joined[1].iter().collect::<Vec<_>>(), [(1, 2.0), (5, 1.0)]);
        joined[0] = floats(&[(1, 0.0), (2, 0.0)]);
        lines.join(&mut joined[0], Vec::new());
        assert_eq!(joined[0].len(), 2);
    }

    #[test]
    fn what_was_cut_off_stays_off() {
        let mut all = floats(&[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]);
        all.cut(0, 9);
        assert_eq!(all.len(), 4);
        all.cut(2, 3);
        assert_eq!(all.iter().collect::<Vec<_>>(), [(2, 2.0), (3, 3.0)]);
        Lines::default().join(&mut all, vec![floats(&[(3, 3.5), (5, 5.0)])]);
        assert_eq!(all.iter().collect::<Vec<_>>(), [(2, 2.0), (3, 3.5), (5, 5.0)]);
        all.cut(6, 7);
        assert!(all.is_empty());
        all.cut(0, 1);
        assert!(all.is_empty());
    }
}
