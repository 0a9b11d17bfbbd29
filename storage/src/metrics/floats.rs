//! Float samples by column. Series that came as one, as the buckets of a histogram, share their times.

use std::sync::Arc;

/// Float samples, times ascending.
#[derive(Debug, Clone, Default)]
pub struct Floats {
    /// Unix ms.
    pub times: Arc<Vec<i64>>,
    /// One per time.
    pub values: Vec<f64>,
}

impl Floats {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Times with values.
    pub fn iter(&self) -> impl Iterator<Item = (i64, f64)> {
        self.times.iter().copied().zip(self.values.iter().copied())
    }
}

/// Puts samples in order that came in several pieces. What was found out of times holds for all series that share them.
#[derive(Default)]
pub(super) struct Lines {
    last: Option<Line>,
}

/// Times of pieces, put in order.
struct Line {
    pieces: Vec<Arc<Vec<i64>>>,
    times: Arc<Vec<i64>>,
    /// Where in the pieces, one after the other, the value of each time is; `None` if just there.
    order: Option<Vec<usize>>,
}

impl Line {
    fn new(pieces: Vec<Arc<Vec<i64>>>) -> Self {
        let joined = match &pieces[..] {
            [one] => one.clone(),
            several => Arc::new(several.iter().flat_map(|piece| piece.iter().copied()).collect()),
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
            && Arc::ptr_eq(&self.pieces[0], &first.times)
            && self.pieces[1..].iter().zip(more).all(|(a, b)| Arc::ptr_eq(a, &b.times))
    }
}

impl Lines {
    /// Adds pieces to the first one, sorts by time; of samples at one time the last counts.
    pub(super) fn join(&mut self, first: &mut Floats, more: Vec<Floats>) {
        if !self.last.as_ref().is_some_and(|line| line.is_of(first, &more)) {
            let pieces = std::iter::once(&*first).chain(&more);
            self.last = Some(Line::new(pieces.map(|piece| piece.times.clone()).collect()));
        }
        let Some(line) = &self.last else { return };
        first.times = line.times.clone();
        if !more.is_empty() {
            let all = first.values.len() + more.iter().map(Floats::len).sum::<usize>();
            first.values.reserve_exact(all - first.values.len());
            more.iter().for_each(|piece| first.values.extend_from_slice(&piece.values));
        }
        if let Some(order) = &line.order {
            first.values = order.iter().map(|at| first.values[*at]).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(samples: &[(i64, f64)]) -> Floats {
        let (times, values) = samples.iter().copied().unzip();
        Floats { times: Arc::new(times), values }
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
        assert!(Arc::ptr_eq(&joined[0].times, &joined[1].times));
        assert_eq!(joined[1].iter().collect::<Vec<_>>(), [(1, 2.0), (5, 1.0)]);
        joined[0] = floats(&[(1, 0.0), (2, 0.0)]);
        lines.join(&mut joined[0], Vec::new());
        assert_eq!(joined[0].len(), 2);
    }
}
