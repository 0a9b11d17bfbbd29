//! Sealed points: `<id>.parquet`, sorted by series and time, and `<id>.series.parquet`, the series table.
//!
//! The columns of the points are in `points`. The series table gives each series' rows, so a selector reads only those.

use super::batch::{FamilyMetadata, MetricDesc, MetricKind};
use super::index::LabelIndex;
use super::known::KnownSeries;
use super::naming::Naming;
use super::points::{self, Layout, Rows, SeriesPoints, Wanted};
use super::select::in_parts;
use super::series::{Label, SeriesMeta};
use super::store::{HotTable, StoredPoint, kind_from_name};
use crate::attributes;
use crate::columnar::{self, Footer, KEYS_TEXT, KeyTypes, ParquetFile, arrow_error};
use crate::kept::{HeapBytes, Kept};
use crate::resource::{Interner, Resource, Scope};
use crate::segment::{SegmentDir, SegmentMeta, partition_of};
use crate::signal::Signal;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, ListBuilder, PrimitiveBuilder,
    RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType, UInt64Type};
use arrow::error::ArrowError;
use parquet::file::properties::WriterProperties;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Extension of the series table.
pub const SERIES: &str = "series.parquet";

/// Points that are in memory at a time when all are read: some 15 MiB.
pub(super) const ROWS_AT_ONCE: usize = 1 << 15;

/// Key in the series table's file metadata: family metadata as a JSON list.
const FAMILIES: &str = "trefoil.families";

/// Writes a table as segments, one per time partition of the points.
pub fn write(dir: &SegmentDir, table: &HotTable, level: u32) -> io::Result<Vec<SegmentMeta>> {
    let mut partitions: BTreeMap<u64, BTreeMap<usize, Vec<&StoredPoint>>> = BTreeMap::new();
    for (number, series) in table.series.iter().enumerate() {
        for point in series.points.iter() {
            partitions
                .entry(partition_of(point.time_ns))
                .or_default()
                .entry(number)
                .or_default()
                .push(point);
        }
    }
    partitions
        .into_iter()
        .map(|(partition_ns, series)| write_partition(dir, table, partition_ns, series, level))
        .collect()
}

fn write_partition(
    dir: &SegmentDir,
    table: &HotTable,
    partition_ns: u64,
    by_series: BTreeMap<usize, Vec<&StoredPoint>>,
    level: u32,
) -> io::Result<SegmentMeta> {
    let mut order: Vec<(&Arc<SeriesMeta>, Vec<&StoredPoint>)> = by_series
        .into_iter()
        .map(|(number, points)| (&table.series[number].meta, points))
        .collect();
    order.sort_by_key(|(meta, _)| place_of(meta));
    order.iter_mut().for_each(|(_, points)| points.sort_by_key(|point| point.time_ns));
    let rows = Rows::new(&order, 0);
    let layout = Layout::of(&rows);
    let files = Files {
        dir,
        partition_ns,
        level,
        layout: &layout,
        metas: order.iter().map(|(meta, _)| *meta).collect(),
        families: &table.families,
    };
    let listed = || order.iter().map(|(meta, points)| Listed::new(meta, points)).collect();
    files.write(rows.batches(&layout), listed)
}

/// By what the series of a segment are sorted: those of one family stand together, because their points resemble each
/// other and are read together.
pub(super) fn place_of(meta: &Arc<SeriesMeta>) -> (&str, &[Label], u128) {
    (&meta.metric.name, &meta.labels, meta.id)
}

/// The files of a segment to be.
pub(super) struct Files<'a> {
    pub dir: &'a SegmentDir,
    pub partition_ns: u64,
    pub level: u32,
    pub layout: &'a Layout,
    /// Its series.
    pub metas: Vec<&'a Arc<SeriesMeta>>,
    pub families: &'a BTreeMap<Arc<str>, FamilyMetadata>,
}

impl Files<'_> {
    /// * `batches`: the points.
    /// * `listed`: the series, asked for when all points were written.
    pub(super) fn write(
        self,
        batches: impl Iterator<Item = io::Result<RecordBatch>>,
        listed: impl FnOnce() -> Vec<Listed>,
    ) -> io::Result<SegmentMeta> {
        let Self { dir, partition_ns, level, layout, metas, families } = self;
        let id = dir.allocate_id();
        let mut keys = KeyTypes::default();
        for meta in metas {
            keys.add_list(&meta.attributes);
            keys.add_list(&meta.metric.resource.attributes);
        }
        let properties = columnar::properties();
        let properties = columnar::with_text(properties, vec![(KEYS_TEXT, keys.to_text())]);
        let properties = layout.properties(properties).build();
        let file = dir.create(Signal::Metrics, partition_ns, id, "parquet")?;
        let points_file = columnar::write_each(file, batches, properties)?;
        let listed = listed();
        let file = dir.create(Signal::Metrics, partition_ns, id, SERIES)?;
        let series_file =
            columnar::write(file, &[series_batch(&listed)?], series_properties(families)?)?;
        Ok(SegmentMeta {
            signal: Signal::Metrics,
            id,
            partition_ns,
            min_ns: listed.iter().map(|one| one.min_ns).min().unwrap_or(partition_ns),
            max_ns: listed.iter().map(|one| one.max_ns).max().unwrap_or(partition_ns),
            rows: listed.iter().map(|one| one.rows).sum(),
            level,
            files: vec![points_file, series_file],
        })
    }
}

/// A series as the series table lists it.
pub(super) struct Listed {
    meta: Arc<SeriesMeta>,
    /// Of its first histogram point, JSON text.
    bounds: Option<String>,
    rows: u64,
    min_ns: u64,
    max_ns: u64,
}

impl Listed {
    /// * `points`: at least one, in time order.
    pub(super) fn new(meta: &Arc<SeriesMeta>, points: &[&StoredPoint]) -> Self {
        Self {
            meta: meta.clone(),
            bounds: points::first_bounds(points),
            rows: points.len() as u64,
            min_ns: points.first().map_or(0, |point| point.time_ns),
            max_ns: points.last().map_or(0, |point| point.time_ns),
        }
    }

    /// * `min_ns`, `max_ns`: times of its first and last point.
    pub(super) fn of_rows(
        meta: &Arc<SeriesMeta>,
        bounds: &[f64],
        rows: u64,
        (min_ns, max_ns): (u64, u64),
    ) -> Self {
        let is_histogram = meta.metric.kind == MetricKind::Histogram;
        let bounds = if is_histogram { points::bounds_text(bounds) } else { None };
        Self { meta: meta.clone(), bounds, rows, min_ns, max_ns }
    }
}

/// Writer settings of the series table, which also carries the metadata of Prometheus families.
fn series_properties(
    families: &BTreeMap<Arc<str>, FamilyMetadata>,
) -> io::Result<WriterProperties> {
    let mut properties = columnar::properties();
    if !families.is_empty() {
        let families: Vec<&FamilyMetadata> = families.values().collect();
        let text = serde_json::to_string(&families)?;
        properties = columnar::with_text(properties, vec![(FAMILIES, text)]);
    }
    Ok(properties.build())
}

fn series_batch(listed: &[Listed]) -> io::Result<RecordBatch> {
    let metas = || listed.iter().map(|one| &one.meta);
    let texts = |value: &dyn Fn(&SeriesMeta) -> Option<String>| -> ArrayRef {
        Arc::new(metas().map(|meta| value(meta)).collect::<StringArray>())
    };
    let bounds: StringArray = listed.iter().map(|one| one.bounds.as_deref()).collect();
    let time_of = |time: fn(&Listed) -> u64| -> ArrayRef {
        let times: TimestampNanosecondArray =
            listed.iter().map(|one| Some(time(one) as i64)).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let first_rows = listed.iter().scan(0, |next, one| {
        let first = *next;
        *next += one.rows as i64;
        Some(first)
    });
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("series", Arc::new((0..listed.len() as i32).collect::<Int32Array>())),
        ("id", texts(&|m| Some(format!("{:032x}", m.id)))),
        ("name", texts(&|m| Some(m.metric.name.to_string()))),
        ("description", texts(&|m| Some(m.metric.description.to_string()))),
        ("unit", texts(&|m| Some(m.metric.unit.to_string()))),
        ("kind", texts(&|m| Some(m.metric.kind.name().to_owned()))),
        (
            "temporality",
            Arc::new(metas().map(|m| i32::from(m.metric.temporality)).collect::<Int32Array>()),
        ),
        (
            "is_monotonic",
            Arc::new(BooleanArray::from(
                metas().map(|m| m.metric.monotonic).collect::<Vec<bool>>(),
            )),
        ),
        ("bounds", Arc::new(bounds)),
        ("service_name", texts(&|m| Some(m.metric.resource.service_name.to_string()))),
        ("attributes", texts(&|m| Some(attributes::stored_json_object(&m.attributes).to_string()))),
        ("resource", texts(&|m| Some(columnar::resource_json(&m.metric.resource)))),
        ("scope", texts(&|m| Some(columnar::scope_json(&m.metric.scope)))),
        ("first_row", Arc::new(first_rows.collect::<Int64Array>())),
        ("rows", Arc::new(listed.iter().map(|one| one.rows as i64).collect::<Int64Array>())),
        ("min_time", time_of(|one| one.min_ns)),
        ("max_time", time_of(|one| one.max_ns)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .map_err(arrow_error)
}

/// A series of a segment and where its points are.
#[derive(Debug)]
pub struct SealedSeries {
    pub meta: Arc<SeriesMeta>,
    pub bounds: Arc<[f64]>,
    pub rows: Range<usize>,
    pub min_ns: u64,
    pub max_ns: u64,
}

/// The series table of a segment.
#[derive(Debug)]
pub struct SeriesTable {
    pub series: Vec<SealedSeries>,
    pub index: LabelIndex,
    pub families: BTreeMap<Arc<str>, FamilyMetadata>,
}

impl HeapBytes for SeriesTable {
    /// Series are shared with the hot table and other segments.
    fn heap_bytes(&self) -> usize {
        self.series.capacity() * size_of::<SealedSeries>() + self.index.heap_bytes()
    }
}

/// An open segment.
#[derive(Debug)]
pub struct MetricSegment {
    pub meta: SegmentMeta,
    points: ParquetFile,
    series_path: std::path::PathBuf,
    interner: Arc<Interner>,
    naming: Naming,
    known: Arc<KnownSeries>,
    table: Kept<SeriesTable>,
}

impl MetricSegment {
    pub fn open(
        dir: &SegmentDir,
        meta: &SegmentMeta,
        interner: Arc<Interner>,
        naming: Naming,
        known: Arc<KnownSeries>,
    ) -> io::Result<Self> {
        let points = ParquetFile::open(&dir.file_path(meta, "parquet"))?;
        if points.rows() as u64 != meta.rows {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} rows, the manifest says {}", points.rows(), meta.rows),
            ));
        }
        let series_path = dir.file_path(meta, SERIES);
        if !series_path.is_file() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "series table is missing"));
        }
        Ok(Self {
            meta: meta.clone(),
            points,
            series_path,
            interner,
            naming,
            known,
            table: Kept::new(),
        })
    }

    /// The series table. Work that comes back to it holds it, so that it is not read twice.
    pub fn table(&self) -> io::Result<Arc<SeriesTable>> {
        self.table.get_or_read(|| self.read_table())
    }

    fn read_table(&self) -> io::Result<SeriesTable> {
        let file = Footer::open(&self.series_path)?;
        let names: Vec<String> = file.schema().fields().iter().map(|f| f.name().clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut resources: FxHashMap<String, Arc<Resource>> = FxHashMap::default();
        let mut scopes: FxHashMap<String, Arc<Scope>> = FxHashMap::default();
        let mut descs: FxHashMap<u128, Arc<MetricDesc>> = FxHashMap::default();
        let mut bounds_of: FxHashMap<String, Arc<[f64]>> = FxHashMap::default();
        let families: Vec<FamilyMetadata> = match file.text(FAMILIES) {
            Some(text) => serde_json::from_str(text)?,
            None => Vec::new(),
        };
        let mut table = SeriesTable {
            series: Vec::new(),
            index: LabelIndex::default(),
            families: families.into_iter().map(|f| (f.family.clone(), f)).collect(),
        };
        for batch in file.read(&names, None)? {
            let batch = batch.map_err(arrow_error)?;
            let column = |name: &str| {
                batch.column_by_name(name).ok_or_else(|| damaged("series column is missing"))
            };
            let text = |name: &str| -> io::Result<&StringArray> {
                column(name)?.as_string_opt::<i32>().ok_or_else(|| damaged("not a text column"))
            };
            let (ids, metric_names, descriptions) =
                (text("id")?, text("name")?, text("description")?);
            let (units, kinds, bounds) = (text("unit")?, text("kind")?, text("bounds")?);
            let (lists, resource_texts, scope_texts) =
                (text("attributes")?, text("resource")?, text("scope")?);
            let temporalities = column("temporality")?.as_primitive::<Int32Type>();
            let monotonic = column("is_monotonic")?.as_boolean();
            let first_rows = column("first_row")?.as_primitive::<Int64Type>();
            let row_counts = column("rows")?.as_primitive::<Int64Type>();
            let min_times = column("min_time")?.as_primitive::<TimestampNanosecondType>();
            let max_times = column("max_time")?.as_primitive::<TimestampNanosecondType>();
            let mut read = |id: u128, row: usize| -> io::Result<SeriesMeta> {
                let resource = resources
                    .entry(resource_texts.value(row).to_owned())
                    .or_insert_with_key(|t| columnar::resource_from_json(t, &self.interner))
                    .clone();
                let scope = scopes
                    .entry(scope_texts.value(row).to_owned())
                    .or_insert_with_key(|t| columnar::scope_from_json(t, &self.interner))
                    .clone();
                let desc = MetricDesc {
                    name: metric_names.value(row).into(),
                    description: descriptions.value(row).into(),
                    unit: units.value(row).into(),
                    kind: kind_from_name(kinds.value(row)).ok_or_else(|| damaged("metric kind"))?,
                    temporality: temporalities.value(row) as u8,
                    monotonic: monotonic.value(row),
                    resource,
                    scope,
                };
                let desc = descs.entry(desc.id()).or_insert_with(|| Arc::new(desc)).clone();
                let object = serde_json::from_str(lists.value(row))?;
                let mut list = Vec::new();
                attributes::put_stored_json_object(&mut list, &object);
                Ok(SeriesMeta::new(id, desc, &list, &self.naming))
            };
            for row in 0..batch.num_rows() {
                let id = u128::from_str_radix(ids.value(row), 16).map_err(|_| damaged("id"))?;
                let meta = match self.known.get(id, descriptions.value(row)) {
                    Some(meta) => meta,
                    None => self.known.add(read(id, row)?),
                };
                let bounds = if bounds.is_null(row) {
                    Arc::from([])
                } else {
                    bounds_of
                        .entry(bounds.value(row).to_owned())
                        .or_insert_with_key(|text| points::bounds_from(text))
                        .clone()
                };
                table.index.push(&meta);
                let first = first_rows.value(row) as usize;
                table.series.push(SealedSeries {
                    meta,
                    bounds,
                    rows: first..first + row_counts.value(row) as usize,
                    min_ns: min_times.value(row) as u64,
                    max_ns: max_times.value(row) as u64,
                });
            }
        }
        Ok(table)
    }

    /// Some columns of some rows, in batches.
    ///
    /// * `rows`: ascending ranges.
    fn columns(
        &self,
        wanted: Wanted,
        rows: &[Range<usize>],
    ) -> io::Result<impl Iterator<Item = Result<RecordBatch, ArrowError>>> {
        let columns = points::columns(wanted);
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        self.points.read(&columns, Some(rows))
    }

    /// Calls `visit` with some columns of some rows, batch by batch.
    ///
    /// * `rows`: ascending ranges.
    ///
    /// # Errors
    /// Of reading, or those of `visit`.
    pub(super) fn visit_columns(
        &self,
        wanted: Wanted,
        rows: &[Range<usize>],
        mut visit: impl FnMut(&RecordBatch) -> io::Result<()>,
    ) -> io::Result<()> {
        self.columns(wanted, rows)?.try_for_each(|batch| visit(&batch.map_err(arrow_error)?))
    }

    /// The points of some series (ascending numbers), each in time order.
    pub(super) fn read(&self, numbers: &[u32], wanted: Wanted) -> io::Result<SeriesPoints> {
        let table = self.table()?;
        let mut out: SeriesPoints = Vec::with_capacity(numbers.len());
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for number in numbers {
            let series = &table.series[*number as usize];
            match ranges.last_mut() {
                Some(last) if last.end == series.rows.start => last.end = series.rows.end,
                _ => ranges.push(series.rows.clone()),
            }
            out.push((series.meta.clone(), Vec::with_capacity(series.rows.len())));
        }
        let slot_of: FxHashMap<i32, usize> =
            numbers.iter().enumerate().map(|(slot, number)| (*number as i32, slot)).collect();
        for batch in self.columns(Wanted { numbered: true, ..wanted }, &ranges)? {
            let batch = batch.map_err(arrow_error)?;
            points::decode(&batch, &table, &slot_of, &mut out)?;
        }
        Ok(out)
    }

    /// Everything, some series at a time.
    pub(super) fn read_all(
        self: Arc<Self>,
    ) -> io::Result<impl Iterator<Item = io::Result<SeriesPoints>>> {
        let table = self.table()?;
        let all: Vec<u32> = (0..table.series.len() as u32).collect();
        let rows = |number: &u32| table.series[*number as usize].rows.len();
        let parts: Vec<Vec<u32>> =
            in_parts(&all, ROWS_AT_ONCE, rows).into_iter().map(<[u32]>::to_vec).collect();
        Ok(parts.into_iter().map(move |part| {
            let _held = &table;
            self.read(&part, Wanted::ALL)
        }))
    }

    /// The file of the points.
    pub(super) fn points(&self) -> &ParquetFile {
        &self.points
    }

    /// Keys of the attributes and resources of its series.
    pub(super) fn key_types(&self) -> io::Result<KeyTypes> {
        Ok(self.points.footer()?.key_types())
    }
}

/// For tables: a list column of counts.
pub(super) fn count_list(counts: impl Iterator<Item = Option<Vec<u64>>>) -> ArrayRef {
    let mut builder = ListBuilder::new(PrimitiveBuilder::<UInt64Type>::new());
    for list in counts {
        match list {
            Some(list) => {
                builder.values().append_slice(&list);
                builder.append(true);
            }
            None => builder.append(false),
        }
    }
    Arc::new(builder.finish())
}
