//! Merges segments of one partition into one, some series at a time, so that memory does not grow with them.

use super::points::{Layout, Rows, SERIES_COLUMN, Wanted};
use super::segment::{Files, Listed, MetricSegment, ROWS_AT_ONCE, SeriesTable, place_of};
use super::select::in_parts;
use super::series::SeriesMeta;
use super::store::StoredPoint;
use crate::columnar::{Footer, arrow_error};
use crate::segment::{SegmentDir, SegmentMeta};
use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, new_null_array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A segment that is merged, with what is asked for again and again.
struct Input<'a> {
    segment: &'a MetricSegment,
    table: Arc<SeriesTable>,
    footer: Arc<Footer>,
}

/// A series of the merged segment.
struct Source {
    meta: Arc<SeriesMeta>,
    /// Which input has it, and under which number.
    found: Vec<(usize, u32)>,
    rows: usize,
}

/// Writes the series that `keeps` lets pass; `None` if there is none.
///
/// * `segments`: of one partition, at least one.
pub(super) fn merge(
    dir: &SegmentDir,
    segments: &[Arc<MetricSegment>],
    keeps: impl Fn(&SeriesMeta) -> bool,
    level: u32,
) -> io::Result<Option<SegmentMeta>> {
    let mut inputs: Vec<Input<'_>> = Vec::with_capacity(segments.len());
    for segment in segments {
        let (table, footer) = (segment.table()?, segment.points().footer()?);
        inputs.push(Input { segment, table, footer });
    }
    let inputs = &inputs;
    let sources = sources(inputs, keeps);
    if sources.is_empty() {
        return Ok(None);
    }
    let mut families = BTreeMap::new();
    for input in inputs {
        families.extend(input.table.families.clone());
    }
    let layout = Layout::of_files(inputs.iter().map(|input| &*input.footer));
    let listed = RefCell::new(Vec::with_capacity(sources.len()));
    let mut next = 0;
    let parts = in_parts(&sources, ROWS_AT_ONCE, |source| source.rows);
    let batches = parts.into_iter().flat_map(|part| {
        let first = next;
        next += part.len();
        let made = match bounds_of(inputs, part) {
            Some(bounds) => columns(inputs, part, bounds, first, &layout),
            None => rewritten(inputs, part, first, &layout),
        };
        match made {
            Ok((batches, of_part)) => {
                listed.borrow_mut().extend(of_part);
                batches.into_iter().map(Ok).collect()
            }
            Err(error) => vec![Err(error)],
        }
    });
    let files = Files {
        dir,
        partition_ns: segments[0].meta.partition_ns,
        level,
        layout: &layout,
        metas: sources.iter().map(|source| &source.meta).collect(),
        families: &families,
    };
    files.write(batches, || listed.take()).map(Some)
}

/// The series of all inputs, in the order in which they are written.
fn sources(inputs: &[Input<'_>], keeps: impl Fn(&SeriesMeta) -> bool) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    let mut known: FxHashMap<u128, usize> = FxHashMap::default();
    for (input, Input { table, .. }) in inputs.iter().enumerate() {
        for (number, series) in table.series.iter().enumerate() {
            if series.rows.is_empty() || !keeps(&series.meta) {
                continue;
            }
            let at = *known.entry(series.meta.id).or_insert_with(|| {
                sources.push(Source { meta: series.meta.clone(), found: Vec::new(), rows: 0 });
                sources.len() - 1
            });
            sources[at].found.push((input, number as u32));
            sources[at].rows += series.rows.len();
        }
    }
    sources.sort_by(|a, b| place_of(&a.meta).cmp(&place_of(&b.meta)));
    sources
}

/// The bounds of some series, if each has the same in all inputs: then its rows may stand together as they are.
fn bounds_of(inputs: &[Input<'_>], sources: &[Source]) -> Option<Vec<Arc<[f64]>>> {
    let mut all = Vec::with_capacity(sources.len());
    for source in sources {
        let mut bounds: Option<&Arc<[f64]>> = None;
        for (input, number) in &source.found {
            let here = &inputs[*input].table.series[*number as usize].bounds;
            let bits =
                |bounds: &[f64]| bounds.iter().map(|bound| bound.to_bits()).collect::<Vec<_>>();
            match bounds {
                Some(known) if !Arc::ptr_eq(known, here) && bits(known) != bits(here) => {
                    return None;
                }
                _ => bounds = Some(here),
            }
        }
        all.push(bounds.cloned().unwrap_or_else(|| Arc::from([])));
    }
    Some(all)
}

/// Rows on their way to the file, and their series.
type Made = (Vec<RecordBatch>, Vec<Listed>);

/// The rows of some series, taken from the inputs column by column.
fn columns(
    inputs: &[Input<'_>],
    sources: &[Source],
    bounds: Vec<Arc<[f64]>>,
    first: usize,
    layout: &Layout,
) -> io::Result<Made> {
    let schema = layout.schema()?;
    let mut batches: Vec<RecordBatch> = Vec::with_capacity(inputs.len());
    // By input and series: where its rows begin in the batch of the input.
    let mut begin: Vec<Vec<usize>> = vec![vec![0; sources.len()]; inputs.len()];
    for (input, Input { table, footer, .. }) in inputs.iter().enumerate() {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut rows = 0;
        for (number, at) in wanted(sources, input) {
            let of_series = &table.series[number as usize].rows;
            begin[input][at] = rows;
            rows += of_series.len();
            match ranges.last_mut() {
                Some(last) if last.end == of_series.start => last.end = of_series.end,
                _ => ranges.push(of_series.clone()),
            }
        }
        batches.push(conformed(footer, &ranges, rows, &schema)?);
    }
    let times: Vec<&[i64]> = batches.iter().map(times).collect::<io::Result<_>>()?;
    let mut order: Vec<(usize, usize)> = Vec::new();
    let mut numbers: Vec<i32> = Vec::new();
    let mut listed: Vec<Listed> = Vec::with_capacity(sources.len());
    for (at, (source, bounds)) in sources.iter().zip(bounds).enumerate() {
        let from = order.len();
        for (input, number) in &source.found {
            let rows = inputs[*input].table.series[*number as usize].rows.len();
            let begin = begin[*input][at];
            order.extend((begin..begin + rows).map(|row| (*input, row)));
        }
        let of_series = &mut order[from..];
        let time = |(input, row): &(usize, usize)| times[*input][*row];
        if !of_series.is_sorted_by_key(time) {
            // Of one time those of the first input come first.
            of_series.sort_by_key(time);
        }
        numbers.resize(order.len(), (first + at) as i32);
        let ends = order[from..].first().zip(order.last());
        let (min_ns, max_ns) = ends.map_or((0, 0), |(min, max)| (time(min), time(max)));
        let rows = (order.len() - from) as u64;
        listed.push(Listed::of_rows(&source.meta, &bounds, rows, (min_ns as u64, max_ns as u64)));
    }
    let all: Vec<&RecordBatch> = batches.iter().collect();
    let merged = interleave_record_batch(&all, &order).map_err(arrow_error)?;
    let numbers: ArrayRef = Arc::new(Int32Array::from(numbers));
    let arrays = schema.fields().iter().zip(merged.columns()).map(|(field, column)| {
        if field.name() == SERIES_COLUMN { numbers.clone() } else { column.clone() }
    });
    let merged = RecordBatch::try_new(schema.clone(), arrays.collect()).map_err(arrow_error)?;
    Ok((vec![merged], listed))
}

/// Some rows of a file with the columns of the merged segment.
///
/// * `count`: of the rows.
fn conformed(
    footer: &Footer,
    rows: &[Range<usize>],
    count: usize,
    schema: &SchemaRef,
) -> io::Result<RecordBatch> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let read = match footer.read_by(&names, Some(rows), count.max(1))?.next() {
        Some(batch) if count > 0 => batch.map_err(arrow_error)?,
        _ => return Ok(RecordBatch::new_empty(schema.clone())),
    };
    let columns = schema.fields().iter().map(|field| match read.column_by_name(field.name()) {
        Some(column) => column.clone(),
        None => new_null_array(field.data_type(), read.num_rows()),
    });
    let batch = RecordBatch::try_new(schema.clone(), columns.collect()).map_err(arrow_error)?;
    if batch.num_rows() == count { Ok(batch) } else { Err(damaged("points end too early")) }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn times(batch: &RecordBatch) -> io::Result<&[i64]> {
    let times = batch.column_by_name("time");
    let times = times.and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>());
    times.map(|times| &times.values()[..]).ok_or_else(|| damaged("points have no times"))
}

/// The rows of some series by way of their points: where bounds change, they are told anew.
fn rewritten(
    inputs: &[Input<'_>],
    sources: &[Source],
    first: usize,
    layout: &Layout,
) -> io::Result<Made> {
    let points = points_of(inputs, sources)?;
    let order: Vec<(&Arc<SeriesMeta>, Vec<&StoredPoint>)> = (sources.iter().zip(&points))
        .map(|(source, points)| (&source.meta, points.iter().collect()))
        .collect();
    let listed = order.iter().map(|(meta, points)| Listed::new(meta, points)).collect();
    let batches = Rows::new(&order, first).batches(layout).collect::<io::Result<_>>()?;
    Ok((batches, listed))
}

/// Which series of an input go into some of the merged segment: their numbers there, ascending, and here.
fn wanted(sources: &[Source], input: usize) -> Vec<(u32, usize)> {
    let mut wanted: Vec<(u32, usize)> = Vec::with_capacity(sources.len());
    for (at, source) in sources.iter().enumerate() {
        let here = source.found.iter().filter(|(of, _)| *of == input);
        wanted.extend(here.map(|(_, number)| (*number, at)));
    }
    wanted.sort_unstable();
    wanted
}

/// The points of some series, each in time order; those of one time in the order of the inputs.
fn points_of(inputs: &[Input<'_>], sources: &[Source]) -> io::Result<Vec<Vec<StoredPoint>>> {
    let mut all: Vec<Vec<StoredPoint>> =
        sources.iter().map(|source| Vec::with_capacity(source.rows)).collect();
    for (input, Input { segment, .. }) in inputs.iter().enumerate() {
        let wanted = wanted(sources, input);
        let numbers: Vec<u32> = wanted.iter().map(|(number, _)| *number).collect();
        for ((_, at), (_, points)) in wanted.iter().zip(segment.read(&numbers, Wanted::ALL)?) {
            all[*at].extend(points);
        }
    }
    all.iter_mut().for_each(|points| points.sort_by_key(|point| point.time_ns));
    Ok(all)
}
