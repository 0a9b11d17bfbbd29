//! Trefoil's stores: one write-ahead log, hot rows in memory, immutable segments on disk.
//!
//! Modules stand in the order in which data meets them. This crate never sees tonic, axum or HTTP, and it learns
//! OTLP only through the [`signal::Decoder`] it is opened with.

mod attribute_columns;
pub mod attributes;
mod bloom;
pub mod budget;
pub mod check;
mod coded;
pub mod columnar;
pub mod columns;
mod commit;
mod compact;
pub mod config;
pub mod dedup;
pub mod delete;
pub mod disk;
pub mod kept;
pub mod ledger;
pub mod logs;
pub mod manifest;
pub mod mend;
pub mod meter;
pub mod metrics;
mod open;
mod pages;
mod parquet_file;
mod points;
pub mod red;
pub mod resource;
mod retention;
mod seal;
pub mod segment;
mod shapes;
pub mod signal;
pub mod spans;
pub mod store;
pub mod stores;
mod threads;
mod thrift;
pub mod wal;
mod window_file;
pub mod wire;

pub use stores::Stores;
