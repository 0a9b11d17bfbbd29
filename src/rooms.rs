//! Storage, collector and query put together.

use crate::config::Config;
use crate::units::Retention;
use anyhow::Context;
use axum::Router;
use std::sync::Arc;
use trefoil_collector::decode::DecodeLimits;
use trefoil_collector::decoder::FrameDecoder;
use trefoil_storage::Stores;
use trefoil_storage::resource::Interner;
use trefoil_storage::store::Store;

/// An open store and the APIs over it.
pub struct Rooms {
    pub store: Arc<Store>,
    pub api: Router,
}

/// Opens the data directory and replays its log. Blocks.
///
/// # Errors
/// In one line why the directory can't be used, and the remedy.
pub fn open(config: &Config) -> anyhow::Result<Rooms> {
    let interner = Arc::new(Interner::default());
    let stores = Arc::new(Stores::new(interner.clone()));
    let mut storage = trefoil_storage::config::Config::new(&config.data_dir);
    storage.memory_limit = config.memory_limit_bytes;
    let mut limits = DecodeLimits::default();
    match config.retention {
        Retention::For(age) => storage.retention = Some(age),
        Retention::Unlimited => {
            storage.retention = None;
            // Any timestamp is welcome then, also one that lies ahead.
            limits.future_ns = u64::MAX;
        }
    }
    let decoder = Arc::new(FrameDecoder::new(interner, limits));
    let store = Store::open(storage, stores, decoder).context("opening the data directory")?;
    Ok(Rooms { store: Arc::new(store), api: Router::new() })
}
