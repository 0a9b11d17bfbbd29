//! The spans half of the store.

mod batch;

pub use batch::{STATUS_ERROR, SpanBatch, SpanFields};
