//! `sort` and its relatives: they only order the result of an instant query.

use std::cmp::Ordering;

use crate::engine::value::StepSeries;

/// Orders two values with NaN last, whatever the direction.
fn by_value(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        _ if descending => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
        _ => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
    }
}

/// Sorts by the value at the only step; histograms are dropped.
pub(crate) fn sort(series: &mut Vec<StepSeries>, steps: usize, descending: bool) {
    for s in series.iter_mut() {
        s.points.histograms = None;
    }
    series.retain(|s| !s.points.is_empty());
    if steps == 1 {
        series.sort_by(|a, b| by_value(a.points.floats[0], b.points.floats[0], descending));
    }
}

/// Sorts by labels in natural order, then by all labels.
pub(crate) fn sort_by_labels(series: &mut [StepSeries], labels: &[&str], descending: bool) {
    series.sort_by(|a, b| {
        let by_label = labels.iter().find_map(|label| {
            let get = |s: &StepSeries| s.labels.get(label).unwrap_or("").to_owned();
            let (x, y) = (get(a), get(b));
            (x != y).then(|| natural(&x, &y))
        });
        let order = by_label.unwrap_or_else(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    });
}

/// Compares texts with the numbers in them taken as numbers: `a2` before `a10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b) = (chunks(a), chunks(b));
    for (x, y) in a.iter().zip(&b) {
        if let (Ok(m), Ok(n)) = (x.parse::<i64>(), y.parse::<i64>()) {
            if m != n {
                return m.cmp(&n);
            }
        } else if x != y {
            return x.cmp(y);
        }
    }
    a.len().cmp(&b.len())
}

fn chunks(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let bytes = text.as_bytes();
    for i in 1..=bytes.len() {
        let boundary =
            i == bytes.len() || bytes[i].is_ascii_digit() != bytes[i - 1].is_ascii_digit();
        if boundary {
            out.push(&text[start..i]);
            start = i;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_texts_order_as_numbers() {
        let mut list = ["cpu10", "cpu2", "cpu", "cpu02b", "b"];
        list.sort_by(|a, b| natural(a, b));
        assert_eq!(list, ["b", "cpu", "cpu2", "cpu02b", "cpu10"]);
    }
}
