//! Tokens to tree, by precedence climbing.

use crate::labels::METRIC_NAME;
use crate::matcher::{MatchOp, Matcher};
use crate::parse::ast::*;
use crate::parse::lexer::{KEYWORDS, Kind, Token, lex};
use crate::parse::literal::{parse_duration, parse_number, unquote};
use crate::parse::{ParseError, ParseOptions, functions};

/// Deeper nesting is refused: the parser and the engine recurse.
const DEPTH_MAX: usize = 100;
/// More operators in a row are refused: each makes the tree one level deeper.
const CHAIN_MAX: usize = 500;

type Result<T> = std::result::Result<T, ParseError>;

pub(crate) struct Parser<'a> {
    input: &'a str,
    options: ParseOptions,
    tokens: Vec<Token>,
    lex_error: Option<ParseError>,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(input: &'a str, options: ParseOptions) -> Self {
        let (tokens, lex_error) = lex(input);
        Parser { input, options, tokens, lex_error, at: 0, depth: 0 }
    }

    /// A whole query.
    pub(crate) fn query(mut self) -> Result<Expr> {
        if self.peek() == Kind::Eof && self.lex_error.is_none() {
            return Err(ParseError::new(Span::default(), "no expression found in input"));
        }
        let expr = self.expr(0)?;
        self.expect_end()?;
        Ok(expr)
    }

    /// A selector alone.
    pub(crate) fn selector(mut self) -> Result<Vec<Matcher>> {
        let token = self.token();
        let selector = match token.kind {
            Kind::LeftBrace => self.vector_selector(None)?,
            Kind::Word | Kind::MetricWord if self.may_be_metric(token) => {
                self.next();
                self.vector_selector(Some(token))?
            }
            _ => return self.unexpected("", ""),
        };
        self.expect_end()?;
        Ok(selector.matchers)
    }

    fn expect_end(&mut self) -> Result<()> {
        if self.peek() == Kind::Eof && self.lex_error.is_none() {
            return Ok(());
        }
        self.unexpected("", "")
    }

    fn token(&self) -> Token {
        self.tokens[self.at]
    }

    fn peek(&self) -> Kind {
        self.token().kind
    }

    fn peek_second(&self) -> Kind {
        self.tokens.get(self.at + 1).map_or(Kind::Eof, |t| t.kind)
    }

    fn next(&mut self) -> Token {
        let token = self.token();
        if token.kind != Kind::Eof {
            self.at += 1;
        }
        token
    }

    fn text(&self, token: Token) -> &'a str {
        &self.input[token.span.start..token.span.end]
    }

    /// The current token as a lower-case keyword, if it is one.
    fn keyword(&self) -> Option<&'static str> {
        let token = self.token();
        if token.kind != Kind::Word {
            return None;
        }
        let text = self.text(token);
        KEYWORDS.iter().copied().find(|k| k.eq_ignore_ascii_case(text)).filter(|k| {
            // The fill modifiers are keywords only before a parenthesis, so that metrics of these
            // names keep working.
            !k.starts_with("fill") || self.peek_second() == Kind::LeftParen
        })
    }

    fn accept(&mut self, kind: Kind) -> Option<Token> {
        (self.peek() == kind).then(|| self.next())
    }

    fn expect(&mut self, kind: Kind, context: &str, expected: &str) -> Result<Token> {
        if self.peek() == kind { Ok(self.next()) } else { self.unexpected(context, expected) }
    }

    fn unexpected<T>(&mut self, context: &str, expected: &str) -> Result<T> {
        let token = self.token();
        if token.kind == Kind::Eof
            && let Some(error) = self.lex_error.take()
        {
            return Err(error);
        }
        let mut message = format!("unexpected {}", self.describe(token));
        if !context.is_empty() {
            message.push_str(&format!(" in {context}"));
        }
        if !expected.is_empty() {
            message.push_str(&format!(", expected {expected}"));
        }
        Err(ParseError::new(token.span, message))
    }

    fn describe(&self, token: Token) -> String {
        let text = self.text(token);
        let long = |text: &str| {
            if text.chars().count() > 10 {
                let head: String = text.chars().take(10).collect();
                format!("{}...", crate::text::quote(&head))
            } else {
                crate::text::quote(text)
            }
        };
        match token.kind {
            Kind::Eof => "end of input".to_owned(),
            Kind::Word => {
                let lower = text.to_ascii_lowercase();
                match lower.as_str() {
                    "and" | "or" | "unless" | "atan2" => format!("<op:{text}>"),
                    l if AggregateOp::from_name(l).is_some() => format!("<aggr:{text}>"),
                    l if self.keyword().is_some_and(|k| k == l) => match l {
                        "start" | "end" | "step" | "range" | "max_of" | "min_of" => long(text),
                        _ => format!("<{text}>"),
                    },
                    _ => format!("identifier {}", long(text)),
                }
            }
            Kind::LabelWord => format!("identifier {}", long(text)),
            Kind::MetricWord => format!("metric identifier {}", crate::text::quote(text)),
            Kind::Number => format!("number {}", long(text)),
            Kind::Duration => format!("duration {}", long(text)),
            Kind::String => format!("string {}", long(text)),
            Kind::LeftParen
            | Kind::RightParen
            | Kind::LeftBrace
            | Kind::RightBrace
            | Kind::LeftBracket
            | Kind::RightBracket
            | Kind::Comma
            | Kind::Colon
            | Kind::Equal => long(text),
            _ => format!("<op:{text}>"),
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("expression is nested deeper than {DEPTH_MAX} levels");
            return Err(ParseError::new(self.token().span, message));
        }
        let out = parse(self);
        self.depth -= 1;
        out
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        Some(match self.peek() {
            Kind::Add => BinaryOp::Add,
            Kind::Sub => BinaryOp::Sub,
            Kind::Mul => BinaryOp::Mul,
            Kind::Div => BinaryOp::Div,
            Kind::Mod => BinaryOp::Mod,
            Kind::Pow => BinaryOp::Pow,
            Kind::EqualEqual => BinaryOp::Equal,
            Kind::NotEqual => BinaryOp::NotEqual,
            Kind::Less => BinaryOp::Less,
            Kind::LessEqual => BinaryOp::LessEqual,
            Kind::Greater => BinaryOp::Greater,
            Kind::GreaterEqual => BinaryOp::GreaterEqual,
            Kind::TrimUpper => BinaryOp::TrimUpper,
            Kind::TrimLower => BinaryOp::TrimLower,
            Kind::Word => match self.keyword()? {
                "and" => BinaryOp::And,
                "or" => BinaryOp::Or,
                "unless" => BinaryOp::Unless,
                "atan2" => BinaryOp::Atan2,
                _ => return None,
            },
            _ => return None,
        })
    }

    /// An expression whose operators all bind at least as tight as `min`.
    fn expr(&mut self, min: u8) -> Result<Expr> {
        self.nested(|p| {
            let mut left = p.operand()?;
            // Long chains of operators make a deep tree without deep recursion here.
            let mut chain = 0;
            while let Some(op) = p.binary_op() {
                let precedence = op.precedence();
                if precedence < min {
                    break;
                }
                chain += 1;
                if chain > CHAIN_MAX {
                    return Err(ParseError::new(p.token().span, "too many operators in a row"));
                }
                p.next();
                let (returns_bool, matching) = p.modifiers()?;
                let right_min = if op == BinaryOp::Pow { precedence } else { precedence + 1 };
                let right = p.expr(right_min)?;
                let binary = Binary { op, left, right, matching: Some(matching), returns_bool };
                left = Expr::Binary(Box::new(binary));
            }
            Ok(left)
        })
    }

    fn operand(&mut self) -> Result<Expr> {
        if matches!(self.peek(), Kind::Add | Kind::Sub) {
            let sign = self.next();
            let negative = sign.kind == Kind::Sub;
            // A sign binds weaker than `^` and tighter than anything else.
            let expr = self.expr(BinaryOp::Pow.precedence())?;
            let span = Span { start: sign.span.start, end: expr.span().end };
            return Ok(match expr {
                Expr::Number(n) => Expr::Number(NumberLiteral {
                    value: if negative { -n.value } else { n.value },
                    span,
                    ..n
                }),
                expr => Expr::Unary(Box::new(Unary { negative, expr, span })),
            });
        }
        let mut expr = self.primary()?;
        loop {
            expr = match self.peek() {
                Kind::LeftBracket => self.range_or_subquery(expr)?,
                Kind::At => self.at_modifier(expr)?,
                Kind::Word => match self.keyword() {
                    Some("offset") => self.offset_modifier(expr)?,
                    Some("anchored") => self.extend_modifier(expr, Extend::Anchored)?,
                    Some("smoothed") => self.extend_modifier(expr, Extend::Smoothed)?,
                    _ => return Ok(expr),
                },
                _ => return Ok(expr),
            }
        }
    }

    fn primary(&mut self) -> Result<Expr> {
        let token = self.token();
        match token.kind {
            Kind::Number | Kind::Duration => Ok(Expr::Number(self.number()?)),
            Kind::String => {
                self.next();
                let bytes = self.unquote_bytes(token)?;
                let value = String::from_utf8_lossy(&bytes).into_owned();
                Ok(Expr::String(StringLiteral { value, bytes, span: token.span }))
            }
            Kind::LeftParen => {
                self.next();
                let expr = self.expr(0)?;
                let close = self.expect(Kind::RightParen, "", "")?;
                Ok(Expr::Paren(Box::new(Paren { expr, span: token.span.to(close.span) })))
            }
            Kind::LeftBrace => Ok(Expr::Vector(self.vector_selector(None)?)),
            Kind::MetricWord => {
                self.next();
                Ok(Expr::Vector(self.vector_selector(Some(token))?))
            }
            Kind::Word => self.word(token),
            _ => self.unexpected("", ""),
        }
    }

    fn may_be_metric(&self, token: Token) -> bool {
        token.kind == Kind::MetricWord
            || !matches!(
                self.keyword(),
                Some("atan2" | "bool" | "group_left" | "group_right" | "ignoring" | "on")
            )
    }

    fn word(&mut self, token: Token) -> Result<Expr> {
        let text = self.text(token);
        if let Some(op) = AggregateOp::from_name(text) {
            self.next();
            if self.peek() == Kind::LeftParen || matches!(self.keyword(), Some("by" | "without")) {
                return self.aggregate(op, token);
            }
            return Ok(Expr::Vector(self.vector_selector(Some(token))?));
        }
        let keyword = self.keyword();
        if !self.may_be_metric(token) {
            return self.unexpected("", "");
        }
        self.next();
        let callable = match keyword {
            None => true,
            Some(k) => matches!(k, "start" | "end" | "step" | "range" | "max_of" | "min_of"),
        };
        if self.peek() == Kind::LeftParen && callable {
            return self.call(text, token);
        }
        Ok(Expr::Vector(self.vector_selector(Some(token))?))
    }

    fn number(&mut self) -> Result<NumberLiteral> {
        let token = self.next();
        let text = self.text(token);
        let is_duration = token.kind == Kind::Duration;
        let value = if is_duration {
            parse_duration(text).map(|ms| ms as f64 / 1000.0)
        } else {
            parse_number(text).map_err(|e| format!("error parsing number: {e}"))
        };
        let value = value.map_err(|e| ParseError::new(token.span, e))?;
        Ok(NumberLiteral { value, is_duration, span: token.span })
    }

    /// A text. What is not UTF-8 can't match anything that is stored.
    fn unquote(&self, token: Token) -> Result<String> {
        let bytes = self.unquote_bytes(token)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into()))
    }

    fn unquote_bytes(&self, token: Token) -> Result<Vec<u8>> {
        let text = self.text(token);
        unquote(text).map_err(|e| {
            let message = format!("error unquoting string {}: {e}", crate::text::quote(text));
            ParseError::new(token.span, message)
        })
    }

    fn arguments(&mut self) -> Result<(Vec<Expr>, Token)> {
        self.next();
        let mut args = Vec::new();
        if let Some(close) = self.accept(Kind::RightParen) {
            return Ok((args, close));
        }
        loop {
            args.push(self.expr(0)?);
            if let Some(close) = self.accept(Kind::RightParen) {
                return Ok((args, close));
            }
            let comma = self.expect(Kind::Comma, "", "")?;
            if self.peek() == Kind::RightParen {
                let message = "trailing commas not allowed in function call args";
                return Err(ParseError::new(comma.span, message));
            }
        }
    }

    fn call(&mut self, name: &str, token: Token) -> Result<Expr> {
        let Some(function) = functions::find(name) else {
            let message = format!("unknown function with name {}", crate::text::quote(name));
            return Err(ParseError::new(token.span, message));
        };
        let (args, close) = self.arguments()?;
        if function.experimental && !self.options.experimental_functions {
            let message = format!("function {} is not enabled", crate::text::quote(name));
            return Err(ParseError::new(token.span, message));
        }
        Ok(Expr::Call(Call { function, args, span: token.span.to(close.span) }))
    }

    fn aggregate(&mut self, op: AggregateOp, token: Token) -> Result<Expr> {
        let mut grouping = None;
        if matches!(self.keyword(), Some("by" | "without")) {
            grouping = Some(self.grouping_clause()?);
        }
        if self.peek() != Kind::LeftParen {
            return self.unexpected("aggregation", "");
        }
        let (mut args, close) = self.arguments()?;
        let mut span = token.span.to(close.span);
        if grouping.is_none() && matches!(self.keyword(), Some("by" | "without")) {
            grouping = Some(self.grouping_clause()?);
            span.end = self.tokens[self.at - 1].span.end;
        }
        let (grouping, without) = grouping.unwrap_or_default();
        if args.is_empty() {
            return Err(ParseError::new(span, "no arguments for aggregate expression provided"));
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let message = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.name()
            );
            return Err(ParseError::new(span, message));
        }
        let wanted = if op.takes_param() { 2 } else { 1 };
        let given = args.len();
        let (Some(expr), true) = (args.pop(), given == wanted) else {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {given}"
            );
            return Err(ParseError::new(span, message));
        };
        let param = args.pop();
        Ok(Expr::Aggregate(Box::new(Aggregate { op, expr, param, grouping, without, span })))
    }

    fn grouping_clause(&mut self) -> Result<(Vec<String>, bool)> {
        let without = self.keyword() == Some("without");
        self.next();
        Ok((self.grouping_labels()?, without))
    }

    fn grouping_labels(&mut self) -> Result<Vec<String>> {
        self.expect(Kind::LeftParen, "grouping opts", "\"(\"")?;
        let mut labels = Vec::new();
        if self.accept(Kind::RightParen).is_some() {
            return Ok(labels);
        }
        loop {
            let token = self.token();
            let label = match token.kind {
                Kind::Word | Kind::MetricWord => self.text(token).to_owned(),
                Kind::String => self.unquote(token)?,
                _ => return self.unexpected("grouping opts", "label"),
            };
            if label.is_empty() {
                let message = "invalid label name for grouping: \"\"";
                return Err(ParseError::new(token.span, message));
            }
            self.next();
            labels.push(label);
            if self.accept(Kind::RightParen).is_some() {
                return Ok(labels);
            }
            self.expect(Kind::Comma, "grouping opts", "\",\" or \")\"")?;
            if self.accept(Kind::RightParen).is_some() {
                return Ok(labels);
            }
        }
    }

    fn modifiers(&mut self) -> Result<(bool, Matching)> {
        let mut matching = Matching {
            cardinality: Cardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let returns_bool = self.keyword() == Some("bool");
        if returns_bool {
            self.next();
        }
        if let Some(k @ ("on" | "ignoring")) = self.keyword() {
            self.next();
            matching.on = k == "on";
            matching.labels = self.grouping_labels()?;
            if let Some(k @ ("group_left" | "group_right")) = self.keyword() {
                self.next();
                matching.cardinality = match k {
                    "group_left" => Cardinality::ManyToOne,
                    _ => Cardinality::OneToMany,
                };
                if self.peek() == Kind::LeftParen {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        let start = self.token().span;
        match self.keyword() {
            Some("fill") => {
                let value = self.fill_value()?;
                matching.fill_left = Some(value);
                matching.fill_right = Some(value);
            }
            Some(first @ ("fill_left" | "fill_right")) => {
                let value = self.fill_value()?;
                let left = first == "fill_left";
                *(if left { &mut matching.fill_left } else { &mut matching.fill_right }) =
                    Some(value);
                let other = if left { "fill_right" } else { "fill_left" };
                if self.keyword() == Some(other) {
                    let value = self.fill_value()?;
                    *(if left { &mut matching.fill_right } else { &mut matching.fill_left }) =
                        Some(value);
                }
            }
            _ => {}
        }
        let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
        if filled && !self.options.fill_modifiers {
            let message = "binop fill modifiers are experimental and not enabled";
            return Err(ParseError::new(start, message));
        }
        Ok((returns_bool, matching))
    }

    fn fill_value(&mut self) -> Result<f64> {
        self.next();
        self.expect(Kind::LeftParen, "", "")?;
        let value = self.signed_number("", "")?.value;
        self.expect(Kind::RightParen, "", "")?;
        Ok(value)
    }

    fn signed_number(&mut self, context: &str, expected: &str) -> Result<NumberLiteral> {
        let sign = matches!(self.peek(), Kind::Add | Kind::Sub).then(|| self.next());
        if !matches!(self.peek(), Kind::Number | Kind::Duration) {
            return self.unexpected(context, expected);
        }
        let mut number = self.number()?;
        if let Some(sign) = sign {
            if sign.kind == Kind::Sub {
                number.value = -number.value;
            }
            number.span.start = sign.span.start;
        }
        Ok(number)
    }

    /// The name, if any, is consumed already.
    fn vector_selector(&mut self, name: Option<Token>) -> Result<VectorSelector> {
        let mut span = name.map_or(self.token().span, |t| t.span);
        let mut matchers = Vec::new();
        if self.peek() == Kind::LeftBrace {
            self.next();
            loop {
                if let Some(close) = self.accept(Kind::RightBrace) {
                    span.end = close.span.end;
                    break;
                }
                matchers.push(self.matcher()?);
                if self.peek() != Kind::RightBrace {
                    self.expect(Kind::Comma, "label matching", "\",\" or \"}\"")?;
                }
            }
        }
        let name = name.map(|t| self.text(t).to_owned());
        if let Some(name) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name.as_str()));
        }
        Ok(VectorSelector { name, matchers, timing: Timing::default(), extend: Extend::No, span })
    }

    fn matcher(&mut self) -> Result<Matcher> {
        let token = self.token();
        let name = match token.kind {
            Kind::LabelWord => {
                self.next();
                self.text(token).to_owned()
            }
            Kind::String => {
                self.next();
                let name = self.unquote(token)?;
                // A quoted text alone is a metric name.
                if matches!(self.peek(), Kind::Comma | Kind::RightBrace) {
                    return Ok(Matcher::equal(METRIC_NAME, name));
                }
                name
            }
            _ => return self.unexpected("label matching", "identifier or \"}\""),
        };
        let op = match self.peek() {
            Kind::Equal => MatchOp::Equal,
            Kind::NotEqual => MatchOp::NotEqual,
            Kind::EqualRegex => MatchOp::Regex,
            Kind::NotRegex => MatchOp::NotRegex,
            _ => return self.unexpected("label matching", "label matching operator"),
        };
        self.next();
        let value = self.expect(Kind::String, "label matching", "string")?;
        let text = self.unquote(value)?;
        Matcher::new(op, name, text)
            .map_err(|e| ParseError::new(token.span.to(value.span), e.to_string()))
    }

    fn range_or_subquery(&mut self, expr: Expr) -> Result<Expr> {
        let open = self.next();
        if matches!(self.peek(), Kind::RightBracket | Kind::Colon | Kind::Eof) {
            return self
                .unexpected("subquery or range selector", "number, duration, step(), or range()");
        }
        let range = self.positive_duration()?;
        let start = expr.span().start;
        if let Some(close) = self.accept(Kind::RightBracket) {
            let selector = match expr {
                Expr::Vector(v) if v.timing.has_offset() => {
                    Err("no offset modifiers allowed before range")
                }
                Expr::Vector(v) if v.timing.at.is_some() => {
                    Err("no @ modifiers allowed before range")
                }
                Expr::Vector(v) => Ok(v),
                _ => Err("ranges only allowed for vector selectors"),
            };
            let selector = selector.map_err(|m| ParseError::new(open.span.to(close.span), m))?;
            let span = Span { start, end: close.span.end };
            return Ok(Expr::Matrix(MatrixSelector { selector, range, span }));
        }
        self.expect(Kind::Colon, "subquery or range", "\":\" or \"]\"")?;
        let mut step = None;
        if self.peek() != Kind::RightBracket {
            step = Some(self.positive_duration()?);
        }
        let close = self.expect(Kind::RightBracket, "subquery selector", "\"]\"")?;
        let span = Span { start, end: close.span.end };
        let timing = Timing::default();
        Ok(Expr::Subquery(Box::new(Subquery { expr, range, step, timing, span })))
    }

    fn positive_duration(&mut self) -> Result<DurationValue> {
        let value = self.duration(0)?;
        if let DurationExpr::Number(n) = &value
            && n.value <= 0.0
        {
            return Err(ParseError::new(n.span, "duration must be greater than 0"));
        }
        to_duration(value)
    }

    fn duration_op(&self) -> Option<BinaryOp> {
        self.binary_op().filter(|op| op.precedence() >= 4 && *op != BinaryOp::Atan2)
    }

    fn duration(&mut self, min: u8) -> Result<DurationExpr> {
        self.nested(|p| {
            let mut left = p.duration_operand()?;
            while let Some(op) = p.duration_op() {
                let precedence = op.precedence();
                if precedence < min {
                    break;
                }
                let token = p.next();
                p.duration_arithmetic(left.span())?;
                let right_min = if op == BinaryOp::Pow { precedence } else { precedence + 1 };
                let right = p.duration(right_min)?;
                if let DurationExpr::Number(n) = &right
                    && n.value == 0.0
                {
                    match op {
                        BinaryOp::Div => {
                            return Err(ParseError::new(token.span, "division by zero"));
                        }
                        BinaryOp::Mod => {
                            return Err(ParseError::new(token.span, "modulo by zero"));
                        }
                        _ => {}
                    }
                }
                left = DurationExpr::Binary { op, args: Box::new((left, right)) };
            }
            Ok(left)
        })
    }

    fn duration_arithmetic(&self, span: Span) -> Result<()> {
        if self.options.duration_expressions {
            return Ok(());
        }
        Err(ParseError::new(span, "experimental duration expression is not enabled"))
    }

    fn duration_operand(&mut self) -> Result<DurationExpr> {
        if matches!(self.peek(), Kind::Add | Kind::Sub) {
            let sign = self.next();
            let operand = self.duration(BinaryOp::Pow.precedence())?;
            return signed_duration(sign, operand);
        }
        self.duration_primary()
    }

    fn duration_primary(&mut self) -> Result<DurationExpr> {
        let token = self.token();
        match token.kind {
            Kind::Number | Kind::Duration => {
                let number = self.number()?;
                if !in_range(number.value) {
                    return Err(ParseError::new(number.span, "duration out of range"));
                }
                Ok(DurationExpr::Number(number))
            }
            Kind::LeftParen => {
                self.next();
                let inner = self.duration(0)?;
                let close = self.expect(Kind::RightParen, "", "")?;
                self.duration_arithmetic(inner.span())?;
                Ok(DurationExpr::Paren(Box::new(inner), token.span.to(close.span)))
            }
            Kind::Word => {
                let word = self.text(token).to_ascii_lowercase();
                if !matches!(word.as_str(), "step" | "range" | "max_of" | "min_of") {
                    return self.unexpected("offset", "number, duration, step(), or range()");
                }
                self.next();
                self.expect(Kind::LeftParen, "", "")?;
                let args = if word.ends_with("_of") {
                    let first = self.duration(0)?;
                    self.expect(Kind::Comma, "", "")?;
                    Some(Box::new((first, self.duration(0)?)))
                } else {
                    None
                };
                let close = self.expect(Kind::RightParen, "", "")?;
                let span = token.span.to(close.span);
                self.duration_arithmetic(span)?;
                Ok(match args {
                    Some(args) => DurationExpr::Of { max: word == "max_of", args, span },
                    None if word == "step" => DurationExpr::Step(span),
                    None => DurationExpr::Range(span),
                })
            }
            _ => self.unexpected("offset", "number, duration, step(), or range()"),
        }
    }

    /// What follows `offset`. Without parentheses only a signed operand belongs to it, so that
    /// `a offset 5m + b` adds `b` to the shifted `a`.
    fn offset_duration(&mut self) -> Result<DurationExpr> {
        match self.peek() {
            Kind::Add | Kind::Sub => {
                let sign = self.next();
                let operand = self.duration_primary()?;
                signed_duration(sign, operand)
            }
            Kind::LeftParen => self.duration(0),
            _ => self.duration_primary(),
        }
    }

    fn offset_modifier(&mut self, mut expr: Expr) -> Result<Expr> {
        self.next();
        let value = self.offset_duration()?;
        let span = expr.span();
        let end = self.tokens[self.at - 1].span.end;
        let message = "offset modifier must be preceded by an instant vector selector or range \
                       vector selector or a subquery";
        let (timing, span_end) =
            timing_of(&mut expr).ok_or_else(|| ParseError::new(span, message))?;
        if timing.has_offset() {
            return Err(ParseError::new(span, "offset may not be set multiple times"));
        }
        timing.offset = to_duration(value)?;
        *span_end = end;
        Ok(expr)
    }

    fn at_modifier(&mut self, mut expr: Expr) -> Result<Expr> {
        self.next();
        let span = expr.span();
        let at = match self.keyword() {
            Some(k @ ("start" | "end")) => {
                self.next();
                self.expect(Kind::LeftParen, "@", "timestamp")?;
                self.expect(Kind::RightParen, "@", "timestamp")?;
                if k == "start" { At::Start } else { At::End }
            }
            _ => {
                let seconds = self.signed_number("@", "timestamp")?.value;
                if !seconds.is_finite() || seconds.abs() >= i64::MAX as f64 {
                    let text = crate::text::format_plain(seconds);
                    let message = format!("timestamp out of bounds for @ modifier: {text}");
                    return Err(ParseError::new(span, message));
                }
                At::Time((seconds * 1000.0).round() as i64)
            }
        };
        let end = self.tokens[self.at - 1].span.end;
        let message = "@ modifier must be preceded by an instant vector selector or range vector \
                       selector or a subquery";
        let (timing, span_end) =
            timing_of(&mut expr).ok_or_else(|| ParseError::new(span, message))?;
        if timing.at.is_some() {
            return Err(ParseError::new(span, "@ <timestamp> may not be set multiple times"));
        }
        timing.at = Some(at);
        *span_end = end;
        Ok(expr)
    }

    fn extend_modifier(&mut self, mut expr: Expr, extend: Extend) -> Result<Expr> {
        self.next();
        let word = if extend == Extend::Anchored { "anchored" } else { "smoothed" };
        let span = expr.span();
        if !self.options.extended_ranges {
            let message = format!("{word} modifier is experimental and not enabled");
            return Err(ParseError::new(span, message));
        }
        let selector = match &mut expr {
            Expr::Vector(v) => v,
            Expr::Matrix(m) => &mut m.selector,
            Expr::Subquery(_) => {
                let message = format!("{word} modifier is not supported for subqueries");
                return Err(ParseError::new(span, message));
            }
            _ => {
                return Err(ParseError::new(span, format!("{word} modifier not implemented")));
            }
        };
        if selector.extend != Extend::No && selector.extend != extend {
            let message = "anchored and smoothed modifiers cannot be used together";
            return Err(ParseError::new(span, message));
        }
        selector.extend = extend;
        Ok(expr)
    }
}

/// The longest duration is that of 64 bits of nanoseconds.
fn in_range(seconds: f64) -> bool {
    let max = (1u64 << 63) as f64 / 1e9;
    (-max..=max).contains(&seconds)
}

fn signed_duration(sign: Token, operand: DurationExpr) -> Result<DurationExpr> {
    let span = Span { start: sign.span.start, end: operand.span().end };
    Ok(match operand {
        DurationExpr::Number(n) => {
            let value = if sign.kind == Kind::Sub { -n.value } else { n.value };
            DurationExpr::Number(NumberLiteral { value, span, ..n })
        }
        other if sign.kind == Kind::Sub => DurationExpr::Negate(Box::new(other), span),
        other => other,
    })
}

fn to_duration(value: DurationExpr) -> Result<DurationValue> {
    Ok(match value {
        // Whole nanoseconds first: 0.0015 s is 1 ms.
        DurationExpr::Number(n) => DurationValue::Ms((n.value * 1e9).round() as i64 / 1_000_000),
        other => DurationValue::Expr(other),
    })
}

fn timing_of(expr: &mut Expr) -> Option<(&mut Timing, &mut usize)> {
    match expr {
        Expr::Vector(v) => Some((&mut v.timing, &mut v.span.end)),
        Expr::Matrix(m) => Some((&mut m.selector.timing, &mut m.span.end)),
        Expr::Subquery(s) => Some((&mut s.timing, &mut s.span.end)),
        _ => None,
    }
}
