//! What the process itself costs, read from `/proc/self` at each collection.

use std::fs;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// Linux reports CPU time to user space in ticks of 1/100 s on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers `process.cpu.time`, `process.memory.usage` and `process.thread.count`.
///
/// Where `/proc` is missing the instruments simply report nothing.
pub fn observe(meter: &Meter) {
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("Total CPU seconds broken down by different CPU modes.")
        .with_callback(|observer| {
            if let Some(usage) = Usage::read() {
                observer.observe(usage.user_s, &[KeyValue::new("cpu.mode", "user")]);
                observer.observe(usage.system_s, &[KeyValue::new("cpu.mode", "system")]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.memory.usage")
        .with_unit("By")
        .with_description("The amount of physical memory in use.")
        .with_callback(|observer| {
            if let Some(usage) = Usage::read() {
                observer.observe(usage.resident_bytes, &[]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.thread.count")
        .with_unit("{thread}")
        .with_description("Process threads count.")
        .with_callback(|observer| {
            if let Some(usage) = Usage::read() {
                observer.observe(usage.threads, &[]);
            }
        })
        .build();
}

struct Usage {
    user_s: f64,
    system_s: f64,
    threads: i64,
    resident_bytes: i64,
}

impl Usage {
    fn read() -> Option<Self> {
        Self::parse(
            &fs::read_to_string("/proc/self/stat").ok()?,
            &fs::read_to_string("/proc/self/status").ok()?,
        )
    }

    /// Fields as counted in proc(5): utime 14, stime 15, num_threads 20; the name in field 2 may hold spaces.
    fn parse(stat: &str, status: &str) -> Option<Self> {
        let after_name = &stat[stat.rfind(')')? + 1..];
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let resident_kib: i64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()?;
        Some(Self {
            user_s: field(14)? as f64 / TICKS_PER_SECOND,
            system_s: field(15)? as f64 / TICKS_PER_SECOND,
            threads: field(20)?,
            resident_bytes: resident_kib * 1024,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_are_found_behind_a_name_with_spaces() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 7 0 1000 2000 30";
        let usage = Usage::parse(stat, "Name:\tx\nVmRSS:\t    2048 kB\n").unwrap();
        assert_eq!((usage.user_s, usage.system_s), (2.5, 0.5));
        assert_eq!((usage.threads, usage.resident_bytes), (7, 2048 * 1024));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_threads() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 0 && usage.threads > 0);
    }
}
