//! Series of a query's answer: what tells them apart, and their figures.

use std::collections::{BTreeMap, BTreeSet};

/// Labels of a series, `__name__` among them.
pub type Labels = BTreeMap<String, String>;

/// (Unix ns, value), ascending; `None` is a gap.
pub type Points = Vec<(u64, Option<f64>)>;

/// The labels in which series differ. With only one series, all of its labels but the name.
pub fn telling(series: &[&Labels]) -> Vec<String> {
    let keys: BTreeSet<&String> = series.iter().flat_map(|labels| labels.keys()).collect();
    let differs = |key: &String| series.iter().any(|labels| labels.get(key) != series[0].get(key));
    let single = series.len() == 1;
    keys.into_iter()
        .filter(|key| if single { *key != "__name__" } else { differs(key) })
        .cloned()
        .collect()
}

/// A short name of a series: the values of these labels; with none of them, its name.
pub fn short_name(labels: &Labels, telling: &[String]) -> String {
    let parts: Vec<String> = telling
        .iter()
        .filter_map(|key| {
            let value = labels.get(key)?;
            // One label speaks for itself.
            let alone = telling.len() == 1 || key == "__name__";
            Some(if alone { value.clone() } else { format!("{key}={value}") })
        })
        .collect();
    if parts.is_empty() {
        labels.get("__name__").cloned().unwrap_or_else(|| "value".to_owned())
    } else {
        parts.join(" ")
    }
}

/// A series as PromQL writes it.
pub fn selector(labels: &Labels) -> String {
    let name = labels.get("__name__").cloned().unwrap_or_default();
    let rest: Vec<String> = labels
        .iter()
        .filter(|(key, _)| *key != "__name__")
        .map(|(key, value)| format!("{key}=\"{}\"", crate::promql::complete::escape(value)))
        .collect();
    if rest.is_empty() && !name.is_empty() {
        name
    } else {
        format!("{name}{{{}}}", rest.join(", "))
    }
}

/// Puts a gap where steps are missing, so that no line is drawn across it.
pub fn with_gaps(points: Points, step_ns: u64) -> Points {
    let mut out = Points::with_capacity(points.len());
    for (time, value) in points {
        if let Some((before, _)) = out.last()
            && time - before > step_ns + step_ns / 2
        {
            out.push((before + step_ns, None));
        }
        out.push((time, value));
    }
    out
}

/// Figures of a series over the range; of finite values only.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    pub last: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub mean: Option<f64>,
}

pub fn figures(points: &[(u64, Option<f64>)]) -> Figures {
    let values: Vec<f64> =
        points.iter().filter_map(|(_, value)| *value).filter(|v| v.is_finite()).collect();
    Figures {
        last: values.last().copied(),
        min: values.iter().copied().reduce(f64::min),
        max: values.iter().copied().reduce(f64::max),
        mean: (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64),
    }
}

/// Thins exemplars out: of those that share a piece of the time axis only the largest `each`.
///
/// * `times`: (share of the time axis 0-1, value) of each; gives the places of those that stay, in order.
pub fn thin_out(times: &[(f64, f64)], pieces: usize, each: usize) -> Vec<usize> {
    let mut by_piece: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, (share, _)) in times.iter().enumerate() {
        by_piece.entry((share * pieces as f64) as usize).or_default().push(i);
    }
    let mut kept: Vec<usize> = by_piece
        .into_values()
        .flat_map(|mut piece| {
            piece.sort_by(|a, b| times[*b].1.total_cmp(&times[*a].1));
            piece.truncate(each);
            piece
        })
        .collect();
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn series_are_named_by_what_tells_them_apart() {
        let a = labels(&[("__name__", "x"), ("job", "a"), ("zone", "1")]);
        let b = labels(&[("__name__", "x"), ("job", "b"), ("zone", "1")]);
        let c = labels(&[("__name__", "x"), ("job", "b"), ("zone", "2")]);
        let two = telling(&[&a, &b]);
        assert_eq!((two.as_slice(), short_name(&a, &two)), (&["job".to_owned()][..], "a".into()));
        let three = telling(&[&a, &b, &c]);
        assert_eq!(short_name(&c, &three), "job=b zone=2");
        assert_eq!(short_name(&a, &telling(&[&a])), "job=a zone=1");
        assert_eq!(short_name(&labels(&[("__name__", "x")]), &[]), "x");
        assert_eq!(short_name(&labels(&[]), &[]), "value");
        assert_eq!(selector(&a), "x{job=\"a\", zone=\"1\"}");
        assert_eq!(selector(&labels(&[])), "{}");
    }

    #[test]
    fn missing_steps_are_gaps() {
        let points = vec![(0, Some(1.0)), (10, Some(2.0)), (40, Some(3.0))];
        assert_eq!(
            with_gaps(points, 10),
            [(0, Some(1.0)), (10, Some(2.0)), (20, None), (40, Some(3.0))]
        );
    }

    #[test]
    fn figures_leave_out_what_is_no_number() {
        let f = figures(&[(0, Some(1.0)), (1, None), (2, Some(3.0)), (3, Some(f64::NAN))]);
        assert_eq!((f.last, f.min, f.max, f.mean), (Some(3.0), Some(1.0), Some(3.0), Some(2.0)));
        assert_eq!(figures(&[]), Figures::default());
    }

    #[test]
    fn the_largest_exemplar_of_each_piece_stays() {
        let times = [(0.01, 1.0), (0.02, 5.0), (0.03, 2.0), (0.9, 0.5)];
        assert_eq!(thin_out(&times, 10, 1), [1, 3]);
        assert_eq!(thin_out(&times, 10, 2), [1, 2, 3]);
    }
}
