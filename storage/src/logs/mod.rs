//! The logs half of the store.

mod batch;
mod blocks;
mod compact;
pub mod filter;
mod groups;
mod histogram;
mod miner;
pub mod query;
mod rebuild;
mod row;
mod scan;
mod sealed;
pub mod severity;
mod snapshot;
mod store;
mod summary;
pub mod table;
mod textindex;
pub mod tokens;
mod traceindex;
mod verdicts;
mod write;

pub use batch::{LogBatch, LogFields};
pub use filter::{Bound, Field, LogFilter, LogRows};
pub use query::{Bucket, By, FieldSummary, LogQuery, LogRange, Order, PatternSummary};
pub use row::LogRow;
pub use snapshot::LogSnapshot;
pub use store::LogStore;
pub use summary::FIELD_ROWS_MAX;
