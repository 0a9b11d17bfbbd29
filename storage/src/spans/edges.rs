//! Who calls whom: parent and child spans of different services.

use super::batch::STATUS_ERROR;
use super::segment::DictText;
use super::store::SpanSnapshot;
use crate::columnar::arrow_error;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, TimestampNanosecondType};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io;

/// Calls from one service to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub caller: String,
    pub callee: String,
    pub count: u64,
    /// Calls whose span at the callee has status error.
    pub error_count: u64,
}

struct Node {
    trace_id: [u8; 16],
    parent: [u8; 8],
    service: u32,
    error: bool,
}

impl SpanSnapshot {
    /// Edges between services over spans that start in the range, sorted by caller and callee.
    pub fn edges(&self, start_ns: u64, end_ns: u64) -> io::Result<Vec<Edge>> {
        let mut services: Vec<String> = Vec::new();
        let mut codes: FxHashMap<String, u32> = FxHashMap::default();
        let mut code = |name: &str| -> u32 {
            if let Some(code) = codes.get(name) {
                return *code;
            }
            services.push(name.to_owned());
            codes.insert(name.to_owned(), services.len() as u32 - 1);
            services.len() as u32 - 1
        };
        let mut service_of: FxHashMap<([u8; 16], [u8; 8]), u32> = FxHashMap::default();
        let mut children: Vec<Node> = Vec::new();
        let within = |time_ns: u64| time_ns >= start_ns && time_ns <= end_ns;
        for batch in &self.hot {
            let by_resource: Vec<u32> =
                batch.resources.iter().map(|r| code(&r.service_name)).collect();
            for span in batch.rows.iter().filter(|span| within(span.start_ns)) {
                let service = by_resource[span.resource as usize];
                service_of.insert((span.trace_id, span.span_id), service);
                if span.parent_span_id != [0; 8] {
                    children.push(Node {
                        trace_id: span.trace_id,
                        parent: span.parent_span_id,
                        service,
                        error: span.is_error(),
                    });
                }
            }
        }
        const COLUMNS: [&str; 6] =
            ["trace_id", "span_id", "parent_span_id", "start_time", "service_name", "status_code"];
        for segment in &self.segments {
            if segment.meta.min_ns > end_ns || segment.meta.max_ns < start_ns {
                continue;
            }
            for batch in segment.file.read(&COLUMNS, None)? {
                let batch = batch.map_err(arrow_error)?;
                let column = |name: &str| {
                    batch.column_by_name(name).ok_or_else(|| {
                        io::Error::new(io::ErrorKind::InvalidData, "column is missing")
                    })
                };
                let trace_ids = column("trace_id")?.as_fixed_size_binary();
                let span_ids = column("span_id")?.as_fixed_size_binary();
                let parents = column("parent_span_id")?.as_fixed_size_binary();
                let starts = column("start_time")?.as_primitive::<TimestampNanosecondType>();
                let names = DictText::new(column("service_name")?)?;
                let statuses = column("status_code")?.as_primitive::<Int32Type>();
                for row in 0..batch.num_rows() {
                    if !within(starts.value(row) as u64) {
                        continue;
                    }
                    let trace_id: [u8; 16] = trace_ids.value(row).try_into().unwrap_or_default();
                    let service = code(names.get(row));
                    let span_id = span_ids.value(row).try_into().unwrap_or_default();
                    service_of.insert((trace_id, span_id), service);
                    if !parents.is_null(row) {
                        children.push(Node {
                            trace_id,
                            parent: parents.value(row).try_into().unwrap_or_default(),
                            service,
                            error: statuses.value(row) == STATUS_ERROR,
                        });
                    }
                }
            }
        }
        let mut counts: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
        for child in children {
            if let Some(&caller) = service_of.get(&(child.trace_id, child.parent))
                && caller != child.service
            {
                let count = counts.entry((caller, child.service)).or_default();
                count.0 += 1;
                count.1 += u64::from(child.error);
            }
        }
        let mut edges: Vec<Edge> = counts
            .into_iter()
            .map(|((caller, callee), (count, error_count))| Edge {
                caller: services[caller as usize].clone(),
                callee: services[callee as usize].clone(),
                count,
                error_count,
            })
            .collect();
        edges.sort_by(|a, b| (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee)));
        Ok(edges)
    }
}
