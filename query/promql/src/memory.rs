//! A source that holds its series in memory: for tests, and for callers who computed series
//! themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::budget::Budget;
use crate::histogram::{Histogram, mark_reset};
use crate::labels::Labels;
use crate::matcher::{Matcher, matches_all};
use crate::series::{Column, SampleValue, Series};
use crate::source::{
    Exemplar, ExemplarSeries, Metadata, SelectHints, SeriesSource, SourceError, SourceStats,
    TimeRange,
};

/// Series in memory. Samples may be added in any order; of two at one time the later added wins.
#[derive(Debug, Default)]
pub struct MemorySource {
    series: HashMap<Labels, BTreeMap<i64, (SampleValue, i64)>>,
    metadata: BTreeMap<String, Vec<Metadata>>,
    exemplars: HashMap<Labels, Vec<Exemplar>>,
}

impl MemorySource {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample.
    pub fn add(&mut self, labels: &Labels, time_ms: i64, value: SampleValue) {
        self.add_started(labels, time_ms, value, 0);
    }

    /// Adds a sample whose counter began at `start_ms` (0 = not known).
    pub fn add_started(
        &mut self,
        labels: &Labels,
        time_ms: i64,
        value: SampleValue,
        start_ms: i64,
    ) {
        self.series.entry(labels.clone()).or_default().insert(time_ms, (value, start_ms));
    }

    /// Sets the metadata of a metric family.
    pub fn set_metadata(&mut self, family: &str, metadata: Metadata) {
        self.metadata.insert(family.to_owned(), vec![metadata]);
    }

    /// Adds an exemplar to a series.
    pub fn add_exemplar(&mut self, labels: &Labels, exemplar: Exemplar) {
        self.exemplars.entry(labels.clone()).or_default().push(exemplar);
    }

    fn matching<'a>(
        &'a self,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
    ) -> impl Iterator<Item = &'a Labels> {
        self.series
            .iter()
            .filter(move |(_, samples)| {
                samples.range(range.start_ms..=range.end_ms).next().is_some()
            })
            .map(|(labels, _)| labels)
            .filter(move |l| selectors.is_empty() || selectors.iter().any(|m| matches_all(m, l)))
    }
}

fn push<T: Clone>(column: &mut Column<T>, time_ms: i64, value: T, start_ms: i64) {
    if start_ms != 0 && column.starts.is_empty() {
        column.starts = vec![0; column.len()];
    }
    if start_ms != 0 || !column.starts.is_empty() {
        column.starts.push(start_ms);
    }
    column.push(time_ms, value);
}

fn cut<T>(mut list: Vec<T>, limit: usize) -> Vec<T> {
    if limit > 0 {
        list.truncate(limit);
    }
    list
}

impl SeriesSource for MemorySource {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _hints: &SelectHints,
        budget: &Budget,
    ) -> Result<Vec<Series>, SourceError> {
        let mut out = Vec::new();
        if range.start_ms > range.end_ms {
            return Ok(out);
        }
        for (labels, samples) in &self.series {
            if !matches_all(matchers, labels) {
                continue;
            }
            let mut series = Series::new(labels.clone());
            let mut previous: Option<Arc<Histogram>> = None;
            // From the start, because a histogram's hint depends on the sample before it.
            for (&time_ms, (value, start_ms)) in samples.range(..=range.end_ms) {
                let histogram = match value {
                    SampleValue::Float(v) => {
                        if time_ms >= range.start_ms {
                            push(&mut series.floats, time_ms, *v, *start_ms);
                        }
                        None
                    }
                    SampleValue::Histogram(h) => {
                        let mut h = Histogram::clone(h);
                        mark_reset(previous.as_deref(), &mut h);
                        Some(Arc::new(h))
                    }
                };
                if let Some(h) = histogram.as_ref().filter(|_| time_ms >= range.start_ms) {
                    push(&mut series.histograms, time_ms, h.clone(), *start_ms);
                }
                previous = histogram;
            }
            if !series.is_empty() {
                budget.take_read(series.sample_cost())?;
                out.push(series);
            }
        }
        budget.take_series(out.len() as u64)?;
        Ok(out)
    }

    fn series(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<Labels>, SourceError> {
        budget.check()?;
        Ok(cut(self.matching(selectors, range).cloned().collect(), limit))
    }

    fn label_names(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        budget.check()?;
        let names: BTreeSet<&str> =
            self.matching(selectors, range).flat_map(|l| l.iter().map(|(n, _)| n)).collect();
        Ok(cut(names.into_iter().map(str::to_owned).collect(), limit))
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        budget.check()?;
        let values: BTreeSet<&str> =
            self.matching(selectors, range).filter_map(|l| l.get(name)).collect();
        Ok(cut(values.into_iter().map(str::to_owned).collect(), limit))
    }

    fn metadata(
        &self,
        family: Option<&str>,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        let wanted = |name: &String| family.is_none_or(|f| f == name);
        Ok(self
            .metadata
            .iter()
            .filter(|(n, _)| wanted(n))
            .map(|(n, m)| (n.clone(), m.clone()))
            .collect())
    }

    fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        budget: &Budget,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        budget.check()?;
        let mut out = Vec::new();
        for (labels, all) in &self.exemplars {
            if !selectors.is_empty() && !selectors.iter().any(|m| matches_all(m, labels)) {
                continue;
            }
            let mut exemplars: Vec<Exemplar> = all
                .iter()
                .filter(|e| (range.start_ms..=range.end_ms).contains(&e.time_ms))
                .cloned()
                .collect();
            exemplars.sort_by_key(|e| e.time_ms);
            if !exemplars.is_empty() {
                out.push(ExemplarSeries { labels: labels.clone(), exemplars });
            }
        }
        Ok(out)
    }

    fn stats(&self, limit: usize) -> Result<SourceStats, SourceError> {
        let mut by_metric: BTreeMap<&str, u64> = BTreeMap::new();
        let mut by_label: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut times: Option<(i64, i64)> = None;
        for (labels, samples) in &self.series {
            *by_metric.entry(labels.name()).or_default() += 1;
            for (name, value) in labels.iter() {
                by_label.entry(name).or_default().insert(value);
            }
            if let (Some((&first, _)), Some((&last, _))) =
                (samples.first_key_value(), samples.last_key_value())
            {
                times = Some(times.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
            }
        }
        let label_pairs = by_label.values().map(|v| v.len() as u64).sum();
        let top = |list: Vec<(String, u64)>| {
            let mut list = list;
            list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            list.truncate(limit);
            list
        };
        Ok(SourceStats {
            series: self.series.len() as u64,
            label_pairs,
            times_ms: times,
            series_by_metric: top(by_metric.into_iter().map(|(n, c)| (n.into(), c)).collect()),
            values_by_label: top(by_label
                .into_iter()
                .map(|(n, v)| (n.into(), v.len() as u64))
                .collect()),
        })
    }
}
