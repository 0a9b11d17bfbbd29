//! Execution: queries over snapshots of the stores.

pub mod logs;
pub mod red;
pub mod sql;
pub mod stores;
pub mod table;
pub mod traces;
