//! Retention by age and by size while records keep coming in, and deletion of a service's data.

mod common;

use bytes::Bytes;
use common::otlp::Sender;
use common::{Server, otlp, rounds};
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use rand::distr::Alphanumeric;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decoder::FrameDecoder;
use trefoil_storage::Stores;
use trefoil_storage::config::Config;
use trefoil_storage::logs::{LogFilter, LogRange};
use trefoil_storage::metrics::naming::Naming;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::Store;

const HOUR_NS: u64 = 3_600_000_000_000;

struct Opened {
    store: Store,
    stores: Arc<Stores>,
}

impl Opened {
    fn new(config: Config) -> Self {
        let interner = Arc::new(Interner::default());
        let stores = Arc::new(Stores::new(interner.clone(), Naming::default()));
        let decoder = Arc::new(FrameDecoder::new(interner, DecodeLimits::default()));
        let store = Store::open(config, stores.clone(), decoder).unwrap();
        Self { store, stores }
    }

    fn append(&self, kind: FrameKind, body: Vec<u8>) {
        let appended = self.store.append(kind, body.into(), otlp::now_ns());
        futures::executor::block_on(appended).unwrap();
    }

    fn logs(&self) -> u64 {
        let all = LogRange::new(0, u64::MAX);
        self.stores.logs.snapshot().count(&LogFilter::All, &all).unwrap()
    }

    fn assert_balanced(&self) {
        let stats = self.store.stats();
        for (signal, account) in stats.ledger.accounts() {
            let live = stats.live.iter().find(|(of, _)| *of == signal).unwrap().1;
            assert_eq!(account.live(), live, "{}: {account:?}", signal.name());
        }
    }
}

/// Bytes of all files below a folder.
fn used(folder: &Path) -> u64 {
    files(folder).iter().map(|path| fs::metadata(path).map_or(0, |found| found.len())).sum()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn by_age_everything_within_it_stays_and_nothing_much_older() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.retention = Some(Duration::from_secs(24 * 3600));
    let opened = Opened::new(config);
    let now_ns = otlp::now_ns();
    let mut kept = 0;
    // A record every six minutes for thirty hours, oldest first, as they would have come in.
    let ages_ns: Vec<u64> = (0..300).rev().map(|i| i * HOUR_NS / 10).collect();
    for (number, age_ns) in ages_ns.iter().enumerate() {
        let sender = Sender { service: "checkout".into(), time_ns: now_ns - age_ns };
        opened.append(FrameKind::OtlpLogs, sender.logs(number as u64, 1).encode_to_vec());
        kept += u64::from(*age_ns < 24 * HOUR_NS);
        if number % 50 == 49 {
            opened.store.seal_now().unwrap();
            opened.store.compact_now().unwrap();
            opened.assert_balanced();
        }
    }
    let older_by_5_percent = ages_ns.iter().filter(|age| **age <= 24 * HOUR_NS * 105 / 100).count();
    let left = opened.logs();
    assert!(left >= kept, "{left} of {kept} that are young enough");
    assert!(left <= older_by_5_percent as u64, "{left} of {older_by_5_percent}");
}

/// What the directory takes; of two looks the larger, since a file that gets its name meanwhile may be missed by one.
fn taken(folder: &Path) -> u64 {
    used(folder).max(used(folder))
}

/// Letters and digits, which compress badly and are one long word.
fn noise(random: &mut StdRng, bytes: u64) -> String {
    (0..bytes).map(|_| char::from(random.sample(Alphanumeric))).collect()
}

/// A server takes no limit smaller than this, bytes.
const SERVED_MIN: u64 = 256 << 20;

/// Where logs go: a store in this process, or a server.
enum Target {
    Here(Box<Opened>),
    Served(Server, reqwest::Client),
}

impl Target {
    fn with_limit(dir: &Path, limit: u64) -> Self {
        if limit < SERVED_MIN {
            let mut config = Config::new(dir);
            config.retention = None;
            config.retention_bytes = Some(limit);
            return Self::Here(Box::new(Opened::new(config)));
        }
        let size = limit.to_string();
        let settings = ["--retention", "unlimited", "--retention-size", &size];
        Self::Served(Server::start_with(dir, &settings), reqwest::Client::new())
    }

    /// Sends until it is taken.
    async fn deliver(&self, body: Vec<u8>) {
        let (server, client) = match self {
            Self::Here(opened) => return opened.append(FrameKind::OtlpLogs, body),
            Self::Served(server, client) => (server, client),
        };
        let body = Bytes::from(body);
        loop {
            let request = client
                .post(format!("{}/v1/logs", server.otlp_http))
                .header("content-type", "application/x-protobuf")
                .body(body.clone());
            let status = request.send().await.unwrap().status();
            if status.is_success() {
                return;
            }
            assert!(matches!(status.as_u16(), 429 | 503), "{status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn expired(&self) -> u64 {
        match self {
            Self::Here(opened) => opened.store.stats().ledger.logs.expired,
            Self::Served(server, _) => server.records("logs", "expired").await,
        }
    }

    async fn assert_balanced(&self) {
        match self {
            Self::Here(opened) => opened.assert_balanced(),
            Self::Served(server, _) => server.books().await.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_size_the_directory_stays_within_5_percent_of_its_limit_while_records_come_in() {
    const LINE: usize = 1000;
    let seed = common::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let limit = rounds("SIZE_MIB", 16, 1024) << 20;
    // What comes in once the directory is full, by its limit.
    let further = limit / 4 * rounds("SIZE_QUARTERS", 1, 16);
    let target = Target::with_limit(dir.path(), limit);
    let noise = noise(&mut random, limit.min(32 << 20));
    let now_ns = otlp::now_ns();
    let (mut number, mut written) = (0, 0);
    let (mut highest, mut lowest) = (0, u64::MAX);
    let mut taken_last = 0;
    let begun = Instant::now();
    let mut looked = begun;
    let mut due = Duration::ZERO;
    // What had come in when the first data went.
    let mut full: Option<u64> = None;
    while full.is_none_or(|before| written - before <= further) {
        assert!(full.is_some() || written < 3 * limit, "nothing expires");
        // Old hours go first, whatever the order in which segments were written.
        let time_ns = now_ns - 100 * HOUR_NS + written / (limit / 10) * HOUR_NS;
        let sender = Sender { service: "checkout".into(), time_ns };
        let mut request = sender.logs(number, 50);
        number += 1;
        for log in &mut request.resource_logs[0].scope_logs[0].log_records {
            let at = random.random_range(0..noise.len() - LINE);
            let line = Value::StringValue(noise[at..at + LINE].to_owned());
            log.body = Some(AnyValue { value: Some(line) });
        }
        let body = request.encode_to_vec();
        let bytes = body.len() as u64;
        written += bytes;
        target.deliver(body).await;
        if looked.elapsed() >= Duration::from_millis(20) {
            looked = Instant::now();
            taken_last = taken(dir.path());
            highest = highest.max(taken_last);
            if target.expired().await > 0 {
                full.get_or_insert(written);
                lowest = lowest.min(taken_last);
            }
        }
        // A thirtieth of the limit in a second until the directory is nearly full, then a hundredth. Faster than data
        // are sealed, segments would grow to whole percents of such a small directory, and go as a whole.
        let nearly_full = full.is_some() || taken_last > limit * 9 / 10;
        let a_second = if nearly_full { limit / 100 } else { limit / 30 };
        // What a stall of the machine held up is not made good in a burst: that would be faster than data are sealed.
        due = due.max(begun.elapsed()) + Duration::from_secs_f64(bytes as f64 / a_second as f64);
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
    }
    eprintln!("{written} bytes came in; limit {limit}: between {lowest} and {highest} bytes");
    let percent = |bytes: u64| bytes as f64 * 100.0 / limit as f64;
    eprintln!("between {:.2} % and {:.2} % of the limit", percent(lowest), percent(highest));
    assert!(highest <= limit * 105 / 100, "{highest} bytes of {limit}");
    assert!(lowest >= limit * 95 / 100, "{lowest} bytes of {limit}");
    target.assert_balanced().await;
}

/// What a file holds once it is unpacked: Parquet as text, the log's requests, others as they are and decompressed.
fn decoded(path: &Path, data_dir: &Path) -> Vec<u8> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut out = fs::read(path).unwrap();
    if name.ends_with("parquet") {
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
        for pair in reader.metadata().file_metadata().key_value_metadata().into_iter().flatten() {
            // The schema's copy holds names only.
            if pair.key != "ARROW:schema" {
                out.extend(pair.value.clone().unwrap_or_default().into_bytes());
            }
        }
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            // Dictionaries may hold values that no row has.
            for column in batch.columns() {
                out.extend(format!("{:?}", column.to_data()).into_bytes());
            }
            let text = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap();
            out.extend(text.to_string().into_bytes());
        }
    } else if name.ends_with("wal") {
        let wal_dir = data_dir.join("wal");
        let visit = |frame: trefoil_storage::wal::frame::Frame<'_>, _| {
            out.extend(frame.body()?);
            Ok(())
        };
        trefoil_storage::wal::replay::scan(&wal_dir, 0, visit, |_, _| {}).unwrap();
    }
    // Parts that are zstd frames, wherever they begin.
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let starts: Vec<usize> =
        (0..out.len().saturating_sub(4)).filter(|at| out[*at..*at + 4] == magic).collect();
    for start in starts {
        let mut plain = Vec::new();
        let frame = zstd::stream::read::Decoder::new(&out[start..]).map(|d| d.single_frame());
        if let Ok(mut frame) = frame {
            let _ = std::io::Read::read_to_end(&mut frame, &mut plain);
        }
        out.extend(plain);
    }
    out
}

/// Files of a data directory in which some text stands.
fn naming(data_dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut all = files(data_dir);
    all.retain(|path| {
        let decoded = decoded(path, data_dir);
        decoded.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
    });
    all
}

#[test]
fn a_deleted_service_leaves_no_trace_in_any_store_or_index() {
    const THEIRS: &str = "zanzibar";
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.retention = None;
    let opened = Opened::new(config);
    let now_ns = otlp::now_ns();
    for number in 0..24u64 {
        let service = if number % 3 == 0 { THEIRS } else { "checkout" };
        let time_ns = now_ns - number % 4 * HOUR_NS;
        let sender = Sender { service: service.into(), time_ns };
        let mut logs = sender.logs(number, 5);
        if service == THEIRS {
            for log in &mut logs.resource_logs[0].scope_logs[0].log_records {
                log.event_name = format!("event of {THEIRS}");
                log.severity_text = THEIRS.to_uppercase();
                let body = format!("the word {THEIRS} stands here {number}");
                log.body = Some(AnyValue { value: Some(Value::StringValue(body)) });
            }
        }
        opened.append(FrameKind::OtlpTraces, sender.traces(number, 5).encode_to_vec());
        opened.append(FrameKind::OtlpLogs, logs.encode_to_vec());
        opened.append(FrameKind::OtlpMetrics, sender.metrics(number, 5).encode_to_vec());
        match number {
            11 => opened.store.seal_now().unwrap(),
            17 => opened.store.compact_now().unwrap(),
            _ => {}
        }
    }
    assert!(!naming(dir.path(), THEIRS).is_empty(), "before, it does stand in files");

    let deleted = opened.store.delete_service(THEIRS).unwrap();
    for signal in ["spans", "logs", "metrics"] {
        assert_eq!(deleted[signal], 8 * 5, "{signal}");
    }
    assert_eq!(naming(dir.path(), THEIRS), Vec::<PathBuf>::new());
    opened.assert_balanced();
    let stats = opened.store.stats();
    for (signal, account) in stats.ledger.accounts() {
        assert_eq!((account.deleted, account.live()), (40, 80), "{}", signal.name());
    }
    assert_eq!(opened.logs(), 80);
    let services = opened.stores.spans.services();
    assert_eq!(services.iter().map(|name| &**name).collect::<Vec<_>>(), ["checkout"]);
    let cells = opened.stores.red.cells(&Default::default(), 0, u64::MAX).unwrap();
    assert!(!cells.is_empty() && cells.iter().all(|cell| &*cell.key.service == "checkout"));

    // What comes in later is there again, also after a restart.
    let sender = Sender::now(THEIRS);
    opened.append(FrameKind::OtlpLogs, sender.logs(999, 3).encode_to_vec());
    assert_eq!(opened.logs(), 83);
    opened.store.close().unwrap();
    drop(opened);
    let again = Opened::new(Config { retention: None, ..Config::new(dir.path()) });
    assert_eq!(again.logs(), 83);
    again.assert_balanced();
}
