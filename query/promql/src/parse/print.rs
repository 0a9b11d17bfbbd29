//! Tree to text: on one line (`Display`), or broken into lines (`prettify`), as Prometheus writes it.

use std::fmt;

use crate::labels::METRIC_NAME;
use crate::matcher::MatchOp;
use crate::parse::ast::*;
use crate::parse::literal::format_duration;
use crate::text::{format_plain, format_short, quote, quote_bytes};

/// Lines longer than this are broken.
const LINE_MAX: usize = 100;

/// Writes a query with line breaks and indentation.
pub fn prettify(expr: &Expr) -> String {
    pretty(expr, 0)
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Number(n) => write!(f, "{n}"),
            Expr::String(s) => f.write_str(&quote_bytes(&s.bytes)),
            Expr::Vector(v) => write!(f, "{v}"),
            Expr::Matrix(m) => write!(f, "{m}"),
            Expr::Subquery(s) => write!(f, "{}{}", s.expr, subquery_suffix(s)),
            Expr::Call(c) => {
                write!(f, "{}(", c.function.name)?;
                for (i, arg) in c.args.iter().enumerate() {
                    write!(f, "{}{arg}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Expr::Aggregate(a) => {
                write!(f, "{}(", aggregate_head(a))?;
                if let Some(param) = &a.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", a.expr)
            }
            Expr::Binary(b) => write!(f, "{} {} {}", b.left, operator(b), b.right),
            Expr::Unary(u) => write!(f, "{}{}", if u.negative { "-" } else { "+" }, u.expr),
            Expr::Paren(p) => write!(f, "({})", p.expr),
        }
    }
}

impl fmt::Display for NumberLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_duration {
            f.write_str(&format_duration((self.value * 1000.0) as i64))
        } else {
            f.write_str(&format_plain(self.value))
        }
    }
}

impl fmt::Display for DurationValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurationValue::Ms(ms) => f.write_str(&format_duration(*ms)),
            DurationValue::Expr(e) => write!(f, "{e}"),
        }
    }
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurationExpr::Number(n) => write!(f, "{n}"),
            DurationExpr::Step(_) => f.write_str("step()"),
            DurationExpr::Range(_) => f.write_str("range()"),
            DurationExpr::Of { max, args, .. } => {
                write!(f, "{}({}, {})", if *max { "max_of" } else { "min_of" }, args.0, args.1)
            }
            DurationExpr::Negate(e, _) => write!(f, "-{e}"),
            DurationExpr::Paren(e, _) => write!(f, "({e})"),
            DurationExpr::Binary { op, args } => {
                write!(f, "{} {} {}", args.0, op.as_str(), args.1)
            }
        }
    }
}

impl fmt::Display for VectorSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", selector_head(self), at_suffix(&self.timing), extend_suffix(self))?;
        f.write_str(&offset_suffix(&self.timing))
    }
}

impl fmt::Display for MatrixSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.selector;
        write!(f, "{}[{}]{}", selector_head(v), self.range, extend_suffix(v))?;
        write!(f, "{}{}", at_suffix(&v.timing), offset_suffix(&v.timing))
    }
}

fn selector_head(v: &VectorSelector) -> String {
    let mut out = v.name.clone().unwrap_or_default();
    let is_name = |m: &crate::Matcher| {
        m.name() == METRIC_NAME
            && m.op() == MatchOp::Equal
            && !m.value().is_empty()
            && v.name.as_deref() == Some(m.value())
    };
    let mut matchers: Vec<String> =
        v.matchers.iter().filter(|m| !is_name(m)).map(ToString::to_string).collect();
    matchers.sort();
    if !matchers.is_empty() {
        out.push_str(&format!("{{{}}}", matchers.join(",")));
    }
    out
}

fn extend_suffix(v: &VectorSelector) -> &'static str {
    match v.extend {
        Extend::No => "",
        Extend::Anchored => " anchored",
        Extend::Smoothed => " smoothed",
    }
}

fn at_suffix(timing: &Timing) -> String {
    match timing.at {
        None => String::new(),
        Some(At::Time(ms)) => format!(" @ {:.3}", ms as f64 / 1000.0),
        Some(At::Start) => " @ start()".to_owned(),
        Some(At::End) => " @ end()".to_owned(),
    }
}

fn offset_suffix(timing: &Timing) -> String {
    if timing.has_offset() { format!(" offset {}", timing.offset) } else { String::new() }
}

fn subquery_suffix(s: &Subquery) -> String {
    let step = s.step.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("[{}:{step}]{}{}", s.range, at_suffix(&s.timing), offset_suffix(&s.timing))
}

fn labels(list: &[String]) -> String {
    let quoted: Vec<String> = list
        .iter()
        .map(|l| if crate::labels::is_plain_label_name(l) { l.clone() } else { quote(l) })
        .collect();
    quoted.join(", ")
}

fn aggregate_head(a: &Aggregate) -> String {
    let name = a.op.name();
    if a.without {
        format!("{name} without ({}) ", labels(&a.grouping))
    } else if a.grouping.is_empty() {
        name.to_owned()
    } else {
        format!("{name} by ({}) ", labels(&a.grouping))
    }
}

/// The operator with `bool` and the matching clauses.
fn operator(b: &Binary) -> String {
    let mut out = b.op.as_str().to_owned();
    if b.returns_bool {
        out.push_str(" bool");
    }
    let scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
    let Some(m) = &b.matching else { return out };
    if scalar(&b.left) || scalar(&b.right) {
        return out;
    }
    let group = match m.cardinality {
        Cardinality::ManyToOne => Some("left"),
        Cardinality::OneToMany => Some("right"),
        _ => None,
    };
    if !m.labels.is_empty() || m.on || group.is_some() {
        let word = if m.on { "on" } else { "ignoring" };
        out.push_str(&format!(" {word} ({})", labels(&m.labels)));
    }
    if let Some(side) = group {
        out.push_str(&format!(" group_{side} ({})", labels(&m.include)));
    }
    match (m.fill_left, m.fill_right) {
        (Some(a), Some(b)) if a == b => out.push_str(&format!(" fill ({})", format_short(a))),
        (left, right) => {
            if let Some(v) = left {
                out.push_str(&format!(" fill_left ({})", format_short(v)));
            }
            if let Some(v) = right {
                out.push_str(&format!(" fill_right ({})", format_short(v)));
            }
        }
    }
    out
}

fn pretty(expr: &Expr, level: usize) -> String {
    let indent = "  ".repeat(level);
    let line = expr.to_string();
    if line.len() <= LINE_MAX {
        return format!("{indent}{line}");
    }
    match expr {
        Expr::Aggregate(a) => {
            let mut out = format!("{indent}{}(\n", aggregate_head(a));
            if let Some(param) = &a.param {
                out.push_str(&format!("{},\n", pretty(param, level + 1)));
            }
            out.push_str(&format!("{}\n{indent})", pretty(&a.expr, level + 1)));
            out
        }
        Expr::Binary(b) => {
            let (left, right) = (pretty(&b.left, level + 1), pretty(&b.right, level + 1));
            format!("{left}\n{indent}{}\n{right}", operator(b))
        }
        Expr::Call(c) => {
            let args: Vec<String> = c.args.iter().map(|a| pretty(a, level + 1)).collect();
            format!("{indent}{}(\n{}\n{indent})", c.function.name, args.join(",\n"))
        }
        Expr::Paren(p) => format!("{indent}(\n{}\n{indent})", pretty(&p.expr, level + 1)),
        Expr::Subquery(s) => format!("{}{}", pretty(&s.expr, level), subquery_suffix(s)),
        Expr::Unary(u) => {
            let child = pretty(&u.expr, level);
            format!("{indent}{}{}", if u.negative { "-" } else { "+" }, child.trim())
        }
        _ => format!("{indent}{line}"),
    }
}
