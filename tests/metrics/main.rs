//! Metrics as those see them who bring their own tools: OTLP SDKs, Grafana, promtool, a real Prometheus. Black box: the
//! real server, answers compared with what Prometheus gives.

#[path = "../common/mod.rs"]
mod common;
mod grafana;
mod names;
mod percentiles;
mod prometheus;
mod story;
