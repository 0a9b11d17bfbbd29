//! Sealing: batches become segments, one per time partition.
//!
//! Rows are brought into order by their numbers first (grouped by trace, traces by their first start), then each row
//! group is gathered from the batches and encoded, so that only one of them is held in columns.

use super::batch::SpanBatch;
use super::file::SegmentWriter;
use super::names::Names;
use super::records;
use crate::attribute_columns::AttributeColumns;
use crate::columnar::{self, GROUP_ROWS, KeyTypes};
use crate::segment::{SegmentDir, SegmentMeta, partition_of};
use crate::shapes::Attributes;
use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeBinaryBuilder, Int32Array, Int64Array, RecordBatch,
    StringArray, StringBuilder, TimestampNanosecondArray, UInt32Array,
};
use arrow::datatypes::{Field, Int32Type, Schema, SchemaRef};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A row of one of several batches.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    batch: u32,
    row: u32,
}

/// Writes batches as segments, one per time partition of the spans' starts.
pub fn write(dir: &SegmentDir, batches: &[&SpanBatch], level: u32) -> io::Result<Vec<SegmentMeta>> {
    let mut partitions: BTreeMap<u64, Vec<Place>> = BTreeMap::new();
    for (batch, rows) in batches.iter().enumerate() {
        for (row, span) in rows.rows.iter().enumerate() {
            let place = Place { batch: batch as u32, row: row as u32 };
            partitions.entry(partition_of(span.start_ns)).or_default().push(place);
        }
    }
    let codes = Codes::of(batches);
    let names = codes.operations(batches);
    let mut keys = KeyTypes::default();
    let mut known: FxHashSet<u128> = FxHashSet::default();
    for resource in batches.iter().flat_map(|batch| &batch.resources) {
        if known.insert(resource.id) {
            keys.add_list(&resource.attributes);
        }
    }
    partitions
        .into_iter()
        .map(|(partition_ns, places)| {
            let attributes = AttributeColumns::choose(
                places.len(),
                places.iter().map(|at| batches[at.batch as usize].attributes.row(at.row as usize)),
            );
            let mut keys = keys.clone();
            keys.merge(attributes.key_types());
            let places = by_trace(batches, &places);
            let mut gather = Gather { batches, codes: &codes, attributes };
            gather.write(dir, partition_ns, &places, &keys, &names, level)
        })
        .collect()
}

/// Groups rows by trace, traces in order of their first start, rows of a trace by start.
fn by_trace(batches: &[&SpanBatch], places: &[Place]) -> Vec<Place> {
    struct Trace {
        first_ns: u64,
        id: [u8; 16],
        rows: usize,
    }
    let span = |at: &Place| &batches[at.batch as usize].rows[at.row as usize];
    let mut traces: Vec<Trace> = Vec::new();
    let mut numbers: FxHashMap<[u8; 16], u32> = FxHashMap::default();
    let mut trace_of_row: Vec<u32> = Vec::with_capacity(places.len());
    for place in places {
        let span = span(place);
        let number = *numbers.entry(span.trace_id).or_insert(traces.len() as u32);
        match traces.get_mut(number as usize) {
            Some(trace) => {
                trace.first_ns = trace.first_ns.min(span.start_ns);
                trace.rows += 1;
            }
            None => traces.push(Trace { first_ns: span.start_ns, id: span.trace_id, rows: 1 }),
        }
        trace_of_row.push(number);
    }
    let mut order: Vec<u32> = (0..traces.len() as u32).collect();
    order.sort_unstable_by_key(|number| {
        let trace = &traces[*number as usize];
        (trace.first_ns, trace.id)
    });
    // Where the next row of each trace goes.
    let mut next = vec![0; traces.len()];
    let mut start = 0;
    for number in &order {
        next[*number as usize] = start;
        start += traces[*number as usize].rows;
    }
    let mut sorted = vec![Place::default(); places.len()];
    for (place, number) in places.iter().zip(trace_of_row) {
        sorted[next[number as usize]] = *place;
        next[number as usize] += 1;
    }
    for number in &order {
        let (end, rows) = (next[*number as usize], traces[*number as usize].rows);
        sorted[end - rows..end].sort_by_key(|place| span(place).start_ns);
    }
    sorted
}

/// Splits sorted rows into groups of about equal size that end between two traces, unless a trace is huge.
///
/// * `same_trace(row)`: whether the row belongs to the trace of the row before.
pub fn groups(rows: usize, same_trace: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let size = rows.div_ceil(rows.div_ceil(GROUP_ROWS).max(1)).max(1);
    let mut groups = Vec::new();
    let mut start = 0;
    while start < rows {
        let mut end = (start + size).min(rows);
        let latest = (end + size / 8).min(rows);
        while end < latest && same_trace(end) {
            end += 1;
        }
        groups.push(start..end);
        start = end;
    }
    groups
}

/// Distinct resources, scopes and names of all batches as texts, and for each batch which of them is which.
struct Codes {
    resources: Arc<StringArray>,
    services: Arc<StringArray>,
    scopes: Arc<StringArray>,
    names: Arc<StringArray>,
    by_batch: Vec<BatchCodes>,
}

/// Codes by the batch's own numbers.
struct BatchCodes {
    resource: Vec<i32>,
    service: Vec<i32>,
    scope: Vec<i32>,
    name: Vec<i32>,
}

impl Codes {
    fn of(batches: &[&SpanBatch]) -> Self {
        let [mut resources, mut services, mut scopes, mut names] =
            std::array::from_fn(|_| Texts::default());
        let by_batch = batches
            .iter()
            .map(|batch| {
                let address = |item: *const u8| item as usize;
                BatchCodes {
                    resource: (batch.resources.iter())
                        .map(|resource| {
                            let at = address(Arc::as_ptr(resource).cast());
                            resources.code(at, || columnar::resource_json(resource))
                        })
                        .collect(),
                    service: (batch.resources.iter())
                        .map(|resource| {
                            let at = address(Arc::as_ptr(resource).cast());
                            services.code(at, || resource.service_name.to_string())
                        })
                        .collect(),
                    scope: (batch.scopes.iter())
                        .map(|scope| {
                            let at = address(Arc::as_ptr(scope).cast());
                            scopes.code(at, || columnar::scope_json(scope))
                        })
                        .collect(),
                    name: (batch.name.values().iter())
                        .map(|name| {
                            names.code(address(Arc::as_ptr(name).cast()), || name.to_string())
                        })
                        .collect(),
                }
            })
            .collect();
        Self {
            resources: resources.finish(),
            services: services.finish(),
            scopes: scopes.finish(),
            names: names.finish(),
            by_batch,
        }
    }
}

impl Codes {
    /// The operations of all rows.
    fn operations(&self, batches: &[&SpanBatch]) -> Names {
        let mut seen: FxHashSet<(i32, i32, i32)> = FxHashSet::default();
        for (batch, codes) in batches.iter().zip(&self.by_batch) {
            for (span, name) in batch.rows.iter().zip(batch.name.codes()) {
                let service = codes.service[span.resource as usize];
                seen.insert((service, codes.name[*name as usize], span.kind));
            }
        }
        let mut names = Names::default();
        for (service, name, kind) in seen {
            let service = self.services.value(service as usize);
            names.add(service, self.names.value(name as usize), kind);
        }
        names
    }
}

/// Distinct texts of things that are known by address.
#[derive(Default)]
struct Texts {
    by_address: FxHashMap<usize, i32>,
    by_text: FxHashMap<String, i32>,
    values: Vec<String>,
}

impl Texts {
    fn code(&mut self, address: usize, text: impl FnOnce() -> String) -> i32 {
        *self.by_address.entry(address).or_insert_with(|| {
            let text = text();
            *self.by_text.entry(text.clone()).or_insert_with(|| {
                self.values.push(text);
                (self.values.len() - 1) as i32
            })
        })
    }

    fn finish(self) -> Arc<StringArray> {
        Arc::new(StringArray::from(self.values))
    }
}

/// Rows whose attributes are fetched together: some 20 KiB, which the first cache holds.
const FETCHED_ROWS: usize = 64;

/// Touches every cache line of the lists. Rows of a trace come from many requests, so that each list lies where no one
/// looked for long: waited for one by one they take longer than all that is done with them, asked for in a short loop
/// many are on their way at once.
fn fetch(lists: &[Attributes<'_>]) -> u8 {
    const LINE_BYTES: usize = 64;
    let mut sum = 0;
    for Attributes { list, .. } in lists {
        for at in (0..list.len()).step_by(LINE_BYTES) {
            sum ^= list[at];
        }
    }
    sum
}

/// Gathers rows of a partition into row groups.
struct Gather<'a> {
    batches: &'a [&'a SpanBatch],
    codes: &'a Codes,
    attributes: AttributeColumns,
}

impl Gather<'_> {
    fn write(
        &mut self,
        dir: &SegmentDir,
        partition_ns: u64,
        places: &[Place],
        keys: &KeyTypes,
        names: &Names,
        level: u32,
    ) -> io::Result<SegmentMeta> {
        let trace = |row: usize| {
            let at = places[row];
            self.batches[at.batch as usize].rows[at.row as usize].trace_id
        };
        let groups = groups(places.len(), |row| trace(row) == trace(row - 1));
        let mut writer: Option<SegmentWriter<'_>> = None;
        for group in groups {
            let batch = self.group(&places[group])?;
            let writer = match &mut writer {
                Some(writer) => writer,
                None => {
                    let schema: SchemaRef = batch.schema();
                    writer.insert(SegmentWriter::create(dir, partition_ns, schema, keys, names)?)
                }
            };
            writer.write(&batch)?;
        }
        match writer {
            Some(writer) => writer.finish(level),
            None => Err(io::Error::other("a partition without rows")),
        }
    }

    /// The rows as columns, see `storage/FORMAT.md`.
    fn group(&mut self, places: &[Place]) -> io::Result<RecordBatch> {
        let rows = places.len();
        let ids = |width| FixedSizeBinaryBuilder::with_capacity(rows, width);
        let (mut trace_ids, mut span_ids, mut parents) = (ids(16), ids(8), ids(8));
        let numbers = || Vec::<i64>::with_capacity(rows);
        let (mut starts, mut durations) = (numbers(), numbers());
        let codes = || Vec::<i32>::with_capacity(rows);
        let (mut kinds, mut statuses) = (codes(), codes());
        let (mut resources, mut services, mut scopes, mut names) =
            (codes(), codes(), codes(), codes());
        let mut flags: Vec<u32> = Vec::with_capacity(rows);
        let [mut message, mut trace_state, mut dropped, mut events, mut links] =
            std::array::from_fn(|_| StringBuilder::new());
        for at in places {
            let (batch, row) = (self.batches[at.batch as usize], at.row as usize);
            let (span, code) = (&batch.rows[row], &self.codes.by_batch[at.batch as usize]);
            trace_ids.append_value(span.trace_id).map_err(columnar::arrow_error)?;
            span_ids.append_value(span.span_id).map_err(columnar::arrow_error)?;
            if span.parent_span_id == [0; 8] {
                parents.append_null();
            } else {
                parents.append_value(span.parent_span_id).map_err(columnar::arrow_error)?;
            }
            starts.push(span.start_ns as i64);
            // As sent, so negative when the end lies before the start.
            durations.push(span.end_ns.wrapping_sub(span.start_ns) as i64);
            kinds.push(span.kind);
            statuses.push(span.status_code);
            flags.push(span.flags);
            resources.push(code.resource[span.resource as usize]);
            services.push(code.service[span.resource as usize]);
            scopes.push(code.scope[span.scope as usize]);
            names.push(code.name[batch.name.codes()[row] as usize]);
            dropped.append_option(
                (span.dropped != [0; 3]).then(|| {
                    format!("[{},{},{}]", span.dropped[0], span.dropped[1], span.dropped[2])
                }),
            );
        }
        for at in places {
            let (batch, row) = (self.batches[at.batch as usize], at.row as usize);
            append_text(&mut message, batch.status_message.text(row));
            append_text(&mut trace_state, batch.trace_state.text(row));
            events.append_option(records::events_json(batch.events.get(row)));
            links.append_option(records::links_json(batch.links.get(row)));
        }
        let mut lists: Vec<Attributes<'_>> = Vec::with_capacity(FETCHED_ROWS);
        for places in places.chunks(FETCHED_ROWS) {
            lists.clear();
            lists.extend(
                places
                    .iter()
                    .map(|at| self.batches[at.batch as usize].attributes.row(at.row as usize)),
            );
            black_box(fetch(&lists));
            lists.iter().for_each(|list| self.attributes.push(*list));
        }
        let text = |mut builder: StringBuilder| -> ArrayRef { Arc::new(builder.finish()) };
        let int32 = |values: Vec<i32>| -> ArrayRef { Arc::new(Int32Array::from(values)) };
        let coded = |codes: Vec<i32>, values: &Arc<StringArray>| -> io::Result<ArrayRef> {
            let array = DictionaryArray::<Int32Type>::try_new(codes.into(), values.clone());
            Ok(Arc::new(array.map_err(columnar::arrow_error)?))
        };
        let starts = TimestampNanosecondArray::from(starts).with_timezone("UTC");
        let fixed: Vec<(&str, ArrayRef, bool)> = vec![
            ("trace_id", Arc::new(trace_ids.finish()), false),
            ("span_id", Arc::new(span_ids.finish()), false),
            ("parent_span_id", Arc::new(parents.finish()), true),
            ("start_time", Arc::new(starts), false),
            ("duration_ns", Arc::new(Int64Array::from(durations)), false),
            ("service_name", coded(services, &self.codes.services)?, false),
            ("name", coded(names, &self.codes.names)?, false),
            ("kind", int32(kinds), false),
            ("status_code", int32(statuses), false),
            ("status_message", text(message), true),
            ("trace_state", text(trace_state), true),
            ("flags", Arc::new(UInt32Array::from(flags)), false),
            ("dropped", text(dropped), true),
            ("resource", coded(resources, &self.codes.resources)?, false),
            ("scope", coded(scopes, &self.codes.scopes)?, false),
            ("events", text(events), true),
            ("links", text(links), true),
        ];
        let fixed = fixed.into_iter().map(|(name, array, nullable)| {
            (Field::new(name, array.data_type().clone(), nullable), array)
        });
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
            fixed.chain(self.attributes.finish()).unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(columnar::arrow_error)
    }
}

fn append_text(builder: &mut StringBuilder, text: &str) {
    builder.append_option((!text.is_empty()).then_some(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_equal_and_end_between_traces() {
        // Traces of ten rows.
        let of = |rows| groups(rows, |row| !row.is_multiple_of(10));
        assert_eq!(of(0), [0usize..0; 0]);
        assert_eq!(of(100), vec![0..100]);
        let many = of(3 * GROUP_ROWS + 1);
        assert_eq!(many.len(), 4);
        assert!(many.iter().rev().skip(1).all(|group| group.end.is_multiple_of(10)));
        assert!(many.iter().all(|group| group.len() > GROUP_ROWS / 2));
    }

    #[test]
    fn a_huge_trace_is_split() {
        let many = groups(2 * GROUP_ROWS, |_| true);
        assert_eq!(many.len(), 2);
        assert_eq!(many[1].end, 2 * GROUP_ROWS);
    }
}
