//! Matchers that were tried on values beforehand.

use super::select::LabelMatcher;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A matcher with its verdict on values that were tried beforehand.
pub(super) struct Tried<'a> {
    matcher: &'a dyn LabelMatcher,
    verdicts: FxHashMap<Arc<str>, bool>,
}

impl<'a> Tried<'a> {
    pub(super) fn new(matcher: &'a dyn LabelMatcher, values: Vec<Arc<str>>) -> Self {
        let verdict = |value: Arc<str>| {
            let passes = matcher.matches(&value);
            (value, passes)
        };
        Self { matcher, verdicts: values.into_iter().map(verdict).collect() }
    }
}

impl LabelMatcher for Tried<'_> {
    fn name(&self) -> &str {
        self.matcher.name()
    }

    fn matches(&self, value: &str) -> bool {
        let known = self.verdicts.get(value).copied();
        // A value that came since then, or one of a few.
        known.unwrap_or_else(|| self.matcher.matches(value))
    }

    fn literals(&self) -> Option<&[String]> {
        self.matcher.literals()
    }

    fn text(&self) -> String {
        self.matcher.text()
    }
}
