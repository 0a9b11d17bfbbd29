//! Charts: SVG lines and bars, a canvas for the heat map. What they show is computed in `ui-core`.

pub mod bars;
pub mod dots;
pub mod frame;
pub mod heat;
pub mod lines;
