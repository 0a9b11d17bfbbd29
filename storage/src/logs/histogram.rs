//! Counts of matching records over time.

use super::blocks::{Block, MINUTE_NS};
use super::filter::{Field, LogRows};
use super::query::{Bucket, By};
use super::scan::{Origin, Run, Visitor};
use super::sealed::{LogSegment, Outline};
use super::severity::effective_class;
use crate::attributes;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Steps whose counts are kept at hand: those of one block and the one before, as a rule.
const OPEN_STEPS: usize = 16;

/// Label of a group that was not asked for yet.
const UNKNOWN: u32 = u32::MAX;

/// A histogram being counted.
pub struct Histogram<'a> {
    step_ns: u64,
    by: &'a By,
    /// The group knows the label: no row need be read for it.
    by_group: bool,
    labels: FxHashMap<String, u32>,
    /// Labels of the groups of one segment, and its id.
    of_groups: (u64, Vec<u32>),
    /// Labels by the part of a group that has them, of the same segment.
    of_parts: FxHashMap<(u32, i32), u32>,
    /// Counts by label of the steps met last.
    open: Vec<(u64, Vec<u64>)>,
    /// Places in `open` of the minutes of a block, or of its only step; empty when its rows must be read.
    block: Vec<usize>,
    counts: FxHashMap<(u64, u32), u64>,
}

impl<'a> Histogram<'a> {
    /// * `step_ns`: at least 1.
    pub fn new(step_ns: u64, by: &'a By) -> Self {
        let by_group = !matches!(
            by,
            By::Field(Field::Body | Field::TraceId | Field::SpanId | Field::Attribute(_))
        );
        Self {
            step_ns,
            by,
            by_group,
            labels: FxHashMap::default(),
            of_groups: (u64::MAX, Vec::new()),
            of_parts: FxHashMap::default(),
            open: Vec::new(),
            block: Vec::new(),
            counts: FxHashMap::default(),
        }
    }

    fn label(&mut self, rows: &dyn LogRows, row: usize) -> u32 {
        let text = label(self.by, rows, row);
        let next = self.labels.len() as u32;
        *self.labels.entry(text).or_insert(next)
    }

    fn label_of_group(&mut self, segment: &LogSegment, outline: &Outline, number: u32) -> u32 {
        if self.of_groups.0 != segment.meta.id {
            self.of_groups = (segment.meta.id, vec![UNKNOWN; outline.groups.groups.len()]);
            self.of_parts.clear();
        }
        let known = self.of_groups.1[number as usize];
        if known != UNKNOWN {
            return known;
        }
        let group = &outline.groups.groups[number as usize];
        let part = match self.by {
            By::Nothing => (0, 0),
            By::Severity | By::Field(Field::Severity) => {
                (group.severity_text, group.severity_number)
            }
            By::Field(Field::EventName) => (group.event_name, 0),
            By::Field(Field::Scope) => (group.scope, 0),
            By::Field(_) => (group.resource, 0),
        };
        let label = match self.of_parts.get(&part) {
            Some(label) => *label,
            None => {
                let label = self.label(&outline.groups.facts(number), 0);
                self.of_parts.insert(part, label);
                label
            }
        };
        self.of_groups.1[number as usize] = label;
        label
    }

    /// Place of a step among the open ones.
    fn place(&mut self, step: u64) -> usize {
        match self.open.iter().position(|(open, _)| *open == step) {
            Some(at) => at,
            None => {
                self.open.push((step, Vec::new()));
                self.open.len() - 1
            }
        }
    }

    fn add(&mut self, place: usize, label: u32, rows: u64) {
        let counts = &mut self.open[place].1;
        if counts.len() <= label as usize {
            counts.resize(label as usize + 1, 0);
        }
        counts[label as usize] += rows;
    }

    /// Makes room for the steps of a block.
    fn close_old(&mut self) {
        if self.open.len() >= OPEN_STEPS {
            self.close();
        }
    }

    fn close(&mut self) {
        for (step, counts) in self.open.drain(..) {
            for (label, rows) in counts.into_iter().enumerate().filter(|(_, rows)| *rows > 0) {
                *self.counts.entry((step, label as u32)).or_default() += rows;
            }
        }
    }

    /// Steps with a match, in time order.
    pub fn finish(mut self) -> Vec<Bucket> {
        self.close();
        let mut names = vec![String::new(); self.labels.len()];
        for (name, label) in self.labels {
            names[label as usize] = name;
        }
        let mut buckets: BTreeMap<u64, BTreeMap<String, u64>> = BTreeMap::new();
        for ((step, label), count) in self.counts {
            let name = names[label as usize].clone();
            buckets.entry(step * self.step_ns).or_default().insert(name, count);
        }
        buckets.into_iter().map(|(start_ns, counts)| Bucket { start_ns, counts }).collect()
    }
}

impl Visitor for Histogram<'_> {
    fn fresh(&self) -> Self {
        Self::new(self.step_ns, self.by)
    }

    fn join(&mut self, mut other: Self) {
        other.close();
        let mut labels = vec![0; other.labels.len()];
        for (text, theirs) in other.labels {
            let next = self.labels.len() as u32;
            labels[theirs as usize] = *self.labels.entry(text).or_insert(next);
        }
        for ((step, theirs), rows) in other.counts {
            *self.counts.entry((step, labels[theirs as usize])).or_default() += rows;
        }
    }

    fn enter(&mut self, block: &Block) {
        self.close_old();
        self.block.clear();
        let (first, last) = (block.min_ns / self.step_ns, block.max_ns / self.step_ns);
        if !self.by_group {
            return;
        }
        if first == last {
            let place = self.place(first);
            self.block.push(place);
        } else if self.step_ns.is_multiple_of(MINUTE_NS) && block.counts_minutes() {
            for minute in block.min_ns / MINUTE_NS..=block.max_ns / MINUTE_NS {
                let place = self.place(minute * MINUTE_NS / self.step_ns);
                self.block.push(place);
            }
        }
    }

    fn takes_runs(&self, _outline: &Outline, _group: u32) -> bool {
        !self.block.is_empty()
    }

    fn run(&mut self, segment: &LogSegment, outline: &Outline, block: &Block, run: Run) {
        let label = self.label_of_group(segment, outline, run.group);
        if let [place] = self.block[..] {
            return self.add(place, label, u64::from(run.rows));
        }
        // Each minute's rows but the last's, which has the rest.
        let columns = self.block.len() - 1;
        let counts = &outline.blocks.minutes(block)[run.number * columns..][..columns];
        let mut rest = u64::from(run.rows);
        for (minute, rows) in counts.iter().enumerate() {
            let rows = u64::from(*rows);
            rest = rest.saturating_sub(rows);
            self.add(self.block[minute], label, rows);
        }
        self.add(self.block[columns], label, rest);
    }

    fn columns(&self, segment: &LogSegment, columns: &mut Vec<String>) {
        if let By::Field(field) = self.by {
            segment.columns_of_field(field, columns);
        }
    }

    fn row(&mut self, rows: &dyn LogRows, row: usize, time_ns: u64, origin: Origin<'_>) {
        let label = match origin {
            Origin::Sealed { segment, outline, group } if self.by_group => {
                self.label_of_group(segment, outline, group)
            }
            _ => self.label(rows, row),
        };
        self.close_old();
        let place = self.place(time_ns / self.step_ns);
        self.add(place, label, 1);
    }
}

/// The name a row is counted under.
fn label(by: &By, rows: &dyn LogRows, row: usize) -> String {
    match by {
        By::Nothing => String::new(),
        By::Severity | By::Field(Field::Severity) => {
            effective_class(rows.severity_number(row), rows.severity_text(row)).name().to_owned()
        }
        By::Field(Field::Body) => rows.body(row).to_owned(),
        By::Field(Field::Service) => rows.resource(row).service_name.to_string(),
        By::Field(Field::EventName) => rows.event_name(row).to_owned(),
        By::Field(Field::Scope) => rows.scope(row).name.to_string(),
        By::Field(Field::TraceId) => id_text(&rows.trace_id(row)),
        By::Field(Field::SpanId) => id_text(&rows.span_id(row)),
        By::Field(Field::Resource(key)) => resource_text(rows, row, key),
        By::Field(Field::Attribute(key)) => {
            let mut found = None;
            rows.attribute(row, key, &mut |value| found = Some(value.to_text().into_owned()));
            found.unwrap_or_else(|| resource_text(rows, row, key))
        }
    }
}

/// An id in hex, empty for none.
fn id_text(id: &[u8]) -> String {
    if id.iter().all(|byte| *byte == 0) { String::new() } else { crate::spans::records::hex(id) }
}

fn resource_text(rows: &dyn LogRows, row: usize, key: &str) -> String {
    attributes::get(&rows.resource(row).attributes, key)
        .map(|value| value.to_text().into_owned())
        .unwrap_or_default()
}
