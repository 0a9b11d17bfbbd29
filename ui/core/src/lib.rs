//! What the web app computes: formats, scales, layouts. No browser in here, so its tests run natively.

pub mod format;
pub mod health;
pub mod heat;
pub mod map;
pub mod palette;
pub mod promql;
pub mod scale;
pub mod series;
pub mod time;
pub mod waterfall;
