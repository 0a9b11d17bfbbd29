//! What the web app computes: formats, scales, layouts. No browser in here, so its tests run natively.

pub mod format;
pub mod health;
pub mod map;
pub mod scale;
pub mod time;
pub mod waterfall;
