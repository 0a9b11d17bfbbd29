//! The spans half of the store.
//!
//! Batch (decoded) → hot (in `store`) → segment (sealed); `search` and `table` read both.

mod batch;
mod edges;
mod file;
mod hot;
mod index;
mod merge;
mod names;
pub mod records;
mod row;
mod search;
pub(crate) mod segment;
mod store;
pub mod table;
#[cfg(test)]
mod tests;
mod write;

pub use batch::{STATUS_ERROR, SpanBatch, SpanFields};
pub use edges::Edge;
pub use row::Span;
pub use search::{SpanQuery, TraceStatus, TraceSummary};
pub use store::{SpanSnapshot, SpanStore};
