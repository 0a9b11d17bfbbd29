//! What a log search looks for: a tree of predicates with one meaning, whether rows are hot or sealed.
//!
//! [`LogFilter::matches`] is the definition. Everything else (what a group of rows or an index can say) only ever
//! rules rows out or in without reading them, and must agree with it.

use super::severity::{Class, effective_number};
use super::tokens::{self, Needle, PatternToken};
use crate::attributes::{self, Value};
use crate::resource::{Resource, Scope};

/// What a predicate looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The body's text; what a bare word searches.
    Body,
    Severity,
    /// `service.name` of the resource.
    Service,
    TraceId,
    SpanId,
    EventName,
    /// Name of the instrumentation scope.
    Scope,
    /// An attribute of the record, else of its resource.
    Attribute(Box<str>),
    /// An attribute of the resource only.
    Resource(Box<str>),
}

impl Field {
    /// The field a name in a query stands for; every other name is an attribute key. `attributes.x` and `resource.x`
    /// reach keys that are hidden by a fixed name.
    pub fn named(name: &str) -> Self {
        match name {
            "body" => Self::Body,
            "severity" | "severity_text" | "severity_number" | "level" => Self::Severity,
            "service" | "service.name" | "service_name" => Self::Service,
            "trace_id" => Self::TraceId,
            "span_id" => Self::SpanId,
            "event_name" => Self::EventName,
            "scope" | "scope_name" => Self::Scope,
            _ => match (name.strip_prefix("attributes."), name.strip_prefix("resource.")) {
                (Some(key), _) => Self::Attribute(key.into()),
                (_, Some(key)) => Self::Resource(key.into()),
                _ => Self::Attribute(name.into()),
            },
        }
    }
}

/// One end of a range, with whether the value itself is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    pub value: Box<str>,
    pub inclusive: bool,
}

/// A predicate over one log record.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFilter {
    All,
    Nothing,
    And(Vec<LogFilter>),
    Or(Vec<LogFilter>),
    Not(Box<LogFilter>),
    /// Adjacent words in the field's text, see [`tokens`].
    Words(Field, Needle),
    /// The field's whole text, or one element of a list; numbers compare as numbers.
    Equals(Field, Box<str>),
    /// The field's text, or that of one element of a list, starts so. Severities in any case.
    StartsWith(Field, Box<str>),
    Range(Field, Option<Bound>, Option<Bound>),
    Exists(Field),
    TraceId([u8; 16]),
    SpanId([u8; 8]),
    /// Severity numbers from..=to; a text stands in for a missing number.
    Severity(i32, i32),
    /// Severity text in any case.
    SeverityText(Box<str>),
}

/// "And" (`decisive` is false) and "or" (it is true) over parts of which some are not known, by Kleene's logic: one
/// decisive part decides, else everything must be known.
pub(super) fn until_decided(
    decisive: bool,
    parts: impl Iterator<Item = Option<bool>>,
) -> Option<bool> {
    let mut outcome = Some(!decisive);
    for part in parts {
        match part {
            Some(value) if value == decisive => return Some(decisive),
            Some(_) => {}
            None => outcome = None,
        }
    }
    outcome
}

impl LogFilter {
    /// Words next to each other in a field's text. Text without a word fits everything.
    pub fn words(field: Field, text: &str) -> Self {
        let words = tokens::folded_words(text);
        if words.is_empty() { Self::All } else { Self::Words(field, Needle::new(words, false)) }
    }

    /// `field:text*`. In bodies the words of the text next to each other, the last of which may go on; other fields
    /// start with the text as it is.
    pub fn prefix(field: Field, text: &str) -> Self {
        if field != Field::Body {
            return Self::StartsWith(field, text.into());
        }
        let words = tokens::folded_words(text);
        if words.is_empty() {
            Self::Exists(field)
        } else {
            Self::Words(field, Needle::new(words, true))
        }
    }

    /// `field:value`. For severity a class name, a number or any text; for ids hex text.
    pub fn equals(field: Field, value: &str) -> Self {
        match field {
            Field::Severity => {
                if let Some(class) = Class::of_text(value) {
                    Self::Severity(class.first_number(), class.last_number())
                } else if let Ok(number) = value.parse() {
                    Self::Severity(number, number)
                } else {
                    Self::SeverityText(value.into())
                }
            }
            Field::TraceId => parse_hex(value).map_or(Self::Nothing, Self::TraceId),
            Field::SpanId => parse_hex(value).map_or(Self::Nothing, Self::SpanId),
            Field::Body => Self::words(field, value),
            field => Self::Equals(field, value.into()),
        }
    }

    /// `field:[low TO high]`; severities by class name or number. Numbers compare as numbers, other values as text.
    pub fn range(field: Field, low: Option<Bound>, high: Option<Bound>) -> Self {
        if field != Field::Severity {
            return Self::Range(field, low, high);
        }
        let class = |text: &str| -> Option<(i32, i32)> {
            let named = Class::of_text(text).map(|c| (c.first_number(), c.last_number()));
            named.or_else(|| text.parse().ok().map(|number| (number, number)))
        };
        let from = match &low {
            None => Some(1),
            Some(b) => {
                class(&b.value).map(|(first, last)| if b.inclusive { first } else { last + 1 })
            }
        };
        let to = match &high {
            None => Some(24),
            Some(b) => {
                class(&b.value).map(|(first, last)| if b.inclusive { last } else { first - 1 })
            }
        };
        match (from, to) {
            (Some(from), Some(to)) => Self::Severity(from, to),
            _ => Self::Nothing,
        }
    }

    pub fn and(filters: Vec<LogFilter>) -> Self {
        let mut kept = Vec::new();
        for filter in filters {
            match filter {
                Self::All => {}
                Self::And(inner) => kept.extend(inner),
                other => kept.push(other),
            }
        }
        match kept.len() {
            0 => Self::All,
            1 => kept.remove(0),
            _ => Self::And(kept),
        }
    }

    /// Whether a row fits.
    pub fn matches(&self, rows: &dyn LogRows, row: usize) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::And(all) => all.iter().all(|filter| filter.matches(rows, row)),
            Self::Or(any) => any.iter().any(|filter| filter.matches(rows, row)),
            Self::Not(inner) => !inner.matches(rows, row),
            Self::Words(Field::Body, needle) => needle.is_in(rows.body(row)),
            Self::Words(field, needle) => {
                with_value(rows, row, field, |value| needle.is_in(&value.to_text()))
            }
            Self::Equals(field, wanted) => {
                with_value(rows, row, field, |value| equals(value, wanted))
            }
            Self::StartsWith(field, start) => {
                let severity = *field == Field::Severity;
                with_value(rows, row, field, |value| starts_with(value, start, severity))
            }
            Self::Range(field, low, high) => {
                with_value(rows, row, field, |value| in_range(value, low.as_ref(), high.as_ref()))
            }
            Self::Exists(Field::TraceId) => rows.trace_id(row) != [0; 16],
            Self::Exists(Field::SpanId) => rows.span_id(row) != [0; 8],
            Self::Exists(field) => with_value(rows, row, field, |value| {
                !matches!(value, Value::Empty | Value::Str(""))
            }),
            Self::TraceId(id) => rows.trace_id(row) == *id,
            Self::SpanId(id) => rows.span_id(row) == *id,
            Self::Severity(from, to) => {
                let number = effective_number(rows.severity_number(row), rows.severity_text(row));
                (*from..=*to).contains(&number)
            }
            Self::SeverityText(text) => rows
                .severity_text(row)
                .chars()
                .flat_map(char::to_lowercase)
                .eq(text.chars().flat_map(char::to_lowercase)),
        }
    }

    /// What the filter says of all rows of a group: all fit, none fits, or (`None`) each must be looked at.
    pub fn matches_group(&self, group: &GroupFacts<'_>) -> Option<bool> {
        match self {
            Self::And(all) => {
                until_decided(false, all.iter().map(|filter| filter.matches_group(group)))
            }
            Self::Or(any) => {
                until_decided(true, any.iter().map(|filter| filter.matches_group(group)))
            }
            Self::Not(inner) => inner.matches_group(group).map(|fits| !fits),
            Self::Words(Field::Body, needle) => needle.is_in_pattern(group.pattern?),
            Self::TraceId(_) | Self::SpanId(_) => None,
            Self::Exists(field)
            | Self::Words(field, _)
            | Self::Equals(field, _)
            | Self::StartsWith(field, _)
            | Self::Range(field, ..)
                if !group.knows(field) =>
            {
                None
            }
            known => Some(known.matches(group, 0)),
        }
    }

    /// Calls `visit` with each predicate's field, those under `Not` included.
    pub fn visit_fields(&self, visit: &mut dyn FnMut(&Field)) {
        match self {
            Self::All | Self::Nothing => {}
            Self::And(filters) | Self::Or(filters) => {
                filters.iter().for_each(|filter| filter.visit_fields(visit));
            }
            Self::Not(inner) => inner.visit_fields(visit),
            Self::Words(field, _)
            | Self::Equals(field, _)
            | Self::StartsWith(field, _)
            | Self::Range(field, ..)
            | Self::Exists(field) => {
                visit(field);
            }
            Self::TraceId(_) => visit(&Field::TraceId),
            Self::SpanId(_) => visit(&Field::SpanId),
            Self::Severity(..) | Self::SeverityText(_) => visit(&Field::Severity),
        }
    }

    /// The trace every matching row must name, if there is one.
    pub fn required_trace(&self) -> Option<[u8; 16]> {
        match self {
            Self::TraceId(id) => Some(*id),
            Self::And(all) => all.iter().find_map(Self::required_trace),
            _ => None,
        }
    }
}

/// Rows that a filter can look at: a hot batch, a block of a segment, a group.
pub trait LogRows {
    fn severity_number(&self, row: usize) -> i32;
    fn severity_text(&self, row: usize) -> &str;
    fn body(&self, row: usize) -> &str;
    fn trace_id(&self, row: usize) -> [u8; 16];
    fn span_id(&self, row: usize) -> [u8; 8];
    fn event_name(&self, row: usize) -> &str;
    fn resource(&self, row: usize) -> &Resource;
    fn scope(&self, row: usize) -> &Scope;
    /// Passes the record's own attribute on, if it has it.
    fn attribute(&self, row: usize, key: &str, visit: &mut dyn FnMut(Value<'_>));
}

/// What all rows of a group have in common.
pub struct GroupFacts<'a> {
    pub severity_number: i32,
    pub severity_text: &'a str,
    pub event_name: &'a str,
    pub resource: &'a Resource,
    pub scope: &'a Scope,
    /// Words and slots of the bodies; `None` when they have nothing in common.
    pub pattern: Option<&'a [PatternToken]>,
}

impl GroupFacts<'_> {
    fn knows(&self, field: &Field) -> bool {
        !matches!(field, Field::Body | Field::TraceId | Field::SpanId | Field::Attribute(_))
    }
}

impl LogRows for GroupFacts<'_> {
    fn severity_number(&self, _row: usize) -> i32 {
        self.severity_number
    }

    fn severity_text(&self, _row: usize) -> &str {
        self.severity_text
    }

    fn body(&self, _row: usize) -> &str {
        ""
    }

    fn trace_id(&self, _row: usize) -> [u8; 16] {
        [0; 16]
    }

    fn span_id(&self, _row: usize) -> [u8; 8] {
        [0; 8]
    }

    fn event_name(&self, _row: usize) -> &str {
        self.event_name
    }

    fn resource(&self, _row: usize) -> &Resource {
        self.resource
    }

    fn scope(&self, _row: usize) -> &Scope {
        self.scope
    }

    fn attribute(&self, _row: usize, _key: &str, _visit: &mut dyn FnMut(Value<'_>)) {}
}

/// Applies `test` to a field's value; a field that is absent fits nothing.
fn with_value(
    rows: &dyn LogRows,
    row: usize,
    field: &Field,
    mut test: impl FnMut(Value<'_>) -> bool,
) -> bool {
    match field {
        Field::Body => test(Value::Str(rows.body(row))),
        Field::Severity => {
            let (number, text) = (rows.severity_number(row), rows.severity_text(row));
            if text.is_empty() && number == 0 {
                test(Value::Empty)
            } else if text.is_empty() {
                test(Value::Str(Class::of_number(number).name()))
            } else {
                test(Value::Str(text))
            }
        }
        Field::Service => test(Value::Str(&rows.resource(row).service_name)),
        Field::TraceId => test(Value::Str(&crate::spans::records::hex(&rows.trace_id(row)))),
        Field::SpanId => test(Value::Str(&crate::spans::records::hex(&rows.span_id(row)))),
        Field::EventName => test(Value::Str(rows.event_name(row))),
        Field::Scope => test(Value::Str(&rows.scope(row).name)),
        Field::Resource(key) => {
            attributes::get(&rows.resource(row).attributes, key).is_some_and(test)
        }
        Field::Attribute(key) => {
            let mut fits = None;
            rows.attribute(row, key, &mut |value| fits = Some(test(value)));
            fits.unwrap_or_else(|| {
                attributes::get(&rows.resource(row).attributes, key).is_some_and(test)
            })
        }
    }
}

fn equals(value: Value<'_>, wanted: &str) -> bool {
    match value {
        Value::Str(text) => text == wanted,
        Value::Int(number) => match wanted.parse::<i64>() {
            Ok(wanted) => number == wanted,
            Err(_) => wanted.parse::<f64>().is_ok_and(|wanted| number as f64 == wanted),
        },
        Value::Double(number) => wanted.parse::<f64>().is_ok_and(|wanted| number == wanted),
        Value::Array(items) => {
            attributes::array_items(items).any(|item| equals(item, wanted))
                || value.to_text() == wanted
        }
        other => other.to_text() == wanted,
    }
}

fn starts_with(value: Value<'_>, start: &str, any_case: bool) -> bool {
    if let Value::Array(items) = value
        && attributes::array_items(items).any(|item| starts_with(item, start, any_case))
    {
        return true;
    }
    let text = value.to_text();
    text.starts_with(start)
        || (any_case
            && text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)))
}

fn in_range(value: Value<'_>, low: Option<&Bound>, high: Option<&Bound>) -> bool {
    if let Value::Array(items) = value {
        return attributes::array_items(items).any(|item| in_range(item, low, high));
    }
    if matches!(value, Value::Empty | Value::Str("")) {
        return false;
    }
    let above = low.is_none_or(|bound| match compare(value, &bound.value) {
        Some(order) => order.is_gt() || (bound.inclusive && order.is_eq()),
        None => false,
    });
    above
        && high.is_none_or(|bound| match compare(value, &bound.value) {
            Some(order) => order.is_lt() || (bound.inclusive && order.is_eq()),
            None => false,
        })
}

/// Order of a value against a bound: as numbers when both are, as text when the value is text.
fn compare(value: Value<'_>, bound: &str) -> Option<std::cmp::Ordering> {
    match value {
        Value::Int(number) => match bound.parse::<i64>() {
            Ok(bound) => Some(number.cmp(&bound)),
            Err(_) => (number as f64).partial_cmp(&bound.parse().ok()?),
        },
        Value::Double(number) => number.partial_cmp(&bound.parse().ok()?),
        Value::Str(text) => match (text.parse::<f64>(), bound.parse::<f64>()) {
            (Ok(number), Ok(bound)) => number.partial_cmp(&bound),
            _ => Some(text.cmp(bound)),
        },
        _ => None,
    }
}

/// An id of exactly `N` bytes from hex in any case.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(id)
}

impl LogRows for super::batch::LogBatch {
    fn severity_number(&self, row: usize) -> i32 {
        self.rows[row].severity_number
    }

    fn severity_text(&self, row: usize) -> &str {
        self.severity_text.get(row)
    }

    fn body(&self, row: usize) -> &str {
        self.body.text(row)
    }

    fn trace_id(&self, row: usize) -> [u8; 16] {
        self.rows[row].trace_id
    }

    fn span_id(&self, row: usize) -> [u8; 8] {
        self.rows[row].span_id
    }

    fn event_name(&self, row: usize) -> &str {
        self.event_name.get(row)
    }

    fn resource(&self, row: usize) -> &Resource {
        super::batch::LogBatch::resource(self, row)
    }

    fn scope(&self, row: usize) -> &Scope {
        super::batch::LogBatch::scope(self, row)
    }

    fn attribute(&self, row: usize, key: &str, visit: &mut dyn FnMut(Value<'_>)) {
        if let Some(value) = attributes::get(self.attributes.get(row), key) {
            visit(value);
        }
    }
}
