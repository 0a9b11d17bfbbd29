//! A data directory with some of everything, and ways to damage its files.

use super::otlp::{self, Sender};
use prost::Message;
use rand::Rng;
use rand::rngs::StdRng;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decoder::FrameDecoder;
use trefoil_storage::Stores;
use trefoil_storage::config::Config;
use trefoil_storage::metrics::naming::Naming;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::Store;

/// Hours with a segment of each signal.
pub const HOURS: u64 = 12;

/// Records of each signal in an hour.
pub const RECORDS: u64 = 30;

/// The kinds of files of segments.
pub const KINDS: [(&str, &str); 9] = [
    ("spans", "parquet"),
    ("spans", "tix"),
    ("red", "parquet"),
    ("logs", "parquet"),
    ("logs", "blk"),
    ("logs", "idx"),
    ("logs", "tid"),
    ("metrics", "parquet"),
    ("metrics", "series.parquet"),
];

/// A data directory as a kill leaves it: twelve hours in segments, committed in two generations, and a log.
///
/// * `frames`: requests of one log record each that are in the log and in no segment.
pub fn filled(frames: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let interner = Arc::new(Interner::default());
    let stores = Arc::new(Stores::new(interner.clone(), Naming::default()));
    let mut config = Config::new(dir.path());
    config.retention = None;
    let decoder = Arc::new(FrameDecoder::new(interner, DecodeLimits::default()));
    let store = Store::open(config, stores, decoder).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let now_ns = otlp::now_ns();
    let append = |kind, body: Vec<u8>| {
        runtime.block_on(store.append(kind, body.into(), now_ns)).unwrap();
    };
    for hour in 0..HOURS {
        let sender =
            Sender { service: "checkout".into(), time_ns: now_ns - (hour + 3) * 3_600_000_000_000 };
        append(FrameKind::OtlpTraces, sender.traces(hour, RECORDS).encode_to_vec());
        append(FrameKind::OtlpLogs, sender.logs(hour, RECORDS).encode_to_vec());
        append(FrameKind::OtlpMetrics, sender.metrics(hour, RECORDS).encode_to_vec());
        if hour % (HOURS / 2) == HOURS / 2 - 1 {
            store.seal_now().unwrap();
        }
    }
    for number in 0..frames {
        append(FrameKind::OtlpLogs, otlp::logs(100 + number, 1).encode_to_vec());
    }
    dir
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All segment files of a kind.
pub fn files(dir: &Path, (signal, extension): (&str, &str)) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hour in fs::read_dir(dir.join("segments").join(signal)).unwrap() {
        for file in fs::read_dir(hour.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.split_once('.').is_some_and(|(_, found)| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Flips one bit.
pub fn flip(path: &Path, random: &mut StdRng) {
    let mut bytes = fs::read(path).unwrap();
    let at = random.random_range(0..bytes.len());
    bytes[at] ^= 1 << random.random_range(0..8);
    fs::write(path, bytes).unwrap();
}

/// Cuts a file off somewhere.
pub fn truncate(path: &Path, random: &mut StdRng) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..random.random_range(0..bytes.len())]).unwrap();
}

/// Gives two files each other's name.
pub fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(aside, other).unwrap();
}

/// The trace of an hour, as the API writes it.
pub fn trace_id(hour: u64) -> String {
    format!("{:032x}", u128::from_be_bytes(otlp::trace_id(hour)))
}
