//! What a select has found: samples by Prometheus label set, replicas told apart at the end.

use super::floats::{Floats, Lines};
use super::replicas::{INSTANCE, Origin, instance_passes, instances};
use super::select::{Matchers, PromSeries};
use super::series::Label;
use super::shown::LabelSet;
use crate::meter::Meter;
use crate::threads;
use hashbrown::HashTable;
use std::io;
use std::sync::Arc;

/// Series by Prometheus label set.
#[derive(Debug, Clone, Default)]
pub(super) struct Gathered {
    /// The first series of a label set; others of replicas are chained to it.
    by_labels: HashTable<usize>,
    /// Hash of the labels, by series.
    hashes: Vec<u64>,
    pub(super) series: Vec<PromSeries>,
    /// By series: who sent it, when it has no `instance`, and the next one of the same labels.
    origins: Vec<(Option<Origin>, Option<usize>)>,
    /// Some label set has more than one series.
    replicas: bool,
    /// Points were looked at one by one; what they show may depend on those before them.
    pub(super) derived: bool,
}

impl Gathered {
    /// Adds a series of labels that are new, or new from this origin.
    fn push(&mut self, series: PromSeries, hash: u64, origin: Option<Origin>) {
        self.series.push(series);
        self.hashes.push(hash);
        self.origins.push((origin, None));
    }

    /// Whether it is the same whatever part of the time is looked at: numbers alone, no replicas to be told apart.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |series: &PromSeries| {
            series.histograms.is_empty() && series.starts.is_empty() && series.zeros.is_empty()
        };
        !self.replicas && !self.derived && self.series.iter().all(plain)
    }

    /// Its series with the samples of a time range, Unix ms, without those that have none.
    ///
    /// * `self`: is plain.
    fn within(&self, start_ms: i64, end_ms: i64) -> Self {
        let mut part = Self::default();
        part.series.reserve(self.series.len());
        part.hashes.reserve(self.series.len());
        part.origins.reserve(self.series.len());
        for ((series, hash), (origin, _)) in self.series.iter().zip(&self.hashes).zip(&self.origins)
        {
            let mut floats = series.floats.clone();
            floats.cut(start_ms, end_ms);
            if !floats.is_empty() {
                let labels = series.labels.clone();
                let series = PromSeries { labels, floats, ..PromSeries::default() };
                part.push(series, *hash, origin.clone());
            }
        }
        let Self { by_labels, hashes, .. } = &mut part;
        by_labels.reserve(hashes.len(), |at| hashes[*at]);
        for (at, hash) in hashes.iter().enumerate() {
            by_labels.insert_unique(*hash, at, |at| hashes[*at]);
        }
        part
    }

    /// Joins what came in pieces and sorts it by time; of samples at one time the last that came counts.
    fn settle(&mut self) {
        let threads = threads::worth(self.series.len(), SERIES_PER_THREAD);
        let some = self.series.len().div_ceil(threads).max(1);
        threads::map(threads, self.series.chunks_mut(some), settle);
    }
}

/// Series of which the samples are put in order sooner than a thread is started for them.
const SERIES_PER_THREAD: usize = 1 << 11;

fn settle(series: &mut [PromSeries]) {
    let mut lines = Lines::default();
    for series in series {
        lines.join(&mut series.floats, std::mem::take(&mut series.more));
        begin_at_zero(series);
        tidy(&mut series.histograms);
        tidy(&mut series.starts);
    }
}

/// Collects points by Prometheus label set.
pub(super) struct Gathering<'a> {
    pub(super) all: Gathered,
    /// Who sent what comes next.
    origin: Option<Origin>,
    /// Pushed since the meter was last told, in samples.
    pub(super) fresh: u64,
    metered_series: usize,
    pub(super) meter: &'a dyn Meter,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(meter: &'a dyn Meter) -> Self {
        Self { all: Gathered::default(), origin: None, fresh: 0, metered_series: 0, meter }
    }

    /// Begins with what is known already, as far as it lies in a time range, Unix ms.
    pub(super) fn begin_with(
        &mut self,
        known: &Gathered,
        start_ms: i64,
        end_ms: i64,
    ) -> io::Result<()> {
        self.all = known.within(start_ms, end_ms);
        self.fresh += self.all.series.iter().map(|series| series.floats.len() as u64).sum::<u64>();
        self.metered()
    }

    /// Tells the meter what came since the last call.
    pub(super) fn metered(&mut self) -> io::Result<()> {
        self.meter.check()?;
        self.meter.series((self.all.series.len() - self.metered_series) as u64)?;
        self.metered_series = self.all.series.len();
        self.meter.samples(std::mem::take(&mut self.fresh))
    }

    /// Says of whom the series that come next are.
    ///
    /// * `origin`: `None` when they have an `instance`.
    pub(super) fn coming_from(&mut self, origin: Option<Origin>) {
        self.origin = origin;
    }

    pub(super) fn slot(&mut self, labels: LabelSet) -> &mut PromSeries {
        let at = self.place(labels);
        &mut self.all.series[at]
    }

    /// Adds float samples to a series.
    ///
    /// * `at`: its place.
    pub(super) fn add(&mut self, at: usize, times: &Arc<Vec<i64>>, values: Vec<f64>) {
        if values.is_empty() {
            return;
        }
        let series = &mut self.all.series[at];
        let more = Floats::new(times.clone(), values);
        if series.floats.is_empty() { series.floats = more } else { series.more.push(more) }
    }

    /// Adds when the counter behind a series began, by sample.
    pub(super) fn begin(&mut self, at: usize, starts: &[(i64, i64)]) {
        self.fresh += starts.len() as u64;
        self.all.series[at].starts.extend_from_slice(starts);
    }

    /// Where the series of these labels and the present origin is.
    pub(super) fn place(&mut self, LabelSet { labels, hash }: LabelSet) -> usize {
        let Gathered { by_labels, hashes, series, origins, replicas, .. } = &mut self.all;
        let new = series.len();
        let same = |at: &usize| hashes[*at] == hash && *series[*at].labels == labels;
        let mut at = by_labels.find(hash, same).copied();
        if at.is_none() {
            by_labels.insert_unique(hash, new, |at| hashes[*at]);
        }
        while let Some(known) = at {
            let (origin, next) = &mut origins[known];
            match (origin, &self.origin) {
                (Some(origin), Some(now)) if origin.resource.id != now.resource.id => {
                    at = *next;
                    if at.is_none() {
                        *next = Some(new);
                        *replicas = true;
                    }
                }
                (Some(origin), Some(now)) => {
                    origin.saw(now.first_ns, now.last_ns);
                    return known;
                }
                _ => return known,
            }
        }
        let series = PromSeries { labels: Arc::new(labels), ..PromSeries::default() };
        self.all.push(series, hash, self.origin.clone());
        new
    }

    /// What was gathered so far, put in order, for further reads.
    pub(super) fn settled(mut self) -> Gathered {
        self.all.settle();
        self.all
    }

    /// The series, replicas told apart, without regard to samples.
    pub(super) fn labels(mut self, matchers: &Matchers<'_>) -> Vec<PromSeries> {
        self.all.tell_apart(matchers);
        self.all.series
    }

    /// The series with their samples in order, replicas told apart.
    pub(super) fn finish(mut self, matchers: &Matchers<'_>) -> Vec<PromSeries> {
        self.all.tell_apart(matchers);
        self.all.settle();
        self.all.series.retain(|s| !s.floats.is_empty() || !s.histograms.is_empty());
        self.all.series
    }
}

impl Gathered {
    /// Gives replicas that sent at the same time their `instance`, joins those that did not, and lets the matchers on
    /// `instance` decide.
    fn tell_apart(&mut self, matchers: &Matchers<'_>) {
        let asked = matchers.iter().any(|m| m.name() == INSTANCE);
        if !self.replicas && !asked {
            return;
        }
        let mut gone = vec![false; self.series.len()];
        for head in self.by_labels.iter() {
            let mut replicas: Vec<usize> = Vec::new();
            let mut at = Some(*head);
            while let Some(known) = at {
                replicas.push(known);
                at = self.origins[known].1;
            }
            let origins: Vec<&Origin> =
                replicas.iter().filter_map(|at| self.origins[*at].0.as_ref()).collect();
            if origins.is_empty() {
                continue;
            }
            if let Some(names) = instances(&origins) {
                for (at, name) in replicas.iter().zip(names) {
                    gone[*at] = !instance_passes(matchers, &name);
                    let labels: &mut Vec<Label> = Arc::make_mut(&mut self.series[*at].labels);
                    let place = labels.partition_point(|(label, _)| **label < *INSTANCE);
                    labels.insert(place, (INSTANCE.into(), name.into()));
                }
                continue;
            }
            gone[*head] = !instance_passes(matchers, "");
            for at in &replicas[1..] {
                let other = std::mem::take(&mut self.series[*at]);
                gone[*at] = true;
                let whole = &mut self.series[*head];
                whole.more.push(other.floats);
                whole.more.extend(other.more);
                whole.histograms.extend(other.histograms);
                whole.starts.extend(other.starts);
                whole.zeros.extend(other.zeros);
            }
        }
        let mut at = 0;
        self.series.retain(|_| {
            at += 1;
            !gone[at - 1]
        });
    }
}

/// Shows the zeros of running totals. A total that was lost in between begins where other samples are; that is no zero.
fn begin_at_zero(series: &mut PromSeries) {
    for (zero_ms, before_ms) in std::mem::take(&mut series.zeros) {
        let times = series.floats.times();
        let at = times.partition_point(|time_ms| *time_ms < zero_ms);
        if times.get(at).is_some_and(|time_ms| *time_ms == before_ms) {
            series.floats.insert(at, zero_ms, 0.0);
        }
    }
}

fn tidy<T>(samples: &mut Vec<(i64, T)>) {
    if !samples.is_sorted_by(|a, b| a.0 < b.0) {
        samples.sort_by_key(|(time_ms, _)| *time_ms);
        samples.reverse();
        samples.dedup_by_key(|(time_ms, _)| *time_ms);
        samples.reverse();
    }
}
