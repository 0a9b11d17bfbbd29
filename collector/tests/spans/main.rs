//! The life of spans, from the wire to a merged segment: nothing that a sender said is lost or changed on the way.

mod decode;
mod generate;
mod model;
mod store;
