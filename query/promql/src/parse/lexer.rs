//! Text to tokens. The lexer knows three places: outside brackets, inside braces (matchers) and
//! inside square brackets (ranges), because words and `:` read differently there.

use crate::parse::ParseError;
use crate::parse::Span;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Eof,
    /// A word without colon outside braces: an identifier or a keyword.
    Word,
    /// A word inside braces: never a keyword.
    LabelWord,
    /// A word with a colon.
    MetricWord,
    Number,
    Duration,
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    Equal,
    EqualRegex,
    NotRegex,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    EqualEqual,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    TrimUpper,
    TrimLower,
    At,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub kind: Kind,
    pub span: Span,
}

/// Words that are keywords outside braces (in any case). `inf` and `nan` are numbers and not here.
pub(crate) const KEYWORDS: &[&str] = &[
    "and",
    "or",
    "unless",
    "atan2",
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "count_values",
    "quantile",
    "limitk",
    "limit_ratio",
    "offset",
    "smoothed",
    "anchored",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "fill",
    "fill_left",
    "fill_right",
    "bool",
    "start",
    "end",
    "step",
    "range",
    "max_of",
    "min_of",
];

/// Splits a query into tokens, the last of which is `Eof`. If the text has an error, the tokens
/// before it are returned together with the error, so that an earlier syntax error is found first.
pub(crate) fn lex(input: &str) -> (Vec<Token>, Option<ParseError>) {
    let mut lexer = Lexer { input, pos: 0, tokens: Vec::new() };
    let error = lexer.run().err();
    let end = if error.is_some() { lexer.pos.min(input.len()) } else { input.len() };
    lexer.tokens.push(Token { kind: Kind::Eof, span: Span { start: end, end } });
    (lexer.tokens, error)
}

struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    tokens: Vec<Token>,
}

#[derive(Default)]
struct Nesting {
    parens: usize,
    in_braces: bool,
    in_brackets: bool,
    got_colon: bool,
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_word(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Quotes a character as Go's `%q` does.
fn quoted(c: Option<char>) -> String {
    match c {
        Some('\'') => "'\\''".to_owned(),
        Some('\n') => "'\\n'".to_owned(),
        Some(c) => format!("'{c}'"),
        None => "'\u{fffd}'".to_owned(),
    }
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.input[self.pos..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn skip_while(&mut self, mut keep: impl FnMut(char) -> bool) {
        while self.peek().is_some_and(&mut keep) {
            self.next();
        }
    }

    fn accept(&mut self, set: &str) -> bool {
        if self.peek().is_some_and(|c| set.contains(c)) {
            self.next();
            return true;
        }
        false
    }

    fn error<T>(&self, start: usize, message: String) -> Result<T, ParseError> {
        Err(ParseError::new(Span { start, end: self.input.len() }, message))
    }

    fn emit(&mut self, kind: Kind, start: usize) {
        self.tokens.push(Token { kind, span: Span { start, end: self.pos } });
    }

    fn run(&mut self) -> Result<(), ParseError> {
        let mut nesting = Nesting::default();
        loop {
            let start = self.pos;
            let Some(c) = self.peek() else { break };
            if is_space(c) {
                self.skip_while(is_space);
            } else if c == '#' {
                self.skip_while(|c| c != '\n' && c != '\r');
            } else if nesting.in_braces {
                self.in_braces(start, &mut nesting)?;
            } else if nesting.in_brackets {
                self.in_brackets(start, &mut nesting)?;
            } else {
                self.outside(start, &mut nesting)?;
            }
        }
        let end = self.pos;
        if nesting.in_braces {
            return self.error(end, "unexpected end of input inside braces".into());
        }
        if nesting.in_brackets {
            return self.error(end, "unexpected end of input in duration expression".into());
        }
        if nesting.parens > 0 {
            return self.error(end, "unclosed left parenthesis".into());
        }
        Ok(())
    }

    fn outside(&mut self, start: usize, nesting: &mut Nesting) -> Result<(), ParseError> {
        let Some(c) = self.next() else { return Ok(()) };
        let kind = match c {
            ',' => Kind::Comma,
            '*' => Kind::Mul,
            '/' => Kind::Div,
            '%' => Kind::Mod,
            '+' => Kind::Add,
            '-' => Kind::Sub,
            '^' => Kind::Pow,
            '@' => Kind::At,
            '=' => match self.peek() {
                Some('=') => {
                    self.next();
                    Kind::EqualEqual
                }
                Some('~') => {
                    return self.error(start, "unexpected character after '=': '~'".into());
                }
                _ => Kind::Equal,
            },
            '!' => match self.next() {
                Some('=') => Kind::NotEqual,
                other => {
                    let message = format!("unexpected character after '!': {}", quoted(other));
                    return self.error(start, message);
                }
            },
            '<' if self.accept("=") => Kind::LessEqual,
            '<' if self.accept("/") => Kind::TrimUpper,
            '<' => Kind::Less,
            '>' if self.accept("=") => Kind::GreaterEqual,
            '>' if self.accept("/") => Kind::TrimLower,
            '>' => Kind::Greater,
            '"' | '\'' | '`' => return self.string(start, c),
            '(' => {
                nesting.parens += 1;
                Kind::LeftParen
            }
            ')' => {
                if nesting.parens == 0 {
                    return self.error(start, "unexpected right parenthesis ')'".into());
                }
                nesting.parens -= 1;
                Kind::RightParen
            }
            '{' => {
                nesting.in_braces = true;
                Kind::LeftBrace
            }
            '[' => {
                nesting.in_brackets = true;
                nesting.got_colon = false;
                Kind::LeftBracket
            }
            ']' => return self.error(start, "unexpected right bracket ']'".into()),
            c if c.is_ascii_digit() => return self.number(start),
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => return self.number(start),
            c if is_alpha(c) || c == ':' => {
                self.skip_while(|c| is_word(c) || c == ':');
                let word = &self.input[start..self.pos];
                if word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan") {
                    Kind::Number
                } else if word.contains(':') {
                    Kind::MetricWord
                } else {
                    Kind::Word
                }
            }
            c => return self.error(start, format!("unexpected character: {}", quoted(Some(c)))),
        };
        self.emit(kind, start);
        Ok(())
    }

    fn in_braces(&mut self, start: usize, nesting: &mut Nesting) -> Result<(), ParseError> {
        let Some(c) = self.next() else { return Ok(()) };
        let kind = match c {
            c if is_alpha(c) => {
                self.skip_while(is_word);
                Kind::LabelWord
            }
            ',' => Kind::Comma,
            '"' | '\'' | '`' => return self.string(start, c),
            '=' if self.accept("~") => Kind::EqualRegex,
            '=' => Kind::Equal,
            '!' => match self.next() {
                Some('~') => Kind::NotRegex,
                Some('=') => Kind::NotEqual,
                other => {
                    let message =
                        format!("unexpected character after '!' inside braces: {}", quoted(other));
                    return self.error(start, message);
                }
            },
            '{' => return self.error(start, "unexpected left brace '{'".into()),
            '}' => {
                nesting.in_braces = false;
                Kind::RightBrace
            }
            c => {
                let message = format!("unexpected character inside braces: {}", quoted(Some(c)));
                return self.error(start, message);
            }
        };
        self.emit(kind, start);
        Ok(())
    }

    fn in_brackets(&mut self, start: usize, nesting: &mut Nesting) -> Result<(), ParseError> {
        let Some(c) = self.next() else { return Ok(()) };
        let kind = match c {
            ']' => {
                nesting.in_brackets = false;
                Kind::RightBracket
            }
            ':' => {
                if nesting.got_colon {
                    return self
                        .error(start, "unexpected repeated colon in duration expression".into());
                }
                if self.tokens.last().is_some_and(|t| t.kind == Kind::LeftBracket) {
                    return self.error(
                        start,
                        "unexpected colon before duration in duration expression".into(),
                    );
                }
                nesting.got_colon = true;
                Kind::Colon
            }
            '(' => {
                nesting.parens += 1;
                Kind::LeftParen
            }
            ')' => {
                if nesting.parens == 0 {
                    return self.error(start, "unexpected right parenthesis ')'".into());
                }
                nesting.parens -= 1;
                Kind::RightParen
            }
            '+' => Kind::Add,
            '-' => Kind::Sub,
            '*' => Kind::Mul,
            '/' => Kind::Div,
            '%' => Kind::Mod,
            '^' => Kind::Pow,
            ',' => Kind::Comma,
            c if c.is_ascii_digit() => return self.number(start),
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => return self.number(start),
            c if is_alpha(c) => {
                self.skip_while(is_alpha);
                let word = self.input[start..self.pos].to_ascii_lowercase();
                if !matches!(word.as_str(), "step" | "range" | "max_of" | "min_of") {
                    let message =
                        format!("unexpected character in duration expression: {}", quoted(Some(c)));
                    return self.error(start, message);
                }
                Kind::Word
            }
            c => {
                let message =
                    format!("unexpected character in duration expression: {}", quoted(Some(c)));
                return self.error(start, message);
            }
        };
        self.emit(kind, start);
        Ok(())
    }

    fn string(&mut self, start: usize, open: char) -> Result<(), ParseError> {
        loop {
            match self.next() {
                Some('\\') if open != '`' => {
                    // Whether the escape is a good one is checked when the string is unquoted.
                    if self.next().is_none() {
                        return self.error(start, "escape sequence not terminated".into());
                    }
                }
                Some('\n') if open != '`' => {
                    return self.error(start, "unterminated quoted string".into());
                }
                None if open == '`' => {
                    return self.error(start, "unterminated raw string".into());
                }
                None => return self.error(start, "unterminated quoted string".into()),
                Some(c) if c == open => break,
                Some(_) => {}
            }
        }
        self.emit(Kind::String, start);
        Ok(())
    }

    /// The first character is consumed already.
    fn number(&mut self, start: usize) -> Result<(), ParseError> {
        self.pos = start;
        if self.scan_number() {
            self.emit(Kind::Number, start);
            return Ok(());
        }
        if self.scan_duration() {
            self.emit(Kind::Duration, start);
            return Ok(());
        }
        // The offending character is part of the message.
        self.next();
        let text = crate::text::quote(&self.input[start..self.pos]);
        self.error(start, format!("bad number or duration syntax: {text}"))
    }

    fn scan_number(&mut self) -> bool {
        let mut digits = "0123456789";
        if self.accept("0") && self.accept("xX") {
            self.accept("_");
            digits = "0123456789abcdefABCDEF";
        }
        let hex = digits.len() > 10;
        self.accept(".");
        self.accept(digits);
        let (mut got_dot, mut got_exponent) = (false, false);
        while let Some(c) = self.peek() {
            if c == '.' {
                if got_dot {
                    self.next();
                    return false;
                }
                self.next();
                got_dot = true;
                if self.accept("_.") || hex {
                    return false;
                }
            } else if matches!(c, 'e' | 'E') && !hex {
                if got_exponent {
                    self.next();
                    return false;
                }
                self.next();
                got_exponent = true;
                self.accept("+-");
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else if c == '_' {
                self.next();
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else if digits.contains(c) {
                self.skip_while(|c| digits.contains(c));
            } else {
                break;
            }
        }
        !self.peek().is_some_and(is_word)
    }

    /// Goes on after digits: a unit, and more digits with units.
    fn scan_duration(&mut self) -> bool {
        if !self.accept("smhdwy") {
            return false;
        }
        self.accept("s");
        while self.accept("0123456789") {
            self.skip_while(|c| c.is_ascii_digit());
            if !self.accept("smhdw") {
                return false;
            }
            self.accept("s");
        }
        !self.peek().is_some_and(is_word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(input: &str) -> Vec<Kind> {
        let (tokens, error) = lex(input);
        assert!(error.is_none(), "{input}: {error:?}");
        tokens.into_iter().map(|t| t.kind).filter(|k| *k != Kind::Eof).collect()
    }

    #[test]
    fn numbers_and_durations_are_told_apart() {
        use Kind::{Duration, Number};
        for (text, kind) in [
            ("1", Number),
            (".5", Number),
            ("1e3", Number),
            ("0x1F", Number),
            ("1_000", Number),
            ("Inf", Number),
            ("5m", Duration),
            ("1h30m", Duration),
            ("10ms", Duration),
        ] {
            assert_eq!(kinds(text), [kind], "{text}");
        }
        for text in ["1..2", "1e", "5mm", "1_", "0xG", "5x"] {
            assert!(lex(text).1.is_some(), "{text}");
        }
    }

    #[test]
    fn brackets_and_braces_change_what_words_mean() {
        use Kind::*;
        assert_eq!(
            kinds("a{by=~'x'}"),
            [Word, LeftBrace, LabelWord, EqualRegex, String, RightBrace]
        );
        assert_eq!(
            kinds("a[5m:step()]"),
            [Word, LeftBracket, Duration, Colon, Word, LeftParen, RightParen, RightBracket]
        );
        assert_eq!(kinds("a:b # c\n</ 1"), [MetricWord, TrimUpper, Number]);
    }
}
