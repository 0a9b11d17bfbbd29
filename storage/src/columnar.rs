//! Parquet pieces that span and log segments share: attributes as columns, resources and scopes as JSON text,
//! files and readers.
//!
//! At seal the keys that many rows have become typed columns `attributes.<key>`; what is left of each row is one
//! stored-JSON text column `attributes`. Reading puts both together again.

use crate::attributes::{self, Raw, Value};
use crate::resource::{Interner, Resource, Scope};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Int32Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

pub use crate::parquet_file::{Footer, ParquetFile, RowGroup, Test};
use crate::segment::DurableFile;

/// Prefix of the typed attribute columns.
pub const ATTRIBUTE_PREFIX: &str = "attributes.";

/// At most so many keys become columns.
pub(crate) const COLUMNS_MAX: usize = 64;

/// Rows a page holds at most: what a point read decodes per column.
pub(crate) const PAGE_ROWS: usize = 4096;

/// The same for spans, which are read by trace ID from some forty columns: each costs passing over half a page.
pub(crate) const SPAN_PAGE_ROWS: usize = 3072;

/// Rows a row group holds at most.
pub(crate) const GROUP_ROWS: usize = 128 * 1024;

/// OTLP type of a typed attribute column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalarType {
    Text,
    Int,
    Double,
    Bool,
}

impl ScalarType {
    pub fn of_raw(value: Raw<'_>) -> Option<Self> {
        match value {
            Raw::Text(_) => Some(Self::Text),
            Raw::Int(_) => Some(Self::Int),
            Raw::Double(_) => Some(Self::Double),
            Raw::Bool(_) => Some(Self::Bool),
            Raw::Other(message) => Self::of(attributes::any_value(message)),
        }
    }

    pub fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Str(_) => Some(Self::Text),
            Value::Int(_) => Some(Self::Int),
            Value::Double(_) => Some(Self::Double),
            Value::Bool(_) => Some(Self::Bool),
            _ => None,
        }
    }

    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Int => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Bool => DataType::Boolean,
        }
    }

    pub fn from_arrow(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Utf8 => Self::Text,
            DataType::Int64 => Self::Int,
            DataType::Float64 => Self::Double,
            DataType::Boolean => Self::Bool,
            _ => return None,
        })
    }
}

/// Attribute keys with the type under which they were seen; `None` = more than one type.
#[derive(Debug, Clone, Default)]
pub struct KeyTypes(pub FxHashMap<Arc<str>, Option<ScalarType>>);

/// Keys remembered: senders that put IDs into keys must not fill memory. Later ones are still in the JSON text.
const KEYS_MAX: usize = 10_000;

/// Under this key a file's footer has all its attribute keys: a JSON object from key to type, null for mixed.
pub const KEYS_TEXT: &str = "trefoil.keys";

impl KeyTypes {
    pub fn add(&mut self, key: &str, seen: Option<ScalarType>) {
        let full = self.0.len() >= KEYS_MAX;
        match self.0.get_mut(key) {
            Some(known) if *known == seen => {}
            Some(known) => *known = None,
            None if full => {}
            None => {
                self.0.insert(key.into(), seen);
            }
        }
    }

    /// Whether nothing of `other` would be new.
    pub fn covers(&self, other: &Self) -> bool {
        let known = |(key, seen)| matches!(self.0.get(key), Some(k) if k == seen || k.is_none());
        other.0.iter().all(known)
    }

    /// The text for a footer, see [`KEYS_TEXT`].
    pub fn to_text(&self) -> String {
        let sorted: BTreeMap<&str, Option<ScalarType>> =
            self.0.iter().map(|(key, seen)| (&**key, *seen)).collect();
        serde_json::to_string(&sorted).unwrap_or_default()
    }

    /// The inverse of [`to_text`](Self::to_text); no keys for a text that is none.
    pub fn from_text(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap_or_default())
    }

    pub fn merge(&mut self, other: &Self) {
        for (key, seen) in &other.0 {
            self.add(key, *seen);
        }
    }

    /// Adds the keys of a canonical list.
    pub fn add_list(&mut self, list: &[u8]) {
        for (key, value) in attributes::iter(list) {
            self.add(key, ScalarType::of(value));
        }
    }

    /// The type as which a key can be read as a column: text when it is mixed or not a scalar.
    pub fn column_type(&self, key: &str) -> Option<DataType> {
        self.0.get(key).map(|seen| seen.map_or(DataType::Utf8, ScalarType::arrow))
    }
}

/// Dictionary-encoded text column from codes into few distinct values.
pub fn dictionary(codes: Vec<Option<i32>>, values: Vec<String>) -> ArrayRef {
    let keys = Int32Array::from(codes);
    let values: ArrayRef = Arc::new(StringArray::from(values));
    Arc::new(DictionaryArray::<Int32Type>::new(keys, values))
}

/// Type of a [`dictionary`] column.
pub fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// A resource as text: its attributes as stored JSON, and what is left (`schema_url`, dropped count) under `$` keys,
/// which attributes never start with unescaped.
pub fn resource_json(resource: &Resource) -> String {
    let mut json = attributes::stored_json_object(&resource.attributes);
    put_extra(&mut json, &resource.schema_url, resource.dropped_attributes_count);
    json.to_string()
}

/// The inverse of [`resource_json`].
pub fn resource_from_json(text: &str, interner: &Interner) -> Arc<Resource> {
    let (attributes, schema_url, dropped) = list_from_json(text);
    interner.resource(Resource::new(&attributes, &schema_url, dropped))
}

/// A scope as text, see [`resource_json`].
pub fn scope_json(scope: &Scope) -> String {
    let mut json = attributes::stored_json_object(&scope.attributes);
    put_extra(&mut json, &scope.schema_url, scope.dropped_attributes_count);
    if let Json::Object(object) = &mut json {
        object.insert("$name".into(), scope.name.as_ref().into());
        if !scope.version.is_empty() {
            object.insert("$version".into(), scope.version.as_ref().into());
        }
    }
    json.to_string()
}

/// The inverse of [`scope_json`].
pub fn scope_from_json(text: &str, interner: &Interner) -> Arc<Scope> {
    let object: Map<String, Json> = serde_json::from_str(text).unwrap_or_default();
    let word = |key: &str| object.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
    let (name, version) = (word("$name"), word("$version"));
    let (attributes, schema_url, dropped) = list_from_json(text);
    interner.scope(Scope::new(&name, &version, &attributes, &schema_url, dropped))
}

fn put_extra(json: &mut Json, schema_url: &str, dropped: u32) {
    if let Json::Object(object) = json {
        if !schema_url.is_empty() {
            object.insert("$schema_url".into(), schema_url.into());
        }
        if dropped > 0 {
            object.insert("$dropped".into(), dropped.into());
        }
    }
}

fn list_from_json(text: &str) -> (Vec<u8>, String, u32) {
    let mut object: Map<String, Json> = serde_json::from_str(text).unwrap_or_default();
    let schema_url = match object.remove("$schema_url") {
        Some(Json::String(url)) => url,
        _ => String::new(),
    };
    let dropped = object.remove("$dropped").and_then(|n| n.as_u64()).unwrap_or(0) as u32;
    object.remove("$name");
    object.remove("$version");
    let mut list = Vec::new();
    attributes::put_stored_json_object(&mut list, &object);
    (list, schema_url, dropped)
}

/// Attribute JSON of a row for people and SQL: stored JSON without the `$` extras.
pub fn public_json(text: &str) -> String {
    if !text.contains("\"$") {
        return text.to_owned();
    }
    let mut object: Map<String, Json> = serde_json::from_str(text).unwrap_or_default();
    for key in ["$schema_url", "$dropped", "$name", "$version"] {
        object.remove(key);
    }
    Json::Object(object).to_string()
}

/// Writer settings that all segments share; callers add encodings of their own columns.
pub fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        // Encoded pages leave little to find: level 3 makes spans 0.5 % smaller and takes twice the time.
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a zstd level")))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("trefoil ", env!("CARGO_PKG_VERSION")).to_owned())
}

/// Leaves texts in the footer, each under its key.
pub fn with_text(
    properties: WriterPropertiesBuilder,
    texts: Vec<(&str, String)>,
) -> WriterPropertiesBuilder {
    let pairs = texts.into_iter().map(|(key, text)| KeyValue::new(key.to_owned(), text)).collect();
    properties.set_key_value_metadata(Some(pairs))
}

/// Delta encoding for a sorted or slowly changing integer column.
pub fn delta(properties: WriterPropertiesBuilder, column: &str) -> WriterPropertiesBuilder {
    let path = ColumnPath::new(vec![column.to_owned()]);
    properties
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
}

/// Bytes of equal weight side by side, for integers of which the upper bytes resemble each other and neighbours do not:
/// nanoseconds take a tenth less than as packed differences, whose width is that of the largest of 32.
pub fn by_byte(properties: WriterPropertiesBuilder, column: &str) -> WriterPropertiesBuilder {
    let path = ColumnPath::new(vec![column.to_owned()]);
    properties
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT)
}

/// No compression for a column in which there is nothing to find.
pub fn uncompressed(properties: WriterPropertiesBuilder, column: &str) -> WriterPropertiesBuilder {
    let path = ColumnPath::new(vec![column.to_owned()]);
    properties.set_column_compression(path, Compression::UNCOMPRESSED)
}

/// Stronger compression for a column that repeats in its bytes.
pub fn repetitive(properties: WriterPropertiesBuilder, column: &str) -> WriterPropertiesBuilder {
    let path = ColumnPath::new(vec![column.to_owned()]);
    let level = ZstdLevel::try_new(3).expect("3 is a zstd level");
    properties.set_column_compression(path, Compression::ZSTD(level))
}

/// No dictionary for a column of values that hardly repeat.
pub fn plain(properties: WriterPropertiesBuilder, column: &str) -> WriterPropertiesBuilder {
    properties.set_column_dictionary_enabled(ColumnPath::new(vec![column.to_owned()]), false)
}

/// Writes batches of one schema as a Parquet file, durable on return.
pub fn write(
    file: DurableFile,
    batches: &[RecordBatch],
    properties: WriterProperties,
) -> io::Result<crate::segment::SegmentFile> {
    write_each(file, batches.iter().cloned().map(Ok), properties)
}

/// [`write`] for batches that are made one by one.
pub fn write_each(
    file: DurableFile,
    batches: impl Iterator<Item = io::Result<RecordBatch>>,
    properties: WriterProperties,
) -> io::Result<crate::segment::SegmentFile> {
    let mut batches = batches.peekable();
    let schema = match batches.peek() {
        Some(Ok(first)) => first.schema(),
        _ => Arc::new(Schema::empty()),
    };
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(parquet_error)?;
    for batch in batches {
        writer.write(&batch?).map_err(parquet_error)?;
    }
    writer.into_inner().map_err(parquet_error)?.commit()
}

pub fn parquet_error(error: parquet::errors::ParquetError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

pub fn arrow_error(error: arrow::error::ArrowError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads the attributes of a batch's rows back, from the typed columns and the rest that the batch holds.
pub struct AttributeReader<'a> {
    rest: Option<&'a StringArray>,
    typed: Vec<(&'a str, &'a ArrayRef)>,
}

impl<'a> AttributeReader<'a> {
    pub fn new(batch: &'a RecordBatch, schema: &'a Schema) -> Self {
        let rest = batch.column_by_name("attributes").and_then(|c| c.as_string_opt::<i32>());
        let typed = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .filter_map(|(f, c)| Some((f.name().strip_prefix(ATTRIBUTE_PREFIX)?, c)))
            .collect();
        Self { rest, typed }
    }

    /// Appends a row's attributes to a canonical list.
    pub fn put(&self, row: usize, out: &mut Vec<u8>) {
        for (key, column) in &self.typed {
            if let Some(value) = scalar_at(column, row) {
                attributes::put_attribute(out, key, value);
            }
        }
        self.put_rest(row, out);
    }

    /// Appends only those attributes that have no typed column.
    pub fn put_rest(&self, row: usize, out: &mut Vec<u8>) {
        if let Some(object) = self.rest_object(row) {
            attributes::put_stored_json_object(out, &object);
        }
    }

    /// A row's attributes as stored JSON text.
    pub fn json(&self, row: usize) -> String {
        let mut object = self.rest_object(row).unwrap_or_default();
        for (key, column) in &self.typed {
            if let Some(value) = scalar_at(column, row) {
                object.insert(attributes::escape_key(key), attributes::stored_json(value));
            }
        }
        Json::Object(object).to_string()
    }

    /// One attribute as a text value, `None` when absent.
    pub fn text(&self, row: usize, key: &str) -> Option<String> {
        if let Some((_, column)) = self.typed.iter().find(|(name, _)| *name == key)
            && let Some(value) = scalar_at(column, row)
        {
            return Some(value.to_text().into_owned());
        }
        let rest = self.rest?;
        // Most rows can be told by a glance at the text, unless JSON writes the key otherwise.
        let as_is = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if rest.is_null(row) || (key.bytes().all(as_is) && !rest.value(row).contains(key)) {
            return None;
        }
        let object = self.rest_object(row)?;
        let mut list = Vec::new();
        attributes::put_stored_json_object(&mut list, &object);
        attributes::get(&list, key).map(|value| value.to_text().into_owned())
    }

    /// Whether an attribute has this text value.
    pub fn has(&self, row: usize, key: &str, text: &str) -> bool {
        let typed = self.typed.iter().find(|(name, _)| *name == key);
        match typed.and_then(|(_, column)| scalar_at(column, row)) {
            Some(Value::Str(value)) => value == text,
            Some(value) => value.to_text() == text,
            None => self.text(row, key).is_some_and(|value| value == text),
        }
    }

    fn rest_object(&self, row: usize) -> Option<Map<String, Json>> {
        let rest = self.rest?;
        if rest.is_null(row) { None } else { serde_json::from_str(rest.value(row)).ok() }
    }
}

/// A scalar of a typed attribute column.
pub fn scalar_at(column: &ArrayRef, row: usize) -> Option<Value<'_>> {
    if column.is_null(row) {
        return None;
    }
    let any = column.as_any();
    Some(if let Some(texts) = any.downcast_ref::<StringArray>() {
        Value::Str(texts.value(row))
    } else if let Some(ints) = any.downcast_ref::<Int64Array>() {
        Value::Int(ints.value(row))
    } else if let Some(doubles) = any.downcast_ref::<Float64Array>() {
        Value::Double(doubles.value(row))
    } else if let Some(bools) = any.downcast_ref::<BooleanArray>() {
        Value::Bool(bools.value(row))
    } else {
        return None;
    })
}
