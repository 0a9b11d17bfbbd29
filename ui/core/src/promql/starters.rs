//! Queries to start from, by what kind of metric it is.

/// A question about a metric, and the query that answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starter {
    pub label: &'static str,
    pub query: String,
}

/// What one usually wants to see of a metric; the first is the best.
///
/// * `name`: of the family, `kind`: its type as the metadata have it.
/// * `native`: whether its histogram is one sample and not a series for each bucket.
/// * `by`: the label that tells services apart in it, if there is one.
pub fn starters(name: &str, kind: &str, native: bool, by: Option<&str>) -> Vec<Starter> {
    let starter = |label, query| Starter { label, query };
    let sum = |inner: &str| match by {
        Some(by) => format!("sum by ({by}) ({inner})"),
        None => format!("sum({inner})"),
    };
    match kind {
        "counter" => vec![
            starter("Rate", sum(&format!("rate({name}[1m])"))),
            starter("Increase over 5 m", sum(&format!("increase({name}[5m])"))),
        ],
        "histogram" | "exponential_histogram" if native => vec![
            starter("Heat map", format!("sum(rate({name}[1m]))")),
            starter(
                "p99",
                format!("histogram_quantile(0.99, {})", sum(&format!("rate({name}[1m])"))),
            ),
            starter("Rate", format!("histogram_count({})", sum(&format!("rate({name}[1m])")))),
        ],
        "histogram" => {
            let labels = by.map_or_else(|| "le".to_owned(), |by| format!("{by}, le"));
            vec![
                starter("Heat map", format!("sum by (le) (rate({name}_bucket[1m]))")),
                starter(
                    "p99",
                    format!(
                        "histogram_quantile(0.99, sum by ({labels}) (rate({name}_bucket[1m])))"
                    ),
                ),
                starter("Rate", sum(&format!("rate({name}_count[1m])"))),
            ]
        }
        "summary" => vec![
            starter("Quantiles", name.to_owned()),
            starter("Rate", sum(&format!("rate({name}_count[1m])"))),
        ],
        _ => vec![
            starter("Values", name.to_owned()),
            starter("Sum", sum(name)),
            starter("Largest 10", format!("topk(10, {name})")),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starters_fit_the_kind_of_the_metric() {
        let first = |kind, native, by| starters("m", kind, native, by).remove(0).query;
        assert_eq!(first("counter", false, Some("job")), "sum by (job) (rate(m[1m]))");
        assert_eq!(first("histogram", false, None), "sum by (le) (rate(m_bucket[1m]))");
        assert_eq!(first("histogram", true, None), "sum(rate(m[1m]))");
        assert_eq!(first("gauge", false, None), "m");
        assert_eq!(first("unknown", false, None), "m");
        assert_eq!(
            starters("m", "histogram", false, Some("job"))[1].query,
            "histogram_quantile(0.99, sum by (job, le) (rate(m_bucket[1m])))"
        );
    }
}
