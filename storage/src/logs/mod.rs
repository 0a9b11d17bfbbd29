//! The logs half of the store.

mod batch;
pub mod filter;
pub mod query;
mod row;
pub mod severity;
mod snapshot;
mod store;
pub mod tokens;

pub use batch::{LogBatch, LogFields};
pub use filter::{Bound, Field, LogFilter, LogRows};
pub use query::{Bucket, By, FieldSummary, LogQuery, LogRange, Order, PatternSummary};
pub use row::LogRow;
pub use snapshot::LogSnapshot;
pub use store::LogStore;
