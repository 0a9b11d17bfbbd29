//! A fixed view of the logs and the questions it answers.

use super::batch::LogBatch;
use super::filter::{Field, LogFilter, LogRows};
use super::query::{Bucket, By, LogQuery, LogRange, Order};
use super::row::LogRow;
use super::severity::effective_class;
use crate::attributes;
use crate::resource::Interner;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::sync::Arc;

/// A fixed view of the logs: cheap to make, unaffected by what comes later.
#[derive(Debug, Clone)]
pub struct LogSnapshot {
    pub(super) hot: Vec<Arc<LogBatch>>,
    pub(super) interner: Arc<Interner>,
}

/// The best `limit` hits so far by time.
pub(super) struct Best {
    order: Order,
    limit: usize,
    /// Sort key (smaller is worse), source, row.
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Best {
    fn new(order: Order, limit: usize) -> Self {
        Self { order, limit, heap: BinaryHeap::new() }
    }

    /// Larger is better.
    fn key(&self, time_ns: u64) -> u64 {
        match self.order {
            Order::NewestFirst => time_ns,
            Order::OldestFirst => !time_ns,
        }
    }

    /// Whether a hit at this time would be kept.
    fn wants(&self, time_ns: u64) -> bool {
        self.heap.len() < self.limit
            || self.heap.peek().is_some_and(|Reverse((worst, ..))| self.key(time_ns) > *worst)
    }

    fn add(&mut self, time_ns: u64, source: u32, row: u32) {
        if self.wants(time_ns) {
            self.heap.push(Reverse((self.key(time_ns), source, row)));
            if self.heap.len() > self.limit {
                self.heap.pop();
            }
        }
    }
}

impl LogSnapshot {
    /// Matching records in time order, at most `limit`; reading stops as soon as no other can come before them.
    pub fn search(&self, query: &LogQuery) -> io::Result<Vec<LogRow>> {
        let LogQuery { filter, range, order, .. } = query;
        let mut best = Best::new(*order, query.limit);
        let mut sources: Vec<(u64, u32)> = self
            .hot
            .iter()
            .enumerate()
            .filter(|(_, batch)| range.meets(batch.min_ns, batch.max_ns))
            .map(|(i, batch)| match order {
                Order::NewestFirst => (batch.max_ns, i as u32),
                Order::OldestFirst => (batch.min_ns, i as u32),
            })
            .collect();
        sources.sort_unstable_by_key(|(time_ns, _)| Reverse(best.key(*time_ns)));
        for (nearest_ns, source) in sources {
            if !best.wants(nearest_ns) {
                break;
            }
            range.check_deadline()?;
            let batch = &self.hot[source as usize];
            for (row, fields) in batch.rows.iter().enumerate() {
                let time_ns = fields.time_ns;
                if range.contains(time_ns) && best.wants(time_ns) && filter.matches(&**batch, row) {
                    best.add(time_ns, source, row as u32);
                }
            }
        }
        let mut hits = best.heap.into_vec();
        hits.sort_unstable();
        Ok(hits
            .into_iter()
            .map(|Reverse((_, source, row))| self.hot[source as usize].row(row as usize))
            .collect())
    }

    /// Exact number of matching records.
    pub fn count(&self, filter: &LogFilter, range: &LogRange) -> io::Result<u64> {
        let mut count = 0;
        self.each_hot(filter, range, |_, _| count += 1)?;
        Ok(count)
    }

    /// Matching records per step of time, exact, in time order.
    ///
    /// * `step_ns`: at least 1.
    pub fn histogram(
        &self,
        filter: &LogFilter,
        range: &LogRange,
        step_ns: u64,
        by: &By,
    ) -> io::Result<Vec<Bucket>> {
        let step_ns = step_ns.max(1);
        let mut buckets: BTreeMap<u64, BTreeMap<String, u64>> = BTreeMap::new();
        self.each_hot(filter, range, |batch, row| {
            let time_ns = batch.rows[row].time_ns;
            let counts = buckets.entry(time_ns - time_ns % step_ns).or_default();
            *counts.entry(label(by, batch, row)).or_default() += 1;
        })?;
        Ok(buckets.into_iter().map(|(start_ns, counts)| Bucket { start_ns, counts }).collect())
    }

    fn each_hot(
        &self,
        filter: &LogFilter,
        range: &LogRange,
        mut visit: impl FnMut(&LogBatch, usize),
    ) -> io::Result<()> {
        for batch in &self.hot {
            if !range.meets(batch.min_ns, batch.max_ns) {
                continue;
            }
            range.check_deadline()?;
            for (row, fields) in batch.rows.iter().enumerate() {
                if range.contains(fields.time_ns) && filter.matches(&**batch, row) {
                    visit(batch, row);
                }
            }
        }
        Ok(())
    }
}

/// The name a row is counted under.
pub(super) fn label(by: &By, rows: &dyn LogRows, row: usize) -> String {
    match by {
        By::Nothing => String::new(),
        By::Severity | By::Field(Field::Severity) => {
            effective_class(rows.severity_number(row), rows.severity_text(row)).name().to_owned()
        }
        By::Field(Field::Body) => rows.body(row).to_owned(),
        By::Field(Field::Service) => rows.resource(row).service_name.to_string(),
        By::Field(Field::EventName) => rows.event_name(row).to_owned(),
        By::Field(Field::Scope) => rows.scope(row).name.to_string(),
        By::Field(Field::TraceId) => crate::spans::records::hex(&rows.trace_id(row)),
        By::Field(Field::SpanId) => crate::spans::records::hex(&rows.span_id(row)),
        By::Field(Field::Resource(key)) => resource_text(rows, row, key),
        By::Field(Field::Attribute(key)) => {
            let mut found = None;
            rows.attribute(row, key, &mut |value| found = Some(value.to_text().into_owned()));
            found.unwrap_or_else(|| resource_text(rows, row, key))
        }
    }
}

fn resource_text(rows: &dyn LogRows, row: usize, key: &str) -> String {
    attributes::get(&rows.resource(row).attributes, key)
        .map(|value| value.to_text().into_owned())
        .unwrap_or_default()
}
