//! `/metrics`: how Trefoil itself is doing, in Prometheus' text format.

use crate::memory;
use std::fmt::Write;
use std::fs;
use trefoil_collector::ingest::Receiver;
use trefoil_collector::self_stats::family;
use trefoil_storage::signal::Signal;
use trefoil_storage::store::{Store, StoreStats};

/// All families. Those of the store are missing until it is open.
pub fn render(receiver: &Receiver, store: Option<&Store>) -> String {
    let mut out = String::with_capacity(8192);
    family(&mut out, "trefoil_build_info", "gauge", "The version that is running.");
    let _ = writeln!(out, "trefoil_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    one(
        &mut out,
        "trefoil_ready",
        "gauge",
        "Whether requests are taken.",
        u64::from(receiver.is_open()),
    );
    receiver.stats().write_prometheus(&mut out);
    let in_flight = receiver.in_flight();
    one(
        &mut out,
        "trefoil_ingest_in_flight_bytes",
        "gauge",
        "Memory reserved by requests that are not yet answered.",
        in_flight.used_bytes(),
    );
    one(
        &mut out,
        "trefoil_ingest_in_flight_max_bytes",
        "gauge",
        "Reservations above this are refused.",
        in_flight.max_bytes(),
    );
    if let Some(store) = store {
        write_store(&mut out, &store.stats());
    }
    write_process(&mut out);
    out
}

fn one(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    family(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

fn write_store(out: &mut String, stats: &StoreStats) {
    family(out, "trefoil_records_total", "counter", "Records by what became of them (the ledger).");
    for (signal, account) in stats.ledger.accounts() {
        for (fate, count) in [
            ("stored", account.stored),
            ("duplicate", account.duplicate),
            ("rejected", account.rejected),
            ("expired", account.expired),
            ("deleted", account.deleted),
            ("quarantined", account.quarantined),
        ] {
            let signal = signal.name();
            let _ = writeln!(
                out,
                "trefoil_records_total{{signal=\"{signal}\",fate=\"{fate}\"}} {count}"
            );
        }
    }
    family(
        out,
        "trefoil_records_received_total",
        "counter",
        "Records of answered requests: stored, duplicate or rejected.",
    );
    for (signal, account) in stats.ledger.accounts() {
        let (signal, received) = (signal.name(), account.received());
        let _ = writeln!(out, "trefoil_records_received_total{{signal=\"{signal}\"}} {received}");
    }
    family(out, "trefoil_records_live", "gauge", "Records that queries can see.");
    for (signal, rows) in stats.live.iter().filter(|(signal, _)| *signal != Signal::Red) {
        let _ = writeln!(out, "trefoil_records_live{{signal=\"{}\"}} {rows}", signal.name());
    }
    for (name, help, pick) in [
        ("trefoil_segments", "Segments on disk.", 0),
        ("trefoil_segment_rows", "Rows in segments.", 1),
        ("trefoil_segment_bytes", "Bytes of segments, indexes included.", 2),
    ] {
        family(out, name, "gauge", help);
        for (signal, count, rows, bytes) in &stats.segments {
            let value = [count, rows, bytes][pick];
            let _ = writeln!(out, "{name}{{signal=\"{}\"}} {value}", signal.name());
        }
    }
    for (name, kind, help, value) in [
        (
            "trefoil_hot_bytes",
            "gauge",
            "Memory of recent data that is not yet in segments.",
            stats.hot_bytes,
        ),
        (
            "trefoil_append_in_flight_bytes",
            "gauge",
            "Requests waiting for the log.",
            stats.in_flight_bytes,
        ),
        ("trefoil_wal_bytes", "gauge", "Log that a restart would replay.", stats.wal_bytes),
        (
            "trefoil_wal_written_bytes_total",
            "counter",
            "Bytes written to the log.",
            stats.wal_written_bytes,
        ),
        ("trefoil_wal_frames_total", "counter", "Requests written to the log.", stats.wal_frames),
        (
            "trefoil_wal_groups_total",
            "counter",
            "Syncs of the log; each covers a group of requests.",
            stats.wal_groups,
        ),
        (
            "trefoil_wal_failures_total",
            "counter",
            "Writes or syncs of the log that failed.",
            stats.wal_failures,
        ),
        (
            "trefoil_wal_failing",
            "gauge",
            "Whether the log can't be written now.",
            u64::from(stats.wal_failing),
        ),
        (
            "trefoil_wal_damaged_bytes",
            "gauge",
            "Damaged bytes that the last replay set aside.",
            stats.wal_damaged_bytes,
        ),
        (
            "trefoil_dedup_entries",
            "gauge",
            "Requests remembered so that a retry is no duplicate.",
            stats.dedup_entries,
        ),
        ("trefoil_dedup_hits_total", "counter", "Requests that were retries.", stats.dedup_hits),
        (
            "trefoil_manifest_generation",
            "gauge",
            "Commits of the manifest.",
            stats.manifest_generation,
        ),
        (
            "trefoil_working",
            "gauge",
            "Whether data are being sealed or merged, or will be though nothing comes in.",
            u64::from(stats.working),
        ),
        ("trefoil_seals_total", "counter", "Times that hot data went to segments.", stats.seals),
        ("trefoil_compactions_total", "counter", "Merges of segments.", stats.compactions),
        (
            "trefoil_disk_free_bytes",
            "gauge",
            "Free bytes where the data directory is.",
            stats.free_bytes,
        ),
        (
            "trefoil_quarantined_files",
            "gauge",
            "Damaged files that were set aside.",
            stats.quarantined.len() as u64,
        ),
        (
            "trefoil_mend_passes_total",
            "counter",
            "Passes in which all files were compared with their checksums; the first follows the start.",
            stats.mend_passes,
        ),
        (
            "trefoil_segments_rebuilt_total",
            "counter",
            "Segments whose damaged indexes were made anew from Parquet.",
            stats.rebuilt,
        ),
    ] {
        one(out, name, kind, help, value);
    }
}

/// The usual `process_*` families, from /proc; absent where that is.
fn write_process(out: &mut String) {
    if let Some(bytes) = memory::resident_bytes() {
        one(out, "process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
    }
    if let Some(seconds) = cpu_seconds() {
        family(out, "process_cpu_seconds_total", "counter", "CPU time, user and system.");
        let _ = writeln!(out, "process_cpu_seconds_total {seconds}");
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        one(out, "process_open_fds", "gauge", "Open file descriptors.", entries.count() as u64);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/task") {
        one(out, "process_threads", "gauge", "Threads.", entries.count() as u64);
    }
}

/// Fields 14 and 15 of /proc/self/stat, counted in ticks of 1/100 s, which is fixed for user space (proc(5)).
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name, may hold spaces: count from its closing bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}
