//! Words, phrases, newest, by trace ID, errors of a service, severities over time.

use super::{Known, Query, Set, ensure_equal, list};
use crate::client::encoded;
use crate::corpus::logs::{Log, PHRASES, SEVERITIES, WORDS, severity, template};
use crate::corpus::random::Random;
use crate::corpus::shop::SERVICES;
use crate::corpus::{HOUR_NS, hex};
use serde_json::Value;
use std::collections::BTreeMap;

const NEWEST: usize = 100;
const TRACES: usize = 100;
const MINUTE_NS: u64 = 60_000_000_000;

pub fn sets<'a>(known: &'a Known<'a>) -> Vec<Set<'a>> {
    let set = |name, goals, queries| Set { name, goals, queries };
    vec![
        set(
            "log count of a word",
            (None, Some(30.0)),
            WORDS.iter().map(|w| count(known, w)).collect(),
        ),
        set(
            "log count of a phrase",
            (None, Some(30.0)),
            PHRASES.iter().map(|phrase| count(known, phrase)).collect(),
        ),
        set(
            "newest 100 logs with a word",
            (None, Some(15.0)),
            WORDS.iter().map(|word| newest(known, word)).collect(),
        ),
        by_trace_id(known),
        set(
            "count of a service's errors",
            (None, Some(4.0)),
            (0..SERVICES.len()).map(|service| errors(known, service)).collect(),
        ),
        set(
            "severities per minute, 1 h",
            (None, Some(15.0)),
            (0..10).map(|_| severities(known)).collect(),
        ),
    ]
}

pub fn by_trace_id<'a>(known: &'a Known<'a>) -> Set<'a> {
    Set { name: "logs by trace ID", goals: (None, Some(3.0)), queries: by_trace(known) }
}

/// By template, whether its text holds the words side by side.
fn templates_with(phrase: &str) -> Vec<bool> {
    let has = |number| {
        let text = template(number).to_lowercase();
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let phrase: Vec<&str> = phrase.split(' ').collect();
        words.windows(phrase.len()).any(|window| window == phrase)
    };
    (0..=u8::MAX).map(|number| number < 204 && has(number)).collect()
}

fn quoted(text: &str) -> String {
    if text.contains(' ') { encoded(&format!("\"{text}\"")) } else { encoded(text) }
}

fn total(answer: &Value) -> Result<u64, String> {
    answer["total"].as_u64().ok_or_else(|| "no total".to_owned())
}

fn count<'a>(known: &'a Known<'a>, text: &str) -> Query<'a> {
    let with = templates_with(text);
    let want = known.logs.logs.iter().filter(|log| with[usize::from(log.template)]).count() as u64;
    Query {
        path: format!("/api/logs?q={}&count=true&limit=0", quoted(text)),
        check: Box::new(move |answer| ensure_equal("total", total(answer)?, want)),
    }
}

fn times(answer: &Value) -> Result<Vec<u64>, String> {
    Ok(list(answer, "logs")?.iter().filter_map(|log| log["time_unix_nano"].as_u64()).collect())
}

fn newest<'a>(known: &'a Known<'a>, word: &str) -> Query<'a> {
    let with = templates_with(word);
    let fits = |log: &&Log| with[usize::from(log.template)];
    let want: Vec<u64> =
        known.logs.logs.iter().rev().filter(fits).take(NEWEST).map(|log| log.time_ns).collect();
    Query {
        path: format!("/api/logs?q={}&limit={NEWEST}", quoted(word)),
        check: Box::new(move |answer| ensure_equal("times", times(answer)?, want.clone())),
    }
}

fn by_trace<'a>(known: &'a Known<'a>) -> Vec<Query<'a>> {
    let mut of_trace: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for log in known.logs.logs.iter().filter(|log| log.span != u32::MAX) {
        let trace = known.shop.spans[log.span as usize].trace;
        of_trace.entry(trace).or_default().push(log.time_ns);
    }
    let mut random = Random::new(known.shop.settings.seed ^ 0x6c62_7974);
    let query = |_| {
        let trace = random.below(known.shop.traces.len()) as u32;
        let want = of_trace.get(&trace).cloned().unwrap_or_default();
        Query {
            path: format!(
                "/api/logs?trace_id={}&limit=1000&order=asc",
                hex(&known.shop.trace_id(trace))
            ),
            check: Box::new(move |answer: &Value| {
                ensure_equal("times", times(answer)?, want.clone())
            }),
        }
    };
    (0..TRACES).map(query).collect()
}

fn errors<'a>(known: &'a Known<'a>, service: usize) -> Query<'a> {
    let fits = |log: &&Log| {
        severity(log.template) == 17 && known.shop.pods[usize::from(log.pod)].service == service
    };
    let want = known.logs.logs.iter().filter(fits).count() as u64;
    Query {
        path: format!(
            "/api/logs?service={}&severity=error&count=true&limit=0",
            SERVICES[service].name
        ),
        check: Box::new(move |answer| ensure_equal("total", total(answer)?, want)),
    }
}

fn severities<'a>(known: &'a Known<'a>) -> Query<'a> {
    let start_ns = known.shop.settings.start_ns;
    let end_ns = start_ns + HOUR_NS - 1;
    let mut want: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    for log in known.logs.logs.iter().filter(|log| log.time_ns <= end_ns) {
        let number = severity(log.template);
        let name = SEVERITIES.iter().find(|(known, _)| *known == number).map_or("", |s| s.1);
        *want.entry((log.time_ns - log.time_ns % MINUTE_NS, name)).or_default() += 1;
    }
    let want: BTreeMap<(u64, String), u64> =
        want.into_iter().map(|((start, name), count)| ((start, name.to_owned()), count)).collect();
    let check = move |answer: &Value| {
        let mut got = BTreeMap::new();
        for bucket in list(answer, "buckets")? {
            let start = bucket["start_unix_nano"].as_u64().ok_or("no start")?;
            for (name, count) in bucket["counts"].as_object().ok_or("no counts")? {
                let count = count.as_u64().ok_or("no count")?;
                if count > 0 {
                    got.insert((start, name.clone()), count);
                }
            }
        }
        if got == want { Ok(()) } else { Err("the counts differ".to_owned()) }
    };
    Query {
        path: format!("/api/logs/histogram?start={start_ns}&end={end_ns}&step=1m&by=severity"),
        check: Box::new(check),
    }
}
