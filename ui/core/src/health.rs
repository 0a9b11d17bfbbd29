//! Which services deserve a look: the last minutes against what came before.

use trefoil_api::services::ServiceRow;

/// Steps at the end of a sparkline that count as now.
const NOW_STEPS: usize = 3;

/// Below this a slower service is nobody's problem, ns.
const SLOW_MIN_NS: f64 = 20e6;

/// So many times its usual p99 is slow; the p99 of ten quiet seconds is little more than their maximum.
const SLOW_FACTOR: f64 = 3.0;

/// What is wrong with a service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Health {
    /// p99 is this many times its usual.
    pub slower: Option<f64>,
    /// Share of errors of late.
    pub failing: Option<f64>,
}

impl Health {
    pub fn is_well(&self) -> bool {
        self.slower.is_none() && self.failing.is_none()
    }
}

pub fn health(row: &ServiceRow) -> Health {
    let seen: Vec<f64> = row.p99_series.iter().flatten().copied().collect();
    let mut slower = None;
    if seen.len() > NOW_STEPS {
        let (before, now) = seen.split_at(seen.len() - NOW_STEPS);
        let mut before = before.to_vec();
        before.sort_by(f64::total_cmp);
        // The lower quartile and not the median: what has been slow for most of the range is still slow.
        let usual = before[before.len() / 4];
        let worst = now.iter().copied().fold(0.0, f64::max);
        if worst > SLOW_MIN_NS && worst > usual * SLOW_FACTOR {
            slower = Some(worst / usual.max(1.0));
        }
    }
    let late: Vec<f64> = row.error_series.iter().rev().flatten().take(NOW_STEPS).copied().collect();
    let worst = late.iter().copied().fold(0.0, f64::max);
    Health { slower, failing: (worst >= 0.05).then_some(worst) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_in_p99_and_a_burst_of_errors_are_seen() {
        let mut row = ServiceRow {
            p99_series: vec![Some(10e6), None, Some(11e6), Some(9e6), Some(10e6), Some(900e6)],
            error_series: vec![Some(0.0); 6],
            ..ServiceRow::default()
        };
        // Usual is the lower quartile of what came before the last three steps.
        assert_eq!(health(&row).slower, Some(900e6 / 10e6));
        assert_eq!(health(&row).failing, None);
        row.error_series[5] = Some(0.4);
        assert_eq!(health(&row).failing, Some(0.4));
        row.p99_series = [vec![Some(10e6); 6], vec![Some(900e6); 18]].concat();
        assert_eq!(health(&row).slower, Some(90.0), "three minutes later it is still seen");
        row.p99_series = vec![Some(10e6); 6];
        row.error_series = vec![Some(0.01); 6];
        assert!(health(&row).is_well());
    }
}
