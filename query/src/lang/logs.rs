//! The log query language: Lucene-like text to [`LogFilter`].
//!
//! ```text
//! query   = and { "OR" and }
//! and     = unary { [ "AND" ] unary }            words next to each other mean AND
//! unary   = ( "NOT" | "-" ) unary | [ "+" ] primary
//! primary = "(" query ")" | [ field ":" ] value
//! value   = word | word* | "phrase" | * | [a TO b] | {a TO b} | >a | >=a | <a | <=a | "(" query ")"
//! ```
//! Operators are upper case. A bare word, prefix or phrase searches the body, by whole words in any case. `field:value`
//! compares the field's whole text (numbers as numbers), `field:"some words"` the whole text or words next to each
//! other in it, `field:start*` its beginning, `field:*` asks whether it is there. `severity` takes class names:
//! `severity:error`, `severity:>=warn`. A backslash takes the next character as it is.

use std::fmt;
use trefoil_storage::logs::filter::parse_hex;
use trefoil_storage::logs::severity::Class;
use trefoil_storage::logs::tokens;
use trefoil_storage::logs::{Bound, Field, LogFilter};

/// Longest query, bytes.
const LENGTH_MAX: usize = 16 * 1024;

/// Most words, phrases and comparisons in a query.
const TERMS_MAX: usize = 512;

/// Deepest nesting of parentheses and negations.
const DEPTH_MAX: usize = 64;

/// Why a query can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Characters before the fault.
    pub position: usize,
    pub message: String,
    /// What to write instead.
    pub hint: &'static str,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log query, character {}: {}; {}", self.position + 1, self.message, self.hint)
    }
}

impl std::error::Error for ParseError {}

/// Reads a query. An empty one fits every record.
pub fn parse(query: &str) -> Result<LogFilter, ParseError> {
    let mut parser = Parser { text: query, at: 0, terms: 0, depth: 0 };
    if query.len() > LENGTH_MAX {
        return Err(parser.error_at(0, "the query is too long", "keep it under 16 KiB"));
    }
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(LogFilter::All);
    }
    let filter = parser.any(&Field::Body)?;
    if parser.rest().starts_with(')') {
        let hint = "remove it, or quote it to search for it";
        return Err(parser.error_here("`)` without an opening `(`", hint));
    }
    Ok(filter)
}

/// What a word may not contain unless it is escaped.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '"')
}

/// A word as written: escapes removed, and whether a `*` ended it.
struct Word {
    text: String,
    star: bool,
    start: usize,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    terms: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Takes an operator that stands as a word of its own.
    fn take_operator(&mut self, operator: &str) -> bool {
        let after = self.rest().strip_prefix(operator);
        let whole = after.is_some_and(|after| after.chars().next().is_none_or(ends_word));
        if whole {
            self.at += operator.len();
            self.skip_space();
        }
        whole
    }

    fn error_at(&self, at: usize, message: impl Into<String>, hint: &'static str) -> ParseError {
        ParseError { position: self.text[..at].chars().count(), message: message.into(), hint }
    }

    fn error_here(&self, message: impl Into<String>, hint: &'static str) -> ParseError {
        self.error_at(self.at, message, hint)
    }

    fn enter(&mut self) -> Result<(), ParseError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error_here("the query nests too deep", "use fewer parentheses"));
        }
        Ok(())
    }

    fn any(&mut self, field: &Field) -> Result<LogFilter, ParseError> {
        self.enter()?;
        let mut filters = vec![self.all(field)?];
        while self.take_operator("OR") {
            filters.push(self.all(field)?);
        }
        self.depth -= 1;
        Ok(if filters.len() == 1 { filters.remove(0) } else { LogFilter::Or(filters) })
    }

    fn all(&mut self, field: &Field) -> Result<LogFilter, ParseError> {
        let mut filters = vec![self.unary(field)?];
        loop {
            self.skip_space();
            let operator = self.take_operator("AND");
            if !operator && (self.rest().is_empty() || self.rest().starts_with(')') || self.at_or())
            {
                return Ok(LogFilter::and(filters));
            }
            filters.push(self.unary(field)?);
        }
    }

    fn at_or(&self) -> bool {
        let after = self.rest().strip_prefix("OR");
        after.is_some_and(|after| after.chars().next().is_none_or(ends_word))
    }

    fn unary(&mut self, field: &Field) -> Result<LogFilter, ParseError> {
        self.skip_space();
        if self.take_operator("NOT") || self.take("-") {
            self.enter()?;
            let inner = self.unary(field)?;
            self.depth -= 1;
            return Ok(LogFilter::Not(Box::new(inner)));
        }
        self.take("+");
        self.primary(field)
    }

    fn primary(&mut self, field: &Field) -> Result<LogFilter, ParseError> {
        let Some(c) = self.peek() else {
            return Err(self.error_here("something to search for is missing", "add a word"));
        };
        for operator in ["AND", "OR", "NOT"] {
            let start = self.at;
            if self.take_operator(operator) {
                let message = format!("`{operator}` stands where a word should");
                return Err(self.error_at(
                    start,
                    message,
                    "quote it to search for the word itself",
                ));
            }
        }
        match c {
            '(' => self.parenthesis(field),
            ')' => Err(self.error_here("nothing before `)`", "put a word between the parentheses")),
            _ if *field != Field::Body => self.value(field),
            '"' => self.value(field),
            _ => {
                let word = self.word(true)?;
                if !word.star && !word.text.is_empty() && self.take(":") {
                    return self.value(&Field::named(&word.text));
                }
                self.word_value(field, word)
            }
        }
    }

    fn parenthesis(&mut self, field: &Field) -> Result<LogFilter, ParseError> {
        let start = self.at;
        self.take("(");
        let inner = self.any(field)?;
        self.skip_space();
        if self.take(")") {
            Ok(inner)
        } else {
            Err(self.error_at(start, "`(` is not closed", "add `)`"))
        }
    }

    /// What follows `field:`.
    fn value(&mut self, field: &Field) -> Result<LogFilter, ParseError> {
        match self.peek() {
            None => Err(self.error_here("a value is missing after `:`", "write `field:value`")),
            Some(c) if c.is_whitespace() || c == ')' => {
                Err(self.error_here("a value is missing after `:`", "no space after the colon"))
            }
            Some('(') => self.parenthesis(field),
            Some('"') => {
                let start = self.at;
                let text = self.quoted()?;
                self.count_term(start)?;
                self.phrase(field, &text, start)
            }
            Some('[' | '{') => self.range(field),
            Some('>' | '<') => self.comparison(field),
            Some(_) => {
                let word = self.word(false)?;
                self.word_value(field, word)
            }
        }
    }

    fn count_term(&mut self, start: usize) -> Result<(), ParseError> {
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(self.error_at(start, "the query has too many terms", "use at most 512"));
        }
        Ok(())
    }

    /// Reads a word; with `field` it ends at a colon, so that it may be a field name.
    fn word(&mut self, field: bool) -> Result<Word, ParseError> {
        let start = self.at;
        let mut word = Word { text: String::new(), star: false, start };
        while let Some(c) = self.peek() {
            if ends_word(c) || (field && c == ':') {
                break;
            }
            if word.star {
                let hint = "a `*` may only end a word: `pay*`";
                return Err(self.error_at(self.at - 1, "`*` inside a word", hint));
            }
            self.at += c.len_utf8();
            match c {
                '*' => word.star = true,
                '\\' => match self.peek() {
                    Some(escaped) => {
                        self.at += escaped.len_utf8();
                        word.text.push(escaped);
                    }
                    None => {
                        let hint = "write `\\\\` for a backslash";
                        return Err(self.error_at(start, "nothing after `\\`", hint));
                    }
                },
                _ => word.text.push(c),
            }
        }
        self.count_term(start)?;
        Ok(word)
    }

    fn word_value(&self, field: &Field, word: Word) -> Result<LogFilter, ParseError> {
        let field = field.clone();
        if word.star {
            return Ok(match (word.text.is_empty(), &field) {
                (true, Field::Body) => LogFilter::All,
                (true, _) => LogFilter::Exists(field),
                (false, Field::Body) => {
                    self.check_words(&word.text, word.start)?;
                    LogFilter::prefix(field, &word.text)
                }
                (false, Field::TraceId | Field::SpanId) => {
                    LogFilter::prefix(field, &word.text.to_ascii_lowercase())
                }
                (false, _) => LogFilter::prefix(field, &word.text),
            });
        }
        self.whole(field, &word.text, word.start)
    }

    /// `field:value` with the value as a whole.
    fn whole(&self, field: Field, text: &str, start: usize) -> Result<LogFilter, ParseError> {
        match field {
            Field::Body => self.check_words(text, start)?,
            Field::TraceId if parse_hex::<16>(text).is_none() => {
                let hint = "a trace id is 32 hex digits";
                return Err(self.error_at(start, format!("`{text}` is no trace id"), hint));
            }
            Field::SpanId if parse_hex::<8>(text).is_none() => {
                let hint = "a span id is 16 hex digits";
                return Err(self.error_at(start, format!("`{text}` is no span id"), hint));
            }
            _ => {}
        }
        Ok(LogFilter::equals(field, text))
    }

    fn phrase(&self, field: &Field, text: &str, start: usize) -> Result<LogFilter, ParseError> {
        let whole = self.whole(field.clone(), text, start)?;
        let searchable = matches!(field, Field::Attribute(_) | Field::Resource(_));
        if searchable && tokens::words(text).next().is_some() {
            return Ok(LogFilter::Or(vec![whole, LogFilter::words(field.clone(), text)]));
        }
        Ok(whole)
    }

    fn check_words(&self, text: &str, start: usize) -> Result<(), ParseError> {
        if tokens::words(text).next().is_some() {
            return Ok(());
        }
        let message = format!("`{text}` has no word in it");
        Err(self.error_at(start, message, "bodies are searched by words of letters and digits"))
    }

    fn quoted(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        self.take("\"");
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\\' => {
                    if let Some(escaped) = self.peek() {
                        self.at += escaped.len_utf8();
                        text.push(escaped);
                    }
                }
                _ => text.push(c),
            }
        }
        Err(self.error_at(start, "the quote is not closed", "add `\"`"))
    }

    fn comparison(&mut self, field: &Field) -> Result<LogFilter, ParseError> {
        let start = self.at;
        let greater = self.take(">");
        if !greater {
            self.take("<");
        }
        let inclusive = self.take("=");
        let value = match self.peek() {
            Some('"') => self.quoted()?,
            Some(c) if !ends_word(c) => self.word(false)?.text,
            _ => {
                let hint = "write `field:>500`";
                return Err(self.error_here("a value is missing after the comparison", hint));
            }
        };
        let bound = self.bound(field, value, inclusive, start)?;
        Ok(if greater {
            LogFilter::range(field.clone(), Some(bound), None)
        } else {
            LogFilter::range(field.clone(), None, Some(bound))
        })
    }

    fn range(&mut self, field: &Field) -> Result<LogFilter, ParseError> {
        let start = self.at;
        let hint = "write `field:[a TO b]`, or `{a TO b}` without the ends";
        let low_inclusive = self.take("[");
        if !low_inclusive {
            self.take("{");
        }
        let low = self.range_end()?;
        self.skip_space();
        if !self.take_operator("TO") {
            return Err(self.error_here("`TO` is missing in the range", hint));
        }
        let high = self.range_end()?;
        self.skip_space();
        let high_inclusive = self.take("]");
        if !high_inclusive && !self.take("}") {
            return Err(self.error_at(start, "the range is not closed", hint));
        }
        self.count_term(start)?;
        let bound = |value: Option<String>, inclusive| {
            value.map(|value| self.bound(field, value, inclusive, start)).transpose()
        };
        let (low, high) = (bound(low, low_inclusive)?, bound(high, high_inclusive)?);
        Ok(LogFilter::range(field.clone(), low, high))
    }

    /// One end of a range; `*` is open.
    fn range_end(&mut self) -> Result<Option<String>, ParseError> {
        self.skip_space();
        if self.peek() == Some('"') {
            return self.quoted().map(Some);
        }
        let start = self.at;
        while self.peek().is_some_and(|c| !ends_word(c) && !matches!(c, ']' | '}')) {
            self.at += self.peek().map_or(0, char::len_utf8);
        }
        let text = &self.text[start..self.at];
        if text.is_empty() {
            return Err(self.error_here("an end of the range is missing", "`*` is an open end"));
        }
        Ok((text != "*").then(|| text.to_owned()))
    }

    fn bound(
        &self,
        field: &Field,
        value: String,
        inclusive: bool,
        start: usize,
    ) -> Result<Bound, ParseError> {
        if *field == Field::Severity
            && Class::of_text(&value).is_none()
            && value.parse::<i32>().is_err()
        {
            let message = format!("`{value}` is no severity");
            let hint = "use trace, debug, info, warn, error, fatal or a number from 1 to 24";
            return Err(self.error_at(start, message, hint));
        }
        Ok(Bound { value: value.into(), inclusive })
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
