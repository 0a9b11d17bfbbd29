//! Where in a query the server found a mistake.

use super::functions::{AGGREGATIONS, FUNCTIONS};
use super::tokens::is_word;

/// A mistake with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line of the query that it is in.
    pub line: String,
    /// Characters before it in that line.
    pub before: usize,
    /// Characters that are wrong, at least 1; may stand behind the line's end.
    pub length: usize,
    /// What is wrong, in the server's words.
    pub message: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// Reads `1:5: parse error: …` in the server's message about a query. `None` when it names no place.
pub fn mistake(query: &str, message: &str) -> Option<Mistake> {
    const MARK: &str = ": parse error: ";
    let mark = message.find(MARK)?;
    let place = message[..mark].rsplit(' ').next()?;
    let text = message[mark + MARK.len()..].to_owned();
    let (line, column) = place.split_once(':')?;
    at(query, line.parse().ok()?, column.parse().ok()?, text)
}

/// Reads the place at the end of a warning or info: `… for metric name "x" (1:5)`.
pub fn noted(query: &str, message: &str) -> Option<Mistake> {
    let (text, place) = message.rsplit_once(" (")?;
    let (line, column) = place.strip_suffix(')')?.split_once(':')?;
    at(query, line.parse().ok()?, column.parse().ok()?, text.to_owned())
}

/// * `line`, `column`: from 1; columns are bytes.
fn at(query: &str, line: usize, column: usize, message: String) -> Option<Mistake> {
    let text = query.split('\n').nth(line.checked_sub(1)?)?;
    let byte = column.checked_sub(1)?.min(text.len());
    let byte = (0..=byte).rev().find(|at| text.is_char_boundary(*at))?;
    let length = text[byte..].chars().take_while(|c| is_word(*c)).count().max(1);
    let advice = advice(&message, &text[byte..]);
    Some(Mistake {
        line: text.to_owned(),
        before: text[..byte].chars().count(),
        length,
        message,
        advice,
    })
}

/// What usually helps.
fn advice(message: &str, from: &str) -> Option<String> {
    if message.starts_with("unknown function") {
        let typed: String = from.chars().take_while(|c| is_word(*c)).collect();
        let near = nearest(&typed)?;
        return Some(format!("Did you mean {near}?"));
    }
    let rules = [
        ("expected type range vector", "Give it a range: add [5m] behind the selector."),
        (
            "expected type instant vector in",
            "Leave the range in [ ] out, or put rate( ) around it.",
        ),
        ("unclosed left parenthesis", "A ( has no ) yet."),
        ("unexpected end of input inside braces", "Close the braces with }."),
        ("unterminated", "Close the quotes."),
        (
            "at least one non-empty matcher",
            "Name a metric, or match a label with a text that is not empty.",
        ),
        ("must use BOOL modifier", "Write the comparison with bool, such as 1 > bool 2."),
        ("no expression found", "Type a metric's name, or choose one from the list."),
    ];
    rules.iter().find(|(part, _)| message.contains(part)).map(|(_, advice)| (*advice).to_owned())
}

/// The function whose name takes the fewest changes, if they are few; of equals the one that is used more.
fn nearest(typed: &str) -> Option<&'static str> {
    let names = FUNCTIONS.iter().chain(&AGGREGATIONS).map(|(name, ..)| *name);
    let (changes, name) =
        names.map(|name| (distance(typed, name), name)).min_by_key(|(changes, _)| *changes)?;
    (changes <= typed.len().div_ceil(3)).then_some(name)
}

/// Levenshtein's: characters to put in, take out or exchange.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let exchanged = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &str, message: &str) -> (String, usize, usize, Option<String>) {
        let m = mistake(query, message).unwrap();
        (m.line, m.before, m.length, m.advice)
    }

    #[test]
    fn the_caret_stands_under_what_is_wrong() {
        assert_eq!(
            found(
                "sum(raet(x[5m]))",
                "invalid parameter \"query\": 1:5: parse error: unknown function with name \"raet\""
            ),
            ("sum(raet(x[5m]))".into(), 4, 4, Some("Did you mean rate?".into()))
        );
        let (line, before, length, _) =
            found("a\n+ +", "2:4: parse error: unexpected end of input");
        assert_eq!((line.as_str(), before, length), ("+ +", 3, 1));
        // Columns are bytes, carets stand under characters.
        let (_, before, ..) =
            found("{a=\"é\"} x", "1:10: parse error: unexpected identifier \"x\"");
        assert_eq!(before, 8);
    }

    #[test]
    fn messages_without_a_place_have_none() {
        assert_eq!(mistake("x", "query needs more than 50000000 samples"), None);
        assert_eq!(mistake("x", "unknown position: parse error: y"), None);
        assert_eq!(mistake("x", "7:1: parse error: y"), None);
    }

    #[test]
    fn warnings_name_their_place_at_the_end() {
        let m = noted("rate(x[5m])", "PromQL info: metric might not be a counter: \"x\" (1:6)")
            .unwrap();
        assert_eq!((m.before, m.length), (5, 1));
        assert!(m.message.ends_with("\"x\""));
        assert_eq!(noted("x", "results truncated due to limit"), None);
    }

    #[test]
    fn advice_is_only_given_where_it_is_likely_right() {
        assert_eq!(nearest("histogram_quantil"), Some("histogram_quantile"));
        assert_eq!(nearest("foo"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
