//! Text in, tree out.

use super::*;
use proptest::prelude::*;

fn body(text: &str) -> LogFilter {
    LogFilter::words(Field::Body, text)
}

fn equals(field: &str, value: &str) -> LogFilter {
    LogFilter::equals(Field::named(field), value)
}

fn not(filter: LogFilter) -> LogFilter {
    LogFilter::Not(Box::new(filter))
}

fn check(query: &str, expected: LogFilter) {
    assert_eq!(parse(query), Ok(expected), "{query}");
}

fn fails(query: &str, position: usize, part: &str) {
    let error = parse(query).expect_err(query);
    assert_eq!(error.position, position, "{query}: {error}");
    assert!(error.to_string().contains(part), "{query}: {error}");
}

fn bound(value: &str, inclusive: bool) -> Option<Bound> {
    Some(Bound { value: value.into(), inclusive })
}

#[test]
fn an_empty_query_or_a_star_fits_everything() {
    check("", LogFilter::All);
    check("  \t", LogFilter::All);
    check("*", LogFilter::All);
}

#[test]
fn words_next_to_each_other_mean_and() {
    check("card declined", LogFilter::And(vec![body("card"), body("declined")]));
    check("card AND declined", LogFilter::And(vec![body("card"), body("declined")]));
    check("\"card declined\"", body("card declined"));
    check("card-declined", body("card declined"));
}

#[test]
fn or_binds_weaker_than_and() {
    check(
        "a b OR c NOT d",
        LogFilter::Or(vec![
            LogFilter::And(vec![body("a"), body("b")]),
            LogFilter::And(vec![body("c"), not(body("d"))]),
        ]),
    );
    check("a (b OR c)", LogFilter::And(vec![body("a"), LogFilter::Or(vec![body("b"), body("c")])]));
}

#[test]
fn operators_are_upper_case_only_and_whole_words() {
    check("a or b", LogFilter::And(vec![body("a"), body("or"), body("b")]));
    check("ORDER ANDROID", LogFilter::And(vec![body("order"), body("android")]));
    check("\"OR\"", body("or"));
}

#[test]
fn plus_and_minus_stand_before_a_term() {
    check("+a -b", LogFilter::And(vec![body("a"), not(body("b"))]));
    check("-service:cart", not(equals("service", "cart")));
    check("NOT NOT a", not(not(body("a"))));
    check("-(a b)", not(LogFilter::And(vec![body("a"), body("b")])));
}

#[test]
fn fields_compare_whole_values() {
    check("http.route:/pay/{id}", equals("http.route", "/pay/{id}"));
    check("service:checkout", equals("service", "checkout"));
    check("url:http://x:80/y", equals("url", "http://x:80/y"));
    check("service:\"check out\"", equals("service", "check out"));
    check(
        "trace_id:0AF7651916CD43DD8448EB211C80319C",
        LogFilter::TraceId(parse_hex("0af7651916cd43dd8448eb211c80319c").unwrap()),
    );
    check(
        "reason:\"card declined\"",
        LogFilter::Or(vec![
            equals("reason", "card declined"),
            LogFilter::words(Field::named("reason"), "card declined"),
        ]),
    );
    check(r"a\:b", body("a b"));
    check("body:timeout", body("timeout"));
}

#[test]
fn a_field_may_stand_before_parentheses() {
    check(
        "severity:(error OR fatal)",
        LogFilter::Or(vec![equals("severity", "error"), equals("severity", "fatal")]),
    );
}

#[test]
fn severities_are_classes() {
    check("severity:error", LogFilter::Severity(17, 20));
    check("severity:ERROR", LogFilter::Severity(17, 20));
    check("severity:>=warn", LogFilter::Severity(13, 24));
    check("severity:>warn", LogFilter::Severity(17, 24));
    check("severity:<info", LogFilter::Severity(1, 8));
    check("severity:[debug TO info]", LogFilter::Severity(5, 12));
    check("severity:18", LogFilter::Severity(18, 18));
    check("severity:odd", LogFilter::SeverityText("odd".into()));
    fails("severity:>loud", 9, "no severity");
}

#[test]
fn ranges_and_comparisons() {
    let field = || Field::named("http.status");
    check("http.status:>500", LogFilter::range(field(), bound("500", false), None));
    check("http.status:<=99.5", LogFilter::range(field(), None, bound("99.5", true)));
    check(
        "http.status:[500 TO 599}",
        LogFilter::range(field(), bound("500", true), bound("599", false)),
    );
    check("http.status:{* TO 5]", LogFilter::range(field(), None, bound("5", true)));
    check(
        "k:[\"a b\" TO c]",
        LogFilter::range(Field::named("k"), bound("a b", true), bound("c", true)),
    );
}

#[test]
fn prefixes_and_presence() {
    check("pay*", LogFilter::prefix(Field::Body, "pay"));
    check("service:check*", LogFilter::StartsWith(Field::Service, "check".into()));
    check("exception.type:*", LogFilter::Exists(Field::named("exception.type")));
}

#[test]
fn errors_name_the_place_and_the_remedy() {
    fails("a (b", 2, "not closed");
    fails("a)", 1, "without an opening");
    fails("()", 1, "nothing before");
    fails("a AND", 5, "missing");
    fails("OR b", 0, "stands where a word should");
    fails("\"open", 0, "quote is not closed");
    fails("größe \"open", 6, "quote is not closed");
    fails("field:", 6, "value is missing");
    fails("field: x", 6, "no space after the colon");
    fails("a*b", 1, "may only end a word");
    fails("-", 1, "missing");
    fails("...", 0, "no word");
    fails("k:[1 2]", 5, "TO");
    fails("k:[1 TO 2", 2, "not closed");
    fails("k:>", 3, "missing after the comparison");
    fails("trace_id:12", 9, "32 hex digits");
}

#[test]
fn deep_nesting_and_too_many_terms_are_errors() {
    let deep = format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(parse(&deep).unwrap_err().message.contains("too deep"));
    assert!(parse(&"-".repeat(5_000)).unwrap_err().message.contains("too deep"));
    assert!(parse(&"NOT ".repeat(3_000)).unwrap_err().message.contains("too deep"));
    assert!(parse(&"a ".repeat(600)).unwrap_err().message.contains("too many terms"));
    assert!(parse(&"a".repeat(20_000)).unwrap_err().message.contains("too long"));
    assert!(parse(&"a ".repeat(500)).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "[a*:\"()\\[\\]{}<>=+\\\\ é-]{0,40}|.{0,40}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.position <= text.chars().count());
        }
    }
}
