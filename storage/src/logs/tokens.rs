//! Words: the one tokenizer that hot scans, the index, the patterns and the query language share.
//!
//! A *word* is a longest run of alphanumeric characters (Unicode `Alphabetic` or `Numeric`), compared in lower case
//! (`char::to_lowercase`, no locale): `Payment-Failed_42` holds `payment`, `failed`, `42`. Everything else separates.
//!
//! A word is *variable* when it holds a numeric character or is very long: ids, counters, durations. What is left of
//! a body when its variable words are taken out is its *pattern*. Whether a word is variable depends on that word
//! alone, so a search for words without digits is answered exactly by the pattern.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longer words count as variable, bytes.
const WORD_BYTES_MAX: usize = 64;

/// Stands for a variable word inside a stored pattern. Bodies that hold it themselves have no pattern.
pub const SLOT: char = '\u{1}';

/// How a slot is shown to people.
pub const SLOT_SHOWN: &str = "<*>";

/// The words of a text as they stand in it, not lower-cased.
pub fn words(text: &str) -> Words<'_> {
    Words { rest: text }
}

/// See [`words`].
#[derive(Debug, Clone)]
pub struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let rest = &self.rest[gap_bytes(self.rest)..];
        let (end, _) = word_bytes(rest);
        self.rest = &rest[end..];
        (end > 0).then(|| &rest[..end])
    }
}

/// The variable words of a text as they stand in it.
pub fn variable_words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let word = &rest[gap_bytes(rest)..];
            let (end, variable) = word_bytes(word);
            rest = &word[end..];
            if end == 0 {
                return None;
            }
            if variable {
                return Some(&word[..end]);
            }
        }
    })
}

/// What a byte may be part of.
const GAP: u8 = 0;
const LETTER: u8 = 1;
const DIGIT: u8 = 2;
/// A character of several bytes, which must be looked at whole.
const WIDE: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut classes = [GAP; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => DIGIT,
            0x80.. => WIDE,
            _ => GAP,
        };
        byte += 1;
    }
    classes
};

/// Length of the leading run of characters that are not alphanumeric.
#[inline]
fn gap_bytes(text: &str) -> usize {
    let other = |byte: &u8| CLASSES[usize::from(*byte)] != GAP;
    match text.bytes().position(|byte| other(&byte)) {
        Some(at) if CLASSES[usize::from(text.as_bytes()[at])] != WIDE => at,
        Some(at) => at + wide_run(&text[at..], false),
        None => text.len(),
    }
}

/// Length of the leading word, and whether it is variable.
#[inline]
fn word_bytes(text: &str) -> (usize, bool) {
    let (mut end, mut seen) = (0, 0);
    for byte in text.bytes() {
        let class = CLASSES[usize::from(byte)];
        if class == GAP {
            break;
        }
        seen |= class;
        end += 1;
    }
    if seen & WIDE == 0 {
        return (end, end > WORD_BYTES_MAX || seen & DIGIT != 0);
    }
    let end = wide_run(text, true);
    (end, is_variable(&text[..end]))
}

/// Length of the leading run of characters that are (or are not) alphanumeric.
#[cold]
fn wide_run(text: &str, alphanumeric: bool) -> usize {
    text.find(|c: char| c.is_alphanumeric() != alphanumeric).unwrap_or(text.len())
}

/// A word in the form in which words are compared.
pub fn fold(word: &str) -> Cow<'_, str> {
    if word.bytes().all(|b| b < 0x80 && !b.is_ascii_uppercase()) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(word.chars().flat_map(char::to_lowercase).collect())
    }
}

/// The folded words of a text.
pub fn folded_words(text: &str) -> Vec<Box<str>> {
    words(text).map(|word| fold(word).as_ref().into()).collect()
}

/// Whether a word, folded or not, is taken out of patterns.
#[inline]
pub fn is_variable(word: &str) -> bool {
    if word.is_ascii() {
        return word.len() > WORD_BYTES_MAX || word.bytes().any(|b| b.is_ascii_digit());
    }
    // Folding may change the length: only the folded form decides, so that a query decides alike.
    let word = fold(word);
    word.len() > WORD_BYTES_MAX || word.chars().any(char::is_numeric)
}

/// Writes the pattern of a body: itself with a [`SLOT`] for each variable word.
///
/// Returns false, with `out` unspecified, when the body has no pattern.
pub fn pattern(body: &str, out: &mut String) -> bool {
    if memchr::memchr(SLOT as u8, body.as_bytes()).is_some() {
        return false;
    }
    out.clear();
    let mut rest = body;
    loop {
        let gap = gap_bytes(rest);
        let after = &rest[gap..];
        let (end, variable) = word_bytes(after);
        if end == 0 {
            out.push_str(rest);
            return true;
        }
        if variable {
            out.push_str(&rest[..gap]);
            out.push(SLOT);
        } else {
            out.push_str(&rest[..gap + end]);
        }
        rest = &after[end..];
    }
}

/// A stored pattern for people: slots as `<*>`, quoted text too, runs of slots with their separators once.
pub fn shown(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            SLOT => {
                // `<*>-<*>-<*>` and `<*>.<*>` are one value to a reader: an id, a decimal, an address.
                let mut tail = after;
                while let Some(next) = tail.strip_prefix(['-', '.', ':', '/', '_']) {
                    let Some(next) = next.strip_prefix(SLOT) else { break };
                    tail = next;
                }
                out.push_str(SLOT_SHOWN);
                rest = tail;
            }
            '"' => match after.find('"') {
                Some(end) => {
                    let _ = write!(out, "\"{SLOT_SHOWN}\"");
                    rest = &after[end + 1..];
                }
                None => {
                    out.push(c);
                    rest = after;
                }
            },
            _ => {
                out.push(c);
                rest = after;
            }
        }
    }
    out
}

/// One thing to look for in a text: adjacent words, the last of which may be only a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    words: Vec<Box<str>>,
    prefix: bool,
    /// All words are ASCII: only then can they stand in ASCII text.
    ascii: bool,
}

impl Needle {
    /// * `words`: folded, at least one.
    /// * `prefix`: the last word may go on.
    pub fn new(words: Vec<Box<str>>, prefix: bool) -> Self {
        debug_assert!(!words.is_empty());
        let ascii = words.iter().all(|word| word.is_ascii());
        Self { words, prefix, ascii }
    }

    pub fn words(&self) -> &[Box<str>] {
        &self.words
    }

    pub fn is_prefix(&self) -> bool {
        self.prefix
    }

    /// Whether the words stand next to each other in `text`.
    pub fn is_in(&self, text: &str) -> bool {
        if text.is_ascii() { self.ascii && self.is_in_ascii(text) } else { self.is_in_words(text) }
    }

    /// Jumps from one occurrence of the first letter to the next instead of splitting the text.
    fn is_in_ascii(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let first = self.words[0].as_bytes();
        let Some(&letter) = first.first() else { return false };
        let upper = letter.to_ascii_uppercase();
        let mut at = 0;
        while let Some(found) = memchr::memchr2(letter, upper, &bytes[at..]) {
            let start = at + found;
            at = start + 1;
            let bounded = start == 0 || !bytes[start - 1].is_ascii_alphanumeric();
            if bounded && self.stands_at(&bytes[start..]) {
                return true;
            }
        }
        false
    }

    /// Whether all words follow from the start of `bytes`, which begins a word.
    fn stands_at(&self, mut bytes: &[u8]) -> bool {
        for (i, word) in self.words.iter().enumerate() {
            if i > 0 {
                let gap = bytes.iter().position(u8::is_ascii_alphanumeric);
                match gap {
                    Some(gap) => bytes = &bytes[gap..],
                    None => return false,
                }
            }
            let Some(head) = bytes.get(..word.len()) else { return false };
            if !head.eq_ignore_ascii_case(word.as_bytes()) {
                return false;
            }
            bytes = &bytes[word.len()..];
            let open = self.prefix && i + 1 == self.words.len();
            if !open && bytes.first().is_some_and(u8::is_ascii_alphanumeric) {
                return false;
            }
        }
        true
    }

    fn is_in_words(&self, text: &str) -> bool {
        let mut from = words(text);
        loop {
            let mut here = from.clone();
            if from.next().is_none() {
                return false;
            }
            let fits = self.words.iter().enumerate().all(|(i, wanted)| {
                here.next().is_some_and(|word| self.word_fits(i, wanted, &fold(word)))
            });
            if fits {
                return true;
            }
        }
    }

    fn word_fits(&self, i: usize, wanted: &str, word: &str) -> bool {
        if self.prefix && i + 1 == self.words.len() {
            word.starts_with(wanted)
        } else {
            word == wanted
        }
    }

    /// Whether the words stand in every text of a pattern, in none, or (`None`) it depends on the text.
    pub fn is_in_pattern(&self, tokens: &[PatternToken]) -> Option<bool> {
        let mut open = false;
        for start in 0..tokens.len() {
            let Some(window) = tokens.get(start..start + self.words.len()) else { break };
            let (mut fits, mut sure) = (true, true);
            for (i, (wanted, token)) in self.words.iter().zip(window).enumerate() {
                let last = self.prefix && i + 1 == self.words.len();
                match token {
                    PatternToken::Word(word) => fits &= self.word_fits(i, wanted, word),
                    // A prefix without digits may go on into a variable word: `pay*` fits `pay42`.
                    PatternToken::Slot if last || is_variable(wanted) => sure = false,
                    PatternToken::Slot => fits = false,
                }
            }
            match (fits, sure) {
                (true, true) => return Some(true),
                (true, false) => open = true,
                (false, _) => {}
            }
        }
        if open { None } else { Some(false) }
    }
}

/// What stands in a pattern at the place of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternToken {
    /// A folded word.
    Word(Box<str>),
    Slot,
}

/// The words and slots of a stored pattern, in order.
pub fn pattern_tokens(pattern: &str) -> Vec<PatternToken> {
    let mut tokens = Vec::new();
    for (i, part) in pattern.split(SLOT).enumerate() {
        if i > 0 {
            tokens.push(PatternToken::Slot);
        }
        tokens.extend(words(part).map(|word| PatternToken::Word(fold(word).as_ref().into())));
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn needle(text: &str, prefix: bool) -> Needle {
        Needle::new(folded_words(text), prefix)
    }

    /// The definition, word for word.
    fn naive(needle: &Needle, text: &str) -> bool {
        let all = folded_words(text);
        all.windows(needle.words.len()).any(|window| {
            window.iter().enumerate().all(|(i, word)| needle.word_fits(i, &needle.words[i], word))
        })
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(
            folded_words("Payment-Failed_42: Größe=ÄÖ, 支付失败 (x)").join("|"),
            "payment|failed|42|größe|äö|支付失败|x"
        );
        assert!(folded_words(" -- ").is_empty());
    }

    #[test]
    fn a_pattern_keeps_everything_but_variable_words() {
        let mut out = String::new();
        assert!(pattern("GET /cart/u17 took 35ms (42)", &mut out));
        assert_eq!(out, "GET /cart/\u{1} took \u{1} (\u{1})");
        assert!(!pattern("odd \u{1} body", &mut out));
    }

    #[test]
    fn shown_patterns_join_what_reads_as_one_value() {
        let mut out = String::new();
        assert!(pattern(r#"user "ann b" from 10.0.0.7 paid 3.50 for a1-b2-c3"#, &mut out));
        assert_eq!(shown(&out), r#"user "<*>" from <*> paid <*> for <*>"#);
    }

    #[test]
    fn a_word_is_found_whole_and_in_any_case() {
        assert!(needle("timeout", false).is_in("Upstream TIMEOUT: retry"));
        assert!(!needle("time", false).is_in("Upstream TIMEOUT: retry"));
        assert!(needle("time", true).is_in("Upstream TIMEOUT: retry"));
        assert!(needle("card declined", false).is_in("payment: card - Declined!"));
        assert!(!needle("card declined", false).is_in("card was declined"));
        assert!(needle("größe", false).is_in("Die GRÖSSE ist GRÖßE"));
        assert!(needle("k", false).is_in("\u{212a} is the Kelvin sign"));
    }

    proptest! {
        #[test]
        fn words_and_the_variable_among_them_are_those_of_the_definition(
            text in "[aZ09é\u{212a}²٣— _.-]{0,40}|[a-z0-9]{60,70}[ é]",
        ) {
            let all: Vec<&str> =
                text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), all.clone());
            let variable = all.into_iter().filter(|word| is_variable(word));
            prop_assert_eq!(variable_words(&text).collect::<Vec<_>>(), variable.collect::<Vec<_>>());
        }

        #[test]
        fn the_quick_search_agrees_with_the_definition(
            text in "[aAbB1é\u{212a} _.-]{0,24}",
            find in "[aAbBkK1é]{1,3}( [aAbB1]{1,2})?",
            prefix: bool,
        ) {
            let needle = needle(&find, prefix);
            prop_assert_eq!(needle.is_in(&text), naive(&needle, &text));
        }

        #[test]
        fn what_a_pattern_says_holds_for_its_body(
            body in "[abAB1 _.-]{0,24}",
            find in "[abAB1]{1,3}( [abAB1]{1,2})?",
            prefix: bool,
        ) {
            let needle = needle(&find, prefix);
            let mut stored = String::new();
            prop_assert!(pattern(&body, &mut stored));
            if let Some(known) = needle.is_in_pattern(&pattern_tokens(&stored)) {
                prop_assert_eq!(known, needle.is_in(&body));
            }
        }
    }
}
