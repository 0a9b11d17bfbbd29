//! HDR histograms fed from every span: rate, errors and duration per service, operation, kind and status.
//!
//! A *cell* is one such group in one slot of time; slots are 10 s wide, and compaction merges cells of older hours
//! into slots of a minute and an hour. Counts are exact and merging loses nothing.

mod edges;
mod segment;
pub mod sketch;
mod store;
#[cfg(test)]
mod tests;
mod totals;

pub use edges::{EDGE_CLIENT, EDGE_SERVER};
pub use sketch::{Quantile, Sketch};
pub use store::{Exemplar, RedCell, RedFilter, RedKey, RedStore};
pub use totals::RedTotal;
