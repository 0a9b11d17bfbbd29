//! Resources and scopes, each kept once.
//!
//! Senders repeat the same resource with every request; a row refers to it by an `Arc`, found by the raw bytes of
//! its message, so that a known resource costs one hash.

use crate::attributes::{self, Value};
use hashbrown::HashTable;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

/// What sent the data: OTLP `Resource` with its schema URL.
#[derive(Debug, PartialEq)]
pub struct Resource {
    /// Canonical attribute list.
    pub attributes: Box<[u8]>,
    pub schema_url: Box<str>,
    pub dropped_attributes_count: u32,
    /// `service.name`, or `unknown_service` when it is missing (semantic conventions, "Service").
    pub service_name: Arc<str>,
    /// 128-bit hash of all fields above: the resource's identity across batches and restarts.
    pub id: u128,
}

/// Which library produced the data: OTLP `InstrumentationScope` with its schema URL.
#[derive(Debug, PartialEq)]
pub struct Scope {
    pub name: Box<str>,
    pub version: Box<str>,
    /// Canonical attribute list.
    pub attributes: Box<[u8]>,
    pub schema_url: Box<str>,
    pub dropped_attributes_count: u32,
    pub id: u128,
}

/// Shown for a resource without `service.name`.
pub const UNKNOWN_SERVICE: &str = "unknown_service";

impl Resource {
    pub fn new(attributes: &[u8], schema_url: &str, dropped_attributes_count: u32) -> Self {
        let service_name = match attributes::get(attributes, "service.name") {
            Some(Value::Str(name)) if !name.is_empty() => name.into(),
            _ => UNKNOWN_SERVICE.into(),
        };
        let id =
            identity(&[attributes, schema_url.as_bytes(), &dropped_attributes_count.to_le_bytes()]);
        Self {
            attributes: attributes.into(),
            schema_url: schema_url.into(),
            dropped_attributes_count,
            service_name,
            id,
        }
    }
}

impl Scope {
    pub fn new(
        name: &str,
        version: &str,
        attributes: &[u8],
        schema_url: &str,
        dropped_attributes_count: u32,
    ) -> Self {
        let id = identity(&[
            name.as_bytes(),
            version.as_bytes(),
            attributes,
            schema_url.as_bytes(),
            &dropped_attributes_count.to_le_bytes(),
        ]);
        Self {
            name: name.into(),
            version: version.into(),
            attributes: attributes.into(),
            schema_url: schema_url.into(),
            dropped_attributes_count,
            id,
        }
    }
}

/// Hash over length-prefixed parts, so that no two lists of parts run together.
fn identity(parts: &[&[u8]]) -> u128 {
    let mut bytes = Vec::with_capacity(parts.iter().map(|p| p.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    xxh3_128(&bytes)
}

/// Keeps one copy of each resource and scope that is in use; what nothing refers to any more is let go.
#[derive(Debug, Default)]
pub struct Interner {
    resources: Mutex<HashTable<Arc<Resource>>>,
    scopes: Mutex<HashTable<Arc<Scope>>>,
    /// By the hash of the messages that gave them.
    sent_resources: Mutex<FxHashMap<u128, Arc<Resource>>>,
    sent_scopes: Mutex<FxHashMap<u128, Arc<Scope>>>,
}

/// Hash of an unread message with its schema URL, under which a sender's resource or scope is found again.
pub fn sent_id(message: &[u8], schema_url: &[u8]) -> u128 {
    xxh3_128_with_seed(message, xxh3_64(schema_url))
}

/// Above this many entries a table drops what only it refers to.
const SWEEP_AT: usize = 4096;

impl Interner {
    pub fn resource(&self, resource: Resource) -> Arc<Resource> {
        let mut table = self.resources.lock();
        let hash = resource.id as u64;
        if let Some(known) = table.find(hash, |known| **known == resource) {
            return known.clone();
        }
        if table.len() >= SWEEP_AT {
            table.retain(|known| Arc::strong_count(known) > 1);
        }
        let resource = Arc::new(resource);
        table.insert_unique(hash, resource.clone(), |known| known.id as u64);
        resource
    }

    /// The resource that a message gave before, see [`sent_id`]; else what `read` makes of it.
    pub fn sent_resource<E>(
        &self,
        id: u128,
        read: impl FnOnce() -> Result<Resource, E>,
    ) -> Result<Arc<Resource>, E> {
        sent(&self.sent_resources, id, || Ok(self.resource(read()?)))
    }

    /// The scope that a message gave before, see [`sent_id`]; else what `read` makes of it.
    pub fn sent_scope<E>(
        &self,
        id: u128,
        read: impl FnOnce() -> Result<Scope, E>,
    ) -> Result<Arc<Scope>, E> {
        sent(&self.sent_scopes, id, || Ok(self.scope(read()?)))
    }

    pub fn scope(&self, scope: Scope) -> Arc<Scope> {
        let mut table = self.scopes.lock();
        let hash = scope.id as u64;
        if let Some(known) = table.find(hash, |known| **known == scope) {
            return known.clone();
        }
        if table.len() >= SWEEP_AT {
            table.retain(|known| Arc::strong_count(known) > 1);
        }
        let scope = Arc::new(scope);
        table.insert_unique(hash, scope.clone(), |known| known.id as u64);
        scope
    }
}

fn sent<T, E>(
    known: &Mutex<FxHashMap<u128, Arc<T>>>,
    id: u128,
    read: impl FnOnce() -> Result<Arc<T>, E>,
) -> Result<Arc<T>, E> {
    if let Some(item) = known.lock().get(&id) {
        return Ok(item.clone());
    }
    let item = read()?;
    let mut known = known.lock();
    if known.len() >= SWEEP_AT {
        known.clear();
    }
    known.insert(id, item.clone());
    Ok(item)
}

/// Short hash of raw bytes, for caches keyed by an unparsed message.
pub fn raw_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}
