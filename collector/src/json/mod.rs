//! OTLP/JSON to OTLP protobuf, in one pass.
//!
//! A JSON request is rewritten as the protobuf request it stands for, so that everything behind the receivers knows
//! one encoding. What it may look like is in `schema.rs`; this file walks the JSON text along that table and writes
//! the wire format. How OTLP bends the protobuf JSON mapping: ids are hex, enums are numbers only, keys are
//! lowerCamelCase only, unknown keys are ignored. Libraries refuse `null`, `{}` or `"NaN"` where all are legal,
//! which is why this is our own.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding"; protobuf.dev, "ProtoJSON Format".

mod scan;
mod schema;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
pub use scan::Fault;
use scan::{Scan, Scanned, number_len};
use schema::{Field, Kind, Message, Shape};
use trefoil_storage::signal::FrameKind;
use trefoil_storage::wire;

/// What became of a JSON request.
#[derive(Debug, PartialEq)]
pub struct Transcoded {
    /// The same request in protobuf, without the records that could not be read.
    pub protobuf: Vec<u8>,
    /// Records left out: a value in them is not what its field asks for.
    pub rejected: u64,
    /// Why the first of them was left out.
    pub reason: Option<String>,
}

/// Turns a JSON export request into protobuf.
///
/// # Errors
/// When the text is not JSON, or a value outside the records (in a resource, say) is not what its field asks for.
pub fn transcode(kind: FrameKind, text: &[u8]) -> Result<Transcoded, Fault> {
    let message = match kind {
        FrameKind::OtlpTraces => &schema::TRACES,
        FrameKind::OtlpLogs => &schema::LOGS,
        _ => &schema::METRICS,
    };
    let mut transcoder = Transcoder {
        scan: Scan::new(text),
        out: Vec::with_capacity(text.len() / 2),
        rejected: 0,
        reason: None,
    };
    if transcoder.scan.peek()? != b'{' {
        return Err(transcoder.scan.syntax(format!("expected an object: {}", message.name)));
    }
    transcoder.message(message, 0)?;
    transcoder.scan.end()?;
    let Transcoder { out, rejected, reason, .. } = transcoder;
    Ok(Transcoded { protobuf: out, rejected, reason })
}

/// Lists and maps that may enclose a value, one more than the decoders take: they judge the sixty-fifth, here the
/// walk only has to end.
const NESTING_MAX: usize = 65;

struct Transcoder<'a> {
    scan: Scan<'a>,
    out: Vec<u8>,
    rejected: u64,
    reason: Option<String>,
}

/// Where in the output each field of the object being read stands, so that a repeated key can replace the first.
#[derive(Default)]
struct Written {
    ranges: [Option<(u32, u32)>; FIELDS_MAX],
}

/// `Span` has the most fields.
const FIELDS_MAX: usize = 16;

impl Transcoder<'_> {
    /// Reads an object and writes its fields. `null` is an object with none.
    fn message(&mut self, message: &'static Message, nesting: usize) -> Scanned<()> {
        if self.scan.take_null()? {
            return Ok(());
        }
        if !self.scan.take(b'{')? {
            let what = format!("expected an object: {}", message.name);
            return Err(self.scan.wrong(self.scan.at, what));
        }
        if self.scan.take(b'}')? {
            return Ok(());
        }
        let mut written = Written::default();
        let mut expected = 0;
        loop {
            let key = self.scan.key()?;
            match field_of(message, &key, expected) {
                Some(index) => {
                    self.forget(&mut written, index);
                    let start = self.out.len();
                    self.field(&message.fields[index], nesting)?;
                    written.ranges[index] = Some((start as u32, self.out.len() as u32));
                    expected = index + 1;
                }
                None => self.scan.skip_value()?,
            }
            if !self.scan.another(b'}')? {
                return Ok(());
            }
        }
    }

    /// Takes back what an earlier member with the same key wrote: the last one counts.
    fn forget(&mut self, written: &mut Written, index: usize) {
        let Some((start, end)) = written.ranges[index].take() else { return };
        self.out.drain(start as usize..end as usize);
        for range in written.ranges.iter_mut().flatten() {
            if range.0 >= end {
                *range = (range.0 - (end - start), range.1 - (end - start));
            }
        }
    }

    fn field(&mut self, field: &'static Field, nesting: usize) -> Scanned<()> {
        if self.scan.take_null()? {
            return Ok(());
        }
        if field.shape == Shape::One {
            return self.single(field, nesting);
        }
        if !self.scan.take(b'[')? {
            let what = format!("expected an array under \"{}\"", field.key);
            return Err(self.scan.wrong(self.scan.at, what));
        }
        if self.scan.take(b']')? {
            return Ok(());
        }
        match field.kind {
            Kind::Message(_) | Kind::Any => self.elements(field, nesting),
            _ => self.packed(field),
        }
    }

    fn elements(&mut self, field: &'static Field, nesting: usize) -> Scanned<()> {
        loop {
            let (scan, end) = (self.scan, self.out.len());
            match self.single(field, nesting) {
                Ok(()) => {}
                Err(fault) if field.shape == Shape::Records && !fault.syntax => {
                    self.out.truncate(end);
                    self.scan = scan;
                    self.scan.skip_value()?;
                    self.rejected += 1;
                    self.reason.get_or_insert_with(|| fault.to_string());
                }
                Err(fault) => return Err(fault),
            }
            if !self.scan.another(b']')? {
                return Ok(());
            }
        }
    }

    /// Repeated numbers share one tag.
    fn packed(&mut self, field: &'static Field) -> Scanned<()> {
        self.tag(field.number, 2);
        let body = self.open();
        loop {
            self.number(field.kind, None)?;
            if !self.scan.another(b']')? {
                self.close(body);
                return Ok(());
            }
        }
    }

    /// One value with its tag.
    fn single(&mut self, field: &'static Field, nesting: usize) -> Scanned<()> {
        match field.kind {
            Kind::Message(message) => self.nested(field.number, message, nesting),
            Kind::Any if nesting == NESTING_MAX => {
                let what = "a value nests deeper than 64 levels";
                Err(self.scan.wrong(self.scan.at, what))
            }
            Kind::Any => self.nested(field.number, &schema::ANY_VALUE, nesting + 1),
            Kind::Text => {
                let text = self.scan.string()?;
                wire::put_bytes(&mut self.out, field.number, &text);
                Ok(())
            }
            Kind::HexId => {
                let at = self.scan.at;
                let id = unhex(&self.scan.string()?)
                    .ok_or_else(|| self.scan.wrong(at, format!("\"{}\" is not hex", field.key)))?;
                wire::put_bytes(&mut self.out, field.number, &id);
                Ok(())
            }
            Kind::Base64 => {
                let at = self.scan.at;
                let bytes = unbase64(&self.scan.string()?).ok_or_else(|| {
                    self.scan.wrong(at, format!("\"{}\" is not base64", field.key))
                })?;
                wire::put_bytes(&mut self.out, field.number, &bytes);
                Ok(())
            }
            kind => self.number(kind, Some(field.number)),
        }
    }

    fn nested(&mut self, number: u32, message: &'static Message, nesting: usize) -> Scanned<()> {
        self.tag(number, 2);
        let body = self.open();
        self.message(message, nesting)?;
        self.close(body);
        Ok(())
    }

    /// A value that is a number on the wire, with a tag if `field` is given. Zero is written too: some fields tell
    /// it from an absent one.
    fn number(&mut self, kind: Kind, field: Option<u32>) -> Scanned<()> {
        let (wire_type, bits) = match kind {
            Kind::Bool => (0, u64::from(self.scan.boolean()?)),
            Kind::Enum => {
                let at = self.scan.at;
                if self.scan.peek()? == b'"' {
                    return Err(self.scan.wrong(at, "enums are numbers in OTLP/JSON, not names"));
                }
                (0, i64::from(self.integer::<i32>()?) as u64)
            }
            Kind::Uint32 => (0, u64::from(self.integer::<u32>()?)),
            Kind::Uint64 => (0, self.integer::<u64>()?),
            Kind::Int64 => (0, self.integer::<i64>()? as u64),
            Kind::Sint32 => {
                let value = self.integer::<i32>()?;
                (0, u64::from(((value << 1) ^ (value >> 31)) as u32))
            }
            Kind::Fixed32 => (5, u64::from(self.integer::<u32>()?)),
            Kind::Fixed64 => (1, self.integer::<u64>()?),
            Kind::Sfixed64 => (1, self.integer::<i64>()? as u64),
            Kind::Double => (1, self.double()?.to_bits()),
            Kind::Text | Kind::Base64 | Kind::HexId | Kind::Message(_) | Kind::Any => {
                unreachable!("these are not numbers")
            }
        };
        if let Some(number) = field {
            self.tag(number, wire_type);
        }
        match wire_type {
            0 => wire::put_varint(&mut self.out, bits),
            1 => self.out.extend_from_slice(&bits.to_le_bytes()),
            _ => self.out.extend_from_slice(&(bits as u32).to_le_bytes()),
        }
        Ok(())
    }

    fn integer<T: TryFrom<i128>>(&mut self) -> Scanned<T> {
        self.scan.peek()?;
        let at = self.scan.at;
        let text = self.scan.number_or_text()?;
        let value = integer(&text).ok_or_else(|| self.scan.wrong(at, "expected an integer"))?;
        T::try_from(value).map_err(|_| self.scan.wrong(at, "the integer is out of range"))
    }

    fn double(&mut self) -> Scanned<f64> {
        self.scan.peek()?;
        let at = self.scan.at;
        let text = self.scan.number_or_text()?;
        match &*text {
            "NaN" => return Ok(f64::NAN),
            "Infinity" => return Ok(f64::INFINITY),
            "-Infinity" => return Ok(f64::NEG_INFINITY),
            _ => {}
        }
        if number_len(text.as_bytes()) != Some(text.len()) {
            return Err(self.scan.wrong(at, "expected a number"));
        }
        match text.parse() {
            Ok(value) if f64::is_finite(value) => Ok(value),
            _ => Err(self.scan.wrong(at, "the number is out of range")),
        }
    }

    fn tag(&mut self, number: u32, wire_type: u32) {
        wire::put_varint(&mut self.out, u64::from(number << 3 | wire_type));
    }

    /// Leaves one byte for the length of what comes: enough for most messages.
    fn open(&mut self) -> usize {
        self.out.push(0);
        self.out.len()
    }

    /// Writes the length of what came since [`open`](Self::open), which may move it.
    fn close(&mut self, start: usize) {
        let len = self.out.len() - start;
        if len < 0x80 {
            self.out[start - 1] = len as u8;
            return;
        }
        let mut prefix = Vec::with_capacity(5);
        wire::put_varint(&mut prefix, len as u64);
        let end = self.out.len();
        self.out.resize(end + prefix.len() - 1, 0);
        self.out.copy_within(start..end, start + prefix.len() - 1);
        self.out[start - 1..start - 1 + prefix.len()].copy_from_slice(&prefix);
    }
}

/// Index of the field with this key. Senders keep to one order, so `expected` is mostly it.
fn field_of(message: &Message, key: &[u8], expected: usize) -> Option<usize> {
    let is = |field: &Field| field.key.as_bytes() == key;
    if message.fields.get(expected).is_some_and(is) {
        return Some(expected);
    }
    message.fields.iter().position(is)
}

/// An integer as JSON may write it: digits, or a decimal or exponent that comes to a whole number.
fn integer(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    if number_len(bytes)? != bytes.len() {
        return None;
    }
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    let value: f64 = text.parse().ok()?;
    (value.fract() == 0.0 && value.abs() < 2f64.powi(64)).then_some(value as i128)
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    text.chunks(2)
        .map(|pair| match pair {
            [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
            _ => None,
        })
        .collect()
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Either alphabet, padded or not, as the protobuf JSON mapping wants it.
fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}
