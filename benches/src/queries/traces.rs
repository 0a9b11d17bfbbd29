//! Traces by ID, and searches.

use super::{Known, Query, Set, ensure_equal, list};
use crate::client::encoded;
use crate::corpus::hex;
use crate::corpus::random::Random;
use crate::corpus::shop::SERVICES;
use crate::corpus::traces::{Shape, route};
use serde_json::Value;
use std::collections::BTreeSet;

const IDS: usize = 200;
const SEARCHES: usize = 20;
const LIMIT: usize = 20;

pub fn sets<'a>(known: &'a Known<'a>) -> Vec<Set<'a>> {
    vec![
        by_trace_id(known),
        Set {
            name: "trace search (service, operation, duration; 20)",
            goals: (None, Some(20.0)),
            queries: searches(known),
        },
    ]
}

pub fn by_trace_id<'a>(known: &'a Known<'a>) -> Set<'a> {
    Set { name: "trace by ID", goals: (Some(1.5), Some(4.0)), queries: by_id(known) }
}

fn by_id<'a>(known: &'a Known<'a>) -> Vec<Query<'a>> {
    let mut random = Random::new(known.shop.settings.seed ^ 0x6964);
    let query = |_| {
        let number = random.below(known.shop.traces.len()) as u32;
        let path = format!("/api/traces/{}", hex(&known.shop.trace_id(number)));
        Query { path, check: Box::new(move |answer| is_trace(known, number, answer)) }
    };
    (0..IDS).map(query).collect()
}

fn is_trace(known: &Known<'_>, number: u32, answer: &Value) -> Result<(), String> {
    let trace = &known.shop.traces[number as usize];
    let want: BTreeSet<String> = (trace.first_span..trace.first_span + trace.spans)
        .map(|span| hex(&known.shop.span_id(span)))
        .collect();
    let mut got = BTreeSet::new();
    let mut count = 0;
    for resource in list(answer, "resourceSpans")? {
        for scope in list(resource, "scopeSpans")? {
            for span in list(scope, "spans")? {
                count += 1;
                got.insert(span["spanId"].as_str().unwrap_or_default().to_owned());
            }
        }
    }
    ensure_equal("spans", count, want.len())?;
    ensure_equal("span IDs", got, want)
}

fn searches<'a>(known: &'a Known<'a>) -> Vec<Query<'a>> {
    let mut random = Random::new(known.shop.settings.seed ^ 0x7365_6172);
    let query = |_| {
        let service = random.below(SERVICES.len());
        let operation = random.below(SERVICES[service].routes.len()) as u8;
        search(known, service, operation)
    };
    (0..SEARCHES).map(query).collect()
}

/// The slowest tenth of an operation.
fn search<'a>(known: &'a Known<'a>, service: usize, operation: u8) -> Query<'a> {
    let shop = known.shop;
    let mut fitting: Vec<(u64, u32)> = shop
        .spans
        .iter()
        .filter(|span| {
            span.shape == Shape::Server
                && span.operation == operation
                && shop.pods[usize::from(span.pod)].service == service
        })
        .map(|span| (span.duration_ns, span.trace))
        .collect();
    fitting.sort_unstable();
    let min_ns = fitting.get(fitting.len() * 9 / 10).map_or(0, |(duration, _)| *duration);
    let traces: BTreeSet<u32> = fitting
        .iter()
        .filter(|(duration, _)| *duration >= min_ns)
        .map(|(_, trace)| *trace)
        .collect();
    // Traces are numbered by their start.
    let want: BTreeSet<String> =
        traces.iter().rev().take(LIMIT).map(|trace| hex(&shop.trace_id(*trace))).collect();
    let (method, path) = route(service, operation);
    let path = format!(
        "/api/traces?service={}&operation={}&min_duration={min_ns}ns&limit={LIMIT}",
        SERVICES[service].name,
        encoded(&format!("{method} {path}")),
    );
    let check = move |answer: &Value| {
        let got: BTreeSet<String> = list(answer, "traces")?
            .iter()
            .filter_map(|trace| trace["trace_id"].as_str().map(str::to_owned))
            .collect();
        ensure_equal("newest traces", &got, &want)
    };
    Query { path, check: Box::new(check) }
}
