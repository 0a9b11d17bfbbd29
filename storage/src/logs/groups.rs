//! Groups: what the rows of a segment have in common, known without reading them.
//!
//! A *group* is all that rows can have in common: resource, scope, severity, event name and body pattern. A filter is
//! asked once per group of the segment; most queries never look at a row.
//!
//! `<id>.blk` holds the groups and the runs of the blocks ([`super::blocks`]): `TREFBLK2`, then a zstd frame of
//! varints and byte strings.

use super::blocks::{BLOCK_ROWS, Blocks, minute_columns};
use super::filter::GroupFacts;
use super::tokens::{PatternToken, pattern_tokens};
use crate::resource::{Interner, Resource, Scope};
use crate::wire;
use rustc_hash::FxHashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"TREFBLK2";

/// The first format, whose blocks do not count by minute.
const MAGIC_1: [u8; 8] = *b"TREFBLK1";

/// No pattern.
pub const NO_PATTERN: u32 = u32::MAX;

/// What the rows of a group share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    /// Indexes into the lists of [`Groups`].
    pub resource: u32,
    pub scope: u32,
    pub severity_text: u32,
    pub event_name: u32,
    /// [`NO_PATTERN`] for bodies that share none.
    pub pattern: u32,
    pub severity_number: i32,
}

/// A body pattern with its words.
#[derive(Debug)]
pub struct Pattern {
    /// As stored, see [`super::tokens::pattern`].
    pub text: Box<str>,
    pub tokens: Vec<PatternToken>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), tokens: pattern_tokens(text) }
    }
}

/// All groups of a segment.
#[derive(Debug, Default)]
pub struct Groups {
    pub resources: Vec<Arc<Resource>>,
    pub scopes: Vec<Arc<Scope>>,
    pub severity_texts: Vec<Arc<str>>,
    pub event_names: Vec<Arc<str>>,
    pub patterns: Vec<Pattern>,
    pub groups: Vec<Group>,
}

impl Groups {
    pub fn facts(&self, group: u32) -> GroupFacts<'_> {
        let group = &self.groups[group as usize];
        GroupFacts {
            severity_number: group.severity_number,
            severity_text: &self.severity_texts[group.severity_text as usize],
            event_name: &self.event_names[group.event_name as usize],
            resource: &self.resources[group.resource as usize],
            scope: &self.scopes[group.scope as usize],
            pattern: self.patterns.get(group.pattern as usize).map(|p| p.tokens.as_slice()),
        }
    }

    /// Heap bytes, an estimate; what is shared with other segments does not count.
    pub fn heap_bytes(&self) -> usize {
        let pattern_bytes = |pattern: &Pattern| {
            size_of::<Pattern>()
                + pattern.text.len() * 2
                + pattern.tokens.capacity() * size_of::<PatternToken>()
        };
        self.groups.capacity() * size_of::<Group>()
            + self.patterns.iter().map(pattern_bytes).sum::<usize>()
    }

    pub fn pattern(&self, group: u32) -> Option<&Pattern> {
        self.patterns.get(self.groups[group as usize].pattern as usize)
    }
}

/// Numbers distinct items by address first, so that repeating rows cost one lookup.
#[derive(Debug)]
struct Known<T: ?Sized> {
    by_address: FxHashMap<usize, u32>,
    /// Keeps addresses from being reused while they are known.
    seen: Vec<Arc<T>>,
    items: Vec<Arc<T>>,
}

impl<T: ?Sized> Default for Known<T> {
    fn default() -> Self {
        Self { by_address: FxHashMap::default(), seen: Vec::new(), items: Vec::new() }
    }
}

impl<T: ?Sized + PartialEq> Known<T> {
    fn index(&mut self, item: &Arc<T>) -> u32 {
        let address = Arc::as_ptr(item).cast::<u8>() as usize;
        if let Some(&index) = self.by_address.get(&address) {
            return index;
        }
        let index = self.items.iter().position(|known| **known == **item).unwrap_or_else(|| {
            self.items.push(item.clone());
            self.items.len() - 1
        }) as u32;
        self.by_address.insert(address, index);
        self.seen.push(item.clone());
        index
    }
}

/// Collects groups while a segment is written.
#[derive(Debug, Default)]
pub struct GroupsBuilder {
    resources: Known<Resource>,
    scopes: Known<Scope>,
    severity_texts: Known<str>,
    event_names: Known<str>,
    lookup: FxHashMap<Group, u32>,
    groups: Vec<Group>,
}

impl GroupsBuilder {
    /// Number of a row's group.
    pub fn group(
        &mut self,
        resource: &Arc<Resource>,
        scope: &Arc<Scope>,
        severity_number: i32,
        severity_text: &Arc<str>,
        event_name: &Arc<str>,
        pattern: u32,
    ) -> u32 {
        let group = Group {
            resource: self.resources.index(resource),
            scope: self.scopes.index(scope),
            severity_text: self.severity_texts.index(severity_text),
            event_name: self.event_names.index(event_name),
            pattern,
            severity_number,
        };
        match self.lookup.get(&group) {
            Some(&index) => index,
            None => {
                let index = self.groups.len() as u32;
                self.lookup.insert(group.clone(), index);
                self.groups.push(group);
                index
            }
        }
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Severity texts and event names so far.
    pub fn texts(&self) -> (&[Arc<str>], &[Arc<str>]) {
        (&self.severity_texts.items, &self.event_names.items)
    }

    /// Resources and scopes so far.
    pub fn senders(&self) -> (&[Arc<Resource>], &[Arc<Scope>]) {
        (&self.resources.items, &self.scopes.items)
    }

    pub fn finish(self, patterns: Vec<Pattern>) -> Groups {
        Groups {
            resources: self.resources.items,
            scopes: self.scopes.items,
            severity_texts: self.severity_texts.items,
            event_names: self.event_names.items,
            patterns,
            groups: self.groups,
        }
    }
}

/// Writes the sidecar.
pub fn write(out: &mut impl Write, groups: &Groups, blocks: &Blocks) -> io::Result<()> {
    let mut plain = Vec::new();
    wire::put_varint(&mut plain, groups.resources.len() as u64);
    for resource in &groups.resources {
        put_part(&mut plain, &resource.attributes);
        put_part(&mut plain, resource.schema_url.as_bytes());
        wire::put_varint(&mut plain, u64::from(resource.dropped_attributes_count));
    }
    wire::put_varint(&mut plain, groups.scopes.len() as u64);
    for scope in &groups.scopes {
        put_part(&mut plain, scope.name.as_bytes());
        put_part(&mut plain, scope.version.as_bytes());
        put_part(&mut plain, &scope.attributes);
        put_part(&mut plain, scope.schema_url.as_bytes());
        wire::put_varint(&mut plain, u64::from(scope.dropped_attributes_count));
    }
    put_texts(&mut plain, groups.severity_texts.iter());
    put_texts(&mut plain, groups.event_names.iter());
    put_texts(&mut plain, groups.patterns.iter().map(|p| &p.text));
    wire::put_varint(&mut plain, groups.groups.len() as u64);
    for group in &groups.groups {
        for number in [group.resource, group.scope, group.severity_text, group.event_name] {
            wire::put_varint(&mut plain, u64::from(number));
        }
        wire::put_varint(&mut plain, u64::from(group.pattern.wrapping_add(1)));
        wire::put_varint(&mut plain, group.severity_number as u32 as u64);
    }
    wire::put_varint(&mut plain, blocks.blocks.len() as u64);
    for block in &blocks.blocks {
        wire::put_varint(&mut plain, block.min_ns);
        wire::put_varint(&mut plain, block.max_ns - block.min_ns);
        let runs = blocks.runs(block);
        wire::put_varint(&mut plain, runs.len() as u64);
        runs.iter().for_each(|(group, _)| wire::put_varint(&mut plain, u64::from(*group)));
        runs.iter().for_each(|(_, rows)| wire::put_varint(&mut plain, u64::from(*rows)));
        blocks
            .minutes(block)
            .iter()
            .for_each(|rows| wire::put_varint(&mut plain, u64::from(*rows)));
    }
    out.write_all(&MAGIC)?;
    out.write_all(&zstd::encode_all(plain.as_slice(), 3)?)
}

fn put_texts<T: AsRef<str>>(out: &mut Vec<u8>, texts: impl ExactSizeIterator<Item = T>) {
    wire::put_varint(out, texts.len() as u64);
    texts.for_each(|text| put_part(out, text.as_ref().as_bytes()));
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    wire::put_varint(out, part.len() as u64);
    out.extend_from_slice(part);
}

/// Reads the sidecar.
pub fn read(mut file: impl Read, interner: &Interner) -> io::Result<(Groups, Blocks)> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic)?;
    if ![MAGIC, MAGIC_1].contains(&magic) {
        return Err(damaged());
    }
    let plain = zstd::decode_all(file)?;
    let mut reader = Reader { rest: &plain };
    let mut groups = Groups {
        resources: reader.list(|reader| {
            let (attributes, schema_url) = (reader.part()?, reader.text()?);
            let dropped = reader.varint()? as u32;
            Ok(interner.resource(Resource::new(attributes, schema_url, dropped)))
        })?,
        scopes: reader.list(|reader| {
            let (name, version) = (reader.text()?, reader.text()?);
            let (attributes, schema_url) = (reader.part()?, reader.text()?);
            let dropped = reader.varint()? as u32;
            Ok(interner.scope(Scope::new(name, version, attributes, schema_url, dropped)))
        })?,
        severity_texts: reader.list(|reader| Ok(reader.text()?.into()))?,
        event_names: reader.list(|reader| Ok(reader.text()?.into()))?,
        patterns: reader.list(|reader| Ok(Pattern::new(reader.text()?)))?,
        groups: Vec::new(),
    };
    for _ in 0..reader.count()? {
        let group = Group {
            resource: reader.below(groups.resources.len())?,
            scope: reader.below(groups.scopes.len())?,
            severity_text: reader.below(groups.severity_texts.len())?,
            event_name: reader.below(groups.event_names.len())?,
            pattern: reader.below(groups.patterns.len() + 1)?.wrapping_sub(1),
            severity_number: reader.varint()? as u32 as i32,
        };
        groups.groups.push(group);
    }
    let mut blocks = Blocks::default();
    for _ in 0..reader.count()? {
        let min_ns = reader.varint()?;
        let max_ns = min_ns.checked_add(reader.varint()?).ok_or_else(damaged)?;
        let count = reader.count()?;
        let numbers = (0..count).map(|_| reader.below(groups.groups.len()));
        let numbers: Vec<u32> = numbers.collect::<io::Result<_>>()?;
        let rows = (0..count).map(|_| reader.below(BLOCK_ROWS + 1));
        let rows: Vec<u32> = rows.collect::<io::Result<_>>()?;
        let columns = if magic == MAGIC { minute_columns(min_ns, max_ns) } else { 0 };
        let minutes = (0..count * columns).map(|_| Ok(reader.below(BLOCK_ROWS + 1)? as u16));
        let minutes: Vec<u16> = minutes.collect::<io::Result<_>>()?;
        let runs: Vec<(u32, u32)> = numbers.into_iter().zip(rows).collect();
        blocks.push(min_ns, max_ns, &runs, &minutes).ok_or_else(damaged)?;
    }
    blocks.shrink_to_fit();
    Ok((groups, blocks))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "block index is damaged")
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> io::Result<u64> {
        wire::take_varint(&mut self.rest).map_err(|_| damaged())
    }

    /// A number of items, each of which takes at least a byte.
    fn count(&mut self) -> io::Result<usize> {
        let count = self.varint()?;
        if count > self.rest.len() as u64 { Err(damaged()) } else { Ok(count as usize) }
    }

    fn below(&mut self, end: usize) -> io::Result<u32> {
        let number = self.varint()?;
        if number < end as u64 { Ok(number as u32) } else { Err(damaged()) }
    }

    fn part(&mut self) -> io::Result<&'a [u8]> {
        let len = self.count()?;
        let (part, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(part)
    }

    fn text(&mut self) -> io::Result<&'a str> {
        std::str::from_utf8(self.part()?).map_err(|_| damaged())
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> io::Result<T>) -> io::Result<Vec<T>> {
        (0..self.count()?).map(|_| item(self)).collect()
    }
}
