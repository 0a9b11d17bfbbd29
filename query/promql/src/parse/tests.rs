use super::*;

fn ok(query: &str) -> Expr {
    parse(query, ParseOptions::ALL).unwrap_or_else(|e| panic!("{query}: {e}"))
}

/// A query and how it is written again, with parentheses to show how it was grouped.
fn check(query: &str, printed: &str) {
    assert_eq!(ok(query).to_string(), printed, "{query}");
}

fn fails(query: &str, message: &str) {
    match parse(query, ParseOptions::ALL) {
        Ok(expr) => panic!("{query} parsed as {expr}"),
        Err(e) => assert_eq!(e.to_string(), message, "{query}"),
    }
}

fn grouped(expr: &Expr) -> String {
    match expr {
        Expr::Binary(b) => {
            format!("({} {} {})", grouped(&b.left), b.op.as_str(), grouped(&b.right))
        }
        Expr::Unary(u) => format!("(-{})", grouped(&u.expr)),
        other => other.to_string(),
    }
}

#[test]
fn operators_bind_by_precedence() {
    for (query, want) in [
        ("a + b * c", "(a + (b * c))"),
        ("a * b + c", "((a * b) + c)"),
        ("a ^ b ^ c", "(a ^ (b ^ c))"),
        ("-a ^ 2", "(-(a ^ 2))"),
        ("-a * 2", "((-a) * 2)"),
        ("a - b - c", "((a - b) - c)"),
        ("a or b and c", "(a or (b and c))"),
        ("a > b + 1 and c", "((a > (b + 1)) and c)"),
        ("2 ^ -1 * a", "((2 ^ -1) * a)"),
        ("a offset 5m + 3", "(a offset 5m + 3)"),
        ("a </ 2 + 1", "(a </ (2 + 1))"),
        ("a atan2 b * c", "((a atan2 b) * c)"),
    ] {
        assert_eq!(grouped(&ok(query)), want, "{query}");
    }
}

#[test]
fn queries_print_as_prometheus_prints_them() {
    check("sum  by(b,a)(rate(x[5m]))", "sum by (b, a) (rate(x[5m]))");
    check("sum(x) without (a)", "sum without (a) (x)");
    check("topk(5,x)", "topk(5, x)");
    check("a{c='d',b!~\"e\"}", r#"a{b!~"e",c="d"}"#);
    check(r#"{"a.b", "c.d"="e"}"#, r#"{"c.d"="e",__name__="a.b"}"#);
    check("a / on(b) group_left(c) d", "a / on (b) group_left (c) d");
    check("a == bool ignoring(x) b", "a == bool ignoring (x) b");
    check("a[5m:1m] offset 1h @ 10", "a[5m:1m] @ 10.000 offset 1h");
    check("a offset -5m @ start()", "a @ start() offset -5m");
    check("rate(a[5m] smoothed)", "rate(a[5m] smoothed)");
    check("a + fill(0) b", "a + fill (0) b");
    check("a + fill_left(1) fill_right(-2) b", "a + fill_left (1) fill_right (-2) b");
    check("a[step()*2]", "a[step() * 2]");
    check("a[max_of(step(),5m)]", "a[max_of(step(), 5m)]");
    check("a offset (5m-1m)", "a offset (5m - 1m)");
    check("1_000 + 0x10 + 1h", "1000 + 16 + 1h");
    check("-Inf", "-Inf");
    check("fill + fill_left", "fill + fill_left");
    check("start() + by{a='b'}", r#"start() + by{a="b"}"#);
}

#[test]
fn long_queries_are_broken_into_lines() {
    let long = "x".repeat(60);
    let query = format!("sum by (a) (rate({long}[5m])) / sum(rate({long}[5m]))");
    let want = format!("  sum by (a) (rate({long}[5m]))\n/\n  sum(rate({long}[5m]))");
    assert_eq!(prettify(&ok(&query)), want);
}

#[test]
fn mistakes_are_named_with_their_position() {
    fails("", "1:1: parse error: no expression found in input");
    fails("sum(", "1:5: parse error: unclosed left parenthesis");
    fails("a +", "1:4: parse error: unexpected end of input");
    fails("a b", "1:3: parse error: unexpected identifier \"b\"");
    fails("foo(a)", "1:1: parse error: unknown function with name \"foo\"");
    fails(
        "rate(a)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    );
    fails(
        "{a=''}",
        "1:1: parse error: vector selector must contain at least one non-empty matcher",
    );
    fails("a{b='c'", "1:8: parse error: unexpected end of input inside braces");
    fails("1 > 2", "1:3: parse error: comparisons between scalars must use BOOL modifier");
    fails(
        "a and 1",
        "1:1: parse error: set operator \"and\" not allowed in binary scalar expression",
    );
    fails("a[5m] offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times");
    fails("a[0s]", "1:3: parse error: duration must be greater than 0");
    fails("sum by (a", "1:10: parse error: unclosed left parenthesis");
    fails(
        "topk(a)",
        "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
    );
    fails(
        "{a='1' or b='2'}",
        "1:8: parse error: unexpected identifier \"or\" in label matching, expected \",\" or \"}\"",
    );
    fails("a\n+ +", "2:4: parse error: unexpected end of input");
}

#[test]
fn experimental_parts_are_off_by_default() {
    for query in
        ["mad_over_time(a[5m])", "a[5m*2]", "rate(a[5m] anchored)", "a + fill(0) b", "limitk(1, a)"]
    {
        assert!(parse(query, ParseOptions::default()).is_err(), "{query}");
        ok(query);
    }
}

#[test]
fn deep_nesting_is_refused_instead_of_overflowing_the_stack() {
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(parse(&deep, ParseOptions::ALL).is_err());
    let chain = vec!["1"; 100_000].join("+");
    assert!(parse(&chain, ParseOptions::ALL).is_err());
    let signs = format!("{}1", "-".repeat(100_000));
    assert!(parse(&signs, ParseOptions::ALL).is_err());
}
