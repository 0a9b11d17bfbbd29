//! Resources and scopes, each kept once.
//!
//! Senders repeat the same resource with every request; a row refers to it by an `Arc`, found by the raw bytes of
//! its message, so that a known resource costs one hash.

use crate::attributes::{self, Value};
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::sync::Arc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

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

/// Short hash of raw bytes, for caches keyed by an unparsed message.
pub fn raw_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}
