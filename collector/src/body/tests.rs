use super::*;
use crate::limits::InFlight;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http_body_util::{Full, StreamBody};
use std::io::Write;
use std::sync::Arc;

const LIMIT: usize = 100_000;

fn limits() -> Limits {
    Limits { body_bytes_max: LIMIT, ..Limits::for_memory(1 << 30) }
}

fn budget() -> Arc<InFlight> {
    InFlight::new(1 << 30)
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).unwrap()
}

fn snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

type Compress = fn(&[u8]) -> Vec<u8>;

const ALL: [(Encoding, Compress); 5] = [
    (Encoding::Gzip, gzip),
    (Encoding::Deflate, zlib),
    (Encoding::Deflate, raw_deflate),
    (Encoding::Zstd, zstd),
    (Encoding::SnappyBlock, snappy),
];

fn inflated(body: &[u8], encoding: Encoding) -> Result<Bytes, BodyError> {
    inflate(body, encoding, &limits(), &mut budget().reservation())
}

/// Bytes that compress a little, but not to nothing.
fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / 1000) as u8).collect()
}

#[test]
fn every_compression_is_undone_up_to_exactly_the_limit() {
    for (encoding, compress) in ALL {
        for len in [0, 1, 5_000, LIMIT - 1, LIMIT] {
            let plain = sample(len);
            assert_eq!(inflated(&compress(&plain), encoding).unwrap(), plain, "{encoding:?} {len}");
        }
        let over = inflated(&compress(&sample(LIMIT + 1)), encoding);
        assert!(matches!(over, Err(BodyError::TooLarge { limit_bytes: LIMIT })), "{encoding:?}");
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 20 << 20];
    for (encoding, compress) in ALL {
        let bomb = compress(&zeros);
        let all = budget();
        let mut reservation = all.reservation();
        let result = inflate(&bomb, encoding, &limits(), &mut reservation);
        assert!(matches!(result, Err(BodyError::TooLarge { .. })), "{encoding:?}");
        assert!(all.used_bytes() <= 2 * LIMIT as u64, "{encoding:?} reserved {}", all.used_bytes());
    }
}

#[test]
fn many_small_members_count_together() {
    let member = gzip(&sample(10_000));
    assert_eq!(inflated(&member.repeat(10), Encoding::Gzip).unwrap().len(), 100_000);
    assert!(matches!(
        inflated(&member.repeat(11), Encoding::Gzip),
        Err(BodyError::TooLarge { .. })
    ));
    let frame = zstd(&sample(10_000));
    assert_eq!(inflated(&frame.repeat(10), Encoding::Zstd).unwrap().len(), 100_000);
    assert!(matches!(inflated(&frame.repeat(11), Encoding::Zstd), Err(BodyError::TooLarge { .. })));
}

#[test]
fn a_snappy_block_that_lies_about_its_length_is_refused_before_anything_is_reserved() {
    let all = budget();
    let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    let result = inflate(&lie, Encoding::SnappyBlock, &limits(), &mut all.reservation());
    assert!(matches!(result, Err(BodyError::TooLarge { .. })));
    assert_eq!(all.used_bytes(), 0);
}

#[test]
fn a_huge_zstd_window_is_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&sample(1000)).unwrap();
    let body = encoder.finish().unwrap();
    assert!(matches!(inflated(&body, Encoding::Zstd), Err(BodyError::Inflate { .. })));
}

#[test]
fn damaged_and_truncated_streams_are_errors() {
    for (encoding, compress) in ALL {
        let good = compress(&sample(5_000));
        for cut in [1, good.len() / 2, good.len() - 1] {
            let result = inflated(&good[..cut], encoding);
            assert!(
                matches!(result, Err(BodyError::Inflate { .. })),
                "{encoding:?} cut at {cut} of {}: {:?}",
                good.len(),
                result.map(|plain| plain.len())
            );
        }
        assert!(inflated(b"not compressed at all", encoding).is_err(), "{encoding:?}");
    }
}

#[test]
fn inflating_gives_up_when_there_is_no_room() {
    let all = InFlight::new(50_000);
    for (encoding, compress) in ALL {
        let result =
            inflate(&compress(&sample(90_000)), encoding, &limits(), &mut all.reservation());
        assert!(matches!(result, Err(BodyError::NoRoom)), "{encoding:?}");
        assert_eq!(all.used_bytes(), 0);
    }
}

fn pieces(of: &[u8], size: usize) -> impl Body<Data = Bytes, Error = io::Error> + Unpin + use<> {
    let frames: Vec<_> = of
        .chunks(size)
        .map(|piece| Ok(http_body::Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    StreamBody::new(futures::stream::iter(frames))
}

const UNKNOWN: Framing = Framing::Plain { declared_bytes: None };

#[tokio::test]
async fn bodies_are_read_up_to_exactly_the_limit() {
    for size in [LIMIT + 1, 7_001] {
        for len in [0, 1, LIMIT - 1, LIMIT] {
            let plain = sample(len);
            let mut room = budget().reservation();
            let read = read(pieces(&plain, size), UNKNOWN, &limits(), &mut room).await;
            assert_eq!(read.unwrap(), plain);
        }
        let mut room = budget().reservation();
        let read = read(pieces(&sample(LIMIT + 1), size), UNKNOWN, &limits(), &mut room).await;
        assert!(matches!(read, Err(BodyError::TooLarge { .. })));
    }
}

#[tokio::test]
async fn a_declared_length_is_judged_before_anything_is_read() {
    let declared = Framing::Plain { declared_bytes: Some(u64::MAX) };
    let never = StreamBody::new(futures::stream::pending::<io::Result<http_body::Frame<Bytes>>>());
    let mut room = budget().reservation();
    let read = read(never, declared, &limits(), &mut room).await;
    assert!(matches!(read, Err(BodyError::TooLarge { .. })));

    let all = InFlight::new(1000);
    let declared = Framing::Plain { declared_bytes: Some(600) };
    let never = StreamBody::new(futures::stream::pending::<io::Result<http_body::Frame<Bytes>>>());
    let read = super::read(never, declared, &limits(), &mut all.reservation()).await;
    assert!(matches!(read, Err(BodyError::NoRoom)));
}

#[tokio::test]
async fn the_length_in_a_grpc_frame_is_judged_at_the_first_piece() {
    let mut start = vec![0];
    start.extend_from_slice(&(LIMIT as u32 + 1).to_be_bytes());
    let mut room = budget().reservation();
    let read = read(pieces(&start, 99), Framing::Grpc, &limits(), &mut room).await;
    assert!(matches!(read, Err(BodyError::TooLarge { .. })));
}

#[tokio::test]
async fn a_body_that_stalls_or_drips_is_given_up() {
    let stalled =
        StreamBody::new(futures::stream::pending::<io::Result<http_body::Frame<Bytes>>>());
    let limits = Limits { body_pause_max: Duration::from_millis(30), ..limits() };
    let mut room = budget().reservation();
    let result = read(stalled, UNKNOWN, &limits, &mut room).await;
    assert!(matches!(result, Err(BodyError::Slow { .. })));

    let dripping = StreamBody::new(Box::pin(futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((io::Result::Ok(http_body::Frame::data(Bytes::from_static(b"x"))), ()))
    })));
    let result = read(dripping, UNKNOWN, &limits, &mut room).await;
    assert!(matches!(result, Err(BodyError::Slow { .. })));
}

#[tokio::test]
async fn a_body_in_one_piece_is_not_copied() {
    let body = Bytes::from(sample(1000));
    let mut room = budget().reservation();
    let read = read(Full::new(body.clone()), UNKNOWN, &limits(), &mut room).await.unwrap();
    assert_eq!(read.as_ptr(), body.as_ptr());
}
