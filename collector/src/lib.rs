//! Trefoil's collector: from the wire to the store.
//!
//! Modules stand in the order in which a request meets them. This crate never sees Parquet or tantivy; only
//! [`reply`] knows status codes.

pub mod listen;
pub mod auth;
pub mod limits;
pub mod grpc;
pub mod http;
pub mod remote_write;
pub mod ingest;
pub mod body;
pub mod json;
pub mod decode;
pub mod decoder;
pub mod reply;
pub mod self_stats;
