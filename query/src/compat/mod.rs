//! APIs of other tools, so that what people run works by changing an address.

pub mod prometheus;
