//! From a request's body to its plain bytes: read within limits, inflate within limits.

use crate::limits::{BODY_BYTES_PER_SECOND_MIN, Limits, NoRoom, Reservation};
use bytes::{Bytes, BytesMut};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http_body::Body;
use http_body_util::BodyExt;
use std::io::{self, Read};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How a body is compressed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
    /// zlib as RFC 9110 has it, or the raw deflate stream that some senders make of it.
    Deflate,
    /// Snappy's block format, which only remote write uses.
    SnappyBlock,
}

/// What `Accept-Encoding` of a 415 answer offers.
pub const ENCODINGS: &str = "gzip, zstd, deflate, identity";

impl Encoding {
    /// By the name used in `Content-Encoding` and `grpc-encoding` for OTLP, in any case. `None` for one we don't know.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        [
            ("", Self::Identity),
            ("identity", Self::Identity),
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("zstd", Self::Zstd),
            ("deflate", Self::Deflate),
            ("zlib", Self::Deflate),
        ]
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|&(_, encoding)| encoding)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
            Self::SnappyBlock => "a snappy block",
        }
    }
}

/// How the length of a body is known before it has been read.
#[derive(Debug, Clone, Copy)]
pub enum Framing {
    /// From `Content-Length`, if there is one.
    Plain { declared_bytes: Option<u64> },
    /// From the frame around a gRPC message: a flag, then four bytes of length.
    Grpc,
}

/// Bytes of the frame around a gRPC message.
const GRPC_FRAME: usize = 5;

/// Why a body could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(
        "the body is larger than {limit_bytes} bytes after decompression; send smaller batches"
    )]
    TooLarge { limit_bytes: usize },
    #[error("requests in flight use all the memory there is for them")]
    NoRoom,
    #[error("no data for {} s, or too little: the body was given up", .pause.as_secs())]
    Slow { pause: Duration },
    #[error("the body ended early: {0}")]
    Broken(String),
    #[error("the body is not valid {}: {reason}", .encoding.name())]
    Inflate { encoding: Encoding, reason: String },
}

impl From<NoRoom> for BodyError {
    fn from(NoRoom: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// Reads a body as sent, frame included. Room for it is reserved as soon as its length is known, before the bulk of
/// it is read; a body of unknown length reserves as it grows.
///
/// # Errors
/// All but `Inflate`. Nothing more is read after an error.
pub async fn read<B>(
    mut body: B,
    framing: Framing,
    limits: &Limits,
    reservation: &mut Reservation,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let bytes_max = limits.body_bytes_max
        + match framing {
            Framing::Plain { .. } => 0,
            Framing::Grpc => GRPC_FRAME,
        };
    let mut make_room = |bytes: usize| {
        if bytes > bytes_max {
            return Err(BodyError::TooLarge { limit_bytes: limits.body_bytes_max });
        }
        Ok(reservation.cover(bytes.min(limits.body_bytes_max))?)
    };
    let mut declared = match framing {
        Framing::Plain { declared_bytes: Some(bytes) } => {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        }
        Framing::Plain { declared_bytes: None } | Framing::Grpc => 0,
    };
    make_room(declared)?;

    let mut pieces = Pieces::default();
    let started = Instant::now();
    loop {
        let fair = started
            + limits.body_pause_max
            + Duration::from_secs(pieces.len as u64 / BODY_BYTES_PER_SECOND_MIN);
        let deadline = fair.min(Instant::now() + limits.body_pause_max);
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(BodyError::Slow { pause: limits.body_pause_max }),
            Ok(None) => return Ok(pieces.join()),
            Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if pieces.len == 0
            && let Framing::Grpc = framing
            && let Some(&[_, a, b, c, d]) = data.first_chunk::<GRPC_FRAME>()
        {
            declared = GRPC_FRAME + u32::from_be_bytes([a, b, c, d]) as usize;
            make_room(declared)?;
        }
        make_room(pieces.len + data.len())?;
        pieces.push(data, declared);
    }
}

/// A body that arrived in one piece is passed on as it is; more pieces are copied together.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    joined: BytesMut,
    len: usize,
}

impl Pieces {
    fn push(&mut self, data: Bytes, declared: usize) {
        if self.len == 0 {
            self.first = data;
            self.len = self.first.len();
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve(declared.max(self.len + data.len()));
            self.joined.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        self.joined.extend_from_slice(&data);
        self.len += data.len();
    }

    fn join(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}

/// Undoes the compression of a body, counting while inflating: at the limit it stops.
///
/// # Errors
/// `TooLarge`, `NoRoom` or `Inflate`.
pub fn inflate(
    body: &[u8],
    encoding: Encoding,
    limits: &Limits,
    reservation: &mut Reservation,
) -> Result<Bytes, BodyError> {
    let failed = |error: io::Error| BodyError::Inflate { encoding, reason: error.to_string() };
    let limit_bytes = limits.body_bytes_max;
    match encoding {
        Encoding::Identity => Ok(Bytes::copy_from_slice(body)),
        // A gzip file may hold several members; senders that flush between batches make them.
        Encoding::Gzip => {
            inflate_from(MultiGzDecoder::new(body), body.len(), limit_bytes, reservation, failed)
        }
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
            inflate_from(decoder, body.len(), limit_bytes, reservation, failed)
        }
        // The block declares its length first: room is reserved before anything is written.
        Encoding::SnappyBlock => {
            let failed = |error: snap::Error| failed(io::Error::other(error));
            let len = snap::raw::decompress_len(body).map_err(failed)?;
            if len > limit_bytes {
                return Err(BodyError::TooLarge { limit_bytes });
            }
            reservation.cover(len)?;
            Ok(snap::raw::Decoder::new().decompress_vec(body).map_err(failed)?.into())
        }
        Encoding::Deflate if is_zlib(body) => {
            inflate_from(ZlibDecoder::new(body), body.len(), limit_bytes, reservation, failed)
        }
        Encoding::Deflate => {
            inflate_from(DeflateDecoder::new(body), body.len(), limit_bytes, reservation, failed)
        }
    }
}

/// 64 MiB, our largest body: a window above that is only good for a bomb.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;

/// RFC 1950: the first two bytes name method 8 and are together a multiple of 31.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [cmf, flg, ..]
        if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0)
}

fn inflate_from(
    mut decoder: impl Read,
    compressed_bytes: usize,
    limit_bytes: usize,
    reservation: &mut Reservation,
    failed: impl Fn(io::Error) -> BodyError,
) -> Result<Bytes, BodyError> {
    // Pieces, joined at the end: one buffer that grows would be copied, and held twice, at every step of a bomb.
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut len = 0;
    // Telemetry shrinks about four- to eightfold; each further piece doubles what there is.
    let mut piece_bytes = (compressed_bytes * 4).clamp(16 << 10, PIECE_BYTES_MAX);
    loop {
        // One byte past the limit tells a body of exactly the limit from a longer one.
        let room = piece_bytes.min(limit_bytes + 1 - len);
        reservation.cover((len + room).min(limit_bytes))?;
        let mut piece = Vec::with_capacity(room);
        let read = decoder.by_ref().take(room as u64).read_to_end(&mut piece).map_err(&failed)?;
        len += read;
        pieces.push(piece);
        if len > limit_bytes {
            return Err(BodyError::TooLarge { limit_bytes });
        }
        if read < room {
            break;
        }
        piece_bytes = len.min(PIECE_BYTES_MAX);
    }
    if pieces.len() == 1 {
        return Ok(pieces.swap_remove(0).into());
    }
    let mut plain = Vec::with_capacity(len);
    for piece in pieces {
        plain.extend_from_slice(&piece);
    }
    Ok(plain.into())
}

const PIECE_BYTES_MAX: usize = 4 << 20;

/// Work on more bytes than this is done off the network's threads, where it would hold up other connections.
const ON_NETWORK_BYTES_MAX: usize = 64 << 10;

/// Runs `work`, which goes over about `bytes` bytes, here or on a blocking thread.
///
/// # Errors
/// `None` when it panicked.
pub async fn off_network<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if bytes <= ON_NETWORK_BYTES_MAX {
        return Some(work());
    }
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests;
