//! Query languages: text to tree.

pub mod logs;
