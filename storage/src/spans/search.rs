//! Trace search: newest traces with a span that fits, stopping as soon as no older data can add one.

use super::batch::{STATUS_ERROR, SpanBatch};
use super::segment::{DictText, SpanSegment};
use super::store::SpanSnapshot;
use crate::attributes;
use crate::columnar::{ATTRIBUTE_PREFIX, AttributeReader, Test, arrow_error};
use crate::threads;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;

/// Which traces to find. A trace fits when one of its spans fits `service`, `operation`, durations and attributes
/// together, starts in the range, and the whole trace has the asked status.
#[derive(Debug, Clone)]
pub struct SpanQuery {
    pub service: Option<String>,
    pub operation: Option<String>,
    /// Bounds of the span's duration, ns, both inclusive.
    pub min_duration_ns: Option<u64>,
    pub max_duration_ns: Option<u64>,
    pub status: Option<TraceStatus>,
    /// `key = text form of the value`, each over span and resource attributes.
    pub attributes: Vec<(String, String)>,
    /// Bounds of the span's start, Unix ns, both inclusive.
    pub start_ns: u64,
    pub end_ns: u64,
    pub limit: usize,
}

/// Status of a trace as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceStatus {
    /// At least one span has status error.
    Error,
    /// No span has.
    Ok,
}

/// A trace in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSummary {
    pub trace_id: [u8; 16],
    /// Of the root span; of the earliest span while the root is missing.
    pub root_service: String,
    pub root_operation: String,
    pub start_ns: u64,
    /// From the first start to the last end.
    pub duration_ns: u64,
    pub span_count: u64,
    pub error_count: u64,
    /// Services on the trace, sorted.
    pub services: Vec<String>,
}

/// The part of a span that a summary needs.
struct Brief {
    trace_id: [u8; 16],
    start_ns: u64,
    end_ns: u64,
    root: bool,
    error: bool,
    service: String,
    name: String,
}

/// Collects the spans of one trace into a summary.
struct Summing {
    first_ns: u64,
    last_ns: u64,
    spans: u64,
    errors: u64,
    services: BTreeSet<String>,
    root: Option<(bool, u64, String, String)>,
}

impl Summing {
    fn new() -> Self {
        Self {
            first_ns: u64::MAX,
            last_ns: 0,
            spans: 0,
            errors: 0,
            services: BTreeSet::new(),
            root: None,
        }
    }

    fn add(&mut self, brief: Brief) {
        self.first_ns = self.first_ns.min(brief.start_ns);
        self.last_ns = self.last_ns.max(brief.end_ns).max(brief.start_ns);
        self.spans += 1;
        self.errors += u64::from(brief.error);
        if !self.services.contains(&brief.service) {
            self.services.insert(brief.service.clone());
        }
        // Names break ties, so that the answer does not hang on how rows are stored.
        let better = match &self.root {
            None => true,
            Some((root, start_ns, service, name)) => {
                (!brief.root, brief.start_ns, &brief.service, &brief.name)
                    < (!root, *start_ns, service, name)
            }
        };
        if better {
            self.root = Some((brief.root, brief.start_ns, brief.service, brief.name));
        }
    }

    fn finish(self, trace_id: [u8; 16]) -> TraceSummary {
        let (_, _, root_service, root_operation) = self.root.unwrap_or_default();
        TraceSummary {
            trace_id,
            root_service,
            root_operation,
            start_ns: self.first_ns,
            duration_ns: self.last_ns.saturating_sub(self.first_ns),
            span_count: self.spans,
            error_count: self.errors,
            services: self.services.into_iter().collect(),
        }
    }
}

/// What is searched in one go; those whose newest span is older than what is already found are not.
enum Unit<'a> {
    Hot(&'a SpanBatch),
    /// Rows of a row group.
    Group(&'a SpanSegment, Range<usize>),
}

impl SpanSnapshot {
    /// Newest traces by start first, at most `query.limit`.
    pub fn search(&self, query: &SpanQuery) -> io::Result<Vec<TraceSummary>> {
        let mut found: Vec<TraceSummary> = Vec::new();
        let mut seen: FxHashSet<[u8; 16]> = FxHashSet::default();
        // A trace starts no later than any of its spans: once the last of enough found traces starts later than all
        // spans still to come, none of those can take its place.
        let enough = |found: &[TraceSummary], latest_ns: u64| {
            found.len() >= query.limit
                && query.limit.checked_sub(1).is_none_or(|last| found[last].start_ns > latest_ns)
        };
        let mut looking = Looking::new(self, query);
        while looking.newest_ns().is_some_and(|newest_ns| !enough(&found, newest_ns)) {
            let candidates = looking.look()?;
            let mut newest: Vec<([u8; 16], u64)> =
                candidates.into_iter().filter(|(id, _)| !seen.contains(id)).collect();
            newest.sort_by_key(|(id, start_ns)| (Reverse(*start_ns), *id));
            // A trace's status is known only when it has been read whole, hence in portions.
            for chunk in newest.chunks(query.limit.clamp(16, 256)) {
                if enough(&found, chunk[0].1) {
                    break;
                }
                let ids: Vec<[u8; 16]> = chunk.iter().map(|(id, _)| *id).collect();
                seen.extend(&ids);
                let mut summaries = self.summaries(&ids)?;
                summaries.retain(|summary| match query.status {
                    None => true,
                    Some(TraceStatus::Error) => summary.error_count > 0,
                    Some(TraceStatus::Ok) => summary.error_count == 0,
                });
                found.extend(summaries);
                found.sort_by_key(|t| (Reverse(t.start_ns), t.trace_id));
                found.truncate(query.limit);
            }
        }
        Ok(found)
    }

    /// Summaries of whole traces; unknown IDs are left out.
    pub fn summaries(&self, trace_ids: &[[u8; 16]]) -> io::Result<Vec<TraceSummary>> {
        let mut sums: FxHashMap<[u8; 16], Summing> =
            trace_ids.iter().map(|id| (*id, Summing::new())).collect();
        for batch in &self.hot {
            if !trace_ids.iter().any(|id| batch.may_hold(id)) {
                continue;
            }
            for (row, span) in batch.rows.iter().enumerate() {
                if let Some(sum) = sums.get_mut(&span.trace_id) {
                    sum.add(Brief {
                        trace_id: span.trace_id,
                        start_ns: span.start_ns,
                        end_ns: span.end_ns,
                        root: span.parent_span_id == [0; 8],
                        error: span.is_error(),
                        service: batch.resource(row).service_name.to_string(),
                        name: batch.name.get(row).to_string(),
                    });
                }
            }
        }
        for segment in &self.segments {
            let rows = segment.rows_of(trace_ids)?;
            if rows.is_empty() {
                continue;
            }
            for brief in briefs(segment, &rows)? {
                if let Some(sum) = sums.get_mut(&brief.trace_id) {
                    sum.add(brief);
                }
            }
        }
        Ok(trace_ids
            .iter()
            .filter_map(|id| Some((*id, sums.remove(id)?)))
            .filter(|(_, sum)| sum.spans > 0)
            .map(|(id, sum)| sum.finish(id))
            .collect())
    }
}

/// Per trace the start of the earliest span that fits.
type Candidates = FxHashMap<[u8; 16], u64>;

/// Looks through units one after the other, the newest first. From the second row group on, which is only come to when
/// the first had too few, several are looked through at once. Footers of segments that are never come to are not read.
struct Looking<'a> {
    query: &'a SpanQuery,
    /// Those whose row groups are not among the units yet, the newest last.
    segments: Vec<&'a SpanSegment>,
    /// With the latest start of a span in each; the newest first.
    units: VecDeque<(u64, Unit<'a>)>,
    /// Of the units that came before those.
    ready: VecDeque<(u64, io::Result<Candidates>)>,
    groups_met: bool,
}

impl<'a> Looking<'a> {
    fn new(snapshot: &'a SpanSnapshot, query: &'a SpanQuery) -> Self {
        let meets = |min_ns, max_ns| min_ns <= query.end_ns && max_ns >= query.start_ns;
        let hot = snapshot.hot.iter().filter(|batch| meets(batch.min_ns, batch.max_ns));
        let mut units: Vec<_> = hot.map(|batch| (batch.max_ns, Unit::Hot(batch))).collect();
        units.sort_by_key(|(max_ns, _)| Reverse(*max_ns));
        let segments = snapshot.segments.iter().map(|segment| &**segment);
        let mut segments: Vec<&SpanSegment> =
            segments.filter(|segment| meets(segment.meta.min_ns, segment.meta.max_ns)).collect();
        segments.sort_by_key(|segment| segment.meta.max_ns);
        Self { query, segments, units: units.into(), ready: VecDeque::new(), groups_met: false }
    }

    /// No span of the units to come starts later; `None` when there are none.
    fn newest_ns(&self) -> Option<u64> {
        let of_unit = self.units.front().map(|(max_ns, _)| *max_ns);
        let of_segment = self.segments.last().map(|segment| segment.meta.max_ns);
        let to_come = of_unit.max(of_segment);
        self.ready.front().map_or(to_come, |(max_ns, _)| Some(*max_ns))
    }

    /// What fits of the next unit.
    fn look(&mut self) -> io::Result<Candidates> {
        if self.ready.is_empty() {
            let at_most = if self.groups_met { threads::worth(usize::MAX, 1) } else { 1 };
            self.open_segments(at_most)?;
            let is_group = |unit: &&(u64, Unit<'_>)| matches!(unit.1, Unit::Group(..));
            let groups = self.units.iter().take(at_most).take_while(is_group).count();
            self.groups_met |= groups > 0;
            let threads = groups.max(1).min(self.units.len());
            let units: Vec<_> = self.units.drain(..threads).collect();
            let look = |(max_ns, unit): (u64, Unit<'_>)| (max_ns, unit.candidates(self.query));
            self.ready = threads::map(threads, units, look).into();
        }
        self.ready.pop_front().map_or_else(|| Ok(Candidates::default()), |(_, found)| found)
    }

    /// Reads footers until none of those left can bring one of the next `count` units.
    fn open_segments(&mut self, count: usize) -> io::Result<()> {
        while let Some(segment) = self.segments.last() {
            let next = self.units.get(count - 1);
            if next.is_some_and(|(max_ns, _)| *max_ns > segment.meta.max_ns) {
                break;
            }
            let query = self.query;
            for group in segment.file.footer()?.groups() {
                let (min_ns, max_ns) = group
                    .bounds("start_time")
                    .unwrap_or((segment.meta.min_ns, segment.meta.max_ns));
                let longest = group.bounds("duration_ns").map_or(u64::MAX, |(_, longest)| longest);
                let long_enough = query.min_duration_ns.is_none_or(|min| longest >= min);
                if min_ns <= query.end_ns && max_ns >= query.start_ns && long_enough {
                    self.units.push_back((max_ns, Unit::Group(segment, group.rows)));
                }
            }
            self.units.make_contiguous().sort_by_key(|(max_ns, _)| Reverse(*max_ns));
            self.segments.pop();
        }
        Ok(())
    }
}

impl Unit<'_> {
    fn candidates(&self, query: &SpanQuery) -> io::Result<Candidates> {
        match self {
            Self::Hot(batch) => Ok(hot_candidates(batch, query)),
            Self::Group(segment, rows) => segment_candidates(segment, rows.clone(), query),
        }
    }
}

fn hot_candidates(batch: &SpanBatch, query: &SpanQuery) -> Candidates {
    let mut out = Candidates::default();
    let name = match &query.operation {
        Some(operation) => match batch.name.code_of(operation) {
            Some(code) => Some(code),
            None => return out,
        },
        None => None,
    };
    for (row, span) in batch.rows.iter().enumerate() {
        let fits = span.start_ns >= query.start_ns
            && span.start_ns <= query.end_ns
            && name.is_none_or(|code| batch.name.codes()[row] == code)
            && query
                .service
                .as_ref()
                .is_none_or(|service| *batch.resource(row).service_name == **service)
            && duration_fits(span.duration_ns(), query)
            && query.attributes.iter().all(|(key, wanted)| {
                [batch.attributes.get(row), &batch.resource(row).attributes].iter().any(|list| {
                    attributes::get(list, key).is_some_and(|value| value.to_text() == *wanted)
                })
            });
        if fits {
            let start = out.entry(span.trace_id).or_insert(span.start_ns);
            *start = span.start_ns.min(*start);
        }
    }
    out
}

fn duration_fits(duration_ns: u64, query: &SpanQuery) -> bool {
    query.min_duration_ns.is_none_or(|min| duration_ns >= min)
        && query.max_duration_ns.is_none_or(|max| duration_ns <= max)
}

fn segment_candidates(
    segment: &SpanSegment,
    rows: Range<usize>,
    query: &SpanQuery,
) -> io::Result<Candidates> {
    let mut out = Candidates::default();
    let tests = tests_of(query);
    for batch in
        segment.file.footer()?.read_if(&["trace_id", "start_time"], Some(&[rows]), tests)?
    {
        let batch = batch.map_err(arrow_error)?;
        let trace_ids = column(&batch, "trace_id")?.as_fixed_size_binary();
        let starts = column(&batch, "start_time")?.as_primitive::<TimestampNanosecondType>();
        for row in 0..batch.num_rows() {
            let start_ns = starts.value(row) as u64;
            let id = trace_ids.value(row).try_into().unwrap_or_default();
            let start = out.entry(id).or_insert(start_ns);
            *start = start_ns.min(*start);
        }
    }
    Ok(out)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> io::Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("column {name} is missing"))
    })
}

/// What the rows of a segment must pass: names first, which are codes and told apart fastest; both at once, for
/// what one leaves open is too scattered to spare much of the other.
fn tests_of(query: &SpanQuery) -> Vec<Test> {
    let mut tests = Vec::new();
    let mut test = |columns: Vec<String>, passes| tests.push(Test { columns, passes });
    let names = [("name", &query.operation), ("service_name", &query.service)];
    let names: Vec<(&str, String)> =
        names.into_iter().filter_map(|(name, wanted)| Some((name, wanted.clone()?))).collect();
    if !names.is_empty() {
        let columns = names.iter().map(|(name, _)| (*name).to_owned()).collect();
        let passes = move |batch: &RecordBatch| {
            let mut all: Option<BooleanBuffer> = None;
            for (name, wanted) in &names {
                let texts = DictText::new(column(batch, name)?)?;
                // -2 is no row's code: nothing passes.
                let code = texts.code_of(wanted).unwrap_or(-2);
                let passed =
                    BooleanBuffer::collect_bool(batch.num_rows(), |row| texts.code(row) == code);
                all = Some(match all {
                    Some(all) => &all & &passed,
                    None => passed,
                });
            }
            let all = all.unwrap_or_else(|| BooleanBuffer::new_set(batch.num_rows()));
            Ok(BooleanArray::new(all, None))
        };
        test(columns, Box::new(passes));
    }
    if query.min_duration_ns.is_some() || query.max_duration_ns.is_some() {
        let query = query.clone();
        let passes = move |batch: &RecordBatch| {
            let durations = column(batch, "duration_ns")?.as_primitive::<Int64Type>().values();
            let fits = |row: usize| duration_fits(durations[row].max(0) as u64, &query);
            Ok(BooleanArray::new(BooleanBuffer::collect_bool(durations.len(), fits), None))
        };
        test(vec!["duration_ns".to_owned()], Box::new(passes));
    }
    if query.start_ns > 0 || query.end_ns < i64::MAX as u64 {
        let range = query.start_ns..=query.end_ns;
        let passes = move |batch: &RecordBatch| {
            let starts = column(batch, "start_time")?.as_primitive::<TimestampNanosecondType>();
            let fits = |row: usize| range.contains(&(starts.values()[row] as u64));
            Ok(BooleanArray::new(BooleanBuffer::collect_bool(starts.len(), fits), None))
        };
        test(vec!["start_time".to_owned()], Box::new(passes));
    }
    if !query.attributes.is_empty() {
        let wanted = query.attributes.clone();
        let mut columns = vec!["attributes".to_owned(), "resource".to_owned()];
        columns.extend(wanted.iter().map(|(key, _)| format!("{ATTRIBUTE_PREFIX}{key}")));
        test(columns, Box::new(move |batch| attributes_fit(batch, &wanted)));
    }
    tests
}

fn attributes_fit(batch: &RecordBatch, wanted: &[(String, String)]) -> io::Result<BooleanArray> {
    let schema = batch.schema();
    let attributes_of = AttributeReader::new(batch, &schema);
    let resources = ResourceFits::new(column(batch, "resource")?, wanted)?;
    let fits = |row: usize| {
        wanted
            .iter()
            .enumerate()
            .all(|(i, (key, wanted))| resources.fits(row, i) || attributes_of.has(row, key, wanted))
    };
    Ok((0..batch.num_rows()).map(|row| Some(fits(row))).collect())
}

/// Which asked attributes each resource of a batch has; looked at once per resource, not per row.
struct ResourceFits<'a> {
    texts: DictText<'a>,
    by_code: FxHashMap<i32, Vec<bool>>,
}

impl<'a> ResourceFits<'a> {
    fn new(column: &'a ArrayRef, wanted: &[(String, String)]) -> io::Result<Self> {
        let texts = DictText::new(column)?;
        let mut by_code = FxHashMap::default();
        for row in 0..column.len() {
            by_code.entry(texts.code(row)).or_insert_with(|| {
                let object = serde_json::from_str(texts.get(row)).unwrap_or_default();
                let mut list = Vec::new();
                attributes::put_stored_json_object(&mut list, &object);
                wanted
                    .iter()
                    .map(|(key, text)| {
                        attributes::get(&list, key).is_some_and(|value| value.to_text() == *text)
                    })
                    .collect()
            });
        }
        Ok(Self { texts, by_code })
    }

    fn fits(&self, row: usize, wanted: usize) -> bool {
        self.by_code.get(&self.texts.code(row)).is_some_and(|fits| fits[wanted])
    }
}

fn briefs(segment: &SpanSegment, rows: &[Range<usize>]) -> io::Result<Vec<Brief>> {
    const COLUMNS: [&str; 7] = [
        "trace_id",
        "parent_span_id",
        "start_time",
        "duration_ns",
        "service_name",
        "name",
        "status_code",
    ];
    let mut out = Vec::new();
    for batch in segment.file.read(&COLUMNS, Some(rows))? {
        let batch = batch.map_err(arrow_error)?;
        let trace_ids = column(&batch, "trace_id")?.as_fixed_size_binary();
        let parents = column(&batch, "parent_span_id")?;
        let starts = column(&batch, "start_time")?.as_primitive::<TimestampNanosecondType>();
        let durations = column(&batch, "duration_ns")?.as_primitive::<Int64Type>();
        let statuses = column(&batch, "status_code")?.as_primitive::<Int32Type>();
        let services = DictText::new(column(&batch, "service_name")?)?;
        let names = DictText::new(column(&batch, "name")?)?;
        for row in 0..batch.num_rows() {
            let start_ns = starts.value(row) as u64;
            out.push(Brief {
                trace_id: trace_ids.value(row).try_into().unwrap_or_default(),
                start_ns,
                end_ns: start_ns.saturating_add(durations.value(row).max(0) as u64),
                root: parents.is_null(row),
                error: statuses.value(row) == STATUS_ERROR,
                service: services.get(row).to_owned(),
                name: names.get(row).to_owned(),
            });
        }
    }
    Ok(out)
}
