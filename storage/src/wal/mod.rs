//! The write-ahead log: one stream of checksummed frames for all signals, in files, with group commit.
//!
//! * [`frame`]: a frame's bytes.
//! * [`files`]: the stream's files: names, rotation, truncation, durability.
//! * [`writer`]: the thread that writes groups and syncs them.
//! * [`replay`]: reading the stream back, however it ended.
//!
//! A *position* is an offset in the endless stream of frame bytes; a file is named after the position of its first
//! frame. Byte layout: `storage/FORMAT.md`.

pub mod files;
pub mod frame;
pub mod replay;
pub mod writer;
