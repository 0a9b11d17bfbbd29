//! Remote write decoded: what prost writes by the published definitions, and what must be refused.

mod prompb;

use prompb::{v1, v2};
use proptest::prelude::*;
use prost::Message;
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decode::remote_write::{self, Written};
use trefoil_storage::attributes;
use trefoil_storage::metrics::{MetricBatch, MetricKind, PointValue, STALE_BITS};
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::{Batch, Decoded, FrameKind};

const NOW_MS: i64 = 1_790_000_000_000;

fn decode(kind: FrameKind, body: &[u8]) -> Result<(MetricBatch, Decoded), String> {
    let now_ns = NOW_MS as u64 * 1_000_000;
    let mut decoded =
        remote_write::decode(kind, body, now_ns, &Interner::default(), &DecodeLimits::default())?;
    let empty = Batch::Metrics(MetricBatch::default());
    let Batch::Metrics(batch) = std::mem::replace(&mut decoded.batch, empty) else {
        panic!("remote write decodes to metrics")
    };
    Ok((batch, decoded))
}

fn decode_1(request: &v1::WriteRequest) -> (MetricBatch, Decoded) {
    decode(FrameKind::RemoteWrite1, &request.encode_to_vec()).unwrap()
}

fn decode_2(request: &v2::Request) -> (MetricBatch, Decoded) {
    decode(FrameKind::RemoteWrite2, &request.encode_to_vec()).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Vec<v1::Label> {
    pairs.iter().map(|(n, v)| v1::Label { name: (*n).into(), value: (*v).into() }).collect()
}

fn sample(value: f64, timestamp: i64) -> v1::Sample {
    v1::Sample { value, timestamp }
}

fn request(series: Vec<v1::TimeSeries>) -> v1::WriteRequest {
    v1::WriteRequest { timeseries: series, metadata: Vec::new() }
}

/// `name{label="value",…}` of a row.
fn shown(batch: &MetricBatch, row: usize) -> String {
    let labels: Vec<String> = attributes::iter(batch.attributes.get(row))
        .map(|(name, value)| format!("{name}={}", value.to_text()))
        .collect();
    let metric = &batch.metrics[batch.points[row].metric as usize];
    assert_eq!(metric.kind, MetricKind::Prometheus);
    format!("{}{{{}}}", metric.name, labels.join(","))
}

#[test]
fn labels_are_sorted_and_empty_ones_are_absent() {
    let series = v1::TimeSeries {
        labels: labels(&[("zone", "b"), ("__name__", "up"), ("job", "x"), ("gone", "")]),
        samples: vec![sample(1.0, 1_000)],
        ..Default::default()
    };
    let (batch, decoded) = decode_1(&request(vec![series]));
    assert_eq!(shown(&batch, 0), "up{job=x,zone=b}");
    assert_eq!((decoded.accepted, decoded.rejected), (1, 0));
    assert_eq!(batch.points[0].time_ns, 1_000_000_000);
}

#[test]
fn the_order_in_which_labels_are_sent_makes_no_other_series() {
    let series = |pairs| v1::TimeSeries {
        labels: labels(pairs),
        samples: vec![sample(1.0, 1)],
        ..Default::default()
    };
    let (batch, _) = decode_1(&request(vec![
        series(&[("__name__", "up"), ("a", "1"), ("b", "2")]),
        series(&[("b", "2"), ("a", "1"), ("__name__", "up")]),
        series(&[("__name__", "up"), ("a", "1"), ("b", "3")]),
    ]));
    assert_eq!(batch.points[0].series_id, batch.points[1].series_id);
    assert_ne!(batch.points[0].series_id, batch.points[2].series_id);
}

#[test]
fn stale_markers_and_time_zero_are_kept_bit_by_bit() {
    let series = v1::TimeSeries {
        labels: labels(&[("__name__", "up")]),
        samples: vec![sample(1.5, 0), sample(f64::from_bits(STALE_BITS), 15_000)],
        ..Default::default()
    };
    let (batch, decoded) = decode_1(&request(vec![series]));
    assert_eq!(decoded.rejected, 0);
    let bits: Vec<(u64, u64)> = batch
        .points
        .iter()
        .map(|point| match point.value {
            PointValue::Double(v) => (point.time_ns, v.to_bits()),
            _ => panic!("not a double"),
        })
        .collect();
    assert_eq!(bits, [(0, 1.5f64.to_bits()), (15_000_000_000, STALE_BITS)]);
}

#[test]
fn bad_series_and_samples_are_refused_and_the_good_ones_kept() {
    let series = |pairs, time| v1::TimeSeries {
        labels: labels(pairs),
        samples: vec![sample(1.0, time)],
        ..Default::default()
    };
    let (batch, decoded) = decode_1(&request(vec![
        series(&[("job", "no name")], 1),
        series(&[("__name__", ""), ("job", "empty name")], 1),
        series(&[("__name__", "x"), ("job", "1"), ("job", "2")], 1),
        series(&[("__name__", "x"), ("", "nameless")], 1),
        series(&[("__name__", "x")], -1),
        series(&[("__name__", "x")], NOW_MS + 86_400_001),
        series(&[("__name__", "x"), ("job", "good")], NOW_MS),
    ]));
    assert_eq!((decoded.accepted, decoded.rejected), (1, 6));
    assert_eq!(shown(&batch, 0), "x{job=good}");
    let reason = decoded.reason.unwrap();
    for part in ["2 × the metric has no name", "2 × a label", "1 × timestamp", "1 × time lies"]
    {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn text_that_is_not_utf8_refuses_the_series_only() {
    let good = v1::TimeSeries {
        labels: labels(&[("__name__", "x")]),
        samples: vec![sample(1.0, 1)],
        ..Default::default()
    };
    let mut body = request(vec![good.clone()]).encode_to_vec();
    let at = body.len();
    request(vec![v1::TimeSeries { labels: labels(&[("__name__", "Z")]), ..good }])
        .encode(&mut body)
        .unwrap();
    let name = at + body[at..].iter().position(|byte| *byte == b'Z').unwrap();
    body[name] = 0xff;
    let (batch, decoded) = decode(FrameKind::RemoteWrite1, &body).unwrap();
    assert_eq!((batch.len(), decoded.rejected), (1, 1));
}

#[test]
fn an_integer_histogram_becomes_absolute_sparse_buckets() {
    let histogram = v1::Histogram {
        count: Some(v1::histogram::Count::CountInt(12)),
        sum: 18.4,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountInt(2)),
        positive_spans: vec![
            v1::BucketSpan { offset: -1, length: 2 },
            v1::BucketSpan { offset: 1, length: 2 },
        ],
        positive_deltas: vec![1, 1, -2, 1],
        negative_spans: vec![v1::BucketSpan { offset: 0, length: 1 }],
        negative_deltas: vec![6],
        reset_hint: 2,
        timestamp: 5,
        ..Default::default()
    };
    let series = v1::TimeSeries {
        labels: labels(&[("__name__", "h")]),
        histograms: vec![histogram],
        ..Default::default()
    };
    let (batch, _) = decode_1(&request(vec![series]));
    let PointValue::Native(native) = &batch.points[0].value else { panic!("not native") };
    assert_eq!((native.count, native.sum, native.zero_count, native.schema), (12.0, 18.4, 2.0, 1));
    assert_eq!(native.positive, [(-1, 1.0), (0, 2.0), (3, 1.0)]);
    assert_eq!(native.negative, [(0, 6.0)]);
    assert_eq!((native.reset_hint, native.zero_threshold), (2, 0.001));
}

#[test]
fn custom_bounds_and_fine_schemas_are_understood() {
    let custom = v1::Histogram {
        count: Some(v1::histogram::Count::CountFloat(3.5)),
        schema: -53,
        positive_spans: vec![v1::BucketSpan { offset: 1, length: 2 }],
        positive_counts: vec![1.5, 2.0],
        custom_values: vec![0.5, 1.0],
        timestamp: 1,
        ..Default::default()
    };
    // Buckets 1 to 4 of schema 9 are 1, 1, 2, 2 of schema 8.
    let fine = v1::Histogram {
        schema: 9,
        positive_spans: vec![v1::BucketSpan { offset: 1, length: 4 }],
        positive_deltas: vec![1, 0, 1, 0],
        timestamp: 2,
        ..Default::default()
    };
    let series = v1::TimeSeries {
        labels: labels(&[("__name__", "h")]),
        histograms: vec![custom, fine],
        ..Default::default()
    };
    let (batch, decoded) = decode_1(&request(vec![series]));
    assert_eq!(decoded.rejected, 0);
    let natives: Vec<_> = batch
        .points
        .iter()
        .map(|point| match &point.value {
            PointValue::Native(native) => (native.schema, native.positive.clone()),
            _ => panic!("not native"),
        })
        .collect();
    let expected = [(-53, vec![(1, 1.5), (2, 2.0)]), (8, vec![(1, 2.0), (2, 4.0)])];
    assert_eq!(natives, expected);
}

#[test]
fn histograms_without_meaning_are_refused() {
    let span = |offset, length| v1::BucketSpan { offset, length };
    let bad = [
        v1::Histogram { schema: -5, ..Default::default() },
        v1::Histogram { schema: 53, ..Default::default() },
        // More buckets named than counted.
        v1::Histogram {
            positive_spans: vec![span(0, 3)],
            positive_deltas: vec![1],
            ..Default::default()
        },
        v1::Histogram {
            positive_spans: vec![span(0, u32::MAX)],
            positive_deltas: vec![1],
            ..Default::default()
        },
        // Negative count.
        v1::Histogram {
            positive_spans: vec![span(0, 2)],
            positive_deltas: vec![1, -2],
            ..Default::default()
        },
        // Second span goes back.
        v1::Histogram {
            positive_spans: vec![span(0, 1), span(-2, 1)],
            positive_deltas: vec![1, 0],
            ..Default::default()
        },
        v1::Histogram { schema: -53, custom_values: vec![2.0, 1.0], ..Default::default() },
        v1::Histogram { schema: -53, custom_values: vec![f64::NAN], ..Default::default() },
        v1::Histogram {
            schema: -53,
            custom_values: vec![1.0],
            positive_spans: vec![span(2, 1)],
            positive_deltas: vec![1],
            ..Default::default()
        },
        v1::Histogram { schema: 3, custom_values: vec![1.0], ..Default::default() },
        v1::Histogram {
            positive_spans: vec![span(i32::MAX, 1)],
            positive_deltas: vec![1],
            ..Default::default()
        },
    ];
    let sent = bad.len() as u64;
    let series = v1::TimeSeries {
        labels: labels(&[("__name__", "h")]),
        histograms: bad.into(),
        ..Default::default()
    };
    let (_, decoded) = decode_1(&request(vec![series]));
    assert_eq!((decoded.accepted, decoded.rejected), (0, sent));
}

#[test]
fn exemplars_go_to_the_samples_of_their_series_or_stand_alone() {
    let exemplar = |trace: &str, timestamp| v1::Exemplar {
        labels: labels(&[("trace_id", trace), ("user", "ann")]),
        value: 0.25,
        timestamp,
    };
    let trace = "0102030405060708090a0b0c0d0e0f10";
    let with_sample = labels(&[("__name__", "a")]);
    let (batch, decoded) = decode_1(&request(vec![
        v1::TimeSeries {
            labels: with_sample.clone(),
            exemplars: vec![exemplar(trace, 1)],
            ..Default::default()
        },
        v1::TimeSeries { labels: with_sample, samples: vec![sample(1.0, 2)], ..Default::default() },
        v1::TimeSeries {
            labels: labels(&[("__name__", "b")]),
            exemplars: vec![exemplar("not hex", 3)],
            ..Default::default()
        },
    ]));
    assert_eq!((batch.len(), decoded.accepted), (2, 2));
    let first = &batch.points[0].exemplars[0];
    assert_eq!(first.trace_id, (1..=16).collect::<Vec<u8>>());
    assert_eq!(first.time_ns, 1_000_000);
    let kept: Vec<&str> = attributes::iter(&first.attributes).map(|(name, _)| name).collect();
    assert_eq!(kept, ["user"]);
    let alone = &batch.points[1];
    assert_eq!((alone.value.clone(), alone.time_ns), (PointValue::Missing, 3_000_000));
    assert!(alone.exemplars[0].trace_id.is_empty(), "what is no id stays a label");
}

#[test]
fn metadata_comes_without_samples_in_1_and_with_its_series_in_2() {
    let mut write = request(Vec::new());
    write.metadata.push(v1::MetricMetadata {
        r#type: 3,
        metric_family_name: "http_seconds".into(),
        help: "Latency.".into(),
        unit: "seconds".into(),
    });
    let (first, decoded) = decode_1(&write);
    assert_eq!((decoded.accepted, decoded.rejected), (0, 0));
    let symbols = ["", "__name__", "http_seconds_bucket", "Latency.", "seconds"];
    let (second, _) = decode_2(&v2::Request {
        symbols: symbols.map(String::from).into(),
        timeseries: vec![v2::TimeSeries {
            labels_refs: vec![1, 2],
            samples: vec![v2::Sample { value: 1.0, timestamp: 1, start_timestamp: 0 }],
            metadata: Some(v2::Metadata { r#type: 3, help_ref: 3, unit_ref: 4 }),
            ..Default::default()
        }],
    });
    assert_eq!(first.families, second.families);
    assert_eq!(&*first.families[0].kind, "histogram");
}

#[test]
fn references_that_lead_nowhere_refuse_the_series() {
    let series = |labels_refs| v2::TimeSeries {
        labels_refs,
        samples: vec![v2::Sample { value: 1.0, timestamp: 1, start_timestamp: 0 }],
        ..Default::default()
    };
    let (batch, decoded) = decode_2(&v2::Request {
        symbols: ["", "__name__", "up"].map(String::from).into(),
        timeseries: vec![series(vec![1, 9]), series(vec![1]), series(vec![1, 2])],
    });
    assert_eq!((batch.len(), decoded.rejected), (1, 2));
}

#[test]
fn starts_are_taken_from_the_sample_or_from_its_series() {
    let (batch, _) = decode_2(&v2::Request {
        symbols: ["", "__name__", "up"].map(String::from).into(),
        timeseries: vec![v2::TimeSeries {
            labels_refs: vec![1, 2],
            samples: vec![
                v2::Sample { value: 1.0, timestamp: 10, start_timestamp: 7 },
                v2::Sample { value: 1.0, timestamp: 11, start_timestamp: 0 },
            ],
            created_timestamp: 5,
            ..Default::default()
        }],
    });
    let starts: Vec<u64> = batch.points.iter().map(|point| point.start_ns).collect();
    assert_eq!(starts, [7_000_000, 5_000_000]);
}

#[test]
fn every_cut_of_a_request_is_refused_or_shorter_but_never_a_panic() {
    let series = v1::TimeSeries {
        labels: labels(&[("__name__", "x"), ("job", "y")]),
        samples: vec![sample(1.0, 1)],
        histograms: vec![v1::Histogram {
            positive_spans: vec![v1::BucketSpan { offset: 1, length: 1 }],
            positive_deltas: vec![3],
            timestamp: 2,
            ..Default::default()
        }],
        ..Default::default()
    };
    let body = request(vec![series]).encode_to_vec();
    for cut in 0..body.len() {
        for kind in [FrameKind::RemoteWrite1, FrameKind::RemoteWrite2] {
            if let Ok((batch, _)) = decode(kind, &body[..cut]) {
                assert!(batch.len() < 2, "cut at {cut}");
            }
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c_]{0,3}", "\\PC{0,4}"]
}

prop_compose! {
    fn any_series()(
        pairs in prop::collection::vec((text(), text()), 0..4),
        named in prop::bool::weighted(0.9),
        samples in prop::collection::vec((any::<f64>(), -5i64..100), 0..3),
        buckets in prop::collection::vec((0i32..3, 1u32..3), 0..3),
        integers in any::<bool>(),
        exemplars in prop::collection::vec((any::<f64>(), 0i64..100), 0..2),
    ) -> v1::TimeSeries {
        let mut labels: Vec<v1::Label> =
            pairs.into_iter().map(|(name, value)| v1::Label { name, value }).collect();
        if named {
            labels.push(v1::Label { name: "__name__".into(), value: "m".into() });
        }
        let len: u32 = buckets.iter().map(|(_, length)| length).sum();
        let histogram = v1::Histogram {
            count: Some(v1::histogram::Count::CountInt(u64::from(len))),
            positive_spans: buckets
                .iter()
                .map(|(offset, length)| v1::BucketSpan { offset: *offset, length: *length })
                .collect(),
            positive_deltas: if integers { (0..i64::from(len)).collect() } else { Vec::new() },
            positive_counts: if integers { Vec::new() } else { (0..len).map(f64::from).collect() },
            timestamp: 7,
            ..Default::default()
        };
        v1::TimeSeries {
            labels,
            samples: samples.into_iter().map(|(value, time)| sample(value, time)).collect(),
            exemplars: exemplars
                .into_iter()
                .map(|(value, timestamp)| v1::Exemplar {
                    labels: vec![v1::Label { name: "k".into(), value: "v".into() }],
                    value,
                    timestamp,
                })
                .collect(),
            histograms: if len > 0 { vec![histogram] } else { Vec::new() },
        }
    }
}

proptest! {
    #[test]
    fn both_versions_of_the_protocol_decode_to_the_same_batch(
        series in prop::collection::vec(any_series(), 0..4),
    ) {
        let one = request(series);
        let two = prompb::upgrade(&one);
        let (a, a_decoded) = decode_1(&one);
        let (b, b_decoded) = decode_2(&two);
        prop_assert_eq!(a_decoded.accepted, b_decoded.accepted);
        prop_assert_eq!(a_decoded.rejected, b_decoded.rejected);
        prop_assert_eq!(a_decoded.reason, b_decoded.reason);
        // Through text, because a NaN equals itself there.
        prop_assert_eq!(format!("{:?}", a.points), format!("{:?}", b.points));
        for row in 0..a.len() {
            prop_assert_eq!(a.attributes.get(row), b.attributes.get(row));
        }
        let sent: usize = one.timeseries.iter().map(|s| s.samples.len() + s.histograms.len()).sum();
        let written = remote_write::written(
            FrameKind::RemoteWrite2,
            &two.encode_to_vec(),
            NOW_MS as u64 * 1_000_000,
            &DecodeLimits::default(),
        )
        .unwrap();
        let Written { samples, histograms, .. } = written;
        prop_assert_eq!(samples + histograms + a_decoded.rejected, sent as u64);
    }

    #[test]
    fn bytes_that_are_no_request_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for kind in [FrameKind::RemoteWrite1, FrameKind::RemoteWrite2] {
            let _ = decode(kind, &body);
        }
    }
}
