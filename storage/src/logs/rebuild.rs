//! Writes a segment anew from its Parquet file alone: what its other files hold stands there too.

use super::batch::LogBatch;
use super::blocks::BLOCK_ROWS;
use super::groups::{GroupsBuilder, NO_PATTERN};
use super::sealed::{ROW_COLUMNS, push_rows};
use super::write;
use crate::columnar::{self, ATTRIBUTE_PREFIX, Footer, arrow_error};
use crate::resource::Interner;
use crate::segment::{SegmentDir, SegmentMeta};
use crate::spans::segment::DictText;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int32Type;
use rustc_hash::FxHashMap;
use std::io;
use std::sync::Arc;

/// Columns from which a row's group is known.
const GROUP_COLUMNS: [&str; 5] =
    ["severity_number", "severity_text", "event_name", "resource", "scope"];

/// Makes all files of a segment from its Parquet file. Takes memory for all of its rows.
///
/// * `but`: a service whose rows are left out.
pub fn rebuild(
    dir: &SegmentDir,
    meta: &SegmentMeta,
    interner: &Interner,
    but: Option<&str>,
) -> io::Result<Vec<SegmentMeta>> {
    let file = Footer::open(&dir.file_path(meta, "parquet"))?;
    let keys: Vec<String> =
        file.attribute_keys().map(|(key, _)| format!("{ATTRIBUTE_PREFIX}{key}")).collect();
    let mut columns: Vec<&str> = ROW_COLUMNS.to_vec();
    columns.extend(GROUP_COLUMNS);
    columns.extend(keys.iter().map(String::as_str));
    let mut batches = Vec::new();
    for read in file.read_by(&columns, None, BLOCK_ROWS)? {
        batches.push(Arc::new(rows(&read.map_err(arrow_error)?, interner, but)?));
    }
    let mut anew = write::seal(dir, &batches)?;
    anew.iter_mut().for_each(|one| one.level = meta.level);
    Ok(anew)
}

/// The records of some rows.
fn rows(read: &RecordBatch, interner: &Interner, but: Option<&str>) -> io::Result<LogBatch> {
    let column = |name: &str| {
        read.column_by_name(name).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("column {name} is missing"))
        })
    };
    let severities = column("severity_number")?.as_primitive::<Int32Type>();
    let severity_texts = DictText::new(column("severity_text")?)?;
    let event_names = DictText::new(column("event_name")?)?;
    let (resources, scopes) =
        (DictText::new(column("resource")?)?, DictText::new(column("scope")?)?);
    let mut known_resources = FxHashMap::default();
    let mut known_scopes = FxHashMap::default();
    let mut texts: FxHashMap<String, Arc<str>> = FxHashMap::default();
    let mut text = |text: &str| -> Arc<str> {
        texts.entry(text.to_owned()).or_insert_with(|| text.into()).clone()
    };
    let mut groups = GroupsBuilder::default();
    let mut group_of_rows = Vec::with_capacity(read.num_rows());
    let mut kept = Vec::with_capacity(read.num_rows());
    for row in 0..read.num_rows() {
        let resource = known_resources
            .entry(resources.get(row))
            .or_insert_with_key(|text| columnar::resource_from_json(text, interner));
        kept.push(but != Some(&*resource.service_name));
        if kept.last() == Some(&false) {
            continue;
        }
        let scope = known_scopes
            .entry(scopes.get(row))
            .or_insert_with_key(|text| columnar::scope_from_json(text, interner));
        group_of_rows.push(groups.group(
            resource,
            scope,
            severities.value(row),
            &text(severity_texts.get(row)),
            &text(event_names.get(row)),
            NO_PATTERN,
        ));
    }
    let mut batch = LogBatch::default();
    let read = &filter_record_batch(read, &BooleanArray::from(kept)).map_err(arrow_error)?;
    push_rows(read, &groups.finish(Vec::new()), &group_of_rows, &mut batch)?;
    batch.finish();
    Ok(batch)
}
