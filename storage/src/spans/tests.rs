//! Segments: what is written is read back, merged or copied, with a trace index or without.

use super::batch::{SpanBatch, SpanFields};
use super::merge::{Sizes, merge};
use super::row::Span;
use super::search::SpanQuery;
use super::segment::{INDEX, ParsedTexts, SpanSegment};
use super::store::SpanSnapshot;
use super::write::write;
use crate::attributes::{self, Value, put_attribute};
use crate::bloom::Room;
use crate::resource::{Interner, Resource, Scope};
use crate::segment::{SegmentDir, SegmentMeta};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

const START_NS: u64 = 1_790_000_000_000_000_000;

struct Bench {
    dir: SegmentDir,
    interner: Interner,
    random: StdRng,
    /// Spans start in the second after it.
    start_ns: u64,
    _folder: tempfile::TempDir,
}

/// A span as a line of text, attributes sorted.
fn line(span: &Span) -> String {
    let attributes: BTreeMap<&str, String> = attributes::iter(&span.attributes)
        .map(|(key, value)| (key, format!("{value:?}")))
        .collect();
    format!(
        "{:?} {} {} {:?} {:?} {attributes:?}",
        span.fields, span.name, span.status_message, span.resource.id, span.scope.id
    )
}

impl Bench {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            dir: SegmentDir::new(folder.path().join("segments"), 1).unwrap(),
            interner: Interner::default(),
            random: StdRng::seed_from_u64(seed),
            start_ns: START_NS,
            _folder: folder,
        }
    }

    /// Spans of `traces` traces, numbered from `first_trace`.
    ///
    /// * `attribute(n)`: key and value of a span.
    fn batch(
        &mut self,
        first_trace: u64,
        traces: u64,
        attribute: impl Fn(u64) -> (String, Value<'static>),
    ) -> SpanBatch {
        let mut batch = SpanBatch::default();
        for n in 0..traces * 5 {
            let mut list = Vec::new();
            put_attribute(&mut list, "service.name", Value::Str(["a", "b"][n as usize % 2]));
            let resource = self.interner.resource(Resource::new(&list, "", 0));
            let scope = self.interner.scope(Scope::new("tests", "1", &[], "", 0));
            let mut trace_id = [0; 16];
            trace_id[8..].copy_from_slice(&(first_trace + n % traces).to_be_bytes());
            let start_ns = self.start_ns + self.random.random_range(0..1_000_000_000);
            let row = SpanFields {
                trace_id,
                span_id: self.random.random(),
                parent_span_id: if n % 5 == 0 { [0; 8] } else { self.random.random() },
                start_ns,
                end_ns: start_ns + n,
                kind: 2,
                resource: batch.resource_index(&resource),
                scope: batch.scope_index(&scope),
                ..SpanFields::default()
            };
            put_attribute(batch.open_attributes(), "common", Value::Int(n as i64));
            let (key, value) = attribute(n);
            put_attribute(batch.open_attributes(), &key, value);
            batch.push_row(&row, ["read", "write", "wait"][n as usize % 3], "", "message");
        }
        batch.finish();
        batch
    }

    fn sealed(&self, batch: &SpanBatch) -> Arc<SpanSegment> {
        let metas = write(&self.dir, &[batch], 0).unwrap();
        assert_eq!(metas.len(), 1, "all within an hour");
        self.open(&metas[0])
    }

    fn open(&self, meta: &SegmentMeta) -> Arc<SpanSegment> {
        Arc::new(SpanSegment::open(&self.dir, meta, &Arc::new(Room::new(1 << 20))).unwrap())
    }

    fn snapshot(&self, segments: &[Arc<SpanSegment>]) -> SpanSnapshot {
        SpanSnapshot {
            hot: Vec::new(),
            segments: segments.to_vec(),
            interner: Arc::default(),
            texts: Arc::default(),
        }
    }

    fn lines(&self, segment: &SpanSegment) -> Vec<String> {
        let spans = segment.spans(None, &self.interner, &ParsedTexts::default()).unwrap();
        let mut lines: Vec<String> = spans.iter().map(line).collect();
        lines.sort();
        lines
    }

    /// Merges with all ways to treat a row group, and compares with what went in.
    fn check_merge(&self, inputs: &[Arc<SpanSegment>]) {
        let mut wanted: Vec<String> = inputs.iter().flat_map(|input| self.lines(input)).collect();
        wanted.sort();
        for (copied_rows, group_rows) in
            [(1, 1), (60, 100), (usize::MAX, 100), (usize::MAX, usize::MAX)]
        {
            let sizes = Sizes { copied_rows, group_rows };
            let meta = merge(&self.dir, inputs, 1, sizes).unwrap();
            assert_eq!(meta.rows, wanted.len() as u64, "{sizes:?}");
            let merged = self.open(&meta);
            assert_eq!(self.lines(&merged), wanted, "{sizes:?}");
            self.check_index(&merged);
            assert!(merged.examine(&self.dir).unwrap().is_empty(), "{sizes:?}");
        }
    }

    /// Every trace is where the index says, and nowhere else.
    fn check_index(&self, segment: &SpanSegment) {
        let all = segment.spans(None, &self.interner, &ParsedTexts::default()).unwrap();
        for span in all.iter().step_by(23) {
            let id = span.fields.trace_id;
            let rows = segment.rows_of(&[id]).unwrap();
            let found =
                segment.spans(Some(&rows), &self.interner, &ParsedTexts::default()).unwrap();
            assert!(found.iter().all(|span| span.fields.trace_id == id));
            let wanted = all.iter().filter(|span| span.fields.trace_id == id).count();
            assert_eq!(found.len(), wanted);
        }
    }
}

#[test]
fn merged_segments_hold_what_went_in_whether_groups_are_copied_or_encoded_anew() {
    let mut bench = Bench::new(1);
    let text =
        |n: u64| ("key".to_owned(), Value::Str(if n.is_multiple_of(2) { "even" } else { "odd" }));
    // The same traces go on in the second segment; the third is small.
    let batches = [bench.batch(0, 20, text), bench.batch(10, 20, text), bench.batch(90, 3, text)];
    let inputs = batches.each_ref().map(|batch| bench.sealed(batch));
    bench.check_merge(&inputs);
}

#[test]
fn inputs_may_disagree_on_columns_and_their_types() {
    let mut bench = Bench::new(2);
    let batches = [
        bench.batch(0, 20, |n| ("key".to_owned(), Value::Int(n as i64))),
        bench.batch(10, 15, |_| ("key".to_owned(), Value::Str("text"))),
        bench.batch(20, 10, |_| ("other".to_owned(), Value::Bool(true))),
        bench.batch(30, 10, |_| ("key".to_owned(), Value::Double(0.5))),
    ];
    let inputs = batches.each_ref().map(|batch| bench.sealed(batch));
    bench.check_merge(&inputs);
}

#[test]
fn inputs_with_many_keys_have_those_in_the_rest_that_few_rows_have() {
    let mut bench = Bench::new(3);
    let batches = [0, 1, 2].map(|part| {
        bench.batch(part * 10, 20, move |n| (format!("key-{}", part * 30 + n % 30), Value::Int(1)))
    });
    let inputs = batches.each_ref().map(|batch| bench.sealed(batch));
    bench.check_merge(&inputs);
}

#[test]
fn a_search_that_has_enough_reads_nothing_older() {
    let mut bench = Bench::new(7);
    let mut segments = Vec::new();
    for number in 0..4 {
        bench.start_ns = START_NS + number * 10_000_000_000;
        let batch = bench.batch(number * 50, 30, |n| ("n".to_owned(), Value::Int(n as i64)));
        segments.push(bench.sealed(&batch));
    }
    // The order in which segments are listed does not matter.
    segments.swap(0, 2);
    let snapshot = bench.snapshot(&segments);
    let search = |start_ns, limit| {
        let query = SpanQuery {
            service: None,
            operation: None,
            min_duration_ns: None,
            max_duration_ns: None,
            status: None,
            attributes: Vec::new(),
            start_ns,
            end_ns: u64::MAX,
            limit,
        };
        let found = snapshot.search(&query)?;
        assert!(found.is_sorted_by_key(|trace| Reverse(trace.start_ns)));
        std::io::Result::Ok(found.into_iter().map(|trace| trace.trace_id[15]).collect::<Vec<_>>())
    };
    let all = search(0, 1_000).unwrap();
    assert_eq!(all.len(), 120);
    for limit in [1, 29, 30, 31, 60, 119] {
        assert_eq!(search(0, limit).unwrap(), all[..limit], "{limit}");
    }
    // The oldest but one: what was in memory of it is gone, and then its file.
    segments[1].file.forget_footer();
    std::fs::remove_file(bench.dir.file_path(&segments[1].meta, "parquet")).unwrap();
    assert_eq!(search(0, 29).unwrap(), all[..29]);
    assert_eq!(search(START_NS + 20_000_000_000, 1_000).unwrap(), all[..60]);
    assert!(search(0, 61).is_err());
}

#[test]
fn a_missing_or_damaged_trace_index_is_made_anew() {
    let mut bench = Bench::new(4);
    let batch = bench.batch(0, 700, |n| ("key".to_owned(), Value::Int(n as i64)));
    let segment = bench.sealed(&batch);
    let path = bench.dir.file_path(&segment.meta, INDEX);
    let good = std::fs::read(&path).unwrap();
    for damage in ["first byte", "last byte", "cut", "missing"] {
        let mut bytes = good.clone();
        match damage {
            "first byte" => bytes[0] ^= 1,
            "last byte" => *bytes.last_mut().unwrap() ^= 1,
            _ => bytes.truncate(good.len() / 2),
        }
        std::fs::write(&path, bytes).unwrap();
        if damage == "missing" {
            std::fs::remove_file(&path).unwrap();
        }
        let segment = bench.open(&segment.meta);
        assert_eq!(segment.examine(&bench.dir).unwrap().len(), 1, "{damage}");
        for row in batch.rows.iter().step_by(7) {
            assert_eq!(segment.rows_of(&[row.trace_id]).unwrap().len(), 1, "{damage}");
        }
        assert_eq!(segment.entries().unwrap().len(), 700, "{damage}");
    }
}

#[test]
fn an_index_of_another_segment_with_as_many_rows_is_found_out() {
    let mut bench = Bench::new(6);
    let attribute = |_| ("key".to_owned(), Value::Int(1));
    let segments = [bench.batch(0, 20, attribute), bench.batch(40, 20, attribute)]
        .map(|batch| bench.sealed(&batch));
    assert!(segments[0].examine(&bench.dir).unwrap().is_empty());
    let [own, other] = segments.each_ref().map(|segment| bench.dir.file_path(&segment.meta, INDEX));
    std::fs::copy(other, own).unwrap();
    let faults = segments[0].examine(&bench.dir).unwrap();
    assert_eq!(faults, ["the trace index does not lead to the rows"]);
}

#[test]
#[allow(clippy::single_range_in_vec_init, reason = "ranges of rows, of which one may stand alone")]
fn rows_that_a_file_does_not_have_are_an_error() {
    let mut bench = Bench::new(5);
    let batch = bench.batch(0, 2, |_| ("key".to_owned(), Value::Int(1)));
    let segment = bench.sealed(&batch);
    let read = |rows: &[std::ops::Range<usize>]| segment.file.read(&["name"], Some(rows)).map(drop);
    assert!(read(&[0..3, 3..10]).is_ok());
    for rows in [vec![0..11], vec![3..4, 0..1], vec![0..4, 3..5], vec![11..11]] {
        assert_eq!(read(&rows).unwrap_err().kind(), std::io::ErrorKind::InvalidData, "{rows:?}");
    }
}
