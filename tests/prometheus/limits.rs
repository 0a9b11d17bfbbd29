//! Queries of death: each limit says which setting it is, memory stays bounded, and other queries are answered.

use crate::remote::Remote;
use std::fmt::Write;
use std::time::Duration;

/// How long a test waits for an answer that must come, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// `series` series of `x` with a label of some length, ten samples a minute apart.
fn many(series: usize) -> String {
    let mut script = "load 1m\n  up 1x9\n".to_owned();
    for i in 0..series {
        let _ =
            writeln!(script, "  x{{i=\"{i}\", path=\"/aaaaaaaaaaaaaaaaaaaaaaaa/{i}\"}} {i}+1x9");
    }
    script
}

fn is_answered(remote: &Remote) {
    let answer = remote.get("query", &[("query", "sum(up)"), ("time", "60")]);
    assert_eq!(answer.data()["result"][0]["value"][1], "1");
}

#[test]
fn every_limit_says_which_setting_it_is() {
    let remote = Remote::with(
        &many(60),
        &[
            "--promql-samples-max=500",
            "--promql-series-max=50",
            "--promql-steps-max=100",
            "--promql-timeout=20s",
        ],
    );
    let all = r#"{__name__=~".+"}"#;
    for (path, parameters, status, kind, setting) in [
        ("query", &[("query", all), ("time", "60")][..], 422, "execution", "promql-series-max"),
        ("query", &[("query", "x"), ("time", "60")], 422, "execution", "promql-series-max"),
        ("series", &[("match[]", all)], 422, "execution", "promql-series-max"),
        ("label/path/values", &[("match[]", all)], 422, "execution", "promql-series-max"),
        (
            "query",
            &[("query", r#"count_over_time(x{i=~"[1-5]."}[10m])"#), ("time", "540")],
            422,
            "execution",
            "promql-samples-max",
        ),
        (
            "query_range",
            &[("query", r#"x{i=~"1."}"#), ("start", "0"), ("end", "99"), ("step", "1")],
            422,
            "execution",
            "promql-samples-max",
        ),
        (
            "query_range",
            &[("query", "up"), ("start", "0"), ("end", "100"), ("step", "1")],
            422,
            "execution",
            "promql-steps-max",
        ),
        (
            "query_range",
            &[("query", "up"), ("start", "0"), ("end", "11000"), ("step", "1")],
            400,
            "bad_data",
            "promql-steps-max",
        ),
        (
            "query",
            &[("query", "up"), ("time", "60"), ("timeout", "0.000001")],
            503,
            "timeout",
            "promql-timeout",
        ),
    ] {
        let (got, message) = remote.get(path, parameters).error(status);
        assert_eq!(got, kind, "{path} {parameters:?}: {message}");
        assert!(message.contains(setting), "{path} {parameters:?}: {message}");
        is_answered(&remote);
    }
}

#[test]
fn queries_of_death_end_in_an_error_while_others_are_answered() {
    const MEMORY_MIB: u64 = 128;
    let remote = Remote::with(&many(3_000), &[&format!("--memory-limit={MEMORY_MIB}MiB")]);
    is_answered(&remote);
    let before = remote.server.peak_memory_bytes();

    let deep = "(".repeat(150) + "1" + &")".repeat(150);
    let wide = vec!["vector(1)"; 600].join("+");
    let steps = [("start", "0"), ("end", "10999"), ("step", "1")];
    let of_range = |query: &str| -> (u16, String) {
        let mut parameters = vec![("query", query)];
        parameters.extend(steps);
        let (_, message) = match remote.get("query_range", &parameters) {
            answer if answer.status == 400 => answer.error(400),
            answer => answer.error(422),
        };
        (remote.get("query_range", &parameters).status, message)
    };
    for query in [
        // Every series at 11,000 steps.
        r#"{__name__=~".+"}"#,
        "rate(x[5m])",
        "x * on(i) x",
        "x * on() group_left() up",
        "x @ 60",
        r#"count_values("v", x)"#,
        r#"label_replace(x, "j", "$1", "path", "((.*)*)*") + on(j) x"#,
        // Points that nobody stored.
        "max_over_time(vector(time())[10000d:1ms])",
        "sum_over_time(sum_over_time(vector(time())[1d:1s])[1000d:1s])",
        "absent_over_time(nothing[1d:1ms])",
    ] {
        let (status, message) = of_range(query);
        assert_eq!(status, 422, "{query}: {message}");
        assert!(message.contains("(setting promql-samples-max)"), "{query}: {message}");
        is_answered(&remote);
    }
    for query in [
        // Patterns that would take gigabytes, or for ever elsewhere.
        r#"x{path=~"(((a{1,100}){1,100}){1,100}){1,100}"}"#,
        r#"x{path=~"(\\pL{1,1000}){1,1000}"}"#,
        &deep,
        &wide,
    ] {
        let (status, message) = of_range(query);
        assert_eq!(status, 400, "{query}: {message}");
        is_answered(&remote);
    }
    // A slow pattern over all values is just a query.
    let slow = r#"count(x{path=~"/(a?){24}a{24}/.*|((a*)*)*b"})"#;
    let answer = remote.get("query", &[("query", slow), ("time", "60")]);
    assert_eq!(answer.data()["result"][0]["value"][1], "3000");

    let grown = remote.server.peak_memory_bytes().saturating_sub(before);
    assert!(grown < MEMORY_MIB << 20, "{} MiB more than before", grown >> 20);
}

/// 11,000 medians of 100,000 points each: minutes of work.
const SLOW: [(&str, &str); 4] = [
    ("query", "quantile_over_time(0.5, vector(time())[1000s:10ms])"),
    ("start", "0"),
    ("end", "10999"),
    ("step", "1"),
];

#[test]
fn a_query_whose_client_went_away_makes_room_for_others() {
    let remote = Remote::with("load 1m\n  up 1x9\n", &["--promql-queries-max=1"]);
    let url = format!("{}/prometheus/api/v1/query_range", remote.server.http);
    let slow = remote.client.get(url).query(&SLOW);
    remote.runtime.block_on(async {
        // Long enough to be under way, and then the connection is closed.
        let gone = tokio::time::timeout(Duration::from_millis(500), slow.send()).await;
        assert!(gone.is_err(), "the query was not slow");
    });
    let url = format!("{}/prometheus/api/v1/query", remote.server.http);
    let next = remote.client.get(url).query(&[("query", "up"), ("time", "60")]).timeout(PATIENCE);
    let status = remote.runtime.block_on(async { next.send().await.unwrap().status() });
    assert_eq!(status, 200);
}

#[test]
fn large_queries_side_by_side_leave_room_for_small_ones() {
    let remote = Remote::with(&many(500), &["--promql-timeout=10s"]);
    let url = format!("{}/prometheus/api/v1/query_range", remote.server.http);
    let small = format!("{}/prometheus/api/v1/query", remote.server.http);
    remote.runtime.block_on(async {
        let mut large = tokio::task::JoinSet::new();
        for _ in 0..4 {
            large.spawn(remote.client.get(&url).query(&SLOW).send());
        }
        for _ in 0..20 {
            let query = [("query", "sum(up)"), ("time", "60")];
            let answer = remote.client.get(&small).query(&query).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        }
        while let Some(answer) = large.join_next().await {
            let answer = answer.unwrap().unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            // Done, out of time, or together beyond the memory that queries have.
            if status != 200 {
                assert!(status == 503 || status == 422, "{status}: {text}");
                assert!(text.contains("promql-timeout") || text.contains("memory-limit"), "{text}");
            }
        }
    });
}
