//! Memory of the process, and when the allocator gives what is free back to the system.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long the allocator keeps free memory before the system gets it back, ms. With its own second the peak of a busy
/// server is a fifth higher; at 0.1 s clearing pages anew takes a sixth more CPU time (docs/performance.md, "Memory").
const PURGE_DELAY_MS: std::ffi::c_long = 200;

/// `mi_option_purge_delay` of mimalloc 3, which the bindings have no name for.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Above this much resident memory free memory is not kept at all, bytes.
static AMPLE_BYTES: AtomicU64 = AtomicU64::new(u64::MAX);

/// Sets [`PURGE_DELAY_MS`]. For the first thread, before there are others.
#[allow(unsafe_code)]
pub fn give_back_soon() {
    // SAFETY: stores a number in a table of the allocator, atomically; no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
}

/// Sets what [`give_back_if_ample`] goes by: a quarter of the budget. A server that takes in one signal at full speed
/// stays below, and keeps what the next seal will take again; with all three, or old data beside them, memory stays flat.
pub fn keep_below(memory_limit_bytes: u64) {
    AMPLE_BYTES.store(memory_limit_bytes / 4, Ordering::Relaxed);
}

/// Gives back at once what this thread and the process have freed, if the process is large.
#[allow(unsafe_code)]
pub fn give_back_if_ample() {
    if resident_bytes().is_some_and(|bytes| bytes > AMPLE_BYTES.load(Ordering::Relaxed)) {
        // SAFETY: it looks through this thread's own heap, and through free pages as any thread may.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}

/// Of this process; `None` where /proc is not.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
