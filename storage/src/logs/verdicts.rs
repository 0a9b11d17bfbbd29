//! What the groups and indexes of a segment say to a filter, before any row is read.

use super::filter::{Field, LogFilter, until_decided};
use super::groups::Groups;
use super::scan::Visitor;
use super::sealed::{LogSegment, Outline};
use roaring::RoaringBitmap;
use std::io;

/// What the groups of a segment say to a filter.
pub struct Verdicts {
    /// By group: all rows fit, none fits, or it depends.
    by_group: Vec<Option<bool>>,
    /// Some group's rows all fit.
    some_fit: bool,
    /// Blocks in which rows of undecided groups can fit; `None` = all.
    candidates: Option<RoaringBitmap>,
}

impl Verdicts {
    /// `None` when no row of the segment fits, because it has none of the trace that the filter asks for: of the
    /// segments of many hours nearly all are passed over so, before anything else of them is read.
    pub fn new(segment: &LogSegment, filter: &LogFilter) -> io::Result<Option<Self>> {
        let blocks = segment.blocks_with_trace(filter)?;
        if blocks.as_ref().is_some_and(RoaringBitmap::is_empty) {
            return Ok(None);
        }
        let outline = segment.outline()?;
        let groups = &outline.groups;
        let mut asked = Asked::new(filter, groups);
        let by_group: Vec<Option<bool>> =
            (0..groups.groups.len() as u32).map(|group| asked.of(group, groups)).collect();
        let candidates = if by_group.contains(&None) {
            segment.candidates(filter, blocks)?
        } else {
            Some(RoaringBitmap::new())
        };
        Ok(Some(Self { some_fit: by_group.contains(&Some(true)), by_group, candidates }))
    }

    /// The verdict on a run, given its block.
    pub fn of(&self, block: usize, group: u32) -> Option<bool> {
        match self.by_group[group as usize] {
            None if !self.is_candidate(block) => Some(false),
            verdict => verdict,
        }
    }

    /// What the group says, whatever the block.
    pub fn of_group(&self, group: u32) -> Option<bool> {
        self.by_group[group as usize]
    }

    /// Whether rows of undecided groups can fit in a block.
    pub fn is_candidate(&self, block: usize) -> bool {
        self.candidates.as_ref().is_none_or(|blocks| blocks.contains(block as u32))
    }

    /// Whether any row of a block may fit, by a glance.
    pub fn may_want(&self, block: usize) -> bool {
        self.some_fit || self.is_candidate(block)
    }

    /// Whether any row of a block can fit.
    pub fn wants(&self, outline: &Outline, number: usize) -> bool {
        if !self.may_want(number) {
            return false;
        }
        let candidate = self.is_candidate(number);
        let runs = outline.blocks.runs(&outline.blocks.blocks[number]);
        runs.iter().any(|(group, _)| match self.by_group[*group as usize] {
            None => candidate,
            Some(fits) => fits,
        })
    }

    /// Lets a visitor take groups whole; those it took have no rows any more.
    pub fn take_groups(
        &mut self,
        segment: &LogSegment,
        outline: &Outline,
        visitor: &mut impl Visitor,
    ) {
        let mut some_fit = false;
        for (group, verdict) in self.by_group.iter_mut().enumerate() {
            if *verdict == Some(true) {
                let taken =
                    visitor.group(segment, outline, group as u32, outline.group_rows[group]);
                *verdict = Some(!taken);
                some_fit |= !taken;
            }
        }
        self.some_fit = some_fit;
    }
}

/// A filter that is asked for every group of a segment. There are far more groups than resources or patterns, and a
/// predicate looks at one of those: its answers are remembered by them.
enum Asked<'a> {
    And(Vec<Asked<'a>>),
    Or(Vec<Asked<'a>>),
    Not(Box<Asked<'a>>),
    Leaf { filter: &'a LogFilter, part: Part, known: Vec<Option<Option<bool>>> },
}

/// What of a group decides a predicate.
#[derive(Debug, Clone, Copy)]
enum Part {
    Resource,
    Scope,
    Pattern,
    /// Quickly looked at anew.
    Other,
}

impl<'a> Asked<'a> {
    fn new(filter: &'a LogFilter, groups: &Groups) -> Self {
        let all = |filters: &'a [LogFilter]| filters.iter().map(|f| Self::new(f, groups)).collect();
        let part = match filter {
            LogFilter::And(filters) => return Self::And(all(filters)),
            LogFilter::Or(filters) => return Self::Or(all(filters)),
            LogFilter::Not(inner) => return Self::Not(Box::new(Self::new(inner, groups))),
            LogFilter::Words(field, _)
            | LogFilter::Equals(field, _)
            | LogFilter::StartsWith(field, _)
            | LogFilter::Range(field, ..)
            | LogFilter::Exists(field) => match (filter, field) {
                (LogFilter::Words(..), Field::Body) => Part::Pattern,
                (_, Field::Service | Field::Resource(_)) => Part::Resource,
                (_, Field::Scope) => Part::Scope,
                _ => Part::Other,
            },
            _ => Part::Other,
        };
        let parts = match part {
            Part::Resource => groups.resources.len(),
            Part::Scope => groups.scopes.len(),
            Part::Pattern => groups.patterns.len(),
            Part::Other => 0,
        };
        Self::Leaf { filter, part, known: vec![None; parts] }
    }

    /// As [`LogFilter::matches_group`].
    fn of(&mut self, number: u32, groups: &Groups) -> Option<bool> {
        match self {
            Self::And(all) => {
                until_decided(false, all.iter_mut().map(|one| one.of(number, groups)))
            }
            Self::Or(any) => until_decided(true, any.iter_mut().map(|one| one.of(number, groups))),
            Self::Not(inner) => inner.of(number, groups).map(|fits| !fits),
            Self::Leaf { filter, part, known } => {
                let group = &groups.groups[number as usize];
                let place = match part {
                    Part::Resource => group.resource,
                    Part::Scope => group.scope,
                    Part::Pattern => group.pattern,
                    Part::Other => u32::MAX,
                };
                let ask = || filter.matches_group(&groups.facts(number));
                match known.get_mut(place as usize) {
                    Some(known) => *known.get_or_insert_with(ask),
                    None => ask(),
                }
            }
        }
    }
}
