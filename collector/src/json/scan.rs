//! JSON, read in place: the lexical half of the transcoder. Source: RFC 8259.

use std::borrow::Cow;

/// Why JSON could not be turned into a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {what}")]
pub struct Fault {
    pub at: usize,
    pub what: String,
    /// The text is not JSON (or nests absurdly): nothing after this point can be trusted. Otherwise one value is not
    /// what its field asks for, and reading may go on behind it.
    pub syntax: bool,
}

pub(super) type Scanned<T> = Result<T, Fault>;

/// Brackets deeper than this are refused wherever they stand, also in keys we ignore. A legal request needs about
/// four per level of an attribute value.
const BRACKETS_MAX: usize = 1000;

/// A place in a JSON text. Every method that reads a value first skips white space.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    text: &'a [u8],
    pub at: usize,
}

impl<'a> Scan<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    pub fn syntax(&self, what: impl Into<String>) -> Fault {
        Fault { at: self.at, what: what.into(), syntax: true }
    }

    pub fn wrong(&self, at: usize, what: impl Into<String>) -> Fault {
        Fault { at, what: what.into(), syntax: false }
    }

    fn skip_white(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space.
    pub fn peek(&mut self) -> Scanned<u8> {
        self.skip_white();
        self.text.get(self.at).copied().ok_or_else(|| self.syntax("the text ends here"))
    }

    /// Steps over `byte` if it is next.
    pub fn take(&mut self, byte: u8) -> Scanned<bool> {
        let found = self.peek()? == byte;
        self.at += usize::from(found);
        Ok(found)
    }

    /// Steps over `null` if it is next: a field that is not set.
    pub fn take_null(&mut self) -> Scanned<bool> {
        if self.peek()? != b'n' {
            return Ok(false);
        }
        self.word(b"null")?;
        Ok(true)
    }

    fn word(&mut self, word: &[u8]) -> Scanned<()> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.syntax("this is not a JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    pub fn end(&mut self) -> Scanned<()> {
        self.skip_white();
        if self.at < self.text.len() {
            return Err(self.syntax("there is more text behind the request"));
        }
        Ok(())
    }

    /// Between two members or elements: true when another one follows, false when `close` ended the list.
    pub fn another(&mut self, close: u8) -> Scanned<bool> {
        let byte = self.peek()?;
        if byte != b',' && byte != close {
            return Err(self.syntax(format!("expected `,` or `{}`", char::from(close))));
        }
        self.at += 1;
        Ok(byte == b',')
    }

    /// A member's key with its colon.
    pub fn key(&mut self) -> Scanned<Cow<'a, [u8]>> {
        if self.peek()? != b'"' {
            return Err(self.syntax("expected a key in double quotes"));
        }
        let key = self.string()?;
        if !self.take(b':')? {
            return Err(self.syntax("expected `:`"));
        }
        Ok(key)
    }

    /// A string, its escapes undone. Bytes that are not UTF-8 are passed on: decoders replace them, as they do for
    /// protobuf.
    pub fn string(&mut self) -> Scanned<Cow<'a, [u8]>> {
        if !self.take(b'"')? {
            return Err(self.wrong(self.at, "expected a string"));
        }
        let start = self.at;
        self.plain_run()?;
        if self.text[self.at] == b'"' {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
        }
        let mut whole = self.text[start..self.at].to_vec();
        while self.text[self.at] != b'"' {
            self.escape(&mut whole)?;
            let start = self.at;
            self.plain_run()?;
            whole.extend_from_slice(&self.text[start..self.at]);
        }
        self.at += 1;
        Ok(Cow::Owned(whole))
    }

    /// Runs to the next quote or backslash, which is there when this returns.
    fn plain_run(&mut self) -> Scanned<()> {
        let rest = &self.text[self.at..];
        let Some(len) = rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20) else {
            self.at = self.text.len();
            return Err(self.syntax("the text ends inside a string"));
        };
        self.at += len;
        if rest[len] < 0x20 {
            return Err(self.syntax("a control character in a string must be escaped"));
        }
        Ok(())
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Scanned<()> {
        let Some(&letter) = self.text.get(self.at + 1) else {
            return Err(self.syntax("the text ends inside a string"));
        };
        self.at += 2;
        out.push(match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let unit = self.four_hex()?;
                let c = self.character(unit)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.syntax("unknown escape in a string")),
        });
        Ok(())
    }

    /// The character of a UTF-16 unit and, if it is the first half of a pair, the unit behind it. A lone half is
    /// U+FFFD, like other text that can't be encoded.
    fn character(&mut self, unit: u16) -> Scanned<char> {
        if (0xd800..0xdc00).contains(&unit) && self.text[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let low = self.four_hex()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + (u32::from(unit - 0xd800) << 10) + u32::from(low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn four_hex(&mut self) -> Scanned<u16> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        let valid = digits.len() == 4 && digits.iter().all(u8::is_ascii_hexdigit);
        let value = std::str::from_utf8(digits).ok().and_then(|d| u16::from_str_radix(d, 16).ok());
        match value {
            Some(unit) if valid => {
                self.at += 4;
                Ok(unit)
            }
            _ => Err(self.syntax("\\u wants four hex digits")),
        }
    }

    pub fn boolean(&mut self) -> Scanned<bool> {
        match self.peek()? {
            b't' => self.word(b"true").map(|()| true),
            b'f' => self.word(b"false").map(|()| false),
            _ => Err(self.wrong(self.at, "expected true or false")),
        }
    }

    /// A number as it is written.
    pub fn number(&mut self) -> Scanned<&'a str> {
        if !matches!(self.peek()?, b'-' | b'0'..=b'9') {
            return Err(self.wrong(self.at, "expected a number"));
        }
        let len = number_len(&self.text[self.at..])
            .ok_or_else(|| self.syntax("this is not a JSON number"))?;
        let text = &self.text[self.at..self.at + len];
        self.at += len;
        std::str::from_utf8(text).map_err(|_| self.syntax("this is not a JSON number"))
    }

    /// A number, or the number that a string holds: 64-bit integers are written so.
    pub fn number_or_text(&mut self) -> Scanned<Cow<'a, str>> {
        if self.peek()? != b'"' {
            return self.number().map(Cow::Borrowed);
        }
        let at = self.at;
        match self.string()? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
        .ok_or_else(|| self.wrong(at, "expected a number"))
    }

    /// Steps over any value, without recursion.
    pub fn skip_value(&mut self) -> Scanned<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek()? {
                byte @ (b'{' | b'[') => {
                    if open.len() == BRACKETS_MAX {
                        return Err(
                            self.syntax(format!("nested deeper than {BRACKETS_MAX} levels"))
                        );
                    }
                    self.at += 1;
                    let close = byte + 2;
                    if !self.take(close)? {
                        open.push(close);
                        if close == b'}' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b't' | b'f' => drop(self.boolean()?),
                b'n' => self.word(b"null")?,
                b'-' | b'0'..=b'9' => drop(self.number()?),
                _ => return Err(self.syntax("this is not a JSON value")),
            }
            loop {
                let Some(&close) = open.last() else { return Ok(()) };
                if self.another(close)? {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }
}

/// Length of the number at the start of `text`; `None` if there is none.
pub(super) fn number_len(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}
