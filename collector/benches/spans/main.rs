//! What a span costs from its bytes to a merged segment, and what reading it back costs.
//!
//! `cargo bench -p trefoil-collector --bench spans` prints CPU time and bytes per span of
//! each step, all on one thread and without the log's syncs, then the latencies of reading. `SPANS=15000000` before it
//! takes so many spans.

mod corpus;

use corpus::{Corpus, NOUNS, SERVICES};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decoder::FrameDecoder;
use trefoil_storage::red::{RedFilter, RedStore};
use trefoil_storage::resource::Interner;
use trefoil_storage::segment::{SegmentDir, SegmentMeta};
use trefoil_storage::signal::{Batch, Decoder as _, FrameKind, SignalStore};
use trefoil_storage::spans::{SpanQuery, SpanStore};
use trefoil_storage::wal::frame;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As the store seals by default: an eighth of 1 GiB of hot rows, or 48 MiB of log.
const SEAL_HOT_BYTES: usize = 128 << 20;
const SEAL_LOG_BYTES: usize = 48 << 20;

const FAN_IN: usize = 4;

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let on_cpu = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(on_cpu.expect("a number of ns"))
}

#[derive(Default)]
struct Clock(BTreeMap<&'static str, Duration>);

impl Clock {
    fn time<T>(&mut self, step: &'static str, work: impl FnOnce() -> T) -> T {
        let before = cpu();
        let done = work();
        *self.0.entry(step).or_default() += cpu() - before;
        done
    }
}

/// A store and the segments that a manifest would list for it.
struct Kept<'a> {
    store: &'a dyn SignalStore,
    dir: &'a SegmentDir,
    live: Vec<SegmentMeta>,
}

impl Kept<'_> {
    fn seal(&mut self) {
        self.store.freeze();
        let added = self.store.seal(&self.dir.job()).expect("sealed");
        self.store.publish(self.dir, &added, &[], true).expect("published");
        self.live.extend(added);
    }

    /// Merges four of a level, or at the end whatever is left of a partition.
    fn compact(&mut self, at_end: bool) {
        loop {
            let mut groups: BTreeMap<(u64, u32), Vec<SegmentMeta>> = BTreeMap::new();
            for meta in &self.live {
                let level = if at_end { 0 } else { meta.level };
                groups.entry((meta.partition_ns, level)).or_default().push(meta.clone());
            }
            let least = if at_end { 2 } else { FAN_IN };
            let Some(inputs) = groups.into_values().find(|group| group.len() >= least) else {
                return;
            };
            let added = self.store.compact(&self.dir.job(), &inputs).expect("merged");
            self.store.publish(self.dir, &added, &inputs, false).expect("published");
            for gone in &inputs {
                for file in &gone.files {
                    std::fs::remove_file(self.dir.file_path(gone, &file.extension))
                        .expect("removed");
                }
            }
            self.live.retain(|meta| !inputs.iter().any(|gone| gone.id == meta.id));
            self.live.extend(added);
        }
    }
}

fn main() {
    let wanted: u64 = std::env::var("SPANS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_550_000);
    let folder = tempfile::tempdir().expect("a folder for the segments");
    let dir = SegmentDir::new(folder.path().join("segments"), 1).expect("made");
    let interner: Arc<Interner> = Arc::default();
    let decoder = FrameDecoder::new(interner.clone(), DecodeLimits::default());
    let (store, red) = (SpanStore::new(interner), RedStore::new());
    let mut spans = Kept { store: &store, dir: &dir, live: Vec::new() };
    let mut figures = Kept { store: &red, dir: &dir, live: Vec::new() };
    let mut corpus = Corpus::new(42, 1_790_000_000_000_000_000);
    let mut clock = Clock::default();
    let (mut rows, mut wire_bytes, mut log_bytes, mut since_seal) = (0u64, 0, 0, 0);
    let mut sealed_first = 0.0;

    while rows < wanted {
        let (body, arrival_ns) = corpus.request();
        wire_bytes += body.len();
        let frame = clock
            .time("2 log frame", || frame::encode(FrameKind::OtlpTraces, arrival_ns, 0, &body));
        let frame = frame.expect("encoded").len();
        log_bytes += frame;
        since_seal += frame;
        let decoded =
            clock.time("1 decode", || decoder.decode(FrameKind::OtlpTraces, &body, arrival_ns));
        let decoded = decoded.expect("decoded");
        rows += decoded.accepted;
        let Batch::Spans(batch) = decoded.batch else { panic!("spans become spans") };
        clock.time("3 RED", || red.observe(&batch));
        clock.time("4 hot", || store.insert(batch));
        if store.hot_bytes() + red.hot_bytes() > SEAL_HOT_BYTES || since_seal > SEAL_LOG_BYTES {
            since_seal = 0;
            clock.time("5 seal", || spans.seal());
            clock.time("6 seal RED", || figures.seal());
            if sealed_first == 0.0 {
                sealed_first = bytes(&spans.live, None) as f64 / rows as f64;
                println!("{rows} spans in the first seal");
            }
            clock.time("7 compact", || spans.compact(false));
            clock.time("8 compact RED", || figures.compact(false));
        }
    }
    clock.time("5 seal", || spans.seal());
    clock.time("6 seal RED", || figures.seal());
    for at_end in [false, true] {
        clock.time("7 compact", || spans.compact(at_end));
        clock.time("8 compact RED", || figures.compact(at_end));
    }

    let per = |bytes: u64| bytes as f64 / rows as f64;
    println!(
        "{rows} spans in {} traces, {:.0} bytes a span on the wire",
        corpus.trace_ids.len(),
        per(wire_bytes as u64)
    );
    let total: Duration = clock.0.values().sum();
    for (step, time) in &clock.0 {
        println!("{step:14} {:8.3} µs a span", time.as_secs_f64() * 1e6 / rows as f64);
    }
    println!(
        "{:14} {:8.3} µs a span = {:.0} spans per CPU-second",
        "all",
        total.as_secs_f64() * 1e6 / rows as f64,
        rows as f64 / total.as_secs_f64()
    );
    println!(
        "bytes a span: first seal {sealed_first:.1}; at the end rows {:.2}, trace index {:.2}, RED {:.2}, all {:.2}; log {:.1}",
        per(bytes(&spans.live, Some("parquet"))),
        per(bytes(&spans.live, Some("tix"))),
        per(bytes(&figures.live, None)),
        per(bytes(&spans.live, None) + bytes(&figures.live, None)),
        per(log_bytes as u64)
    );
    columns(&spans, rows);
    columns(&figures, rows);
    read(&store, &red, &corpus);
    reopen(&spans.live, &figures.live, &dir);
}

fn bytes(metas: &[SegmentMeta], extension: Option<&str>) -> u64 {
    let files = metas.iter().flat_map(|meta| &meta.files);
    files.filter(|f| extension.is_none_or(|e| f.extension == e)).map(|f| f.bytes).sum()
}

/// Bytes per span of each column, the largest first.
fn columns(kept: &Kept<'_>, rows: u64) {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    let mut sizes: BTreeMap<String, i64> = BTreeMap::new();
    for meta in &kept.live {
        let file = std::fs::File::open(kept.dir.file_path(meta, "parquet")).expect("opened");
        let reader = SerializedFileReader::new(file).expect("Parquet");
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                *sizes.entry(column.column_path().string()).or_default() +=
                    column.compressed_size();
            }
        }
    }
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort_by_key(|(_, bytes)| -bytes);
    let text: Vec<String> = sizes
        .iter()
        .take(24)
        .map(|(name, bytes)| format!("{name} {:.2}", *bytes as f64 / rows as f64))
        .collect();
    println!("{} segments, {}", kept.live.len(), text.join(", "));
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| {
        times[((times.len() as f64 * share) as usize).min(times.len() - 1)].as_secs_f64() * 1e3
    };
    println!(
        "{name}: p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, {} queries",
        at(0.5),
        at(0.95),
        at(0.99),
        times.len()
    );
}

fn read(store: &SpanStore, red: &RedStore, corpus: &Corpus) {
    let snapshot = store.snapshot();
    let ids = || corpus.trace_ids.iter().step_by((corpus.trace_ids.len() / 400).max(1));
    let mut times = Vec::new();
    for id in ids() {
        let started = Instant::now();
        black_box(snapshot.trace(id).expect("read"));
        times.push(started.elapsed());
    }
    percentiles("trace by id", times);
    let mut times = Vec::new();
    for id in ids() {
        let mut unknown = *id;
        unknown[3] ^= 1;
        let started = Instant::now();
        assert!(snapshot.trace(&unknown).expect("read").is_empty());
        times.push(started.elapsed());
    }
    percentiles("unknown trace", times);
    search(store, "search", &[0, 5, 20, 50, 200], None);
    search(store, "search with attribute", &[1, 20], Some(("app.score", "0.5")));
    let mut times = Vec::new();
    for service in SERVICES {
        let filter = RedFilter { service: Some(service.into()), ..RedFilter::default() };
        let started = Instant::now();
        black_box(red.cells(&filter, 0, u64::MAX).expect("read"));
        times.push(started.elapsed());
    }
    percentiles("RED of a service", times);
}

/// Searches of every service and some of its operations, 20 traces each.
fn search(store: &SpanStore, name: &str, min_ms: &[u64], attribute: Option<(&str, &str)>) {
    let snapshot = store.snapshot();
    let (mut times, mut found) = (Vec::new(), 0);
    for (number, service) in SERVICES.iter().enumerate() {
        let noun = NOUNS[number % NOUNS.len()];
        let operations =
            [format!("GET /api/{noun}/{{id}}"), format!("SELECT {noun}"), format!("load {noun}")];
        for (operation, min_ms) in
            operations.iter().flat_map(|o| min_ms.iter().map(move |m| (o, m)))
        {
            let query = SpanQuery {
                service: Some((*service).to_owned()),
                operation: Some(operation.clone()),
                min_duration_ns: Some(min_ms * 1_000_000),
                max_duration_ns: None,
                status: None,
                attributes: attribute
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .into_iter()
                    .collect(),
                start_ns: 0,
                end_ns: u64::MAX,
                limit: 20,
            };
            let started = Instant::now();
            found += snapshot.search(&query).expect("searched").len();
            times.push(started.elapsed());
        }
    }
    println!("{name}: {:.1} traces a query", found as f64 / times.len() as f64);
    percentiles(name, times);
}

fn reopen(spans: &[SegmentMeta], red: &[SegmentMeta], dir: &SegmentDir) {
    let started = Instant::now();
    let store = SpanStore::new(Arc::default());
    assert!(store.open(dir, spans).is_empty());
    let figures = RedStore::new();
    assert!(figures.open(dir, red).is_empty());
    println!("opened again in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
}
