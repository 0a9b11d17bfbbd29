//! Execution: queries over snapshots of the stores.

pub mod sql;
pub mod table;
