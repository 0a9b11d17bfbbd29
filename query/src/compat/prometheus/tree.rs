//! The tree of a query as JSON, for `parse_query`.

use serde_json::{Value, json};
use trefoil_promql::Matcher;
use trefoil_promql::parse::{
    At, DurationExpr, DurationValue, Expr, Extend, Matching, Timing, VectorSelector,
};
use trefoil_promql::text::format_plain;

/// The tree of an expression.
pub(super) fn json(expr: &Expr) -> Value {
    match expr {
        Expr::Number(n) => json!({"type": "numberLiteral", "val": format_plain(n.value)}),
        Expr::String(s) => json!({"type": "stringLiteral", "val": s.value}),
        Expr::Paren(p) => json!({"type": "parenExpr", "expr": json(&p.expr)}),
        Expr::Unary(u) => json!({
            "type": "unaryExpr",
            "op": if u.negative { "-" } else { "+" },
            "expr": json(&u.expr),
        }),
        Expr::Vector(v) => selector(v, "vectorSelector"),
        Expr::Matrix(m) => {
            let mut value = selector(&m.selector, "matrixSelector");
            value["range"] = json!(milliseconds(&m.range));
            value["rangeExpr"] = expression(&m.range);
            value
        }
        Expr::Subquery(s) => json!({
            "type": "subquery",
            "expr": json(&s.expr),
            "range": milliseconds(&s.range),
            "rangeExpr": expression(&s.range),
            "offset": milliseconds(&s.timing.offset),
            "offsetExpr": expression(&s.timing.offset),
            "step": s.step.as_ref().map_or(0, milliseconds),
            "stepExpr": s.step.as_ref().map_or(Value::Null, expression),
            "timestamp": timestamp(&s.timing),
            "startOrEnd": start_or_end(&s.timing),
        }),
        Expr::Call(c) => json!({
            "type": "call",
            "func": {
                "name": c.function.name,
                "argTypes": c.function.args.iter().map(|t| t.name()).collect::<Vec<_>>(),
                "variadic": c.function.variadic,
                "returnType": c.function.returns.name(),
            },
            "args": c.args.iter().map(json).collect::<Vec<_>>(),
        }),
        Expr::Aggregate(a) => json!({
            "type": "aggregation",
            "op": a.op.name(),
            "expr": json(&a.expr),
            "param": a.param.as_ref().map(json),
            "grouping": a.grouping,
            "without": a.without,
        }),
        Expr::Binary(b) => json!({
            "type": "binaryExpr",
            "op": b.op.as_str(),
            "lhs": json(&b.left),
            "rhs": json(&b.right),
            "matching": b.matching.as_ref().filter(|_| between_vectors(b)).map(matching),
            "bool": b.returns_bool,
        }),
    }
}

fn between_vectors(b: &trefoil_promql::parse::Binary) -> bool {
    use trefoil_promql::parse::ValueType::Vector;
    b.left.value_type() == Vector && b.right.value_type() == Vector
}

fn matching(m: &Matching) -> Value {
    json!({
        "card": m.cardinality.name(),
        "labels": m.labels,
        "on": m.on,
        "include": m.include,
        "fillValues": {"lhs": m.fill_left, "rhs": m.fill_right},
    })
}

fn selector(v: &VectorSelector, kind: &str) -> Value {
    let matcher =
        |m: &Matcher| json!({"name": m.name(), "value": m.value(), "type": m.op().as_str()});
    json!({
        "type": kind,
        "name": v.name.as_deref().unwrap_or(""),
        "offset": milliseconds(&v.timing.offset),
        "offsetExpr": expression(&v.timing.offset),
        "matchers": v.matchers.iter().map(matcher).collect::<Vec<_>>(),
        "timestamp": timestamp(&v.timing),
        "startOrEnd": start_or_end(&v.timing),
        "anchored": v.extend == Extend::Anchored,
        "smoothed": v.extend == Extend::Smoothed,
    })
}

fn timestamp(timing: &Timing) -> Option<i64> {
    match timing.at {
        Some(At::Time(ms)) => Some(ms),
        _ => None,
    }
}

fn start_or_end(timing: &Timing) -> Option<&'static str> {
    match timing.at {
        Some(At::Start) => Some("start"),
        Some(At::End) => Some("end"),
        _ => None,
    }
}

fn milliseconds(value: &DurationValue) -> i64 {
    match value {
        DurationValue::Ms(ms) => *ms,
        DurationValue::Expr(_) => 0,
    }
}

fn expression(value: &DurationValue) -> Value {
    match value {
        DurationValue::Ms(_) => Value::Null,
        DurationValue::Expr(e) => duration(e, false),
    }
}

fn duration(e: &DurationExpr, wrapped: bool) -> Value {
    let node = |op: &str, lhs: Value, rhs: Value| json!({"type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": wrapped});
    match e {
        DurationExpr::Number(n) => json!({
            "type": "numberLiteral",
            "val": format_plain(n.value),
            "duration": n.is_duration,
        }),
        DurationExpr::Step(_) => node("step", Value::Null, Value::Null),
        DurationExpr::Range(_) => node("range", Value::Null, Value::Null),
        DurationExpr::Of { max, args, .. } => {
            let op = if *max { "max_of" } else { "min_of" };
            node(op, duration(&args.0, false), duration(&args.1, false))
        }
        DurationExpr::Negate(e, _) => node("-", Value::Null, duration(e, false)),
        // A number in parentheses is a sign with nothing on its left.
        DurationExpr::Paren(e, _) if matches!(**e, DurationExpr::Number(_)) => json!({
            "type": "durationExpr",
            "op": "+",
            "lhs": null,
            "rhs": duration(e, false),
            "wrapped": true,
        }),
        DurationExpr::Paren(e, _) => duration(e, true),
        DurationExpr::Binary { op, args } => {
            node(op.as_str(), duration(&args.0, false), duration(&args.1, false))
        }
    }
}
