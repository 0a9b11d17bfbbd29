//! Label matchers: `=`, `!=`, `=~`, `!~`.

use std::fmt;
use std::sync::Arc;

use crate::labels::{Labels, is_plain_label_name};
use crate::regexp::{Regexp, RegexpError};
use crate::text::quote;

/// The operator of a matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as it is written in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// One condition on one label. A label that a series does not have counts as the empty string.
///
/// For an inverted index: [`literals`](Self::literals) and [`prefix`](Self::prefix) tell when the
/// matching values can be looked up instead of tried one by one, and
/// [`matches_empty`](Self::matches_empty) whether series without the label match too.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: Arc<str>,
    op: MatchOp,
    value: Arc<str>,
    regexp: Option<Arc<Regexp>>,
}

impl Matcher {
    /// Builds a matcher.
    ///
    /// # Errors
    /// For a regular expression that is invalid, or too large when compiled.
    pub fn new(
        op: MatchOp,
        name: impl Into<Arc<str>>,
        value: impl Into<Arc<str>>,
    ) -> Result<Self, RegexpError> {
        let (name, value) = (name.into(), value.into());
        let regexp = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(Regexp::new(&value)?)),
            _ => None,
        };
        Ok(Matcher { name, op, value, regexp })
    }

    /// The matcher `name="value"`.
    pub fn equal(name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Matcher { name: name.into(), op: MatchOp::Equal, value: value.into(), regexp: None }
    }

    /// The label name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operator.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The right-hand side as written: a value or the source of a regular expression.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label value passes.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regexp) {
            (MatchOp::Equal, _) => *self.value == *value,
            (MatchOp::NotEqual, _) => *self.value != *value,
            (MatchOp::Regex, Some(r)) => r.is_match(value),
            (MatchOp::NotRegex, Some(r)) => !r.is_match(value),
            // `new` compiles every regular expression.
            (MatchOp::Regex | MatchOp::NotRegex, None) => false,
        }
    }

    /// Whether the label set passes.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or(""))
    }

    /// Whether the empty value, and so a missing label, passes.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Whether the operator is a negated one (`!=` or `!~`).
    pub fn is_negative(&self) -> bool {
        matches!(self.op, MatchOp::NotEqual | MatchOp::NotRegex)
    }

    /// The values compared with, if the condition (before a negation) is exactly "one of these":
    /// `a="x"`, `a!="x"`, `a=~"x|y"`, `a!~"x|y"`. May hold the empty string.
    pub fn literals(&self) -> Option<&[String]> {
        match &self.regexp {
            Some(r) => r.literals(),
            None => None,
        }
    }

    /// For `=` and `!=` the value itself; otherwise see [`literals`](Self::literals).
    pub fn literal(&self) -> Option<&str> {
        match self.op {
            MatchOp::Equal | MatchOp::NotEqual => Some(&self.value),
            _ => None,
        }
    }

    /// A prefix that every value passing the condition (before a negation) starts with; may be
    /// empty. Values with the prefix still have to be checked with [`matches`](Self::matches).
    pub fn prefix(&self) -> &str {
        match &self.regexp {
            Some(r) => r.prefix(),
            None => &self.value,
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.name, self.op, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_plain_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            f.write_str(&quote(&self.name))?;
        }
        write!(f, "{}{}", self.op.as_str(), quote(&self.value))
    }
}

/// Whether a label set passes all matchers.
pub fn matches_all(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|m| m.matches_labels(labels))
}
