//! The logs half of the store.

mod batch;
mod row;
pub mod severity;

pub use batch::{LogBatch, LogFields};
pub use row::LogRow;
