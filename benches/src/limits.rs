//! What this machine can do at best, on one core, measured on the same bytes in the same run.

use crate::corpus::Requests;
use crate::report::{Report, Row};
use crate::stats::Times;
use anyhow::Context;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decoder::FrameDecoder;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::{Decoder, FrameKind};

/// Requests that are decoded and compressed: enough to leave the caches.
const REQUESTS: usize = 100;
const ROUNDS: usize = 3;

/// Decoding and compression of one signal.
pub fn of_signal(name: &str, requests: &Requests, report: &mut Report) -> anyhow::Result<()> {
    let bodies = &requests.bodies[..requests.bodies.len().min(REQUESTS)];
    let records = requests.records as f64 * bodies.len() as f64 / requests.bodies.len() as f64;
    let kind = match requests.path {
        "/v1/traces" => FrameKind::OtlpTraces,
        "/v1/logs" => FrameKind::OtlpLogs,
        _ => FrameKind::OtlpMetrics,
    };
    let limits = DecodeLimits { future_ns: u64::MAX, ..DecodeLimits::default() };
    let decoder = FrameDecoder::new(Arc::new(Interner::default()), limits);
    let ours = best(|| {
        for body in bodies {
            black_box(decoder.decode(kind, body, 0).map_err(anyhow::Error::msg)?);
        }
        Ok(())
    })?;
    let prost = best(|| {
        for body in bodies {
            match kind {
                FrameKind::OtlpTraces => {
                    drop(black_box(ExportTraceServiceRequest::decode(&body[..])?))
                }
                FrameKind::OtlpLogs => {
                    drop(black_box(ExportLogsServiceRequest::decode(&body[..])?))
                }
                _ => drop(black_box(ExportMetricsServiceRequest::decode(&body[..])?)),
            }
        }
        Ok(())
    })?;
    let mut compressed = 0;
    let zstd = best(|| {
        compressed = 0;
        for body in bodies {
            compressed += black_box(zstd::bulk::compress(body, 1)?).len();
        }
        Ok(())
    })?;
    let bytes: usize = bodies.iter().map(|body| body.len()).sum();
    report.add(Row::plain(
        "limits",
        &format!("{name}: our decoding"),
        "records/CPU-s",
        records / ours,
    ));
    report.add(Row::plain(
        "limits",
        &format!("{name}: prost decoding"),
        "records/CPU-s",
        records / prost,
    ));
    report.add(Row::plain(
        "limits",
        &format!("{name}: zstd-1"),
        "MB/CPU-s",
        bytes as f64 / zstd / 1e6,
    ));
    let ratio = bytes as f64 / compressed as f64;
    report.add(Row::plain("limits", &format!("{name}: zstd-1 ratio"), "x", ratio));
    Ok(())
}

/// CPU seconds of the fastest round: other work on the machine must not count.
fn best(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let before = thread_cpu_seconds()?;
        work()?;
        least = least.min(thread_cpu_seconds()? - before);
    }
    Ok(least)
}

/// Time that this thread has run: the first field of schedstat, ns (Documentation/scheduler/sched-stats.rst).
fn thread_cpu_seconds() -> anyhow::Result<f64> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns: f64 =
        schedstat.split_ascii_whitespace().next().context("schedstat is empty")?.parse()?;
    Ok(ns / 1e9)
}

/// How long the disk takes to make an append durable.
pub fn of_disk(dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut file = File::create(dir.join("fdatasync"))?;
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..200 {
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed());
    }
    let times = Times::new(times);
    report.add(Row::plain("limits", "fdatasync of 4 KiB, p50", "ms", times.percentile_ms(50.0)));
    report.add(Row::plain("limits", "fdatasync of 4 KiB, p99", "ms", times.percentile_ms(99.0)));
    Ok(())
}
