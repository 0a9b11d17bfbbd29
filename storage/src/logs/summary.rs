//! What matching records have in common: their fields with values, their body patterns.

use super::blocks::Block;
use super::filter::{Field, LogFilter, LogRows};
use super::groups::NO_PATTERN;
use super::query::{FieldSummary, LogRange, Order, PatternSummary};
use super::row::LogRow;
use super::scan::{Origin, Run, Visitor};
use super::sealed::{LogSegment, Outline};
use super::severity::effective_class;
use super::snapshot::LogSnapshot;
use super::tokens;
use crate::attributes::{self, Value};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io;

/// Records that [`LogSnapshot::fields`] looks at: the newest that match.
pub const FIELD_ROWS_MAX: usize = 10_000;

/// Distinct values remembered per field.
const VALUES_MAX: usize = 1_000;

/// Values shown per field.
const VALUES_SHOWN: usize = 20;

/// Distinct patterns counted.
const PATTERNS_MAX: usize = 50_000;

impl LogSnapshot {
    /// Fields of the newest matching records, at most [`FIELD_ROWS_MAX`] of them: those that most records have first.
    ///
    /// Fixed fields go by the names that queries use; attributes by their key; resource attributes as `resource.key`.
    pub fn fields(&self, filter: &LogFilter, range: &LogRange) -> io::Result<Vec<FieldSummary>> {
        let rows = self.search(&super::query::LogQuery {
            filter: filter.clone(),
            range: range.clone(),
            limit: FIELD_ROWS_MAX,
            order: Order::NewestFirst,
        })?;
        let mut fields: BTreeMap<String, Counting> = BTreeMap::new();
        for row in &rows {
            count_fields(row, &mut fields);
        }
        let mut summaries: Vec<FieldSummary> =
            fields.into_iter().map(|(name, counting)| counting.finish(name)).collect();
        summaries.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        Ok(summaries)
    }

    /// Patterns of matching bodies, the most frequent first, with exact counts.
    pub fn patterns(
        &self,
        filter: &LogFilter,
        range: &LogRange,
        limit: usize,
    ) -> io::Result<Vec<PatternSummary>> {
        let mut counting = Patterns::default();
        self.scan(filter, range, &mut counting)?;
        let mut merged: FxHashMap<String, (u64, Sample)> = FxHashMap::default();
        for (pattern, (count, sample)) in counting.counts {
            // Patterns that differ only in what people do not see are one.
            let entry = merged.entry(tokens::shown(&pattern)).or_insert((0, sample));
            entry.0 += count;
        }
        let mut patterns: Vec<(String, (u64, Sample))> = merged.into_iter().collect();
        patterns.sort_by(|(a, (m, _)), (b, (n, _))| n.cmp(m).then_with(|| a.cmp(b)));
        patterns.truncate(limit);
        patterns
            .into_iter()
            .map(|(pattern, (count, sample))| {
                let sample = match sample {
                    Sample::Body(body) => body,
                    Sample::Sealed { segment, row } => self.body_at(segment, row)?,
                };
                Ok(PatternSummary { pattern, count, sample })
            })
            .collect()
    }

    fn body_at(&self, segment: u64, row: usize) -> io::Result<String> {
        let Some(segment) = self.segments.iter().find(|s| s.meta.id == segment) else {
            return Ok(String::new());
        };
        let outline = segment.outline()?;
        let blocks = &outline.blocks.blocks;
        let Some(number) = blocks.iter().position(|block| block.row_range().contains(&row)) else {
            return Ok(String::new());
        };
        let place = (row - blocks[number].first_row) as u32;
        let batch = segment.rows(&[(number, vec![place])])?;
        Ok(if batch.is_empty() { String::new() } else { batch.body.text(0).to_owned() })
    }
}

/// Where one body of a pattern stands.
#[derive(Debug, Clone)]
enum Sample {
    Body(String),
    /// Row of a segment, by its id.
    Sealed {
        segment: u64,
        row: usize,
    },
}

#[derive(Default)]
struct Patterns {
    counts: FxHashMap<String, (u64, Sample)>,
    scratch: String,
}

impl Patterns {
    fn add(&mut self, pattern: &str, rows: u64, sample: impl FnOnce() -> Sample) {
        if let Some((count, _)) = self.counts.get_mut(pattern) {
            *count += rows;
        } else if self.counts.len() < PATTERNS_MAX {
            self.counts.insert(pattern.to_owned(), (rows, sample()));
        }
    }

    fn add_body(&mut self, body: &str) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let text = if tokens::pattern(body, &mut scratch) { scratch.as_str() } else { body };
        self.add(text, 1, || Sample::Body(body.to_owned()));
        self.scratch = scratch;
    }
}

impl Visitor for Patterns {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn join(&mut self, other: Self) {
        for (pattern, (rows, sample)) in other.counts {
            self.add(&pattern, rows, || sample);
        }
    }

    fn takes_runs(&self, outline: &Outline, group: u32) -> bool {
        outline.groups.groups[group as usize].pattern != NO_PATTERN
    }

    fn run(&mut self, segment: &LogSegment, outline: &Outline, block: &Block, run: Run) {
        if let Some(pattern) = outline.groups.pattern(run.group) {
            let row = block.first_row + run.first;
            self.add(&pattern.text, u64::from(run.rows), || Sample::Sealed {
                segment: segment.meta.id,
                row,
            });
        }
    }

    fn columns(&self, segment: &LogSegment, columns: &mut Vec<String>) {
        segment.columns_of_field(&Field::Body, columns);
    }

    fn row(&mut self, rows: &dyn LogRows, row: usize, _time_ns: u64, origin: Origin<'_>) {
        let body = rows.body(row);
        match origin {
            Origin::Sealed { outline, group, .. } => match outline.groups.pattern(group) {
                Some(pattern) => self.add(&pattern.text, 1, || Sample::Body(body.to_owned())),
                None => self.add_body(body),
            },
            Origin::Hot => self.add_body(body),
        }
    }
}

#[derive(Default)]
struct Counting {
    kind: Option<&'static str>,
    count: u64,
    values: FxHashMap<String, u64>,
}

impl Counting {
    fn add(&mut self, value: Value<'_>) {
        let kind = kind_of(value);
        self.kind = match self.kind {
            Some(known) if known != kind => Some("mixed"),
            _ => Some(kind),
        };
        self.count += 1;
        let text = value.to_text();
        if let Some(count) = self.values.get_mut(text.as_ref()) {
            *count += 1;
        } else if self.values.len() < VALUES_MAX {
            self.values.insert(text.into_owned(), 1);
        }
    }

    fn finish(self, name: String) -> FieldSummary {
        let mut values: Vec<(String, u64)> = self.values.into_iter().collect();
        values.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
        values.truncate(VALUES_SHOWN);
        FieldSummary { name, kind: self.kind.unwrap_or("text"), count: self.count, values }
    }
}

fn kind_of(value: Value<'_>) -> &'static str {
    match value {
        Value::Str(_) | Value::Empty => "text",
        Value::Int(_) => "int",
        Value::Double(_) => "double",
        Value::Bool(_) => "bool",
        Value::Array(_) => "list",
        Value::Map(_) => "map",
        Value::Bytes(_) => "bytes",
    }
}

fn count_fields(row: &LogRow, fields: &mut BTreeMap<String, Counting>) {
    let mut add = |name: &str, value: Value<'_>| match fields.get_mut(name) {
        Some(counting) => counting.add(value),
        None => {
            let mut counting = Counting::default();
            counting.add(value);
            fields.insert(name.to_owned(), counting);
        }
    };
    add("service", Value::Str(row.service()));
    let class = effective_class(row.severity_number, &row.severity_text);
    add("severity", Value::Str(class.name()));
    if row.has_trace() {
        add("trace_id", Value::Str(&crate::spans::records::hex(&row.trace_id)));
    }
    if !row.event_name.is_empty() {
        add("event_name", Value::Str(&row.event_name));
    }
    if !row.scope.name.is_empty() {
        add("scope", Value::Str(&row.scope.name));
    }
    // Of duplicate keys the last counts: later ones overwrite.
    let last: FxHashMap<&str, Value<'_>> = attributes::iter(&row.attributes).collect();
    last.into_iter().for_each(|(key, value)| add(key, value));
    for (key, value) in attributes::iter(&row.resource.attributes) {
        if key != "service.name" {
            add(&format!("resource.{key}"), value);
        }
    }
}
