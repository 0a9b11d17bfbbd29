//! The native JSON API on the UI's port.

pub mod error;
pub mod params;
