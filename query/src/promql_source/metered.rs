//! A query's budget as the stores ask it while they read.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use trefoil_promql::{Budget, LimitError, MatchOp, Matcher, Series, SourceError};
use trefoil_storage::meter::Meter;
use trefoil_storage::metrics::LabelMatcher;

/// What one read holds; given back when it is dropped.
pub(super) struct Metered<'a> {
    budget: &'a Budget,
    taken: AtomicU64,
}

impl<'a> Metered<'a> {
    pub(super) fn new(budget: &'a Budget) -> Self {
        Self { budget, taken: AtomicU64::new(0) }
    }

    /// Accounts for what the read gave instead of what it held on its way.
    pub(super) fn settle(self, series: &[Series]) -> Result<(), SourceError> {
        let budget = self.budget;
        drop(self);
        budget.take_read(series.iter().map(Series::sample_cost).sum())?;
        Ok(())
    }
}

impl Drop for Metered<'_> {
    fn drop(&mut self) {
        self.budget.give_back(*self.taken.get_mut());
    }
}

impl Meter for Metered<'_> {
    fn check(&self) -> io::Result<()> {
        self.budget.check().map_err(io::Error::other)
    }

    fn series(&self, more: u64) -> io::Result<()> {
        self.budget.take_series(more).map_err(io::Error::other)
    }

    fn samples(&self, more: u64) -> io::Result<()> {
        self.taken.fetch_add(more, Ordering::Relaxed);
        self.budget.take(more).map_err(io::Error::other)
    }
}

/// What went wrong in a store: its own failure, or the budget's refusal on its way back.
pub(super) fn store_error(what: &str, error: io::Error) -> SourceError {
    match error.downcast::<LimitError>() {
        Ok(limit) => SourceError::Limit(limit),
        Err(error) => {
            SourceError::Store { message: what.to_owned(), source: Some(Box::new(error)) }
        }
    }
}

/// A PromQL matcher as the metric store's index asks it. When the query is over, it lets nothing pass any more: a slow
/// pattern over many values must not go on.
pub(super) struct By<'a> {
    matcher: &'a Matcher,
    literals: Option<Vec<String>>,
    budget: &'a Budget,
    asked: Cell<u32>,
    over: Cell<bool>,
}

/// A slow pattern takes milliseconds a value.
const ASKED_PER_CHECK: u32 = 16;

impl<'a> By<'a> {
    /// The matchers of a selector.
    pub(super) fn all(matchers: &'a [Matcher], budget: &'a Budget) -> Vec<By<'a>> {
        matchers.iter().map(|matcher| By::new(matcher, budget)).collect()
    }

    fn new(matcher: &'a Matcher, budget: &'a Budget) -> Self {
        let literals = match matcher.op() {
            MatchOp::Equal => Some(vec![matcher.value().to_owned()]),
            MatchOp::Regex => matcher.literals().map(<[String]>::to_vec),
            MatchOp::NotEqual | MatchOp::NotRegex => None,
        };
        Self { matcher, literals, budget, asked: Cell::new(0), over: Cell::new(false) }
    }
}

impl LabelMatcher for By<'_> {
    fn name(&self) -> &str {
        self.matcher.name()
    }

    fn matches(&self, value: &str) -> bool {
        self.asked.set(self.asked.get().wrapping_add(1));
        if self.asked.get().is_multiple_of(ASKED_PER_CHECK) && self.budget.check().is_err() {
            self.over.set(true);
        }
        !self.over.get() && self.matcher.matches(value)
    }

    fn literals(&self) -> Option<&[String]> {
        self.literals.as_deref()
    }

    fn text(&self) -> String {
        self.matcher.to_string()
    }
}
