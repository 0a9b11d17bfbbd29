//! The rows of a trace's waterfall, and its critical path.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use trefoil_api::otlp::{AnyValue, Resource, Scope, Span, TracesData};

/// One span as a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub span: Span,
    pub service: String,
    pub resource: Resource,
    pub scope: Scope,
    /// Steps from the root.
    pub depth: usize,
    /// Spans below it.
    pub descendants: usize,
    /// On the path that decided how long the trace took.
    pub critical: bool,
    /// Its parent is not part of the trace as stored.
    pub orphan: bool,
}

/// A trace laid out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Waterfall {
    /// Parents before children, siblings by start.
    pub rows: Vec<Row>,
    /// Unix ns.
    pub start_ns: u64,
    pub end_ns: u64,
    pub errors: usize,
    /// By name, with their number of spans.
    pub services: Vec<(String, usize)>,
}

impl Waterfall {
    pub fn duration_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }

    /// Left edge and width of a span's bar as shares of the trace.
    pub fn bar(&self, span: &Span) -> (f64, f64) {
        let total = self.duration_ns().max(1) as f64;
        let left = (span.start_time_unix_nano - self.start_ns) as f64 / total;
        (left, (span.duration_ns() as f64 / total).min(1.0 - left))
    }
}

/// So long after its last span's end a trace gets no more spans, ns: exporters hold spans back for seconds.
const QUIET_NS: u64 = 60_000_000_000;

/// The same while a parent is missing: it may be a span that has not ended yet.
const QUIET_ORPHANS_NS: u64 = 600_000_000_000;

/// Whether a trace is as complete as it will be.
pub fn is_settled(data: &TracesData, now_ns: u64) -> bool {
    let spans =
        || data.resource_spans.iter().flat_map(|group| &group.scope_spans).flat_map(|s| &s.spans);
    let Some(end_ns) = spans().map(|span| span.end_time_unix_nano).max() else { return false };
    let ids: HashSet<&str> = spans().map(|span| span.span_id.as_str()).collect();
    let orphans = spans()
        .any(|span| !span.parent_span_id.is_empty() && !ids.contains(span.parent_span_id.as_str()));
    let quiet_ns = if orphans { QUIET_ORPHANS_NS } else { QUIET_NS };
    now_ns.saturating_sub(end_ns) > quiet_ns
}

/// Lays out a trace. Spans whose parent is missing, or that are their own ancestors, stand as roots.
pub fn layout(data: &TracesData) -> Waterfall {
    let mut spans: Vec<(&Span, &Resource, &Scope)> = Vec::new();
    for group in &data.resource_spans {
        for scope in &group.scope_spans {
            spans.extend(scope.spans.iter().map(|span| (span, &group.resource, &scope.scope)));
        }
    }
    spans.sort_by_key(|(span, ..)| (span.start_time_unix_nano, span.end_time_unix_nano));
    let ids: HashSet<&str> = spans.iter().map(|(span, ..)| span.span_id.as_str()).collect();
    let mut children: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for (i, (span, ..)) in spans.iter().enumerate() {
        let parent = span.parent_span_id.as_str();
        if !parent.is_empty() && parent != span.span_id && ids.contains(parent) {
            children.entry(parent).or_default().push(i);
        } else {
            roots.push(i);
        }
    }
    // Depth first without recursion: traces may be 50,000 deep.
    let mut order: Vec<(usize, usize)> = Vec::with_capacity(spans.len());
    let mut placed: HashSet<usize> = HashSet::new();
    let mut visit = |root: usize, order: &mut Vec<(usize, usize)>| {
        let mut stack = vec![(root, 0)];
        while let Some((i, depth)) = stack.pop() {
            if !placed.insert(i) {
                continue;
            }
            order.push((i, depth));
            if let Some(below) = children.get(spans[i].0.span_id.as_str()) {
                stack.extend(below.iter().rev().map(|child| (*child, depth + 1)));
            }
        }
    };
    for root in &roots {
        visit(*root, &mut order);
    }
    // What is left goes round in circles.
    for i in 0..spans.len() {
        visit(i, &mut order);
    }
    let critical = critical_path(&spans, &children, &roots);
    let mut rows: Vec<Row> = order
        .iter()
        .map(|(i, depth)| {
            let (span, resource, scope) = spans[*i];
            Row {
                span: span.clone(),
                service: service_of(resource),
                resource: resource.clone(),
                scope: scope.clone(),
                depth: *depth,
                descendants: 0,
                critical: critical.contains(i),
                orphan: *depth == 0 && !span.parent_span_id.is_empty(),
            }
        })
        .collect();
    // A row's descendants are the rows after it that stand deeper: known when the first that does not is met.
    let mut open: Vec<usize> = Vec::new();
    for at in 0..=rows.len() {
        let depth = rows.get(at).map_or(0, |row| row.depth);
        while let Some(above) = open.pop_if(|above| rows[*above].depth >= depth) {
            rows[above].descendants = at - above - 1;
        }
        open.push(at);
    }
    let start_ns = spans.iter().map(|(s, ..)| s.start_time_unix_nano).min().unwrap_or(0);
    let end_ns = spans
        .iter()
        .map(|(s, ..)| s.end_time_unix_nano.max(s.start_time_unix_nano))
        .max()
        .unwrap_or(start_ns);
    let mut services: BTreeMap<String, usize> = BTreeMap::new();
    for row in &rows {
        *services.entry(row.service.clone()).or_default() += 1;
    }
    Waterfall {
        errors: rows.iter().filter(|row| row.span.is_error()).count(),
        rows,
        start_ns,
        end_ns,
        services: services.into_iter().collect(),
    }
}

/// From the longest root down, going back in time: the child that ended last before the point reached so far is what
/// its parent waited for.
fn critical_path(
    spans: &[(&Span, &Resource, &Scope)],
    children: &HashMap<&str, Vec<usize>>,
    roots: &[usize],
) -> BTreeSet<usize> {
    let mut path = BTreeSet::new();
    let Some(root) = roots.iter().max_by_key(|i| spans[**i].0.duration_ns()) else { return path };
    let mut stack = vec![(*root, spans[*root].0.end_time_unix_nano)];
    while let Some((i, until)) = stack.pop() {
        if !path.insert(i) {
            continue;
        }
        let span = spans[i].0;
        let mut until = until.min(span.end_time_unix_nano);
        let mut below: Vec<usize> =
            children.get(span.span_id.as_str()).cloned().unwrap_or_default();
        below.sort_by_key(|child| std::cmp::Reverse(spans[*child].0.end_time_unix_nano));
        for child in below {
            let inner = spans[child].0;
            if inner.end_time_unix_nano <= until && inner.start_time_unix_nano < until {
                stack.push((child, until));
                until = inner.start_time_unix_nano;
            }
        }
    }
    path
}

/// `service.name` of a resource.
pub fn service_of(resource: &Resource) -> String {
    resource
        .attributes
        .iter()
        .find(|pair| pair.key == "service.name")
        .and_then(|pair| match &pair.value {
            AnyValue::Str(name) if !name.is_empty() => Some(name.clone()),
            _ => None,
        })
        .unwrap_or_else(|| "unknown_service".to_owned())
}

/// Place of the row above `at` that is its parent.
pub fn parent(rows: &[Row], at: usize) -> Option<usize> {
    rows[..at].iter().rposition(|row| row.depth < rows[at].depth)
}

/// The rows that show when some are folded: a folded row hides what stands below it.
pub fn visible(rows: &[Row], folded: &HashSet<String>) -> Vec<usize> {
    let mut shown = Vec::with_capacity(rows.len());
    let mut at = 0;
    while at < rows.len() {
        shown.push(at);
        at += if folded.contains(&rows[at].span.span_id) { rows[at].descendants + 1 } else { 1 };
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_api::otlp::{ResourceSpans, ScopeSpans};

    fn span(id: &str, parent: &str, start: u64, end: u64) -> Span {
        Span {
            span_id: id.into(),
            parent_span_id: parent.into(),
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            ..Span::default()
        }
    }

    fn trace(spans: Vec<Span>) -> TracesData {
        let scope = ScopeSpans { spans, ..ScopeSpans::default() };
        TracesData {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![scope],
                ..ResourceSpans::default()
            }],
        }
    }

    #[test]
    fn children_follow_their_parents_and_orphans_stand_alone() {
        let laid = layout(&trace(vec![
            span("c", "b", 3, 5),
            span("a", "", 0, 10),
            span("o", "gone", 4, 6),
            span("b", "a", 2, 8),
        ]));
        let seen: Vec<(&str, usize, usize)> = laid
            .rows
            .iter()
            .map(|row| (row.span.span_id.as_str(), row.depth, row.descendants))
            .collect();
        assert_eq!(seen, [("a", 0, 2), ("b", 1, 1), ("c", 2, 0), ("o", 0, 0)]);
        assert!(laid.rows[3].orphan);
        assert_eq!((laid.start_ns, laid.end_ns), (0, 10));
    }

    #[test]
    fn the_critical_path_is_what_the_root_waited_for() {
        let laid = layout(&trace(vec![
            span("root", "", 0, 100),
            span("early", "root", 5, 20),
            span("slow", "root", 30, 95),
            span("beside", "root", 35, 60),
            span("inner", "slow", 40, 90),
        ]));
        let critical: Vec<&str> = laid
            .rows
            .iter()
            .filter(|row| row.critical)
            .map(|row| row.span.span_id.as_str())
            .collect();
        assert_eq!(critical, ["root", "early", "slow", "inner"]);
    }

    #[test]
    fn cycles_own_parents_and_deep_chains_end() {
        let laid =
            layout(&trace(vec![span("x", "y", 0, 1), span("y", "x", 0, 1), span("z", "z", 0, 1)]));
        assert_eq!(laid.rows.len(), 3);
        let deep: Vec<Span> = (0..50_000u64)
            .map(|i| span(&i.to_string(), &(i.wrapping_sub(1)).to_string(), i, i + 1))
            .collect();
        assert_eq!(layout(&trace(deep)).rows.len(), 50_000);
    }

    #[test]
    fn a_trace_is_settled_some_time_after_its_last_span() {
        let whole = trace(vec![span("a", "", 0, 10), span("b", "a", 1, 5)]);
        assert!(!is_settled(&whole, 10 + QUIET_NS));
        assert!(is_settled(&whole, 11 + QUIET_NS));
        let part = trace(vec![span("b", "a", 1, 5)]);
        assert!(!is_settled(&part, 6 + QUIET_NS));
        assert!(is_settled(&part, 6 + QUIET_ORPHANS_NS));
        assert!(!is_settled(&trace(Vec::new()), u64::MAX), "spans are still to come");
    }

    #[test]
    fn a_row_knows_the_row_it_stands_below() {
        let laid = layout(&trace(vec![
            span("a", "", 0, 10),
            span("b", "a", 1, 5),
            span("c", "b", 2, 3),
            span("d", "a", 6, 7),
        ]));
        let parents: Vec<Option<usize>> = (0..4).map(|at| parent(&laid.rows, at)).collect();
        assert_eq!(parents, [None, Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn folding_hides_what_stands_below() {
        let laid = layout(&trace(vec![
            span("a", "", 0, 10),
            span("b", "a", 1, 5),
            span("c", "b", 2, 3),
            span("d", "a", 6, 7),
        ]));
        let folded = HashSet::from(["b".to_owned()]);
        assert_eq!(visible(&laid.rows, &folded), [0, 1, 3]);
    }
}
