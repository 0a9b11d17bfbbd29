//! How bytes come in: OTLP and remote write, decoded into batches.

pub mod decode;
