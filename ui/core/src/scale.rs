//! Scales and ticks.

/// A value axis: from its first tick to its last.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    pub ticks: Vec<f64>,
}

impl Axis {
    /// An axis with about `wanted` round steps that holds 0 and all finite values.
    pub fn over(values: impl IntoIterator<Item = f64>, wanted: usize) -> Self {
        let (low, high) = values
            .into_iter()
            .filter(|v| v.is_finite())
            .fold((0f64, 0f64), |(low, high), v| (low.min(v), high.max(v)));
        if low == 0.0 {
            return Self { ticks: ticks_up_to(high, wanted) };
        }
        // Below zero the same steps go on.
        let step = ticks_up_to(high - low, wanted)[1];
        let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
        Self { ticks: (first..=last).map(|i| i as f64 * step).collect() }
    }

    pub fn low(&self) -> f64 {
        self.ticks.first().copied().unwrap_or(0.0)
    }

    pub fn high(&self) -> f64 {
        self.ticks.last().copied().unwrap_or(1.0)
    }

    /// Where a value stands, 0 at the bottom and 1 at the top; values beyond stand at the ends.
    pub fn share(&self, value: f64) -> f64 {
        ((value - self.low()) / (self.high() - self.low())).clamp(0.0, 1.0)
    }
}

/// About `wanted` round values from 0 up to at least `max`; the last one is the top of the axis.
pub fn ticks_up_to(max: f64, wanted: usize) -> Vec<f64> {
    if max.is_nan() || max <= 0.0 || !max.is_finite() {
        return vec![0.0, 1.0];
    }
    let raw = max / wanted.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|step| *step >= raw * 0.999)
        .unwrap_or(10.0 * power);
    let count = (max / step).ceil().max(1.0) as usize;
    (0..=count).map(|i| i as f64 * step).collect()
}

/// Points of an SVG polyline per unbroken run of values, in a box of 1000 by 100 with y down.
///
/// * `points`: (share of the width 0-1, value).
pub fn paths(points: &[(f64, Option<f64>)], axis: &Axis) -> String {
    let mut out = String::new();
    let mut open = false;
    for (i, (x, value)) in points.iter().enumerate() {
        let Some(value) = value.filter(|v| v.is_finite()) else {
            open = false;
            continue;
        };
        let (x, y) = (x * 1000.0, 100.0 - axis.share(value) * 100.0);
        let alone = !open && points.get(i + 1).is_none_or(|(_, next)| next.is_none());
        if alone {
            // A single value would be an invisible path: a short dash.
            out.push_str(&format!("M{:.1} {y:.2}H{:.1}", x - 3.0, x + 3.0));
        } else {
            out.push_str(&format!("{}{x:.1} {y:.2}", if open { 'L' } else { 'M' }));
        }
        open = true;
    }
    out
}

/// Share of a logarithmic axis at which `value` stands, 0-1.
pub fn log_share(value: f64, low: f64, high: f64) -> f64 {
    if low <= 0.0 || high <= low {
        return 0.5;
    }
    ((value.max(low).ln() - low.ln()) / (high.ln() - low.ln())).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_top() {
        assert_eq!(ticks_up_to(97.0, 4), [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(ticks_up_to(0.0, 4), [0.0, 1.0]);
        assert!(ticks_up_to(1.3e9, 4).last().is_some_and(|top| *top >= 1.3e9));
    }

    #[test]
    fn an_axis_holds_zero_and_values_of_both_signs() {
        let axis = Axis::over([-3.0, 12.0, f64::NAN, f64::INFINITY], 3);
        assert_eq!(axis.ticks, [-5.0, 0.0, 5.0, 10.0, 15.0]);
        assert_eq!((axis.share(-5.0), axis.share(5.0), axis.share(99.0)), (0.0, 0.5, 1.0));
        assert_eq!(Axis::over([-0.2], 2).ticks, [-0.2, -0.1, 0.0]);
        assert_eq!(Axis::over([7.0], 2).ticks, [0.0, 5.0, 10.0]);
        assert_eq!(Axis::over([], 3).ticks, [0.0, 1.0]);
    }

    #[test]
    fn gaps_break_the_line_and_single_values_stay_visible() {
        let points = [(0.0, Some(0.0)), (0.5, Some(1.0)), (0.75, None), (1.0, Some(0.5))];
        let axis = Axis { ticks: vec![0.0, 1.0] };
        assert_eq!(paths(&points, &axis), "M0.0 100.00L500.0 0.00M997.0 50.00H1003.0");
    }

    #[test]
    fn a_log_axis_has_its_middle_at_the_geometric_mean() {
        assert!((log_share(10.0, 1.0, 100.0) - 0.5).abs() < 1e-9);
        assert_eq!(log_share(0.1, 1.0, 100.0), 0.0);
    }
}
