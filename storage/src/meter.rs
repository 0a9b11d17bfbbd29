//! What a large read answers to.

use std::io;

/// Watches over a read and may stop it: asked before memory is taken and at least every few milliseconds of work. An
/// error ends the read and comes back to its caller as it is.
pub trait Meter: Sync {
    /// Whether to go on.
    fn check(&self) -> io::Result<()>;

    /// So many more series are about to be held.
    fn series(&self, more: u64) -> io::Result<()>;

    /// So many more samples, 16 bytes each, are about to be held, or have been since the last call.
    fn samples(&self, more: u64) -> io::Result<()>;
}

/// Lets everything pass: for reads whose size is known to be small.
pub struct Unmetered;

impl Meter for Unmetered {
    fn check(&self) -> io::Result<()> {
        Ok(())
    }

    fn series(&self, _more: u64) -> io::Result<()> {
        Ok(())
    }

    fn samples(&self, _more: u64) -> io::Result<()> {
        Ok(())
    }
}
