//! The metrics half of the store.
//!
//! Batch (decoded) → series in memory (`store`, found by `index`) → segment (a points file and a series table).
//! `select` shows all of it as Prometheus sees it, by the rules of `naming`; `table` as OTLP sent it.

mod batch;
mod column_cache;
mod derive;
mod exemplars;
mod floats;
mod gather;
mod index;
mod known;
mod label_lists;
mod merge;
mod metadata;
mod names;
pub mod naming;
mod native;
mod points;
mod recent;
mod replicas;
mod sealed;
mod segment;
mod select;
mod series;
mod series_cache;
mod shown;
mod store;
pub mod table;
mod target_info;
mod tried;
#[cfg(test)]
mod tests;

pub use batch::{
    ExponentialPoint, FamilyMetadata, HistogramPoint, HistogramTotals, MetricBatch, MetricDesc,
    MetricExemplar, MetricKind, NO_RECORDED_VALUE, Point, PointValue, Quantile, SummaryPoint,
    series_id,
};
pub use exemplars::PromExemplars;
pub use floats::Floats;
pub use metadata::PromMetadata;
pub use native::{NativeHistogram, STALE_BITS};
pub use select::{LabelMatcher, PromSeries, Read};
pub use series::Label;
pub use store::{MetricSnapshot, MetricStore};
