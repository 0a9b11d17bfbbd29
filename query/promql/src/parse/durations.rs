//! Duration arithmetic, evaluated when the range and step of the query are known.

use crate::parse::ast::{BinaryOp, DurationExpr, DurationValue};

/// Milliseconds of a duration.
///
/// * `step_ms`, `range_ms`: of the query; both 0 for an instant query.
/// * `negative`: whether a duration of zero or below is allowed.
///
/// # Errors
/// With the position, for results that are no durations.
pub(crate) fn resolve(
    value: &DurationValue,
    step_ms: i64,
    range_ms: i64,
    negative: bool,
) -> Result<i64, String> {
    let expr = match value {
        DurationValue::Ms(ms) => return Ok(*ms),
        DurationValue::Expr(expr) => expr,
    };
    let context = (step_ms as f64 / 1000.0, range_ms as f64 / 1000.0);
    let seconds = evaluate(expr, context)?;
    let fail = |message: &str| Err(positioned(expr, message));
    if !seconds.is_finite() {
        return fail("duration is NaN or infinite");
    }
    if seconds <= 0.0 && !negative {
        return fail("duration must be greater than 0");
    }
    if seconds.abs() > (1u64 << 63) as f64 / 1e9 {
        return fail("duration is out of range");
    }
    Ok((seconds * 1000.0) as i64)
}

fn positioned(expr: &DurationExpr, message: &str) -> String {
    let span = expr.span();
    format!("{}:{}: {message}", span.start, span.end)
}

fn evaluate(expr: &DurationExpr, context: (f64, f64)) -> Result<f64, String> {
    Ok(match expr {
        DurationExpr::Number(n) => n.value,
        DurationExpr::Step(_) => context.0,
        DurationExpr::Range(_) => context.1,
        DurationExpr::Of { max, args, .. } => {
            let (a, b) = (evaluate(&args.0, context)?, evaluate(&args.1, context)?);
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else if *max {
                a.max(b)
            } else {
                a.min(b)
            }
        }
        DurationExpr::Negate(e, _) => -evaluate(e, context)?,
        DurationExpr::Paren(e, _) => evaluate(e, context)?,
        DurationExpr::Binary { op, args } => {
            let (a, b) = (evaluate(&args.0, context)?, evaluate(&args.1, context)?);
            match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a * b,
                BinaryOp::Div if b == 0.0 => return Err(positioned(expr, "division by zero")),
                BinaryOp::Div => a / b,
                BinaryOp::Mod if b == 0.0 => return Err(positioned(expr, "modulo by zero")),
                BinaryOp::Mod => a % b,
                _ => a.powf(b),
            }
        }
    })
}
