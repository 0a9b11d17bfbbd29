//! Prometheus' interfaces, black box: data come by remote write into the real server, answers from its HTTP API.

mod api;
#[path = "../common/mod.rs"]
mod common;
mod errors;
mod limits;
#[path = "../../collector/tests/prompb/mod.rs"]
mod prompb;
mod remote;
#[path = "../../query/promql/tests/script/mod.rs"]
mod script;
mod scripts;
mod spans;
