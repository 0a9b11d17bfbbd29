//! PromQL with the semantics of Prometheus 3: parser, evaluation over all steps at once, and the
//! seam to a store of series.
//!
//! This crate knows nothing of Arrow, HTTP or the stores: it asks a [`SeriesSource`] for series.

mod annotations;
mod budget;
mod calendar;
mod engine;
pub mod histogram;
mod kahan;
pub mod labels;
mod matcher;
mod memory;
pub mod parse;
mod regexp;
mod series;
mod source;
pub mod text;

pub use annotations::{Annotations, Severity};
pub use budget::{Budget, LimitError, Limits, Pool};
pub use engine::{Engine, EngineOptions, Outcome, QueryError, QueryRange, Sample, Value};
pub use histogram::{Bucket, CounterResetHint, Histogram};
pub use labels::{Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher, matches_all};
pub use memory::MemorySource;
pub use parse::{ParseError, ParseOptions, parse, parse_selector};
pub use regexp::RegexpError;
pub use series::{Column, STALE_BITS, SampleValue, Series, Shared, Times, is_stale, stale_marker};
pub use source::{
    Exemplar, ExemplarSeries, Metadata, SelectHints, SeriesSource, SourceError, SourceStats,
    TimeRange,
};
