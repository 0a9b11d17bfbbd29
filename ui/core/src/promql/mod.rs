//! What the metrics explorer knows of PromQL without asking the server: where the caret stands in a query, what a
//! parse error points at, and which unit a query's values have.

pub mod answer;
pub mod complete;
pub mod error;
pub mod functions;
pub mod starters;
pub mod tokens;
pub mod unit;
