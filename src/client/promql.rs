//! `trefoil query promql`.

use super::{Output, Server, Table, age, show};
use anyhow::bail;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// When to evaluate.
pub enum When {
    At(Option<String>),
    /// Start, end and step.
    Over([String; 3]),
}

impl When {
    /// What the flags mean: a range as soon as a step, start or end is given.
    pub fn read(
        time: Option<String>,
        start: Option<String>,
        end: Option<String>,
        step: Option<String>,
    ) -> anyhow::Result<Self> {
        if start.is_none() && end.is_none() && step.is_none() {
            return Ok(Self::At(time.map(|text| seconds(&text)).transpose()?));
        }
        let Some(step) = step else { bail!("a range needs --step, such as --step 30s") };
        let end = seconds(end.as_deref().unwrap_or("now"))?;
        let start = seconds(start.as_deref().unwrap_or("-1h"))?;
        Ok(Self::Over([start, end, step]))
    }
}

/// A time as Prometheus takes it.
fn seconds(text: &str) -> anyhow::Result<String> {
    Ok(match age(text)? {
        Some(seconds) => format!("{seconds:.3}"),
        None => text.to_owned(),
    })
}

pub async fn query(server: &Server, expr: &str, when: &When, output: Output) -> anyhow::Result<()> {
    let mut form = vec![("query", expr)];
    let path = match when {
        When::At(time) => {
            form.extend(time.as_deref().map(|time| ("time", time)));
            "/prometheus/api/v1/query"
        }
        When::Over([start, end, step]) => {
            form.extend([("start", &**start), ("end", end), ("step", step)]);
            "/prometheus/api/v1/query_range"
        }
    };
    let answer = server.json(server.post(path).form(&form)).await?;
    for note in ["warnings", "infos"] {
        for text in answer[note].as_array().into_iter().flatten() {
            eprintln!("trefoil: {}", text.as_str().unwrap_or_default());
        }
    }
    show(&answer["data"], output, || table(&answer["data"]))
}

/// One row a sample: a column for each label, then time (Unix seconds) and value.
fn table(data: &Value) -> Table {
    if let Some([time, value]) = data["result"].as_array().map(Vec::as_slice)
        && time.is_number()
    {
        let mut table = Table::new(["time", "value"]);
        table.rows.push(vec![time.clone(), number(value)]);
        return table;
    }
    let series: Vec<&Value> = data["result"].as_array().into_iter().flatten().collect();
    let labels: BTreeSet<&str> = series
        .iter()
        .flat_map(|series| series["metric"].as_object().into_iter().flat_map(Map::keys))
        .map(String::as_str)
        .collect();
    let columns = labels.iter().copied().chain(["time", "value"]).map(str::to_owned).collect();
    let mut rows = Vec::new();
    for series in series {
        let one = ["value", "histogram"].iter().filter_map(|key| series.get(*key));
        let many =
            ["values", "histograms"].iter().filter_map(|key| series[*key].as_array()).flatten();
        for sample in one.chain(many) {
            let mut row: Vec<Value> =
                labels.iter().map(|label| series["metric"][label].clone()).collect();
            row.extend([sample[0].clone(), number(&sample[1])]);
            rows.push(row);
        }
    }
    Table { columns, rows }
}

/// Prometheus writes values as text; those that JSON has as numbers become numbers.
fn number(value: &Value) -> Value {
    let parsed = value.as_str().and_then(|text| text.parse::<f64>().ok());
    parsed.and_then(serde_json::Number::from_f64).map_or_else(|| value.clone(), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_result_type_becomes_rows() {
        let vector = json!({"resultType": "vector", "result": [
            {"metric": {"a": "1"}, "value": [4, "2.5"]}, {"metric": {"b": "2"}, "value": [4, "NaN"]}]});
        assert_eq!(table(&vector).csv(), "a,b,time,value\n1,,4,2.5\n,2,4,NaN\n");
        let matrix = json!({"resultType": "matrix", "result": [
            {"metric": {}, "values": [[1, "1"], [2, "2"]]}]});
        assert_eq!(table(&matrix).csv(), "time,value\n1,1.0\n2,2.0\n");
        let scalar = json!({"resultType": "scalar", "result": [4, "2"]});
        assert_eq!(table(&scalar).csv(), "time,value\n4,2.0\n");
        assert_eq!(table(&json!({"resultType": "vector", "result": []})).csv(), "time,value\n");
    }

    #[test]
    fn a_range_needs_a_step() {
        let text = |text: &str| Some(text.to_owned());
        assert!(When::read(None, text("-1h"), None, None).is_err());
        assert!(matches!(When::read(None, None, None, text("30s")).unwrap(), When::Over(_)));
        assert!(
            matches!(When::read(text("4"), None, None, None).unwrap(), When::At(Some(t)) if t == "4")
        );
    }
}
