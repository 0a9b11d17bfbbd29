//! A query cut into words, for looking at it; the server's parser decides what is a query.

use super::functions::{is_aggregation, is_function};

/// Words that are neither metrics nor functions.
pub const KEYWORDS: [&str; 15] = [
    "and",
    "atan2",
    "bool",
    "by",
    "group_left",
    "group_right",
    "ignoring",
    "inf",
    "nan",
    "offset",
    "on",
    "or",
    "unless",
    "without",
    "fill",
];

/// Words whose parentheses hold label names.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// What an open bracket means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inside {
    /// Parentheses of a grouping: label names.
    Grouping,
    /// Other parentheses.
    Parentheses,
    /// Braces after this metric, or after none.
    Braces(Option<String>),
    /// A range or subquery.
    Range,
}

/// A piece of a query, with its place in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name: of a metric, function, label, or a keyword.
    Word,
    /// Digits and what follows on them: a number or a duration.
    Number,
    /// Quotes included; the closing one may be missing.
    Text { closed: bool },
    /// From `#` to the end of the line.
    Comment,
    /// One character, or an operator of two.
    Sign,
}

/// Cuts a query up. Spaces are left out.
pub fn tokens(query: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut chars = query.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let mut take_while = |wanted: &dyn Fn(char) -> bool| {
            let mut end = start + c.len_utf8();
            while let Some((at, next)) = chars.next_if(|(_, next)| wanted(*next)) {
                end = at + next.len_utf8();
            }
            end
        };
        let (kind, end) = if is_word_start(c) {
            (Kind::Word, take_while(&is_word))
        } else if c.is_ascii_digit() {
            (Kind::Number, take_while(&|next| next.is_ascii_alphanumeric() || next == '.'))
        } else if c == '#' {
            (Kind::Comment, take_while(&|next| next != '\n'))
        } else if matches!(c, '"' | '\'' | '`') {
            let (mut end, mut closed, mut escaped) = (start + 1, false, false);
            for (at, next) in chars.by_ref() {
                end = at + next.len_utf8();
                if !escaped && next == c {
                    closed = true;
                    break;
                }
                escaped = !escaped && next == '\\' && c != '`';
            }
            (Kind::Text { closed }, end)
        } else if matches!(c, '=' | '!' | '<' | '>') {
            (Kind::Sign, take_while(&|next| matches!(next, '=' | '~')))
        } else {
            (Kind::Sign, start + c.len_utf8())
        };
        out.push(Token { start, end, kind });
    }
    out
}

pub fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '_' | ':')
}

pub fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

/// The brackets that are open after these tokens, outermost first.
pub fn open_brackets(query: &str, tokens: &[Token]) -> Vec<Inside> {
    let mut open = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Sign {
            continue;
        }
        let before = i.checked_sub(1).map(|i| &tokens[i]).filter(|t| t.kind == Kind::Word);
        let word = before.map(|t| &query[t.start..t.end]);
        match &query[token.start..token.end] {
            "(" if word.is_some_and(|w| is_one_of(&GROUPING, w)) => open.push(Inside::Grouping),
            "(" => open.push(Inside::Parentheses),
            "{" => open.push(Inside::Braces(word.filter(|w| !is_reserved(w)).map(str::to_owned))),
            "[" => open.push(Inside::Range),
            ")" | "}" | "]" => {
                open.pop();
            }
            _ => {}
        }
    }
    open
}

/// The metrics that a query names, with the byte position of each.
pub fn metrics(query: &str) -> Vec<(usize, &str)> {
    let tokens = tokens(query);
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Word {
            continue;
        }
        let word = &query[token.start..token.end];
        let called = tokens.get(i + 1).is_some_and(|next| &query[next.start..next.end] == "(");
        let among_labels = matches!(
            open_brackets(query, &tokens[..i]).last(),
            Some(Inside::Grouping | Inside::Braces(_) | Inside::Range)
        );
        if !called && !among_labels && !is_reserved(word) {
            found.push((token.start, word));
        }
    }
    found
}

/// Whether the name is the language's own.
fn is_reserved(word: &str) -> bool {
    is_one_of(&KEYWORDS, word) || is_aggregation(word) || is_function(word)
}

fn is_one_of(list: &[&str], word: &str) -> bool {
    list.iter().any(|one| one.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(query: &str) -> Vec<&str> {
        tokens(query).iter().map(|t| &query[t.start..t.end]).collect()
    }

    #[test]
    fn a_query_is_cut_into_words() {
        assert_eq!(
            words("sum by (a) (rate(x_total{b=~\"c\\\"d\", e!='f'}[5m])) >= 0.5 # why"),
            [
                "sum",
                "by",
                "(",
                "a",
                ")",
                "(",
                "rate",
                "(",
                "x_total",
                "{",
                "b",
                "=~",
                "\"c\\\"d\"",
                ",",
                "e",
                "!=",
                "'f'",
                "}",
                "[",
                "5m",
                "]",
                ")",
                ")",
                ">=",
                "0.5",
                "# why"
            ]
        );
        assert_eq!(tokens("a{b=\"c")[4].kind, Kind::Text { closed: false });
        assert_eq!(words("größe \u{1f33f}"), ["gr", "ö", "ß", "e", "\u{1f33f}"]);
    }

    #[test]
    fn metrics_are_told_from_functions_labels_and_keywords() {
        let names = |query| metrics(query).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(
            names("sum by (job) (rate(a_total{le=\"1\"}[5m])) / on (x) group_left (y) b offset 5m"),
            ["a_total", "b"]
        );
        assert_eq!(
            names("histogram_quantile(0.9, traces_spanmetrics_latency)"),
            ["traces_spanmetrics_latency"]
        );
        assert_eq!(metrics("up == bool up"), [(0, "up"), (11, "up")]);
    }
}
