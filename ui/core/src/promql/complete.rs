//! What can stand at the caret.

use super::tokens::{Inside, Kind, is_word, metrics, open_brackets, tokens};

/// What is being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A metric, function, aggregation or keyword.
    Name,
    /// A label of this metric, or of any.
    Label { metric: Option<String>, in_braces: bool },
    /// A value of a label.
    Value { metric: Option<String>, label: String },
    /// A range such as `5m`.
    Duration,
    /// Something that can't be guessed: a number, a comment.
    Nothing,
}

/// What is being typed, and which bytes of the query it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub wanted: Wanted,
    pub start: usize,
    pub end: usize,
}

/// What stands at the caret, a byte position on a character's edge.
pub fn place(query: &str, caret: usize) -> Place {
    let caret = caret.min(query.len());
    let all = tokens(query);
    let nothing = Place { wanted: Wanted::Nothing, start: caret, end: caret };
    let at = all.iter().position(|t| t.start < caret && caret <= t.end);
    let token = at.map(|at| &all[at]);
    let before = &all[..at.unwrap_or_else(|| all.iter().take_while(|t| t.end <= caret).count())];
    // A text's last byte is its quote, behind which nothing of it can be typed.
    if let Some(token) = token
        && let Kind::Text { closed } = token.kind
        && (caret < token.end || !closed)
    {
        return value_place(query, before, caret, token.end - usize::from(closed))
            .unwrap_or(nothing);
    }
    if token.is_some_and(|t| matches!(t.kind, Kind::Comment)) {
        return nothing;
    }
    let number = token.is_some_and(|t| t.kind == Kind::Number);
    let (start, end) = match token {
        Some(t) if matches!(t.kind, Kind::Word | Kind::Number) => (t.start, t.end),
        _ => {
            let rest = query[caret..].find(|c: char| !is_word(c)).unwrap_or(query.len() - caret);
            (caret, caret + rest)
        }
    };
    // Tokens before the word; a sign right at the caret is one of them.
    let sign = token.is_some_and(|t| !matches!(t.kind, Kind::Word | Kind::Number));
    let before = if sign { &all[..at.map_or(0, |at| at + 1)] } else { before };
    let wanted = match open_brackets(query, before).pop() {
        Some(Inside::Range) => Wanted::Duration,
        _ if number => Wanted::Nothing,
        Some(Inside::Grouping) => {
            Wanted::Label { metric: metric_near(query, caret), in_braces: false }
        }
        Some(Inside::Braces(metric)) => {
            let last = before.last().map(|t| &query[t.start..t.end]);
            // A label stands after `{` or `,`; anything else is an operator's place.
            if !matches!(last, Some("{" | ",")) {
                return nothing;
            }
            Wanted::Label { metric, in_braces: true }
        }
        Some(Inside::Parentheses) | None => Wanted::Name,
    };
    Place { wanted, start, end }
}

fn value_place(
    query: &str,
    before: &[super::tokens::Token],
    caret: usize,
    end: usize,
) -> Option<Place> {
    let Some(Inside::Braces(metric)) = open_brackets(query, before).pop() else { return None };
    let [.., label, operator] = before else { return None };
    let is_match = matches!(&query[operator.start..operator.end], "=" | "!=" | "=~" | "!~");
    if !is_match || label.kind != Kind::Word {
        return None;
    }
    let start = operator.end + query[operator.end..].find(['"', '\'', '`'])? + 1;
    let label = query[label.start..label.end].to_owned();
    // A text that is not closed yet reaches to the end of the query: it ends where its word does.
    let word = query[caret..].find(['"', '\'', '`', ',', '}', ' ', ')', '\n']);
    let end = word.map_or(end, |length| end.min(caret + length));
    Some(Place { wanted: Wanted::Value { metric, label }, start: start.min(caret), end })
}

/// The metric that a grouping's labels are of: the next one, else the last before.
fn metric_near(query: &str, caret: usize) -> Option<String> {
    let all = metrics(query);
    let after = all.iter().find(|(at, _)| *at >= caret);
    after.or(all.last()).map(|(_, name)| (*name).to_owned())
}

/// How well a candidate fits what was typed; smaller is better, `None` is not at all.
fn fit(candidate: &str, typed: &str) -> Option<u8> {
    let (candidate, typed) = (candidate.to_ascii_lowercase(), typed.to_ascii_lowercase());
    if candidate.starts_with(&typed) {
        return Some(0);
    }
    match candidate.find(&typed) {
        Some(at) if !candidate[..at].ends_with(|c: char| c.is_ascii_alphanumeric()) => Some(1),
        Some(_) => Some(2),
        // All parts, in any order: `http count` finds `http_server_request_count`.
        None => {
            let mut parts =
                typed.split(['_', ' ', '.', ':', '-']).filter(|p| !p.is_empty()).peekable();
            parts.peek()?;
            parts.all(|part| candidate.contains(part)).then_some(3)
        }
    }
}

/// The places of the candidates that fit what was typed, the best first, at most `limit`.
pub fn rank<'a>(
    candidates: impl IntoIterator<Item = &'a str>,
    typed: &str,
    limit: usize,
) -> Vec<usize> {
    let mut fitting: Vec<(u8, usize)> = candidates
        .into_iter()
        .enumerate()
        .filter_map(|(i, candidate)| Some((fit(candidate, typed)?, i)))
        .collect();
    fitting.sort_unstable();
    fitting.truncate(limit);
    fitting.into_iter().map(|(_, i)| i).collect()
}

/// A label value as it stands between double quotes.
pub fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Bytes before so many UTF-16 units, as browsers count.
pub fn byte_position(text: &str, utf16: usize) -> usize {
    let mut units = 0;
    text.char_indices()
        .find(|(_, c)| {
            let reached = units >= utf16;
            units += c.len_utf16();
            reached
        })
        .map_or(text.len(), |(at, _)| at)
}

/// The reverse.
pub fn utf16_position(text: &str, byte: usize) -> usize {
    text[..byte.min(text.len())].chars().map(char::len_utf16).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The caret is the `|`. Gives what is wanted and what would be replaced.
    fn at(marked: &str) -> (Wanted, String) {
        let caret = marked.find('|').unwrap();
        let query = marked.replacen('|', "", 1);
        let place = place(&query, caret);
        (place.wanted, query[place.start..place.end].to_owned())
    }

    fn label(metric: Option<&str>, in_braces: bool) -> Wanted {
        Wanted::Label { metric: metric.map(str::to_owned), in_braces }
    }

    fn value(metric: Option<&str>, label: &str) -> Wanted {
        Wanted::Value { metric: metric.map(str::to_owned), label: label.to_owned() }
    }

    #[test]
    fn names_stand_outside_of_braces() {
        for (marked, word) in [
            ("|", ""),
            ("ra|", "ra"),
            ("ra|te", "rate"),
            ("sum(|", ""),
            ("sum(http_|)", "http_"),
            ("a + |", ""),
            ("a{b=\"c\"} / b|", "b"),
        ] {
            assert_eq!(at(marked), (Wanted::Name, word.to_owned()), "{marked}");
        }
    }

    #[test]
    fn labels_stand_in_braces_and_groupings() {
        assert_eq!(at("up{|"), (label(Some("up"), true), String::new()));
        assert_eq!(at("up{|}"), (label(Some("up"), true), String::new()));
        assert_eq!(at("up{a=\"b\", jo|}"), (label(Some("up"), true), "jo".into()));
        assert_eq!(at("{jo|"), (label(None, true), "jo".into()));
        assert_eq!(at("sum by (|) (rate(x[5m]))"), (label(Some("x"), false), String::new()));
        assert_eq!(at("sum(rate(x[5m])) by (a, b|"), (label(Some("x"), false), "b".into()));
        assert_eq!(at("a / on (|) b"), (label(Some("b"), false), String::new()));
        assert_eq!(at("up{job |"), (Wanted::Nothing, String::new()));
    }

    #[test]
    fn values_stand_in_quotes_after_a_label() {
        assert_eq!(at("up{job=\"|"), (value(Some("up"), "job"), String::new()));
        assert_eq!(at("up{job=\"ab|"), (value(Some("up"), "job"), "ab".into()));
        assert_eq!(at("up{a=\"b\",job=~\"a|b\"}"), (value(Some("up"), "job"), "ab".into()));
        assert_eq!(at("rate(x{job=\"a|}[5m])"), (value(Some("x"), "job"), "a".into()));
        assert_eq!(at("up{job=\"ab\"|"), (Wanted::Nothing, String::new()));
        assert_eq!(at("label_replace(up, \"|"), (Wanted::Nothing, String::new()));
    }

    #[test]
    fn ranges_take_durations_and_numbers_nothing() {
        assert_eq!(at("rate(x[|").0, Wanted::Duration);
        assert_eq!(at("rate(x[5|m])"), (Wanted::Duration, "5m".into()));
        assert_eq!(at("topk(5|").0, Wanted::Nothing);
        assert_eq!(at("up # the|").0, Wanted::Nothing);
    }

    #[test]
    fn what_starts_like_the_typed_comes_first() {
        let names = ["http_requests_total", "requests", "my_requests", "prequest", "x"];
        let found: Vec<&str> = rank(names, "req", 9).into_iter().map(|i| names[i]).collect();
        assert_eq!(found, ["requests", "http_requests_total", "my_requests", "prequest"]);
        assert_eq!(rank(names, "total_http", 9), [0]);
        assert_eq!(rank(names, "", 2), [0, 1]);
        assert!(rank(names, "___", 9).is_empty());
    }

    #[test]
    fn positions_are_those_of_the_browser() {
        let text = "aé\u{1f33f}b";
        for (utf16, byte) in [(0, 0), (1, 1), (2, 3), (4, 7), (5, 8), (9, 8)] {
            assert_eq!(byte_position(text, utf16), byte);
        }
        assert_eq!(utf16_position(text, 7), 4);
    }

    #[test]
    fn any_caret_in_any_query_has_a_place() {
        for query in
            ["sum by (a) (rate(x{b=\"c\"}[5m:1m] offset 1h)) # é", "\"é", "{{[[((", "a{b='é'}"]
        {
            for caret in (0..=query.len()).filter(|at| query.is_char_boundary(*at)) {
                let place = place(query, caret);
                assert!(place.start <= caret && caret <= place.end, "{query} at {caret}");
                assert!(query.get(place.start..place.end).is_some(), "{query} at {caret}");
            }
        }
    }
}
