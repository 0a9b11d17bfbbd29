//! The life of the figures: hot, sealed, opened again, merged into minutes and into hours. Counts and sums stay exact,
//! percentiles those of one histogram that was fed with everything.

use super::*;
use crate::resource::{Resource, Scope};
use crate::segment::{PARTITION_NS, SegmentDir, SegmentMeta};
use crate::signal::SignalStore as _;
use crate::spans::{SpanBatch, SpanFields};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::sync::Arc;

const HOUR_NS: u64 = PARTITION_NS;
const START_NS: u64 = 490_000 * HOUR_NS;

/// Service, operation, kind, status.
type Group = (String, String, i32, i32);

/// Durations of every span by group, in order of arrival.
type Fed = BTreeMap<Group, Vec<u64>>;

fn feed(store: &RedStore, random: &mut StdRng, spans: usize, fed: &mut Fed) {
    let mut batch = SpanBatch::default();
    let scope = Arc::new(Scope::new("", "", &[], "", 0));
    for _ in 0..spans {
        let service = *["cart", "checkout", "payment"].get(random.random_range(0..3)).unwrap();
        let mut attributes = Vec::new();
        let name = crate::attributes::Value::Str(service);
        crate::attributes::put_attribute(&mut attributes, "service.name", name);
        let resource = Arc::new(Resource::new(&attributes, "", 0));
        let operation = format!("GET /{}", random.random_range(0..4));
        let kind = if random.random_bool(0.5) { 2 } else { 1 };
        let status = if random.random_bool(0.05) { 2 } else { 0 };
        // From a microsecond to a minute, with a long tail.
        let duration_ns = (1_000.0 * (random.random::<f64>() * 18.0).exp()) as u64;
        let start_ns = START_NS + random.random_range(0..HOUR_NS);
        let row = SpanFields {
            trace_id: random.random(),
            span_id: random.random(),
            start_ns,
            end_ns: start_ns + duration_ns,
            kind,
            status_code: status,
            resource: batch.resource_index(&resource),
            scope: batch.scope_index(&scope),
            ..SpanFields::default()
        };
        batch.push_row(&row, &operation, "", "");
        fed.entry((service.to_owned(), operation, kind, status)).or_default().push(duration_ns);
    }
    batch.finish();
    store.observe(&batch);
}

/// All cells of each group as one.
fn totals(cells: Vec<RedCell>) -> BTreeMap<Group, (Sketch, u128)> {
    let mut totals: BTreeMap<Group, (Sketch, u128)> = BTreeMap::new();
    for cell in cells {
        let key = &cell.key;
        let group = (key.service.to_string(), key.operation.to_string(), key.kind, key.status);
        let total = totals.entry(group).or_default();
        total.0.merge(&cell.sketch);
        total.1 += cell.sum_ns;
    }
    totals
}

fn check(store: &RedStore, fed: &Fed, when: &str) {
    let cells = store.cells(&RedFilter::default(), START_NS, START_NS + HOUR_NS - 1).unwrap();
    let totals = totals(cells);
    assert_eq!(totals.keys().collect::<Vec<_>>(), fed.keys().collect::<Vec<_>>(), "{when}");
    for (group, durations) in fed {
        let (sketch, sum_ns) = &totals[group];
        let mut whole = Sketch::default();
        durations.iter().for_each(|duration| whole.record(*duration));
        assert_eq!(sketch, &whole, "{group:?} {when}: one histogram fed with everything");
        assert_eq!(sketch.count(), durations.len() as u64);
        assert_eq!(*sum_ns, durations.iter().map(|d| u128::from(*d)).sum::<u128>());
        let mut sorted = durations.clone();
        sorted.sort_unstable();
        for q in [0.5, 0.9, 0.95, 0.99, 1.0] {
            let exact = sorted[((q * sorted.len() as f64).ceil() as usize).max(1) - 1];
            let found = sketch.quantile(q).unwrap();
            assert!(found.low_ns <= exact && exact <= found.high_ns, "{group:?} {when}: p{q}");
            let off = (found.value_ns - exact as f64).abs() / exact as f64;
            assert!(off < 0.001, "{group:?} {when}: p{q} is off by {off}");
        }
    }
    let mut of_minutes: BTreeMap<_, usize> = BTreeMap::new();
    for cell in store.cells(&RedFilter::default(), 0, u64::MAX).unwrap() {
        *of_minutes.entry((cell.key.clone(), cell.time_ns / 60_000_000_000)).or_default() +=
            cell.exemplars.len();
        for exemplar in &cell.exemplars {
            let slot = cell.time_ns..cell.time_ns + cell.width_ns;
            assert!(slot.contains(&exemplar.time_ns), "an exemplar of its own slot, {when}");
        }
    }
    assert!(of_minutes.values().all(|found| *found >= 1), "a real span leads on from every minute");
    let (found, minutes) = (of_minutes.values().sum::<usize>(), of_minutes.len());
    assert!(!when.starts_with("merged") || found <= 2 * minutes, "{found} in {minutes} minutes");
}

struct Bench {
    store: RedStore,
    dir: SegmentDir,
    live: Vec<SegmentMeta>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = SegmentDir::new(folder.path().join("segments"), 1).unwrap();
        Self { store: RedStore::new(), dir, live: Vec::new(), _folder: folder }
    }

    fn seal(&mut self) {
        self.store.freeze();
        let added = self.store.seal(&self.dir).unwrap();
        self.store.publish(&self.dir, &added, &[], true).unwrap();
        self.live.extend(added);
    }

    fn reopen(&mut self) {
        self.store = RedStore::new();
        assert!(self.store.open(&self.dir, &self.live).is_empty());
    }

    /// Merges all segments as if it were `now_ns`.
    fn compact(&mut self, now_ns: u64) {
        let inputs = std::mem::take(&mut self.live);
        self.live = self.store.compact_as_of(&self.dir, &inputs, now_ns).unwrap();
        self.store.publish(&self.dir, &self.live, &inputs, false).unwrap();
    }

    fn widths(&self) -> Vec<u64> {
        let cells = self.store.cells(&RedFilter::default(), 0, u64::MAX).unwrap();
        let mut widths: Vec<u64> = cells.iter().map(|cell| cell.width_ns / 1_000_000_000).collect();
        widths.sort_unstable();
        widths.dedup();
        widths
    }
}

#[test]
fn counts_and_percentiles_survive_seal_restart_and_merges_into_minutes_and_hours() {
    let mut random = StdRng::seed_from_u64(7);
    let (mut bench, mut fed) = (Bench::new(), Fed::new());
    let end_ns = START_NS + HOUR_NS;
    feed(&bench.store, &mut random, 4_000, &mut fed);
    check(&bench.store, &fed, "hot");
    bench.seal();
    check(&bench.store, &fed, "sealed");
    assert_eq!(bench.store.hot_bytes(), 0);
    feed(&bench.store, &mut random, 4_000, &mut fed);
    check(&bench.store, &fed, "sealed and hot");
    bench.seal();
    bench.reopen();
    check(&bench.store, &fed, "opened again");

    bench.compact(end_ns + 600_000_000_000);
    assert_eq!(bench.widths(), [10]);
    check(&bench.store, &fed, "merged while young");
    assert_eq!(bench.store.outgrown(end_ns + 2 * HOUR_NS), None);

    let late_ns = end_ns + 2 * HOUR_NS + 1;
    assert_eq!(bench.store.outgrown(late_ns).as_ref(), Some(&bench.live), "alone, but due");
    bench.compact(late_ns);
    assert_eq!(bench.widths(), [60]);
    check(&bench.store, &fed, "in minutes");
    assert_eq!(bench.store.outgrown(late_ns), None);

    // What comes late is merged with what is in minutes already.
    feed(&bench.store, &mut random, 500, &mut fed);
    bench.seal();
    assert_eq!(bench.widths(), [10, 60]);
    check(&bench.store, &fed, "in minutes, and late ones in seconds");
    assert_eq!(bench.store.outgrown(late_ns).map(|due| due.len()), Some(2));

    let next_day_ns = end_ns + 24 * HOUR_NS + 1;
    bench.compact(next_day_ns);
    assert_eq!(bench.widths(), [3600]);
    check(&bench.store, &fed, "in hours");
    assert_eq!(bench.live[0].rows, fed.len() as u64, "a cell a group");
    assert_eq!(bench.store.outgrown(next_day_ns), None);
    bench.reopen();
    check(&bench.store, &fed, "in hours, opened again");
    assert_eq!(bench.store.outgrown(u64::MAX), None);
}

#[test]
fn memory_of_the_figures_grows_with_what_they_hold() {
    let (store, mut fed) = (RedStore::new(), Fed::new());
    let mut random = StdRng::seed_from_u64(8);
    feed(&store, &mut random, 100, &mut fed);
    let few = store.hot_bytes();
    feed(&store, &mut random, 10_000, &mut fed);
    assert!(few > 100 * 100 && store.hot_bytes() > 10 * few);
}
