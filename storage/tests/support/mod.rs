//! What the store's tests share: records that are only ids, and a disk that fails and forgets as real ones do.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod ids;
pub mod sim_disk;
