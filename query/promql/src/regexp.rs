//! Regular expressions of label matchers: RE2 syntax, anchored at both ends, `.` matches newline.
//!
//! Patterns are rewritten from RE2's syntax to that of the `regex` crate where the two differ, then
//! taken apart: what is just a literal, a choice of literals or a literal prefix never reaches the
//! automaton.

use std::collections::HashSet;

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// The largest compiled form of a pattern, in bytes. A pattern beyond it is refused, so that a
/// query can't take memory through nested repetition.
const COMPILED_SIZE_MAX: usize = 4 << 20;
/// More alternatives than this are left to the automaton.
const LITERALS_MAX: usize = 4096;

/// Why a pattern was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RegexpError(String);

/// A compiled, fully anchored pattern.
#[derive(Debug)]
pub struct Regexp {
    kind: Kind,
    prefix: String,
}

#[derive(Debug)]
enum Kind {
    /// `.*`: everything.
    Any,
    /// `.+`: everything but the empty string.
    NonEmpty,
    /// `a`, `a|b|c`, `a(b|c)`.
    Literals { list: Vec<String>, set: HashSet<String> },
    /// `a.*`
    Prefix,
    /// `.*a`
    Suffix(String),
    /// `.*a.*`
    Contains(String),
    /// Anything else.
    Automaton(regex::Regex),
}

impl Regexp {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// If it is not valid RE2 syntax or its compiled form is too large.
    pub fn new(pattern: &str) -> Result<Self, RegexpError> {
        let translated = translate(pattern)?;
        let hir = regex_syntax::ParserBuilder::new()
            .dot_matches_new_line(true)
            .nest_limit(250)
            .build()
            .parse(&translated)
            .map_err(|e| RegexpError(syntax_message(&e, pattern)))?;
        if let Some(kind) = simple_kind(&hir) {
            let prefix = match &kind {
                Kind::Literals { list, .. } => common_prefix(list),
                _ => leading_literal(&hir),
            };
            return Ok(Regexp { kind, prefix });
        }
        let automaton = regex::RegexBuilder::new(&format!("^(?s:{translated})$"))
            .size_limit(COMPILED_SIZE_MAX)
            .build()
            .map_err(|e| RegexpError(e.to_string()))?;
        Ok(Regexp { kind: Kind::Automaton(automaton), prefix: leading_literal(&hir) })
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Any => true,
            Kind::NonEmpty => !text.is_empty(),
            Kind::Literals { list, set } => {
                if list.len() <= 8 {
                    list.iter().any(|l| l == text)
                } else {
                    set.contains(text)
                }
            }
            Kind::Prefix => text.starts_with(&self.prefix),
            Kind::Suffix(s) => text.ends_with(s.as_str()),
            Kind::Contains(s) => text.contains(s.as_str()),
            Kind::Automaton(r) => text.starts_with(&self.prefix) && r.is_match(text),
        }
    }

    /// All texts that match, if the pattern is a choice of literals.
    pub fn literals(&self) -> Option<&[String]> {
        match &self.kind {
            Kind::Literals { list, .. } => Some(list),
            _ => None,
        }
    }

    /// A prefix that every matching text has; may be empty.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// Compiles a pattern for use with capture groups, as `label_replace` does: RE2 syntax, anchored,
/// `.` matches newline.
pub fn compile_captures(pattern: &str) -> Result<regex::Regex, RegexpError> {
    let translated = translate(pattern)?;
    regex::RegexBuilder::new(&format!("^(?s:{translated})$"))
        .size_limit(COMPILED_SIZE_MAX)
        .build()
        .map_err(|e| RegexpError(e.to_string()))
}

fn syntax_message(error: &regex_syntax::Error, pattern: &str) -> String {
    let reason = match error {
        regex_syntax::Error::Parse(e) => e.kind().to_string(),
        regex_syntax::Error::Translate(e) => e.kind().to_string(),
        other => other.to_string(),
    };
    format!("error parsing regexp: {reason}: `{pattern}`")
}

/// Rewrites RE2 syntax into the syntax of the `regex` crate: Perl classes are ASCII only, `{` that
/// starts no repetition is a literal, `[` inside a class is a literal, `\Q…\E` quotes.
fn translate(pattern: &str) -> Result<String, RegexpError> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut i = 0;
    let mut class_depth = false;
    let mut class_start = 0;
    while i < chars.len() {
        let c = chars[i];
        match c {
            '\\' => {
                let Some(&next) = chars.get(i + 1) else {
                    return Err(RegexpError(
                        "error parsing regexp: trailing backslash at end of expression: ``".into(),
                    ));
                };
                match next {
                    'd' => out.push_str("[0-9]"),
                    'D' => out.push_str("[^0-9]"),
                    's' => out.push_str("[\\t\\n\\f\\r ]"),
                    'S' => out.push_str("[^\\t\\n\\f\\r ]"),
                    'w' => out.push_str("[0-9A-Za-z_]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    'b' if !class_depth => out.push_str("(?-u:\\b)"),
                    'B' if !class_depth => out.push_str("(?-u:\\B)"),
                    'Q' if !class_depth => {
                        i += 2;
                        while i < chars.len() {
                            if chars[i] == '\\' && chars.get(i + 1) == Some(&'E') {
                                break;
                            }
                            out.push_str(&regex_syntax::escape(&chars[i].to_string()));
                            i += 1;
                        }
                        i = (i + 2).min(chars.len());
                        continue;
                    }
                    '1'..='7' | '0' if !class_depth && next != '0' => {
                        return Err(RegexpError(format!(
                            "error parsing regexp: invalid escape sequence: `\\{next}`"
                        )));
                    }
                    '<' | '>' => out.push(next),
                    _ => {
                        out.push('\\');
                        out.push(next);
                    }
                }
                i += 2;
            }
            '[' if !class_depth => {
                class_depth = true;
                out.push('[');
                i += 1;
                if chars.get(i) == Some(&'^') {
                    out.push('^');
                    i += 1;
                }
                class_start = i;
                // A bracket right at the start of a class is a literal.
                if chars.get(i) == Some(&']') {
                    out.push_str("\\]");
                    i += 1;
                }
            }
            '[' => {
                // A POSIX class such as [:alpha:] passes, any other bracket is a literal.
                if chars.get(i + 1) == Some(&':')
                    && let Some(end) = find(&chars, i + 2, &[':', ']'])
                {
                    out.extend(&chars[i..end + 2]);
                    i = end + 2;
                } else {
                    out.push_str("\\[");
                    i += 1;
                }
            }
            ']' if class_depth => {
                class_depth = false;
                out.push(']');
                i += 1;
            }
            '&' | '~' if class_depth => {
                out.push('\\');
                out.push(c);
                i += 1;
            }
            '-' if class_depth => {
                // `--` would be set difference.
                if chars.get(i + 1) == Some(&'-') || i == class_start {
                    out.push('\\');
                }
                out.push('-');
                i += 1;
            }
            '{' if !class_depth && !starts_repetition(&chars[i..]) => {
                out.push_str("\\{");
                i += 1;
            }
            '}' if !class_depth => {
                out.push(c);
                i += 1;
            }
            _ => {
                out.push(c);
                i += 1;
            }
        }
    }
    Ok(out)
}

fn find(chars: &[char], from: usize, what: &[char]) -> Option<usize> {
    (from..chars.len().saturating_sub(what.len() - 1)).find(|&i| chars[i..].starts_with(what))
}

fn starts_repetition(rest: &[char]) -> bool {
    let mut i = 1;
    let digits = |i: &mut usize| {
        let start = *i;
        while rest.get(*i).is_some_and(char::is_ascii_digit) {
            *i += 1;
        }
        *i > start
    };
    if !digits(&mut i) {
        return false;
    }
    if rest.get(i) == Some(&',') {
        i += 1;
        digits(&mut i);
    }
    rest.get(i) == Some(&'}')
}

fn simple_kind(hir: &Hir) -> Option<Kind> {
    if let Some(list) = literals_of(hir) {
        let set = list.iter().cloned().collect();
        return Some(Kind::Literals { list, set });
    }
    if is_any(hir, 0) {
        return Some(Kind::Any);
    }
    if is_any(hir, 1) {
        return Some(Kind::NonEmpty);
    }
    let HirKind::Concat(parts) = strip(hir).kind() else { return None };
    let mut parts: Vec<&Hir> = parts.iter().map(strip).collect();
    // Explicit anchors at the ends are redundant; anywhere else they matter.
    while parts.first().is_some_and(|h| is_look(h, Look::Start)) {
        parts.remove(0);
    }
    while parts.last().is_some_and(|h| is_look(h, Look::End)) {
        parts.pop();
    }
    let text = |h: &Hir| match h.kind() {
        HirKind::Literal(l) => std::str::from_utf8(&l.0).ok().map(str::to_owned),
        _ => None,
    };
    match parts[..] {
        [a, b] if is_any(b, 0) => text(a).map(|_| Kind::Prefix),
        [a, b] if is_any(a, 0) => text(b).map(Kind::Suffix),
        [a, b, c] if is_any(a, 0) && is_any(c, 0) => text(b).map(Kind::Contains),
        _ => None,
    }
}

/// Capture groups make no difference to matching.
fn strip(hir: &Hir) -> &Hir {
    match hir.kind() {
        HirKind::Capture(c) => strip(&c.sub),
        _ => hir,
    }
}

fn is_look(hir: &Hir, look: Look) -> bool {
    matches!(hir.kind(), HirKind::Look(l) if *l == look)
}

fn is_any(hir: &Hir, min: u32) -> bool {
    let HirKind::Repetition(r) = strip(hir).kind() else { return false };
    if r.min != min || r.max.is_some() {
        return false;
    }
    let HirKind::Class(Class::Unicode(class)) = strip(&r.sub).kind() else { return false };
    matches!(class.ranges(), [only] if only.start() == '\0' && only.end() == char::MAX)
}

/// All texts a pattern matches, if they are few and the pattern has no repetition.
fn literals_of(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(l) => Some(vec![std::str::from_utf8(&l.0).ok()?.to_owned()]),
        HirKind::Capture(c) => literals_of(&c.sub),
        HirKind::Class(Class::Unicode(class)) => {
            let mut list = Vec::new();
            for range in class.ranges() {
                for c in range.start()..=range.end() {
                    if list.len() >= 64 {
                        return None;
                    }
                    list.push(c.to_string());
                }
            }
            Some(list)
        }
        HirKind::Repetition(r) if r.min == 0 && r.max == Some(1) => {
            let mut list = literals_of(&r.sub)?;
            list.push(String::new());
            Some(list)
        }
        HirKind::Alternation(subs) => {
            let mut list: Vec<String> = Vec::new();
            for sub in subs {
                list.extend(literals_of(sub)?);
                if list.len() > LITERALS_MAX {
                    return None;
                }
            }
            Some(list)
        }
        HirKind::Concat(subs) => {
            let mut list = vec![String::new()];
            for sub in subs {
                let tails = literals_of(sub)?;
                if list.len() * tails.len() > LITERALS_MAX {
                    return None;
                }
                list = list
                    .iter()
                    .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")))
                    .collect();
            }
            Some(list)
        }
        _ => None,
    }
}

fn common_prefix(list: &[String]) -> String {
    let Some(first) = list.first() else { return String::new() };
    let mut len = first.len();
    for other in &list[1..] {
        len = first.bytes().zip(other.bytes()).take(len).take_while(|(a, b)| a == b).count();
    }
    while !first.is_char_boundary(len) {
        len -= 1;
    }
    first[..len].to_owned()
}

/// The literal a pattern starts with, looking through groups and sequences.
fn leading_literal(hir: &Hir) -> String {
    match hir.kind() {
        HirKind::Literal(l) => std::str::from_utf8(&l.0).unwrap_or("").to_owned(),
        HirKind::Capture(c) => leading_literal(&c.sub),
        HirKind::Concat(subs) => {
            let first = subs.iter().find(|h| !is_look(h, Look::Start));
            first.map(leading_literal).unwrap_or_default()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let r = Regexp::new(pattern).unwrap();
        for text in yes {
            assert!(r.is_match(text), "{pattern:?} should match {text:?}: {r:?}");
        }
        for text in no {
            assert!(!r.is_match(text), "{pattern:?} should not match {text:?}: {r:?}");
        }
    }

    #[test]
    fn patterns_are_anchored_at_both_ends() {
        check("a|b", &["a", "b"], &["ab", "", "xa"]);
        check("fo+", &["fo", "foo"], &["foob", "afo"]);
        check("", &[""], &["a"]);
        check("^a$", &["a"], &["aa"]);
    }

    #[test]
    fn dot_matches_newline() {
        check(".*", &["", "a\nb"], &[]);
        check("a.b", &["a\nb"], &[]);
        check(".+", &["\n"], &[""]);
    }

    #[test]
    fn simple_shapes_need_no_automaton() {
        for pattern in ["a|b|c", "a(b|c)d", ".*", ".+", "a.*", ".*a", ".*a.*", "[ab]c", "(?i:1)"] {
            let r = Regexp::new(pattern).unwrap();
            assert!(!matches!(r.kind, Kind::Automaton(_)), "{pattern}: {r:?}");
        }
        check("api-(get|put)?", &["api-", "api-get"], &["api", "api-x"]);
        check("/v1/.*", &["/v1/", "/v1/x"], &["/v2/", "/v1"]);
        check(".*/x", &["/x", "a/x"], &["/xa"]);
        check(".*b.*", &["b", "abc"], &["ac"]);
        assert_eq!(Regexp::new("prod-.*x").unwrap().prefix(), "prod-");
        assert_eq!(Regexp::new("prod-(a|b)").unwrap().prefix(), "prod-");
    }

    #[test]
    fn re2_syntax_that_differs_is_translated() {
        check(r"/api/{id}", &["/api/{id}"], &["/api/id"]);
        check(r"a{2,3}", &["aa", "aaa"], &["a", "a{2,3}"]);
        check(r"\d+", &["12"], &["٣"]);
        check(r"[\w.]+", &["a.b_1"], &["é"]);
        check(r"[[]x", &["[x"], &["x"]);
        check(r"[]a]", &["]", "a"], &["b"]);
        check(r"\Qa.b\E.", &["a.bc"], &["axbc"]);
        check(r"(?i)FOO", &["foo", "Foo"], &["fo"]);
        check(r"[a&&b]", &["&", "a", "b"], &["c"]);
        check(r"[[:alpha:]]+", &["abc"], &["1"]);
    }

    #[test]
    fn a_pattern_that_would_explode_is_refused() {
        assert!(Regexp::new("((((a{1,100}){1,100}){1,100}){1,100}){1,100}").is_err());
        assert!(Regexp::new("(").is_err());
        assert!(Regexp::new(r"\").is_err());
    }
}
