//! Rows of JSON values, and the forms in which they are printed.

use anyhow::Context;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::ipc::writer::StreamWriter;
use serde_json::Value;
use std::sync::Arc;

/// An answer as rows; every row has as many cells as there are columns.
#[derive(Debug, Default)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    pub fn new<const N: usize>(columns: [&str; N]) -> Self {
        Self { columns: columns.map(str::to_owned).into(), rows: Vec::new() }
    }

    /// Columns padded to equal width, numbers to the right. Control characters, which a terminal would obey, are
    /// shown as escapes.
    pub fn aligned(&self) -> String {
        let cells: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|v| visible(&plain(v))).collect()).collect();
        let width = |column: usize| {
            let widest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            widest.max(self.columns[column].chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let numeric: Vec<bool> = (0..self.columns.len())
            .map(|column| {
                self.rows.iter().all(|row| row[column].is_number() || row[column].is_null())
            })
            .collect();
        let mut out = String::new();
        let mut line = |row: &[String]| {
            let mut text = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = " ".repeat(widths[column] - cell.chars().count());
                if numeric[column] {
                    text += &gap;
                    text += cell;
                } else {
                    text += cell;
                    text += &gap;
                }
                text += "  ";
            }
            out += text.trim_end();
            out.push('\n');
        };
        line(&self.columns);
        for row in &cells {
            line(row);
        }
        out
    }

    /// RFC 4180, lines ended by `\n`.
    pub fn csv(&self) -> String {
        let mut out = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = String>| {
            out += &cells.map(quoted).collect::<Vec<_>>().join(",");
            out.push('\n');
        };
        line(&mut self.columns.iter().cloned());
        for row in &self.rows {
            line(&mut row.iter().map(plain));
        }
        out
    }

    /// One record batch as an Arrow IPC stream. A column of whole numbers is Int64, of numbers Float64, of truth
    /// values Boolean, any other Utf8; null where there is no value.
    pub fn arrow(&self) -> anyhow::Result<Vec<u8>> {
        let columns = self.columns.iter().enumerate().map(|(index, name)| {
            let values: Vec<&Value> = self.rows.iter().map(|row| &row[index]).collect();
            (name.clone(), array_of(&values), true)
        });
        let columns: Vec<_> = columns.collect();
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let batch = RecordBatch::try_from_iter_with_nullable(columns).context("making columns")?;
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
        writer.write(&batch)?;
        writer.finish()?;
        Ok(writer.into_inner()?)
    }
}

fn array_of(values: &[&Value]) -> ArrayRef {
    let set = || values.iter().filter(|value| !value.is_null());
    let empty = set().next().is_none();
    if !empty && set().all(|value| value.is_i64()) {
        return Arc::new(values.iter().map(|value| value.as_i64()).collect::<Int64Array>());
    }
    if !empty && set().all(|value| value.is_number()) {
        return Arc::new(values.iter().map(|value| value.as_f64()).collect::<Float64Array>());
    }
    if !empty && set().all(|value| value.is_boolean()) {
        return Arc::new(values.iter().map(|value| value.as_bool()).collect::<BooleanArray>());
    }
    let text = |value: &&Value| (!value.is_null()).then(|| plain(value));
    Arc::new(values.iter().map(text).collect::<StringArray>())
}

/// Text as it is, nothing for null, JSON for the rest.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Text that a terminal shows and does not obey.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

fn quoted(cell: String) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::ipc::reader::StreamReader;
    use serde_json::json;

    fn sample() -> Table {
        let mut table = Table::new(["name", "n"]);
        table.rows = vec![vec![json!("a,\"b\""), json!(7)], vec![json!("x\x1b[2J"), Value::Null]];
        table
    }

    #[test]
    fn tables_are_aligned_and_can_not_steer_the_terminal() {
        assert_eq!(sample().aligned(), "name        n\na,\"b\"       7\nx\\u{1b}[2J\n");
    }

    #[test]
    fn csv_cells_are_quoted_where_they_must_be() {
        assert_eq!(sample().csv(), "name,n\n\"a,\"\"b\"\"\",7\nx\u{1b}[2J,\n");
    }

    #[test]
    fn arrow_columns_get_the_type_of_their_values() {
        let mut table = Table::new(["text", "int", "float", "bool", "none"]);
        table.rows = vec![
            vec![json!("a"), json!(1), json!(1.5), json!(true), Value::Null],
            vec![json!({"b": 1}), Value::Null, json!(2), json!(false), Value::Null],
        ];
        let bytes = table.arrow().unwrap();
        let batch = StreamReader::try_new(&*bytes, None).unwrap().next().unwrap().unwrap();
        let types: Vec<String> =
            batch.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
        assert_eq!(types, ["Utf8", "Int64", "Float64", "Boolean", "Utf8"]);
        assert_eq!(batch.column(1).null_count(), 1);
    }
}
