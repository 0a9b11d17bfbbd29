//! Prometheus remote write, 1.0 `WriteRequest` and 2.0 `Request` → [`MetricBatch`](trefoil_storage::metrics::MetricBatch).
//!
//! A series arrives with the labels that Prometheus gave it and keeps them: it becomes a series of kind
//! [`MetricKind::Prometheus`](trefoil_storage::metrics::MetricKind::Prometheus). Good samples of a request are kept when others are refused.
//!
//! Source: Prometheus Remote-Write 1.0 and 2.0 specifications; prometheus/prometheus `prompb`.

mod histogram;
mod series;

use self::series::Rows;
use super::{DecodeLimits, malformed};
use trefoil_storage::metrics::FamilyMetadata;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::{Batch, Decoded, FrameKind};
use trefoil_storage::wire::{self, Field, Fields, WireError};

/// What of a request was kept, for the headers that 2.0 answers carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub samples: u64,
    pub histograms: u64,
    pub exemplars: u64,
}

/// Decodes one request. A sample or native histogram is a record; exemplars and metadata come along.
///
/// * `kind`: [`FrameKind::RemoteWrite1`] or [`FrameKind::RemoteWrite2`].
///
/// Times are Unix milliseconds, 0 included; a sample before 1970 or further ahead than the limit is refused.
///
/// # Errors
/// A message for the sender when the bytes are not such a request; nothing is kept.
pub fn decode(
    kind: FrameKind,
    body: &[u8],
    arrival_ns: u64,
    interner: &Interner,
    limits: &DecodeLimits,
) -> Result<Decoded, String> {
    let rows = walk(kind, body, arrival_ns, interner, limits)?;
    let (batch, rejections) = rows.finish();
    Ok(Decoded {
        accepted: batch.len() as u64,
        rejected: rejections.total(),
        reason: rejections.message(),
        batch: Batch::Metrics(batch),
    })
}

/// What [`decode`] keeps of a request, counted by kind.
///
/// # Errors
/// As [`decode`].
pub fn written(
    kind: FrameKind,
    body: &[u8],
    arrival_ns: u64,
    limits: &DecodeLimits,
) -> Result<Written, String> {
    Ok(walk(kind, body, arrival_ns, &Interner::default(), limits)?.written())
}

fn walk(
    kind: FrameKind,
    body: &[u8],
    arrival_ns: u64,
    interner: &Interner,
    limits: &DecodeLimits,
) -> Result<Rows, String> {
    let mut rows = Rows::new(interner, arrival_ns.saturating_add(limits.future_ns));
    match kind {
        FrameKind::RemoteWrite2 => {
            walk_2(body, &mut rows)
                .map_err(|error| malformed("io.prometheus.write.v2.Request", error))?;
        }
        _ => {
            walk_1(body, &mut rows).map_err(|error| malformed("prometheus.WriteRequest", error))?
        }
    }
    Ok(rows)
}

/// `WriteRequest`: 1 series, 3 metadata.
fn walk_1(body: &[u8], rows: &mut Rows) -> Result<(), WireError> {
    let mut labels = Vec::new();
    for field in Fields::new(body) {
        match field? {
            (1, field) => {
                let series = field.bytes(1)?;
                labels.clear();
                for field in Fields::new(series) {
                    if let (1, field) = field? {
                        labels.push(pair(field.bytes(1)?)?);
                    }
                }
                let identity = rows.identify(&mut labels);
                for field in Fields::new(series) {
                    match field? {
                        (2, field) => rows.sample(&identity, sample(field.bytes(2)?)?),
                        (3, field) => {
                            let message = field.bytes(3)?;
                            labels.clear();
                            for field in Fields::new(message) {
                                if let (1, field) = field? {
                                    labels.push(pair(field.bytes(1)?)?);
                                }
                            }
                            let (value, time_ms) = value_and_time(message)?;
                            rows.exemplar(&identity, &labels, value, time_ms);
                        }
                        (4, field) => rows.histogram(&identity, field.bytes(4)?, 0)?,
                        _ => {}
                    }
                }
            }
            (3, field) => rows.metadata(metadata_1(field.bytes(3)?)?),
            _ => {}
        }
    }
    Ok(())
}

/// `Request`: 4 symbols, 5 series.
fn walk_2(body: &[u8], rows: &mut Rows) -> Result<(), WireError> {
    let mut symbols: Vec<&[u8]> = Vec::new();
    for field in Fields::new(body) {
        if let (4, field) = field? {
            symbols.push(field.bytes(4)?);
        }
    }
    let mut labels = Vec::new();
    for field in Fields::new(body) {
        let (5, field) = field? else { continue };
        let series = field.bytes(5)?;
        let (mut metadata, mut created_ms) = (None, 0);
        let mut refs = Vec::new();
        for field in Fields::new(series) {
            match field? {
                (1, field) => varints(field, 1, |reference| refs.push(reference))?,
                (5, field) => metadata = Some(field.bytes(5)?),
                // Before 2.0 was final the start of a counter stood with its series.
                (6, field) => created_ms = field.varint(6)? as i64,
                _ => {}
            }
        }
        resolve(&refs, &symbols, &mut labels);
        let identity = rows.identify(&mut labels);
        if let Some(message) = metadata {
            let (kind, help, unit) = metadata_2(message)?;
            let text = |reference: u64| symbol(&symbols, reference).unwrap_or_default();
            rows.describe(&identity, kind, text(help), text(unit));
        }
        for field in Fields::new(series) {
            match field? {
                (2, field) => {
                    let mut sample = sample(field.bytes(2)?)?;
                    if sample.start_ms == 0 {
                        sample.start_ms = created_ms;
                    }
                    rows.sample(&identity, sample);
                }
                (3, field) => rows.histogram(&identity, field.bytes(3)?, created_ms)?,
                (4, field) => {
                    let message = field.bytes(4)?;
                    refs.clear();
                    for field in Fields::new(message) {
                        if let (1, field) = field? {
                            varints(field, 1, |reference| refs.push(reference))?;
                        }
                    }
                    resolve(&refs, &symbols, &mut labels);
                    let (value, time_ms) = value_and_time(message)?;
                    rows.exemplar(&identity, &labels, value, time_ms);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Label pairs by reference. A reference that leads nowhere gives a name that no rule lets pass.
fn resolve<'a>(refs: &[u64], symbols: &[&'a [u8]], labels: &mut Vec<(&'a [u8], &'a [u8])>) {
    const NOWHERE: &[u8] = &[0xff];
    labels.clear();
    let mut pairs = refs.chunks(2);
    while let Some(pair) = pairs.next() {
        let text = |at: usize| pair.get(at).and_then(|r| symbol(symbols, *r)).unwrap_or(NOWHERE);
        labels.push((text(0), text(1)));
    }
}

fn symbol<'a>(symbols: &[&'a [u8]], reference: u64) -> Option<&'a [u8]> {
    usize::try_from(reference).ok().and_then(|at| symbols.get(at)).copied()
}

/// A number sample.
struct Sample {
    value: f64,
    time_ms: i64,
    /// 0 = not known.
    start_ms: i64,
}

/// `Sample`: 1 value, 2 time; 3 start in 2.0.
fn sample(message: &[u8]) -> Result<Sample, WireError> {
    let mut sample = Sample { value: 0.0, time_ms: 0, start_ms: 0 };
    for field in Fields::new(message) {
        match field? {
            (1, field) => sample.value = f64::from_bits(field.fixed64(1)?),
            (2, field) => sample.time_ms = field.varint(2)? as i64,
            (3, field) => sample.start_ms = field.varint(3)? as i64,
            _ => {}
        }
    }
    Ok(sample)
}

/// Fields 2 and 3 of an `Exemplar`.
fn value_and_time(message: &[u8]) -> Result<(f64, i64), WireError> {
    let (mut value, mut time_ms) = (0.0, 0);
    for field in Fields::new(message) {
        match field? {
            (2, field) => value = f64::from_bits(field.fixed64(2)?),
            (3, field) => time_ms = field.varint(3)? as i64,
            _ => {}
        }
    }
    Ok((value, time_ms))
}

/// `Label`: 1 name, 2 value.
fn pair(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut name, mut value) = (&b""[..], &b""[..]);
    for field in Fields::new(message) {
        match field? {
            (1, field) => name = field.bytes(1)?,
            (2, field) => value = field.bytes(2)?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// `MetricMetadata` of 1.0: 1 type, 2 family, 4 help, 5 unit.
fn metadata_1(message: &[u8]) -> Result<FamilyMetadata, WireError> {
    let mut metadata = FamilyMetadata::default();
    for field in Fields::new(message) {
        match field? {
            (1, field) => metadata.kind = type_name(field.varint(1)?).into(),
            (2, field) => metadata.family = super::lenient(field.bytes(2)?).into(),
            (4, field) => metadata.help = super::lenient(field.bytes(4)?).into(),
            (5, field) => metadata.unit = super::lenient(field.bytes(5)?).into(),
            _ => {}
        }
    }
    Ok(metadata)
}

/// `Metadata` of 2.0: 1 type, 3 help, 4 unit, the latter two as references.
fn metadata_2(message: &[u8]) -> Result<(&'static str, u64, u64), WireError> {
    let (mut kind, mut help, mut unit) = (0, 0, 0);
    for field in Fields::new(message) {
        match field? {
            (1, field) => kind = field.varint(1)?,
            (3, field) => help = field.varint(3)?,
            (4, field) => unit = field.varint(4)?,
            _ => {}
        }
    }
    Ok((type_name(kind), help, unit))
}

/// Both messages number the types alike.
fn type_name(number: u64) -> &'static str {
    match number {
        1 => "counter",
        2 => "gauge",
        3 => "histogram",
        4 => "gaugehistogram",
        5 => "summary",
        6 => "info",
        7 => "stateset",
        _ => "unknown",
    }
}

/// A repeated varint field, packed or not.
fn varints(field: Field<'_>, number: u32, mut visit: impl FnMut(u64)) -> Result<(), WireError> {
    match field {
        Field::Bytes(mut packed) => {
            while !packed.is_empty() {
                visit(wire::take_varint(&mut packed)?);
            }
        }
        other => visit(other.varint(number)?),
    }
    Ok(())
}

/// The number behind a `sint32` or `sint64`.
fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
