//! Query text to a checked tree.
//!
//! The parser is our own, because the one on crates.io fails on about 300 of the 2,178 expressions
//! of Prometheus' suite: it lacks duration arithmetic, extended ranges, histogram trims and fill
//! modifiers, and positions, which annotations need, are not kept. The grammar is small: a lexer
//! with three modes and one function per level of precedence.

mod ast;
mod check;
mod durations;
mod functions;
mod lexer;
mod literal;
mod parser;
mod print;

pub use ast::*;
pub(crate) use durations::resolve;
pub use functions::FUNCTIONS;
pub use literal::{format_duration, parse_duration};
pub use print::prettify;

use crate::matcher::Matcher;

/// Which parts of the language are on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParseOptions {
    /// Functions and aggregators that Prometheus keeps behind a feature flag.
    pub experimental_functions: bool,
    /// Arithmetic on ranges and offsets.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`.
    pub extended_ranges: bool,
    /// `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
}

impl ParseOptions {
    /// Everything on.
    pub const ALL: ParseOptions = ParseOptions {
        experimental_functions: true,
        duration_expressions: true,
        extended_ranges: true,
        fill_modifiers: true,
    };
}

/// What is wrong with a query, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Position.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// `line:column` of the start of the position, both from 1.
    location: String,
}

impl ParseError {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        ParseError { span, message: message.into(), location: String::new() }
    }

    fn located(mut self, query: &str) -> Self {
        self.location = location(query, self.span.start);
        self
    }
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: parse error: {}", self.location, self.message)
    }
}

impl std::error::Error for ParseError {}

/// `line:column` of a byte position, both from 1, as Prometheus counts them (columns in bytes).
pub(crate) fn location(query: &str, position: usize) -> String {
    if position > query.len() {
        return "unknown position".to_owned();
    }
    let before = &query.as_bytes()[..position];
    let line = 1 + before.iter().filter(|b| **b == b'\n').count();
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    format!("{line}:{}", position - line_start + 1)
}

/// Parses and type-checks a query.
///
/// # Errors
/// The first mistake found.
pub fn parse(query: &str, options: ParseOptions) -> Result<Expr, ParseError> {
    let parse = || {
        let expr = parser::Parser::new(query, options).query()?;
        check::check(&expr, query)?;
        Ok(expr)
    };
    parse().map_err(|e: ParseError| e.located(query))
}

/// Parses a series selector such as `a{b="c"}`; `{}` is allowed here.
///
/// # Errors
/// If the text is anything but a selector.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    parser::Parser::new(text, ParseOptions::ALL).selector().map_err(|e| e.located(text))
}

#[cfg(test)]
mod tests;
