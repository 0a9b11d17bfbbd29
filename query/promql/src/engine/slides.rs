//! Windows of samples: what each step of a range function sees.

use std::ops::Range;

use crate::engine::rates::Reach;
use crate::series::Times;

/// Windows over the times of one series after the other. Series that share their times share the
/// windows.
#[derive(Default)]
pub(crate) struct Slides {
    of: Option<Times>,
    windows: Vec<Slide>,
}

/// What a step sees of some times.
pub(crate) struct Slide {
    pub samples: Range<usize>,
    /// If there are two or more.
    pub reach: Option<Reach>,
}

impl Slides {
    /// The windows of all steps.
    ///
    /// * `edges`: of the samples that a step sees, `(after, until]`; must not go backward.
    /// * `asked`: of the range that was asked for.
    pub(crate) fn over(
        &mut self,
        times: &Times,
        steps: usize,
        edges: impl Fn(usize) -> (i64, i64),
        asked: impl Fn(usize) -> (i64, i64),
    ) -> &[Slide] {
        if self.of.as_ref().is_some_and(|of| of.shares(times)) && self.windows.len() == steps {
            return &self.windows;
        }
        self.windows.clear();
        let mut window = (0, 0);
        for step in 0..steps {
            slide(times, &mut window, edges(step));
            let samples = window.0..window.1;
            let reach = Reach::new(&times[samples.clone()], asked(step));
            self.windows.push(Slide { samples, reach });
        }
        self.of = Some(times.clone());
        &self.windows
    }
}

/// The counter resets inside a window.
pub(crate) fn inside<'r>(resets: &'r [(usize, f64)], samples: &Range<usize>) -> &'r [(usize, f64)] {
    let from = resets.partition_point(|(i, _)| *i <= samples.start);
    let to = resets.partition_point(|(i, _)| *i < samples.end);
    resets.get(from..to.max(from)).unwrap_or(&[])
}

/// What counter resets in a window hide: the sum of the values before them.
pub(crate) fn lost(resets: &[(usize, f64)], samples: &Range<usize>) -> f64 {
    inside(resets, samples).iter().map(|(_, before)| before).sum()
}

/// Moves a window of indices to the times in `(edges.0, edges.1]`. Edges must not go backward.
fn slide(times: &[i64], window: &mut (usize, usize), edges: (i64, i64)) {
    while times.get(window.0).is_some_and(|t| *t <= edges.0) {
        window.0 += 1;
    }
    window.1 = window.1.max(window.0);
    while times.get(window.1).is_some_and(|t| *t <= edges.1) {
        window.1 += 1;
    }
}
