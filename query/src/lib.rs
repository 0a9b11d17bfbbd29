//! Queries over the stores, and the HTTP APIs that speak them.

pub mod compat;
pub mod correlate;
pub mod exec;
pub mod http;
pub mod lang;
pub mod promql_source;
