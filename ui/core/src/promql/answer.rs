//! Answers of the Prometheus HTTP API, and what charts make of them.

use crate::heat::{Cell, Column};
use crate::series::{Labels, Points};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Of `query_range`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct RangeAnswer {
    pub data: RangeData,
    #[serde(default)]
    pub warnings: Vec<String>,
    #[serde(default)]
    pub infos: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct RangeData {
    pub result: Vec<Series>,
}

/// A series of floats, of histograms, or of both at different times.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Series {
    pub metric: Labels,
    /// (Unix seconds, value).
    #[serde(default)]
    pub values: Vec<(f64, String)>,
    #[serde(default)]
    pub histograms: Vec<(f64, WireHistogram)>,
}

/// A native histogram.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct WireHistogram {
    pub count: String,
    pub sum: String,
    /// (which ends belong to it, lower end, upper end, observations).
    #[serde(default)]
    pub buckets: Vec<(u8, String, String, String)>,
}

/// Of `labels` and `label/{name}/values`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ListAnswer {
    pub data: Vec<String>,
}

/// Of `metadata`: by family.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct MetadataAnswer {
    pub data: BTreeMap<String, Vec<Metadata>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Metadata {
    #[serde(rename = "type")]
    pub kind: String,
    pub unit: String,
    pub help: String,
}

/// Of `query_exemplars`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ExemplarAnswer {
    pub data: Vec<ExemplarSeries>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ExemplarSeries {
    #[serde(rename = "seriesLabels")]
    pub series: Labels,
    pub exemplars: Vec<WireExemplar>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct WireExemplar {
    pub labels: Labels,
    pub value: String,
    /// Unix seconds.
    pub timestamp: f64,
}

/// An exemplar that leads to a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub trace_id: String,
    /// Empty when there is none.
    pub span_id: String,
    pub time_ns: u64,
    pub value: f64,
    pub series: Labels,
}

impl Series {
    /// Its floats; what is not finite is a gap.
    pub fn points(&self) -> Points {
        let value = |text: &String| text.parse().ok().filter(|v: &f64| v.is_finite());
        self.values.iter().map(|(time, text)| (nanoseconds(*time), value(text))).collect()
    }

    /// Its histograms as columns of a heat map.
    pub fn columns(&self) -> Vec<Column> {
        self.histograms
            .iter()
            .map(|(time, histogram)| Column {
                time_ns: nanoseconds(*time),
                cells: histogram.cells(),
            })
            .collect()
    }
}

impl WireHistogram {
    fn cells(&self) -> Vec<Cell> {
        let number = |text: &String| text.parse::<f64>().ok();
        self.buckets
            .iter()
            .filter_map(|(_, low, high, count)| {
                let (low, high, count) = (number(low)?, number(high)?, number(count)?);
                // The bucket around zero is a line on a logarithmic axis: it starts there.
                let low = if low < 0.0 && high > 0.0 && low == -high { 0.0 } else { low };
                (count > 0.0).then_some(Cell { low, high, count })
            })
            .collect()
    }

    /// Mean of the observations, `None` without any.
    pub fn mean(&self) -> Option<f64> {
        let mean = self.sum.parse::<f64>().ok()? / self.count.parse::<f64>().ok()?;
        mean.is_finite().then_some(mean)
    }
}

impl ExemplarAnswer {
    /// Those that name a trace, by time.
    pub fn leading_to_traces(self) -> Vec<Exemplar> {
        let mut found = Vec::new();
        for series in self.data {
            for one in series.exemplars {
                let label =
                    |names: [&str; 2]| names.iter().find_map(|name| one.labels.get(*name)).cloned();
                let Some(trace_id) = label(["trace_id", "traceID"]) else { continue };
                let Ok(value) = one.value.parse() else { continue };
                found.push(Exemplar {
                    trace_id,
                    span_id: label(["span_id", "spanID"]).unwrap_or_default(),
                    time_ns: nanoseconds(one.timestamp),
                    value,
                    series: series.series.clone(),
                });
            }
        }
        found.sort_by_key(|exemplar| exemplar.time_ns);
        // A query may select a series twice; a span may stand on several series.
        found.dedup_by(|a, b| {
            (&a.trace_id, &a.span_id, a.time_ns) == (&b.trace_id, &b.span_id, b.time_ns)
        });
        found
    }
}

/// Unix seconds of the API, in milliseconds at the finest, as Unix ns.
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e3).round().max(0.0) as u64 * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_and_histograms_are_read() {
        let answer: RangeAnswer = serde_json::from_str(
            r#"{"status":"success","data":{"resultType":"matrix","result":[
                {"metric":{"a":"b"},"values":[[1700000000.123,"1.5"],[1700000015,"NaN"],[1700000030,"+Inf"]]},
                {"metric":{},"histograms":[[1,{"count":"4","sum":"10",
                    "buckets":[[3,"-0.5","0.5","1"],[0,"1","2","2"],[0,"2","4","0"],[0,"4","+Inf","1"]]}]]}
            ]},"infos":["x"]}"#,
        )
        .unwrap();
        let [floats, histograms] = &answer.data.result[..] else { panic!("two series") };
        assert_eq!(
            floats.points(),
            [
                (1_700_000_000_123_000_000, Some(1.5)),
                (1_700_000_015_000_000_000, None),
                (1_700_000_030_000_000_000, None)
            ]
        );
        let cells = &histograms.columns()[0].cells;
        assert_eq!(
            cells.iter().map(|c| (c.low, c.high, c.count)).collect::<Vec<_>>(),
            [(0.0, 0.5, 1.0), (1.0, 2.0, 2.0), (4.0, f64::INFINITY, 1.0)]
        );
        assert_eq!(histograms.histograms[0].1.mean(), Some(2.5));
        assert_eq!(WireHistogram { count: "0".into(), ..Default::default() }.mean(), None);
    }

    #[test]
    fn exemplars_without_a_trace_lead_nowhere() {
        let answer: ExemplarAnswer = serde_json::from_str(
            r#"{"data":[{"seriesLabels":{"s":"1"},"exemplars":[
                {"labels":{"trace_id":"t2","span_id":"x"},"value":"0.5","timestamp":2},
                {"labels":{"user":"u"},"value":"0.5","timestamp":3},
                {"labels":{"trace_id":"t1"},"value":"0.25","timestamp":1.5}]},
                {"seriesLabels":{"s":"2"},"exemplars":[
                {"labels":{"trace_id":"t2","span_id":"x"},"value":"0.5","timestamp":2}]}]}"#,
        )
        .unwrap();
        let found = answer.leading_to_traces();
        let ids: Vec<(&str, &str, u64)> =
            found.iter().map(|e| (&*e.trace_id, &*e.span_id, e.time_ns)).collect();
        assert_eq!(ids, [("t1", "", 1_500_000_000), ("t2", "x", 2_000_000_000)]);
    }
}
