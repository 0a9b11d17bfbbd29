//! `label_replace` and `label_join`: they change labels and leave values alone.

use crate::engine::eval::{Evaluator, Result};
use crate::engine::value::{Evaluated, Steps};
use crate::labels::{METRIC_NAME, is_label_name};
use crate::parse::{Call, Expr};
use crate::regexp::compile_captures;

/// A string argument; the checker has seen that it is one.
pub(crate) fn text_argument(call: &Call, i: usize) -> &str {
    match call.args[i].unparenthesized() {
        Expr::String(s) => &s.value,
        _ => "",
    }
}

impl Evaluator<'_> {
    pub(crate) fn label_replace(&self, call: &Call, steps: &Steps) -> Result<Evaluated> {
        let text = |i| text_argument(call, i);
        let (target, replacement, source, pattern) = (text(1), text(2), text(3), text(4));
        let Ok(regex) = compile_captures(pattern) else {
            return self.fail(format!("invalid regular expression in label_replace(): {pattern}"));
        };
        if !is_label_name(target) {
            return self
                .fail(format!("invalid destination label name in label_replace(): {target}"));
        }
        self.change_label(call, steps, target, |labels| {
            let captures = regex.captures(labels.get(source).unwrap_or(""))?;
            let mut value = String::new();
            captures.expand(replacement, &mut value);
            Some(value)
        })
    }

    pub(crate) fn label_join(&self, call: &Call, steps: &Steps) -> Result<Evaluated> {
        let text = |i| text_argument(call, i);
        let (target, separator) = (text(1), text(2));
        let sources: Vec<&str> = (3..call.args.len()).map(text).collect();
        if let Some(source) = sources.iter().find(|s| !is_label_name(s)) {
            return self.fail(format!("invalid source label name in label_join(): {source}"));
        }
        if !is_label_name(target) {
            return self.fail(format!("invalid destination label name in label_join(): {target}"));
        }
        self.change_label(call, steps, target, |labels| {
            let values: Vec<&str> = sources.iter().map(|s| labels.get(s).unwrap_or("")).collect();
            Some(values.join(separator))
        })
    }

    fn change_label(
        &self,
        call: &Call,
        steps: &Steps,
        target: &str,
        value: impl Fn(&crate::Labels) -> Option<String>,
    ) -> Result<Evaluated> {
        let mut vector = self.eval_vector(&call.args[0], steps)?;
        let mut series = std::mem::take(&mut vector.series);
        for (i, s) in series.iter_mut().enumerate() {
            // Some patterns take milliseconds a label.
            if i % 16 == 0 {
                self.budget.check()?;
            }
            if let Some(value) = value(&s.labels) {
                let mut labels = s.labels.to_builder();
                labels.set(target, value);
                s.labels = labels.build();
                if target == METRIC_NAME {
                    s.drop_name = false;
                }
            }
        }
        Ok(Evaluated::Vector(vector.with_series(self.merge_same_labels(series)?)))
    }
}
