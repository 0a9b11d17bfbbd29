//! Types of operands and arguments, and rules that the grammar alone does not express.

use crate::labels::METRIC_NAME;
use crate::parse::ast::*;
use crate::parse::{ParseError, Span};

/// Checks a tree.
pub(crate) fn check(expr: &Expr, query: &str) -> Result<(), ParseError> {
    match expr {
        Expr::Number(_) | Expr::String(_) => Ok(()),
        Expr::Vector(v) => check_selector(v, true),
        Expr::Matrix(m) => check_selector(&m.selector, true),
        Expr::Paren(p) => check(&p.expr, query),
        Expr::Unary(u) => {
            check(&u.expr, query)?;
            match u.expr.value_type() {
                ValueType::Scalar | ValueType::Vector => Ok(()),
                other => fail(
                    u.span,
                    format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got \"{}\"",
                        other.documented()
                    ),
                ),
            }
        }
        Expr::Subquery(s) => {
            check(&s.expr, query)?;
            match s.expr.value_type() {
                ValueType::Vector => Ok(()),
                other => fail(
                    s.span,
                    format!(
                        "subquery is only allowed on instant vector, got {} instead",
                        other.name()
                    ),
                ),
            }
        }
        Expr::Aggregate(a) => check_aggregate(a, query),
        Expr::Call(c) => check_call(c, query),
        Expr::Binary(b) => check_binary(b, expr.span(), query),
    }
}

fn fail(span: Span, message: impl Into<String>) -> Result<(), ParseError> {
    Err(ParseError::new(span, message))
}

fn check_selector(v: &VectorSelector, needs_condition: bool) -> Result<(), ParseError> {
    if let Some(name) = &v.name {
        let inside = &v.matchers[..v.matchers.len() - 1];
        if let Some(other) = inside.iter().find(|m| m.name() == METRIC_NAME) {
            let (a, b) = (crate::text::quote(name), crate::text::quote(other.value()));
            return fail(v.span, format!("metric name must not be set twice: {a} or {b}"));
        }
        return Ok(());
    }
    if needs_condition && v.matchers.iter().all(|m| m.matches_empty()) {
        return fail(v.span, "vector selector must contain at least one non-empty matcher");
    }
    Ok(())
}

fn expect(expr: &Expr, want: ValueType, context: &str) -> Result<(), ParseError> {
    let got = expr.value_type();
    if got == want {
        return Ok(());
    }
    let message =
        format!("expected type {} in {context}, got {}", want.documented(), got.documented());
    fail(expr.span(), message)
}

fn check_aggregate(a: &Aggregate, query: &str) -> Result<(), ParseError> {
    check(&a.expr, query)?;
    expect(&a.expr, ValueType::Vector, "aggregation expression")?;
    if let Some(param) = &a.param {
        check(param, query)?;
        let want = match a.op {
            AggregateOp::CountValues => ValueType::String,
            _ => ValueType::Scalar,
        };
        expect(param, want, "aggregation parameter")?;
    }
    Ok(())
}

fn check_call(c: &Call, query: &str) -> Result<(), ParseError> {
    let f = c.function;
    let (name, given, declared) = (crate::text::quote(f.name), c.args.len(), f.args.len());
    if f.variadic == 0 {
        if given != declared {
            let message = format!("expected {declared} argument(s) in call to {name}, got {given}");
            return fail(c.span, message);
        }
    } else {
        let min = declared - 1;
        let max = min + f.variadic.max(0) as usize;
        if given < min {
            let message =
                format!("expected at least {min} argument(s) in call to {name}, got {given}");
            return fail(c.span, message);
        }
        if f.variadic > 0 && given > max {
            let message =
                format!("expected at most {max} argument(s) in call to {name}, got {given}");
            return fail(c.span, message);
        }
    }
    let is_info = f.name == "info";
    for (i, arg) in c.args.iter().enumerate() {
        if is_info && i == 1 {
            expect(arg, ValueType::Vector, &format!("call to function {name}"))?;
            match arg {
                Expr::Vector(v) if v.name.is_some() => {
                    let message = "expected label selectors only, got vector selector instead";
                    return fail(arg.span(), message);
                }
                Expr::Vector(v) => check_selector(v, false)?,
                _ => return fail(arg.span(), "expected label selectors only"),
            }
            continue;
        }
        check(arg, query)?;
        let want = f.args[i.min(declared - 1)];
        let got = arg.value_type();
        if got != want {
            let message = format!(
                "expected type {} in call to function {name}, got {}",
                want.documented(),
                got.documented()
            );
            return fail(arg.span(), message);
        }
    }
    Ok(())
}

/// The operator itself with its modifiers: what stands between the operands.
fn operator_span(b: &Binary, query: &str) -> Span {
    let (start, end) = (b.left.span().end, b.right.span().start);
    let between = &query[start.min(end)..end];
    let lead = between.len() - between.trim_start().len();
    Span { start: start + lead, end: start + between.trim_end().len() }
}

fn check_binary(b: &Binary, span: Span, query: &str) -> Result<(), ParseError> {
    check(&b.left, query)?;
    check(&b.right, query)?;
    let (left, right) = (b.left.value_type(), b.right.value_type());
    let is_scalar = |t| t == ValueType::Scalar;
    if b.returns_bool && !b.op.is_comparison() {
        let message = "bool modifier can only be used on comparison operators";
        return fail(operator_span(b, query), message);
    }
    if b.op.is_comparison() && !b.returns_bool && is_scalar(left) && is_scalar(right) {
        let message = "comparisons between scalars must use BOOL modifier";
        return fail(operator_span(b, query), message);
    }
    for (side, t) in [(&b.left, left), (&b.right, right)] {
        if !matches!(t, ValueType::Scalar | ValueType::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return fail(side.span(), message);
        }
    }
    let Some(m) = &b.matching else { return Ok(()) };
    if m.on
        && let Some(label) = m.labels.iter().find(|l| m.include.contains(l))
    {
        let label = crate::text::quote(label);
        let message = format!("label {label} must not occur in ON and GROUP clause at once");
        return fail(operator_span(b, query), message);
    }
    let filled = m.fill_left.is_some() || m.fill_right.is_some();
    if is_scalar(left) || is_scalar(right) {
        if !m.labels.is_empty() {
            return fail(span, "vector matching only allowed between instant vectors");
        }
        if filled {
            let message = "filling in missing series only allowed between instant vectors";
            return fail(span, message);
        }
        if b.op.is_set() {
            let op = crate::text::quote(b.op.as_str());
            let message = format!("set operator {op} not allowed in binary scalar expression");
            return fail(span, message);
        }
    } else if b.op.is_set() {
        if m.cardinality != Cardinality::OneToOne {
            let op = crate::text::quote(b.op.as_str());
            return fail(span, format!("no grouping allowed for {op} operation"));
        }
        if filled {
            return fail(span, "filling in missing series not allowed for set operators");
        }
    }
    Ok(())
}
