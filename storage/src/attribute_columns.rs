//! The attributes of rows as typed columns and a rest: see `columnar` for the names they have in files.

use crate::attributes::{self, Raw, Value};
use crate::columnar::{ATTRIBUTE_PREFIX, COLUMNS_MAX, KeyTypes, ScalarType};
use crate::shapes::{self, Attributes, Shape, Shapes};
use arrow::array::{
    ArrayBuilder as _, ArrayRef, BooleanArray, BooleanBufferBuilder, Float64Array, Int64Array,
    StringArray, StringBuilder,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value as Json};
use std::sync::Arc;

/// A key becomes a column when at least one row in this many has it.
const RARITY: usize = 100;

/// Builds a column of which many rows may lack a value: values and their rows are kept, and nulls put in at the end.
struct ColumnBuilder {
    values: Values,
    /// Row of each value, ascending.
    rows: Vec<u32>,
}

enum Values {
    /// Bytes that are known to be text: all of them are looked at once, at the end.
    Text {
        ends: Vec<i32>,
        data: Vec<u8>,
    },
    Int(Vec<i64>),
    Double(Vec<f64>),
    Bool(Vec<bool>),
}

impl ColumnBuilder {
    fn new(scalar: ScalarType) -> Self {
        let values = match scalar {
            ScalarType::Text => Values::Text { ends: Vec::new(), data: Vec::new() },
            ScalarType::Int => Values::Int(Vec::new()),
            ScalarType::Double => Values::Double(Vec::new()),
            ScalarType::Bool => Values::Bool(Vec::new()),
        };
        Self { values, rows: Vec::new() }
    }

    fn scalar(&self) -> ScalarType {
        match self.values {
            Values::Text { .. } => ScalarType::Text,
            Values::Int(_) => ScalarType::Int,
            Values::Double(_) => ScalarType::Double,
            Values::Bool(_) => ScalarType::Bool,
        }
    }

    /// Gives a row its value; one of another type leaves it null.
    fn push(&mut self, row: usize, value: Raw<'_>) {
        match (&mut self.values, value) {
            (Values::Text { ends, data }, Raw::Text(v)) => {
                data.extend_from_slice(v);
                ends.push(data.len() as i32);
            }
            (Values::Int(values), Raw::Int(v)) => values.push(v),
            (Values::Double(values), Raw::Double(v)) => values.push(v),
            (Values::Bool(values), Raw::Bool(v)) => values.push(v),
            _ => return,
        }
        self.rows.push(row as u32);
    }

    /// The column of so many rows; begins anew with none.
    fn finish(&mut self, rows: usize) -> ArrayRef {
        let Self { values, rows: present } = std::mem::replace(self, Self::new(self.scalar()));
        let nulls = (present.len() < rows).then(|| {
            let mut bits = BooleanBufferBuilder::new(rows);
            bits.append_n(rows, false);
            present.iter().for_each(|row| bits.set_bit(*row as usize, true));
            NullBuffer::new(bits.finish())
        });
        match values {
            Values::Text { ends, data } => Arc::new(texts(rows, &present, &ends, data, nulls)),
            Values::Int(values) => {
                Arc::new(Int64Array::new(spread(rows, &present, values).into(), nulls))
            }
            Values::Double(values) => {
                Arc::new(Float64Array::new(spread(rows, &present, values).into(), nulls))
            }
            Values::Bool(values) => {
                Arc::new(BooleanArray::new(spread(rows, &present, values).into(), nulls))
            }
        }
    }
}

/// The values at their rows, defaults between them.
fn spread<T: Copy + Default>(rows: usize, present: &[u32], values: Vec<T>) -> Vec<T> {
    if present.len() == rows {
        return values;
    }
    let mut all = vec![T::default(); rows];
    present.iter().zip(values).for_each(|(row, value)| all[*row as usize] = value);
    all
}

fn texts(
    rows: usize,
    present: &[u32],
    ends: &[i32],
    data: Vec<u8>,
    nulls: Option<NullBuffer>,
) -> StringArray {
    let mut offsets: Vec<i32> = Vec::with_capacity(rows + 1);
    offsets.push(0);
    let mut end = 0;
    for (row, next) in present.iter().zip(ends) {
        // Nulls take no bytes.
        offsets.resize(*row as usize + 1, end);
        end = *next;
        offsets.push(end);
    }
    offsets.resize(rows + 1, end);
    let (offsets, data) = (OffsetBuffer::new(offsets.into()), Buffer::from_vec(data));
    StringArray::try_new(offsets.clone(), data.clone(), nulls.clone()).unwrap_or_else(|_| {
        // Decoders keep other bytes out; were there any, they would show as U+FFFD.
        let row = |(row, ends): (usize, &[i32])| {
            let is = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
            is.then(|| String::from_utf8_lossy(&data[ends[0] as usize..ends[1] as usize]))
        };
        offsets.windows(2).enumerate().map(row).collect()
    })
}

/// Where an attribute of a row goes.
#[derive(Debug, Clone, Copy)]
enum Target {
    Column(usize),
    Rest,
    /// A later one of the row has the same key.
    Dropped,
}

/// Splits the attributes of rows into typed columns and a rest.
pub struct AttributeColumns {
    keys: Vec<(Arc<str>, ScalarType)>,
    lookup: FxHashMap<Arc<str>, usize>,
    shapes: Shapes,
    /// By shape.
    targets: Vec<Vec<Target>>,
    builders: Vec<ColumnBuilder>,
    rest: StringBuilder,
    rows: usize,
    seen: KeyTypes,
}

impl AttributeColumns {
    /// Chooses the columns by looking at every row once, in any order.
    pub fn choose<'a>(rows: usize, lists: impl Iterator<Item = Attributes<'a>>) -> Self {
        let mut shapes = Shapes::default();
        let mut rows_of_shape: Vec<usize> = Vec::new();
        // Per key: rows that have it, and its type while there is only one.
        let mut seen: FxHashMap<Arc<str>, (usize, Option<ScalarType>)> = FxHashMap::default();
        let mut count = |shape: &Shape, rows: usize| {
            for (key, scalar) in &shape.keys {
                let entry = seen.entry(key.clone()).or_insert((0, *scalar));
                entry.0 += rows;
                if entry.1 != *scalar {
                    entry.1 = None;
                }
            }
        };
        for row in lists {
            match shapes.number(row) {
                Some(number) => {
                    rows_of_shape.resize(shapes.len(), 0);
                    rows_of_shape[number] += 1;
                }
                None => count(&Shape::of(&shapes::pairs(row.list)), 1),
            }
        }
        for (number, rows) in rows_of_shape.into_iter().enumerate() {
            count(shapes.get(number), rows);
        }
        let mut types = KeyTypes::default();
        seen.iter().for_each(|(key, (_, scalar))| types.add(key, *scalar));
        let mut chosen: Vec<(Arc<str>, usize, ScalarType)> = seen
            .into_iter()
            .filter_map(|(key, (count, scalar))| Some((key, count, scalar?)))
            .filter(|(_, count, _)| count * RARITY >= rows)
            .collect();
        chosen.sort_unstable_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        chosen.truncate(COLUMNS_MAX);
        let keys = chosen.into_iter().map(|(key, _, scalar)| (key, scalar)).collect();
        Self { shapes, seen: types, ..Self::with_keys(keys) }
    }

    /// Columns for exactly these keys; at most [`COLUMNS_MAX`] of them are taken.
    pub fn with_keys(mut keys: Vec<(Arc<str>, ScalarType)>) -> Self {
        keys.truncate(COLUMNS_MAX);
        keys.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let lookup = keys.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
        let builders = keys.iter().map(|(_, scalar)| ColumnBuilder::new(*scalar)).collect();
        Self {
            keys,
            lookup,
            shapes: Shapes::default(),
            targets: Vec::new(),
            builders,
            rest: StringBuilder::new(),
            rows: 0,
            seen: KeyTypes::default(),
        }
    }

    /// All keys of the rows that the columns were chosen by.
    pub fn key_types(&self) -> &KeyTypes {
        &self.seen
    }

    /// Adds one row's attributes; of duplicate keys the last one counts.
    pub fn push(&mut self, attributes: Attributes<'_>) {
        let row = self.rows;
        self.rows += 1;
        if attributes.list.is_empty() {
            return;
        }
        let pairs = shapes::pairs(attributes.list);
        let unkept;
        let known = self.shapes.number(attributes);
        let targets = match known.filter(|number| self.shapes.get(*number).is_of(&pairs)) {
            Some(number) => {
                while self.targets.len() <= number {
                    let shape = self.shapes.get(self.targets.len());
                    self.targets.push(targets_of(shape, &self.lookup, &self.keys));
                }
                &self.targets[number]
            }
            None => {
                unkept = targets_of(&Shape::of(&pairs), &self.lookup, &self.keys);
                &unkept
            }
        };
        let mut rest: Option<Map<String, Json>> = None;
        for (pair, target) in pairs.iter().zip(targets) {
            match target {
                Target::Column(at) => {
                    self.builders[*at].push(row, pair.value);
                }
                Target::Rest => {
                    let key = attributes::escape_key(pair.key());
                    let value = attributes::stored_json(pair.value.value());
                    rest.get_or_insert_default().insert(key, value);
                }
                Target::Dropped => {}
            }
        }
        if let Some(object) = rest {
            self.rest.append_nulls(row - self.rest.len());
            self.rest.append_value(Json::Object(object).to_string());
        }
    }

    /// The fields and arrays of the rows added so far, the rest first; begins anew with no rows.
    pub fn finish(&mut self) -> Vec<(Field, ArrayRef)> {
        let rows = std::mem::take(&mut self.rows);
        self.rest.append_nulls(rows - self.rest.len());
        let rest: ArrayRef = Arc::new(self.rest.finish());
        let mut columns = vec![(Field::new("attributes", DataType::Utf8, true), rest)];
        for ((key, scalar), builder) in self.keys.iter().zip(&mut self.builders) {
            let name = format!("{ATTRIBUTE_PREFIX}{key}");
            columns.push((Field::new(name, scalar.arrow(), true), builder.finish(rows)));
        }
        columns
    }
}

/// Where each attribute of a shape goes.
fn targets_of(
    shape: &Shape,
    lookup: &FxHashMap<Arc<str>, usize>,
    keys: &[(Arc<str>, ScalarType)],
) -> Vec<Target> {
    let mut later: FxHashSet<&str> = FxHashSet::default();
    let one = |(key, scalar): &'_ (Arc<str>, Option<ScalarType>)| match lookup.get(key) {
        Some(&column) if *scalar == Some(keys[column].1) => Target::Column(column),
        _ => Target::Rest,
    };
    let mut targets: Vec<Target> = shape
        .keys
        .iter()
        .rev()
        .map(|pair| if later.insert(&pair.0) { one(pair) } else { Target::Dropped })
        .collect();
    targets.reverse();
    targets
}

/// Builds a column of one attribute from values as they are found: the type is the asked one, other types become
/// NULL (numbers) or text.
pub struct KeyColumn {
    builder: ColumnBuilder,
    rows: usize,
}

impl KeyColumn {
    pub fn new(data_type: &DataType) -> Self {
        let scalar = ScalarType::from_arrow(data_type).unwrap_or(ScalarType::Text);
        Self { builder: ColumnBuilder::new(scalar), rows: 0 }
    }

    pub fn push(&mut self, value: Option<Value<'_>>) {
        let row = self.rows;
        self.rows += 1;
        match (self.builder.scalar(), value) {
            (ScalarType::Text, Some(value)) => {
                self.builder.push(row, Raw::Text(value.to_text().as_bytes()));
            }
            (ScalarType::Double, Some(value)) => {
                if let Some(number) = value.as_f64() {
                    self.builder.push(row, Raw::Double(number));
                }
            }
            (ScalarType::Int, Some(Value::Int(v))) => self.builder.push(row, Raw::Int(v)),
            (ScalarType::Bool, Some(Value::Bool(v))) => self.builder.push(row, Raw::Bool(v)),
            _ => {}
        }
    }

    pub fn finish(&mut self) -> ArrayRef {
        self.builder.finish(std::mem::take(&mut self.rows))
    }
}
