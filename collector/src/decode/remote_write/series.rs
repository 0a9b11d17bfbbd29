//! The rows of one request: series by their labels, samples, exemplars and metadata.

use super::super::{Reason, Refusal, Rejections};
use super::{Sample, Written, histogram};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use trefoil_storage::metrics::{
    FamilyMetadata, MetricBatch, MetricDesc, MetricExemplar, MetricKind, Point, PointValue,
    series_id,
};
use trefoil_storage::resource::{Interner, Resource, Scope};
use trefoil_storage::wire;

/// The label that holds the metric name.
const NAME: &str = "__name__";

/// Who a series is, or why it can't be kept.
pub(super) type Identity = Result<SeriesKey, Reason>;

/// A series of this request.
pub(super) struct SeriesKey {
    /// Index into the batch's metrics.
    metric: u32,
    id: u128,
    /// Labels without the name, sorted, as a canonical attribute list.
    labels: Vec<u8>,
}

/// Builds the batch of one request.
pub(super) struct Rows {
    batch: MetricBatch,
    rejections: Rejections,
    metric_of: FxHashMap<String, u32>,
    /// Last kept row of each series, for its exemplars.
    row_of: FxHashMap<u128, usize>,
    /// Exemplars seen before, or without, a sample of their series.
    exemplars: Vec<(SeriesKey, MetricExemplar)>,
    written: Written,
    resource: Arc<Resource>,
    scope: Arc<Scope>,
    latest_ns: u64,
}

impl Rows {
    /// * `latest_ns`: samples after this are refused, Unix ns.
    pub(super) fn new(interner: &Interner, latest_ns: u64) -> Self {
        Self {
            batch: MetricBatch::default(),
            rejections: Rejections::default(),
            metric_of: FxHashMap::default(),
            row_of: FxHashMap::default(),
            exemplars: Vec::new(),
            written: Written::default(),
            resource: interner.resource(Resource::new(&[], "", 0)),
            scope: interner.scope(Scope::new("", "", &[], "", 0)),
            latest_ns,
        }
    }

    /// Checks and sorts the labels of a series.
    ///
    /// A label with an empty value counts as absent. A series without a name, or with a label that is repeated,
    /// nameless or not UTF-8, is refused with all its samples.
    pub(super) fn identify(&mut self, labels: &mut Vec<(&[u8], &[u8])>) -> Identity {
        labels.sort_unstable_by_key(|(name, _)| *name);
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Reason::Label);
        }
        let mut family = "";
        let mut list = Vec::with_capacity(labels.iter().map(|(n, v)| n.len() + v.len() + 8).sum());
        for (name, value) in labels.iter() {
            let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Reason::Label);
            let (name, value) = (text(name)?, text(value)?);
            if name.is_empty() {
                return Err(Reason::Label);
            }
            if name == NAME {
                family = value;
            } else if !value.is_empty() {
                put_label(&mut list, name, value);
            }
        }
        if family.is_empty() {
            return Err(Reason::Name);
        }
        let metric = self.metric(family);
        let id = series_id(self.batch.metrics[metric as usize].id(), &list);
        Ok(SeriesKey { metric, id, labels: list })
    }

    fn metric(&mut self, name: &str) -> u32 {
        if let Some(metric) = self.metric_of.get(name) {
            return *metric;
        }
        let metric = self.batch.metrics.len() as u32;
        self.batch.metrics.push(Arc::new(MetricDesc {
            name: name.into(),
            description: "".into(),
            unit: "".into(),
            kind: MetricKind::Prometheus,
            temporality: 0,
            monotonic: false,
            resource: self.resource.clone(),
            scope: self.scope.clone(),
        }));
        self.metric_of.insert(name.to_owned(), metric);
        metric
    }

    pub(super) fn sample(&mut self, identity: &Identity, sample: Sample) {
        let value = PointValue::Double(sample.value);
        if self.point(identity, sample.time_ms, sample.start_ms, value) {
            self.written.samples += 1;
        }
    }

    /// * `created_ms`: start of the counter where the histogram names none, Unix ms, 0 = not known.
    pub(super) fn histogram(
        &mut self,
        identity: &Identity,
        message: &[u8],
        created_ms: i64,
    ) -> Result<(), wire::WireError> {
        match histogram::decode(message) {
            Ok(sample) => {
                let start_ms = if sample.start_ms == 0 { created_ms } else { sample.start_ms };
                let value = PointValue::Native(Box::new(sample.histogram));
                if self.point(identity, sample.time_ms, start_ms, value) {
                    self.written.histograms += 1;
                }
            }
            Err(Refusal::Record(reason)) => self.rejections.add(reason, 1),
            Err(Refusal::Wire(error)) => return Err(error),
        }
        Ok(())
    }

    /// Adds a point; returns whether it was kept.
    fn point(
        &mut self,
        identity: &Identity,
        time_ms: i64,
        start_ms: i64,
        value: PointValue,
    ) -> bool {
        let kept = identity.as_ref().map_err(|reason| *reason).and_then(|key| {
            let time_ns = nanoseconds(time_ms).ok_or(Reason::Past)?;
            if time_ns > self.latest_ns { Err(Reason::Future) } else { Ok((key, time_ns)) }
        });
        match kept {
            Ok((key, time_ns)) => {
                self.row_of.insert(key.id, self.batch.points.len());
                self.batch.attributes.push(&key.labels);
                self.batch.points.push(Point {
                    metric: key.metric,
                    series_id: key.id,
                    time_ns,
                    start_ns: nanoseconds(start_ms).unwrap_or(0),
                    flags: 0,
                    value,
                    exemplars: Vec::new(),
                });
                true
            }
            Err(reason) => {
                self.rejections.add(reason, 1);
                false
            }
        }
    }

    /// Keeps an exemplar for its series. Those of refused series, and those without a time that can be kept, go with
    /// their series: they are not records.
    pub(super) fn exemplar(
        &mut self,
        identity: &Identity,
        labels: &[(&[u8], &[u8])],
        value: f64,
        time_ms: i64,
    ) {
        let (Ok(key), Some(time_ns)) = (identity, nanoseconds(time_ms)) else { return };
        if time_ns > self.latest_ns {
            return;
        }
        let mut exemplar = MetricExemplar { time_ns, value, ..MetricExemplar::default() };
        for (name, text) in labels {
            let (Ok(name), Ok(text)) = (std::str::from_utf8(name), std::str::from_utf8(text))
            else {
                return;
            };
            match name {
                "trace_id" if is_hex(text, 32) => exemplar.trace_id = unhex(text),
                "span_id" if is_hex(text, 16) => exemplar.span_id = unhex(text),
                _ => put_label(&mut exemplar.attributes, name, text),
            }
        }
        let key = SeriesKey { metric: key.metric, id: key.id, labels: key.labels.clone() };
        self.exemplars.push((key, exemplar));
        self.written.exemplars += 1;
    }

    /// Metadata of a family, as 1.0 sends it beside the series.
    pub(super) fn metadata(&mut self, metadata: FamilyMetadata) {
        if !metadata.family.is_empty() && !self.batch.families.contains(&metadata) {
            self.batch.families.push(metadata);
        }
    }

    /// Metadata as 2.0 sends it, with each series.
    pub(super) fn describe(
        &mut self,
        identity: &Identity,
        kind: &'static str,
        help: &[u8],
        unit: &[u8],
    ) {
        let Ok(key) = identity else { return };
        if kind == "unknown" && help.is_empty() && unit.is_empty() {
            return;
        }
        let name = self.batch.metrics[key.metric as usize].name.clone();
        self.metadata(FamilyMetadata {
            family: family_of(&name, kind).into(),
            kind: kind.into(),
            help: super::super::lenient(help).into(),
            unit: super::super::lenient(unit).into(),
        });
    }

    /// What was kept so far.
    pub(super) fn written(&self) -> Written {
        self.written
    }

    /// The batch, exemplars with the points of their series. An exemplar whose series has no sample in the request
    /// (the usual way of Prometheus) comes as a point without a value.
    pub(super) fn finish(mut self) -> (MetricBatch, Rejections) {
        for (key, exemplar) in self.exemplars {
            match self.row_of.get(&key.id) {
                Some(&row) => self.batch.points[row].exemplars.push(exemplar),
                None => {
                    self.row_of.insert(key.id, self.batch.points.len());
                    self.batch.attributes.push(&key.labels);
                    self.batch.points.push(Point {
                        metric: key.metric,
                        series_id: key.id,
                        time_ns: exemplar.time_ns,
                        start_ns: 0,
                        flags: 0,
                        value: PointValue::Missing,
                        exemplars: vec![exemplar],
                    });
                }
            }
        }
        (self.batch, self.rejections)
    }
}

/// The family that a series of this type belongs to.
fn family_of<'a>(name: &'a str, kind: &str) -> &'a str {
    let suffixes: &[&str] = match kind {
        "histogram" => &["_bucket", "_count", "_sum"],
        "gaugehistogram" => &["_bucket", "_gcount", "_gsum"],
        "summary" => &["_count", "_sum"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// Unix ms as Unix ns; `None` before 1970 or beyond what ns can tell.
fn nanoseconds(time_ms: i64) -> Option<u64> {
    u64::try_from(time_ms).ok()?.checked_mul(1_000_000)
}

/// Appends a text attribute: what `attributes::put_attribute` does, without its buffers. A request has ten labels
/// for each sample.
fn put_label(list: &mut Vec<u8>, name: &str, value: &str) {
    let field_len = |len: usize| 1 + varint_len(len) + len;
    let any_len = field_len(value.len());
    wire::put_varint(list, 1 << 3 | 2);
    wire::put_varint(list, (field_len(name.len()) + field_len(any_len)) as u64);
    wire::put_bytes(list, 1, name.as_bytes());
    wire::put_varint(list, 2 << 3 | 2);
    wire::put_varint(list, any_len as u64);
    wire::put_bytes(list, 1, value.as_bytes());
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Bytes of checked hex text.
fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[pair.len() - 1]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_storage::attributes::{Value, put_attribute};

    #[test]
    fn a_label_is_written_as_the_attribute_writer_would() {
        for len in [0, 1, 100, 119, 120, 121, 122, 126, 127, 128, 200, 16_383, 16_384, 20_000] {
            let value = "v".repeat(len);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put_label(&mut ours, "name", &value);
            put_attribute(&mut theirs, "name", Value::Str(&value));
            assert_eq!(ours, theirs, "value of {len} bytes");
        }
    }

    #[test]
    fn families_lose_the_suffix_of_their_type_only() {
        assert_eq!(family_of("x_bucket", "histogram"), "x");
        assert_eq!(family_of("x_total", "counter"), "x_total");
        assert_eq!(family_of("x_count", "counter"), "x_count");
        assert_eq!(family_of("x_sum", "summary"), "x");
    }
}
