//! The file in which the window of recent requests is saved: read at every start, so made to be read fast.
//!
//! The layout is in `storage/FORMAT.md`. Each request has a checksum of its own: one that can be read saves its sender
//! from a duplicate, whatever happened to the others.

use crate::dedup::Remembered;
use rustc_hash::FxHashMap;
use std::io;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"TREFDUP2";

/// Magic, checksum of all after it, number of requests.
const HEADER_BYTES: usize = 16;

/// Checksum, hash, arrival, end, accepted, rejected, where the reason stands.
const REQUEST_BYTES: usize = 48;

/// The file in the folder of manifests that holds the window saved with a generation.
pub fn path(manifest_dir: &Path, generation: u64) -> PathBuf {
    manifest_dir.join(format!("{generation:016}.dedup"))
}

/// The file's bytes.
pub fn encode(requests: &[(u128, &Remembered)]) -> Vec<u8> {
    let reasons_at = HEADER_BYTES + requests.len() * REQUEST_BYTES;
    let mut out = Vec::with_capacity(reasons_at);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(requests.len() as u32).to_le_bytes());
    let mut reasons = Vec::new();
    let mut known: FxHashMap<&str, u32> = FxHashMap::default();
    for (hash, request) in requests {
        let reason = request.reason.as_deref();
        // 0 is no place of a reason.
        let reason_at = reason.map_or(0, |reason| {
            *known.entry(reason).or_insert_with(|| {
                let at = (reasons_at + reasons.len()) as u32;
                reasons.extend_from_slice(&(reason.len() as u32).to_le_bytes());
                reasons.extend_from_slice(reason.as_bytes());
                at
            })
        });
        let begin = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&request.arrival_ns.to_le_bytes());
        out.extend_from_slice(&request.end.to_le_bytes());
        // No request is large enough to have more records.
        let records = |count: u64| u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
        out.extend_from_slice(&records(request.accepted));
        out.extend_from_slice(&records(request.rejected));
        out.extend_from_slice(&reason_at.to_le_bytes());
        let crc32 = checksum(&out[begin + 4..], reason);
        out[begin..begin + 4].copy_from_slice(&crc32.to_le_bytes());
    }
    out.extend_from_slice(&reasons);
    let crc32 = crc32fast::hash(&out[12..]);
    out[8..12].copy_from_slice(&crc32.to_le_bytes());
    out
}

/// Of a request and its reason.
fn checksum(request: &[u8], reason: Option<&str>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(request);
    crc.update(reason.unwrap_or_default().as_bytes());
    crc.finalize()
}

/// The requests that can be read, and whether that is all.
///
/// # Errors
/// `InvalidData` for a damaged file or one of another format.
pub fn decode(saved: &[u8]) -> (Vec<(u128, Remembered)>, io::Result<()>) {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let Some((header, rest)) = saved.split_first_chunk::<HEADER_BYTES>() else {
        return (Vec::new(), Err(damaged("ends inside its header")));
    };
    if header[..8] != MAGIC {
        return (Vec::new(), Err(damaged("is no window of recent requests of this format")));
    }
    let whole = crc32fast::hash(&saved[12..]) == u32_at(header, 8);
    // Where the requests end is not certain in a damaged file, but a reason hardly passes for a request.
    let count = if whole { u32_at(header, 12) as usize } else { usize::MAX };
    let requests = rest.chunks_exact(REQUEST_BYTES).take(count);
    let read = requests.filter_map(|bytes| request(bytes, saved, !whole)).collect();
    (read, whole.then_some(()).ok_or_else(|| damaged("checksum does not match")))
}

/// * `check`: whether the checksum is looked at.
fn request(bytes: &[u8], saved: &[u8], check: bool) -> Option<(u128, Remembered)> {
    let reason = match u32_at(bytes, 44) as usize {
        0 => None,
        at => {
            let len = u32::from_le_bytes(*saved.get(at..)?.first_chunk()?) as usize;
            Some(std::str::from_utf8(saved.get(at + 4..)?.get(..len)?).ok()?)
        }
    };
    if check && checksum(&bytes[4..], reason) != u32_at(bytes, 0) {
        return None;
    }
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let request = Remembered {
        arrival_ns: u64_at(20),
        end: u64_at(28),
        accepted: u32_at(bytes, 36).into(),
        rejected: u32_at(bytes, 40).into(),
        reason: reason.map(Box::from),
    };
    Some((u128::from_le_bytes(bytes[4..20].try_into().expect("16 bytes")), request))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(count: u64) -> Vec<(u128, Remembered)> {
        let request = |n: u64| Remembered {
            arrival_ns: n * 1_000,
            end: n * 7,
            accepted: n,
            rejected: n % 3,
            reason: (!n.is_multiple_of(3)).then(|| format!("reason \"{}\"\n", n % 2).into()),
        };
        (0..count).map(|n| ((u128::from(n) << 64) | 5, request(n))).collect()
    }

    fn saved(requests: &[(u128, Remembered)]) -> Vec<u8> {
        encode(&requests.iter().map(|(hash, request)| (*hash, request)).collect::<Vec<_>>())
    }

    #[test]
    fn requests_come_back_as_they_were() {
        for count in [0, 1, 40] {
            let (read, whole) = decode(&saved(&requests(count)));
            assert_eq!(read, requests(count));
            whole.unwrap();
        }
    }

    #[test]
    fn damage_is_told_and_costs_no_request_but_those_it_touches() {
        let sound = requests(40);
        let bytes = saved(&sound);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let (read, whole) = decode(&flipped);
            assert!(whole.is_err(), "flip at {at}");
            assert!(read.iter().all(|request| sound.contains(request)), "flip at {at}");
            let in_requests = HEADER_BYTES..HEADER_BYTES + sound.len() * REQUEST_BYTES;
            if in_requests.contains(&at) {
                assert_eq!(read.len(), sound.len() - 1, "flip at {at}");
            }
            let (read, whole) = decode(&bytes[..at]);
            assert!(whole.is_err() && read.len() <= sound.len(), "cut at {at}");
        }
    }
}
