//! From counts per slot of time to cumulative counters with a sample every ten seconds.

use trefoil_storage::red::{RedCell, RedTotal};
use trefoil_storage::segment::partition_of;

/// A counter that nothing has added to for this long ends with a stale marker, ns.
pub(super) const IDLE_NS: u64 = 15 * 60 * SECOND_NS;

/// Distance of samples where cells are as narrow as spans make them, ns.
pub(super) const STEP_NS: u64 = 10 * SECOND_NS;

/// Widest distance at which an instant selector with the usual lookback of five minutes still sees every series, ns.
const STEP_MAX_NS: u64 = 150 * SECOND_NS;

pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// Which samples a select asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Unix ms, both included.
    pub start_ms: i64,
    pub end_ms: i64,
    /// Distance of samples inside cells wider than ten seconds, ns: a range function needs several in its range.
    pub step_ns: u64,
    /// The clock, Unix ns: the slot that is under way has its sample now, not at its end.
    pub now_ns: u64,
}

/// What becomes of a counter, in the order of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Event<'a> {
    /// Adds a cell, or of a wide cell the part up to `share` (0 to 1, growing); the parts before are in it.
    Grow { cell: &'a RedCell, share: f64 },
    /// A sample at this time, Unix ms.
    Sample(i64),
    /// The counter is gone at this time, Unix ms.
    Stale(i64),
}

impl Window {
    /// * `range_ms`: width of the matrix selector, 0 for an instant vector.
    pub(super) fn new(start_ms: i64, end_ms: i64, range_ms: i64, now_ns: u64) -> Self {
        let wanted_ns = if range_ms > 0 {
            range_ms.unsigned_abs().saturating_mul(1_000_000) / 4
        } else {
            STEP_MAX_NS
        };
        let step_ns = (wanted_ns - wanted_ns % STEP_NS).max(STEP_NS);
        Self { start_ms, end_ms, step_ns, now_ns }
    }

    /// Last moment that cells matter to, Unix ns.
    pub(super) fn end_ns(&self) -> u64 {
        self.end_ms.max(0).saturating_mul(1_000_000).saturating_add(999_999) as u64
    }

    fn holds(&self, time_ms: i64) -> bool {
        time_ms >= self.start_ms && time_ms <= self.end_ms
    }

    /// Where the cells begin that are told one by one, Unix ns; what lies before is a counter's base.
    pub(super) fn boundary_ns(&self) -> u64 {
        partition_of(self.start_ms.max(0).saturating_mul(1_000_000) as u64)
    }

    /// How many samples one counter has here.
    pub(super) fn samples(&self, base: Option<&RedTotal>, cells: &[RedCell]) -> u64 {
        let mut samples = 0;
        self.tell(base, cells, |event| samples += u64::from(!matches!(event, Event::Grow { .. })));
        samples
    }

    /// Tells the story of one counter.
    ///
    /// * `base`: what came before the cells, if anything did.
    /// * `cells`: all further cells of the counter up to the window's end, by time.
    ///
    /// A counter begins at 0 where its first cell begins, so that the first spans count in `increase`. Between cells
    /// it stands still, until it is idle for too long.
    pub(super) fn tell<'a>(
        &self,
        base: Option<&RedTotal>,
        cells: &'a [RedCell],
        mut visit: impl FnMut(Event<'a>),
    ) {
        let mut sampled_ms = i64::MIN;
        let mut sample = |time_ns: u64, stale: bool, visit: &mut dyn FnMut(Event<'a>)| {
            let time_ms = (time_ns / 1_000_000) as i64;
            if time_ms > sampled_ms && self.holds(time_ms) {
                visit(if stale { Event::Stale(time_ms) } else { Event::Sample(time_ms) });
                sampled_ms = time_ms;
            }
        };
        let step_of = |width_ns: u64| self.step_ns.clamp(STEP_NS, width_ns.max(STEP_NS));
        let mut end_ns = base.map(|base| (base.end_ns, step_of(base.width_ns)));
        if let Some(base) = base {
            sample(base.end_ns, false, &mut visit);
        }
        for cell in cells {
            if let Some((end_ns, step_ns)) = end_ns {
                self.rest(end_ns, step_ns, cell.time_ns, |time, stale| {
                    sample(time, stale, &mut visit)
                });
            }
            sample(cell.time_ns, false, &mut visit);
            let (until_ns, live) = self.end_of(cell);
            let width_ns = until_ns.saturating_sub(cell.time_ns).max(1);
            let step_ns = step_of(cell.width_ns);
            if !live {
                let mut at_ns = cell.time_ns + step_ns;
                while at_ns < until_ns {
                    let share = (at_ns - cell.time_ns) as f64 / width_ns as f64;
                    visit(Event::Grow { cell, share });
                    sample(at_ns, false, &mut visit);
                    at_ns += step_ns;
                }
            }
            visit(Event::Grow { cell, share: 1.0 });
            sample(until_ns, false, &mut visit);
            end_ns = Some((until_ns, step_ns));
        }
        if let Some((end_ns, step_ns)) = end_ns {
            let last_ns = self.end_ns().min(self.now_ns.max(end_ns));
            self.rest(end_ns, step_ns, last_ns.saturating_add(1), |time, stale| {
                sample(time, stale, &mut visit);
            });
        }
    }

    /// Samples of a counter that stands still from `from_ns` until before `until_ns`.
    fn rest(&self, from_ns: u64, step_ns: u64, until_ns: u64, mut sample: impl FnMut(u64, bool)) {
        let idle_ns = from_ns.saturating_add(IDLE_NS);
        let mut at_ns = from_ns - from_ns % STEP_NS + step_ns;
        while at_ns < until_ns.min(idle_ns) {
            sample(at_ns, false);
            at_ns += step_ns;
        }
        if idle_ns < until_ns {
            sample(idle_ns, true);
        }
    }

    /// When the last sample of a cell is due, and whether that is before the cell's end because its slot is under way.
    fn end_of(&self, cell: &RedCell) -> (u64, bool) {
        let end_ns = cell.time_ns + cell.width_ns;
        if self.now_ns >= end_ns || self.now_ns < cell.time_ns {
            return (end_ns, false);
        }
        // The caller's clock may be a little behind or ahead of ours.
        (self.end_ns().clamp(cell.time_ns, self.now_ns), true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use trefoil_storage::red::{RedKey, Sketch};

    fn cell(second: u64, width_s: u64, spans: u64) -> RedCell {
        let key = RedKey { service: "s".into(), operation: "o".into(), kind: 2, status: 0 };
        let mut sketch = Sketch::default();
        (0..spans).for_each(|_| sketch.record(1_000));
        RedCell {
            time_ns: second * SECOND_NS,
            width_ns: width_s * SECOND_NS,
            key: Arc::new(key),
            sum_ns: u128::from(spans) * 1_000,
            sketch,
            exemplars: Vec::new(),
        }
    }

    /// (second, total) per sample; NaN is the stale marker.
    fn samples(window: Window, cells: &[RedCell]) -> Vec<(f64, f64)> {
        samples_after(window, None, cells)
    }

    fn samples_after(
        window: Window,
        base: Option<&RedTotal>,
        cells: &[RedCell],
    ) -> Vec<(f64, f64)> {
        let before = base.map_or(0.0, |base| base.count as f64);
        let (mut before, mut now, mut out) = (before, before, Vec::new());
        window.tell(base, cells, |event| match event {
            Event::Grow { cell, share } => {
                now = before + cell.count() as f64 * share;
                if share == 1.0 {
                    before = now;
                }
            }
            Event::Sample(time_ms) => out.push((time_ms as f64 / 1e3, now)),
            Event::Stale(time_ms) => out.push((time_ms as f64 / 1e3, f64::NAN)),
        });
        assert_eq!(window.samples(base, cells), out.len() as u64);
        out
    }

    fn window(start_s: i64, end_s: i64, now_s: u64) -> Window {
        Window::new(start_s * 1000, end_s * 1000, 60_000, now_s * SECOND_NS)
    }

    #[test]
    fn a_counter_begins_at_zero_and_stands_still_between_cells() {
        let got = samples(window(0, 140, 1_000), &[cell(100, 10, 3), cell(120, 10, 2)]);
        assert_eq!(got, [(100.0, 0.0), (110.0, 3.0), (120.0, 3.0), (130.0, 5.0), (140.0, 5.0)]);
    }

    #[test]
    fn the_slot_under_way_has_its_sample_now() {
        let got = samples(window(0, 107, 107), &[cell(100, 10, 3)]);
        assert_eq!(got, [(100.0, 0.0), (107.0, 3.0)]);
    }

    #[test]
    fn what_lies_before_the_window_is_in_the_total() {
        let got = samples(window(125, 135, 1_000), &[cell(100, 10, 3), cell(120, 10, 2)]);
        assert_eq!(got, [(130.0, 5.0)]);
    }

    #[test]
    fn wide_cells_grow_step_by_step() {
        let got = samples(window(0, 130, 1_000), &[cell(60, 60, 6)]);
        let expected: Vec<(f64, f64)> =
            (6..=12).map(|ten| (f64::from(ten) * 10.0, f64::from(ten) - 6.0)).collect();
        assert_eq!(got[..7], expected);
        assert_eq!(got[7], (130.0, 6.0));
    }

    #[test]
    fn an_idle_counter_is_stale_and_goes_on_with_its_total() {
        let got = samples(window(900, 2_010, 9_999), &[cell(0, 10, 1), cell(2_000, 10, 1)]);
        assert_eq!(got[0], (900.0, 1.0));
        assert!(got[1].1.is_nan() && got[1].0 == 910.0, "{:?}", got[1]);
        assert_eq!(got[2..], [(2_000.0, 1.0), (2_010.0, 2.0)]);
    }

    #[test]
    fn a_base_goes_on_as_the_cells_it_stands_for_would() {
        for (from, to) in [(20, 4_000), (3_700, 3_900), (30, 50), (900, 1_000)] {
            let cells = [cell(0, 10, 2), cell(10, 10, 1), cell(3_700, 10, 4)];
            let base = RedTotal {
                count: 3,
                end_ns: 20 * SECOND_NS,
                width_ns: 10 * SECOND_NS,
                ..RedTotal::default()
            };
            let got = samples_after(window(from, to, 9_999), Some(&base), &cells[2..]);
            let want = samples(window(from, to, 9_999), &cells);
            assert_eq!(format!("{got:?}"), format!("{want:?}"), "{from} to {to}");
        }
    }
}
