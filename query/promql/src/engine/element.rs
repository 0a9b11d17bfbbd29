//! Binary operators on single values.

use std::sync::Arc;

use crate::annotations::{HistogramOperation, Note};
use crate::engine::value::Cell;
use crate::histogram::{CounterResetHint, Incompatible, Keep};
use crate::parse::{BinaryOp, Span};
use crate::series::SampleValue;

/// What an operator makes of two values.
pub(crate) struct Element {
    /// The value, or for comparisons the left value; `None` if the operator does not apply.
    pub value: Option<SampleValue>,
    /// Of a comparison: whether it holds. Otherwise true.
    pub keep: bool,
    /// What the user should know.
    pub note: Option<Note>,
}

impl Element {
    fn of(value: SampleValue) -> Self {
        Element { value: Some(value), keep: true, note: None }
    }

    fn refused(note: Note) -> Self {
        Element { value: None, keep: false, note: Some(note) }
    }
}

/// An operator on two numbers; comparisons give 0 or 1.
pub(crate) fn scalars(op: BinaryOp, a: f64, b: f64) -> f64 {
    match arithmetic(op, a, b) {
        Some(v) => v,
        None => f64::from(u8::from(compare(op, a, b))),
    }
}

#[inline]
pub(crate) fn arithmetic(op: BinaryOp, a: f64, b: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        _ => return None,
    })
}

#[inline]
pub(crate) fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Equal => a == b,
        BinaryOp::NotEqual => a != b,
        BinaryOp::Greater => a > b,
        BinaryOp::Less => a < b,
        BinaryOp::GreaterEqual => a >= b,
        BinaryOp::LessEqual => a <= b,
        _ => false,
    }
}

/// An operator, not of sets, on two values of vectors.
pub(crate) fn elements(op: BinaryOp, a: Cell<'_>, b: Cell<'_>, span: Span) -> Element {
    let name = op.as_str();
    let types = |left: &str, right: &str| {
        Element::refused(Note::incompatible_types(left, name, right, span))
    };
    match (a, b) {
        (Cell::Float(x), Cell::Float(y)) => {
            if let Some(v) = arithmetic(op, x, y) {
                return Element::of(SampleValue::Float(v));
            }
            if matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
                return types("float", "float");
            }
            let keep = compare(op, x, y);
            Element { value: Some(SampleValue::Float(x)), keep, note: None }
        }
        (Cell::Float(x), Cell::Histogram(h)) => match op {
            BinaryOp::Mul => scaled(h, |h| h.multiply(x)),
            _ => types("float", "histogram"),
        },
        (Cell::Histogram(h), Cell::Float(x)) => match op {
            BinaryOp::Mul => scaled(h, |h| h.multiply(x)),
            BinaryOp::Div => scaled(h, |h| h.divide(x)),
            BinaryOp::TrimUpper => {
                Element::of(SampleValue::Histogram(Arc::new(h.trim(x, Keep::Below))))
            }
            BinaryOp::TrimLower => {
                Element::of(SampleValue::Histogram(Arc::new(h.trim(x, Keep::Above))))
            }
            _ => types("histogram", "float"),
        },
        (Cell::Histogram(g), Cell::Histogram(h)) => {
            let sum = match op {
                BinaryOp::Add => g.plus(h),
                BinaryOp::Sub => g.minus(h),
                BinaryOp::Equal | BinaryOp::NotEqual => {
                    let keep = g.same_data(h) == (op == BinaryOp::Equal);
                    let value = Some(SampleValue::Histogram(g.clone()));
                    return Element { value, keep, note: None };
                }
                _ => return types("histogram", "histogram"),
            };
            let operation = match op {
                BinaryOp::Add => HistogramOperation::Addition,
                _ => HistogramOperation::Subtraction,
            };
            match sum {
                Err(Incompatible) => Element::refused(Note::incompatible_buckets(name, span)),
                Ok((_, remarks)) if remarks.reset_collision => {
                    Element::refused(Note::reset_collision(operation, span))
                }
                Ok((mut sum, remarks)) => {
                    if op == BinaryOp::Sub {
                        sum.reset_hint = CounterResetHint::Gauge;
                    }
                    let note =
                        remarks.bounds_reconciled.then(|| Note::bounds_reconciled(operation, span));
                    let value = Some(SampleValue::Histogram(Arc::new(sum)));
                    Element { value, keep: true, note }
                }
            }
        }
    }
}

fn scaled(h: &Arc<crate::Histogram>, change: impl FnOnce(&mut crate::Histogram)) -> Element {
    let mut h = (**h).clone();
    change(&mut h);
    h.drop_empty_buckets();
    Element::of(SampleValue::Histogram(Arc::new(h)))
}
