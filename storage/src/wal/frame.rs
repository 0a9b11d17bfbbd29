//! One frame: a request as it was accepted.

use crate::signal::FrameKind;
use std::io;

/// Starts every frame; replay looks for it after damage.
pub const MAGIC: [u8; 4] = *b"TfR\xf1";

/// Bytes before the body: magic, CRC, body length, raw length, kind, arrival, hash.
pub const HEADER_BYTES: usize = 4 + 4 + 4 + 4 + 1 + 8 + 16;

/// Largest body that replay believes; larger lengths are damage.
pub const BODY_BYTES_MAX: usize = 256 << 20;

/// A frame read back.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: FrameKind,
    /// Unix ns when the request came in.
    pub arrival_ns: u64,
    /// Content hash of kind and raw body.
    pub hash: u128,
    /// Length of the raw body.
    pub raw_len: u32,
    /// zstd of the request's protobuf bytes.
    pub compressed: &'a [u8],
}

/// Why no frame stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The bytes end inside the frame.
    Torn,
    /// Magic, lengths, kind or checksum are wrong.
    Damaged,
}

/// Makes a frame of a request; zstd level 1, which shrinks OTLP six- to sevenfold at about 450 MB/s a core.
pub fn encode(kind: FrameKind, arrival_ns: u64, hash: u128, body: &[u8]) -> io::Result<Vec<u8>> {
    let raw_len = u32::try_from(body.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "request over 4 GiB"))?;
    let compressed = zstd::bulk::compress(body, 1)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + compressed.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
    out.extend_from_slice(&raw_len.to_le_bytes());
    out.push(kind as u8);
    out.extend_from_slice(&arrival_ns.to_le_bytes());
    out.extend_from_slice(&hash.to_le_bytes());
    out.extend_from_slice(&compressed);
    let crc = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// Reads the frame at the start of `bytes`; also returns its whole length.
pub fn decode(bytes: &[u8]) -> Result<(Frame<'_>, usize), FrameError> {
    let header = bytes.get(..HEADER_BYTES).ok_or(FrameError::Torn)?;
    if header[..4] != MAGIC {
        return Err(FrameError::Damaged);
    }
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let (crc, body_len, raw_len) = (u32_at(4), u32_at(8) as usize, u32_at(12));
    if body_len > BODY_BYTES_MAX {
        return Err(FrameError::Damaged);
    }
    let whole = HEADER_BYTES + body_len;
    let checked = bytes.get(8..whole).ok_or(FrameError::Torn)?;
    if crc32fast::hash(checked) != crc {
        return Err(FrameError::Damaged);
    }
    let kind = FrameKind::from_u8(header[16]).ok_or(FrameError::Damaged)?;
    let arrival_ns = u64::from_le_bytes(header[17..25].try_into().expect("8 bytes"));
    let hash = u128::from_le_bytes(header[25..41].try_into().expect("16 bytes"));
    let compressed = &bytes[HEADER_BYTES..whole];
    Ok((Frame { kind, arrival_ns, hash, raw_len, compressed }, whole))
}

impl Frame<'_> {
    /// The request's bytes.
    pub fn body(&self) -> io::Result<Vec<u8>> {
        zstd::bulk::decompress(self.compressed, self.raw_len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_every_cut_is_torn() {
        let bytes = encode(FrameKind::OtlpLogs, 7, 9, b"body body body").unwrap();
        let (frame, whole) = decode(&bytes).unwrap();
        assert_eq!(whole, bytes.len());
        assert_eq!((frame.kind, frame.arrival_ns, frame.hash), (FrameKind::OtlpLogs, 7, 9));
        assert_eq!(frame.body().unwrap(), b"body body body");
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Err(FrameError::Torn), "cut at {cut}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(FrameKind::OtlpTraces, 7, 9, b"body").unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }
}
