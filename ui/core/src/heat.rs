//! Heat maps: how many observations of which size there were at which time.

use crate::series::Labels;
use std::collections::BTreeMap;

/// Observations between two values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    pub low: f64,
    pub high: f64,
    /// A number or a rate, at least 0.
    pub count: f64,
}

/// What was observed in one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Column {
    /// Start of the step, Unix ns.
    pub time_ns: u64,
    /// Ascending, without those that are empty.
    pub cells: Vec<Cell>,
}

/// A heat map over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    /// Bounds of the time axis, Unix ns.
    pub start_ns: u64,
    pub end_ns: u64,
    pub step_ns: u64,
    /// Bounds of the value axis.
    pub low: f64,
    pub high: f64,
    /// The value axis is logarithmic; then both bounds are above 0.
    pub logarithmic: bool,
    pub columns: Vec<Column>,
}

/// Steps of a logarithmic axis below the lowest and above the highest known bound.
const OPEN_FACTOR: f64 = 2.0;

impl Heat {
    /// A heat map of columns, over the values that they hold.
    ///
    /// Cells may reach to infinity: they end at the axis. `None` when nothing was observed.
    pub fn new(start_ns: u64, end_ns: u64, step_ns: u64, columns: Vec<Column>) -> Option<Self> {
        let cells = || columns.iter().flat_map(|column| &column.cells);
        let bounds = || cells().flat_map(|cell| [cell.low, cell.high]).filter(|v| v.is_finite());
        cells().next()?;
        let positive: Vec<f64> = bounds().filter(|bound| *bound > 0.0).collect();
        let logarithmic = !positive.is_empty() && bounds().all(|bound| bound >= 0.0);
        let (mut low, mut high) = if logarithmic {
            let low = positive.iter().copied().fold(f64::INFINITY, f64::min);
            let high = positive.iter().copied().fold(0.0, f64::max);
            // A bucket from 0 has no lower end on this axis: it gets a step of its own.
            let from_zero = cells().any(|cell| cell.low <= 0.0);
            (if from_zero { low / OPEN_FACTOR } else { low }, high)
        } else {
            let low = bounds().fold(f64::INFINITY, f64::min);
            (low, bounds().fold(f64::NEG_INFINITY, f64::max))
        };
        let open = cells().any(|cell| cell.high.is_infinite());
        if logarithmic && (open || high <= low) {
            high *= OPEN_FACTOR;
        } else if !low.is_finite() || high <= low {
            (low, high) = if low.is_finite() { (low - 0.5, high + 0.5) } else { (0.0, 1.0) };
        }
        Some(Self { start_ns, end_ns, step_ns, low, high, logarithmic, columns })
    }

    /// Where a value stands, 0 at the bottom and 1 at the top; values beyond stand at the ends.
    pub fn share(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            if value <= self.low {
                0.0
            } else {
                (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
            }
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// The reverse of [`share`](Self::share).
    pub fn value(&self, share: f64) -> f64 {
        if self.logarithmic {
            (self.low.ln() + (self.high.ln() - self.low.ln()) * share).exp()
        } else {
            self.low + (self.high - self.low) * share
        }
    }

    /// Makes the axis hold these values too, as far as it can.
    #[must_use]
    pub fn holding(mut self, values: impl IntoIterator<Item = f64>) -> Self {
        for value in values {
            if value.is_finite() && (value > 0.0 || !self.logarithmic) {
                self.low = self.low.min(value);
                self.high = self.high.max(value);
            }
        }
        self
    }

    /// Rows of fine buckets would be threads with gaps between them: with more than `rows_max` kinds of cells they are
    /// put together into so many even rows of the axis, each cell by its share.
    #[must_use]
    pub fn coarse(mut self, rows_max: usize) -> Self {
        let mut kinds: Vec<(u64, u64)> = self
            .columns
            .iter()
            .flat_map(|column| &column.cells)
            .map(|cell| (cell.low.to_bits(), cell.high.to_bits()))
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.len() <= rows_max {
            return self;
        }
        let bounds: Vec<f64> =
            (0..=rows_max).map(|row| self.value(row as f64 / rows_max as f64)).collect();
        let columns = std::mem::take(&mut self.columns);
        self.columns = columns
            .into_iter()
            .map(|column| {
                let mut counts = vec![0.0; rows_max];
                for cell in &column.cells {
                    let at = |value: f64| self.share(value) * rows_max as f64;
                    let (low, high) = (at(cell.low), at(cell.high));
                    let first = (low as usize).min(rows_max - 1);
                    let last = (high.ceil() as usize).clamp(first + 1, rows_max);
                    let whole = (high - low).max(f64::MIN_POSITIVE);
                    for (row, count) in counts.iter_mut().enumerate().take(last).skip(first) {
                        let part = (high.min(row as f64 + 1.0) - low.max(row as f64)).max(0.0);
                        *count +=
                            if last == first + 1 { cell.count } else { cell.count * part / whole };
                    }
                }
                let cells = bounds
                    .windows(2)
                    .zip(counts)
                    .filter(|(_, count)| *count > 0.0)
                    .map(|(ends, count)| Cell { low: ends[0], high: ends[1], count })
                    .collect();
                Column { time_ns: column.time_ns, cells }
            })
            .collect();
        self
    }

    /// Round values on the axis with their [`share`](Self::share), ascending.
    pub fn ticks(&self) -> Vec<(f64, f64)> {
        let values: Vec<f64> = if self.logarithmic {
            let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
            let decades = (self.high / self.low).log10();
            let in_decade: &[f64] = match decades {
                ..=2.0 => &[1.0, 2.0, 5.0],
                ..=4.0 => &[1.0, 3.0],
                _ => &[1.0],
            };
            // At most about eight of them.
            let every = (decades / 8.0).ceil().max(1.0) as usize;
            (first..=last)
                .step_by(every)
                .flat_map(|power| in_decade.iter().map(move |m| m * 10f64.powi(power)))
                .collect()
        } else {
            let step = crate::scale::ticks_up_to(self.high - self.low, 4)[1];
            let first = (self.low / step).ceil() as i64;
            (first..).map(|i| i as f64 * step).take_while(|v| *v <= self.high).collect()
        };
        // A little tolerance: powers of ten are not exact.
        let inside = |v: &f64| *v >= self.low * 0.999_999 && *v <= self.high * 1.000_001;
        let values = values.into_iter().filter(|v| !self.logarithmic || inside(v));
        values.map(|value| (self.share(value), value)).collect()
    }

    /// Steps of the time axis.
    pub fn width(&self) -> usize {
        let steps = (self.end_ns - self.start_ns).div_ceil(self.step_ns.max(1));
        steps.clamp(1, 4_000) as usize
    }

    fn slot(&self, time_ns: u64) -> Option<usize> {
        let slot = time_ns.checked_sub(self.start_ns)? / self.step_ns.max(1);
        (slot < self.width() as u64).then_some(slot as usize)
    }

    /// How strong each pixel is, 0 to 1, in rows from the top; [`width`](Self::width) times `height` of them.
    ///
    /// Logarithmic, so that a single observation is still seen beside thousands.
    pub fn pixels(&self, height: usize) -> Vec<f64> {
        let width = self.width();
        let most = self.most().max(f64::MIN_POSITIVE);
        // Rates may lie far below 1: the weakest that is seen is a thousandth of the strongest.
        let strength = |count: f64| (1.0 + count / most * 1e3).ln() / 1_001f64.ln();
        let mut pixels = vec![0.0; width * height];
        for column in &self.columns {
            let Some(x) = self.slot(column.time_ns) else { continue };
            for cell in &column.cells {
                let (bottom, top) = (self.share(cell.low), self.share(cell.high));
                let first = (bottom * height as f64).round() as usize;
                let last = ((top * height as f64).round() as usize).max(first + 1).min(height);
                for row in first.min(height - 1)..last {
                    let pixel = &mut pixels[(height - 1 - row) * width + x];
                    *pixel = f64::max(*pixel, strength(cell.count));
                }
            }
        }
        pixels
    }

    /// The largest count of a cell.
    pub fn most(&self) -> f64 {
        self.columns.iter().flat_map(|c| &c.cells).map(|cell| cell.count).fold(0.0, f64::max)
    }

    /// The column and cell under a point, both coordinates 0 to 1 from the lower left.
    pub fn at(&self, x: f64, y: f64) -> Option<(&Column, Option<&Cell>)> {
        let slot = ((x * self.width() as f64) as usize).min(self.width() - 1);
        let column = self.columns.iter().find(|c| self.slot(c.time_ns) == Some(slot))?;
        let value = self.value(y);
        let inside = |cell: &&Cell| {
            let from = if cell.low <= self.low { f64::NEG_INFINITY } else { cell.low };
            from <= value && value < cell.high.max(self.low)
        };
        Some((column, column.cells.iter().find(inside)))
    }
}

/// One series of a classic histogram's buckets.
pub struct Bucket<'a> {
    pub labels: &'a Labels,
    /// (Unix ns, value), ascending.
    pub points: &'a [(u64, Option<f64>)],
}

/// Whether series are the buckets of classic histograms: each with a bound `le`, of which there are several.
pub fn are_buckets<'a>(series: impl IntoIterator<Item = &'a Labels>) -> bool {
    let mut bounds = Vec::new();
    for labels in series {
        match labels.get("le") {
            Some(le) => bounds.push(le),
            None => return false,
        }
    }
    bounds.sort_unstable();
    bounds.dedup();
    bounds.len() >= 3
}

/// Columns of cells from cumulative buckets. Histograms that differ in other labels than `le` are added up.
pub fn from_buckets(series: &[Bucket<'_>]) -> Vec<Column> {
    // Bits of a bound order like the bound only above 0: sorted as numbers below.
    let mut at: BTreeMap<u64, BTreeMap<u64, f64>> = BTreeMap::new();
    for one in series {
        let Some(bound) = one.labels.get("le").and_then(|le| le.parse::<f64>().ok()) else {
            continue;
        };
        for (time, value) in one.points {
            let Some(value) = value.filter(|v| v.is_finite()) else { continue };
            *at.entry(*time).or_default().entry(bound.to_bits()).or_default() += value;
        }
    }
    at.into_iter()
        .map(|(time_ns, bounds)| {
            let mut bounds: Vec<(f64, f64)> =
                bounds.into_iter().map(|(bits, count)| (f64::from_bits(bits), count)).collect();
            bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
            let first_low = bounds
                .first()
                .map_or(0.0, |(bound, _)| if *bound > 0.0 { 0.0 } else { f64::NEG_INFINITY });
            let (mut low, mut below, mut cells) = (first_low, 0.0, Vec::new());
            for (high, up_to) in bounds {
                // Scraped buckets may be apart by a moment, and rates by a rounding: not below nothing.
                let count = f64::max(up_to - below, 0.0);
                if count > 0.0 {
                    cells.push(Cell { low, high, count });
                }
                (low, below) = (high, below.max(up_to));
            }
            Column { time_ns, cells }
        })
        .collect()
}

/// Adds up columns of the same time, as several native histograms have them.
pub fn merge(columns: impl IntoIterator<Item = Column>) -> Vec<Column> {
    let mut at: BTreeMap<u64, Vec<Cell>> = BTreeMap::new();
    for column in columns {
        at.entry(column.time_ns).or_default().extend(column.cells);
    }
    at.into_iter()
        .map(|(time_ns, mut cells)| {
            cells.sort_by(|a, b| a.low.total_cmp(&b.low).then(a.high.total_cmp(&b.high)));
            let mut out: Vec<Cell> = Vec::with_capacity(cells.len());
            for cell in cells {
                match out.last_mut() {
                    Some(last) if (last.low, last.high) == (cell.low, cell.high) => {
                        last.count += cell.count;
                    }
                    _ => out.push(cell),
                }
            }
            Column { time_ns, cells: out }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn le(bound: &str) -> Labels {
        Labels::from([("le".to_owned(), bound.to_owned())])
    }

    fn cell(low: f64, high: f64, count: f64) -> Cell {
        Cell { low, high, count }
    }

    #[test]
    fn cumulative_buckets_become_cells_between_their_bounds() {
        let series = [
            (le("+Inf"), [(5, Some(9.0))]),
            (le("0.1"), [(5, Some(2.0))]),
            (le("1"), [(5, Some(6.0))]),
        ];
        let buckets: Vec<Bucket<'_>> =
            series.iter().map(|(labels, points)| Bucket { labels, points }).collect();
        let columns = from_buckets(&buckets);
        assert_eq!(columns.len(), 1);
        assert_eq!(
            columns[0].cells,
            [cell(0.0, 0.1, 2.0), cell(0.1, 1.0, 4.0), cell(1.0, f64::INFINITY, 3.0)]
        );
        assert!(are_buckets(series.iter().map(|(labels, _)| labels)));
        assert!(!are_buckets([&le("1"), &le("1"), &le("2")]));
        assert!(!are_buckets([&le("1"), &le("2"), &le("3"), &Labels::new()]));
    }

    #[test]
    fn the_axis_holds_all_bounds_and_open_ends_get_a_step() {
        let column = |cells| vec![Column { time_ns: 0, cells }];
        let cells = vec![cell(0.0, 0.1, 2.0), cell(0.1, 1.0, 4.0), cell(1.0, f64::INFINITY, 3.0)];
        let heat = Heat::new(0, 100, 10, column(cells)).unwrap();
        assert_eq!((heat.low, heat.high, heat.logarithmic), (0.05, 2.0, true));
        assert_eq!((heat.share(0.0), heat.share(f64::INFINITY)), (0.0, 1.0));
        assert!((heat.value(heat.share(0.4)) - 0.4).abs() < 1e-9);
        let heat = Heat::new(0, 100, 10, column(vec![cell(-2.0, 2.0, 1.0)])).unwrap();
        assert_eq!((heat.low, heat.high, heat.logarithmic), (-2.0, 2.0, false));
        assert_eq!(Heat::new(0, 100, 10, column(Vec::new())), None);
        let odd = Heat::new(0, 100, 10, column(vec![cell(f64::NEG_INFINITY, f64::INFINITY, 1.0)]));
        assert_eq!(odd.map(|h| (h.low, h.high)), Some((0.0, 1.0)));
    }

    #[test]
    fn fine_rows_are_put_together_and_nothing_is_lost() {
        let cells: Vec<Cell> =
            (0..500).map(|i| cell(1.01f64.powi(i), 1.01f64.powi(i + 1), 2.0)).collect();
        let heat = Heat::new(0, 10, 10, vec![Column { time_ns: 0, cells }]).unwrap();
        let coarse = heat.clone().coarse(40);
        let cells = &coarse.columns[0].cells;
        assert_eq!(cells.len(), 40);
        assert!((cells.iter().map(|c| c.count).sum::<f64>() - 1_000.0).abs() < 1e-6);
        assert!(cells.iter().all(|c| (c.count - 25.0).abs() < 1e-6));
        assert_eq!(heat.clone().coarse(500), heat);
    }

    #[test]
    fn ticks_are_round() {
        let heat = |low, high| {
            let columns = vec![Column { time_ns: 0, cells: vec![cell(low, high, 1.0)] }];
            Heat::new(0, 100, 10, columns).unwrap()
        };
        let values = |heat: &Heat| -> Vec<String> {
            heat.ticks().into_iter().map(|(_, value)| crate::format::significant(value)).collect()
        };
        assert_eq!(values(&heat(3.0, 60.0)), ["5", "10", "20", "50"]);
        assert_eq!(values(&heat(0.002, 1.0)), ["0.003", "0.01", "0.03", "0.1", "0.3", "1"]);
        assert!(values(&heat(1e-12, 1e12)).len() <= 9);
        assert_eq!(values(&heat(-2.0, 2.0)), ["-2", "-1", "0", "1", "2"]);
        assert_eq!(values(&heat(3.0, 60.0).holding([0.9, 150.0])), ["1", "3", "10", "30", "100"]);
    }

    #[test]
    fn pixels_are_stronger_where_there_is_more() {
        let columns = vec![
            Column { time_ns: 0, cells: vec![cell(1.0, 10.0, 1.0), cell(10.0, 100.0, 100.0)] },
            Column { time_ns: 20, cells: vec![cell(1.0, 10.0, 100.0)] },
        ];
        let heat = Heat::new(0, 30, 10, columns).unwrap();
        let pixels = heat.pixels(2);
        assert_eq!((heat.width(), pixels.len()), (3, 6));
        // Rows from the top: 10 to 100, then 1 to 10.
        assert_eq!((pixels[0], pixels[1], pixels[2]), (1.0, 0.0, 0.0));
        assert_eq!((pixels[4], pixels[5]), (0.0, 1.0));
        assert!(pixels[3] > 0.1 && pixels[3] < 0.5);
    }

    #[test]
    fn what_is_under_the_pointer_is_found() {
        let columns =
            vec![Column { time_ns: 20, cells: vec![cell(0.0, 10.0, 7.0), cell(10.0, 40.0, 1.0)] }];
        let heat = Heat::new(0, 30, 10, columns).unwrap();
        assert_eq!(heat.at(0.1, 0.5), None);
        let (column, found) = heat.at(0.99, 0.01).unwrap();
        assert_eq!((column.time_ns, found.map(|c| c.count)), (20, Some(7.0)));
        assert_eq!(heat.at(0.99, 0.99).unwrap().1.map(|c| c.count), Some(1.0));
    }

    #[test]
    fn histograms_of_several_series_are_added_up() {
        let column = |cells| Column { time_ns: 1, cells };
        let merged = merge([
            column(vec![cell(1.0, 2.0, 1.0), cell(2.0, 4.0, 1.0)]),
            column(vec![cell(1.0, 2.0, 5.0)]),
        ]);
        assert_eq!(merged, [column(vec![cell(1.0, 2.0, 6.0), cell(2.0, 4.0, 1.0)])]);
    }
}
